"""Sources that must be refused, made by TensorFlow itself and given to the exporter.

Runs in the toolchain's interpreter: ``keras_refusals.py FOLDER``; prints as JSON what the
exporter said of each. A source that writes a file would write ``FOLDER/ran``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
sys.path.insert(0, str(Path(__file__).parents[3]))

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgesdk.importers.frameworks.tensorflow_model import export
from edgesdk.importers.job import CannotExport, Job

FOLDER = Path(sys.argv[1])
RAN = FOLDER / "ran"


@keras.saving.register_keras_serializable(package="mine")
class Twice(layers.Layer):
    """A layer of the user's."""

    def call(self, x: Any) -> Any:
        return x * 2


def squared(x: Any) -> Any:
    return x * x


def net(*inside: Any) -> keras.Model:
    return keras.Sequential([keras.Input((4,), name="x"), *inside, layers.Dense(2)])


def saved(name: str, function: Any, *signatures: str) -> Path:
    """A SavedModel of one function of four numbers, under each of these names."""
    module = tf.Module()
    taken = [tf.TensorSpec([None, 4], tf.float32, "x")]
    module.f = tf.function(function, input_signature=taken)
    named = dict.fromkeys(signatures or ("serving_default",), module.f)
    tf.saved_model.save(module, str(FOLDER / name), signatures=named)
    return FOLDER / name


def writes(x: Any) -> Any:
    with tf.control_dependencies([tf.io.write_file(str(RAN), "it ran")]):
        return {"y": x * 2}


def reads(x: Any) -> Any:
    text = tf.io.read_file("/etc/hostname")
    return {"y": x + tf.cast(tf.strings.length(text), tf.float32)}


def calls(x: Any) -> Any:
    return {"y": tf.ensure_shape(tf.py_function(lambda v: v, [x], tf.float32), [None, 4])}


def prints(x: Any) -> Any:
    with tf.control_dependencies([tf.print("it ran", output_stream=f"file://{RAN}")]):
        return {"y": x * 2}


def splits(x: Any) -> Any:
    words = tf.strings.split(tf.constant(["a b c"])).flat_values
    return {"y": x * tf.strings.to_number(tf.strings.regex_replace(words, "[a-z]", "1"))[0]}


def worded(name: str) -> Path:
    """Takes text."""
    module = tf.Module()
    module.f = tf.function(
        lambda words: {"n": tf.strings.length(words)},
        input_signature=[tf.TensorSpec([None], tf.string, "words")],
    )
    tf.saved_model.save(module, str(FOLDER / name), signatures=module.f)
    return FOLDER / name


def tabled(name: str) -> Path:
    """Looks numbers up in a hash table."""
    module = tf.Module()
    keys, values = tf.constant([1, 2], tf.int64), tf.constant([10.0, 20.0])
    filled = tf.lookup.KeyValueTensorInitializer(keys, values)
    module.table = tf.lookup.StaticHashTable(filled, 0.0)
    module.f = tf.function(
        lambda ids: {"y": module.table.lookup(ids)},
        input_signature=[tf.TensorSpec([None], tf.int64, "ids")],
    )
    tf.saved_model.save(module, str(FOLDER / name), signatures=module.f)
    return FOLDER / name


def asseted(name: str) -> Path:
    """Looks words up in a file of them."""
    (FOLDER / "words.txt").write_text("one\ntwo\n")
    module = tf.Module()
    module.table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(FOLDER / "words.txt"),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        1,
    )
    module.f = tf.function(
        lambda words: {"y": module.table.lookup(words)},
        input_signature=[tf.TensorSpec([None], tf.string, "words")],
    )
    tf.saved_model.save(module, str(FOLDER / name), signatures=module.f)
    return FOLDER / name


