"""Bring a graph to an opset and IR version that a target's runtime loads.

Nodes are looked at one by one, in bodies too. A node that means the same in both versions
stays as it is. Any other is given to ONNX's version converter in a model of its own, and what
comes back takes its place: names, bodies and everything else of the graph stay untouched, and
a node that cannot be converted is known by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.errors import CompileError
from edgesdk.model._isolated import ChildFailed, convert_nodes
from edgesdk.model._schemas import how_it_changes, new_word, why_not_the_same, why_not_valid

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["fit_opset"]

#: Before it, initializers had to be inputs as well.
_OLDEST_IR = 4
#: From it on, Split says into how many parts.
_COUNTED_SPLIT = 18
#: Constants up to this size travel with a node: adapters turn them into attributes or back.
_SMALL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class _Job:
    """One node to convert, how an error names it, and why it cannot stay as it is."""

    node: onnx_ir.Node
    label: str
    reason: str


def fit_opset(
    model: onnx_ir.Model, *, lowest: int, highest: int | None, max_ir: int | None
) -> onnx_ir.Model:
    """Give the model at an opset from ``lowest`` to ``highest``, nearest to its own.

    Args:
        model: Left as it is. Its types and shapes should be known (`open_model`, `simplify`).
        lowest: The oldest opset that what follows can work with.
        highest: The newest that the target's runtime loads; None for any.
        max_ir: The newest IR version that the runtime loads; None for any.

    Raises:
        CompileError: A node has no equal there, or a tensor's type needs a newer IR version.
    """
    if highest is not None and highest < lowest:
        raise CompileError(
            f"cannot fit the model to opset {highest}: at least {lowest} is needed",
            hint="the target's runtime is too old for this kind of build",
            lowest=lowest,
            highest=highest,
        )
    copy = model.clone()
    opset = copy.graph.opset_imports.get("", lowest)
    goal = max(opset, lowest)
    if highest is not None:
        goal = min(goal, highest)
    if goal != opset:
        _convert(copy, opset, goal)
        copy.graph.opset_imports[""] = goal
    copy.ir_version = _ir_version(copy, goal, max_ir)
    return copy


def _convert(model: onnx_ir.Model, opset: int, goal: int) -> None:
    if goal < _COUNTED_SPLIT <= opset:
        _uncount_splits(model)
    jobs = list(_jobs(model.graph, opset, goal, ""))
    if not jobs:
        return
    taken = _names(model)
    try:
        answers = convert_nodes(
            [_alone(job.node, opset).SerializeToString() for job in jobs], goal
        )
    except ChildFailed as exc:
        raise CompileError(
            f"cannot convert the model from opset {opset} to {goal}: {exc}",
            hint=f"export it with opset {goal}",
        ) from exc
    for number, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
        if isinstance(answer, str):
            raise _cannot(job, opset, goal, answer)
        try:
            _splice(job, answer, goal, f"opset{goal}.{number}", taken)
        except (ValueError, KeyError, TypeError) as exc:
            raise _cannot(job, opset, goal, str(exc)) from exc


def _uncount_splits(model: onnx_ir.Model) -> None:
    """Drop the number of parts where they are equal: older opsets split so by themselves."""
    for node in model.graph.all_nodes():
        if node.op_type != "Split" or node.domain or "num_outputs" not in node.attributes:
            continue
        value, axis = node.inputs[0], node.attributes.get("axis")
        if value is None or value.shape is None or len([one for one in node.inputs if one]) > 1:
            continue
        extent = value.shape[axis.as_int() if axis is not None else 0]
        parts = node.attributes["num_outputs"].as_int()
        if isinstance(extent, int) and parts == len(node.outputs) and extent % parts == 0:
            del node.attributes["num_outputs"]


def _cannot(job: _Job, opset: int, goal: int, detail: str) -> CompileError:
    text = " ".join(detail.split())
    return CompileError(
        f"cannot convert {job.label} from opset {opset} to {goal}: {job.reason}",
        hint=f"export the model with opset {goal}, or choose a target with a newer runtime"
        if goal < opset
        else f"export the model with opset {goal} or newer",
        node=job.node.name or "",
        op=job.node.op_type,
        opset=opset,
        goal=goal,
        detail=text[:400],
    )


def _jobs(graph: onnx_ir.Graph, opset: int, goal: int, where: str) -> Iterator[_Job]:
    import onnx_ir as ir

    for index, node in enumerate(graph):
        name = f" {node.name!r}" if node.name else ""
        label = f"{where}node {index}{name} ({node.op_type})"
        if not node.domain:
            reason = _reason(node, opset, goal, label)
            if reason is not None:
                yield _Job(node, label, reason)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _jobs(attribute.as_graph(), opset, goal, f"{label}, ")
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    yield from _jobs(body, opset, goal, f"{label}, ")


def _reason(node: onnx_ir.Node, opset: int, goal: int, label: str) -> str | None:
    try:
        changes = how_it_changes(node.op_type, node.domain, opset, goal)
    except KeyError:
        reason = f"there is no {node.op_type} at opset {goal}"
        if goal < opset or node.op_type != "Upsample":
            raise _cannot(_Job(node, label, reason), opset, goal, reason) from None
        return reason
    reason_or_none = why_not_the_same(node, goal, changes) if changes else None
    if goal < opset and new_word(node, changes) is not None:
        # the converter would take it over and mean something else
        reason = new_word(node, changes) or ""
        raise _cannot(_Job(node, label, reason), opset, goal, reason)
    return reason_or_none


def _alone(node: onnx_ir.Node, opset: int) -> onnx.ModelProto:
    """Put one node into a model of its own, with names that cannot clash.

    Its inputs become inputs of the model; small constants are initializers as well, which IR
    version 3 allows and the converter's adapters look for.
    """
    import onnx
    import onnx_ir as ir

    proto = ir.serde.serialize_node(node)
    graph = onnx.GraphProto(name="one")
    seen: dict[str, str] = {}
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        name = seen.setdefault(value.name or "", f"in.{index}")
        proto.input[index] = name
        if name != f"in.{index}":
            continue
        info = graph.input.add()
        ir.serde.serialize_value_into(info, value)
        info.name = name
        tensor = _small_constant(value)
        if tensor is not None:
            stored = ir.serde.serialize_tensor(tensor)
            stored.name = name
            graph.initializer.append(stored)
    for index, result in enumerate(node.outputs):
        if not result.name:
            continue
        proto.output[index] = f"out.{index}"
        info = graph.output.add()
        ir.serde.serialize_value_into(info, result)
        info.name = f"out.{index}"
    graph.node.append(proto)
    return onnx.ModelProto(
        ir_version=3, graph=graph, opset_import=[onnx.OperatorSetIdProto(version=opset)]
    )


def _small_constant(value: onnx_ir.Value) -> onnx_ir.TensorProtocol | None:
    import onnx_ir as ir

    tensor = value.const_value
    producer = value.producer()
    if tensor is None and producer is not None and producer.op_type == "Constant":
        for name, attribute in producer.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
            elif name in ("value_int", "value_ints"):
                tensor = ir.tensor(attribute.value, dtype=ir.DataType.INT64)
            elif name in ("value_float", "value_floats"):
                tensor = ir.tensor(attribute.value, dtype=ir.DataType.FLOAT)
    if tensor is None or value.is_graph_input() or tensor.nbytes > _SMALL_BYTES:
        return None
    return tensor


def _splice(job: _Job, answer: bytes, goal: int, prefix: str, taken: set[str]) -> None:
    """Put the converted nodes where the node was, and prove that they are of that opset."""
    import onnx
    import onnx_ir as ir

    part = ir.serde.deserialize_model(onnx.ModelProto.FromString(answer)).graph
    node, graph = job.node, job.node.graph
    assert graph is not None
    outer = {
        f"in.{index}": value for index, value in enumerate(node.inputs) if value is not None
    }
    for value in list(part.inputs):
        value.replace_all_uses_with(outer[value.name or ""])
    for value in list(part.initializers.values()):
        if value.is_graph_input() or not value.uses():
            continue
        name = _fresh(f"{prefix}.{value.name}", taken)
        tensor = value.const_value
        assert tensor is not None
        constant = ir.node("Constant", [], {"value": ir.AttrTensor("value", tensor)}, name=name)
        constant.outputs[0].name = name
        constant.outputs[0].shape = ir.Shape(tensor.shape.numpy())
        constant.outputs[0].type = ir.TensorType(tensor.dtype)
        value.replace_all_uses_with(constant.outputs[0])
        graph.insert_before(node, [constant])
    results = {value.name: value for value in part.outputs}
    part.outputs.clear()
    news = list(part)
    part.remove(news)
    for new in news:
        problem = why_not_valid(new, goal)
        if problem is not None:
            raise ValueError(problem)
        same = new.op_type == node.op_type
        new.name = (node.name or "") if same else _fresh(f"{prefix}.{new.op_type}", taken)
        for value in new.outputs:
            if value.name not in results:
                value.name = _fresh(f"{prefix}.{value.name}", taken)
    graph.insert_before(node, news)
    for index, old in enumerate(node.outputs):
        fresh = results.get(f"out.{index}")
        if fresh is None:
            continue
        final, kind, shape = old.name, old.type, old.shape
        old.replace_all_uses_with(fresh, replace_graph_outputs=True)
        old.name = None
        fresh.name, fresh.type, fresh.shape = final, kind, shape
    graph.remove(node, safe=True)


def _fresh(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}.{number}"
    taken.add(name)
    return name


def _names(model: onnx_ir.Model) -> set[str]:
    graphs = (model.graph, *model.graph.subgraphs())
    names = {value.name or "" for graph in graphs for value in graph.inputs}
    names.update(name for graph in graphs for name in graph.initializers)
    for node in model.graph.all_nodes():
        names.add(node.name or "")
        names.update(value.name or "" for value in node.outputs)
    return names


def _ir_version(model: onnx_ir.Model, opset: int, max_ir: int | None) -> int:
    import onnx
    import onnx_ir as ir

    table = onnx.helper.OP_SET_ID_VERSION_MAP
    wanted = max(table.get(("ai.onnx", opset), onnx.IR_VERSION), _OLDEST_IR)
    if max_ir is None or wanted <= max_ir:
        return wanted
    needed, why = _OLDEST_IR, "a graph whose weights are not inputs"
    for graph in (model.graph, *model.graph.subgraphs()):
        values = [*graph.inputs, *graph.initializers.values()]
        values += [value for node in graph for value in node.outputs]
        for value in values:
            kind = value.type.dtype if isinstance(value.type, ir.TensorType) else None
            if kind is not None and _IR_OF_DTYPE.get(kind.name, 0) > needed:
                needed, why = (
                    _IR_OF_DTYPE[kind.name],
                    f"{value.name!r} of type {kind.name.lower()}",
                )
    if needed > max_ir:
        raise CompileError(
            f"cannot fit the model to IR version {max_ir}: {why} needs {needed}",
            hint="choose a target with a newer runtime",
            max_ir=max_ir,
            needed=needed,
        )
    return max_ir


#: The IR version that brought a dtype; those not listed have always been there.
_IR_OF_DTYPE = {
    "FLOAT8E4M3FN": 9,
    "FLOAT8E4M3FNUZ": 9,
    "FLOAT8E5M2": 9,
    "FLOAT8E5M2FNUZ": 9,
    "UINT4": 10,
    "INT4": 10,
    "FLOAT4E2M1": 11,
    "FLOAT8E8M0": 12,
    "UINT2": 13,
    "INT2": 13,
    "FLOAT6E2M3": 14,
    "FLOAT6E3M2": 14,
}
