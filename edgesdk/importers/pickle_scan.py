"""What a pickle would import when it is loaded, read off its opcodes without running one.

A pickle is a program: loading it imports whatever it names and calls it. This reader follows
the opcodes with their arguments, keeps what strings they push, and so can say which names a
load would look up. It never looks one up itself, reads no more than it is allowed, and calls a
name that it cannot read off "put together while loading" instead of guessing.

The opcodes are those of CPython's ``Lib/pickle.py``, protocols 0 to 5.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["COMPUTED_NAME", "PickleNames", "scan_pickle"]

#: Stands for a name that cannot be read off the opcodes.
COMPUTED_NAME = "(a name put together while loading)"
MAX_BYTES = 256 << 20
MAX_OPCODES = 5_000_000
MAX_NAMES = 1000
_MAX_LINE = 4096
_MAX_STRING = 512
_MAX_MEMO = 1_000_000

#: Bytes of argument of the opcodes that have a fixed number of them.
_FIXED = {
    **dict.fromkeys(b"()012NQRabdelostu]}\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93", 0),
    **dict.fromkeys(b"\x94\x97\x98", 0),
    **dict.fromkeys(b"Kqh\x80\x82", 1),
    **dict.fromkeys(b"M\x83", 2),
    **dict.fromkeys(b"Jrj\x84", 4),
    **dict.fromkeys(b"G\x95", 8),
}
#: Opcodes of protocol 0, whose argument is one line or, to name a thing, two.
_LINES = frozenset(b"ILFSVPpgci")
#: Width of the length in front of the argument.
_COUNTED = {
    **dict.fromkeys(b"UC\x8a\x8c", 1),
    **dict.fromkeys(b"TBX\x8b", 4),
    **dict.fromkeys(b"\x8d\x8e\x96", 8),
}
_STRINGS = frozenset(b"SVUTX\x8c\x8d")
_STOP, _GLOBAL, _INST, _STACK_GLOBAL = ord("."), ord("c"), ord("i"), 0x93
_MEMOIZE, _PROTO = 0x94, 0x80
_PUTS, _GETS = frozenset(b"pqr"), frozenset(b"ghj")
_EXTENSIONS = frozenset(b"\x82\x83\x84")


@dataclass(frozen=True, slots=True, kw_only=True)
class PickleNames:
    """What one or more pickles in a row would import.

    Attributes:
        names: ``module.name``, sorted; `COMPUTED_NAME` stands for those that cannot be told.
        problem: Why the reading stopped before the end; empty if it got there. What stands
            behind that place is unknown, so such a pickle must not be called harmless.
    """

    names: tuple[str, ...]
    problem: str = ""


def scan_pickle(
    source: bytes | BinaryIO,
    *,
    pickles: int = 1,
    max_bytes: int = MAX_BYTES,
    max_opcodes: int = MAX_OPCODES,
) -> PickleNames:
    """Read which names a pickle would import.

    Args:
        source: The bytes, or a file that can seek, at the pickle's first byte.
        pickles: Read up to that many, one after the other, as old files of PyTorch hold them.
        max_bytes: Read no further than this from where it starts.
        max_opcodes: Give up after so many.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    reader = _Reader(stream, max_bytes=max_bytes, max_opcodes=max_opcodes)
    problem = ""
    try:
        for index in range(pickles):
            if index and not reader.starts_another():
                break
            reader.read_one()
    except _Stop as exc:
        problem = str(exc)
    return PickleNames(names=tuple(sorted(reader.names)), problem=problem)


class _Stop(Exception):
    """The reading cannot go on; the text says why."""


