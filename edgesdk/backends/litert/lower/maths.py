"""Formulas in float32, written down operator by operator, for what TFLite has no kernel of.

Shapes follow numpy's rules of broadcasting. Everything is in the order of axes of the tensors
that are given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.site import Site

__all__ = ["Maths"]

_PLAIN: dict[str, str] = {
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "POW": "PowOptions",
    "FLOOR_MOD": "FloorModOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "EXP": "ExpOptions",
    "ABS": "AbsOptions",
    "NEG": "NegOptions",
    "COS": "CosOptions",
    "SQUARE": "SquareOptions",
    "SIGN": "SignOptions",
    "LOGICAL_NOT": "LogicalNotOptions",
    "LOGICAL_AND": "LogicalAndOptions",
    "LOGICAL_OR": "LogicalOrOptions",
    "EQUAL": "EqualOptions",
    "NOT_EQUAL": "NotEqualOptions",
    "GREATER": "GreaterOptions",
    "GREATER_EQUAL": "GreaterEqualOptions",
    "LESS": "LessOptions",
    "LESS_EQUAL": "LessEqualOptions",
}
_FUSING = frozenset({"ADD", "SUB", "MUL", "DIV"})
_TRUTHS = frozenset({"EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL"})
#: Kernels broadcast over no more dimensions than this.
_MOST_RANK = 4
_RELU6 = 3
Number = float | Tensor


class Maths:
    """Adds operators for one node, on tensors of float32 (or of one other type)."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def number(self, value: float, dtype: str = "float32") -> Tensor:
        """Give a number as a constant without dimensions."""
        return self.site.builder.constant(np.array(value, dtype), "number")

    def array(self, values: np.ndarray) -> Tensor:
        """Give an array as a constant."""
        return self.site.builder.constant(np.ascontiguousarray(values), "numbers")

    def unary(self, code: str, x: Tensor, options: Options | None = None) -> Tensor:
        """Apply a function of one number to every entry."""
        if options is None and code in _PLAIN:
            options = (_PLAIN[code], {})
        return self.site.emit(code, [x], x.shape, dtype=x.dtype, options=options)

    def binary(self, code: str, x: Number, y: Number, *, activation: int = 0) -> Tensor:
        """Apply a function of two numbers; a plain number becomes a constant."""
        kind = x.dtype if isinstance(x, Tensor) else y.dtype if isinstance(y, Tensor) else ""
        a = x if isinstance(x, Tensor) else self.number(x, kind or "float32")
        b = y if isinstance(y, Tensor) else self.number(y, kind or "float32")
        shape = np.broadcast_shapes(a.shape, b.shape)
        fields = {"fusedActivationFunction": activation} if code in _FUSING else {}
        dtype = "bool" if code in _TRUTHS else a.dtype
        operands, narrow = _few_axes(self.site, [a, b], shape)
        made = self.site.emit(
            code, operands, narrow, dtype=dtype, options=(_PLAIN[code], fields)
        )
        return self.site.builder.reshaped(made, shape)

    def add(self, x: Number, y: Number) -> Tensor:
        """Give ``x + y``."""
        return self.binary("ADD", x, y)

    def sub(self, x: Number, y: Number) -> Tensor:
        """Give ``x - y``."""
        return self.binary("SUB", x, y)

    def mul(self, x: Number, y: Number) -> Tensor:
        """Give ``x * y``."""
        return self.binary("MUL", x, y)

    def div(self, x: Number, y: Number) -> Tensor:
        """Give ``x / y``."""
        return self.binary("DIV", x, y)

    def between_0_and_1(self, x: Tensor, factor: float, offset: float) -> Tensor:
        """Give ``factor * x + offset``, cut to the interval: a Relu6 of six times that."""
        six = self.binary("ADD", self.mul(x, 6 * factor), 6 * offset, activation=_RELU6)
        return self.mul(six, 1 / 6)

    def where(self, condition: Tensor, x: Number, y: Number) -> Tensor:
        """Give ``x`` where the condition holds, else ``y``."""
        kind = x.dtype if isinstance(x, Tensor) else y.dtype if isinstance(y, Tensor) else ""
        a = x if isinstance(x, Tensor) else self.number(x, kind or "float32")
        b = y if isinstance(y, Tensor) else self.number(y, kind or "float32")
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
        operands, narrow = _few_axes(self.site, [condition, a, b], shape)
        options: Options = ("SelectV2Options", {})
        made = self.site.emit(
            "SELECT_V2", operands, narrow, dtype=a.dtype, grid=a.grid, options=options
        )
        return self.site.builder.reshaped(made, shape)

    def reduce(self, code: str, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Reduce over axes, which stay with one entry."""
        if not axes:
            return x
        shape = [1 if axis in axes else extent for axis, extent in enumerate(x.shape)]
        axis_list = self.site.builder.numbers(sorted(axes), "axes")
        options: Options = ("ReducerOptions", {"keepDims": True})
        return self.site.emit(
            code, [x, axis_list], shape, dtype=x.dtype, grid=x.grid, options=options
        )

    def part(self, x: Tensor, axis: int, start: int, count: int) -> Tensor:
        """Give ``count`` entries along an axis."""
        if start == 0 and count == x.shape[axis]:
            return x
        begins = [start if each == axis else 0 for each in range(len(x.shape))]
        shape = [count if each == axis else extent for each, extent in enumerate(x.shape)]
        builder = self.site.builder
        inputs = [x, builder.numbers(begins, "begin"), builder.numbers(shape, "size")]
        options: Options = ("SliceOptions", {})
        return self.site.emit(
            "SLICE", inputs, shape, dtype=x.dtype, grid=x.grid, options=options
        )

    def joined(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Join tensors along an axis."""
        if len(tensors) == 1:
            return tensors[0]
        first = tensors[0]
        shape = list(first.shape)
        shape[axis] = sum(each.shape[axis] for each in tensors)
        fields = {"axis": axis, "fusedActivationFunction": 0}
        return self.site.emit(
            "CONCATENATION",
            tensors,
            shape,
            dtype=first.dtype,
            grid=first.grid,
            options=("ConcatenationOptions", fields),
        )

    def dense(self, x: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        """Give ``x @ weights.T + bias`` for rows ``x`` and constant weights (out, in)."""
        made = weights.shape[0]
        numbers = self.array(np.zeros(made, np.float32)) if bias is None else bias
        fields = {"fusedActivationFunction": 0, "keepNumDims": len(x.shape) > 2}
        shape = (*x.shape[:-1], made)
        options: Options = ("FullyConnectedOptions", fields)
        return self.site.emit("FULLY_CONNECTED", [x, weights, numbers], shape, options=options)

    def unpacked(self, x: Tensor) -> list[Tensor]:
        """Give the entries along the first axis, which they lack."""
        count, rest = x.shape[0], x.shape[1:]
        if count == 1:
            return [self.site.builder.reshaped(x, rest)]
        builder = self.site.builder
        made = [Tensor(builder.fresh(f"{x.name}.{i}"), x.dtype, rest) for i in range(count)]
        builder.graph.add("UNPACK", [x], made, ("UnpackOptions", {"num": count, "axis": 0}))
        return made

    def packed(self, tensors: Sequence[Tensor]) -> Tensor:
        """Put tensors of one shape beside each other along a new first axis."""
        first = tensors[0]
        shape = (len(tensors), *first.shape)
        if len(tensors) == 1:
            return self.site.builder.reshaped(first, shape)
        options: Options = ("PackOptions", {"valuesCount": len(tensors), "axis": 0})
        return self.site.emit("PACK", tensors, shape, dtype=first.dtype, options=options)


def _few_axes(
    site: Site, tensors: Sequence[Tensor], shape: Sequence[int]
) -> tuple[list[Tensor], tuple[int, ...]]:
    """Merge neighbouring axes that all operands have, or lack, alike.

    Kernels broadcast over few dimensions; where all shapes are the same they do not count.
    """
    rank = len(shape)
    if rank <= _MOST_RANK or all(each.shape == tuple(shape) for each in tensors):
        return list(tensors), tuple(shape)
    full = [(1,) * (rank - len(each.shape)) + each.shape for each in tensors]
    groups: list[list[int]] = []
    before: tuple[bool, ...] | None = None
    for axis in range(rank):
        has = tuple(each[axis] == shape[axis] for each in full)
        if groups and has == before:
            groups[-1].append(axis)
        else:
            groups.append([axis])
        before = has
    narrow = tuple(math.prod(shape[axis] for axis in group) for group in groups)
    made = [
        site.builder.reshaped(
            tensor, [math.prod(extents[axis] for axis in group) for group in groups]
        )
        for tensor, extents in zip(tensors, full, strict=True)
    ]
    return made, narrow
