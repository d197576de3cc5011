"""Float16 inside the graph, float32 at its ends.

Each node either computes in half precision or stays as it is, by `edgesdk.quantize._halfrules`.
Between the two stand Casts, one per value however many read it. The inputs and outputs of the
graph keep float32, and so do those of the bodies of control flow: a body is converted inside,
and what it gets and gives keeps its type, so branches always agree and a Loop adds up in
float32. Weights are rounded to nearest once; a weight read by nodes of both kinds is kept in
both forms.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from edgesdk.model.values import Finding
from edgesdk.quantize._graph import (
    Names,
    add_constant,
    constant_of,
    left_float,
    make_node,
    nothing_done,
    prepared,
    tidy,
)
from edgesdk.quantize._halfrules import HalfRules, as_half, is_float32, type_attribute
from edgesdk.quantize.values import Converted, LeftFloat

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["to_half"]


def to_half(model: ir.Model, *, keep_float: Collection[str] = ()) -> Converted:
    """Convert float32 to float16 wherever ONNX allows it and the numbers bear it.

    Args:
        model: A simplified graph of opset 13 or newer with known types; left as it is.
        keep_float: Node names and operator types that stay in float32; one of control flow
            stays with its bodies.

    Raises:
        QuantizeError: No node can be converted.
    """
    copy = prepared(model)
    rules = HalfRules(copy, keep_float)
    left: list[LeftFloat] = []
    for node in copy.graph.all_nodes():
        reason = rules.why_float(node)
        if reason is not None:
            left.append(left_float(node, reason))
    if not rules.counted:
        raise nothing_done(
            model, "convert", "converted to float16", left, otherwise="none works on float32"
        )
    done = rules.counted
    work = _Half(copy, rules)
    work.rewrite()
    tidy(copy)
    return Converted(
        model=copy,
        converted_nodes=done,
        left_float=tuple(left),
        findings=tuple(_flushed(work)),
    )


class _Half:
    """Moves the chosen nodes to float16 and puts Casts between them and the others."""

    def __init__(self, model: ir.Model, rules: HalfRules) -> None:
        self._model = model
        self._rules = rules
        self._names = Names(model)
        #: What half nodes make.
        self._halved: set[ir.Value] = set()
        self._as_half: dict[ir.Value, ir.Value] = {}
        self._as_float: dict[ir.Value, ir.Value] = {}
        self.flushed: dict[str, tuple[int, int]] = {}

    def rewrite(self) -> None:
        """Do it, in all graphs."""
        import onnx_ir as ir

        nodes = list(self._model.graph.all_nodes())
        for node in nodes:
            for position in self._rules.half_outputs(node):
                self._halved.add(node.outputs[position])
        for node in nodes:
            wanted = self._rules.half_inputs(node)
            for position, value in enumerate(node.inputs):
                if value is None or not is_float32(value) or self._rules.takes_any(node):
                    continue
                if position in wanted and value not in self._halved:
                    node.replace_input_with(position, self._halve(value))
                elif position not in wanted and value in self._halved:
                    node.replace_input_with(position, self._widen(value))
            if self._rules.half_outputs(node):
                _set_type_attribute(node)
        for graph in (self._model.graph, *self._model.graph.subgraphs()):
            self._finish(graph)
        for value in self._halved:
            value.type = ir.TensorType(ir.DataType.FLOAT16)

    def _halve(self, value: ir.Value) -> ir.Value:
        """Give the float16 form of a float32 value."""
        import onnx_ir as ir

        if value not in self._as_half:
            tensor = constant_of(value)
            graph = value.graph
            if tensor is not None and graph is not None:
                half, lost = as_half(tensor.numpy())
                if lost:
                    self.flushed[value.name or ""] = (lost, tensor.size)
                new = add_constant(graph, self._names, f"{value.name}.half", half)
            else:
                new = self._cast(value, ir.DataType.FLOAT16, "half")
            self._as_half[value] = new
        return self._as_half[value]

    def _widen(self, value: ir.Value) -> ir.Value:
        """Give the float32 form of what a half node makes."""
        import onnx_ir as ir

        if value not in self._as_float:
            self._as_float[value] = self._cast(value, ir.DataType.FLOAT, "float")
        return self._as_float[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType, suffix: str) -> ir.Value:
        """Put a Cast where the value is made, so that all bodies may read its result."""
        node = make_node(
            self._names,
            "Cast",
            [value],
            {"to": int(dtype)},
            name=f"{value.name}.{suffix}",
            dtype=dtype,
        )
        node.outputs[0].shape = value.shape
        producer, graph = value.producer(), value.graph
        if producer is not None and producer.graph is not None:
            producer.graph.insert_after(producer, [node])
        else:
            assert graph is not None
            first = next(iter(graph), None)
            assert first is not None
            graph.insert_before(first, [node])
        return node.outputs[0]

    def _finish(self, graph: ir.Graph) -> None:
        """Give float32 under the old names where a graph ends in float16."""
        for position, value in enumerate(list(graph.outputs)):
            if value not in self._halved:
                continue
            name = value.name
            wide = self._widen(value)
            producer = value.producer()
            own = producer is not None and producer.graph is graph
            if own and not wide.is_graph_output():
                value.name = self._names.fresh(f"{name}.half")
                wide.name = name
            graph.outputs[position] = wide


def _set_type_attribute(node: ir.Node) -> None:
    """Let operators that name the type of their result name float16."""
    import numpy as np
    import onnx_ir as ir

    name = type_attribute(node)
    if name == "value":
        given = node.attributes.get(name)
        array = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy()
        half = ir.tensor(array.astype(np.float16), name="value")
        node.attributes[name] = ir.AttrTensor(name, half)
    elif name is not None:
        node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT16))


def _flushed(work: _Half) -> list[Finding]:
    if not work.flushed:
        return []
    lost = sum(count for count, _ in work.flushed.values())
    total = sum(size for _, size in work.flushed.values())
    worst = max(work.flushed, key=lambda name: work.flushed[name][0])
    return [
        Finding(
            code="half-flushed",
            severity="info",
            message=f"{lost} of {total} numbers in {len(work.flushed)} weights are 0 in half "
            f"precision, whose smallest number is 6e-08; most of them are in {worst!r}",
            hint="keep the nodes that read it in float (keep_float in a recipe) if they matter",
            subject=worst,
        )
    ]
