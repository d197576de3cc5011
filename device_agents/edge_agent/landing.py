"""Bytes of one blob on their way to the disk: inflated if need be, and hashed."""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Any, Tuple

from edge_agent.fs import Folder, calls
from edge_agent.refusals import Refused
from edgesdk.wire import codes

__all__ = ["Landing", "hash_file", "inflate"]

_PIECE_BYTES = 1 << 20


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
    """A blob that is being written: the open file, its hash so far, its length."""

    def __init__(self, fd: int, limit: int) -> None:
        self.fd = fd
        self.digest = hashlib.sha256()
        self.have = 0
        os.lseek(fd, 0, os.SEEK_SET)
        while True:
            piece = os.read(fd, _PIECE_BYTES)
            if not piece:
                break
            self.digest.update(piece)
            self.have += len(piece)
        if self.have > limit:
            # longer than declared: nothing of it can be trusted
            calls.truncate(fd, 0)
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
