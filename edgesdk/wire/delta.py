"""A delta: how to make one blob out of blobs that are already there. No file is opened here.

All of it is read in order, once, with memory for a few pieces of at most `PIECE_BYTES`. A
varint is an unsigned integer, seven bits a byte, lowest first; every field of a step is one::

    magic "EDD1" | SHA-256 of the result | varint: its bytes
    varint: number of bases | each: SHA-256 | varint: its bytes
    sections, until the result is complete; nothing follows

    section: three streams, each as varint: bytes | varint: bytes as sent | those, deflated raw
             where that is shorter:  steps, gaps, data
             then the blocks that its steps announce

Every step appends to the result. ``from`` is where it reads in its base, given as the distance
from where the last step with that base ended (zigzag), so it is nearly always 0:

=====  ======  ============================================  ==================================
step   name    fields in "steps"                             appends
=====  ======  ============================================  ==================================
0      copy    base, from, bytes                             those bytes of the base
1      insert  bytes                                         as many from "data"
2      patch   base, from, bytes, runs, then the length of   the base's bytes; after each gap
               each run; "gaps": what lies before each run   (from "gaps") a run of "data" is
                                                             added to them, modulo 256
3      block   bytes, planes, bytes as sent of each plane    the block
4      shift   base, from, bytes, planes, bytes as sent of   the base's bytes and the block
               each plane                                    added up, modulo 256
=====  ======  ============================================  ==================================

A block is cut into ``planes``: byte 0 of every word, byte 1, ... so that what is alike in
floating-point words lies together. A plane that is sent in 0 bytes is all zeros, one sent in
its own size is itself, any other is raw deflate. A copy may have any length, other steps at
most `PIECE_BYTES`. Steps follow one another in the result, so they cannot overlap; what they
read of a base may.
"""

from __future__ import annotations

import zlib
from typing import Any, Callable, List, Tuple

__all__ = [
    "BLOCK",
    "COPY",
    "INSERT",
    "MAX_BASES",
    "MAX_PLANES",
    "PATCH",
    "PIECE_BYTES",
    "SHIFT",
    "DeltaError",
    "DeltaHeader",
    "add_bytes",
    "apply_delta",
    "encode_header",
    "put_varint",
    "read_header",
    "zigzag",
]

MAGIC = b"EDD1"
PIECE_BYTES = 1 << 20
MAX_BASES = 16
MAX_PLANES = 16
_MAX_BYTES = 1 << 40
COPY, INSERT, PATCH, BLOCK, SHIFT = range(5)

#: Gives exactly so many bytes of the delta, or fewer where it ends.
Read = Callable[[int], bytes]
#: Gives so many bytes of a base from an offset: ``(base number, offset, bytes)``.
ReadBase = Callable[[int, int, int], bytes]


class DeltaError(ValueError):
    """A delta is malformed, or asks for what its bases do not have."""


class DeltaHeader:
    """What a delta makes, and out of what: ``bases`` has (SHA-256, bytes) of each."""

    def __init__(self, sha256: str, size: int, bases: List[Tuple[str, int]]) -> None:
        self.sha256 = sha256
        self.size = size
        self.bases = bases


def put_varint(out: bytearray, value: int) -> None:
    """Append an unsigned integer."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def zigzag(value: int) -> int:
    """Give the unsigned integer that stands for a signed one: small ones stay small."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def encode_header(header: DeltaHeader) -> bytes:
    """Give the first bytes of a delta."""
    out = bytearray(MAGIC + bytes.fromhex(header.sha256))
    put_varint(out, header.size)
    put_varint(out, len(header.bases))
    for sha256, size in header.bases:
        out += bytes.fromhex(sha256)
        put_varint(out, size)
    return bytes(out)


def add_bytes(one: bytes, other: bytes) -> bytes:
    """Add two byte strings of one length, byte for byte modulo 256.

    Each is taken as one large number; without their top bits no sum reaches the next byte.
    """
    size = len(one)
    low = int.from_bytes(b"\x7f" * size, "little")
    a, b = int.from_bytes(one, "little"), int.from_bytes(other, "little")
    total = ((a & low) + (b & low)) ^ ((a ^ b) & ~low & ((1 << 8 * size) - 1))
    return total.to_bytes(size, "little")


