"""One small network for each kind of layer that people use, exported in this process.

Runs in the toolchain's interpreter: ``keras_layers.py FOLDER``. Each network has a folder of
its own with the exporter's answer, as the core reads it: once with a batch of one, whose layers
are traced too, and once with a free batch.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).parents[3]))

import keras
import numpy as np
from keras import layers, ops

from edgesdk.importers.exchange import perform_request

ROWS, PICTURE = (8, 6), (12, 10, 3)


def net(shape: tuple[int | None, ...], *inside: Any, dtype: str = "float32") -> keras.Model:
    return keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *inside])


def two_inputs() -> keras.Model:
    a, b = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    return keras.Model([a, b], layers.Dense(2, name="score")(layers.Concatenate()([a, b])))


def named_inputs() -> keras.Model:
    taken = {"one": keras.Input((4,), name="one"), "two": keras.Input((3,), name="two")}
    mixed = layers.Dense(3)(taken["one"]) * taken["two"]
    return keras.Model(taken, {"sum": ops.sum(mixed, axis=-1), "all": mixed})


def two_outputs() -> keras.Model:
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, name="first")(x)
    return keras.Model(x, [y, layers.Dense(2, name="second")(y)])


def words() -> keras.Model:
    ids = keras.Input((16,), dtype="int32", name="ids")
    x = layers.Embedding(50, 12)(ids)
    return keras.Model(ids, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))


def masked(recurrent: layers.Layer) -> keras.Model:
    ids = keras.Input((9,), dtype="int32", name="ids")
    return keras.Model(ids, recurrent(layers.Embedding(20, 5, mask_zero=True)(ids)))


def states() -> keras.Model:
    """An encoder whose states begin a decoder's."""
    x = keras.Input(ROWS, name="x")
    _, h, c = layers.LSTM(7, return_state=True)(x)
    return keras.Model(x, layers.LSTM(7, return_sequences=True)(x, initial_state=[h, c]))


def causal() -> keras.Model:
    x = keras.Input(ROWS, name="x")
    y = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True)
    return keras.Model(x, layers.LayerNormalization()(x + y))


def grouped() -> keras.Model:
    x = keras.Input(ROWS, name="x")
    return keras.Model(x, layers.GroupQueryAttention(3, 4, 2)(x, x))


