"""Keras models and TensorFlow SavedModels to ONNX.

Kinds: ``keras`` (a ``.keras`` archive), ``keras-h5`` (a whole model in HDF5), ``saved-model``
(a folder) and ``keras-live`` (a model of the user's process). All four end in one traced
function, whose variables are folded in and which `tf_to_onnx` converts; `keras_files` and
`saved_model` read the files first and refuse what would run code.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.importers.frameworks import saved_model, tf_to_onnx
from edgesdk.importers.frameworks.keras_model import (
    describe_keras,
    load_keras,
    read_description,
)
from edgesdk.importers.frameworks.tensorflow_inputs import (
    Taken,
    example_inputs,
    fix_shapes,
    given_examples,
)
from edgesdk.importers.frameworks.tensorflow_source import Source, one_line, versions_of
from edgesdk.importers.job import CannotExport, Example, Exported, Job, Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = Mapping[str, NDArray[np.generic]]

__all__ = ["export", "refuse_early"]

_OURS = str(Path(__file__).parents[2])


def export(job: Job) -> Exported:
    """Export a Keras model or a SavedModel.

    Raises:
        CannotExport: See the module's parts; every error of the frameworks ends in one.
    """
    job.on_step("loading TensorFlow")
    _load_frameworks(job)
    with _opened(job) as source:
        return _export(job, source)


def refuse_early(job: Job) -> None:
    """Refuse what needs no TensorFlow to be refused.

    Raises:
        CannotExport: A Keras archive is damaged, or runs code and is not trusted.
    """
    if job.kind == "keras":
        read_description(job)


def _export(job: Job, source: Source) -> Exported:
    taken = fix_shapes(job, source.inputs)
    source = replace(source, inputs=taken)
    job.on_step("tracing")
    function = _trace(job.name, source)
    saved_model.refuse_strings(job.name, function.graph.as_graph_def())
    frozen = tf_to_onnx.freeze(function, [one.name for one in taken], source.outputs)
    if job.examples:
        sets = given_examples(job, taken)
    else:
        sets = example_inputs(taken, tf_to_onnx.smallest_table(frozen.graph))
    job.on_step("computing examples")
    examples = tuple(Example(inputs=one, outputs=_answers(job, source, one)) for one in sets)
    job.on_step("converting")
    named = tf_to_onnx.scopes(frozen) if job.trace else []
    model = tf_to_onnx.convert(
        frozen, name=job.name, opset=job.opset, also=[tensor for _, tensor in named]
    )
    layers = _layers(source, frozen, named, examples[0].inputs)
    path, opset = tf_to_onnx.save(model, job.out / "model.onnx", outputs=len(source.outputs))
    return Exported(
        model=path,
        opset=opset,
        versions={**source.versions, **versions_of("tf2onnx", "onnx", "numpy")},
        examples=examples,
        layers=layers,
        notes=source.notes,
    )


def _load_frameworks(job: Job) -> None:
    """Load all that is needed first, so that what is missing is told before work begins.

    Raises:
        ImportError: A package is not there.
        CannotExport: Keras runs on another backend, which cannot be changed any more.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("tensorflow", "keras", "onnx", "tf2onnx"):
        importlib.import_module(name)
    import keras

    if keras.backend.backend() != "tensorflow":
        raise CannotExport(
            f"cannot export {job.name}: Keras runs on {keras.backend.backend()} here",
            hint="save the model (model.save('model.keras')) and import the file; or set "
            "KERAS_BACKEND=tensorflow before Keras is loaded",
            backend=keras.backend.backend(),
        )


@contextmanager
def _opened(job: Job) -> Iterator[Source]:
    """The model of a job, for as long as its files are needed."""
    if job.kind == "saved-model":
        yield _from_saved_model(job)
    elif job.kind == "keras-live":
        yield describe_keras(job, job.source)
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield describe_keras(job, load_keras(job, Path(folder)))


