"""Graphs that show the layers of a quantization: the Q/DQ graph tapped, and each by itself.

Layers by themselves are branches of the float graph: each reads the float tensors that its
layer reads there, through the pairs, weights and kernels of the Q/DQ graph, and its result goes
nowhere but out. So one run gives many layers, in whatever runtime the graph is built for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.quantize._graph import Names
from edgesdk.quantize.layout import Layout, Unit
from edgesdk.quantize.trial import Choice, Trial

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Layer", "LayerGraphs", "Tapped", "layer_graphs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One kernel of 8 bits.

    Attributes:
        name: The name of its node.
        op: Its operator, with the activation that the kernel absorbs.
        nodes: The names of all nodes it takes up.
        results: The tensors it gives, by their names in the float graph.
        elements: How many elements they have, for one row of an open batch.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    results: tuple[str, ...]
    elements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tapped:
    """A graph that gives results of layers; ``outputs`` says which output is which result."""

    model: onnx_ir.Model
    outputs: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGraphs:
    """What shows the layers of one choice.

    Attributes:
        layers: All of them, in the order of the graph.
        floats: The float graph; equalized where the choice says so, so that tensors compare.
        whole: The Q/DQ graph.
    """

    layers: tuple[Layer, ...]
    floats: onnx_ir.Model
    whole: onnx_ir.Model
    _layout: Layout

    def float_results(self, layers: Sequence[Layer]) -> Tapped:
        """Give the float graph with the results of ``layers`` as its only outputs."""
        copy = self.floats.clone()
        values = _values(copy)
        return _tapped(copy, {name: values[name] for one in layers for name in one.results})

    def accumulated(self, layers: Sequence[Layer]) -> Tapped:
        """Give the Q/DQ graph with results of ``layers``, dequantized, as its only outputs."""
        copy = self.whole.clone()
        made = _makers(self.floats)
        nodes = {node.name: node for node in copy.graph}
        taps = {}
        for one in layers:
            for name in one.results:
                node, position = made[name]
                taps[name] = _dequantized(nodes[node].outputs[position])
        return _tapped(copy, taps)

    def local(self, layers: Sequence[Layer]) -> Tapped:
        """Give the float graph with each of ``layers`` as a branch that is an output."""
        copy = self.floats.clone()
        work = _Branching(copy, self.whole, self.floats)
        taps: dict[str, onnx_ir.Value] = {}
        for one in layers:
            taps.update(work.branch(self._layout.units[one.name]))
        return _tapped(copy, taps)


def layer_graphs(trial: Trial, choice: Choice) -> LayerGraphs:
    """Make what shows the layers of a choice."""
    whole, layout = trial.realize(choice)
    floats = trial.evened()[0] if choice.equalize else trial.model
    return LayerGraphs(
        layers=tuple(_layer(unit) for unit in layout.units.values()),
        floats=floats,
        whole=whole,
        _layout=layout,
    )


def _layer(unit: Unit) -> Layer:
    ops = [unit.node.op_type]
    if unit.absorbed is not None:
        ops.append(unit.absorbed.op_type)
    return Layer(
        name=unit.node.name or "",
        op="+".join(ops),
        nodes=unit.names,
        results=tuple(value.name or "" for value in unit.results),
        elements=sum(_elements(value) for value in unit.results),
    )


def _elements(value: onnx_ir.Value) -> int:
    count = 1
    for extent in value.shape or ():
        count *= extent if isinstance(extent, int) else 1
    return count


def _values(model: onnx_ir.Model) -> dict[str, onnx_ir.Value]:
    return {v.name or "": v for node in model.graph for v in node.outputs}


def _makers(model: onnx_ir.Model) -> dict[str, tuple[str | None, int]]:
    """Say of each tensor which node makes it, and as its how manieth output."""
    return {
        value.name or "": (node.name, position)
        for node in model.graph
        for position, value in enumerate(node.outputs)
    }


def _pair(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """Find the DequantizeLinear of the pair right behind a tensor."""
    for quantize, _ in value.uses():
        if quantize.op_type == "QuantizeLinear":
            for dequantize, _ in quantize.outputs[0].uses():
                if dequantize.op_type == "DequantizeLinear":
                    return dequantize
    return None


def _dequantized(value: onnx_ir.Value) -> onnx_ir.Value:
    pair = _pair(value)
    return value if pair is None else pair.outputs[0]


def _tapped(model: onnx_ir.Model, taps: dict[str, onnx_ir.Value]) -> Tapped:
    """Make taps the outputs of a graph, and leave out what none of them needs."""
    from onnx_ir.passes import common

    model.graph.outputs.clear()
    model.graph.outputs.extend(dict.fromkeys(taps.values()))
    common.RemoveUnusedNodesPass()(model)
    return Tapped(
        model=model, outputs={value.name or "": result for result, value in taps.items()}
    )


class _Branching:
    """Copies kernels of a Q/DQ graph into the float graph that it was made from."""

    def __init__(
        self, into: onnx_ir.Model, whole: onnx_ir.Model, floats: onnx_ir.Model
    ) -> None:
        self._graph = into.graph
        self._names = Names(into)
        self._nodes = {node.name: node for node in whole.graph}
        trunk = {node.name: node for node in into.graph}
        self._trunk: dict[onnx_ir.Value, onnx_ir.Value] = {}
        inputs = {value.name: value for value in into.graph.inputs}
        for value in whole.graph.inputs:
            self._trunk[value] = inputs[value.name]
        for node in floats.graph:
            if node.name in self._nodes:
                pairs = zip(
                    self._nodes[node.name].outputs, trunk[node.name].outputs, strict=True
                )
                self._trunk.update(pairs)
        self._copied: dict[onnx_ir.Value, onnx_ir.Value] = {}

    def branch(self, unit: Unit) -> dict[str, onnx_ir.Value]:
        """Copy a kernel with the pairs around it; give its results by their float names."""
        node = self._nodes[unit.node.name]
        made = {node.outputs[i]: v for i, v in enumerate(self._copy(node).outputs)}
        if unit.absorbed is not None:
            node = self._nodes[unit.absorbed.name]
            made = {node.outputs[i]: v for i, v in enumerate(self._copy(node, made).outputs)}
        found = {}
        for result in unit.results:
            last = unit.absorbed or unit.node
            own = node.outputs[list(last.outputs).index(result)]
            value = made[own]
            pair = _pair(own)
            if pair is not None:
                quantize = pair.inputs[0].producer() if pair.inputs[0] is not None else None
                assert quantize is not None, "a pair begins with what quantizes"
                whole = self._copy(quantize, {own: value}).outputs[0]
                value = self._copy(pair, {quantize.outputs[0]: whole}).outputs[0]
            value.shape, value.type = result.shape, result.type
            found[result.name or ""] = value
        return found

    def _copy(
        self, node: onnx_ir.Node, known: dict[onnx_ir.Value, onnx_ir.Value] | None = None
    ) -> onnx_ir.Node:
        import onnx_ir as ir

        inputs = [
            None if value is None else (known or {}).get(value) or self._input(value)
            for value in node.inputs
        ]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=self._names.fresh(f"{node.name}.alone"),
        )
        for value, before in zip(copy.outputs, node.outputs, strict=True):
            value.name = self._names.fresh(f"{before.name}.alone")
            value.shape, value.type = before.shape, before.type
        self._graph.append(copy)
        return copy

    def _input(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """Give what stands for an input: a float tensor, a pair on one, or a constant."""
        import onnx_ir as ir

        if value in self._copied:
            return self._copied[value]
        producer = value.producer()
        if value in self._trunk:
            found = self._trunk[value]
        elif producer is None:
            found = ir.Value(
                name=self._names.fresh(f"{value.name}.alone"),
                shape=value.shape,
                type=value.type,
                const_value=value.const_value,
            )
            self._graph.register_initializer(found)
        else:
            found = self._copy(producer).outputs[list(producer.outputs).index(value)]
        self._copied[value] = found
        return found