def shortcut() -> keras.Model:
    x = keras.Input(PICTURE, name="x")
    y = layers.Conv2D(3, 3, padding="same", activation="swish")(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(3, 1, activation="sigmoid")(squeezed)
    return keras.Model(x, layers.Add()([x, layers.Multiply()([y, gate])]))


class Subclassed(keras.Model):
    """Written as a class, with a branch on the training flag."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.inner = layers.Dense(5, activation="relu")
        self.outer = layers.Dense(2)

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.inner(x)
        return self.outer(y + 1 if training else y)


ACTIVATIONS = [
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "softsign",
    "tanh",
    "sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "mish",
    "exponential",
    "softmax",
    "log_softmax",
]

NETS = {
    "dense": lambda: net((4,), layers.Dense(3)),
    "conv1d": lambda: net(ROWS, layers.Conv1D(5, 3, padding="causal", dilation_rate=2)),
    "conv2d": lambda: net(PICTURE, layers.Conv2D(4, 3, strides=2, padding="same")),
    "conv3d": lambda: net((5, 6, 7, 2), layers.Conv3D(3, 2)),
    "grouped_conv": lambda: net((6, 6, 4), layers.Conv2D(8, 3, groups=2)),
    "transposed": lambda: net(PICTURE, layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "transposed1d": lambda: net(ROWS, layers.Conv1DTranspose(4, 3, strides=2)),
    "depthwise": lambda: net(PICTURE, layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable": lambda: net(PICTURE, layers.SeparableConv2D(4, 3, padding="same")),
    "separable1d": lambda: net(ROWS, layers.SeparableConv1D(4, 3)),
    "pools": lambda: net(
        PICTURE, layers.MaxPooling2D(), layers.AveragePooling2D(2, padding="same")
    ),
    "pools1d": lambda: net(ROWS, layers.MaxPooling1D(), layers.AveragePooling1D(2)),
    "global_max": lambda: net(PICTURE, layers.GlobalMaxPooling2D()),
    "norms": lambda: net(PICTURE, layers.BatchNormalization(), layers.GroupNormalization(3)),
    "layer_norm": lambda: net(ROWS, layers.LayerNormalization()),
    "rms_norm": lambda: net(ROWS, layers.RMSNormalization()),
    "unit_norm": lambda: net(ROWS, layers.UnitNormalization()),
    "upsampled": lambda: net(PICTURE, layers.UpSampling2D(2, interpolation="bilinear")),
    "nearest": lambda: net(PICTURE, layers.UpSampling2D((2, 3))),
    "resized": lambda: net(PICTURE, layers.Resizing(7, 9)),
    "rescaled": lambda: net(PICTURE, layers.Rescaling(1 / 127.5, offset=-1)),
    "normalized": lambda: net(
        (3,), layers.Normalization(mean=[1.0, 2, 3], variance=[1.0, 4, 9])
    ),
    "cropped": lambda: net(PICTURE, layers.Cropping2D(1), layers.ZeroPadding2D(2)),
    "reshaped": lambda: net(ROWS, layers.Permute((2, 1)), layers.Reshape((4, 12))),
    "flat": lambda: net(PICTURE, layers.Flatten(), layers.RepeatVector(3)),
    "prelu": lambda: net(ROWS, layers.PReLU()),
    "einsum": lambda: net(ROWS, layers.EinsumDense("abc,cde->abde", (8, 2, 3), bias_axes="de")),
    "spread": lambda: net(ROWS, layers.TimeDistributed(layers.Dense(3))),
    "noise": lambda: net(ROWS, layers.GaussianNoise(0.5), layers.SpatialDropout1D(0.5)),
    "lstm": lambda: net(ROWS, layers.LSTM(5)),
    "lstm_back": lambda: net(ROWS, layers.LSTM(5, go_backwards=True, return_sequences=True)),
    "lstm_both": lambda: net(ROWS, layers.Bidirectional(layers.LSTM(5))),
    "lstm_hard": lambda: net(ROWS, layers.LSTM(5, recurrent_activation="hard_sigmoid")),
    "lstm_bare": lambda: net(ROWS, layers.LSTM(5, use_bias=False)),
    "gru": lambda: net(ROWS, layers.GRU(5)),
    "gru_before": lambda: net(ROWS, layers.GRU(5, reset_after=False)),
    "gru_relu": lambda: net(ROWS, layers.GRU(6, activation="relu")),
    "rnn": lambda: net(ROWS, layers.SimpleRNN(5, return_sequences=True)),
    "rnn_cells": lambda: net(ROWS, layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)])),
    "unrolled": lambda: net(ROWS, layers.GRU(5, unroll=True)),
    "conv_lstm": lambda: net((4, 6, 6, 2), layers.ConvLSTM2D(3, 3)),
    "masked_lstm": lambda: masked(layers.LSTM(5)),
    "masked_gru": lambda: masked(layers.GRU(5, return_sequences=True)),
    "states": states,
    "open_gru": lambda: net((None, 6), layers.GRU(5, return_sequences=True)),
    "open_lstm": lambda: net((None, 6), layers.LSTM(5)),
    "words": words,
    "attention": causal,
    "grouped_attention": grouped,
    "additive": lambda: _attended(layers.AdditiveAttention()),
    "dot": lambda: _attended(layers.Attention(use_scale=True)),
    "shortcut": shortcut,
    "two_inputs": two_inputs,
    "named_inputs": named_inputs,
    "two_outputs": two_outputs,
    **{name: (lambda name=name: net(ROWS, layers.Activation(name))) for name in ACTIVATIONS},
}
#: A model of a class says nothing of what it takes, and a sequence may have any length.
SHAPES: dict[str, Any] = {
    "subclassed": {"": [1, 4]},
    "open_gru": {"x": [1, None, 6]},
    "open_lstm": {"": [1, None, 6]},
}


def _attended(layer: layers.Layer) -> keras.Model:
    x = keras.Input(ROWS, name="x")
    return keras.Model(x, layer([layers.Dense(5)(x), layers.Dense(5)(x)]))


def main(folder: Path) -> None:
    keras.utils.set_random_seed(3)
    made: dict[str, keras.Model] = {name: make() for name, make in NETS.items()}
    made["subclassed"] = Subclassed()
    made["subclassed"](np.zeros((1, 4), np.float32))
    for name, model in made.items():
        for weight in model.weights:  # a bias of zeros proves nothing
            if weight.dtype == "float32":
                noise = np.random.default_rng(1).uniform(0.1, 0.5, weight.shape)
                weight.assign(weight + noise.astype(np.float32))
        for free in (False, True)[: 1 if name in ACTIVATIONS else 2]:
            out = folder / (f"{name}_free" if free else name)
            out.mkdir()
            request = {
                "source": "",
                "kind": "keras-live",
                "name": name,
                "out": str(out),
                "shapes": SHAPES.get(name, {}),
                "opset": None,
                "dynamic": [one.name for one in getattr(model, "inputs", ()) or ()]
                if free
                else [],
                "trust": True,
                "examples": 0,
                "trace": not free,
                "exporter": __name__,
            }
            sys.modules[__name__].live = model  # type: ignore[attr-defined] # read by export
            answer = perform_request(request, lambda _: None)
            (out / "answer.json").write_text(json.dumps(answer))


def export(job: Any) -> Any:
    """What `perform_request` calls: the exporter, on the model that is at hand."""
    import dataclasses

    from edgesdk.importers.frameworks import tensorflow_model

    model = sys.modules[__name__].live  # type: ignore[attr-defined]
    return tensorflow_model.export(dataclasses.replace(job, source=model))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
