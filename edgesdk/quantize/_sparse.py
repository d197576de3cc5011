"""Zero weights of one layer and let the others make up for it.

Columns are gone through once, as in `edgesdk.quantize.rounding`: which weights go is decided by
the error that each would leave behind, ``w^2 / [H^-1]_jj`` as seen from the columns still free,
and that error is spread over them (Frantar and Alistarh, SparseGPT, arXiv:2301.00774).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from edgesdk.quantize.rounding import inverse_root, output_error

if TYPE_CHECKING:
    import numpy as np

__all__ = ["by_magnitude", "channel_fours", "prune_rows", "saliency"]

_BLOCK = 128
_WIDEST_TOGETHER = 128
#: From scores ``[columns, ...]`` to what goes.
_Choose = Callable[["np.ndarray"], "np.ndarray"]


def channel_fours(channels: int, positions: int) -> np.ndarray:
    """Give the order of columns in which four neighbours are four consecutive input channels.

    A Conv's columns go channel by channel; the sparse units of a GPU want, for each output
    channel and kernel position, two zeros in every four consecutive input channels (NVIDIA,
    TensorRT documentation, "Structured Sparsity").
    """
    import numpy as np

    order: np.ndarray = np.arange(channels * positions).reshape(channels, positions)
    return order.T.reshape(-1)


def prune_rows(
    rows: np.ndarray,
    second: np.ndarray,
    *,
    sparsity: float | Literal["2:4"],
    damp: float = 0.01,
) -> np.ndarray:
    """Give ``[N, K]`` with zeros and the rest refitted; not worse than `by_magnitude`.

    Args:
        rows: ``[N, K]``; with groups, the rows of one group after those of the other.
        second: ``[groups, K, K]``, ``E[x x^T]``.
        sparsity: The share of all weights that goes, or two of every four columns of each row.
        damp: Share of the mean of the diagonal that is added to it.
    """
    import numpy as np

    groups, width = second.shape[:2]
    plain = by_magnitude(rows, sparsity=sparsity)
    split = rows.reshape(groups, -1, width)
    if groups == 1 or width <= _WIDEST_TOGETHER:
        fitted = _sweep(split, second, sparsity, damp)
    else:
        each = [slice(at, at + 1) for at in range(groups)]
        fitted = np.concatenate([_sweep(split[at], second[at], sparsity, damp) for at in each])
    fitted = fitted.reshape(rows.shape)
    before, after = output_error(rows - plain, second), output_error(rows - fitted, second)
    if sparsity == "2:4":  # each row has its own pattern
        return np.where((after < before)[:, None], fitted, plain)
    return fitted if after.sum() < before.sum() else plain


def by_magnitude(rows: np.ndarray, *, sparsity: float | Literal["2:4"]) -> np.ndarray:
    """Zero the smallest weights and change no other: what a layer would be without data."""
    import numpy as np

    if sparsity == "2:4":
        fours = np.abs(rows).reshape(len(rows), -1, 4).transpose(2, 0, 1)
        gone = _two_of_four(fours).transpose(1, 2, 0).reshape(rows.shape)
    else:
        gone = _smallest(np.abs(rows), sparsity)
    return np.where(gone, 0.0, rows)


def saliency(rows: np.ndarray, second: np.ndarray, damp: float = 0.01) -> np.ndarray:
    """Give the share of the output's energy that is lost with each weight alone; ``[N, K]``.

    The others are taken to make up for it (optimal brain surgeon).
    """
    import numpy as np

    root = inverse_root(second, damp)
    split = rows.reshape(len(second), -1, second.shape[-1])
    if root is None:
        least = np.diagonal(second, axis1=1, axis2=2)[:, None, :]
    else:
        least = 1.0 / (root**2).sum(axis=1)[:, None, :]
    alive = np.diagonal(second, axis1=1, axis2=2)[:, None, :] > 0
    energy = max(float(output_error(rows, second).sum()), 1e-300)
    lost: np.ndarray = (split**2 * least * alive).reshape(rows.shape) / energy
    return lost


def _two_of_four(scores: np.ndarray) -> np.ndarray:
    """Mark the two smallest along the first axis, which has four."""
    import numpy as np

    rank = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0, kind="stable")
    gone: np.ndarray = rank < len(scores) - 2
    return gone


def _smallest(scores: np.ndarray, share: float) -> np.ndarray:
    """Mark that share of all scores, the smallest ones."""
    import numpy as np

    gone = np.zeros(scores.size, np.bool_)
    gone[np.argsort(scores, axis=None, kind="stable")[: round(share * scores.size)]] = True
    return gone.reshape(scores.shape)


def _sweep(
    split: np.ndarray, second: np.ndarray, sparsity: float | Literal["2:4"], damp: float
) -> np.ndarray:
    """Prune ``[G, n, K]`` column by column; the mask is chosen some columns ahead."""
    import numpy as np

    root = inverse_root(second, damp)
    if root is None:
        plain = by_magnitude(split.reshape(-1, split.shape[-1]), sparsity=sparsity)
        return plain.reshape(split.shape)
    alive = np.diagonal(second, axis1=1, axis2=2) > 0
    columns = (split * alive[:, None, :]).transpose(2, 0, 1).copy()
    kept = np.empty_like(columns)
    step = 4 if sparsity == "2:4" else _BLOCK
    choose: _Choose = (
        _two_of_four if sparsity == "2:4" else lambda scores: _smallest(scores, sparsity)
    )
    for begin in range(0, len(columns), _BLOCK):
        end = min(begin + _BLOCK, len(columns))
        errors = np.zeros((columns.shape[1], end - begin, columns.shape[2]))
        for at in range(begin, end):
            done = at - begin
            pivot = root[:, at, at, None]
            if done % step == 0:
                last = min(at + step, end)
                spread = root[:, begin:at, at:last].transpose(0, 2, 1) @ errors[:, :done]
                ahead = columns[at:last] - spread.transpose(1, 0, 2)
                pivots = np.diagonal(root, axis1=1, axis2=2)[:, at:last].T[:, :, None]
                gone = choose((ahead / pivots) ** 2)
            seen = root[:, None, begin:at, at] @ errors[:, :done]
            now = columns[at] - seen[:, 0]
            kept[at] = np.where(gone[done % step], 0.0, now)
            errors[:, done] = (now - kept[at]) / pivot
        spread = root[:, begin:end, end:].transpose(0, 2, 1) @ errors
        columns[end:] -= spread.transpose(1, 0, 2)
    return kept.transpose(1, 2, 0)
