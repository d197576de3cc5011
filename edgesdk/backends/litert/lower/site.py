"""What a lowering of a node is given: its inputs in any layout and grid, where results go.

Values of the ONNX graph are held as tensors in whatever order of axes they came out of a kernel
(`Held`), and turned only for those who need another. So a TRANSPOSE is added where two kernels
disagree, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.backends.litert.lower.builder import Builder, dequantized
from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Options, Tensor
from edgesdk.backends.litert.lower.pairs import constant_of
from edgesdk.model.values import NodeFacts

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.backends.litert.lower.walk import Walk

__all__ = ["ACTIVATIONS", "Held", "Site", "bounds_of", "fused_name", "inverse"]

#: Numbers of the fused activations, by TFLite's names.
_NO_BOUND = 3.4e38
ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}


@dataclass(frozen=True, slots=True)
class Held:
    """A value of the ONNX graph as the TFLite graph has it.

    Attributes:
        tensor: Where it is; with a grid, the value is what the tensor's integers stand for.
        order: Axis ``i`` of the tensor is axis ``order[i]`` of the value.
        is_bare: The value is the integers themselves, between the halves of a pair.
    """

    tensor: Tensor
    order: tuple[int, ...]
    is_bare: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape, in ONNX's order."""
        return tuple(self.tensor.shape[axis] for axis in inverse(self.order))

    @property
    def is_in_order(self) -> bool:
        """Whether the tensor has ONNX's order of axes."""
        return self.order == tuple(range(len(self.order)))


def inverse(order: Sequence[int]) -> tuple[int, ...]:
    """Turn a permutation around."""
    return tuple(list(order).index(axis) for axis in range(len(order)))


def bounds_of(node: ir.Node) -> tuple[float, float] | None:
    """Give the interval that a Relu or Clip cuts its input to; None for what is neither.

    Raises:
        CannotLower: A bound is not known before the graph runs.
    """
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return None
    found = [-math.inf, math.inf]
    for position, name in enumerate(("min", "max")):
        if name in node.attributes:  # before opset 11
            found[position] = float(node.attributes[name].as_float())
        value = node.inputs[position + 1] if len(node.inputs) > position + 1 else None
        if value is not None:
            bound = constant_of(value)
            if bound is None or bound.size != 1 or math.isnan(float(bound.reshape(()))):
                raise CannotLower(f"its {name} is not one known number")
            found[position] = float(bound.reshape(()))
    return found[0], found[1]


def fused_name(low: float, high: float) -> str | None:
    """Give the fused activation that cuts to an interval, if there is one."""
    if high == math.inf or high >= _NO_BOUND:
        return "RELU" if low == 0.0 else None
    return {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}.get((low, high))


