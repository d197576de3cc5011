"""Round weights so that the errors of a row make up for each other on the data.

Rounding to nearest minimises the error of each weight; what a network feels is the error of
each output, ``tr((W - Q) H (W - Q)^T)`` with ``H`` the second moment of the layer's input. So
weights are rounded one column after the other and what a column got wrong is spread over those
that are still free: optimal brain quantization with one order for all rows (Frantar et al.,
GPTQ, arXiv:2210.17323). A pass of coordinate descent after it lowers the error further
(Behdin et al., QuantEase, arXiv:2309.01885).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgesdk.errors import QuantizeError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Order", "inverse_root", "output_error", "round_weights"]

Order = Literal["activation", "given"]

_BLOCK = 64
#: Up to this width all groups go step by step together; wider ones go one after the other.
_WIDEST_TOGETHER = 128
_MORE_DAMP = (1.0, 10.0, 100.0)


def round_weights(
    weight: np.ndarray,
    scale: np.ndarray | float,
    second: np.ndarray,
    *,
    low: int,
    high: int,
    damp: float = 0.01,
    order: Order = "activation",
    sweeps: int = 1,
) -> np.ndarray:
    """Round ``weight / scale`` to whole numbers of ``low`` to ``high``.

    No row's output error is above that of rounding to nearest. A scheme with a zero point
    passes ``low`` and ``high`` less the zero point, and adds it to what comes back.

    Args:
        weight: ``[N, K]``; with groups, the rows of one group after those of the other.
        scale: One number, or ``[N]``; positive.
        second: ``[K, K]`` or ``[groups, K, K]``: ``E[x x^T]``, or its centred form where the
            bias will be corrected.
        low: The smallest whole number.
        high: The largest.
        damp: Share of the mean of the diagonal that is added to it.
        order: ``activation`` rounds the columns with the largest inputs first, ``given`` from
            left to right.
        sweeps: Passes of coordinate descent at the end.

    Returns:
        int32 ``[N, K]``.

    Raises:
        QuantizeError: Something is not finite.
    """
    import numpy as np

    grouped = second if second.ndim == 3 else second[None]
    groups, width = grouped.shape[:2]
    steps = np.broadcast_to(np.asarray(scale, np.float64).reshape(-1, 1), (len(weight), 1))
    real = np.asarray(weight, np.float64) / steps
    if not (np.isfinite(real).all() and np.isfinite(grouped).all()):
        raise QuantizeError(
            "cannot round weights: some, or the moments of their input, are not finite",
            hint="look for NaN in the model and in the calibration samples",
        )
    real = real.reshape(groups, -1, width)
    how = _How(limits=(low, high), damp=damp, order=order, sweeps=sweeps)
    together = groups == 1 or width <= _WIDEST_TOGETHER
    parts = [slice(None)] if together else [slice(at, at + 1) for at in range(groups)]
    whole = np.concatenate([_round_groups(real[at], grouped[at], how) for at in parts])
    return whole.reshape(len(weight), width).astype(np.int32)


def output_error(change: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Give ``d H d^T`` for every row of ``change``; shapes as in `round_weights`; ``[N]``."""
    grouped = second if second.ndim == 3 else second[None]
    rows = change.reshape(len(grouped), -1, grouped.shape[-1])
    errors: np.ndarray = ((rows @ grouped) * rows).sum(axis=-1)
    return errors.reshape(-1).clip(min=0.0)