def old_fashioned(name: str) -> Path:
    """A graph with a session, as TensorFlow 1 saved it."""
    old = tf.compat.v1
    with tf.Graph().as_default(), old.Session() as session:
        x = old.placeholder(tf.float32, [None, 4], "x")
        kernel = old.get_variable("kernel", [4, 2])
        y = tf.nn.relu(x @ kernel, name="y")
        session.run(old.global_variables_initializer())
        old.saved_model.simple_save(session, str(FOLDER / name), {"x": x}, {"y": y})
    return FOLDER / name


class Branching(keras.Model):
    """Branches in Python on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x: Any) -> Any:
        if x[0, 0] > 0:
            return self.inner(x)
        return self.inner(-x)


def kept(model: keras.Model, name: str) -> Path:
    model.save(FOLDER / name)
    return FOLDER / name


def cut(path: Path, name: str, share: float = 0.5) -> Path:
    """The first part of a file."""
    whole = path.read_bytes()
    (FOLDER / name).write_bytes(whole[: int(len(whole) * share)])
    return FOLDER / name


def cut_inside(folder: Path, name: str, inside: str) -> Path:
    """A folder in which one file is cut."""
    made = FOLDER / name
    shutil.copytree(folder, made)
    whole = (made / inside).read_bytes()
    (made / inside).write_bytes(whole[: len(whole) // 2])
    return made


def without(folder: Path, name: str, inside: str) -> Path:
    made = FOLDER / name
    shutil.copytree(folder, made)
    (made / inside).unlink()
    return made


def rewritten(path: Path, name: str, change: Callable[[str], str], member: str) -> Path:
    """A Keras archive in which one member reads otherwise."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(FOLDER / name, "w") as new:
        for each in old.namelist():
            data = old.read(each)
            new.writestr(each, change(data.decode()) if each == member else data)
    return FOLDER / name


def h5_with(path: Path, name: str, change: Callable[[h5py.File], None]) -> Path:
    shutil.copy(path, FOLDER / name)
    with h5py.File(FOLDER / name, "r+") as file:
        change(file)
    return FOLDER / name


def as_keras_2(file: h5py.File) -> None:
    """A recurrent layer as Keras 2 wrote it."""
    config = file.attrs["model_config"]
    assert '"unroll": false' in config
    file.attrs["model_config"] = config.replace(
        '"unroll": false', '"unroll": false, "time_major": false'
    )
    file.attrs["keras_version"] = "2.15.0"


def link_out(file: h5py.File) -> None:
    first = next(iter(file["model_weights"]))
    del file["model_weights"][first]
    file["model_weights"][first] = h5py.ExternalLink("/etc/hostname", "/")


def swell(file: h5py.File) -> None:
    file["model_weights"].create_dataset("large", shape=(2**40,), dtype="f4", chunks=(2**20,))


def ask(source: Any, kind: str, **choices: Any) -> dict[str, Any]:
    out = FOLDER / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    name = getattr(source, "stem", "live")
    try:
        done = export(Job(source=source, kind=kind, name=name, out=out, **choices))
    except CannotExport as error:
        return {"problem": str(error), "hint": error.hint, "facts": list(error.facts)}
    return {"problem": "", "notes": done.notes, "inputs": list(done.examples[0].inputs)}


