"""Write a delta: for every stretch the shortest of copy, patch, shift, block and insert.

The format is that of `edgesdk.wire.delta`. What a stretch would cost is judged from the entropy
of its bytes, taken plane by plane, so that each is compressed once and only where it helps:
deflating bytes that look random is where the time would go.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgesdk.deploy.delta_pieces import Bytes, Piece, byte_entropy
from edgesdk.wire.delta import (
    BLOCK,
    COPY,
    INSERT,
    PATCH,
    PIECE_BYTES,
    SHIFT,
    DeltaHeader,
    encode_header,
    put_varint,
    zigzag,
)

__all__ = ["encode_delta"]

#: The grain in which a stretch is called equal, patched here and there, or another one.
_GRAIN_BYTES = 4096
#: Of that many bytes at most one differs where a patch is tried.
_SPARSE_ONE_IN = 6
#: Runs of a patch that are nearer than this are one.
_NEAR_BYTES = 4
#: Shorter literals go together into one stream.
_SMALL_BYTES = 1 << 10
_WAYS = (1, 2, 4, 8)
_SAMPLE_BYTES = 1 << 16
#: Bits a byte; above it there is nothing to gain.
_RANDOM_BITS = 7.95
_FLUSH_BYTES = PIECE_BYTES // 2
_FLUSH_BLOCK_BYTES = 4 << 20


def encode_delta(
    sha256: str, target: Bytes, pieces: Sequence[Piece], bases: Sequence[tuple[str, Bytes]]
) -> bytes:
    """Give the delta that makes ``target`` from ``bases``.

    Args:
        sha256: The name of the target.
        target: Its bytes.
        pieces: What to take from where, in order, as `edgesdk.deploy.delta_match.align` gives.
        bases: Name and bytes of each; those of ``exact`` pieces are not looked at.
    """
    used = sorted({piece.base for piece in pieces})
    header = DeltaHeader(
        sha256, len(target), [(bases[base][0], len(bases[base][1])) for base in used]
    )
    writer = _Writer(target, [bases[base][1] for base in used])
    number = {base: k for k, base in enumerate(used)}
    at = 0
    for piece in pieces:
        writer.literal(at, piece.start)
        base = number[piece.base]
        if piece.exact:
            writer.copy(base, piece.offset, piece.end - piece.start)
        else:
            writer.alike(base, piece.offset, piece.start, piece.end)
        at = piece.end
    writer.literal(at, len(target))
    return encode_header(header) + writer.finish()


@dataclass(frozen=True, slots=True)
class _Planes:
    """A way to write a block, and what it would take."""

    count: int
    cost_bytes: float


def _best_planes(data: Bytes) -> _Planes:
    """Find into how many planes to cut ``data``."""
    sample = data[:_SAMPLE_BYTES]
    best = _Planes(1, float("inf"))
    for count in _WAYS:
        entropy = sum(byte_entropy(sample[k::count]) for k in range(count)) / count
        cost = len(data) * entropy / 8
        if cost < 0.98 * best.cost_bytes:
            best = _Planes(count, cost)
    if best.cost_bytes < 0.98 * len(data) or len(sample) <= 4 * _SMALL_BYTES:
        # repetitions, which deflate finds, do not show in the entropy
        small = sample[: _SAMPLE_BYTES // 4]
        deflated = len(data) * len(zlib.compress(small.tobytes(), 6)) / max(1, len(small))
        if deflated < best.cost_bytes:
            return _Planes(1, deflated)
    return best


def _deflate(data: bytes, *, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """Give raw deflate, or ``data`` itself where that is not longer."""
    if not data:
        return data
    engine = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    packed = engine.compress(data) + engine.flush()
    return packed if len(packed) < len(data) else data


def _pack_plane(plane: Bytes, *, alone: bool) -> bytes:
    if not plane.any():
        return b""
    if not alone and byte_entropy(plane) > _RANDOM_BITS:
        return plane.tobytes()
    if alone or len(plane) < _SAMPLE_BYTES:
        return _deflate(plane.tobytes(), level=6 if len(plane) > _SAMPLE_BYTES else 9)
    return _deflate(plane.tobytes(), strategy=zlib.Z_HUFFMAN_ONLY)


def _varints(values: NDArray[np.int64]) -> bytes:
    """Give each number as a varint, one after another."""
    sizes = np.ones(len(values), np.intp)
    for k in range(1, 9):
        sizes += values >= 1 << 7 * k
    ends = np.cumsum(sizes)
    out = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for k in range(int(sizes.max(initial=0))):
        here = sizes > k
        part = values[here] >> 7 * k & 0x7F
        more = sizes[here] > k + 1
        out[(ends - sizes)[here] + k] = part | np.where(more, 0x80, 0)
    return out.tobytes()


class _Writer:
    """Collects steps into sections."""

    def __init__(self, target: Bytes, bases: Sequence[Bytes]) -> None:
        self._target = target
        self._bases = bases
        self._ends = [0] * len(bases)
        self._sections: list[bytes] = []
        self._begin()
        self._copying: tuple[int, int, int] | None = None  # base, offset, bytes

    def _begin(self) -> None:
        self._steps = bytearray()
        self._gaps = bytearray()
        self._data = bytearray()
        self._blocks: list[bytes] = []
        self._block_bytes = 0

    def copy(self, base: int, offset: int, length: int) -> None:
        """Take bytes of a base as they are."""
        if self._copying is not None:
            last, start, so_far = self._copying
            if last == base and start + so_far == offset:
                self._copying = (base, start, so_far + length)
                return
            self._end_copy()
        self._copying = (base, offset, length)

    def literal(self, start: int, end: int) -> None:
        """Send bytes of the target."""
        for low in range(start, end, PIECE_BYTES):
            piece = self._target[low : min(end, low + PIECE_BYTES)]
            if len(piece) < _SMALL_BYTES:
                self._put(INSERT, len(piece))
                self._data += piece.tobytes()
            else:
                self._block(piece, _best_planes(piece))
            self._flush_if_full()

    def alike(self, base: int, offset: int, start: int, end: int) -> None:
        """Take bytes of a base that may differ here and there, or everywhere."""
        shift = offset - start
        for low in range(start, end, PIECE_BYTES):
            high = min(end, low + PIECE_BYTES)
            target = self._target[low:high]
            difference = target - self._bases[base][low + shift : high + shift]
            for a, b, is_sparse in _kinds(difference != 0):
                if is_sparse:
                    self._patch(base, low + a + shift, difference[a:b])
                else:
                    self._dense(base, low + a, shift, difference[a:b])
                self._flush_if_full()

    def finish(self) -> bytes:
        """Give everything."""
        self._flush()
        return b"".join(self._sections)

    def _patch(self, base: int, offset: int, difference: Bytes) -> None:
        spots = np.flatnonzero(difference)
        if not len(spots):
            self.copy(base, offset, len(difference))
            return
        far = np.flatnonzero(np.diff(spots) > _NEAR_BYTES)
        firsts = spots[np.concatenate(([0], far + 1))]
        lasts = spots[np.concatenate((far, [len(spots) - 1]))] + 1
        gaps = firsts - np.concatenate(([0], lasts[:-1]))
        # what lies in front of the first run and behind the last is a copy
        head, tail = int(gaps[0]), len(difference) - int(lasts[-1])
        if head:
            self.copy(base, offset, head)
        gaps[0] = 0
        self._put(PATCH, int(lasts[-1]) - head, base=base, offset=offset + head)
        put_varint(self._steps, len(firsts))
        self._steps += _varints(lasts - firsts)
        self._gaps += _varints(gaps)
        inside = np.zeros(len(difference) + 1, np.int8)
        inside[firsts] += 1
        inside[lasts] -= 1
        self._data += difference[np.cumsum(inside[:-1]) > 0].tobytes()
        if tail:
            self.copy(base, offset + int(lasts[-1]), tail)

    def _dense(self, base: int, start: int, shift: int, difference: Bytes) -> None:
        """Send what differs almost everywhere; equal bytes at its ends are copies."""
        unlike = np.flatnonzero(difference)
        head, end = int(unlike[0]), int(unlike[-1]) + 1
        if head:
            self.copy(base, start + shift, head)
        self._changed(base, start + head, shift, difference[head:end])
        if end < len(difference):
            self.copy(base, start + shift + end, len(difference) - end)

    def _changed(self, base: int, start: int, shift: int, difference: Bytes) -> None:
        end = start + len(difference)
        if len(difference) < _SMALL_BYTES:
            self.literal(start, end)
            return
        plain = _best_planes(self._target[start:end])
        added = _best_planes(difference)
        if added.cost_bytes >= 0.98 * plain.cost_bytes:
            self.literal(start, end)
            return
        self._block(difference, added, base=base, offset=start + shift)

    def _block(
        self, data: Bytes, planes: _Planes, *, base: int | None = None, offset: int = 0
    ) -> None:
        if base is None:
            self._put(BLOCK, len(data))
        else:
            self._put(SHIFT, len(data), base=base, offset=offset)
        alone = planes.count == 1
        packed = [
            _pack_plane(data[k :: planes.count], alone=alone) for k in range(planes.count)
        ]
        put_varint(self._steps, planes.count)
        for plane in packed:
            put_varint(self._steps, len(plane))
        self._blocks += packed
        self._block_bytes += sum(map(len, packed))

    def _put(self, kind: int, length: int, *, base: int | None = None, offset: int = 0) -> None:
        if kind != COPY:
            self._end_copy()
        self._steps.append(kind)
        if base is not None:
            put_varint(self._steps, base)
            put_varint(self._steps, zigzag(offset - self._ends[base]))
            self._ends[base] = offset + length
        put_varint(self._steps, length)

    def _end_copy(self) -> None:
        if self._copying is not None:
            base, offset, length = self._copying
            self._copying = None
            self._put(COPY, length, base=base, offset=offset)

    def _flush_if_full(self) -> None:
        longest = max(len(self._steps), len(self._gaps), len(self._data))
        if longest > _FLUSH_BYTES or self._block_bytes > _FLUSH_BLOCK_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._end_copy()
        if not self._steps:
            return
        out = bytearray()
        for stream in (self._steps, self._gaps, self._data):
            packed = _deflate(bytes(stream))
            put_varint(out, len(stream))
            put_varint(out, len(packed))
            out += packed
        self._sections += [bytes(out), *self._blocks]
        self._begin()


def _kinds(unlike: NDArray[np.bool_]) -> Iterable[tuple[int, int, bool]]:
    """Cut a stretch where it changes between few and many bytes that differ."""
    size = len(unlike)
    starts = np.arange(0, size, _GRAIN_BYTES)
    counts = np.add.reduceat(unlike.astype(np.int32), starts)
    sizes = np.minimum(_GRAIN_BYTES, size - starts)
    sparse = counts * _SPARSE_ONE_IN <= sizes
    edges = [0, *(np.flatnonzero(np.diff(sparse)) + 1).tolist(), len(starts)]
    for first, last in itertools.pairwise(edges):
        if first < last:
            yield int(starts[first]), min(size, last * _GRAIN_BYTES), bool(sparse[first])
