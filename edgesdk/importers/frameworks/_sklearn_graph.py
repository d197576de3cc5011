"""Have skl2onnx write the graph, then make its ends ones that a device can send.

skl2onnx keeps words as labels, calls decision values probabilities and leaves shapes open or
wrong. Here words become the numbers of their classes, outputs get names that say what they are
and the shapes that the framework's answers have.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgesdk.importers.frameworks._boosters import BoostedModel, register_boosters
from edgesdk.importers.frameworks._sklearn_examples import compares
from edgesdk.importers.job import CannotExport, Job

if TYPE_CHECKING:
    import onnx

__all__ = ["BATCH", "INPUT", "Converted", "convert", "finish_graph", "packages_in"]

INPUT = "input"
#: The name of the free leading extent.
BATCH = "batch"
_ML = "ai.onnx.ml"
#: What onnxruntime has had since 1.4, and the newest that skl2onnx's own converters all take.
_ML_VERSION = 3
_OPSET = 17
_NEWEST_OPSET = 22
_FLAT_LABELS = ("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier")
_MOST_ESTIMATORS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What skl2onnx wrote.

    Attributes:
        model: The graph, its outputs still called what skl2onnx calls them.
        tensors: By estimator inside (its ``id``), the name of what it gives.
        two_columns: Whether the decision of two classes is a column for each.
    """

    model: onnx.ModelProto
    tensors: Mapping[int, str]
    two_columns: bool


