"""The sending half of a reliable line: what is under way, what was lost, how large frames are.

A wire never reorders. Each frame carries a transmission number, an acknowledgement names the
newest one that arrived: what was sent before it and is not acknowledged is lost, and goes again
at once. Only when nothing later was sent does nobody find out; then a probe of a few bytes is
sent once the line should have answered, and its answer settles everything before it.
"""

from __future__ import annotations

import collections
import math
import struct
from typing import Deque, List, Optional, Sequence, Tuple

from edgesdk.wire.arq_frames import MAX_PAYLOAD_BYTES

__all__ = [
    "BITS_PER_BYTE",
    "FIRST_ROOM_BYTES",
    "OFFSET_SPAN",
    "TX_SPAN",
    "Sender",
    "largest_frame",
    "pack_data",
]

BITS_PER_BYTE = 10  # start, eight, stop
#: Offsets and transmission numbers are sent modulo these.
OFFSET_SPAN = 1 << 20
TX_SPAN = 1 << 11
#: What a receiver has room for before it has said a word.
FIRST_ROOM_BYTES = 64 << 10
_HEAD = struct.Struct(">I")
#: What a frame costs besides its payload: head, CRC, COBS, delimiter.
_FRAME_COST_BYTES = 10
_SMALLEST_FRAME_BYTES = 48
_LARGEST_FRAME_S = 0.4
_WINDOW_S = 0.08
_WINDOW_FRAMES = 8
_MAX_WINDOW_BYTES = 60_000
_MAX_FLIGHT = TX_SPAN // 2
#: What an application may have handed over beyond what has arrived: seconds of line, and bytes.
_BUFFER_S = 1.5
_LEAST_BUFFER_BYTES, _MOST_BUFFER_BYTES = 2048, 64 << 10
#: What is believed of a line before anything was sent: one byte in 100 000 is spoilt.
_PRIOR_LOST, _PRIOR_BYTES = 0.2, 20_000.0
_MEMORY_BYTES = 400_000.0
_FIRST_MARGIN_S = 0.1
_LEAST_MARGIN_S, _MOST_MARGIN_S = 0.03, 1.0

Span = Tuple[int, int]


def pack_data(tx: int, offset: int, payload: bytes) -> bytes:
    """Give the body of a data frame."""
    return _HEAD.pack((tx % TX_SPAN) << 20 | offset % OFFSET_SPAN) + payload


def largest_frame(baud: int) -> int:
    """The largest payload at ``baud`` bits a second: a power of two, at most 0.4 s of line."""
    size = 256
    while size < MAX_PAYLOAD_BYTES and 2 * size <= _LARGEST_FRAME_S * baud / BITS_PER_BYTE:
        size *= 2
    return size


def _without(span: Span, taken: Sequence[Span]) -> List[Span]:
    """What of ``span`` none of the rising spans ``taken`` covers."""
    left, (start, end) = [], span
    for first, last in taken:
        if last <= start:
            continue
        if first >= end:
            break
        if first > start:
            left.append((start, first))
        start = last
    if start < end:
        left.append((start, end))
    return left


class _Flight:
    """One transmission that nothing is known of yet; a probe is one without bytes."""

    __slots__ = ("done_at", "end", "start", "tx", "wire_bytes")

    def __init__(self, tx: int, span: Span, wire_bytes: int, done_at: float) -> None:
        self.tx = tx
        self.start, self.end = span
        self.wire_bytes = wire_bytes
        self.done_at = done_at