def _from_saved_model(job: Job) -> Source:
    """What a SavedModel's signature takes and gives, and how it is called."""
    import tensorflow as tf

    folder = Path(job.source)
    if not folder.is_dir():
        raise CannotExport(
            f"cannot import {folder.name}: a SavedModel is a folder, and this is a file",
            hint="unpack it first, and name the folder that holds saved_model.pb",
        )
    job.on_step("reading the operators")
    file = saved_model.read_saved_model(folder, trust=job.trust)
    key = saved_model.pick_signature(folder.name, file.signatures)
    job.on_step("loading the model")
    try:
        loaded = tf.saved_model.load(str(folder))
        function = loaded.signatures[key]
    except Exception as error:
        said = one_line(error)
        raise CannotExport(
            f"cannot load {folder.name}, written by TensorFlow {file.version} and read by "
            f"{tf.__version__}: {said}",
            hint="is the folder whole? copy it again, or export the model again",
            written_by=file.version,
            read_by=tf.__version__,
        ) from error
    specs = function.structured_input_signature[1]
    inputs = tuple(
        Taken(
            name=name,
            shape=None if spec.shape.rank is None else tuple(spec.shape.as_list()),
            dtype=spec.dtype.name,
        )
        for name, spec in specs.items()
    )
    outputs = tuple(function.structured_outputs)

    def call(values: Mapping[str, Any]) -> list[Any]:
        # `loaded` owns the variables: named here, so that it lives as long as this does
        given = loaded.signatures[key](
            **{one.name: tf.convert_to_tensor(values[one.name]) for one in inputs}
        )
        return [given[name] for name in outputs]

    others = [one for one in file.signatures if one not in (key, "serve")]
    notes = (f"signature {key}; left out: {', '.join(others)}",) if others else ()
    return Source(
        inputs=inputs,
        outputs=outputs,
        call=call,
        versions={"tensorflow": tf.__version__, "written by tensorflow": file.version},
        notes=notes,
    )


def _trace(name: str, source: Source) -> Any:
    """The concrete function of a source, its shapes as they were fixed."""
    import tensorflow as tf

    specs = [tf.TensorSpec(one.shape, one.dtype) for one in source.inputs]
    names = [one.name for one in source.inputs]

    def model(*values: Any) -> list[Any]:
        return [tf.identity(one) for one in source.call(dict(zip(names, values, strict=True)))]

    try:
        return tf.function(
            model, input_signature=specs, autograph=False
        ).get_concrete_function()
    except Exception as error:
        said = one_line(error, 400)
        shapes = ", ".join(f"{one.name} {list(one.shape or ())}" for one in source.inputs)
        place = _place(error)
        where = f" (at {place})" if place else ""
        raise CannotExport(
            f"cannot trace {name} with {shapes}{where}: {said}",
            hint="does it branch on values in Python (write keras.ops.cond, tf.cond or "
            "keras.ops.where), or do the shapes not fit it (--shape NAME=1,...)?",
            place=place,
        ) from error


def _place(error: BaseException) -> str:
    """Where in the user's own code an error came up, "" where it has no part in it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        one
        for one in frames
        if "site-packages" not in one.filename and not one.filename.startswith(_OURS)
    ]
    return f"{own[-1].filename}:{own[-1].lineno} in {own[-1].name}" if own else ""


def _answers(job: Job, source: Source, inputs: Values) -> Values:
    """What the framework itself answers."""
    import numpy as np

    try:
        given = source.call(inputs)
    except Exception as error:
        shapes = ", ".join(f"{key} {list(value.shape)}" for key, value in inputs.items())
        raise CannotExport(
            f"cannot run {job.name} on {shapes}: {one_line(error)}",
            hint="give shapes that fit together (--shape NAME=1,...)",
        ) from error
    return {name: np.asarray(value) for name, value in zip(source.outputs, given, strict=True)}


def _layers(
    source: Source,
    frozen: tf_to_onnx.Frozen,
    named: Sequence[tuple[str, str]],
    inputs: Values,
) -> tuple[Layer, ...]:
    if not named:
        return ()
    values = tf_to_onnx.values_of(frozen, [tensor for _, tensor in named], inputs)
    return tuple(
        Layer(name=_layer_name(scope, source.layers), tensor=tensor, value=value)
        for (scope, tensor), value in zip(named, values, strict=True)
    )


def _layer_name(scope: str, layers: Sequence[str]) -> str:
    """The user's name of a layer, where the scope has one: Keras numbers each call of it."""
    told = []
    for part in scope.split("/"):
        stem, _, number = part.rpartition("_")
        told.append(stem if number.isdecimal() and stem in layers else part)
    known = [index for index, part in enumerate(told) if part in layers]
    return "/".join(told[known[0] :] if known else told)
