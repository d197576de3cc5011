"""Frames: how a byte stream that may carry noise is cut into messages. No I/O happens here.

A frame on the wire, all integers big endian::

    magic "EDG1" | meta length u32 | body length u32 | CRC-32 of those 12 bytes
    meta (JSON object, UTF-8) | body | CRC-32 of meta and body

A link that checks what it carries, as SSH does, may have *bare* frames too, if both ends say so
in their greeting: their magic is ``EDG2`` and the last CRC-32 is of the meta alone, so a large
body goes from a file to the link without anybody looking at it.

The lengths have a check of their own: without it a magic inside boot noise would make the
reader wait for a megabyte that never comes. On any bad check it skips one byte, looks for the
next magic and counts what it skipped; ``noise_bytes`` is how people discover a bad cable.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from typing import Any, Dict, List, NoReturn, Optional, Tuple, Union

from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_CHUNK_BYTES, MAX_META_BYTES

__all__ = [
    "Frame",
    "FrameError",
    "FrameReader",
    "bare_frame_ends",
    "encode_frame",
    "load_json",
    "meta_bytes",
]

MAGIC = b"EDG1"
BARE_MAGIC = b"EDG2"
_ONE_MAGIC = re.compile(MAGIC)
#: One search for both: what is full of one and has none of the other is looked through once.
_ANY_MAGIC = re.compile(b"|".join((MAGIC, BARE_MAGIC)))
_LENGTHS = struct.Struct(">4sII")
_CRC = struct.Struct(">I")
_HEADER_BYTES = _LENGTHS.size + _CRC.size
_NOISE_KEPT_BYTES = 400
#: A bare body of so many bytes is read to where it stays; one that is longer than a chunk
#: gets its memory only as it comes.
_LARGE_BYTES = 64 << 10


class FrameError(ValueError):
    """A frame cannot be encoded: too large, or not JSON."""


class Frame:
    """One message: a JSON object and bytes, which may be a ``bytearray`` of its own.

    ``raw_meta`` is the object as it came over the wire, for those who check a seal over it.
    """

    __slots__ = ("body", "meta", "raw_meta")

    def __init__(
        self,
        meta: Dict[str, Any],
        body: Union[bytes, bytearray] = b"",
        raw_meta: Optional[bytes] = None,
    ) -> None:
        self.meta = meta
        self.body = body  # type: Any
        self.raw_meta = raw_meta

    def __repr__(self) -> str:
        return "Frame({!r}, {} body bytes)".format(self.meta, len(self.body))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError("{} is not JSON".format(name))


def load_json(data: bytes) -> Any:
    """Parse strict JSON that a peer sent: no NaN or Infinity, no unbounded nesting.

    Raises:
        ValueError: The bytes are not such JSON.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def meta_bytes(meta: Dict[str, Any]) -> bytes:
    """Give the bytes that stand for the meta of a frame on the wire.

    Raises:
        FrameError: It is not JSON.
    """
    try:
        return json.dumps(
            meta, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode("utf-8")
    except (TypeError, ValueError) as exc:
        raise FrameError("cannot encode frame: {}".format(exc)) from exc


def _load_meta(raw: bytes) -> Optional[Dict[str, Any]]:
    try:
        meta = load_json(raw)
    except ValueError:
        return None
    return meta if isinstance(meta, dict) else None


def _checked_meta(frame_meta: Dict[str, Any], body_bytes: int) -> bytes:
    meta = meta_bytes(frame_meta)
    if len(meta) > MAX_META_BYTES or body_bytes > MAX_BODY_BYTES:
        raise FrameError(
            "cannot encode frame: {} meta and {} body bytes (at most {} and {})".format(
                len(meta), body_bytes, MAX_META_BYTES, MAX_BODY_BYTES
            )
        )
    return meta


def encode_frame(frame: Frame) -> bytes:
    """Give the bytes of ``frame``.

    Raises:
        FrameError: The meta is not JSON, or a part is over its limit.
    """
    body = frame.body
    meta = _checked_meta(frame.meta, len(body))
    lengths = _LENGTHS.pack(MAGIC, len(meta), len(body))
    crc = zlib.crc32(body, zlib.crc32(meta))
    return b"".join((lengths, _CRC.pack(zlib.crc32(lengths)), meta, body, _CRC.pack(crc)))


def bare_frame_ends(meta: Dict[str, Any], body_bytes: int) -> Tuple[bytes, bytes]:
    """Give what goes in front of the body of a bare frame, and what goes behind it.

    Raises:
        FrameError: The meta is not JSON, or a part is over its limit.
    """
    packed = _checked_meta(meta, body_bytes)
    lengths = _LENGTHS.pack(BARE_MAGIC, len(packed), body_bytes)
    head = b"".join((lengths, _CRC.pack(zlib.crc32(lengths)), packed))
    return head, _CRC.pack(zlib.crc32(packed))


class FrameReader:
    """Cuts a stream into frames, however it arrives, and resynchronises after noise.

    Memory is bounded by one largest frame: a header that passes its own check announces at most
    ``max_meta`` and ``max_body`` bytes, everything else is dropped at once. With ``takes_bare``
    a bare frame is one too; else it is noise.
    """

    def __init__(
        self,
        *,
        max_meta: int = MAX_META_BYTES,
        max_body: int = MAX_BODY_BYTES,
        takes_bare: bool = False,
    ) -> None:
        self._magic = _ANY_MAGIC if takes_bare else _ONE_MAGIC
        self._buffer = bytearray()
        self._max_meta = max_meta
        self._max_body = max_body
        self._waiting_for = _HEADER_BYTES
        self._head = b""  # header and meta of a bare frame whose body is on its way
        self._body = None  # type: Optional[bytearray]
        self._got = 0
        self.noise_bytes = 0
        self._noise_tail = b""

    @property
    def noise_tail(self) -> str:
        """The last bytes that were no frame, as printable text for error messages."""
        text = self._noise_tail.decode("utf-8", "replace")
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    def feed(self, data: bytes) -> List[Frame]:
        """Take bytes as they came and give every frame they complete."""
        if self._body is not None:
            count = min(len(data), len(self._body) - self._got)
            self._body[self._got : self._got + count] = data[:count]
            self._got += count
            data = data[count:]
        self._buffer += data
        frames = []
        while len(self._buffer) >= self._waiting_for:
            if self._body is None:
                frame = self._next()
            elif self._got == len(self._body):
                frame = self._end_of_bare()
            else:
                break
            if frame is not None:
                frames.append(frame)
        return frames

    def room(self) -> Optional[memoryview]:
        """Where what comes next belongs, if that is the body of a bare frame; see `filled`."""
        if self._body is None or self._got == len(self._body):
            return None
        return memoryview(self._body)[self._got :]

    def filled(self, count: int) -> List[Frame]:
        """Take ``count`` bytes that were put into `room`; as `feed` else."""
        self._got += count
        return self.feed(b"")

    def _begin_bare(self, head_bytes: int, body_bytes: int) -> None:
        """Let the rest of a large body come right to where it stays."""
        body = bytearray(body_bytes)
        part = self._buffer[head_bytes:]
        body[: len(part)] = part
        self._head, self._body, self._got = bytes(self._buffer[:head_bytes]), body, len(part)
        self._buffer.clear()
        self._waiting_for = _CRC.size

    def _end_of_bare(self) -> Optional[Frame]:
        head, body = self._head, self._body
        assert body is not None
        self._head, self._body = b"", None
        meta_raw = head[_HEADER_BYTES:]
        if zlib.crc32(meta_raw) == _CRC.unpack_from(self._buffer)[0]:
            meta = _load_meta(meta_raw)
            if meta is not None:
                del self._buffer[: _CRC.size]
                self._waiting_for = _HEADER_BYTES
                return Frame(meta, body, meta_raw)
        self._buffer[:0] = head + body
        self._skip(1)
        return None

    def _skip(self, count: int) -> None:
        self.noise_bytes += count
        self._noise_tail = (self._noise_tail + bytes(self._buffer[:count]))[-_NOISE_KEPT_BYTES:]
        del self._buffer[:count]
        self._waiting_for = _HEADER_BYTES

    def _find_magic(self) -> int:
        """Where the next frame may begin, or -1."""
        found = self._magic.search(self._buffer)
        return -1 if found is None else found.start()

    def _next(self) -> Optional[Frame]:
        start = self._find_magic()
        if start < 0:
            # the last three bytes may be the beginning of a magic
            self._skip(len(self._buffer) - len(MAGIC) + 1)
            return None
        if start > 0:
            self._skip(start)
            return None
        magic, meta_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer)
        (crc,) = _CRC.unpack_from(self._buffer, _LENGTHS.size)
        if (
            crc != zlib.crc32(self._buffer[: _LENGTHS.size])
            or meta_bytes > self._max_meta
            or body_bytes > self._max_body
        ):
            self._skip(1)
            return None
        end = _HEADER_BYTES + meta_bytes + body_bytes
        if len(self._buffer) < end + _CRC.size:
            self._waiting_for = end + _CRC.size
            if (
                magic == BARE_MAGIC
                and _LARGE_BYTES <= body_bytes <= MAX_CHUNK_BYTES
                and _HEADER_BYTES + meta_bytes <= len(self._buffer) < end
            ):
                self._begin_bare(_HEADER_BYTES + meta_bytes, body_bytes)
            return None
        with memoryview(self._buffer) as view:
            meta_raw = bytes(view[_HEADER_BYTES : _HEADER_BYTES + meta_bytes])
            crc = zlib.crc32(view[_HEADER_BYTES:end] if magic == MAGIC else meta_raw)
            good = crc == _CRC.unpack_from(view, end)[0]
            body = bytes(view[_HEADER_BYTES + meta_bytes : end]) if good else b""
        meta = _load_meta(meta_raw) if good else None
        if meta is None:
            self._skip(1)
            return None
        del self._buffer[: end + _CRC.size]
        self._waiting_for = _HEADER_BYTES
        return Frame(meta, body, meta_raw)
