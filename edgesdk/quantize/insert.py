"""Put Q/DQ pairs into a graph: the only module that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.quantize._graph import Names, add_constant
from edgesdk.quantize.grid import Grid, Step
from edgesdk.quantize.layout import Layout, Unit
from edgesdk.quantize.operands import constant_array
from edgesdk.quantize.weights import WholeWeight, bias_as_int32

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Numbers", "insert_qdq"]


@dataclass(slots=True, kw_only=True)
class Numbers:
    """The numbers of a layout.

    Attributes:
        grid: The integers of activations.
        steps: Scale and zero point of each group of tensors.
        weights: Integers of each weight, by node and input position.
        whole_biases: Whether biases become int32; else they stay float.
    """

    grid: Grid
    steps: dict[int, Step]
    weights: dict[tuple[str, int], WholeWeight] = field(default_factory=dict)
    whole_biases: bool = True


def insert_qdq(model: onnx_ir.Model, layout: Layout, numbers: Numbers) -> onnx_ir.Model:
    """Give a copy of ``model`` with the pairs of ``layout`` in it.

    Names of graph inputs and outputs stay. Constants that nobody reads any more are gone.
    """
    from onnx_ir.passes import common

    work = _Insertion(model.clone(), layout, numbers)
    work.activations()
    work.constants()
    work.weights()
    if numbers.whole_biases:
        work.biases()
    common.RemoveUnusedNodesPass()(work.model)
    return work.model


class _Insertion:
    def __init__(self, model: onnx_ir.Model, layout: Layout, numbers: Numbers) -> None:
        self.model = model
        self._graph = model.graph
        self._layout = layout
        self._numbers = numbers
        self._nodes = {node.name: node for node in self._graph}
        self._values: dict[str | None, onnx_ir.Value] = {v.name: v for v in self._graph.inputs}
        self._values.update((v.name, v) for node in self._graph for v in node.outputs)
        self._names = Names(model)
        self._first = self._graph[0]
        self._made: dict[object, onnx_ir.Value] = {}

    def activations(self) -> None:
        """Put a pair on each tensor of the layout."""
        readers: dict[str, list[tuple[str, int]]] = {}
        for unit in self._layout.units.values():
            for position in unit.reads:
                value = unit.node.inputs[position]
                assert value is not None
                readers.setdefault(value.name or "", []).append(
                    (unit.node.name or "", position)
                )
        for name, group in self._layout.tensors.items():
            value = self._values[name]
            step = self._numbers.steps[group]
            before = list(value.uses())
            scale, zero = self._step_constants(group, step)
            quantize = self._node("QuantizeLinear", [value, scale, zero], f"{name}.quantize")
            result = self._dequantized(quantize.outputs[0], scale, zero, name, None)
            result.shape, result.type = value.shape, value.type
            self._place_after(value, quantize, result)
            if name in self._layout.whole:
                for node, position in before:
                    node.replace_input_with(position, result)
                if value.is_graph_output() and not value.is_graph_input():
                    self._take_over_output(value, result)
            else:
                for node_name, position in readers.get(name, ()):
                    self._nodes[node_name].replace_input_with(position, result)

    def constants(self) -> None:
        """Store the constants that are read as if they were activations."""
        grid = self._numbers.grid
        for unit in self._layout.units.values():
            for position in unit.constants:
                value = unit.node.inputs[position]
                array = constant_array(value)
                if array is None or value is None or not array.size:
                    continue
                group = self._group_of(unit)
                key = ("constant", value.name, group)
                if key not in self._made:
                    if group is None:
                        step = grid.step_for(float(array.min()), float(array.max()))
                        scale, zero = self._step_constants(key, step, f"{value.name}.quantized")
                    else:
                        step = self._numbers.steps[group]
                        scale, zero = self._step_constants(group, step)
                    whole = self._constant(
                        f"{value.name}.quantized", grid.quantize(array, step)
                    )
                    self._made[key] = self._from_constant(
                        whole, scale, zero, value.name or "", None
                    )
                node = self._nodes[unit.node.name]
                node.replace_input_with(position, self._made[key])

    def _group_of(self, unit: Unit) -> int | None:
        """Give the group of tensors whose scale the constants of ``unit`` share, if any."""
        if unit.role != "same-scale":
            return None
        names = [value.name or "" for value in unit.results]
        values = (unit.node.inputs[position] for position in unit.reads)
        names += [value.name or "" for value in values if value is not None]
        return next((self._layout.tensors[n] for n in names if n in self._layout.tensors), None)

    def weights(self) -> None:
        """Store the weights of compute nodes."""
        for use in self._layout.weights:
            weight = self._numbers.weights[use.node, use.position]
            key = ("weight", use.tensor, use.axis, id(weight))
            if key not in self._made:
                whole = self._constant(f"{use.tensor}.quantized", weight.integers)
                scale = self._constant(f"{use.tensor}.scale", weight.scale)
                zero = self._constant(f"{use.tensor}.zero_point", weight.zero_point)
                self._made[key] = self._from_constant(
                    whole, scale, zero, use.tensor, weight.axis
                )
            self._nodes[use.node].replace_input_with(use.position, self._made[key])

    def biases(self) -> None:
        """Store biases in steps of input scale times weight scale."""
        import numpy as np

        for name, position in self._layout.biases:
            node = self._nodes[name]
            unit = self._layout.units[name]
            source = unit.node.inputs[0]
            bias = constant_array(node.inputs[position])
            group = self._layout.tensors.get((source.name or "") if source is not None else "")
            if bias is None or group is None:
                continue
            weight = self._numbers.weights[name, 1]
            scale = np.float32(self._numbers.steps[group].scale) * weight.scale.astype(
                np.float32
            )
            whole = bias_as_int32(bias, scale)
            base = f"{name}.bias"
            stored = self._constant(f"{base}.quantized", whole)
            scales = self._constant(f"{base}.scale", scale)
            zero = self._constant(f"{base}.zero_point", np.zeros(scale.shape, np.int32))
            axis = 0 if scale.ndim else None
            node.replace_input_with(
                position, self._from_constant(stored, scales, zero, base, axis)
            )

    def _step_constants(
        self, key: object, step: Step, base: str | None = None
    ) -> tuple[onnx_ir.Value, onnx_ir.Value]:
        """Give scale and zero point; tensors of one group share the constants too."""
        import numpy as np

        if ("scale", key) not in self._made:
            base = base or f"activation.{key}"
            zero = np.array(step.zero_point, self._numbers.grid.dtype)
            scale = np.array(step.scale, np.float32)
            self._made["scale", key] = self._constant(f"{base}.scale", scale)
            self._made["zero", key] = self._constant(f"{base}.zero_point", zero)
        return self._made["scale", key], self._made["zero", key]

    def _take_over_output(self, value: onnx_ir.Value, result: onnx_ir.Value) -> None:
        outputs = self._graph.outputs
        name = value.name or ""
        for index, output in enumerate(outputs):
            if output is value:
                outputs[index] = result
        value.name = self._names.fresh(f"{name}.float")
        result.name = name

    def _place_after(
        self, value: onnx_ir.Value, quantize: onnx_ir.Node, result: onnx_ir.Value
    ) -> None:
        producer = value.producer()
        dequantize = result.producer()
        assert dequantize is not None
        if producer is None:
            self._graph.insert_before(self._first, [quantize, dequantize])
        else:
            self._graph.insert_after(producer, [quantize, dequantize])

    def _from_constant(
        self,
        whole: onnx_ir.Value,
        scale: onnx_ir.Value,
        zero: onnx_ir.Value,
        name: str,
        axis: int | None,
    ) -> onnx_ir.Value:
        result = self._dequantized(whole, scale, zero, name, axis)
        result.shape = whole.shape
        node = result.producer()
        assert node is not None
        self._graph.insert_before(self._first, [node])
        return result

    def _dequantized(
        self,
        whole: onnx_ir.Value,
        scale: onnx_ir.Value,
        zero: onnx_ir.Value,
        name: str,
        axis: int | None,
    ) -> onnx_ir.Value:
        import onnx_ir as ir

        attributes = {} if axis is None else {"axis": axis}
        inputs = [whole, scale, zero]
        node = self._node("DequantizeLinear", inputs, f"{name}.dequantize", attributes)
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        return node.outputs[0]

    def _node(
        self,
        op: str,
        inputs: list[onnx_ir.Value],
        base: str,
        attributes: Mapping[str, int] | None = None,
    ) -> onnx_ir.Node:
        import onnx_ir as ir

        name = self._names.fresh(base)
        node = ir.node(op, inputs, attributes or {}, name=name)
        node.outputs[0].name = self._names.fresh(f"{base}d")
        return node

    def _constant(self, base: str, array: np.ndarray) -> onnx_ir.Value:
        return add_constant(self._graph, self._names, base, array)