class Sender:
    """Takes a stream of bytes and says which piece of it to put on the line next.

    Attributes:
        frames_sent: Data frames, repeated ones among them.
        frames_lost: Of those, the ones that are known to be lost.
        holds_new: Only what was lost is sent, nothing new, until all has arrived.
    """

    def __init__(self, baud: int) -> None:
        self._buffer = bytearray()  # from _base on
        self._base = 0  # all before it has arrived
        self._next = 0  # nothing from here on was ever sent
        self._limit = FIRST_ROOM_BYTES  # the other end has room up to here
        self._lost: List[Span] = []
        self._flight: Deque[_Flight] = collections.deque()
        self._flight_bytes = 0
        self._tx = 0
        self._line_free_at = 0.0
        self._lag_s = _FIRST_MARGIN_S / 4
        self._backoff = 1
        self._lost_frames, self._sent_bytes = _PRIOR_LOST, _PRIOR_BYTES
        self.frames_sent = self.frames_lost = 0
        self.holds_new = False
        self.set_baud(baud)

    def set_baud(self, baud: int) -> None:
        """Take note of the speed of the line, in bits a second."""
        self.bytes_per_s = baud / float(BITS_PER_BYTE)
        self._largest = largest_frame(baud)
        buffer_bytes = max(_LEAST_BUFFER_BYTES, int(_BUFFER_S * self.bytes_per_s))
        self._buffer_bytes = min(_MOST_BUFFER_BYTES, buffer_bytes)
        self._lost_frames, self._sent_bytes = _PRIOR_LOST, _PRIOR_BYTES

    # what the application gives

    @property
    def room(self) -> int:
        """How many bytes `put` takes now."""
        return max(0, self._buffer_bytes - len(self._buffer))

    @property
    def unsettled_bytes(self) -> int:
        """Bytes that were taken and have not been acknowledged."""
        return len(self._buffer)

    @property
    def settled_bytes(self) -> int:
        """Bytes that have arrived."""
        return self._base

    @property
    def is_quiet(self) -> bool:
        """Say that nothing is under way, and nothing of what was has to go again."""
        return not self._flight and not self._lost

    def put(self, data: bytes) -> int:
        """Take as much of ``data`` as there is room for; give how much that was."""
        count = min(len(data), self.room)
        self._buffer += data[:count]
        return count

    # what goes out

    @property
    def byte_error_rate(self) -> float:
        """The share of bytes that the line spoils, as far as lost frames show it."""
        return self._lost_frames / self._sent_bytes

    @property
    def frame_bytes(self) -> int:
        """The payload at which headers and repeated frames together cost least."""
        best = math.sqrt(_FRAME_COST_BYTES / max(1e-9, self.byte_error_rate))
        return int(max(_SMALLEST_FRAME_BYTES, min(self._largest, best)))

    @property
    def window_bytes(self) -> int:
        """What may be under way; more would only queue in front of what is repeated."""
        frames = _WINDOW_FRAMES * (self.frame_bytes + _FRAME_COST_BYTES)
        window = max(frames, int(_WINDOW_S * self.bytes_per_s))
        return min(_MAX_WINDOW_BYTES, window)

    def has_data(self) -> bool:
        """Say whether `next_data` would give something."""
        if self._flight_bytes >= self.window_bytes or len(self._flight) >= _MAX_FLIGHT:
            return False
        return bool(self._lost) or (not self.holds_new and self._next < self._may_reach())

    def _may_reach(self) -> int:
        """The offset up to which new data may go: an acknowledgement reaches no further."""
        end = min(self._base + len(self._buffer), self._limit)
        return min(end, self._base + _MAX_WINDOW_BYTES)

    def next_data(self) -> Optional[Tuple[int, int, bytes]]:
        """Give transmission number, offset and payload of the next frame, or None."""
        if not self.has_data():
            return None
        if self._lost:
            start, end = self._lost[0]
            cut = min(end, start + self.frame_bytes)
            if cut < end:
                self._lost[0] = (cut, end)
            else:
                del self._lost[0]
        else:
            start = self._next
            cut = min(self._may_reach(), start + self.frame_bytes)
            self._next = cut
        self._tx += 1
        self.frames_sent += 1
        payload = bytes(self._buffer[start - self._base : cut - self._base])
        self._flight.append(_Flight(self._tx, (start, cut), 0, 0.0))
        return self._tx, start, payload

    def next_probe(self) -> int:
        """Give the transmission number of a frame without bytes."""
        self._tx += 1
        self._flight.append(_Flight(self._tx, (self._next, self._next), 0, 0.0))
        return self._tx

    def sent(self, wire_bytes: int, now: float, *, tx: int = 0) -> None:
        """Note bytes that went to the line, those of transmission ``tx`` or of other frames."""
        self._line_free_at = max(now, self._line_free_at) + wire_bytes / self.bytes_per_s
        if tx and self._flight and self._flight[-1].tx == tx:
            flight = self._flight[-1]
            flight.wire_bytes, flight.done_at = wire_bytes, self._line_free_at
            self._flight_bytes += wire_bytes

    @property
    def line_free_at(self) -> float:
        """When the line is done with what it was given."""
        return self._line_free_at

    # what comes back

    def probe_at(self) -> Optional[float]:
        """When to ask the other end what it has; None while there is nothing to ask."""
        waits = self._limit <= self._next < self._base + len(self._buffer)
        if not self._flight and not waits:
            return None
        margin_s = max(_LEAST_MARGIN_S, 4 * self._lag_s) * self._backoff
        return self._line_free_at + min(_MOST_MARGIN_S, margin_s)

    def probing(self) -> None:
        """Note that a probe is sent because none of the last frames was answered."""
        self._backoff = min(64, self._backoff * 2)

    def acknowledged(
        self, cum: int, spans: Sequence[Tuple[int, int]], room: int, tx: int, now: float
    ) -> bool:
        """Take what the other end says it has; False when it cannot have that.

        Args:
            cum: It has all before this offset (modulo `OFFSET_SPAN`).
            spans: What it has besides: gap and length of each, one after the other.
            room: How many bytes from ``cum`` on it can take.
            tx: The newest transmission it saw (modulo `TX_SPAN`).
            now: The time, in seconds.
        """
        base = self._base + (cum - self._base) % OFFSET_SPAN
        if base > self._next:
            # also what an acknowledgement older than the newest one looks like
            return (self._base - cum) % OFFSET_SPAN <= _MAX_WINDOW_BYTES
        have, at = [(self._base, base)], base
        for gap, length in spans:
            if gap == 0 or length == 0 or at + gap + length > self._next:
                return False
            have.append((at + gap, at + gap + length))
            at += gap + length
        newest = self._tx - (self._tx - tx) % TX_SPAN
        if newest < 0:
            return False
        del self._buffer[: base - self._base]
        self._base = base
        self._limit = max(self._limit, base + room)
        self._settle(newest, have, now)
        return True

    def _settle(self, newest: int, have: List[Span], now: float) -> None:
        flight = self._flight
        lost: List[Span] = []
        while flight and flight[0].tx <= newest:
            done = flight.popleft()
            self._flight_bytes -= done.wire_bytes
            self._backoff = 1
            if done.tx == newest:
                lag_s = max(0.0, now - done.done_at)
                self._lag_s += (lag_s - self._lag_s) / (4.0 if lag_s > self._lag_s else 16.0)
            if done.end == done.start:
                continue
            missing = _without((done.start, done.end), have)
            if missing:
                self.frames_lost += 1
                lost += missing
            self._learn(done.wire_bytes, was_lost=bool(missing))
        kept: List[Span] = []
        for span in self._lost:
            kept += _without(span, have)
        self._lost = sorted(kept + lost)

    def _learn(self, wire_bytes: int, *, was_lost: bool) -> None:
        self._lost_frames += was_lost
        self._sent_bytes += wire_bytes
        if self._sent_bytes > _MEMORY_BYTES:
            self._lost_frames /= 2
            self._sent_bytes /= 2
