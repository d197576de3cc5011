"""From one traced TensorFlow function to an ONNX file, by way of tf2onnx.

Why this way, on Keras 3.15 and TensorFlow 2.21: `keras.Model.export(format="onnx")` is
tf2onnx underneath, takes no SavedModel, and reports success although an operator was left over
that no runtime knows (`Erfc`, of every exact GELU). Keras on the torch backend with torch's own
exporter has no path for a SavedModel either. tf2onnx 1.17 is alive again (numpy 2, current
protobuf), takes Keras models and SavedModels through one door, the concrete function, and keeps
their channels-last inputs as they are. So tf2onnx it is, with what it lacks added here: the
handler for `Erfc`, the look at what was left over, and recurrent layers (`tensorflow_loops`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.importers.frameworks.tensorflow_loops import write_layers
from edgesdk.importers.frameworks.tensorflow_source import one_line
from edgesdk.importers.job import CannotExport

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Frozen", "convert", "freeze", "save", "scopes", "smallest_table", "values_of"]

OPSET = 17  # the newest that every runtime in the target profiles reads
LOWEST_OPSET = 13  # below it tf2onnx writes Split, Squeeze and their like in another way
HIGHEST_OPSET = 18  # tf2onnx 1.17 knows no newer one
_ONE_FILE_BYTES = 2**30  # beyond it the weights lie beside the graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A function with its variables folded in.

    Attributes:
        graph: TensorFlow's `GraphDef`.
        inputs: Name in the ONNX graph by name of the tensor, in the source's order.
        outputs: The same of the outputs.
    """

    graph: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def freeze(function: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Frozen:
    """Fold the variables of a concrete function into it.

    ``inputs`` and ``outputs`` name what it takes and gives, in its own order.

    Raises:
        CannotExport: TensorFlow cannot fold them, or the weights pass protobuf's 2 GB.
    """
    import tensorflow as tf
    from tf2onnx import tf_loader

    # behind its own inputs stand those that it captured: variables and constants
    taken = [one.name for one in function.inputs][: len(inputs)]
    given = [one.name for one in function.outputs]
    if len(given) != len(outputs):
        raise CannotExport(
            f"cannot pair what the model gives with its names: {len(given)} tensors, "
            f"{len(outputs)} names ({', '.join(outputs)})",
            hint="give the model's outputs names of their own, each once",
        )
    try:
        with _quiet(), _compiled_inlined(), tf.device("/cpu:0"):
            graph = tf_loader.from_function(function, taken, given)
    except Exception as error:
        raise _not_frozen(error) from error
    return Frozen(
        graph=graph,
        inputs=dict(zip(taken, inputs, strict=True)),
        outputs=_distinct(given, outputs),
    )


def _distinct(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Name of each output by its tensor, where one tensor is not given twice."""
    pairs = dict(zip(given, names, strict=True))
    if len(pairs) != len(given):
        raise CannotExport(
            "cannot export a model that gives one tensor as two outputs",
            hint="give each output once",
            outputs=list(names),
        )
    return pairs


def _not_frozen(error: Exception) -> CannotExport:
    said = one_line(error)
    if "2GB" in said or "string too long" in said:
        return CannotExport(
            "cannot fold the weights into one graph: they take more than 2 GB",
            hint="TensorFlow's own graphs end there; export the model in parts",
        )
    return CannotExport(
        f"cannot fold the model's variables into its graph: {said}",
        hint="does the model hold tables, or variables that it assigns while it runs?",
    )


def convert(
    frozen: Frozen,
    *,
    name: str,
    opset: int | None,
    also: Sequence[str] = (),
) -> Any:
    """Turn a frozen function into an ONNX `ModelProto` with the names of the source.

    ``also`` names tensors that stay in the graph under their own names, as further outputs.

    Raises:
        CannotExport: The opset is not to be had, or an operator has no counterpart in ONNX.
    """
    wanted = OPSET if opset is None else opset
    if not LOWEST_OPSET <= wanted <= HIGHEST_OPSET:
        raise CannotExport(
            f"cannot write opset {wanted} for a TensorFlow model",
            hint=f"--opset {LOWEST_OPSET} to {HIGHEST_OPSET} can be had",
            opset=wanted,
        )
    import tensorflow as tf
    from tf2onnx import optimizer, tfonnx

    _add_handlers()
    with _quiet() as complaints, tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph, name="")
        try:
            made = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,  # so that every operator is named, not the first
                opset=wanted,
                input_names=list(frozen.inputs),
                output_names=[*frozen.outputs, *also],
                tensors_to_rename={**frozen.inputs, **frozen.outputs},
            )
            model = optimizer.optimize_graph(made, optimizers=_optimizers()).make_model(name)
        except Exception as error:
            said = "; ".join([*complaints[:3], one_line(error)])
            raise CannotExport(
                f"cannot turn {name} into ONNX: {said}",
                hint="which layer is it? leave it out, or write it with operators that are "
                "on tf2onnx's list of supported ones",
            ) from error
    _refuse_leftovers(model, name)
    model.graph.name = name
    return model


def _refuse_leftovers(model: Any, name: str) -> None:
    """Refuse a graph with operators that are TensorFlow's still."""
    import onnx

    version = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    left: dict[str, str] = {}
    for node in _nodes(model.graph):
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, version):
            left.setdefault(node.op_type, node.name)
        elif node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            left.setdefault(f"{node.domain}.{node.op_type}", node.name)
    if left:
        told = ", ".join(f"{op} (in {node})" for op, node in sorted(left.items())[:8])
        raise CannotExport(
            f"cannot turn {name} into ONNX: no counterpart for {told}",
            hint="write that layer with other operators, or leave what has no place on a "
            "board (strings, tables, training) out of the exported function",
            operators=sorted(left),
        )


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of branches and loop bodies included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def scopes(frozen: Frozen) -> list[tuple[str, str]]:
    """The layers of a frozen function, in order: their name and the tensor each gives.

    Keras and modules write their names into the graph as folders (``net/block/conv/Relu``);
    the last float tensor of a folder is what the layer gives. A fused or folded layer has none.
    """
    last: dict[str, str] = {}
    for node in _in_order(frozen.graph):
        kind = _float_type(node)
        if kind and "/" in node.name and node.op not in ("Const", "Placeholder", "Identity"):
            last.pop(scope := node.name.rsplit("/", 1)[0], None)  # the order is of last use
            last[scope] = f"{node.name}:0"
    taken = {*frozen.outputs}
    return [(scope, tensor) for scope, tensor in last.items() if tensor not in taken]


def smallest_table(graph: Any) -> int | None:
    """Rows of the shortest constant table that a frozen graph looks ids up in."""
    named = {node.name: node for node in graph.node}
    rows = []
    for node in graph.node:
        if node.op not in ("Gather", "GatherV2"):
            continue
        table, ids = (_behind(named, one) for one in node.input[:2])
        if table is not None and table.op == "Const" and (ids is None or ids.op != "Const"):
            extents = [one.size for one in table.attr["value"].tensor.tensor_shape.dim]
            if len(extents) == 2 and table.attr["dtype"].type == 1:
                rows.append(extents[0])
    return min(rows, default=None)


def _behind(named: Mapping[str, Any], name: str) -> Any:
    """The node that a chain of Identity hands on."""
    node = named.get(name.lstrip("^").split(":")[0])
    while node is not None and node.op == "Identity":
        node = named.get(node.input[0].lstrip("^").split(":")[0])
    return node


def save(model: Any, path: Path, *, outputs: int) -> tuple[Path, int]:
    """Write a converted model with its first ``outputs`` outputs; its path and opset.

    What was kept besides as outputs stays in the graph under its name.
    """
    import onnx

    write_layers(model)
    del model.graph.output[outputs:]
    _name_extents(model.graph)
    used = {node.domain for node in _nodes(model.graph)}
    kept = [one for one in model.opset_import if one.domain in ("", "ai.onnx", *used)]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    apart = model.ByteSize() > _ONE_FILE_BYTES
    onnx.save_model(
        model,
        path,
        save_as_external_data=apart,
        location=f"{path.name}.data" if apart else None,
    )
    return path, next(one.version for one in kept if one.domain in ("", "ai.onnx"))


def _name_extents(graph: Any) -> None:
    """Give free extents of inputs a name that says which; those of outputs follow from them."""
    for one in graph.input:
        for at, extent in enumerate(one.type.tensor_type.shape.dim):
            if not extent.HasField("dim_value"):
                extent.dim_param = "batch" if at == 0 else f"{one.name}_{at}"
    for one in graph.output:
        for extent in one.type.tensor_type.shape.dim:
            if not extent.HasField("dim_value"):
                extent.ClearField("dim_param")


def _float_type(node: Any) -> bool:
    kind = node.attr["T"].type if "T" in node.attr else 0
    return kind == 1 and not node.op.startswith(("Tensor", "While", "StatelessWhile"))


def _in_order(graph: Any) -> list[Any]:
    """The nodes of a `GraphDef`, each after those it reads."""
    named = {node.name: node for node in graph.node}
    done: set[str] = set()
    ordered: list[Any] = []
    for start in graph.node:
        waiting = [(start, False)]
        while waiting:
            node, ready = waiting.pop()
            if ready:
                ordered.append(node)
            elif node.name not in done:
                done.add(node.name)
                waiting.append((node, True))
                reads = (one.lstrip("^").split(":")[0] for one in node.input)
                waiting.extend((named[one], False) for one in reads if one in named)
    return ordered


def values_of(
    frozen: Frozen, tensors: Sequence[str], feeds: Mapping[str, NDArray[np.generic]]
) -> list[NDArray[np.generic]]:
    """What TensorFlow itself computes for these tensors of a frozen function."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen.graph, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            fed = {tensor: feeds[name] for tensor, name in frozen.inputs.items()}
            return list(session.run(list(tensors), fed))


def _optimizers() -> dict[str, Any]:
    """The rewrites of tf2onnx, but for one: a mean over words is no pooling of a picture."""
    from tf2onnx import optimizer
    from tf2onnx.optimizer.global_pool_optimizer import GlobalPoolOptimizer

    class Pictures(GlobalPoolOptimizer):  # type: ignore[misc]  # tf2onnx has no types
        """The mean of a LayerNormalization over three extents stays a mean."""

        def _optimize_reduce(self, node: Any, graph: Any) -> bool:
            words = graph.get_rank(node.input[0]) == 3
            return not words and bool(super()._optimize_reduce(node, graph))

    return {**optimizer._get_optimizers(), "global_pool_optimizer": Pictures}


def _add_handlers() -> None:
    """Teach tf2onnx the operators of Keras' own layers that it lacks."""
    from tf2onnx.handler import tf_op

    def erfc(ctx: Any, node: Any, **_: Any) -> None:
        import numpy as np
        from tf2onnx import utils

        kind, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
        ctx.remove_node(node.name)
        one = np.array(1, dtype=utils.map_onnx_to_numpy_type(kind))
        ones = ctx.make_const(utils.make_name("one"), one).output[0]
        erf = ctx.make_node("Erf", node.input, shapes=[shape], dtypes=[kind]).output[0]
        ctx.make_node(
            "Sub",
            [ones, erf],
            outputs=node.output,
            shapes=[shape],
            dtypes=[kind],
            name=node.name,
        )

    tf_op("Erfc").register_compat_handler(erfc, 9)


@contextmanager
def _compiled_inlined() -> Iterator[None]:
    """Let functions that ask for XLA be inlined like any other.

    TensorFlow leaves them as calls, and Keras asks for XLA in every convolution with groups on
    a CPU. The mark is taken off where TensorFlow 2.21 prepares a graph for inlining.
    """
    from tensorflow.python.framework import convert_to_constants as inner

    prepare = inner.disable_lower_using_switch_merge

    def prepare_all(graph: Any) -> Any:
        prepared = prepare(graph)
        library = prepared.library.function
        for one in (*prepared.node, *library, *(node for f in library for node in f.node_def)):
            one.attr.pop("_XlaMustCompile", None)
        return prepared

    inner.disable_lower_using_switch_merge = prepare_all
    try:
        yield
    finally:
        inner.disable_lower_using_switch_merge = prepare


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """Keep what tf2onnx logs as errors, and let none of it reach the terminal."""
    complaints: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(one_line(record.getMessage()))

    logger = logging.getLogger("tf2onnx")
    keep, propagate, level = Keep(level=logging.ERROR), logger.propagate, logger.level
    logger.addHandler(keep)
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    try:
        yield complaints
    finally:
        logger.removeHandler(keep)
        logger.propagate = propagate
        logger.setLevel(level)
