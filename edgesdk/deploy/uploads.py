"""Blobs on their way: which bytes of each were sent, which came, which have to go again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgesdk.errors import BundleError

__all__ = ["MissingBlob", "Upload"]

_HASH_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingBlob:
    """A blob that the device lacks, and how many of its bytes it has from an earlier push."""

    sha256: str
    bytes: int
    have: int


class Upload:
    """One blob on its way.

    Attributes:
        have: So many bytes from its start the device has.
        next: The first byte that was not sent since it last went back.
        epoch: Rises each time it goes back, to know older refusals.
        flying: How many of its chunks are under way.
        stalls: How often it went back since ``have`` last grew.
        in_doubt: The device has less than it said: its next chunk is to find out how much.
    """

    def __init__(self, blob: MissingBlob, path: Path) -> None:
        self.blob = blob
        self.path = path
        self.have = blob.have
        self.next = blob.have
        self.epoch = 0
        self.flying = 0
        self.done = False
        self.restarted = False
        self.stalls = 0
        self.in_doubt = False
        self.touched = False
        self._ended = False  # whether the last chunk of this epoch is out
        self._again: list[tuple[int, int]] = []  # what a lane that broke had under way
        self._file: BinaryIO | None = None

    @property
    def ahead_bytes(self) -> int:
        """How far what was sent is ahead of what the device is known to have."""
        return 0 if self.done else max(0, self.next - self.have)

    def has_chunk(self) -> bool:
        """Say whether there is something to send."""
        return not self.done and (bool(self._again) or not self._ended)

    def has_old_chunk(self) -> bool:
        """Say whether there is something to send that was under way before."""
        return not self.done and bool(self._again)

    def take(self, limit: int) -> tuple[int, int]:
        """Give the next chunk, of at most ``limit`` bytes: its offset and its size.

        Raises:
            BundleError: The file cannot be opened.
        """
        self.touched = True
        try:
            self._open()  # here, where one thread works on it
        except OSError as exc:
            raise self.unreadable(exc) from exc
        if self._again:
            offset, end = self._again.pop()
            if end - offset > limit:
                self._again.append((offset + limit, end))
            return offset, min(limit, end - offset)
        offset = self.next
        size = min(limit, self.blob.bytes - offset)
        self.next += size
        self._ended = self.next >= self.blob.bytes
        return offset, size

    def read(self, offset: int, size: int) -> bytes:
        """Give a chunk's bytes.

        Raises:
            BundleError: The file cannot be read, or is too short.
        """
        try:
            chunk = os.pread(self._open(), size, offset)
        except OSError as exc:
            raise self.unreadable(exc) from exc
        if len(chunk) < size:
            raise self._too_short(offset + len(chunk))
        return chunk

    def descriptor(self, offset: int, size: int) -> int:
        """Give the open file, which has the whole chunk; it stays open until `close`.

        Raises:
            BundleError: The file cannot be opened, or is too short.
        """
        try:
            descriptor = self._open()
            there = os.fstat(descriptor).st_size
        except OSError as exc:
            raise self.unreadable(exc) from exc
        if there < offset + size:
            raise self._too_short(there)
        return descriptor

    def _open(self) -> int:
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        return self._file.fileno()

    def unreadable(self, exc: OSError) -> BundleError:
        """Give the error for a file that cannot be read."""
        return BundleError(
            f"cannot read blob {self.blob.sha256}: {exc.strerror}", path=str(self.path)
        )

    def _too_short(self, there: int) -> BundleError:
        return BundleError(
            f"cannot send blob {self.blob.sha256}: its file has {there} bytes "
            f"(expected {self.blob.bytes})",
            hint="build the bundle again, or fetch a good copy of it",
            path=str(self.path),
        )

    def go_back(self, have: int) -> None:
        """Send everything from byte ``have`` on again."""
        self.have = self.next = have
        self.epoch += 1
        self._ended = False
        self._again.clear()

    def send_again(self, start: int, end: int) -> None:
        """Send a range again, with nothing behind it."""
        self._again.append((start, end))

    def close(self) -> None:
        """Close the file; it is opened again when it is read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def intact(self) -> bool:
        """Say whether the file hashes to its name."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(_HASH_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest() == self.blob.sha256
