"""Put operators into a graph; those between layouts and grids once, and only if needed.

A constant is changed here and now; what a kernel makes gets an operator. An operator that would
undo or repeat the one before it is not added: the two become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Graph, Grid, Options, Tensor

__all__ = ["Builder", "Mark", "dequantized", "quantized"]

#: TRANSPOSE has no more in its kernels.
_MOST_TRANSPOSED = 6
#: A constant that a lowering makes may not be larger than this.
_MOST_CONSTANT_BYTES = 1 << 30
#: Kernels whose operands have one type; in a sound graph they do.
_SAME_TYPES = frozenset(
    {"ADD", "BATCH_MATMUL", "CONCATENATION", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SUB"}
)
_MOST_EXTENT = (1 << 31) - 1


def quantized(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Round numbers to a grid, as QuantizeLinear does: to even, then cut off at the ends."""
    scales, zeros = _along(grid, values.ndim)
    limits = np.iinfo(grid.dtype)
    with np.errstate(all="ignore"):
        steps = np.rint(values.astype(np.float32) / scales).astype(np.float64) + zeros
    steps = np.nan_to_num(steps, nan=0.0, posinf=limits.max, neginf=limits.min)
    return np.asarray(np.clip(steps, limits.min, limits.max), grid.dtype)


def dequantized(steps: np.ndarray, grid: Grid) -> np.ndarray:
    """Give the real numbers of what lies on a grid, as DequantizeLinear does."""
    scales, zeros = _along(grid, steps.ndim)
    shifted = steps.astype(np.int64) - zeros.astype(np.int64)
    return np.asarray(shifted.astype(np.float32) * scales, np.float32)


