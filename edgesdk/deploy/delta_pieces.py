"""Pieces: what of a blob is looked for where in another, and how alike two stretches are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bytes", "Gap", "Piece", "byte_entropy", "find_gaps", "likeness", "merge_pieces"]

Bytes = NDArray[np.uint8]

_BLOCK_BYTES = 64
_SAMPLES = 192
_FOUND_BYTES = 16
_MOST_MOVED_BYTES = 1 << 16
_ENTROPY_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes ``start`` to ``end`` of the target, and where in which base to look for them.

    ``exact`` says that they are known to be equal there.
    """

    start: int
    end: int
    base: int
    offset: int
    exact: bool = False

    @property
    def shift(self) -> int:
        """How much further back in the base it lies than in the target."""
        return self.offset - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Bytes of the target that no piece covers, and the pieces on either side."""

    start: int
    end: int
    before: Piece | None
    after: Piece | None


def find_gaps(pieces: Sequence[Piece], size: int, shortest: int) -> Iterator[Gap]:
    """Give what no piece covers, unless it is shorter than ``shortest``."""
    before: Piece | None = None
    for piece in pieces:
        at = 0 if before is None else before.end
        if piece.start - at >= shortest:
            yield Gap(start=at, end=piece.start, before=before, after=piece)
        before = piece
    at = 0 if before is None else before.end
    if size - at >= shortest:
        yield Gap(start=at, end=size, before=before, after=None)


def merge_pieces(*groups: Iterable[Piece]) -> list[Piece]:
    """Put pieces in order, and join those that follow one another in target and base."""
    pieces = sorted(
        (piece for group in groups for piece in group), key=lambda piece: piece.start
    )
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.end == piece.start
            and (last.base, last.shift, last.exact) == (piece.base, piece.shift, piece.exact)
        ):
            joined[-1] = replace(last, end=piece.end)
        else:
            joined.append(piece)
    return joined


def likeness(target: Bytes, base: Bytes) -> float:
    """Guess in a few milliseconds which share of ``target`` lies in ``base``.

    It looks where bytes lie if they did not move, or by as much as the sizes differ at most,
    so it does not see what was put in another order.
    """
    if len(target) < 4 * _BLOCK_BYTES or len(base) < 4 * _BLOCK_BYTES:
        return float(np.array_equal(target, base))
    grown = len(base) - len(target)
    ends = (0, grown)
    seen = alike = 0
    for spot in np.linspace(0, len(target) - _BLOCK_BYTES, _SAMPLES).astype(np.intp).tolist():
        window = target[spot : spot + _BLOCK_BYTES]
        if window.min() == window.max():
            continue  # padding says nothing
        seen += 1
        low = max(0, spot + min(ends))
        high = max(0, spot + max(ends) + _BLOCK_BYTES)
        if any(_is_mostly(window, base[max(0, spot + shift) :]) for shift in ends) or (
            high - low <= _MOST_MOVED_BYTES
            and base[low:high].tobytes().find(window[:_FOUND_BYTES].tobytes()) >= 0
        ):
            alike += 1
    return alike / seen if seen else 1.0


def _is_mostly(window: Bytes, other: Bytes) -> bool:
    if len(other) < _BLOCK_BYTES:
        return False
    return 2 * int(np.count_nonzero(window == other[:_BLOCK_BYTES])) > _BLOCK_BYTES


def byte_entropy(data: Bytes) -> float:
    """Give the entropy of a byte, in bits, counted over some of ``data``."""
    counts = np.bincount(data[:_ENTROPY_BYTES], minlength=256)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
