"""Weights as 4-bit integers in blocks: scales by search, rounding that makes up for its errors.

A block is a run of rows of one column of ``[K, N]``: numbers that one product sums up. Each has
a scale and, where that makes the error smaller, a zero point. Scales come from a search over
shrunken ranges for the least squared error. Rounding is to nearest, or by a `Rounding` such as
`compensating`, which follows Frantar et al., GPTQ, arXiv:2210.17323.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Int4Weight",
    "QuantizeRow",
    "Rounding",
    "as_bytes",
    "as_tensors",
    "compensating",
    "output_error",
    "quantize_int4",
]

#: Gives the numbers nearest to ``[N]`` that row ``k`` of a weight can hold.
QuantizeRow = Callable[[int, "np.ndarray"], "np.ndarray"]
#: Gives for a weight ``[K, N]``, float64, one that holds only numbers `QuantizeRow` gives.
Rounding = Callable[["np.ndarray", QuantizeRow], "np.ndarray"]

#: By how much a range is shrunk in search of a smaller squared error.
_SHRINK = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.75, 0.7, 0.65)
_SMALLEST_SCALE = 2.0**-126
#: Rows between two updates of all that follow: one matrix product instead of many.
_LAZY_ROWS = 128
_DAMPING = 0.01
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Int4Weight:
    """A weight ``[K, N]`` in 4 bits.

    Attributes:
        integers: int8 ``[K, N]``, from -8 to 7, or from 0 to 15 with zero points.
        scale: float32 ``[ceil(K / block), N]``.
        zero: int8 of the scale's shape, from 0 to 15; None where 0 stands for 0.
        block: How many rows share a scale; the last block may be shorter.
    """

    integers: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    block: int

    def real(self) -> np.ndarray:
        """Give what the integers stand for, float64 ``[K, N]``."""
        import numpy as np

        rows = np.arange(len(self.integers)) // self.block
        zero = 0 if self.zero is None else self.zero[rows].astype(np.float64)
        values: np.ndarray = (self.integers - zero) * self.scale[rows].astype(np.float64)
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The numbers that each block can hold; float64 of shape ``[blocks, N]``."""

    scale: np.ndarray
    zero: np.ndarray
    low: int
    high: int
    block: int

    def integers(self, row: int, values: np.ndarray) -> np.ndarray:
        import numpy as np

        at = row // self.block
        steps = np.rint(values / self.scale[at]) + self.zero[at]
        found: np.ndarray = np.clip(steps, self.low, self.high)
        return found

    def nearest(self, row: int, values: np.ndarray) -> np.ndarray:
        at = row // self.block
        found: np.ndarray = (self.integers(row, values) - self.zero[at]) * self.scale[at]
        return found


def quantize_int4(
    weight: np.ndarray,
    *,
    block: int,
    second_moment: np.ndarray | None = None,
    rounding: Rounding | None = None,
) -> Int4Weight:
    """Quantize ``weight`` ``[K, N]`` in blocks along its rows.

    Symmetric or with zero points, whichever loses less. With ``second_moment`` (``E[x x^T]``
    of the layer's input, ``[K, K]``) the search weighs each row by how large its input is, and
    the rounding compensates unless nearest is better over the data; ``rounding`` takes its
    place.
    """
    import numpy as np

    real = weight.astype(np.float64)
    importance = np.ones(len(real)) if second_moment is None else np.diag(second_moment)
    symmetric, loss = _search(real, importance, block, symmetric=True)
    grid, other_loss = _search(real, importance, block, symmetric=False)
    if loss <= other_loss:
        grid = symmetric
    nearest = np.stack([grid.nearest(k, row) for k, row in enumerate(real)])
    chosen = nearest
    if rounding is not None:
        chosen = rounding(real, grid.nearest)
    elif second_moment is not None:
        chosen = compensating(second_moment)(real, grid.nearest)
        if output_error(chosen - real, second_moment) > output_error(
            nearest - real, second_moment
        ):
            chosen = nearest
    return Int4Weight(
        integers=np.stack([grid.integers(k, row) for k, row in enumerate(chosen)]).astype("i1"),
        scale=grid.scale.astype(np.float32),
        zero=grid.zero.astype(np.int8) if grid.low == 0 else None,
        block=block,
    )


def _search(
    real: np.ndarray, importance: np.ndarray, block: int, *, symmetric: bool
) -> tuple[_Grid, float]:
    """Find each block's scale of least squared error; give that error, summed, as well."""
    import numpy as np

    low, high = (-8, 7) if symmetric else (0, 15)
    found = [
        _search_block(
            real[start : start + block],
            importance[start : start + block, None],
            low,
            high,
        )
        for start in range(0, len(real), block)
    ]
    scale, zero, error = (np.stack(parts) for parts in zip(*found, strict=True))
    grid = _Grid(scale=scale, zero=zero, low=low, high=high, block=block)
    return grid, float(error.sum())


