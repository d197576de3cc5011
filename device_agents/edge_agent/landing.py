"""Bytes of one blob on their way to the disk: inflated if need be, put in order, and hashed.

The file only ever grows at its end, so after any crash its length says what is here. Chunks
that overtook others on another lane wait in memory, which is capped; a cut loses only them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from typing import Any, Tuple

from edge_agent.fs import Folder, calls
from edge_agent.refusals import Refused
from edgesdk.wire import codes

__all__ = ["Landing", "hash_file", "inflate"]

_PIECE_BYTES = 1 << 20
_MAX_HELD_PIECES = 1024
_WRITE_BACK_BYTES = 8 << 20


def hash_file(folder: Folder, name: str) -> Tuple[str, int]:
    """Give the SHA-256 and the size of a plain file."""
    digest = hashlib.sha256()
    total = 0
    fd = folder.open_read(name)
    try:
        while True:
            piece = os.read(fd, _PIECE_BYTES)
            if not piece:
                return digest.hexdigest(), total
            digest.update(piece)
            total += len(piece)
    finally:
        os.close(fd)


class Landing:
    """A blob that is being written: the open file, its hash so far, its length.

    The file is closed where it cannot be read; else by who made this.
    """

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.digest = hashlib.sha256()
        self.have = 0
        self.held_bytes = 0
        self._held = {}  # type: Dict[int, bytes]
        try:
            self._take_up(limit)
        except BaseException:
            os.close(fd)
            raise
        self._written_back = self.have

    def _take_up(self, limit: int) -> None:
        os.lseek(self.fd, 0, os.SEEK_SET)
        while True:
            piece = os.read(self.fd, _PIECE_BYTES)
            if not piece:
                break
            self.digest.update(piece)
            self.have += len(piece)
        if self.have > limit:
            # longer than declared: nothing of it can be trusted
            calls.truncate(self.fd, 0)
            self.digest = hashlib.sha256()
            self.have = 0

    def add(self, data: Any) -> None:
        """Append bytes."""
        view = memoryview(data)
        while view:
            count = calls.write(self.fd, view)
            self.digest.update(view[:count])
            self.have += count
            view = view[count:]
        if self.have - self._written_back >= _WRITE_BACK_BYTES:
            self._write_back()

    def _write_back(self) -> None:
        """Let the disk begin with what came, so that the sync at the end has little to do.

        Linux answers this advice by writing what is dirty, and does not wait for it.
        """
        if hasattr(os, "posix_fadvise"):
            size = self.have - self._written_back
            with contextlib.suppress(OSError):
                os.posix_fadvise(self.fd, self._written_back, size, os.POSIX_FADV_DONTNEED)
        self._written_back = self.have

    def hold(self, offset: int, data: bytes) -> bool:
        """Keep bytes that come behind a gap; False when there are too many pieces of them."""
        known = self._held.get(offset)
        if known is None and len(self._held) >= _MAX_HELD_PIECES:
            return False
        if known is None or len(known) < len(data):
            self._held[offset] = data
            self.held_bytes += len(data) - len(known or b"")
        return True

    def add_held(self) -> None:
        """Append what was kept and now follows."""
        while self._held:
            offset = min(self._held)
            if offset > self.have:
                return
            data = self._held.pop(offset)
            self.held_bytes -= len(data)
            self.add(memoryview(data)[self.have - offset :])


def inflate(data: bytes, raw_bytes: int) -> bytes:
    """Undo zlib for a chunk that says how long it will be, and is not one byte longer.

    Raises:
        Refused: It is not zlib, or of another length.
    """
    engine = zlib.decompressobj()
    try:
        raw = engine.decompress(data, raw_bytes + 1)
    except zlib.error as exc:
        raise Refused(codes.BAD_REQUEST, "cannot inflate a chunk: {}".format(exc)) from exc
    if len(raw) != raw_bytes or not engine.eof or engine.unused_data:
        raise Refused(
            codes.BAD_REQUEST,
            "cannot inflate a chunk: it does not give the {} bytes it declares".format(
                raw_bytes
            ),
        )
    return raw
