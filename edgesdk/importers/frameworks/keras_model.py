"""Keras models, from their files or from the user's process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgesdk.importers.frameworks import keras_files
from edgesdk.importers.frameworks.tensorflow_inputs import Taken
from edgesdk.importers.frameworks.tensorflow_source import Source, one_line, versions_of
from edgesdk.importers.job import CannotExport, Job

__all__ = ["describe_keras", "load_keras", "read_description"]


def read_description(job: Job) -> tuple[keras_files.KerasFile, tuple[str, ...]]:
    """Read what a Keras file describes, and the classes it needs that are not Keras' own.

    Raises:
        CannotExport: It is damaged, or runs code and is not trusted.
    """
    path = Path(job.source)
    file = keras_files.read_keras(path) if job.kind == "keras" else keras_files.read_h5(path)
    return file, keras_files.check_classes(path.name, file, trust=job.trust)


def load_keras(job: Job, folder: Path) -> Any:
    """Load a Keras file that was read before and found to hold a model and nothing else."""
    import keras

    path = Path(job.source)
    job.on_step("reading the description")
    archive = job.kind == "keras"
    file, foreign = read_description(job)
    if foreign:
        raise _foreign(path.name, foreign, file.version)
    if archive:
        keras_files.check_weights(path)
    job.on_step("loading the model")
    # Keras goes by the name's ending, and ours was told by content.
    link = folder / ("model.keras" if archive else "model.h5")
    if not archive and file.version.startswith("2."):
        _copy_as_new(path, link, file)
    else:
        link.symlink_to(path.resolve())
    try:
        return keras.models.load_model(link, compile=False, safe_mode=not job.trust)
    except Exception as error:
        raise _not_loaded(path.name, file.version, error) from error


def _copy_as_new(path: Path, copy: Path, file: keras_files.KerasFile) -> None:
    """Copy an ``.h5`` file of Keras 2 with its description in words of Keras 3."""
    import h5py

    try:
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as changed:
            changed.attrs["model_config"] = keras_files.without_old_words(file.config)
    except (OSError, RuntimeError, ValueError, RecursionError) as error:
        raise CannotExport(
            f"cannot read {path.name}, written by Keras {file.version}: {one_line(error)}",
            hint="is there room for a copy of it in the folder for temporary files?",
        ) from error


def _foreign(name: str, classes: Sequence[str], version: str) -> CannotExport:
    """What to say of classes that are not Keras' own, or not this Keras'."""
    import keras

    ours = keras.__version__
    if all(one.startswith(("keras.", "tf_keras.")) for one in classes):
        return CannotExport(
            f"cannot import {name}: it names {', '.join(classes[:5])}, which is no part of a "
            f"model in Keras {ours} (the file is of {version or 'no version that it tells'})",
            hint="if it was saved by another Keras, export a SavedModel from that one "
            "(model.export('folder')) and import that; else do not load it",
            classes=list(classes),
            written_by=version,
            read_by=ours,
        )
    return CannotExport(
        f"cannot import {name}: it needs {', '.join(classes[:5])}, which is not Keras' own",
        hint="the file holds the name of it and not its code. From the program that has it, "
        "export a SavedModel (model.export('folder')) and import that, or call "
        "edgesdk.from_keras(model)",
        classes=list(classes),
    )


def _not_loaded(name: str, version: str, error: Exception) -> CannotExport:
    import keras

    said = one_line(error, 100_000)
    for mark in ("Could not locate function '", "Could not locate class '", "Unknown layer: '"):
        if mark in said:
            return _foreign(name, [said.split(mark, 1)[1].split("'", 1)[0]], version)
    ours = keras.__version__
    cause = said.rsplit("Exception encountered: ", 1)[-1][:300]
    other = bool(version) and version.split(".")[:2] != ours.split(".")[:2]
    told = f", written by Keras {version} and read by Keras {ours}" if version else ""
    return CannotExport(
        f"cannot load {name}{told}: {cause}",
        hint="export a SavedModel (model.export('folder')) from the Keras that wrote it, and "
        "import that: it needs no Keras"
        if other
        else "is the file whole? copy it again, or save the model again",
        written_by=version,
        read_by=ours,
    )


def describe_keras(job: Job, model: Any) -> Source:
    """What a Keras model takes and gives, and how it is called."""
    import keras
    import tensorflow as tf

    if not callable(model) or not hasattr(model, "layers"):
        raise CannotExport(
            f"cannot export {job.name}: it is no Keras model, but of class "
            f"{type(model).__name__}",
            hint="give the keras.Model itself",
        )
    specs = [
        (one.name, tuple(one.shape), one.dtype) for one in getattr(model, "inputs", ()) or ()
    ]
    if not specs:
        specs = _specs_of_unbuilt(job)
    inputs = tuple(
        Taken(name=name.split(":")[0], shape=shape, dtype=tf.as_dtype(dtype).name)
        for name, shape, dtype in specs
    )
    struct = getattr(model, "_inputs_struct", None)

    def call(values: Mapping[str, Any]) -> list[Any]:
        flat = [values[one.name] for one in inputs]
        if struct is not None:
            packed = keras.tree.pack_sequence_as(struct, flat)
        else:
            packed = flat if len(flat) > 1 else flat[0]
        return list(keras.tree.flatten(model(packed, training=False)))

    return Source(
        inputs=inputs,
        outputs=_output_names_of(model),
        call=call,
        versions=versions_of("keras", "tensorflow"),
        layers=tuple(str(one.name) for one in getattr(model, "layers", ())),
    )


def _specs_of_unbuilt(job: Job) -> list[tuple[str, tuple[int | None, ...], Any]]:
    """Inputs of a model that was never told its shapes: from the job's own."""
    if job.examples:
        names = ["input"] if len(job.examples) == 1 else []
        names = names or [f"input_{index}" for index in range(len(job.examples))]
        return [
            (name, (None, *one.shape[1:]), one.dtype)
            for name, one in zip(names, job.examples, strict=True)
        ]
    if not job.shapes:
        raise CannotExport(
            f"cannot export {job.name}: the model does not say what it takes",
            hint="give its shape (--shape 1,224,224,3), or begin it with keras.Input",
        )
    return [(name or "input", shape, "float32") for name, shape in job.shapes.items()]


def _output_names_of(model: Any) -> tuple[str, ...]:
    """Names of what a model gives: its own, else that of its last layer."""
    names = [str(one) for one in getattr(model, "output_names", ()) or ()]
    if not names:
        count = len(getattr(model, "outputs", ()) or ()) or 1
        layers = getattr(model, "layers", ())
        last = str(layers[-1].name) if layers and count == 1 else "output"
        names = [last] if count == 1 else [f"{last}_{index}" for index in range(count)]
    seen: dict[str, int] = {}
    given = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        given.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(given)
