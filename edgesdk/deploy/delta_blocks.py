"""Find blocks of a blob that only the device has, by the checksums it gives of them.

The index has an Adler-32 of every block and the beginning of its SHA-256. Adler-32 of a window
follows from running sums, so numpy has it for every place at once; where one is in the index
the hash decides. A hash this short may lie once in a million pushes; then the device finds that
the result is wrong, and everything is sent.
"""

from __future__ import annotations

import hashlib
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgesdk.deploy.delta_pieces import Bytes, Piece, merge_pieces
from edgesdk.deploy.delta_windows import Places

__all__ = [
    "BlockIndex",
    "BlockPlan",
    "block_likeness",
    "match_blocks",
    "plan_blocks",
    "read_blocks",
]

#: The modulus of Adler-32.
_ADLER = 65521
_SLICE_BYTES = 1 << 20
_SMALLEST_BLOCK_BYTES = 1024
_LARGEST_BLOCK_BYTES = 1 << 18
#: So many blocks are asked for to see whether asking for all of them pays.
_PROBES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockIndex:
    """Checksums of every ``stride``-th block of a blob of ``size`` bytes; the last is short."""

    size: int
    block_bytes: int
    strong_bytes: int
    stride: int
    weak: NDArray[np.uint32]
    strong: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """What to ask the device for."""

    block_bytes: int
    strong_bytes: int

    def probe_stride(self, size: int) -> int:
        """How many blocks to step to see some of them all over the blob."""
        return max(1, size // self.block_bytes // _PROBES)


def plan_blocks(size: int) -> BlockPlan:
    """Choose the block for a blob: index and what one change costs are about equal.

    One hash byte is added with every sixteenfold size, as there are more places and more blocks
    for chance to play with.
    """
    wanted = 2 ** round(math.log2(math.sqrt(max(1, size)) * 1.25))
    block_bytes = min(_LARGEST_BLOCK_BYTES, max(_SMALLEST_BLOCK_BYTES, wanted))
    return BlockPlan(
        block_bytes=block_bytes,
        strong_bytes=min(8, 3 + max(0, size.bit_length() - 24 + 3) // 4),
    )


def read_blocks(
    body: bytes, *, size: int, block_bytes: int, strong_bytes: int, stride: int = 1
) -> BlockIndex | None:
    """Read the device's answer; None where it is not as long as it has to be."""
    count = -(-size // (block_bytes * stride))
    entry = 4 + strong_bytes
    if len(body) != count * entry:
        return None
    table = np.frombuffer(body, np.uint8).reshape(count, entry)
    return BlockIndex(
        size=size,
        block_bytes=block_bytes,
        strong_bytes=strong_bytes,
        stride=stride,
        weak=np.ascontiguousarray(table[:, :4]).view(">u4")[:, 0].astype(np.uint32),
        strong=tuple(row.tobytes() for row in table[:, 4:]),
    )


def block_likeness(target: Bytes, index: BlockIndex) -> float:
    """Guess which share of ``target`` is in the blob, from blocks that stayed at an end."""
    alike = 0
    for number, strong in enumerate(index.strong):
        offset = number * index.stride * index.block_bytes
        length = min(index.block_bytes, index.size - offset)
        for shift in {0, len(target) - index.size}:
            at = offset + shift
            if at >= 0 and _strong(target[at : at + length], index.strong_bytes) == strong:
                alike += 1
                break
    return alike / len(index.strong) if index.strong else 0.0


def _strong(window: Bytes, count: int) -> bytes:
    return hashlib.sha256(window.tobytes()).digest()[:count]


def match_blocks(
    target: Bytes,
    index: BlockIndex,
    *,
    base: int = 0,
    budget_s: float = 60.0,
    clock: Callable[[], float] = time.thread_time,
) -> list[Piece]:
    """Give the pieces of ``target`` that are blocks of the index, which has all of them."""
    over_s = clock() + budget_s
    finder = _Finder(target, index)
    pieces: list[Piece] = []
    at = 0
    for low in range(0, len(target) - index.block_bytes + 1, _SLICE_BYTES):
        if clock() >= over_s or finder.is_lost():
            break
        run = finder.run(at) if at >= low else None
        if run is not None:
            pieces.append(replace(run, base=base))
            at = run.end
        if at >= low + _SLICE_BYTES:
            continue
        hits = finder.hits(low)
        i = 0
        while (i := max(i, int(np.searchsorted(hits, at)))) < len(hits):
            here = int(hits[i])
            i += 1
            number = finder.block_at(here)
            if number is not None:
                offset, at = number * index.block_bytes, here + index.block_bytes
                pieces.append(Piece(start=here, end=at, base=base, offset=offset, exact=True))
    tail = index.size % index.block_bytes
    end = len(target)
    if tail and end - at >= tail and finder.strong(end - tail, end) == index.strong[-1]:
        pieces.append(
            Piece(start=end - tail, end=end, base=base, offset=index.size - tail, exact=True)
        )
    return merge_pieces(pieces)


class _Finder:
    """Looks windows of a target up in an index."""

    def __init__(self, target: Bytes, index: BlockIndex) -> None:
        self._target = target
        self._index = index
        whole = index.size // index.block_bytes
        self._order = np.argsort(index.weak[:whole], kind="stable")
        self._weak = index.weak[self._order]
        self._low = np.zeros(1 << 16, np.bool_)
        self._low[self._weak & np.uint32(0xFFFF)] = True
        self._expected = 0
        self._tries_left = 4 * whole + 4 * (len(target) // index.block_bytes) + 1000

    def is_lost(self) -> bool:
        """Say whether far more windows had to be hashed than there are blocks."""
        return self._tries_left < 0

    def strong(self, start: int, end: int) -> bytes:
        """Give what an index would have of those bytes of the target."""
        return _strong(self._target[start:end], self._index.strong_bytes)

    def run(self, at: int) -> Piece | None:
        """Give the blocks at ``at`` that go on where the last one ended, without a search."""
        block = self._index.block_bytes
        first = number = self._expected
        end = at
        while number < len(self._weak) and end + block <= len(self._target):
            if self.strong(end, end + block) != self._index.strong[number]:
                break
            number += 1
            end += block
        if number == first:
            return None
        self._expected = number
        return Piece(start=at, end=end, base=0, offset=first * block, exact=True)

    def hits(self, low: int) -> Places:
        """Give where from ``low`` on, for one slice, a window has the checksum of a block."""
        block = self._index.block_bytes
        data = self._target[low : low + _SLICE_BYTES + block - 1]
        none = np.zeros(0, np.intp)
        if len(data) < block or not len(self._weak):
            return none
        likely, weak = _adler_windows(data, block, self._low)
        first = np.searchsorted(self._weak, weak)
        first[first == len(self._weak)] = 0
        hits: Places = likely[self._weak[first] == weak] + low
        return hits

    def block_at(self, here: int) -> int | None:
        """Give the block that the window at ``here`` is; of equal ones, the expected one."""
        index = self._index
        self._tries_left -= 1
        if self.is_lost():
            return None
        strong = self.strong(here, here + index.block_bytes)
        number = self._expected
        if not (number < len(self._weak) and index.strong[number] == strong):
            weak = zlib.adler32(self._target[here : here + index.block_bytes].tobytes())
            first = int(np.searchsorted(self._weak, weak))
            last = int(np.searchsorted(self._weak, weak, side="right"))
            same = (k for k in self._order[first:last].tolist() if index.strong[k] == strong)
            number = next(same, -1)
        if number < 0:
            return None
        self._expected = number + 1
        return number


def _adler_windows(
    data: Bytes, block: int, wanted: NDArray[np.bool_]
) -> tuple[Places, NDArray[np.uint32]]:
    """Give where a block may begin whose Adler-32 has ``wanted`` low bits, and that checksum.

    Differences of running sums are right even after those wrapped around.
    """
    count = len(data) - block + 1
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(data, out=sums[1:], dtype=np.uint64)
    low = (sums[block:] - sums[:count]).astype(np.uint32)
    low = (low + np.uint32(1)) % np.uint32(_ADLER)
    likely = np.flatnonzero(wanted[low])
    twice = np.zeros(len(data) + 2, np.uint64)
    np.cumsum(sums, out=twice[1:])
    # byte k of a block counts block - k times
    high = twice[likely + block + 1] - twice[likely + 1]
    high += np.uint64(block) - sums[likely] * np.uint64(block)
    high %= np.uint64(_ADLER)
    return likely, high.astype(np.uint32) << np.uint32(16) | low[likely]