class _Input:
    """The delta as it is read."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def take(self, count: int, what: str) -> bytes:
        data = self._read(count) if count else b""
        if len(data) != count:
            raise DeltaError("it ends within {}".format(what))
        return data

    def number(self, what: str, most: int) -> int:
        value = shift = 0
        while True:
            byte = self.take(1, what)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 56:
                raise DeltaError("{} is no number".format(what))
        if value > most:
            raise DeltaError("{} is {} (at most {})".format(what, value, most))
        return value

    def packed(self, raw_bytes: int, sent_bytes: int, what: str) -> bytes:
        """Bytes that were deflated where that made them shorter."""
        if sent_bytes > raw_bytes:
            raise DeltaError("{} has {} bytes, sent as {}".format(what, raw_bytes, sent_bytes))
        data = self.take(sent_bytes, what)
        if sent_bytes == raw_bytes:
            return data
        engine = zlib.decompressobj(-15)
        try:
            raw = engine.decompress(data, raw_bytes + 1)
        except zlib.error as exc:
            raise DeltaError("{} cannot be inflated: {}".format(what, exc)) from exc
        if len(raw) != raw_bytes or not engine.eof or engine.unused_data:
            raise DeltaError("{} does not inflate to {} bytes".format(what, raw_bytes))
        return raw

    def stream(self, what: str) -> bytes:
        raw_bytes = self.number(what, PIECE_BYTES)
        return self.packed(raw_bytes, self.number(what, PIECE_BYTES), what)


class _Numbers:
    """Varints in one stream of a section."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self.at = 0

    def is_over(self) -> bool:
        return self.at == len(self._data)

    def next(self) -> int:
        value = shift = 0
        data = self._data
        while self.at < len(data):
            byte = data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 56:
                raise DeltaError("its {} hold no number at {}".format(self._what, self.at))
        raise DeltaError("its {} end early".format(self._what))


def read_header(read: Read) -> DeltaHeader:
    """Read the first bytes of a delta.

    Raises:
        DeltaError: It is not one.
    """
    source = _Input(read)
    if source.take(4, "its mark") != MAGIC:
        raise DeltaError("it is no delta of a kind that is known here")
    sha256 = source.take(32, "its header").hex()
    size = source.number("the size of its result", _MAX_BYTES)
    bases = []
    for _ in range(source.number("its number of bases", MAX_BASES)):
        base = source.take(32, "its header").hex()
        bases.append((base, source.number("the size of a base", _MAX_BYTES)))
    return DeltaHeader(sha256, size, bases)


