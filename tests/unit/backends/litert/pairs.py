"""Q/DQ graphs made by hand: every value of a float graph between pairs, whatever makes it.

The quantizer leaves alone what would only convert back and forth. To hold each 8-bit kernel to
its numbers, here each stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edgesdk.model.convert import fit_opset
from edgesdk.profiles import load_scheme_rules
from tests.unit.backends.litert.lowering import Arrays, in_onnxruntime

__all__ = ["on_grid", "pair_everything"]

_RULES = load_scheme_rules("litert-int8")
#: Inputs that are settings, never tensors of a grid.
_SETTINGS = {"Clip": (1, 2), "Resize": (1, 2, 3), "Pad": (1, 2, 3), "Pow": (1,)}
_WEIGHTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
Grid = tuple[np.ndarray, np.ndarray]


def pair_everything(
    model: ir.Model, samples: Sequence[Arrays], *, dtype: str = "int8"
) -> ir.Model:
    """Put a pair behind each float input, constant and result.

    Args:
        model: A float graph of top-level nodes; left as it is.
        samples: What the ranges are taken from.
        dtype: Of activations: ``int8``, with zero points, or ``int16``, without. Weights are
            int8, one scale per channel where the rules have that.
    """
    copy = (
        fit_opset(model, lowest=21, highest=None, max_ir=None)
        if dtype == "int16"
        else model.clone()
    )
    ranges = _shared(copy, _ranges(copy, samples))
    grids = {name: _grid(low, high, dtype) for name, (low, high) in ranges.items()}
    names = {value.name: value for value in copy.graph.outputs}
    inputs = list(copy.graph.inputs)
    for node in list(copy.graph):
        for at, value in enumerate(node.inputs):
            if value is None or value.producer() is not None or value in inputs:
                continue
            if value.dtype != ir.DataType.FLOAT or at in _SETTINGS.get(node.op_type, ()):
                continue
            node.replace_input_with(at, _constant(copy, node, at, value, grids, dtype))
    for value in inputs:
        if value.name in grids:
            _pair(copy, value, grids[value.name], at_end=False)
    for node in list(copy.graph):
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for value in node.outputs:
            if value.name in grids:
                _pair(copy, value, grids[value.name], at_end=value.name in names)
    copy.graph.sort()
    return copy


def on_grid(model: ir.Model, sample: Arrays) -> Arrays:
    """Round a sample to the grids of the inputs, where runtimes break ties differently."""
    found = dict(sample)
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if source is None or source.name not in sample:
            continue
        scale, zero = (ir.convenience.get_const_tensor(value) for value in node.inputs[1:3])
        assert scale is not None
        assert zero is not None
        step, bounds = scale.numpy(), np.iinfo(zero.numpy().dtype)
        low, high = (float(b) - float(zero.numpy()) for b in (bounds.min, bounds.max))
        steps = np.clip(np.rint(sample[source.name] / step), low, high)
        found[source.name] = (steps * step).astype(np.float32)
    return found


def _ranges(model: ir.Model, samples: Sequence[Arrays]) -> dict[str, tuple[float, float]]:
    every = model.clone()
    given = {value.name for value in every.graph.outputs}
    for node in every.graph:
        every.graph.outputs.extend(one for one in node.outputs if one.name not in given)
    found: dict[str, tuple[float, float]] = {}
    for sample in samples:
        for name, array in {**sample, **in_onnxruntime(every, sample)}.items():
            if array.dtype != np.float32 or not array.size:
                continue
            low, high = found.get(name, (0.0, 0.0))
            found[name] = min(low, float(array.min())), max(high, float(array.max()))
    return found


def _shared(
    model: ir.Model, ranges: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Give what an operator of one scale reads and makes one range, and fixed ones theirs."""
    for node in model.graph:
        if node.op_type in _RULES.fixed_outputs:
            for value in node.outputs:
                low, high = _RULES.fixed_outputs[node.op_type]
                # 256 steps, of which the last begins at the end of the range less one
                ranges[value.name or ""] = low, high - (high - low) / 256
    groups = [
        [v.name for v in (*node.inputs, *node.outputs) if v is not None and v.name in ranges]
        for node in model.graph
        if node.op_type in _RULES.same_scale
    ]
    for _ in groups:
        for group in groups:
            low = min(ranges[name][0] for name in group)
            high = max(ranges[name][1] for name in group)
            ranges.update(dict.fromkeys(group, (low, high)))
    return ranges