def packages_in(estimator: Any) -> set[str]:
    """Name the packages that an estimator and those inside it come from."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [estimator]
    while waiting and len(seen) < _MOST_ESTIMATORS:
        each = waiting.pop()
        if isinstance(each, (list, tuple)):
            waiting += each
        elif (
            hasattr(each, "get_params") and not isinstance(each, type) and id(each) not in seen
        ):
            seen.add(id(each))
            found.add(type(each).__module__.partition(".")[0])
            waiting += vars(each).values()
    return found


def convert(estimator: Any, job: Job, rows: int | None, width: int) -> Converted:
    """Write an estimator as ONNX.

    Args:
        estimator: Fitted.
        job: Its opset, and its name for the graph.
        rows: The batch, or None for any.
        width: Number of features.

    Raises:
        CannotExport: A part of it has no converter, or its converter fails.
    """
    opset = _OPSET if job.opset is None else job.opset
    if not 11 <= opset <= _NEWEST_OPSET:
        raise CannotExport(
            f"cannot import {job.name}: opset {opset} is asked for (skl2onnx writes 11 to "
            f"{_NEWEST_OPSET})",
            hint="leave --opset out",
        )
    try:
        with warnings.catch_warnings(), _plain_numbers():
            warnings.simplefilter("ignore")
            if isinstance(estimator, BoostedModel):
                return _lightgbm(estimator, job, opset, rows, width)
            register_boosters(packages_in(estimator))
            return _sklearn(estimator, job, opset, rows, width)
    except (CannotExport, ImportError, MemoryError):
        raise
    except Exception as exc:
        raise _not_converted(exc, estimator, job) from exc


def _sklearn(estimator: Any, job: Job, opset: int, rows: int | None, width: int) -> Converted:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    last = _last(estimator)
    scored = not hasattr(estimator, "predict_proba") and hasattr(estimator, "decision_function")
    wanted: list[dict[str, bool]] = [{"zipmap": False}, {}]
    if scored:
        wanted = [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}, *wanted]
    for index, options in enumerate(wanted):
        try:
            model, topology = convert_sklearn(
                estimator,
                name=job.name,
                initial_types=[(INPUT, FloatTensorType([rows, width]))],
                target_opset={"": opset, _ML: _ML_VERSION},
                options={id(last): options} if options else None,
                intermediate=True,
            )
        except NameError as exc:  # skl2onnx's word for an option that an estimator has not
            if index + 1 == len(wanted) or "ption" not in str(exc):
                raise
            continue
        break
    tensors = {
        id(operator.raw_operator): operator.outputs[0].onnx_name
        for operator in topology.unordered_operator_iterator()
        if operator.raw_operator is not None and operator.outputs
    }
    if compares(last):
        for step in getattr(estimator, "steps", ())[:-1]:
            _scale_exactly(model.graph, step[1], tensors.get(id(step[1]), ""))
    return Converted(model=model, tensors=tensors, two_columns="raw_scores" in options)


def _scale_exactly(graph: onnx.GraphProto, scaler: Any, tensor: str) -> None:
    """Write a scaler before trees in float64, as the framework computes it.

    Boosters' thresholds are values of the training data, so a row that meets one exactly falls
    to the other side where scaling rounds otherwise: with digits' whole numbers, 2 labels of
    100 became others.
    """
    import onnx

    parts = {
        "StandardScaler": ("with_mean", "mean_", "with_std"),
        "RobustScaler": ("with_centering", "center_", "with_scaling"),
    }.get(type(scaler).__name__)
    found = [at for at, node in enumerate(graph.node) if tensor and tensor in node.output]
    if parts is None or not found or graph.node[found[0]].op_type != "Scaler":
        return
    centred, middle, scaled = parts
    node = graph.node[found[0]]
    source, value = node.input[0], f"{tensor}.exact"
    new = [onnx.helper.make_node("Cast", [source], [value], value, to=onnx.TensorProto.DOUBLE)]
    for op, wanted, name in (("Sub", centred, middle), ("Div", scaled, "scale_")):
        if getattr(scaler, wanted) and getattr(scaler, name) is not None:
            constant = np.asarray(getattr(scaler, name), np.float64)
            graph.initializer.append(
                onnx.numpy_helper.from_array(constant, f"{tensor}.{op.lower()}.by")
            )
            before, value = value, f"{tensor}.{op.lower()}"
            new.append(onnx.helper.make_node(op, [before, f"{value}.by"], [value], value))
    new.append(
        onnx.helper.make_node("Cast", [value], [tensor], tensor, to=onnx.TensorProto.FLOAT)
    )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*rest[: found[0]], *new, *rest[found[0] + 1 :]])


def _lightgbm(
    model: BoostedModel, job: Job, opset: int, rows: int | None, width: int
) -> Converted:
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    written = convert_lightgbm(
        model.booster,
        name=job.name,
        initial_types=[(INPUT, FloatTensorType([rows, width]))],
        target_opset=min(opset, 15),
        zipmap=False,
    )
    return Converted(model=written, tensors={}, two_columns=False)


def _last(estimator: Any) -> Any:
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


@contextlib.contextmanager
def _plain_numbers() -> Iterator[None]:
    """Hand ONNX whole numbers where skl2onnx 1.20 writes a bool or a numpy number.

    It does in the missing-value flags of histogram boosting, and protobuf 7 refuses them.
    """
    from skl2onnx.common import _container

    original = _container.make_node

    def make_node(*args: Any, **attributes: Any) -> Any:
        return original(*args, **{name: _plain(value) for name, value in attributes.items()})

    _container.make_node = make_node
    try:
        yield
    finally:
        _container.make_node = original


def _plain(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(each, (bool, np.generic)) for each in value):
        return [
            int(each) if isinstance(each, (bool, np.bool_, np.integer)) else each
            for each in value
        ]
    return value


def _not_converted(exc: Exception, estimator: Any, job: Job) -> CannotExport:
    kind, said = type(exc).__name__, " ".join(str(exc).split())
    facts = {"estimator": type(_last(estimator)).__name__}
    if kind in ("MissingShapeCalculator", "MissingConverter"):
        named = said.partition("'<class '")[2].partition("'>")[0] or said[:120]
        return CannotExport(
            f"cannot import {job.name}: {named} has no converter to ONNX",
            hint="leave that step out and do it where the data are made, or fit an estimator "
            "that has one: https://onnx.ai/sklearn-onnx/supported.html",
            **facts,
        )
    hint = "fit it with other parameters, or leave that step out"
    if "sparse" in said:
        hint = "make it give dense arrays: encode='onehot-dense', sparse_output=False"
    return CannotExport(
        f"cannot import {job.name}: skl2onnx does not convert it: {kind}: {said[:300]}",
        hint=hint,
        **facts,
    )


def finish_graph(
    converted: Converted,
    names: Sequence[str],
    shapes: Sequence[tuple[int | str, ...]],
    words: Sequence[str],
) -> None:
    """Give a graph's outputs their names and shapes, and numbers in the place of words.

    Args:
        converted: Its model is changed.
        names: What the outputs are to be called, in order; those behind are dropped.
        shapes: Their shapes; text is a free extent.
        words: The classes, where the labels are words: the first output gives their numbers.
    """
    import onnx

    model = converted.model
    _tidy_imports(model)
    graph = model.graph
    graph.input[0].type.tensor_type.shape.dim[0].ClearField("dim_param")
    if not graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = BATCH
    old = [(value.name, value.type.tensor_type.elem_type) for value in graph.output]
    del graph.output[:]
    _rename(graph, {name: f"{name}.raw" for name in names})
    done: set[str] = set()
    for index, (name, shape) in enumerate(zip(names, shapes, strict=True)):
        source, kind = old[index]
        source = f"{source}.raw" if source in names else source
        is_label = name == "label"
        wanted = onnx.TensorProto.INT64 if is_label else onnx.TensorProto.FLOAT
        if is_label and words:
            source = _number(model, source, words)
        elif kind not in (wanted, onnx.TensorProto.UNDEFINED):
            source = _append(graph, "Cast", [source], f"{name}.cast", to=wanted)
        if is_label and len(shape) == 1 and not _is_flat(model, source):
            source = _flatten(model, source)
        if source in done:
            source = _append(graph, "Identity", [source], f"{name}.copy")
        _rename(graph, {source: name})
        done.add(name)
        graph.output.append(onnx.helper.make_tensor_value_info(name, wanted, list(shape)))
    _drop_unread(graph)


def _rename(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    """Give values other names, in bodies too."""
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, new)
    for constant in graph.initializer:
        constant.name = new.get(constant.name, constant.name)


def _append(
    graph: onnx.GraphProto, op: str, sources: Sequence[str], name: str, **attributes: Any
) -> str:
    import onnx

    graph.node.append(onnx.helper.make_node(op, sources, [name], name=name, **attributes))
    return name


def _tidy_imports(model: onnx.ModelProto) -> None:
    """Import each domain once, and ONNX's own in any case: some converters leave it out."""
    versions: dict[str, int] = {"": 0}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    versions[""] = versions[""] or _OPSET
    del model.opset_import[:]
    for domain, version in versions.items():
        entry = model.opset_import.add()
        entry.domain, entry.version = domain, version