class _Section:
    """One section being applied."""

    def __init__(self, whole: _Apply, source: _Input) -> None:
        self._whole = whole
        self._source = source
        self.steps = _Numbers(source.stream("its steps"), "steps")
        self._gaps = _Numbers(source.stream("its gaps"), "gaps")
        self._data = source.stream("its data")
        self._at = 0

    def run(self) -> None:
        if self.steps.is_over():
            raise DeltaError("it has a section without steps")
        actions = (self._copy, self._insert, self._patch, self._block, self._shift)
        while not self.steps.is_over():
            kind = self.steps.next()
            if kind >= len(actions):
                raise DeltaError("it has a step of kind {}".format(kind))
            actions[kind]()
        if not self._gaps.is_over() or self._at != len(self._data):
            raise DeltaError("it has gaps or data that no step uses")

    def _length(self, most: int = PIECE_BYTES) -> int:
        length = self.steps.next()
        if not 0 < length <= most:
            raise DeltaError("a step is {} bytes long (1 to {})".format(length, most))
        self._whole.reserve(length)
        return length

    def _place(self, most: int = PIECE_BYTES) -> Tuple[int, int, int]:
        base, distance = self.steps.next(), self.steps.next()
        length = self._length(most)
        signed = distance >> 1 if not distance & 1 else -((distance + 1) >> 1)
        return base, self._whole.seek(base, signed, length), length

    def _taken(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise DeltaError("its data end early")
        self._at += count
        return self._data[self._at - count : self._at]

    def _copy(self) -> None:
        base, start, length = self._place(_MAX_BYTES)
        for offset in range(start, start + length, PIECE_BYTES):
            piece_bytes = min(PIECE_BYTES, start + length - offset)
            self._whole.write(self._whole.read_base(base, offset, piece_bytes))

    def _insert(self) -> None:
        self._whole.write(self._taken(self._length()))

    def _patch(self) -> None:
        base, start, length = self._place()
        piece = bytearray(self._whole.read_base(base, start, length))
        at = 0
        for _ in range(self.steps.next()):
            at += self._gaps.next()
            count = self.steps.next()
            if count > length - at:
                raise DeltaError("a run of a patch ends past its {} bytes".format(length))
            for value in self._taken(count):
                piece[at] = piece[at] + value & 0xFF
                at += 1
        self._whole.write(bytes(piece))

    def _planes(self, length: int) -> bytes:
        count = self.steps.next()
        if not 0 < count <= MAX_PLANES:
            raise DeltaError("a block has {} planes (1 to {})".format(count, MAX_PLANES))
        sent = [self.steps.next() for _ in range(count)]
        block = bytearray(length)
        for plane, sent_bytes in enumerate(sent):
            raw_bytes = (length - plane + count - 1) // count if plane < length else 0
            if sent_bytes:
                block[plane::count] = self._source.packed(raw_bytes, sent_bytes, "a block")
        return bytes(block)

    def _block(self) -> None:
        length = self._length()
        self._whole.write(self._planes(length))

    def _shift(self) -> None:
        base, start, length = self._place()
        difference = self._planes(length)
        self._whole.write(add_bytes(self._whole.read_base(base, start, length), difference))


class _Apply:
    """What all sections share: the bases, and how much of the result is there."""

    def __init__(
        self, header: DeltaHeader, read_base: ReadBase, write: Callable[[bytes], Any]
    ) -> None:
        self._header = header
        self._read_base = read_base
        self._write = write
        self._ends = [0] * len(header.bases)
        self._reserved = 0

    def is_done(self) -> bool:
        return self._reserved == self._header.size

    def reserve(self, length: int) -> None:
        """Refuse a step before it makes a byte more than the result has."""
        self._reserved += length
        if self._reserved > self._header.size:
            raise DeltaError(
                "it makes more than the {} bytes of its result".format(self._header.size)
            )

    def seek(self, base: int, distance: int, length: int) -> int:
        if base >= len(self._ends):
            raise DeltaError("a step reads base {} of {}".format(base, len(self._ends)))
        start = self._ends[base] + distance
        size = self._header.bases[base][1]
        if start < 0:
            raise DeltaError("a step reads at {} of a base".format(start))
        if start + length > size:
            raise DeltaError(
                "a step reads to {}, past the end of a base of {} bytes".format(
                    start + length, size
                )
            )
        self._ends[base] = start + length
        return start

    def read_base(self, base: int, offset: int, count: int) -> bytes:
        data = self._read_base(base, offset, count)
        if len(data) != count:
            raise DeltaError("a base ends at {}".format(offset + len(data)))
        return data

    def write(self, data: bytes) -> None:
        self._write(data)


def apply_delta(
    header: DeltaHeader, read: Read, read_base: ReadBase, write: Callable[[bytes], Any]
) -> None:
    """Make the result, in pieces of at most `PIECE_BYTES`; its hash is for the caller to check.

    Args:
        header: What `read_header` gave.
        read: Goes on reading the delta behind its header.
        read_base: Reads in a base; offsets and lengths are within the sizes of the header.
        write: Takes the result in order.

    Raises:
        DeltaError: It is malformed; what was written so far is worth nothing.
    """
    source = _Input(read)
    whole = _Apply(header, read_base, write)
    while not whole.is_done():
        _Section(whole, source).run()
    if read(1):
        raise DeltaError("something follows its last section")