def main() -> None:
    plain = kept(net(layers.Dense(3)), "plain.keras")
    plain_h5 = kept(net(layers.Dense(3)), "plain.h5")
    lambda_net = net(layers.Lambda(lambda x: x + 1, name="plus"))
    own, custom = net(Twice(name="tw")), net(layers.Dense(2, activation=squared))
    paths: dict[str, tuple[Path, str]] = {
        "lambda.keras": (kept(lambda_net, "lambda.keras"), "keras"),
        "lambda.h5": (kept(lambda_net, "lambda.h5"), "keras-h5"),
        "own.keras": (kept(own, "own.keras"), "keras"),
        "own.h5": (kept(own, "own.h5"), "keras-h5"),
        "function.keras": (kept(custom, "function.keras"), "keras"),
        "function.h5": (kept(custom, "function.h5"), "keras-h5"),
        "cut.keras": (cut(plain, "cut.keras"), "keras"),
        "cut.h5": (cut(plain_h5, "cut.h5"), "keras-h5"),
        "newer.keras": (
            rewritten(
                rewritten(
                    plain,
                    "between.keras",
                    lambda text: text.replace('"Dense"', '"DenseOfTomorrow"'),
                    "config.json",
                ),
                "newer.keras",
                lambda text: text.replace(keras.__version__, "9.1.0"),
                "metadata.json",
            ),
            "keras",
        ),
        "repacked.keras": (
            rewritten(plain, "repacked.keras", lambda text: text, "metadata.json"),
            "keras",
        ),
        "two.h5": (
            h5_with(
                kept(keras.Sequential([keras.Input((5, 4)), layers.GRU(3)]), "three.h5"),
                "two.h5",
                as_keras_2,
            ),
            "keras-h5",
        ),
        "link.h5": (h5_with(plain_h5, "link.h5", link_out), "keras-h5"),
        "large.h5": (h5_with(plain_h5, "large.h5", swell), "keras-h5"),
    }
    model = net(layers.Dense(3))
    model.save_weights(FOLDER / "only.weights.h5")
    paths["only.weights.h5"] = (FOLDER / "only.weights.h5", "keras-h5")
    double = saved("double", lambda x: {"y": x * 2})
    kernel = tf.Variable(np.ones((4, 256), np.float32))
    module = tf.Module()
    module.kernel = kernel
    module.f = tf.function(
        lambda x: {"y": x @ kernel}, input_signature=[tf.TensorSpec([None, 4], tf.float32, "x")]
    )
    tf.saved_model.save(module, str(FOLDER / "varied"), signatures=module.f)
    varied = FOLDER / "varied"
    data = "variables/variables.data-00000-of-00001"
    folders = {
        "writes": saved("writes", writes),
        "reads": saved("reads", reads),
        "calls": saved("calls", calls),
        "prints": saved("prints", prints),
        "splits": saved("splits", splits),
        "worded": worded("worded"),
        "tabled": tabled("tabled"),
        "asseted": asseted("asseted"),
        "two": saved("two", lambda x: {"y": x * 2}, "first", "second"),
        "double": double,
        "old_fashioned": old_fashioned("old_fashioned"),
        "varied": varied,
        "cut_graph": cut_inside(varied, "cut_graph", "saved_model.pb"),
        "cut_data": cut_inside(varied, "cut_data", data),
        "no_index": without(varied, "no_index", "variables/variables.index"),
        "no_graph": without(varied, "no_graph", "saved_model.pb"),
    }
    said: dict[str, Any] = {}
    for key, (path, kind) in paths.items():
        said[key] = ask(path, kind)
    for key, folder in folders.items():
        said[key] = ask(folder, "saved-model")
    said["ran"] = RAN.exists()
    said["trusted lambda.keras"] = ask(paths["lambda.keras"][0], "keras", trust=True)
    said["trusted lambda.h5"] = ask(paths["lambda.h5"][0], "keras-h5", trust=True)
    said["live own"] = ask(own, "keras-live", trust=True)
    said["live lambda"] = ask(lambda_net, "keras-live", trust=True)
    said["live branch"] = ask(Branching(), "keras-live", trust=True, shapes={"": (1, 4)})
    said["live none"] = ask(object(), "keras-live", trust=True)
    said["opset"] = ask(plain, "keras", opset=9)
    ids = keras.Sequential(
        [keras.Input((None,), dtype="int32", name="ids"), layers.Embedding(9, 4)]
    )
    said["open"] = ask(kept(ids, "ids.keras"), "keras")
    said["shaped"] = ask(FOLDER / "ids.keras", "keras", shapes={"": (1, 12)})
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