def _number(model: onnx.ModelProto, source: str, words: Sequence[str]) -> str:
    """Append the LabelEncoder that numbers words, in the form of the graph's version."""
    version = next(e.version for e in model.opset_import if e.domain == _ML)
    attributes: dict[str, Any] = {"classes_strings": list(words)}
    if version > 1:
        numbers = list(range(len(words)))
        attributes = {"keys_strings": list(words), "values_int64s": numbers}
    return _append(
        model.graph, "LabelEncoder", [source], "label.number", domain=_ML, **attributes
    )


def _is_flat(model: onnx.ModelProto, source: str) -> bool:
    """Say whether a label is known to be a plain list: it comes straight from a classifier."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = made.get(source)
    while node is not None and node.op_type in ("Cast", "Identity", "LabelEncoder"):
        node = made.get(node.input[0])
    return node is not None and node.op_type in _FLAT_LABELS


def _flatten(model: onnx.ModelProto, source: str) -> str:
    import onnx

    shape = onnx.numpy_helper.from_array(np.array([-1], np.int64), "label.shape")
    model.graph.initializer.append(shape)
    return _append(model.graph, "Reshape", [source, shape.name], "label.flat")


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Drop what no output needs, as an output that was left out leaves it behind."""
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.isdisjoint(node.output):
            continue
        kept.append(node)
        wanted.update(node.input)
        for attribute in node.attribute:
            for inner in attribute.g.node:
                wanted.update(inner.input)
    nodes = list(reversed(kept))
    del graph.node[:]
    graph.node.extend(nodes)