class Site:
    """One node to lower.

    Attributes:
        node: The node of the ONNX graph.
        facts: What rules see of it, Q/DQ pairs looked through.
        builder: Adds operators.
        activation: The fused activation of its result (a key of `ACTIVATIONS`); a lowering that
            was registered with ``fuses`` has to compute it.
    """

    def __init__(
        self, walk: Walk, node: ir.Node, facts: NodeFacts, *, in_float: bool = False
    ) -> None:
        self._in_float = in_float
        self.walk = walk
        self.node = node
        self.facts = facts
        self.builder: Builder = walk.builder
        self.activation = "NONE"
        self.absorbed: ir.Node | None = None

    # Attributes ------------------------------------------------------------------------------

    def number(self, name: str, default: int = 0) -> int:
        """Give an attribute that is a whole number."""
        found = self.facts.ints.get(name)
        return default if not found else found[0]

    def numbers(self, name: str, default: Sequence[int] = ()) -> tuple[int, ...]:
        """Give an attribute that is several whole numbers."""
        return tuple(self.facts.ints.get(name, default))

    def real(self, name: str, default: float = 0.0) -> float:
        """Give an attribute that is a real number."""
        found = self.facts.floats.get(name)
        return default if not found else found[0]

    def text(self, name: str, default: str = "") -> str:
        """Give an attribute that is a text."""
        return self.facts.strings.get(name, default)

    # Inputs ----------------------------------------------------------------------------------

    def has(self, position: int) -> bool:
        """Say whether an optional input is there."""
        return position < len(self.node.inputs) and self.node.inputs[position] is not None

    def held(self, position: int) -> Held:
        """Give an input as it is held.

        Raises:
            CannotLower: It is not there, or has no form in TFLite.
        """
        value = self.node.inputs[position] if self.has(position) else None
        if value is None:
            raise CannotLower(f"its input {position} is missing")
        held = self.walk.held(value)
        if held.is_bare:
            raise CannotLower(
                f"it reads the integers of {value.name!r} without a DequantizeLinear"
            )
        if held.tensor.dtype == "uint16":
            raise CannotLower(f"{value.name!r} is uint16, which hardly a kernel takes")
        return held

    def shape(self, position: int) -> tuple[int, ...]:
        """Give an input's shape in ONNX's order."""
        return self.held(position).shape

    def grid(self, position: int) -> Grid | None:
        """Give the grid of an input; None where it is in float or no number."""
        return self.held(position).tensor.grid

    def is_half(self, position: int) -> bool:
        """Say whether an input is a constant of float16."""
        return self.held(position).tensor.dtype == "float16"

    def constant(self, position: int) -> np.ndarray | None:
        """Give an input's real numbers in ONNX's order if they are known, else None."""
        if not self.has(position):
            return None
        known = constant_of(self.node.inputs[position])
        if known is not None and not known.size:
            return known  # a setting, such as axes that name none; it becomes no tensor
        tensor = self.held(position).tensor
        if tensor.data is None:
            return None
        if tensor.grid is not None:
            return dequantized(tensor.data, tensor.grid)
        return tensor.data.astype(np.float32) if tensor.dtype == "float16" else tensor.data

    def take(self, position: int, order: Sequence[int] | None = None) -> Tensor:
        """Give an input on its own grid, its axes in ``order`` (default: ONNX's)."""
        return self.turn(self.held(position), order)

    def take_float(self, position: int, order: Sequence[int] | None = None) -> Tensor:
        """Give an input in float32, or as the whole numbers or truths it is."""
        held = self.held(position)
        return self.turn(Held(self.builder.in_float(held.tensor), held.order), order)

    def take_on(
        self, position: int, grid: Grid | None, order: Sequence[int] | None = None
    ) -> Tensor:
        """Give an input on a grid, requantized where its own differs; in float for None."""
        if grid is None:
            return self.take_float(position, order)
        held = self.held(position)
        return self.turn(Held(self.builder.on_grid(held.tensor, grid), held.order), order)

    def turn(self, held: Held, order: Sequence[int] | None = None) -> Tensor:
        """Give a held value's tensor with its axes in ``order`` (default: ONNX's)."""
        wanted = tuple(range(len(held.order))) if order is None else tuple(order)
        if sorted(wanted) != sorted(held.order):
            raise CannotLower(f"a value of {len(held.order)} dimensions (of {len(wanted)})")
        return self.builder.permuted(held.tensor, [held.order.index(a) for a in wanted])

    # Outputs ---------------------------------------------------------------------------------

    def out_shape(self, position: int = 0) -> tuple[int, ...]:
        """Give the shape the graph states for an output.

        Raises:
            CannotLower: It is not fixed.
        """
        return self.walk.shape_of(self.node.outputs[position])

    def out_dtype(self, position: int = 0) -> str:
        """Give the type the graph states for an output, halves as float32."""
        return self.walk.dtype_of(self.node.outputs[position])

    def out_grid(self, position: int = 0) -> Grid | None:
        """Give the grid that all who read an output quantize it to, if there is one."""
        return self.walk.grid_after(self._result(position))

    def kernel_grid(self, *positions: int) -> Grid | None:
        """Give the output's grid if the node computes in integers, else None.

        It does where all the inputs at ``positions`` that are there lie on grids of one scale
        each, of the type of the output's grid.
        """
        grid = self.out_grid()
        if grid is None or self._in_float:
            return None
        for position in positions:
            if self.has(position):
                found = self.grid(position)
                if found is None or found.axis is not None or found.dtype != grid.dtype:
                    return None
        return grid

    def emit(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        grid: Grid | None = None,
        options: Options | None = None,
    ) -> Tensor:
        """Add an operator of one output and give that; see `Builder.emit`."""
        name = self.node.outputs[0].name or code.lower()
        return self.builder.emit(
            code, inputs, shape, dtype=dtype, grid=grid, options=options, name=name
        )

    def give(
        self, tensor: Tensor, order: Sequence[int] | None = None, *, position: int = 0
    ) -> None:
        """Say where an output is; ``order`` is that of the tensor's axes (default: ONNX's).

        Raises:
            CannotLower: The tensor is not as large as the graph states.
        """
        held = Held(tensor, tuple(range(len(tensor.shape)) if order is None else order))
        stated = self.out_shape(position)
        if held.shape != stated:
            raise CannotLower(f"it gives a tensor of {held.shape} (the graph states {stated})")
        self.walk.bind(self._result(position), held)

    def _result(self, position: int) -> ir.Value:
        if position == 0 and self.absorbed is not None:
            return self.absorbed.outputs[0]
        return self.node.outputs[position]
