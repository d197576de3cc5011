"""Indexes of short windows of bytes: where in a blob may the bytes of another one be?

For long blobs only *anchors* are looked at: places whose four bytes have a hash that ends in
zeros. Both sides pick them by content, so what they share has the same ones wherever it lies,
and one place in 32 is hashed instead of all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgesdk.deploy.delta_pieces import Bytes

__all__ = ["ANCHOR_BYTES", "AnchorIndex", "Places", "WindowIndex"]

Places = NDArray[np.intp]
Hashes = NDArray[np.uint64]

#: The length of the window behind an anchor that is compared.
ANCHOR_BYTES = 32
_ANCHOR_MIX = np.uint32(0x9E3779B1)
_ANCHOR_MASK = np.uint32(0xF8000000)
_MOST_TABLE_BITS = 24
_MIX = np.uint64(0x9E3779B97F4A7C15)


def _anchors(data: Bytes) -> Places:
    """Give where anchors are, in order; padding has none."""
    found = []
    for k in range(4):
        count = (len(data) - k) // 4
        words = data[k : k + 4 * count].view("<u4")
        is_anchor = (words * _ANCHOR_MIX & _ANCHOR_MASK) == 0
        is_anchor &= words != 0
        found.append(np.flatnonzero(is_anchor) * 4 + k)
    places = np.sort(np.concatenate(found))
    return places[places <= len(data) - ANCHOR_BYTES]


def _anchor_hashes(data: Bytes, places: Places) -> Hashes:
    windows = np.lib.stride_tricks.sliding_window_view(data, ANCHOR_BYTES)[places]
    words = np.ascontiguousarray(windows).view("<u8")
    total = np.zeros(len(places), np.uint64)
    for column in range(words.shape[1]):
        total = _mixed(total + words[:, column])
    return total


def _mixed(values: Hashes) -> Hashes:
    values = values * _MIX
    return values ^ (values >> np.uint64(29))


class _Index:
    """Hashes and where they are; of equal ones, the first."""

    def __init__(self, hashes: Hashes, places: Places) -> None:
        self._hashes, first = np.unique(hashes, return_index=True)
        self._places = places[first]
        bits = min(_MOST_TABLE_BITS, 4 + len(self._hashes).bit_length())
        self._beyond = np.uint64(64 - bits)
        self._table = np.zeros(1 << bits, np.bool_)
        self._table[self._hashes >> self._beyond] = True

    def find(self, hashes: Hashes) -> tuple[Places, Places]:
        """Give which of ``hashes`` are here, by number, and their places."""
        likely = np.flatnonzero(self._table[hashes >> self._beyond])
        if not len(likely) or not len(self._hashes):
            return likely, likely
        at = np.searchsorted(self._hashes, hashes[likely])
        at[at == len(self._hashes)] = 0
        found = self._hashes[at] == hashes[likely]
        return likely[found], self._places[at[found]]


class AnchorIndex:
    """The anchors of some stretches of a blob, which are read in slices."""

    def __init__(self, base: Bytes, spans: Iterable[tuple[int, int]], slice_bytes: int) -> None:
        places, hashes = [np.zeros(0, np.intp)], [np.zeros(0, np.uint64)]
        for start, end in spans:
            for low in range(start, end, slice_bytes):
                piece = base[low : min(end, low + slice_bytes + ANCHOR_BYTES - 1)]
                if len(piece) < ANCHOR_BYTES:
                    continue
                here = _anchors(piece)
                places.append(here + low)
                hashes.append(_anchor_hashes(piece, here))
        self._index = _Index(np.concatenate(hashes), np.concatenate(places))

    def hits(self, data: Bytes) -> tuple[Places, Places]:
        """Give where in ``data`` a window begins that may be in the base, and where there."""
        if len(data) < ANCHOR_BYTES:
            none = np.zeros(0, np.intp)
            return none, none
        places = _anchors(data)
        which, there = self._index.find(_anchor_hashes(data, places))
        return places[which], there


class WindowIndex:
    """Every window of a few bytes of a short stretch; ``origin`` is where that begins."""

    def __init__(self, base: Bytes, window: int, origin: int) -> None:
        self._window = window
        hashes = _window_hashes(base, window)
        self._index = _Index(hashes, np.arange(len(hashes)) + origin)

    def hits(self, data: Bytes) -> tuple[Places, Places]:
        """Give where in ``data`` a window begins that may be in the base, and where there."""
        if len(data) < self._window:
            none = np.zeros(0, np.intp)
            return none, none
        return self._index.find(_window_hashes(data, self._window))


def _window_hashes(data: Bytes, window: int) -> Hashes:
    """Hash the window that begins at each byte; ``window`` is a multiple of 4."""
    count = len(data) - 3
    fours = data[:count].astype(np.uint64)
    for k in range(1, 4):
        fours |= data[k : count + k].astype(np.uint64) << np.uint64(8 * k)
    count = len(data) - window + 1
    total = np.zeros(count, np.uint64)
    for at in range(0, window, 4):
        total = _mixed(total + fours[at : at + count])
    return total
