"""What a pickle would import, read from its opcodes without running one of them.

A pickle is a program: each global that it names is imported, and most are called. Whoever is
asked to trust one should know what it would call. The names found here are for people: a file
made to deceive can hide some, so nothing is ever loaded because of what is *not* found.

joblib's files are pickles with the bytes of arrays between their frames, and may be compressed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path

__all__ = ["globals_in_file", "named_globals", "unpacked"]

_MOST_BYTES = 1 << 26
_MOST_OPCODES = 1 << 20
_MOST_GLOBALS = 512
_MOST_TRIES = 1 << 12
_MOST_WORD = 512

#: Opcodes by what follows: so many bytes, so many lines, or a length of so many bytes first.
_BYTES: dict[int, int] = {
    **dict.fromkeys(b"(.012NQR)]}abdelostu", 0),
    **dict.fromkeys(range(0x85, 0x8A), 0),
    **dict.fromkeys((0x81, 0x8F, 0x90, 0x91, 0x92, 0x97, 0x98), 0),
    **dict.fromkeys(b"Kh\x80\x82", 1),
    **dict.fromkeys(b"M\x83", 2),
    **dict.fromkeys(b"Jj\x84", 4),
    ord("G"): 8,
}
_LINES = {**dict.fromkeys(b"FILPSgV", 1), ord("i"): 2}
_LENGTHS = {
    **dict.fromkeys(b"UC\x8a", 1),
    **dict.fromkeys(b"TB\x8b", 4),
    **dict.fromkeys((0x8E, 0x96), 8),
}
_WORDS = {0x8C: 1, ord("X"): 4, 0x8D: 8}
_GLOBAL, _STACK_GLOBAL, _STOP, _FRAME, _MEMOIZE = ord("c"), 0x93, ord("."), 0x95, 0x94
_PROTO = b"\x80"
_PUTS = {ord("q"): 1, ord("r"): 4}
_GETS = {ord("h"): 1, ord("j"): 4}
#: Behind the last object of this class in a frame come the bytes of an array.
_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_PLAIN = re.compile(rb"c([A-Za-z_][\w.]{0,200})\n([A-Za-z_][\w.]{0,200})\n")


class _Lost(Exception):
    """What is read here is no opcode."""


def globals_in_file(path: Path) -> tuple[str, ...]:
    """Name what a pickle or joblib file would import, as ``module.name``, in its order.

    At most 64 MiB are looked at, compressed and not.
    """
    with path.open("rb") as file:
        return named_globals(unpacked(file.read(_MOST_BYTES)))


def unpacked(data: bytes) -> bytes:
    """Undo joblib's compression, up to a bound; other bytes stay as they are.

    What is damaged behind its first bytes gives what is before that.
    """
    import bz2
    import lzma

    unpackers: dict[bytes, Callable[[bytes], bytes]] = {
        b"\x1f\x8b": lambda raw: zlib.decompressobj(47).decompress(raw, _MOST_BYTES),
        b"BZh": lambda raw: bz2.BZ2Decompressor().decompress(raw, _MOST_BYTES),
        b"\xfd7zXZ": lambda raw: _lzma(lzma.FORMAT_XZ, raw),
        b"\x5d\x00\x00": lambda raw: _lzma(lzma.FORMAT_ALONE, raw),
        b"\x78": lambda raw: zlib.decompressobj(47).decompress(raw, _MOST_BYTES),
    }
    for magic, unpack in unpackers.items():
        if data.startswith(magic):
            try:
                return unpack(data)
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                return b""
    return data


def _lzma(kind: int, raw: bytes) -> bytes:
    import lzma

    return lzma.LZMADecompressor(kind, memlimit=1 << 28).decompress(raw, _MOST_BYTES)


def named_globals(data: bytes, *, pickles: int = 1) -> tuple[str, ...]:
    """Name what a pickle would import, as ``module.name``, each once.

    Args:
        data: The pickle.
        pickles: Read up to so many, one right behind the other, as old PyTorch wrote them.
    """
    scan = _Scan(data, pickles)
    scan.walk()
    if not scan.found:
        for module, name in _PLAIN.findall(data[:_MOST_BYTES]):
            scan.add(module.decode("latin-1"), name.decode("latin-1"))
    return tuple(scan.found)


class _Scan:
    """Walks opcodes, remembering words only: they are what globals are named by."""

    def __init__(self, data: bytes, pickles: int) -> None:
        self.data = data
        self._left = pickles
        self.found: dict[str, None] = {}
        self._at = 0
        self._memo: dict[int, str | None] = {}
        self._last: list[str] = []
        self._top: str | None = None
        self._frame_end = 0
        self._has_arrays = False
        self._opcodes = 0

    def add(self, module: str, name: str) -> None:
        """Note one; too many are left out."""
        if len(self.found) < _MOST_GLOBALS:
            self.found[f"{module}.{name}"] = None
        self._has_arrays |= (module, name) == _WRAPPER

    def walk(self) -> None:
        """Read to the end, past arrays between frames."""
        tries = 0
        while self._at < len(self.data) and self._opcodes < _MOST_OPCODES:
            try:
                if self._one():
                    return
            except _Lost:
                start = self._next_frame(self._at)
                tries += 1
                if start is None or tries > _MOST_TRIES:
                    return
                self._at = start
                continue
            if self._has_arrays and self._at == self._frame_end:
                start = self._next_frame(self._at)
                if start is None:
                    return
                self._at = start

    def _next_frame(self, at: int) -> int | None:
        """Find where the next frame may begin: its length has to fit."""
        for _ in range(_MOST_TRIES):
            at = self.data.find(_FRAME, at)
            if at < 0:
                return None
            length = int.from_bytes(self.data[at + 1 : at + 9], "little")
            if 0 < length <= len(self.data) - at - 9:
                return at
            at += 1
        return None

    def _take(self, count: int) -> bytes:
        if count > len(self.data) - self._at:
            raise _Lost
        self._at += count
        return self.data[self._at - count : self._at]

    def _number(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _line(self) -> str:
        end = self.data.find(b"\n", self._at, self._at + _MOST_WORD)
        if end < 0:
            raise _Lost
        text = self.data[self._at : end].decode("latin-1")
        self._at = end + 1
        return text

    def _one(self) -> bool:
        """Read one opcode; say whether it was the last."""
        self._opcodes += 1
        code = self._number(1)
        if code == _STOP:
            self._left -= 1
            self._memo, self._last, self._top = {}, [], None
            return self._left < 1 or self.data[self._at : self._at + 1] != _PROTO
        if code == _FRAME:
            self._frame_end = self._number(8) + self._at
        elif code == _MEMOIZE:
            self._memo[len(self._memo)] = self._top
        elif code in _PUTS:
            self._memo[self._number(_PUTS[code])] = self._top
        elif code in _GETS:
            self._push(self._memo.get(self._number(_GETS[code])))
        elif code in _WORDS:
            raw = self._take(self._number(_WORDS[code]))
            self._push(raw.decode("utf-8", "replace") if len(raw) <= _MOST_WORD else None)
        elif code == _GLOBAL:
            self.add(self._line(), self._line())
            self._top = None
        elif code == _STACK_GLOBAL:
            if len(self._last) == 2:
                self.add(*self._last)
            self._top = None
        else:
            self._skip(code)
            self._top = None
        return False

    def _push(self, word: str | None) -> None:
        self._top = word
        if word is not None:
            self._last = [*self._last[-1:], word]

    def _skip(self, code: int) -> None:
        if code in _BYTES:
            self._take(_BYTES[code])
        elif code in _LINES:
            lines = [self._line() for _ in range(_LINES[code])]
            if len(lines) == 2:  # INST imports too
                self.add(*lines)
        elif code in _LENGTHS:
            self._take(self._number(_LENGTHS[code]))
        else:
            raise _Lost
