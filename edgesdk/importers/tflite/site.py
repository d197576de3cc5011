"""What an operator's conversion is given: its tensors in any order of axes, its options."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.builder import Attribute, Builder
from edgesdk.importers.tflite.held import CannotConvert, Grid, Held, grid_of, real_numbers

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.importers.tflite.walk import Walk
    from edgesdk.model.tflite_graph import TfliteOp, TfliteTensor

__all__ = ["CHANNELS_FIRST", "Site"]

#: NHWC turned to ONNX's NCHW: which axis of TFLite's each of ONNX's is.
CHANNELS_FIRST = (0, 3, 1, 2)
#: Entries that a list of places, made while converting, may have.
_MOST_PLACES = 1 << 22
_ACTIVATIONS = {"RELU": (0.0, math.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


class Site:
    """One operator to convert.

    Attributes:
        op: As the file has it.
        builder: Adds nodes.
    """

    def __init__(self, walk: Walk, op: TfliteOp) -> None:
        self.walk = walk
        self.op = op
        self.builder: Builder = walk.builder

    # Options ---------------------------------------------------------------------------------

    def number(self, name: str, default: int = 0) -> int:
        """Give an option that is a whole number or a truth."""
        found = self.op.options.get(name, default)
        return int(found) if isinstance(found, int | float) else default

    def real(self, name: str, default: float = 0.0) -> float:
        """Give an option that is a real number.

        Raises:
            CannotConvert: It is not finite.
        """
        found = self.op.options.get(name, default)
        number = float(found) if isinstance(found, int | float) else default
        if not math.isfinite(number):
            raise CannotConvert(f"its option {name} is {number}")
        return number

    def text(self, name: str, default: str = "") -> str:
        """Give an option that is a name."""
        return str(self.op.options.get(name, default))

    # Inputs ----------------------------------------------------------------------------------

    def has(self, position: int) -> bool:
        """Say whether an optional input is there."""
        return position < len(self.op.inputs) and self.op.inputs[position] >= 0

    def tensor(self, position: int) -> TfliteTensor:
        """Give what the file says of an input.

        Raises:
            CannotConvert: It is not there.
        """
        if not self.has(position):
            raise CannotConvert(f"its input {position} is missing")
        return self.walk.graph.tensors[self.op.inputs[position]]

    def shape(self, position: int) -> tuple[int, ...]:
        """Give an input's shape in TFLite's order."""
        return self.held(position).shape

    def held(self, position: int) -> Held:
        """Give an input as it is held.

        Raises:
            CannotConvert: It is not there, or nothing makes it.
        """
        return self.walk.held(self.tensor(position).index)

    def take(self, position: int, order: Sequence[int] | None = None) -> ir.Value:
        """Give an input's real numbers, its axes in ``order`` (default: TFLite's)."""
        held = self.held(position)
        if order is not None and len(order) != held.rank:
            raise CannotConvert(
                f"its input {position} has {held.rank} dimensions (expected {len(order)})"
            )
        return self.builder.real(held, order)

    def raw(self, position: int) -> ir.Value:
        """Give an input's integers as they are stored, axes in TFLite's order."""
        held = self.held(position)
        if not self.is_quantized(position):
            return self.take(position)
        if held.data is not None:
            return self.builder.constant(held.data)
        turned = self.builder.turned(held, held.identity)
        assert turned.whole is not None
        return turned.whole

    def is_quantized(self, position: int) -> bool:
        """Say whether the file stores an input as integers with scales."""
        return grid_of(self.tensor(position)) is not None

    def constant(self, position: int) -> np.ndarray | None:
        """Give an input's real numbers in TFLite's order if the file fixes them, else None."""
        held = self.held(position)
        if held.data is None or held.grid is None:
            return held.data
        return real_numbers(held.data, held.grid)

    def numbers(self, position: int, what: str) -> tuple[int, ...]:
        """Give the whole numbers of an input that is a setting.

        Raises:
            CannotConvert: The file does not fix them.
        """
        data = self.held(position).data
        if data is None or data.dtype.kind not in "iu":
            raise CannotConvert(
                f"its {what} are not known before it runs",
                hint="convert to TFLite again with fixed shapes",
            )
        return tuple(int(each) for each in data.reshape(-1))

    def axes(self, position: int, rank: int) -> tuple[int, ...]:
        """Give an input that names axes, counted from the front and each once."""
        found = dict.fromkeys(self.axis(each, rank) for each in self.numbers(position, "axes"))
        return tuple(found)

    def axis(self, axis: int, rank: int) -> int:
        """Count an axis from the front.

        Raises:
            CannotConvert: There is no such axis.
        """
        if not -rank <= axis < rank:
            raise CannotConvert(f"its axis is {axis}, of a tensor of {rank} dimensions")
        return axis % rank

    def countable(self, count: int) -> int:
        """Give a count of places that are listed one by one.

        Raises:
            CannotConvert: There are too many.
        """
        if count > _MOST_PLACES:
            raise CannotConvert(f"an axis has {count} entries (at most {_MOST_PLACES})")
        return count

    # Outputs ---------------------------------------------------------------------------------

    def out(self, position: int = 0) -> TfliteTensor:
        """Give what the file says of an output.

        Raises:
            CannotConvert: It is not there.
        """
        if position >= len(self.op.outputs) or self.op.outputs[position] < 0:
            raise CannotConvert(f"its output {position} is missing")
        return self.walk.graph.tensors[self.op.outputs[position]]

    def out_shape(self, position: int = 0) -> tuple[int, ...]:
        """Give the shape the file states for an output."""
        return self.out(position).shape

    def out_grid(self, position: int = 0) -> Grid | None:
        """Give the grid of an output; None where it is not quantized.

        Raises:
            CannotConvert: It has a scale per channel, which only constants have.
        """
        return self.walk.activation_grid(self.out(position))

    def emit(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        since: int = 0,
    ) -> ir.Value:
        """Add a node of one output and give that."""
        return self.builder.one(op, inputs, attributes, since=since)

    def number_value(self, number: float, like: int = 0) -> ir.Value:
        """Make a constant of one number, of the type that input ``like`` computes in."""
        dtype = self.real_dtype(like)
        return self.builder.constant(np.array(number, dtype))

    def real_dtype(self, position: int) -> str:
        """Name the type that the ONNX graph has for an input's numbers."""
        tensor = self.tensor(position)
        return "float32" if self.held(position).grid is not None else tensor.dtype

    def activated(self, value: ir.Value) -> ir.Value:
        """Apply the operator's fused activation."""
        name = self.text("activation", "NONE")
        if name == "NONE":
            return value
        if name == "TANH":
            return self.emit("Tanh", [value])
        if name not in _ACTIVATIONS:
            raise CannotConvert(f"its fused activation is {name}")
        return self.clipped(value, *_ACTIVATIONS[name])

    def clipped(self, value: ir.Value, low: float, high: float) -> ir.Value:
        """Cut numbers to an interval that begins or ends at known floats."""
        if (low, high) == (0.0, math.inf):
            return self.emit("Relu", [value])
        limits = [
            None if math.isinf(each) else self.builder.constant(np.array(each, np.float32))
            for each in (low, high)
        ]
        return self.emit("Clip", [value, *limits])

    def give(
        self, value: ir.Value, order: Sequence[int] | None = None, *, position: int = 0
    ) -> None:
        """Say where an output is, in real numbers before rounding.

        Args:
            value: The real numbers, or whole numbers or truths.
            order: Of its axes; TFLite's without one.
            position: Which output.
        """
        tensor, grid = self.out(position), self.out_grid(position)
        shape = tensor.shape
        kept = tuple(range(len(shape))) if order is None else tuple(order)
        if sorted(kept) != list(range(len(shape))):
            raise CannotConvert(
                f"it gives {len(kept)} dimensions (the file states {len(shape)})"
            )
        made = Held(shape, kept, grid)
        if grid is None:
            made.real = value
        else:
            made.whole = self.builder.quantized(value, grid, kept)
        self.walk.bind(tensor, made)

    def pass_on(self, held: Held, *, position: int = 0) -> None:
        """Say that an output is ``held``, whose numbers go to the output's grid if it has one.

        Raises:
            CannotConvert: The file states another shape for it.
        """
        tensor, grid = self.out(position), self.out_grid(position)
        if held.shape != tensor.shape:
            raise CannotConvert(
                f"it gives a tensor of {held.shape} (the file states {tensor.shape})"
            )
        if grid is not None and grid != held.grid:
            if held.data is not None and held.grid is None:
                held = Held(held.shape, held.identity, real=self.builder.real(held))
            self.give(self.builder.real(held, held.order), held.order, position=position)
            return
        self.walk.bind(tensor, held)

    # Several inputs --------------------------------------------------------------------------

    def common_order(self, *positions: int) -> tuple[int, ...]:
        """Choose the order of axes that several inputs are brought into.

        That of the largest of those with the most axes that are not constant, and rather one
        that was turned already.
        """
        held = [self.held(each) for each in positions]
        rank = max(each.rank for each in held)
        able = [each for each in held if each.rank == rank and each.data is None]
        if not able:
            return tuple(range(rank))
        best = max(able, key=lambda each: (math.prod(each.shape), each.order != each.identity))
        return best.order

    def operands(self, *positions: int) -> tuple[list[ir.Value], tuple[int, ...]]:
        """Give inputs with as many axes as the largest, in one order, for broadcasting."""
        order = self.common_order(*positions)
        return [self.broadcastable(self.held(each), order) for each in positions], order

    def broadcastable(self, held: Held, order: Sequence[int]) -> ir.Value:
        """Give a tensor with axes of one added in front, its axes in ``order``."""
        missing = len(order) - held.rank
        if missing < 0:
            raise CannotConvert(f"a tensor of {held.rank} dimensions (at most {len(order)})")
        if held.data is not None:
            if held.data.size == 1 and (held.grid is None or held.grid.axis is None):
                return self.builder.fixed(held, (), ())
            return self.builder.fixed(held, (1,) * missing + held.shape, order)
        if missing and math.prod(held.shape) == 1:
            return self.builder.real(held)
        if missing:
            held = self.builder.reshaped(held, (1,) * missing + held.shape)
        return self.builder.real(held, order)
