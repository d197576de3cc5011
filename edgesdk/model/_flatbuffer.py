"""Read tables of a flatbuffer, every offset checked against the end of the file.

The format's own readers trust the file, and TFLite's loader is written on top of one. Reading
here is plain arithmetic on a byte string: an offset that leaves it is an error, never a read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = ["FlatbufferError", "Table", "root_table"]

#: Entries of all vectors of tables that one file may make us walk.
_MOST_ENTRIES = 4_000_000


class FlatbufferError(ValueError):
    """An offset, a length or a size in the file cannot be."""


class _Walk:
    """The file's bytes, and how much of it may still be walked."""

    __slots__ = ("data", "left")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = _MOST_ENTRIES

    def number(self, code: str, at: int, what: str) -> int:
        size = struct.calcsize(code)
        if not 0 <= at <= len(self.data) - size:
            raise FlatbufferError(f"{what} lies at byte {at} of {len(self.data)}")
        return int(struct.unpack_from("<" + code, self.data, at)[0])

    def real(self, at: int) -> float:
        if not 0 <= at <= len(self.data) - 4:
            raise FlatbufferError(f"a number lies at byte {at} of {len(self.data)}")
        return float(struct.unpack_from("<f", self.data, at)[0])

    def spend(self, entries: int, what: str) -> None:
        self.left -= entries
        if self.left < 0:
            raise FlatbufferError(f"{what} has too many entries")


class Table:
    """One table. Fields are asked for by their number in the schema; a missing one is None."""

    __slots__ = ("_at", "_fields", "_file", "_size")

    def __init__(self, file: _Walk, at: int) -> None:
        self._file = file
        self._at = at
        vtable = at - file.number("i", at, "a table")
        vtable_bytes = file.number("H", vtable, "a table's layout")
        self._size = file.number("H", vtable + 2, "a table's layout")
        if vtable_bytes < 4 or vtable_bytes % 2 or vtable + vtable_bytes > len(file.data):
            raise FlatbufferError(f"the layout at byte {vtable} has {vtable_bytes} bytes")
        if self._size < 4 or at + self._size > len(file.data):
            raise FlatbufferError(f"the table at byte {at} has {self._size} bytes")
        self._fields = struct.unpack_from(f"<{vtable_bytes // 2 - 2}H", file.data, vtable + 4)

    def number(self, field: int, code: str, default: int = 0) -> int:
        """Give a number stored in the table; ``code`` is its code for `struct`."""
        at = self._place(field, struct.calcsize(code))
        return default if at is None else self._file.number(code, at, "a number")

    def numbers(self, field: int, code: str) -> tuple[int, ...] | None:
        """Give a vector of numbers."""
        start, count = self._vector(field, struct.calcsize(code))
        if start is None:
            return None
        self._file.spend(count, "a vector")
        return struct.unpack_from(f"<{count}{code}", self._file.data, start)

    def real(self, field: int, default: float = 0.0) -> float:
        """Give a 32-bit floating-point number stored in the table."""
        at = self._place(field, 4)
        return default if at is None else self._file.real(at)

    def floats(self, field: int) -> tuple[float, ...] | None:
        """Give a vector of 32-bit floating-point numbers."""
        start, count = self._vector(field, 4)
        if start is None:
            return None
        self._file.spend(count, "a vector")
        return struct.unpack_from(f"<{count}f", self._file.data, start)

    def span(self, field: int) -> tuple[int, int] | None:
        """Give where a vector of bytes begins and how long it is, without reading it."""
        start, count = self._vector(field, 1)
        return None if start is None else (start, count)

    def text(self, field: int) -> str:
        """Give a string; empty if there is none."""
        start, count = self._vector(field, 1)
        if start is None:
            return ""
        self._file.spend(count // 64, "a string")
        return self._file.data[start : start + count].decode("utf-8", "replace")

    def table(self, field: int) -> Table | None:
        """Give a table that this one points to."""
        at = self._place(field, 4)
        if at is None:
            return None
        return Table(self._file, at + self._file.number("I", at, "a table"))

    def tables(self, field: int) -> Iterator[Table]:
        """Give the tables of a vector; none if there is no vector."""
        start, count = self._vector(field, 4)
        if start is None:
            return
        self._file.spend(count, "a vector of tables")
        for at in range(start, start + 4 * count, 4):
            yield Table(self._file, at + self._file.number("I", at, "a table"))

    def spans(self, field: int) -> Iterator[tuple[int, int]]:
        """Give where each string of a vector begins and how long it is."""
        start, count = self._vector(field, 4)
        if start is None:
            return
        self._file.spend(count, "a vector of strings")
        for at in range(start, start + 4 * count, 4):
            place = at + self._file.number("I", at, "a string")
            size = self._file.number("I", place, "a string")
            if place + 4 + size > len(self._file.data):
                raise FlatbufferError(f"the string at byte {place} has {size} bytes")
            yield place + 4, size

    def _place(self, field: int, size: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        if not offset:
            return None
        if offset + size > self._size:
            raise FlatbufferError(f"a field of the table at byte {self._at} lies outside it")
        return self._at + offset

    def _vector(self, field: int, size: int) -> tuple[int | None, int]:
        at = self._place(field, 4)
        if at is None:
            return None, 0
        at += self._file.number("I", at, "a vector")
        count = self._file.number("I", at, "a vector")
        if at + 4 + count * size > len(self._file.data):
            raise FlatbufferError(
                f"the vector at byte {at} has {count} entries, which end at byte "
                f"{at + 4 + count * size} of {len(self._file.data)}"
            )
        return at + 4, count


def root_table(data: bytes, identifier: bytes | None) -> Table:
    """Open the table that a file begins with; without an identifier, of a kind taken on trust.

    Raises:
        FlatbufferError: Too short, of another kind, or the table leaves the file.
    """
    if len(data) < 12:
        raise FlatbufferError(f"it has {len(data)} bytes")
    if identifier is not None and data[4:8] != identifier:
        raise FlatbufferError(f"it is marked {data[4:8]!r}")
    file = _Walk(data)
    return Table(file, file.number("I", 0, "the first table"))
