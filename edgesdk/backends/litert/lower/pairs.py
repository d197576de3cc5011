"""Read what a QuantizeLinear or DequantizeLinear says: the grid its integers lie on.

Unsigned integers are moved to signed ones, scale for scale and step for step, since that is
what TFLite's kernels compute with: 8 bits by 128, 16 bits by 32768.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.values import NodeFacts

__all__ = ["as_read", "as_unsigned", "constant_of", "is_pair", "read_grid", "signed_steps"]

#: Types of integers that are quantized, with the one TFLite computes in and the way there.
_SIGNED = {
    "int8": ("int8", 0),
    "uint8": ("int8", 128),
    "int16": ("int16", 0),
    "uint16": ("int16", 32768),
    "int32": ("int32", 0),
    "int4": ("int8", 0),
    "uint4": ("int8", 0),
    "int2": ("int8", 0),
    "uint2": ("int8", 0),
}


def is_pair(node: ir.Node) -> bool:
    """Say whether a node is half of a Q/DQ pair."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in (
        "",
        "ai.onnx",
    )


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Give what a value holds if that is known before the graph runs.

    Raises:
        CannotLower: It cannot be read.
    """
    import onnx_ir as ir

    if value is None or value.is_graph_input():
        return None
    try:
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    except Exception as exc:  # whatever a reader of external data or odd types may raise
        raise CannotLower(f"its constant {value.name!r} cannot be read: {exc}") from exc


def as_read(facts: NodeFacts, node: ir.Node) -> NodeFacts:
    """Give a node the types it reads where integers come in: those behind a pair."""
    types = []
    for known, value in zip(facts.input_types, node.inputs, strict=True):
        maker = None if value is None else value.producer()
        if known is None or value is None or maker is None or not is_pair(maker):
            types.append(known)
            continue
        name = "float" if value.dtype is None else value.dtype.name.lower()
        types.append(replace(known, dtype="float32" if name == "float" else name))
    return replace(facts, input_types=tuple(types))


def read_grid(node: ir.Node) -> Grid:
    """Give the grid of a pair's half, in signed integers and ONNX's layout.

    Raises:
        CannotLower: TFLite has no such grid.
    """
    if "block_size" in node.attributes and node.attributes["block_size"].as_int() > 0:
        raise CannotLower("its scales are by blocks, which LiteRT does not have")
    scale = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if scale is None:
        raise CannotLower("the scale of its quantized numbers is not known before it runs")
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero = constant_of(given)
    if given is not None and zero is None:
        raise CannotLower("the zero point of its quantized numbers is not known before it runs")
    dtype = _integers(node)
    if dtype not in _SIGNED:
        raise CannotLower(f"its numbers are quantized to {dtype or 'an unknown type'}")
    scales = np.asarray(scale, np.float32).reshape(-1)
    if not scales.size or not all(math.isfinite(each) and each > 0 for each in scales.tolist()):
        raise CannotLower("a scale of its quantized numbers is no positive number")
    zeros = np.zeros(scales.shape, np.int64)
    if zero is not None:
        if zero.size not in (1, scales.size):
            raise CannotLower(f"it has {scales.size} scales but {zero.size} zero points")
        zeros = np.broadcast_to(zero.astype(np.int64).reshape(-1), scales.shape)
    signed, shift = _SIGNED[dtype]
    grid = Grid(
        signed,
        tuple(float(each) for each in scales),
        tuple(int(each) - shift for each in zeros),
    )
    limits = np.iinfo(signed)
    if not all(limits.min <= each <= limits.max for each in grid.zero_points):
        raise CannotLower(f"a zero point of its quantized numbers does not fit {dtype}")
    if grid.dtype == "int16" and not grid.is_centred:
        raise CannotLower("its numbers of 16 bits have a zero point other than 0")
    if np.ndim(scale) == 0 or scales.size == 1:
        return grid
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    rank = (
        None
        if node.inputs[0] is None or node.inputs[0].shape is None
        else len(node.inputs[0].shape)
    )
    if rank is None or not -rank <= axis < rank:
        raise CannotLower(f"its scales go along axis {axis} of a value of rank {rank}")
    return replace(grid, axis=axis % rank)


def as_unsigned(grid: Grid, dtype: str) -> Grid:
    """Give the grid of the same real numbers in unsigned integers, if ``dtype`` is that.

    Raises:
        CannotLower: ``dtype`` is neither the grid's own nor its unsigned sister.
    """
    signed, shift = _SIGNED.get(dtype, ("", 0))
    if signed != grid.dtype:
        raise CannotLower(f"numbers of {grid.dtype} are stated to be {dtype}")
    if not shift:
        return grid
    return replace(grid, dtype=dtype, zero_points=tuple(z + shift for z in grid.zero_points))


def signed_steps(steps: np.ndarray) -> np.ndarray:
    """Move the integers of a constant to the signed type of their grid."""
    if steps.dtype.name not in _SIGNED:
        raise CannotLower(f"its numbers are quantized to {steps.dtype.name}")
    signed, shift = _SIGNED[steps.dtype.name]
    if shift:
        return (steps.astype(np.int32) - shift).astype(signed)
    return steps.astype(signed, copy=False)


def _integers(node: ir.Node) -> str:
    """Name the type of a pair's integers."""
    side = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    for value in (zero, side):
        found = constant_of(value)
        if found is not None:
            return str(found.dtype.name)
        if value is not None and value.dtype is not None:
            return str(value.dtype.name.lower())
    if node.op_type == "QuantizeLinear":
        kind = node.attributes.get("output_dtype")
        return "uint8" if kind is None or not kind.as_int() else ""
    return ""
