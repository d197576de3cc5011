"""Find what a blob has in common with others, at the speed of numpy and within a time limit.

No format is parsed. In a model file whose weights changed, what stands between the tensors
(names, shapes, layout) is the same as before, so it pins every tensor to its old place, however
much of its inside changed; and the same works for files whose format nobody tells. In turns:

1. both ends: byte i with byte i of the base, and counted from the end;
2. windows of 32 bytes at any place, found by a hash, extended over what differs here and there;
3. short windows in what is still open between two matches: text that was edited;
4. what is open between two matches keeps the place that its neighbours give it.

So a piece is where to look, not a promise of equal bytes; the encoder decides what it is worth.
"""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgesdk.deploy.delta_pieces import (
    Bytes,
    Gap,
    Piece,
    byte_entropy,
    find_gaps,
    merge_pieces,
)
from edgesdk.deploy.delta_windows import ANCHOR_BYTES, AnchorIndex, Places, WindowIndex

__all__ = ["align"]

_BLOCK_BYTES = 64
_CHUNK_BYTES = 1 << 20
_ROW_BYTES = 32
_FINE_BYTES = 12
#: Longer gaps are no edited text; a fine search in them finds chance.
_MAX_FINE_GAP_BYTES = 1 << 16
_FINE_REACH_BYTES = 1 << 10
_SHORTEST_GAP_BYTES = 16
_BAD_BLOCKS = 4
#: Shorter matches far away, and nearby, cost more than they save.
_SHORTEST_BYTES = 64
_SHORT_BYTES = 16
#: Shorter likenesses may be chance.
_TELLING_BYTES = 256


def align(
    target: Bytes,
    bases: Sequence[Bytes],
    *,
    budget_s: float = 60.0,
    clock: Callable[[], float] = time.thread_time,
) -> list[Piece]:
    """Give pieces in order, without overlaps; what none covers is to be sent.

    Args:
        target: What is wanted.
        bases: What is there, the most promising first.
        budget_s: Searching ends after this; what was found by then counts.
        clock: Gives seconds that only rise; by default those this thread had the processor, so
            that a busy computer does not change what is found.
    """
    over_s = clock() + budget_s
    pieces: list[Piece] = []
    for number, base in enumerate(bases):
        if len(base) == 0 or (number and clock() >= over_s):
            continue
        search = _Search(target, base, number, lambda: clock() >= over_s)
        for step in (search.at_both_ends, search.anywhere, search.nearby):
            if step == search.at_both_ends or clock() < over_s:
                pieces = step(pieces)
    return _filled(target, bases, pieces)


