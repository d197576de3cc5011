"""Train five small networks on digits and save each in every way Keras has.

Runs in the toolchain's interpreter: ``keras_models.py DIGITS.npz FOLDER``. Writes
``NAME.keras``, ``NAME.h5``, ``NAME_saved/`` and ``truth.json`` with Keras' own accuracy.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
from keras import layers


def cnn() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.1),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="cnn",
    )


def mobile() -> keras.Model:
    """Depthwise separable blocks with a shortcut, as MobileNet's."""
    image = keras.Input((8, 8, 1), name="image")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(image)
    x = layers.Conv2D(16, 3, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x))
    for wide, out, stride in ((32, 16, 1), (48, 24, 2)):
        y = layers.Conv2D(wide, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(y))
        y = layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(y))
        y = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(out, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if stride == 1 else y
    x = layers.SeparableConv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="digit")(x), name="mobile")


def lstm() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8), name="rows"),
            layers.LSTM(32, return_sequences=True),
            layers.LSTM(24, return_sequences=True),
            layers.Flatten(),
            layers.Dense(10, name="digit"),
        ],
        name="lstm",
    )


def gru() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8), name="rows"),
            layers.Bidirectional(layers.GRU(24, return_sequences=True)),
            layers.GRU(24, reset_after=False),
            layers.Dense(10, name="digit"),
        ],
        name="gru",
    )


def transformer() -> keras.Model:
    """Two blocks of attention over the eight rows, each with its place."""
    rows = keras.Input((8, 8), name="rows")
    x = layers.EinsumDense("abc,cd->abd", (8, 32), bias_axes="bd", name="place")(rows)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(32)(layers.Dense(64, activation="gelu")(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(rows, layers.Dense(10, name="digit")(x), name="transformer")


MODELS = {"cnn": cnn, "mobile": mobile, "lstm": lstm, "gru": gru, "transformer": transformer}
EPOCHS = {"cnn": 15, "mobile": 12, "lstm": 10, "gru": 14, "transformer": 15}


def main(digits: Path, folder: Path) -> None:
    with np.load(digits) as arrays:
        x_train, y_train = arrays["x_train"], arrays["y_train"]
        x_test, y_test = arrays["x_test"], arrays["y_test"]
    truth = {}
    for name, make in MODELS.items():
        keras.utils.set_random_seed(1)
        model = make()
        flat = len(model.inputs[0].shape) == 3
        shape = (lambda x: x) if flat else (lambda x: x[..., None])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=name != "cnn")
        model.compile(keras.optimizers.Adam(0.006), loss, jit_compile=False)
        model.fit(shape(x_train), y_train, batch_size=96, epochs=EPOCHS[name], verbose=0)
        said = model.predict(shape(x_test), batch_size=512, verbose=0).argmax(axis=1)
        truth[name] = float((said == y_test).mean())
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.export(folder / f"{name}_saved", verbose=False)
    (folder / "truth.json").write_text(json.dumps(truth))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