def _search_block(
    real: np.ndarray, importance: np.ndarray, low: int, high: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give scale, zero point and error, each ``[N]``, of one block ``[rows, N]``."""
    import numpy as np

    best_error = np.full(real.shape[1], np.inf)
    best_scale = np.ones(real.shape[1])
    best_zero = np.zeros(real.shape[1])
    most, least = np.maximum(real.max(axis=0), 0), np.minimum(real.min(axis=0), 0)
    for shrink in _SHRINK:
        if low < 0:
            scale = _scale(np.maximum(most, -least) * shrink / high)
            zero = np.zeros_like(scale)
        else:
            scale = _scale((most - least) * shrink / high)
            zero = np.clip(np.rint(-least * shrink / scale), low, high)
        steps = np.clip(np.rint(real / scale) + zero, low, high)
        error = (importance * ((steps - zero) * scale - real) ** 2).sum(axis=0)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best_scale = np.where(better, scale, best_scale)
        best_zero = np.where(better, zero, best_zero)
    return best_scale, best_zero, best_error


def _scale(span: np.ndarray) -> np.ndarray:
    """Give scales that float32 holds exactly, and none that is 0."""
    import numpy as np

    with np.errstate(over="ignore"):
        single = span.astype(np.float32).astype(np.float64)
    return np.maximum(single, _SMALLEST_SCALE)


def output_error(change: np.ndarray, second_moment: np.ndarray) -> float:
    """Give the mean squared change of a layer's output: ``tr(D^T H D)``, ``D`` ``[K, N]``."""
    return float((change * (second_moment @ change)).sum())


def compensating(second_moment: np.ndarray, *, damping: float = _DAMPING) -> Rounding:
    """Make a rounding that lets rows not yet rounded make up for those that are.

    GPTQ (arXiv:2210.17323) with the grid of each block fixed beforehand, so that rows can go
    in the order of falling second moments, the most important first. The Cholesky factor is of
    the inverse of ``H + damping * mean(diag H)``, in float64.

    Args:
        second_moment: ``E[x x^T]`` of the layer's input, ``[K, K]``.
        damping: Raised tenfold, some times, where the factor does not exist.
    """

    def round_rows(weight: np.ndarray, quantize_row: QuantizeRow) -> np.ndarray:
        import numpy as np

        order = np.argsort(-np.diag(second_moment), kind="stable")
        upper = _upper_factor(second_moment[np.ix_(order, order)], damping)
        left = weight[order].astype(np.float64)
        done = np.empty_like(left)
        for start in range(0, len(left), _LAZY_ROWS):
            stop = min(start + _LAZY_ROWS, len(left))
            errors = np.empty((stop - start, left.shape[1]))
            for row in range(start, stop):
                done[row] = quantize_row(int(order[row]), left[row])
                error = (left[row] - done[row]) / upper[row, row]
                left[row + 1 : stop] -= np.outer(upper[row, row + 1 : stop], error)
                errors[row - start] = error
            left[stop:] -= upper[start:stop, stop:].T @ errors
        result = np.empty_like(done)
        result[order] = done
        return result

    return round_rows


def _upper_factor(second_moment: np.ndarray, damping: float) -> np.ndarray:
    """Give the upper Cholesky factor of the damped matrix' inverse."""
    import numpy as np

    diagonal = np.diag(second_moment)
    base = float(diagonal.mean()) or 1.0
    for attempt in range(_ATTEMPTS):
        damped = second_moment + np.eye(len(second_moment)) * (base * damping * 10.0**attempt)
        try:
            factor: np.ndarray = np.linalg.cholesky(np.linalg.inv(damped)).T
        except np.linalg.LinAlgError:
            continue
        if np.isfinite(factor).all():
            return factor
    raise QuantizeError(
        f"cannot compensate rounding: the second moments, {len(second_moment)} by "
        f"{len(second_moment)}, are not positive (expected E[x x^T] of a layer's input)",
        hint="collect them from more samples",
    )


def as_tensors(weight: Int4Weight) -> dict[str, np.ndarray]:
    """Give integers, scales and zero points as DequantizeLinear reads them."""
    import ml_dtypes

    four_bits = ml_dtypes.int4 if weight.zero is None else ml_dtypes.uint4
    arrays = {"int4": weight.integers.astype(four_bits), "scale": weight.scale}
    if weight.zero is not None:
        arrays["zero"] = weight.zero.astype(four_bits)
    return arrays


def as_bytes(weight: Int4Weight) -> dict[str, np.ndarray]:
    """Give them as onnxruntime's MatMulNBits reads them, two numbers to a byte.

    Integers are uint8 ``[N, blocks, block / 2]``, scales ``[N * blocks]`` and zero points
    uint8 ``[N * ceil(blocks / 2)]``; without zero points 8 stands for 0.
    """
    import numpy as np

    count, columns = weight.scale.shape
    nibbles = np.zeros((count * weight.block, columns), np.uint8)
    nibbles[: len(weight.integers)] = weight.integers + (8 if weight.zero is None else 0)
    arrays = {
        "int4": _pairs(nibbles.T.reshape(columns, count, weight.block)),
        "scale": weight.scale.T.reshape(-1),
    }
    if weight.zero is not None:
        zero = np.pad(weight.zero.T.astype(np.uint8), ((0, 0), (0, count % 2)))
        arrays["zero"] = _pairs(zero).reshape(-1)
    return arrays


def _pairs(nibbles: np.ndarray) -> np.ndarray:
    """Put two numbers of the last axis into a byte, the first into its low half."""
    packed: np.ndarray = nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)
    return packed