class _Search:
    """The search for a target in one base; every step adds to the pieces that are known."""

    def __init__(
        self, target: Bytes, base: Bytes, number: int, is_over: Callable[[], bool]
    ) -> None:
        self._target = target
        self._base = base
        self._number = number
        self._is_over = is_over

    def at_both_ends(self, known: list[Piece]) -> list[Piece]:
        """Look at byte i for byte i, then the same counted from the end."""
        gaps = list(find_gaps(known, len(self._target), _SHORTEST_GAP_BYTES))
        size = len(self._base)
        ways: list[list[Piece]] = []
        for shift in dict.fromkeys((0, size - len(self._target))):
            ways.append([])
            for gap in gaps:
                low, high = max(gap.start, -shift), min(gap.end, size - shift)
                ways[-1] += self._along(low, high, shift)
        # the better one first: what the other adds to it may be chance
        ways.sort(key=lambda way: -sum(piece.end - piece.start for piece in way))
        known = merge_pieces(known, ways[0])
        for way in ways[1:]:
            known = merge_pieces(known, _outside(way, known))
        return known

    def _along(self, start: int, end: int, shift: int) -> list[Piece]:
        """Give what is mostly alike where the base is read ``shift`` further on."""
        found: list[Piece] = []
        for low in range(start, end, _CHUNK_BYTES):
            high = min(end, low + _CHUNK_BYTES)
            same = self._target[low:high] == self._base[low + shift : high + shift]
            if same.all():
                piece = self._piece(low, high, low + shift)
                found.append(replace(piece, exact=True))
                continue
            found += [
                self._piece(low + a, low + b, low + a + shift) for a, b in _stretches(same)
            ]
        return found

    def _piece(self, start: int, end: int, offset: int) -> Piece:
        return Piece(start=start, end=end, base=self._number, offset=offset)

    def anywhere(self, known: list[Piece]) -> list[Piece]:
        """Look for windows of the base wherever they are now.

        Where all that is open seems to have changed in place, only what is unused of the base
        is looked at: what stood there may have changed places.
        """
        gaps = list(find_gaps(known, len(self._target), 2 * ANCHOR_BYTES))
        if not gaps:
            return known
        spans = [(0, len(self._base))]
        if all(self._is_pinned(gap) for gap in gaps):
            spans = self._unused(known)
        index = AnchorIndex(self._base, spans, _CHUNK_BYTES)
        found: list[Piece] = []
        for gap in gaps:
            at = gap.start
            for low in range(gap.start, gap.end, _CHUNK_BYTES):
                if self._is_over():
                    return merge_pieces(known, found)
                high = min(gap.end, low + _CHUNK_BYTES + ANCHOR_BYTES - 1)
                hits, places = index.hits(self._target[low:high])
                true = self._true(hits + low, places, at, gap.end)
                at = true[-1].end if true else at
                found += [p for p in true if p.end - p.start >= _SHORTEST_BYTES]
        return merge_pieces(known, found)

    def _is_pinned(self, gap: Gap) -> bool:
        """Say whether both neighbours agree on where it was: it has changed, not moved."""
        ends = len(self._base) == len(self._target)  # those of equal files agree
        one = gap.before.shift if gap.before else 0 if ends else None
        other = gap.after.shift if gap.after else 0 if ends else None
        bases = {piece.base for piece in (gap.before, gap.after) if piece is not None}
        return one is not None and one == other and bases <= {self._number}

    def _unused(self, known: Sequence[Piece]) -> list[tuple[int, int]]:
        """Give the parts of the base that nothing was found in."""
        used = sorted(
            (piece.offset, piece.end + piece.shift)
            for piece in known
            if piece.base == self._number
        )
        free, at = [], 0
        for start, end in [*used, (len(self._base), len(self._base))]:
            if start > at:
                free.append((at, start))
            at = max(at, end)
        return free

    def nearby(self, known: list[Piece]) -> list[Piece]:
        """Look for short windows in small gaps, where their neighbours lie in the base."""
        found: list[Piece] = []
        for gap in find_gaps(known, len(self._target), _FINE_BYTES):
            if gap.end - gap.start > _MAX_FINE_GAP_BYTES or self._is_over():
                continue
            low, high = self._around(gap)
            if high - low < _FINE_BYTES:
                continue
            index = WindowIndex(self._base[low:high], _FINE_BYTES, low)
            hits, places = index.hits(self._target[gap.start : gap.end])
            true = self._true(hits + gap.start, places, gap.start, gap.end, _FINE_BYTES)
            shifts = {p.shift for p in (gap.before, gap.after) if p is not None}
            found += [p for p in true if p.end - p.start >= _SHORT_BYTES or p.shift in shifts]
        return merge_pieces(known, found)

    def _around(self, gap: Gap) -> tuple[int, int]:
        """Give the part of the base that lies between what the neighbours of a gap took."""
        before, after = gap.before, gap.after
        low = high = None
        if before is not None and before.base == self._number:
            low = before.end + before.shift
        if after is not None and after.base == self._number:
            high = after.offset
        if low is None:
            low = gap.start if high is None else high - (gap.end - gap.start)
        if high is None or not 0 <= high - low <= _MAX_FINE_GAP_BYTES:
            high = low + (gap.end - gap.start)
        return (
            min(len(self._base), max(0, low - _FINE_REACH_BYTES)),
            max(0, min(len(self._base), high + _FINE_REACH_BYTES)),
        )

    def _true(
        self, hits: Places, places: Places, at: int, end: int, window: int = ANCHOR_BYTES
    ) -> list[Piece]:
        """Turn the hits that are true into pieces between ``at`` and ``end``."""
        found: list[Piece] = []
        i = 0
        while (i := max(i, int(np.searchsorted(hits, at)))) < len(hits):
            here, there = int(hits[i]), int(places[i])
            i += 1
            if self._is_over():
                break
            if here + window > end or not np.array_equal(
                self._target[here : here + window], self._base[there : there + window]
            ):
                continue
            back = self._back(here, there, at)
            ahead = window + self._ahead(here + window, there + window, end)
            found.append(self._piece(here - back, here + ahead, there - back))
            at = here + ahead
        return found

    def _back(self, here: int, there: int, limit: int) -> int:
        """Count the bytes in front that are equal."""
        most = min(here - limit, there)
        count, step = 0, 64
        while count < most:
            step = min(step, most - count)
            a = self._target[here - count - step : here - count]
            b = self._base[there - count - step : there - count]
            unlike = np.flatnonzero(a != b)
            if len(unlike):
                return count + step - 1 - int(unlike[-1])
            count += step
            step = min(4 * step, _CHUNK_BYTES)
        return count

    def _ahead(self, here: int, there: int, limit: int) -> int:
        """Count the bytes behind that are mostly equal; the last one is."""
        most = min(limit - here, len(self._base) - there)
        count, step, last = 0, 256, 0
        while count < most:
            step = min(step, most - count)
            low = here + count
            same = self._target[low : low + step] == self._base[there + count :][:step]
            if same.all():
                last = count + step
            else:
                reach = _reach(same)
                # end where it is best: a byte that is equal by chance adds nothing
                score = np.cumsum(np.where(same[:reach], 1, -1))
                if len(score) and score.max() > 0:
                    last = count + int(np.argmax(score)) + 1
                if reach < step:
                    return last
            count += step
            step = min(4 * step, _CHUNK_BYTES)
        return last