class _Reader:
    def __init__(self, stream: BinaryIO, *, max_bytes: int, max_opcodes: int) -> None:
        self.names: set[str] = set()
        self._stream = stream
        self._start = stream.tell()
        self._end = self._start + max_bytes
        self._opcodes = max_opcodes
        # the strings pushed last, None for any other value; STACK_GLOBAL takes two of them
        self._pushed: list[str | None] = []
        self._memo: dict[int, str | None] = {}

    def starts_another(self) -> bool:
        place = self._stream.tell()
        head = self._stream.read(1)
        self._stream.seek(place)
        return head == bytes([_PROTO])

    def read_one(self) -> None:
        self._pushed, self._memo = [], {}
        while True:
            self._opcodes -= 1
            if self._opcodes < 0:
                raise _Stop("it has too many opcodes")
            code = self._take(1)[0]
            if code == _STOP:
                return
            self._follow(code)

    def _follow(self, code: int) -> None:
        if code in _COUNTED:
            self._counted(code)
        elif code in _LINES:
            self._lines(code)
        elif code in _FIXED:
            self._fixed(code, self._take(_FIXED[code]))
        else:
            raise _Stop(f"byte {self._place()} is no opcode (0x{code:02x})")

    def _counted(self, code: int) -> None:
        size = int.from_bytes(self._take(_COUNTED[code]), "little")
        if code in _STRINGS and size <= _MAX_STRING:
            self._push(self._take(size).decode("utf-8", "replace"))
        else:
            self._skip(size)
            self._push(None)

    def _lines(self, code: int) -> None:
        first = self._line()
        if code in (_GLOBAL, _INST):
            self._add(first, self._line())
            self._push(None)
        elif code in _PUTS:
            self._put(_number(first))
        elif code in _GETS:
            self._push(self._memo.get(_number(first)))
        else:
            text = first.strip("'\"") if code == ord("S") else first
            # with an escape in it, it is another string than the one that stands here
            plain = code in _STRINGS and "\\" not in text
            self._push(text if plain else None)

    def _fixed(self, code: int, argument: bytes) -> None:
        if code == _STACK_GLOBAL:
            module, name = (*(None, None), *self._pushed)[-2:]
            self._add(module, name)
            self._push(None)
        elif code == _MEMOIZE:
            self._put(len(self._memo))
        elif code in _PUTS:
            self._put(int.from_bytes(argument, "little"))
        elif code in _GETS:
            self._push(self._memo.get(int.from_bytes(argument, "little")))
        elif code in _EXTENSIONS:
            self._add("copyreg extension", str(int.from_bytes(argument, "little")))
            self._push(None)
        elif code != _PROTO and code != ord("\x95"):  # a frame pushes nothing either
            self._pushed.clear()  # it moves the stack in a way that is not followed

    def _add(self, module: str | None, name: str | None) -> None:
        if module is None or name is None:
            self.names.add(COMPUTED_NAME)
        else:
            self.names.add(f"{module}.{name}"[:_MAX_STRING])
        if len(self.names) > MAX_NAMES:
            raise _Stop("it names too many things")

    def _push(self, value: str | None) -> None:
        self._pushed.append(value)
        del self._pushed[:-2]

    def _put(self, index: int) -> None:
        if len(self._memo) >= _MAX_MEMO:
            raise _Stop("it remembers too many values")
        self._memo[index] = self._pushed[-1] if self._pushed else None

    def _place(self) -> int:
        return self._stream.tell() - self._start - 1

    def _take(self, count: int) -> bytes:
        if self._stream.tell() + count > self._end:
            raise _Stop("it is too long")
        data = self._stream.read(count)
        if len(data) < count:
            raise _Stop("it ends in the middle")
        return data

    def _skip(self, count: int) -> None:
        place = self._stream.tell() + count
        if place > self._end:
            raise _Stop("it is too long")
        # the last byte is read, for seeking past the end of a file is no error
        if count:
            self._stream.seek(place - 1)
            self._take(1)

    def _line(self) -> str:
        data = self._stream.readline(_MAX_LINE)
        if not data.endswith(b"\n"):
            raise _Stop("it ends in the middle" if len(data) < _MAX_LINE else "it is too long")
        return data[:-1].decode("utf-8", "replace")


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return -1
