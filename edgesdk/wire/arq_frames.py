"""How bytes become frames on a serial line that others share, and are found again. No I/O.

On the line a frame is ``00 | COBS(body and CRC-32) | 00``: zero bytes stand between frames and
nowhere else, so a reader finds its place after any damage within one frame.

There are two kinds. *Opening* frames build and refuse a session; their body begins with a fixed
mark, which COBS leaves as it is, so they can be told from a console's text byte by byte. Frames
*of a session* are mixed with fixed pseudo-random bytes first (zeros are the worst case of COBS,
and weights may be sparse), and their CRC-32 starts from a key that both ends drew for this
session and direction: an echo, or what is left of an earlier session, never passes.
"""

from __future__ import annotations

import codecs
import hashlib
import struct
import zlib
from typing import Optional, Tuple

__all__ = [
    "DELIMITER",
    "MAX_PAYLOAD_BYTES",
    "OPENING",
    "Cutter",
    "cobs_decode",
    "cobs_encode",
    "open_frame",
    "seal_frame",
]

DELIMITER = b"\0"
#: Bytes of the stream in one frame.
MAX_PAYLOAD_BYTES = 4096
#: How the body of an opening frame begins.
OPENING = b"EDL1\0"
_OPENING_ON_WIRE = b"\x05EDL1"
_MAX_OPENING_BYTES = 96
_MAX_BODY_BYTES = MAX_PAYLOAD_BYTES + 16
_MAX_WIRE_BYTES = _MAX_BODY_BYTES + _MAX_BODY_BYTES // 254 + 8
_CRC = struct.Struct(">I")
_BLOCK = 254
_CODES = [bytes([code]) for code in range(256)]
_PAD = hashlib.shake_256(b"edgesdk line").digest(_MAX_BODY_BYTES)
#: After a zero byte, which no console sends, text is text again once the line was this quiet.
_HUSH_S = 0.25
_TAIL_KEPT_BYTES = 400


def cobs_encode(data: bytes) -> bytes:
    """Encode ``data`` without zero bytes: consistent overhead byte stuffing."""
    out = []
    for piece in data.split(b"\0"):
        start, size = 0, len(piece)
        while size - start >= _BLOCK:
            out.append(b"\xff")
            out.append(piece[start : start + _BLOCK])
            start += _BLOCK
        out.append(_CODES[size - start + 1])
        out.append(piece[start:] if start else piece)
    return b"".join(out)


def cobs_decode(data: bytes) -> Optional[bytes]:
    """Undo `cobs_encode`; None for what it cannot have written."""
    out = []
    at, size, code = 0, len(data), 255
    while at < size:
        code = data[at]
        end = at + code
        if code == 0 or end > size:
            return None
        out.append(data[at + 1 : end])
        if code != 255:
            out.append(b"\0")
        at = end
    if code == 255:
        return None
    out.pop()
    return b"".join(out)


def _mix(data: bytes) -> bytes:
    size = len(data)
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(_PAD[:size], "little")
    return mixed.to_bytes(size, "little")


def seal_frame(body: bytes, key: Optional[int]) -> bytes:
    """Give what stands between two delimiters; no ``key`` makes an opening frame."""
    whole = body + _CRC.pack(zlib.crc32(body, key or 0) & 0xFFFFFFFF)
    return cobs_encode(whole if key is None else _mix(whole))


def open_frame(data: bytes, key: Optional[int]) -> Optional[bytes]:
    """Give the body of what stood between two delimiters, or None for what is no such frame."""
    if len(data) > _MAX_WIRE_BYTES:
        return None
    whole = cobs_decode(data)
    if whole is None or not _CRC.size < len(whole) <= _MAX_BODY_BYTES:
        return None
    if key is not None:
        whole = _mix(whole)
    body = whole[: -_CRC.size]
    if zlib.crc32(body, key or 0) & 0xFFFFFFFF != _CRC.unpack(whole[-_CRC.size :])[0]:
        return None
    return body


class Cutter:
    """Cuts what arrives into frames and text, and counts what is neither.

    Without a session only opening frames are frames, and all else is the text of a console,
    given at once. Two things are not: bytes around a zero byte, and bytes that are no UTF-8;
    both are what another baud rate, or a host that talks to an agent that has restarted since,
    looks like, and a ``login`` must not be fed with it.

    Attributes:
        noise_bytes: Bytes that were neither.
        is_counting: While the ends change their speed, what is spoilt is no noise.
        stray: A frame that opens nothing was seen while there was no session.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._hush_until = 0.0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._tail = b""
        self.noise_bytes = 0
        self.is_counting = True
        self.stray = False

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        self._buffer += data

    @property
    def noise_tail(self) -> str:
        """The last bytes that were no frame, as printable text for error messages."""
        text = self._tail.decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    def count(self, noise: bytes) -> None:
        """Note bytes that turned out to be no frame."""
        if not self.is_counting:
            return
        self.noise_bytes += len(noise)
        self._tail = (self._tail + noise[-_TAIL_KEPT_BYTES:])[-_TAIL_KEPT_BYTES:]

    def next_of_session(self) -> Optional[bytes]:
        """Give what stood between the next two delimiters, or None until more came."""
        buffer = self._buffer
        while True:
            end = buffer.find(0, self._scanned)
            if end < 0:
                self._scanned = len(buffer)
                if len(buffer) > _MAX_WIRE_BYTES:  # no frame is so long
                    self._drop(len(buffer))
                return None
            self._scanned = 0
            found = bytes(buffer[:end])
            del buffer[: end + 1]
            if found:
                return found

    def next_opening(self, now: float) -> Tuple[Optional[bytes], bytes]:
        """Give the next opening frame, or text, or neither until more came."""
        buffer = self._buffer
        self._scanned = 0
        while buffer:
            if buffer[0] != 0:
                end = buffer.find(0)
                text = self._text(len(buffer) if end < 0 else end, now)
                if text:
                    return None, text
                continue
            self._hush_until = now + _HUSH_S
            head = bytes(buffer[1 : 1 + len(_OPENING_ON_WIRE)])
            if head == _OPENING_ON_WIRE:
                end = buffer.find(0, 1)
                if end < 0 and len(buffer) <= _MAX_OPENING_BYTES:
                    return None, b""
                if 0 < end <= _MAX_OPENING_BYTES:
                    found = bytes(buffer[1:end])
                    del buffer[:end]  # its delimiter may be the next one's, too
                    return found, b""
            elif _OPENING_ON_WIRE.startswith(head):
                return None, b""
            self.stray = self.stray or (len(head) > 0 and head[0] != 0)
            del buffer[:1]
        return None, b""

    def clear(self) -> None:
        """Forget what is half here: from now on the line runs at another speed."""
        self._drop(len(self._buffer))

    def _drop(self, count: int) -> None:
        self.count(bytes(self._buffer[:count]))
        del self._buffer[:count]
        self._scanned = 0

    def _text(self, count: int, now: float) -> bytes:
        text = bytes(self._buffer[:count])
        hushed = now < self._hush_until
        if not hushed:
            try:
                self._decoder.decode(text)
            except UnicodeDecodeError:
                hushed = True
        if hushed:
            self._decoder.reset()
            self._hush_until = now + _HUSH_S
            self._drop(count)
            return b""
        del self._buffer[:count]
        return text
