"""Add nodes to an ONNX graph: constants, pairs of quantizers, turned and reshaped tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.held import Grid, Held, real_numbers

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Attribute", "Builder"]

Attribute = int | float | str | Sequence[int] | Sequence[float] | Sequence[str]
#: Types of integers that a DequantizeLinear of the written version reads.
_READ_BY_PAIRS = ("int8", "uint8", "int16", "uint16", "int32")


class Builder:
    """Nodes and initializers as they grow.

    Attributes:
        nodes: In an order that works.
        initializers: Constants.
        opset: The lowest version of ONNX's operators that has all that was asked for.
        label: What the nodes that are added are named after.
    """

    def __init__(self, opset: int) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.opset = opset
        self.label = ""
        self._names: set[str] = set()
        self._shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def name(self, wanted: str) -> str:
        """Give a name that no other value or node has, close to the one wanted."""
        wanted = wanted or "tensor"
        name, count = wanted, 1
        while name in self._names:
            name, count = f"{wanted}_{count}", count + 1
        self._names.add(name)
        return name

    def emit(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
        since: int = 0,
    ) -> list[ir.Value]:
        """Add a node and give its outputs; ``since`` is the opset from which it is there."""
        import onnx_ir as ir

        self.opset = max(self.opset, since)
        name = self.name(self.label)
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        values = [ir.Value(name=self.name(f"{name}:{number}")) for number in range(outputs)]
        kept = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in (attributes or {}).items()
        }
        self.nodes.append(ir.node(op, given, kept, outputs=values, name=name))
        return values

    def one(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        since: int = 0,
    ) -> ir.Value:
        """Add a node of one output and give that."""
        return self.emit(op, inputs, attributes, since=since)[0]

    def constant(self, array: np.ndarray, name: str = "") -> ir.Value:
        """Make an initializer; small equal ones are the same."""
        import onnx_ir as ir

        array = np.asarray(array, array.dtype.newbyteorder("="), order="C")
        key = (array.dtype.name, array.shape, array.tobytes() if array.size <= 256 else b"")
        if array.size <= 256 and key in self._shared:
            return self._shared[key]
        label = self.name(name or f"{self.label}/constant")
        value = ir.Value(
            name=label,
            const_value=ir.tensor(array, name=label),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
        )
        self.initializers.append(value)
        if array.size <= 256:
            self._shared[key] = value
        return value

    def numbers(self, *numbers: int) -> ir.Value:
        """Make a constant of whole numbers, a list of them."""
        return self.constant(np.array(numbers, np.int64))

    # Pairs -----------------------------------------------------------------------------------

    def quantized(self, real: ir.Value, grid: Grid, order: Sequence[int]) -> ir.Value:
        """Round real numbers to a grid and give the integers."""
        scale, zero, attributes = self._grid(grid, order)
        return self.one("QuantizeLinear", [real, scale, zero], attributes)

    def dequantized(self, whole: ir.Value, grid: Grid, order: Sequence[int]) -> ir.Value:
        """Give the real numbers that integers stand for."""
        scale, zero, attributes = self._grid(grid, order)
        return self.one("DequantizeLinear", [whole, scale, zero], attributes)

    def _grid(
        self, grid: Grid, order: Sequence[int]
    ) -> tuple[ir.Value, ir.Value, dict[str, Attribute]]:
        if grid.dtype in ("int16", "uint16"):
            self.opset = max(self.opset, 21)
        scales = np.array(grid.scales, np.float32)
        zeros = np.array(grid.zero_points, grid.dtype)
        if grid.axis is None:
            return self.constant(scales.reshape(())), self.constant(zeros.reshape(())), {}
        axis: dict[str, Attribute] = {"axis": list(order).index(grid.axis)}
        return self.constant(scales), self.constant(zeros), axis

    # Held tensors ----------------------------------------------------------------------------

    def real(self, held: Held, order: Sequence[int] | None = None) -> ir.Value:
        """Give a tensor's real numbers, or the whole numbers it holds, with axes in ``order``.

        Without an order, TFLite's own.
        """
        wanted = held.identity if order is None else tuple(order)
        if held.data is not None:
            return self._fixed(held, held.shape, wanted)
        held = self.turned(held, wanted)
        if held.real is None:
            assert held.whole is not None
            assert held.grid is not None
            held.real = self.dequantized(held.whole, held.grid, held.order)
        return held.real

    def fixed(self, held: Held, shape: Sequence[int], order: Sequence[int]) -> ir.Value:
        """Give a constant's real numbers after a reshape that adds axes of one in front.

        Args:
            held: The constant.
            shape: Its shape with these axes.
            order: Of the axes of ``shape``.
        """
        return self._fixed(held, tuple(shape), tuple(order))

    def _fixed(self, held: Held, shape: tuple[int, ...], order: tuple[int, ...]) -> ir.Value:
        key = (shape, order)
        if key in held.constants:
            return held.constants[key]
        assert held.data is not None
        array = held.data.reshape(shape).transpose(order)
        grid, added = held.grid, len(shape) - held.rank
        if grid is None:
            made = self.constant(array)
        else:
            if grid.axis is not None and added:
                grid = Grid(grid.dtype, grid.scales, grid.zero_points, grid.axis + added)
            small = grid.dtype
            if small == "int64" and not any(grid.zero_points) and _fits(array):
                small, array = "int32", array.astype(np.int32)
            if small in _READ_BY_PAIRS:
                grid = Grid(small, grid.scales, grid.zero_points, grid.axis)
                made = self.dequantized(self.constant(array), grid, order)
            else:
                made = self.constant(real_numbers(array, grid, order))
        held.constants[key] = made
        return made

    def turned(self, held: Held, order: Sequence[int]) -> Held:
        """Give a tensor with the axes of its values in another order."""
        wanted = tuple(order)
        if wanted == held.order or held.data is not None:
            return held
        if wanted not in held.turned:
            perm = tuple(held.order.index(axis) for axis in wanted)
            moved = self.one("Transpose", [self.real(held, held.order)], {"perm": perm})
            made = self.moved(held, moved, held.shape, wanted)
            made.turned[held.order] = held
            held.turned[wanted] = made
        return held.turned[wanted]

    def reshaped(self, held: Held, shape: Sequence[int]) -> Held:
        """Give a tensor in another shape, its numbers in TFLite's order."""
        wanted = tuple(shape)
        if held.data is not None:
            if held.grid is None or held.grid.axis is None:
                data = held.data.reshape(wanted)
                return Held(wanted, tuple(range(len(wanted))), held.grid, data=data)
            held = Held(held.shape, held.identity, real=self.real(held))
        if wanted == held.shape:
            return held
        source = self.real(held, held.order if held.lies_flat else None)
        moved = self.one("Reshape", [source, self.numbers(*wanted)])
        return self.moved(held, moved, wanted, range(len(wanted)))

    def moved(
        self, held: Held, real: ir.Value, shape: Sequence[int], order: Sequence[int]
    ) -> Held:
        """Hold ``real``, which has numbers of ``held`` in other places, on the same grid.

        One with a scale per channel is left: its channels may be elsewhere.
        """
        grid = held.grid if held.grid is not None and held.grid.axis is None else None
        made = Held(tuple(shape), tuple(order), grid)
        if grid is None:
            made.real = real
        else:
            made.whole = self.quantized(real, grid, order)
        return made


def _fits(array: np.ndarray) -> bool:
    """Say whether all integers fit 32 bits."""
    limits = np.iinfo(np.int32)
    return not array.size or bool(array.min() >= limits.min and array.max() <= limits.max)
