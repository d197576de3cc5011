"""A TFLite graph in memory, as it grows: tensors with their grids, operators with options.

Nothing here knows ONNX or the file format; `edgesdk.backends.litert.lower.write` makes a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Graph", "Grid", "Op", "Options", "Tensor"]

#: The name of a table of options in TFLite's schema, and its fields as the object API has them.
Options = tuple[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Grid:
    """Which real numbers the integers of a tensor stand for: ``(n - zero_point) * scale``.

    Attributes:
        dtype: Numpy's name of the integers' type.
        scales: One, or one per entry of ``axis``; exactly representable as float32.
        zero_points: Beside ``scales``.
        axis: The axis with one scale per entry, in the tensor's own layout.
    """

    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None

    @property
    def scale(self) -> float:
        """The only scale."""
        assert self.axis is None
        return self.scales[0]

    @property
    def zero_point(self) -> int:
        """The only zero point."""
        assert self.axis is None
        return self.zero_points[0]

    @property
    def lowest(self) -> float:
        """The smallest real number on it."""
        return float((int(np.iinfo(self.dtype).min) - self.zero_point) * self.scale)

    @property
    def highest(self) -> float:
        """The largest real number on it."""
        return float((int(np.iinfo(self.dtype).max) - self.zero_point) * self.scale)

    @property
    def is_centred(self) -> bool:
        """Whether 0 stands for 0 everywhere."""
        return not any(self.zero_points)


@dataclass(slots=True, eq=False)
class Tensor:
    """One tensor. ``dtype`` is numpy's name; ``data`` is there where it is constant."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    grid: Grid | None = None
    data: np.ndarray | None = None
    maker: Op | None = None

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1


@dataclass(slots=True, eq=False)
class Op:
    """One operator. ``code`` is TFLite's name of it, like ``CONV_2D``."""

    code: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Options | None = None
    intermediates: tuple[Tensor, ...] = ()


@dataclass(slots=True)
class Graph:
    """Operators in the order of execution."""

    name: str = "main"
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)

    def add(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        options: Options | None = None,
        intermediates: Sequence[Tensor] = (),
    ) -> Op:
        """Append an operator, which makes ``outputs``."""
        op = Op(code, tuple(inputs), tuple(outputs), options, tuple(intermediates))
        for tensor in outputs:
            tensor.maker = op
        self.ops.append(op)
        return op

    def prune(self) -> None:
        """Drop operators whose results nobody reads."""
        wanted = {id(tensor) for tensor in self.outputs}
        kept = []
        for op in reversed(self.ops):
            if any(id(tensor) in wanted for tensor in op.outputs):
                kept.append(op)
                wanted.update(id(tensor) for tensor in op.inputs if tensor is not None)
        self.ops = kept[::-1]

    def tensors(self) -> list[Tensor]:
        """Every tensor once, in the order of first use."""
        found: dict[int, Tensor] = {id(tensor): tensor for tensor in self.inputs}
        for op in self.ops:
            for tensor in (*op.inputs, *op.intermediates, *op.outputs):
                if tensor is not None:
                    found[id(tensor)] = tensor
        for tensor in self.outputs:
            found[id(tensor)] = tensor
        return list(found.values())