def inverse_root(second: np.ndarray, damp: float) -> np.ndarray | None:
    """Give the upper ``U`` with ``(H + damping)^-1 = U^T U``, over the last two axes.

    Inputs that are always zero get a diagonal of their own, so they touch no other. None where
    even a hundredfold damping leaves no positive definite matrix.
    """
    import numpy as np

    diagonal = np.diagonal(second, axis1=-2, axis2=-1)
    dead = diagonal <= 0
    alive = np.maximum((~dead).sum(axis=-1, keepdims=True), 1)
    mean = np.where(dead, 0.0, diagonal).sum(axis=-1, keepdims=True) / alive
    mean = np.where(mean > 0, mean, 1.0)
    index = np.arange(second.shape[-1])
    for more in _MORE_DAMP:
        damped = second / mean[..., None]  # of a size that loses nothing in the products
        damped[dead] = 0.0
        damped.swapaxes(-1, -2)[dead] = 0.0
        damped[..., index, index] += np.where(dead, 1.0, damp * more)
        try:
            lower = np.linalg.cholesky(damped[..., ::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        # the flipped factor is upper: H = R R^T, so U = R^-1 serves
        root: np.ndarray = _inverse_upper(lower[..., ::-1, ::-1]) / np.sqrt(mean)[..., None]
        if np.isfinite(root).all():
            return root
    return None


def _inverse_upper(upper: np.ndarray) -> np.ndarray:
    """Invert an upper triangular matrix by halves: a third of what a general inverse costs."""
    import numpy as np

    width = upper.shape[-1]
    if width <= _BLOCK:
        return np.triu(np.linalg.inv(upper))
    half = width // 2
    inverse = np.zeros_like(upper)
    first = _inverse_upper(upper[..., :half, :half])
    second = _inverse_upper(upper[..., half:, half:])
    inverse[..., :half, :half] = first
    inverse[..., half:, half:] = second
    inverse[..., :half, half:] = -(first @ upper[..., :half, half:]) @ second
    return inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    limits: tuple[int, int]
    damp: float
    order: Order
    sweeps: int


def _round_groups(real: np.ndarray, second: np.ndarray, how: _How) -> np.ndarray:
    """Round ``[G, n, K]`` by ``[G, K, K]``, row by row no worse than to nearest."""
    import numpy as np

    nearest = np.clip(np.rint(real), *how.limits)
    taken = np.broadcast_to(np.arange(real.shape[-1]), (len(real), real.shape[-1]))
    if how.order == "activation":
        diagonal = np.diagonal(second, axis1=-2, axis2=-1)
        taken = np.argsort(-diagonal, axis=-1, kind="stable")
    moved = np.take_along_axis(real, taken[:, None, :], axis=2)
    ordered = np.take_along_axis(second, taken[:, :, None], axis=1)
    ordered = np.take_along_axis(ordered, taken[:, None, :], axis=2)
    whole = np.take_along_axis(nearest, taken[:, None, :], axis=2).transpose(2, 0, 1)
    root = inverse_root(ordered, how.damp)
    columns = np.ascontiguousarray(moved.transpose(2, 0, 1))
    if root is not None:
        whole = _compensate(columns.copy(), root, how.limits)
    for _ in range(how.sweeps):
        whole = _descend(columns, whole, ordered, how.limits)
    back = np.argsort(taken, axis=-1, kind="stable")
    best = np.take_along_axis(whole.transpose(1, 2, 0), back[:, None, :], axis=2)
    flat = (-1, real.shape[-1])
    better = output_error((real - best).reshape(flat), second) < output_error(
        (real - nearest).reshape(flat), second
    )
    return np.where(better.reshape(*real.shape[:2], 1), best, nearest)


def _compensate(columns: np.ndarray, root: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Round ``[K, G, n]`` column by column and spread each error; changes ``columns``.

    Within a block a column gathers the errors before it when its turn comes; beyond the block
    they are passed on in one product.
    """
    import numpy as np

    width = len(columns)
    whole = np.empty_like(columns)
    for begin in range(0, width, _BLOCK):
        end = min(begin + _BLOCK, width)
        errors = np.empty((columns.shape[1], end - begin, columns.shape[2]))
        for at in range(begin, end):
            seen = root[:, None, begin:at, at] @ errors[:, : at - begin]
            now = columns[at] - seen[:, 0]
            np.clip(np.rint(now), *limits, out=whole[at])
            errors[:, at - begin] = (now - whole[at]) / root[:, at, at, None]
        spread = root[:, begin:end, end:].transpose(0, 2, 1) @ errors
        columns[end:] -= spread.transpose(1, 0, 2)
    return whole


def _descend(
    columns: np.ndarray, whole: np.ndarray, second: np.ndarray, limits: tuple[int, int]
) -> np.ndarray:
    """Set each column in turn to the best whole numbers, the others given; ``[K, G, n]``."""
    import numpy as np

    width = len(columns)
    whole = whole.copy()
    diagonal = np.diagonal(second, axis1=-2, axis2=-1).T[:, :, None]
    slope = (second @ (columns - whole).transpose(1, 0, 2)).transpose(1, 0, 2)
    for begin in range(0, width, _BLOCK):
        end = min(begin + _BLOCK, width)
        moves = np.zeros((columns.shape[1], end - begin, columns.shape[2]))
        for at in range(begin, end):
            seen = second[:, None, at, begin:at] @ moves[:, : at - begin]
            now = slope[at] - seen[:, 0]
            pull = np.divide(now, diagonal[at], out=np.zeros_like(now), where=diagonal[at] > 0)
            better = np.clip(np.rint(whole[at] + pull), *limits)
            moves[:, at - begin] = better - whole[at]
            whole[at] = better
        slope[end:] -= (second[:, end:, begin:end] @ moves).transpose(1, 0, 2)
    return whole
