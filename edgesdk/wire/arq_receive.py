"""The receiving half of a reliable line: puts pieces in order and says what it has."""

from __future__ import annotations

import bisect
import struct
from typing import List, Optional, Tuple

from edgesdk.wire.arq_send import FIRST_ROOM_BYTES, OFFSET_SPAN, TX_SPAN

__all__ = ["ACK", "Receiver", "read_ack"]

ACK = 0x80
#: Bytes that were received and not read yet, in and out of order.
_INBOX_BYTES = 128 << 10
_MAX_PIECES = 4096
_MAX_SPANS = 64
_ACK_AFTER_BYTES = 2048
_ACK_AFTER_S = 0.005
_ROOM_UNIT_BYTES = 64
_HEAD = struct.Struct(">BIHH")
_SPAN = struct.Struct(">HH")

Ack = Tuple[int, List[Tuple[int, int]], int, int]


def read_ack(body: bytes) -> Optional[Ack]:
    """Give offset, spans, room and transmission of an acknowledgement; None when it is none."""
    if len(body) < _HEAD.size or (len(body) - _HEAD.size) % _SPAN.size:
        return None
    _, cum, tx, room = _HEAD.unpack_from(body)
    if cum >= OFFSET_SPAN or tx >= TX_SPAN:
        return None
    spans = list(_SPAN.iter_unpack(body[_HEAD.size :]))
    return cum, spans, room * _ROOM_UNIT_BYTES, tx


class Receiver:
    """Takes the pieces of a stream as they come and gives it in order, each byte once."""

    def __init__(self) -> None:
        self._next = 0  # all before it was received
        self._inbox = bytearray()
        self._pieces: List[Tuple[int, bytes]] = []
        self._pieces_bytes = 0
        self._tx = 0
        self._unsaid_bytes = 0
        self._say_at: Optional[float] = None
        self._said_limit = FIRST_ROOM_BYTES

    @property
    def ready_bytes(self) -> int:
        """How many bytes `take` could give."""
        return len(self._inbox)

    @property
    def received_bytes(self) -> int:
        """How many bytes of the stream have come in order."""
        return self._next

    def take(self, limit: int = _INBOX_BYTES) -> bytes:
        """Give what has come in order and was not given yet."""
        data = bytes(self._inbox[:limit])
        del self._inbox[:limit]
        return data

    def probed(self, tx: int, now: float) -> None:
        """Note a frame without bytes: the other end wants to know what is here."""
        self._tx = tx
        self._say_at = now

    def add(self, offset: int, tx: int, payload: bytes, now: float) -> None:
        """Take one piece; ``offset`` and ``tx`` as they were sent, modulo their spans."""
        self._tx = tx
        ahead = (offset - self._next) % OFFSET_SPAN
        if ahead >= OFFSET_SPAN // 2:
            ahead -= OFFSET_SPAN
        start, end = self._next + ahead, self._next + ahead + len(payload)
        self._unsaid_bytes += len(payload)
        if end <= self._next or start > self._next or self._pieces:
            self._say_at = now  # a repeated piece, or one behind a gap: tell at once
        elif self._unsaid_bytes >= _ACK_AFTER_BYTES:
            self._say_at = now
        elif self._say_at is None:
            self._say_at = now + _ACK_AFTER_S
        if end <= self._next or end > self._next + self._room():
            return
        if start > self._next:
            self._keep(start, payload)
            return
        self._inbox += payload[self._next - start :]
        self._next = end
        self._join()

    def _keep(self, start: int, payload: bytes) -> None:
        at = bisect.bisect_left(self._pieces, (start,))
        known = self._pieces[at] if at < len(self._pieces) else None
        if known is not None and known[0] == start and len(known[1]) >= len(payload):
            return
        if len(self._pieces) >= _MAX_PIECES or self._pieces_bytes >= 2 * _INBOX_BYTES:
            return
        self._pieces.insert(at, (start, payload))
        self._pieces_bytes += len(payload)

    def _join(self) -> None:
        count = 0
        for start, payload in self._pieces:
            if start > self._next:
                break
            count += 1
            self._pieces_bytes -= len(payload)
            if start + len(payload) > self._next:
                self._inbox += payload[self._next - start :]
                self._next = start + len(payload)
        del self._pieces[:count]

    def _room(self) -> int:
        return max(0, _INBOX_BYTES - len(self._inbox))

    def ack_at(self, now: float) -> Optional[float]:
        """When an acknowledgement is due, or None."""
        if self._say_at is None and self._next + self._room() >= self._said_limit + (
            _INBOX_BYTES // 4
        ):
            return now  # room was made: the other end may be waiting for it
        return self._say_at

    def ack(self) -> bytes:
        """Give the body of an acknowledgement."""
        self._say_at, self._unsaid_bytes = None, 0
        room = min(0xFFFF, self._room() // _ROOM_UNIT_BYTES)
        self._said_limit = self._next + self._room()
        parts = [_HEAD.pack(ACK, self._next % OFFSET_SPAN, self._tx, room)]
        at = self._next
        for start, end in self._spans():
            if start - at > 0xFFFF or end - start > 0xFFFF:
                break  # an honest sender has not so much under way
            parts.append(_SPAN.pack(start - at, end - start))
            at = end
        return b"".join(parts)

    def _spans(self) -> List[Tuple[int, int]]:
        spans: List[Tuple[int, int]] = []
        for start, payload in self._pieces:
            end = start + len(payload)
            if spans and start <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            elif len(spans) < _MAX_SPANS:
                spans.append((start, end))
            else:
                break
        return spans