def _along(grid: Grid, rank: int) -> tuple[np.ndarray, np.ndarray]:
    scales = np.array(grid.scales, np.float32)
    zeros = np.array(grid.zero_points, np.float64)
    if grid.axis is None:
        return scales.reshape(()), zeros.reshape(())
    shape = [1] * rank
    shape[grid.axis] = -1
    return scales.reshape(shape), zeros.reshape(shape)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the making of a graph: operators so far, names, and what is made once."""

    ops: int
    names: frozenset[str]
    made: dict[tuple[object, ...], Tensor]


class Builder:
    """A graph under construction.

    Attributes:
        graph: What there is of it.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._names: set[str] = set()
        self._made: dict[tuple[object, ...], Tensor] = {}
        # the cache goes by identity, so what it knows may not be freed
        self._held: list[Tensor] = []

    def mark(self) -> Mark:
        """Say how far it is, to come back to."""
        return Mark(len(self.graph.ops), frozenset(self._names), dict(self._made))

    def go_back(self, mark: Mark) -> None:
        """Forget what was made since, names and all."""
        del self.graph.ops[mark.ops :]
        self._names, self._made = set(mark.names), dict(mark.made)

    def fresh(self, base: str) -> str:
        """Give a name that no tensor has yet."""
        name, number = base, 0
        while name in self._names:
            number += 1
            name = f"{base}.{number}"
        self._names.add(name)
        return name

    def rename(self, tensor: Tensor, name: str) -> None:
        """Give a tensor a name that a caller of the model knows it by."""
        tensor.name = name
        self._names.add(name)

    def constant(
        self, data: np.ndarray, name: str = "constant", *, grid: Grid | None = None
    ) -> Tensor:
        """Make a constant; with a grid, ``data`` holds its steps."""
        if data.nbytes > _MOST_CONSTANT_BYTES:
            raise CannotLower(f"it needs a constant of {data.nbytes:,} bytes")
        dtype = data.dtype.name if grid is None else grid.dtype
        data = data.astype(dtype, copy=False)
        return Tensor(self.fresh(name), dtype, tuple(data.shape), grid, data)

    def numbers(self, values: Sequence[int], name: str = "numbers") -> Tensor:
        """Make an int32 constant of one dimension, shared by all who ask for the same."""
        key = ("numbers", tuple(int(v) for v in values))
        if key not in self._made:
            self._made[key] = self.constant(np.array(key[1], np.int32), name)
        return self._made[key]

    def emit(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        grid: Grid | None = None,
        options: Options | None = None,
        name: str = "",
    ) -> Tensor:
        """Add an operator of one output and give that; a grid decides on its dtype."""
        if code in _SAME_TYPES and len({each.dtype for each in inputs if each is not None}) > 1:
            given = ", ".join(each.dtype for each in inputs if each is not None)
            raise CannotLower(f"it computes {code} of {given}")
        extents = tuple(int(extent) for extent in shape)
        if any(not 0 <= extent <= _MOST_EXTENT for extent in extents):
            raise CannotLower(f"it makes a tensor of shape {extents}")
        made = Tensor(
            self.fresh(name or code.lower()),
            dtype if grid is None else grid.dtype,
            extents,
            grid,
        )
        self.graph.add(code, inputs, [made], options)
        return made

    def permuted(self, tensor: Tensor, perm: Sequence[int]) -> Tensor:
        """Give a tensor with its axes in another order; axis ``i`` is ``perm[i]`` before."""
        perm = tuple(int(axis) for axis in perm)
        if perm == tuple(range(len(perm))):
            return tensor
        if tensor.data is not None:
            return self._once(
                ("permuted", id(tensor), perm), tensor, lambda: self._turned(tensor, perm)
            )
        shape = tuple(tensor.shape[axis] for axis in perm)
        moved = [axis for axis in perm if tensor.shape[axis] != 1]
        if moved == sorted(moved):
            return self.reshaped(tensor, shape)
        maker = tensor.maker
        if maker is not None and maker.code == "TRANSPOSE" and maker.inputs[0] is not None:
            before = maker.inputs[1]
            assert before is not None
            assert before.data is not None
            first = [int(axis) for axis in before.data]
            return self.permuted(maker.inputs[0], [first[axis] for axis in perm])
        if len(perm) > _MOST_TRANSPOSED:
            raise CannotLower(f"it transposes {len(perm)} dimensions (at most 6)")
        return self._once(
            ("permuted", id(tensor), perm),
            tensor,
            lambda: self.emit(
                "TRANSPOSE",
                [tensor, self.numbers(perm, "perm")],
                shape,
                dtype=tensor.dtype,
                grid=tensor.grid,
                options=("TransposeOptions", {}),
                name=f"{tensor.name}.transposed",
            ),
        )

    def reshaped(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Give a tensor's numbers, in their order in memory, another shape of as many."""
        shape = tuple(int(extent) for extent in shape)
        if shape == tensor.shape:
            return tensor
        if int(np.prod(shape, dtype=np.int64)) != tensor.size:
            raise CannotLower(f"it makes a tensor of shape {tensor.shape} one of {shape}")
        if tensor.grid is not None and tensor.grid.axis is not None:
            # its scales go along an axis that may be none of the new shape's
            return self.reshaped(self.in_float(tensor), shape)
        if tensor.data is not None:
            data = tensor.data
            return self._once(
                ("reshaped", id(tensor), shape),
                tensor,
                lambda: self.constant(data.reshape(shape), tensor.name, grid=tensor.grid),
            )
        maker = tensor.maker
        if maker is not None and maker.code == "RESHAPE" and maker.inputs[0] is not None:
            return self.reshaped(maker.inputs[0], shape)
        return self._once(
            ("reshaped", id(tensor), shape), tensor, lambda: self._reshape(tensor, shape)
        )

    def copied(self, tensor: Tensor) -> Tensor:
        """Give a tensor of its own with the same content."""
        return self._reshape(tensor, tensor.shape)

    def in_float(self, tensor: Tensor) -> Tensor:
        """Give the real numbers of a tensor as float32."""
        if tensor.grid is None and tensor.dtype != "float16":
            return tensor
        if tensor.data is not None and tensor.grid is not None:
            steps, grid = tensor.data, tensor.grid
            return self._once(
                ("float", id(tensor)),
                tensor,
                lambda: self.constant(dequantized(steps, grid), f"{tensor.name}.float"),
            )
        return self._once(
            ("float", id(tensor)),
            tensor,
            lambda: self.emit(
                "DEQUANTIZE",
                [tensor],
                tensor.shape,
                options=("DequantizeOptions", {}),
                name=f"{tensor.name}.float",
            ),
        )

    def on_grid(self, tensor: Tensor, grid: Grid) -> Tensor:
        """Give a tensor's numbers on a grid of one scale."""
        if tensor.grid == grid:
            return tensor
        if tensor.data is not None:
            data, given = tensor.data, tensor.grid
            return self._once(
                ("grid", id(tensor), grid),
                tensor,
                lambda: self.constant(
                    quantized(data if given is None else dequantized(data, given), grid),
                    f"{tensor.name}.quantized",
                    grid=grid,
                ),
            )
        if tensor.grid is None and tensor.dtype != "float32":
            raise CannotLower(f"it quantizes {tensor.dtype} numbers")
        if tensor.grid is not None and tensor.grid.axis is not None:
            return self.on_grid(self.in_float(tensor), grid)
        if tensor.grid is not None and not _requantizes(tensor.grid.dtype, grid.dtype):
            return self.on_grid(self.in_float(tensor), grid)
        return self._once(
            ("grid", id(tensor), grid), tensor, lambda: self._quantize(tensor, grid)
        )

    def cast(self, tensor: Tensor, dtype: str) -> Tensor:
        """Give a tensor's numbers in another type, as far as they fit."""
        if tensor.dtype == dtype and tensor.grid is None:
            return tensor
        source = self.in_float(tensor)
        return self._once(
            ("cast", id(source), dtype),
            source,
            lambda: self.emit(
                "CAST",
                [source],
                source.shape,
                dtype=dtype,
                options=("CastOptions", {}),
                name=f"{tensor.name}.{dtype}",
            ),
        )

    def _quantize(self, tensor: Tensor, grid: Grid) -> Tensor:
        if grid.dtype == "uint16":
            raise CannotLower("it gives numbers of uint16, which QUANTIZE does not")
        return self.emit(
            "QUANTIZE",
            [tensor],
            tensor.shape,
            grid=grid,
            options=("QuantizeOptions", {}),
            name=f"{tensor.name}.quantized",
        )

    def _reshape(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.emit(
            "RESHAPE",
            [tensor, self.numbers(shape, "shape")],
            shape,
            dtype=tensor.dtype,
            grid=tensor.grid,
            options=("ReshapeOptions", {"newShape": list(shape)}),
            name=f"{tensor.name}.reshaped",
        )

    def _turned(self, tensor: Tensor, perm: tuple[int, ...]) -> Tensor:
        assert tensor.data is not None
        grid = tensor.grid
        if grid is not None and grid.axis is not None:
            grid = replace(grid, axis=perm.index(grid.axis))
        return self.constant(tensor.data.transpose(perm), tensor.name, grid=grid)

    def _once(self, key: tuple[object, ...], tensor: Tensor, make: object) -> Tensor:
        if key not in self._made:
            assert callable(make)
            self._made[key] = make()
            self._held.append(tensor)
        return self._made[key]


def _requantizes(before: str, after: str) -> bool:
    """Say whether QUANTIZE goes from one type of integers to another."""
    return (before, after) in {
        ("int8", "int8"),
        ("int8", "uint8"),
        ("uint8", "int8"),
        ("uint8", "uint8"),
        ("int16", "int16"),
        ("int16", "int8"),
        ("int8", "int16"),
        ("int16", "int32"),
    }