def _grid(low: float, high: float, dtype: str) -> Grid:
    if dtype == "int16":
        step = max(-low, high, 1e-6) / 32767
        return np.array(step, "f4"), np.array(0, "i2")
    step = max(high - low, 1e-6) / 255
    return np.array(step, "f4"), np.array(np.clip(round(-128 - low / step), -128, 127), "i1")


def _constant(
    model: ir.Model,
    node: ir.Node,
    at: int,
    value: ir.Value,
    grids: Mapping[str, Grid],
    dtype: str,
) -> ir.Value:
    """Dequantize a constant: weights by channel, biases in int32, others by tensor."""
    assert value.const_value is not None
    array = value.const_value.numpy()
    attributes: dict[str, Any] = {}
    if node.op_type in _WEIGHTS and at == 1:
        scale, axis = _weight_scale(node, array)
        whole = np.clip(np.rint(array / _along(scale, array, axis)), -127, 127).astype("i1")
        zero = np.zeros(scale.shape, "i1")
        attributes = {"axis": axis} if scale.ndim else {}
    elif node.op_type in _WEIGHTS and at == 2:
        weight = _float_weight(model, node)
        scale = grids[_origin(node)][0] * _weight_scale(node, weight)[0]
        whole = np.rint(array / scale).astype("i4")
        zero = np.zeros(scale.shape, "i4")
        attributes = {"axis": 0} if scale.ndim else {}
    else:
        scale, zero = _grid(min(array.min(), 0.0), max(array.max(), 0.0), dtype)
        bounds = np.iinfo(zero.dtype)
        whole = np.clip(np.rint(array / scale) + zero, bounds.min, bounds.max)
        whole = whole.astype(zero.dtype)
    name = f"{node.outputs[0].name}.{at}"
    parts = [
        _initializer(model, f"{name}.{end}", one)
        for end, one in (("whole", whole), ("scale", scale), ("zero", zero))
    ]
    made = ir.Value(name=f"{name}.float", type=value.type, shape=value.shape)
    pair = ir.node("DequantizeLinear", parts, attributes, outputs=[made])
    model.graph.insert_before(node, pair)
    return made


def _float_weight(model: ir.Model, node: ir.Node) -> np.ndarray:
    """Give the weights as they were: the name of their dequantizer's value is known."""
    value = node.inputs[1]
    assert value is not None
    maker = value.producer()
    assert maker is not None
    whole, scale = (
        model.graph.initializers[each.name or ""].const_value
        for each in maker.inputs[:2]
        if each is not None
    )
    assert whole is not None
    assert scale is not None
    axis = maker.attributes.get_int("axis", 1)
    array = whole.numpy().astype("f4")
    return array * _along(scale.numpy(), array, axis)


def _origin(node: ir.Node) -> str:
    value = node.inputs[0]
    assert value is not None
    return value.name or ""


def _weight_scale(node: ir.Node, array: np.ndarray) -> tuple[np.ndarray, int]:
    axis = 1 if node.op_type == "ConvTranspose" else 0
    if node.op_type in _RULES.per_tensor_weights or (
        node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) > 1
    ):
        return np.array(max(np.abs(array).max(), 1e-6) / 127, "f4"), axis
    others = tuple(i for i in range(array.ndim) if i != axis)
    return np.maximum(np.abs(array).max(axis=others), 1e-6).astype("f4") / np.float32(127), axis


def _along(scale: np.ndarray, array: np.ndarray, axis: int) -> np.ndarray:
    if not scale.ndim:
        return scale
    return scale.reshape([-1 if i == axis else 1 for i in range(array.ndim)])


def _pair(model: ir.Model, value: ir.Value, grid: Grid, *, at_end: bool) -> None:
    readers = list(value.uses())
    name = value.name or ""
    scale, zero = (
        _initializer(model, f"{name}.{end}", one)
        for end, one in zip(("scale", "zero"), grid, strict=True)
    )
    kind = ir.TensorType(ir.DataType.from_numpy(grid[1].dtype))
    whole = ir.Value(name=f"{name}.whole", shape=value.shape, type=kind)
    again = ir.Value(name=f"{name}.again", type=value.type, shape=value.shape)
    for node, at in readers:
        node.replace_input_with(at, again)
    pair = [
        ir.node("QuantizeLinear", [value, scale, zero], outputs=[whole]),
        ir.node("DequantizeLinear", [whole, scale, zero], outputs=[again]),
    ]
    model.graph.extend(pair)
    if at_end:
        place = next(i for i, one in enumerate(model.graph.outputs) if one is value)
        model.graph.outputs[place] = again
        value.name, again.name = f"{name}.before", name


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    value.shape = ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return value
