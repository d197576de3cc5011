"""Whether a chunk travels as zlib: always, or where measuring says that it is faster.

Packing pays when the link is slower than zlib and the data shrinks. Neither is known
beforehand, so now and then one chunk is packed to see. While it pays, every chunk is.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable

__all__ = ["Squeeze"]

#: On a serial line every byte counts; beside a fast link the quickest level is slow enough.
_THOROUGH_LEVEL = 6
_QUICK_LEVEL = 1
#: No processor of ours packs so much a second: do not even try on a link that is faster.
_NEVER_ABOVE_BYTES_PER_S = 40e6
#: Packing may take this share of the time that the packed bytes take on the link, so that it
#: is never what the link waits for.
_SHARE_OF_TIME = 0.6
_MUST_SHRINK_TO = 0.96
#: What is packed to see, and after how many chunks again; twice as many after each failure.
_SAMPLE_BYTES = 32 << 10
_TRY_EVERY = 32
_TRY_AT_LEAST_EVERY = 512


class Squeeze:
    """Packs the chunks of one push.

    Args:
        always: Pack whatever shrinks, however long that takes.
        clock: Gives seconds that only rise.
    """

    def __init__(self, *, always: bool, clock: Callable[[], float] = time.perf_counter) -> None:
        self._always = always
        self._clock = clock
        self._pays = False
        self._until_next_try = 0
        self._try_every = _TRY_EVERY

    def considers(self, link_bytes_per_s: float | None) -> bool:
        """Say whether the next chunk is to be looked at at all; ask once for each.

        Args:
            link_bytes_per_s: What the link has carried of late; None where not known yet.
        """
        if self._always:
            return True
        if not link_bytes_per_s or link_bytes_per_s > _NEVER_ABOVE_BYTES_PER_S:
            self._pays = False
            return False
        if not self._pays and self._until_next_try > 0:
            self._until_next_try -= 1
            return False
        return True

    def pack(self, chunk: bytes, link_bytes_per_s: float | None) -> bytes | None:
        """Give a chunk that was considered as zlib, or None where it is to go as it is.

        Args:
            chunk: What is to be sent.
            link_bytes_per_s: As `considers` was told.
        """
        if self._always:
            packed = zlib.compress(chunk, _THOROUGH_LEVEL)
            return packed if len(packed) < len(chunk) else None
        if not chunk or not link_bytes_per_s:
            return None
        if not self._pays and self._packed(chunk[:_SAMPLE_BYTES], link_bytes_per_s) is None:
            self._until_next_try = self._try_every
            self._try_every = min(2 * self._try_every, _TRY_AT_LEAST_EVERY)
            return None
        whole = self._packed(chunk, link_bytes_per_s)
        self._pays = whole is not None
        return whole

    def _packed(self, data: bytes, link_bytes_per_s: float) -> bytes | None:
        begun = self._clock()
        packed = zlib.compress(data, _QUICK_LEVEL)
        took_s = self._clock() - begun
        shrinks = len(packed) < _MUST_SHRINK_TO * len(data)
        quick = took_s < _SHARE_OF_TIME * len(packed) / link_bytes_per_s
        return packed if shrinks and quick else None