def _reach(same: NDArray[np.bool_]) -> int:
    """Give where a stretch of bytes that mostly differ begins."""
    size = len(same)
    blocks = size // _ROW_BYTES
    if blocks < _BAD_BLOCKS:
        unlike = np.flatnonzero(~same)
        return size if not len(unlike) else int(unlike[0])
    counts = np.count_nonzero(same[: blocks * _ROW_BYTES].reshape(blocks, _ROW_BYTES), axis=1)
    bad = 2 * counts < _ROW_BYTES
    row = bad[: blocks - _BAD_BLOCKS + 1].copy()
    for k in range(1, _BAD_BLOCKS):
        row &= bad[k : blocks - _BAD_BLOCKS + 1 + k]
    return int(np.argmax(row)) * _ROW_BYTES if row.any() else size


def _outside(pieces: Sequence[Piece], known: Sequence[Piece]) -> list[Piece]:
    """Give the long pieces that overlap none of ``known``."""
    starts = [piece.start for piece in known]
    free = []
    for piece in pieces:
        k = bisect.bisect_left(starts, piece.end)
        if piece.end - piece.start >= _TELLING_BYTES and (
            k == 0 or known[k - 1].end <= piece.start
        ):
            free.append(piece)
    return free


def _stretches(same: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Give where most bytes are the same, block by block; both ends are bytes that are."""
    size = len(same)
    padded = np.zeros(-(-size // _BLOCK_BYTES) * _BLOCK_BYTES, np.bool_)
    padded[:size] = same
    counts = np.count_nonzero(padded.reshape(-1, _BLOCK_BYTES), axis=1)
    good = 4 * counts >= 3 * _BLOCK_BYTES
    if size % _BLOCK_BYTES:
        good[-1] = 4 * counts[-1] >= 3 * (size % _BLOCK_BYTES)
    edges = np.flatnonzero(np.diff(good.astype(np.int8), prepend=0, append=0))
    found = []
    for first, last in edges.reshape(-1, 2).tolist():
        a, b = first * _BLOCK_BYTES, min(size, last * _BLOCK_BYTES)
        while a > 0 and same[a - 1]:
            a -= 1
        while b < size and same[b]:
            b += 1
        inside = np.flatnonzero(same[a:b])
        found.append((a + int(inside[0]), a + int(inside[-1]) + 1))
    # a stretch that grew backwards may have met the one before it
    return [(a, b) for k, (a, b) in enumerate(found) if k == 0 or a >= found[k - 1][1]]


def _filled(target: Bytes, bases: Sequence[Bytes], pieces: list[Piece]) -> list[Piece]:
    """Let what is open keep the place of its neighbours, where it has more in common there."""
    filled: list[Piece] = []
    size = len(target)
    for gap in find_gaps(pieces, size, 1):
        near = [piece for piece in (gap.before, gap.after) if piece is not None]
        ways = {(piece.base, piece.shift) for piece in near}
        if not near and bases and len(bases[0]) == size:
            ways = {(0, 0)}
        if len(ways) > 1 and gap.end - gap.start < _TELLING_BYTES:
            continue
        best: tuple[float, Piece] | None = None
        for number, shift in sorted(ways):
            offset, stop = gap.start + shift, gap.end + shift
            if offset < 0 or stop > len(bases[number]):
                continue
            unlike = byte_entropy(target[gap.start : gap.end] - bases[number][offset:stop])
            if best is None or unlike < best[0]:
                piece = Piece(start=gap.start, end=gap.end, base=number, offset=offset)
                best = (unlike, piece)
        if best is not None and (
            len(ways) == 1 or best[0] < byte_entropy(target[gap.start : gap.end])
        ):
            filled.append(best[1])
    return merge_pieces(pieces, filled)
