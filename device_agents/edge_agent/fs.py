"""Files of the state folder: every operation that changes the disk goes through here.

A `Folder` holds a descriptor, opened without following links, and all work is relative to it: a
parent that is swapped for a link afterwards changes nothing. Names are single path components.
What must survive a power cut is written in one order: data, fsync of the file, rename, fsync of
the folder. `calls` is the single place where system calls are made, so that a test can record
them, lose what was not synced, or make any one of them fail.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any, List, Optional, Tuple

__all__ = ["Calls", "Folder", "NotOurs", "calls", "read_descriptor"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotOurs(Exception):
    """Something in the state folder is not what the agent puts there."""


class Calls:
    """The system calls that change the disk, one method each."""

    def open(self, name: str, flags: int, dir_fd: int) -> int:
        """Open for writing; created files are for the owner alone."""
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)

    def write(self, fd: int, data: Any) -> int:
        """Write some of ``data`` and say how much."""
        return os.write(fd, data)

    def truncate(self, fd: int, length: int) -> None:
        """Cut an open file."""
        os.ftruncate(fd, length)

    def fsync(self, fd: int) -> None:
        """Make a file or a folder durable."""
        os.fsync(fd)

    def chmod(self, fd: int, mode: int) -> None:
        """Set the mode of an open file."""
        os.fchmod(fd, mode)

    def mkdir(self, name: str, dir_fd: int) -> None:
        """Make a folder for the owner alone."""
        os.mkdir(name, 0o700, dir_fd=dir_fd)

    def rename(self, name: str, dir_fd: int, new_name: str, new_dir_fd: int) -> None:
        """Put one name in the place of another, at once."""
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)

    def link(self, name: str, dir_fd: int, new_name: str, new_dir_fd: int) -> None:
        """Give a file a second name."""
        os.link(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd, follow_symlinks=False)

    def symlink(self, target: str, name: str, dir_fd: int) -> None:
        """Make a link by name."""
        os.symlink(target, name, dir_fd=dir_fd)

    def unlink(self, name: str, dir_fd: int) -> None:
        """Remove a name."""
        os.unlink(name, dir_fd=dir_fd)

    def rmdir(self, name: str, dir_fd: int) -> None:
        """Remove an empty folder."""
        os.rmdir(name, dir_fd=dir_fd)


#: Replaced by tests that record or break things; nothing else changes it.
calls = Calls()


def read_descriptor(fd: int, limit: int) -> bytes:
    """Read an open file to its end.

    Raises:
        NotOurs: It has more than ``limit`` bytes.
    """
    pieces = []  # type: List[bytes]
    total = 0
    while True:
        piece = os.read(fd, 1 << 20)
        if not piece:
            return b"".join(pieces)
        total += len(piece)
        if total > limit:
            raise NotOurs("a file has more than {} bytes".format(limit))
        pieces.append(piece)


def _check_name(name: str) -> str:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise NotOurs("{!r} is not a file name".format(name))
    return name


def _landing_name(name: str) -> str:
    return ".{}.tmp".format(_check_name(name))


class Folder:
    """An open folder of ours. ``path`` is for other processes; we use the descriptor."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    @classmethod
    def open_state(cls, path: str) -> Folder:
        """Open, or make, the state folder; it must be ours and closed to everybody else.

        Raises:
            NotOurs: It belongs to somebody else, is open to others, or is not a folder.
            OSError: It cannot be made or opened.
        """
        path = os.path.abspath(path)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        try:
            fd = os.open(path, _DIRECTORY)
        except NotADirectoryError:
            raise NotOurs("{} is not a folder (links are not followed)".format(path)) from None
        seen = os.fstat(fd)
        if seen.st_uid != os.geteuid():
            os.close(fd)
            raise NotOurs(
                "{} belongs to user {} (expected {})".format(path, seen.st_uid, os.geteuid())
            )
        if stat.S_IMODE(seen.st_mode) & 0o077:
            if os.listdir(fd):
                os.close(fd)
                raise NotOurs(
                    "{} has mode {:o} (expected 700): others may read or write it".format(
                        path, stat.S_IMODE(seen.st_mode)
                    )
                )
            os.fchmod(fd, 0o700)
        return cls(path, fd)

    def sub(self, name: str, *, create: bool = True) -> Folder:
        """Open the folder ``name`` inside this one, made if it is missing.

        Raises:
            NotOurs: The name is taken by a link, a file, or somebody else's folder.
        """
        _check_name(name)
        if create:
            try:
                calls.mkdir(name, self.fd)
                self.sync()
            except FileExistsError:
                pass
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except NotADirectoryError:
            raise NotOurs("{} in {} is not a folder".format(name, self.path)) from None
        if os.fstat(fd).st_uid != os.geteuid():
            os.close(fd)
            raise NotOurs("{} in {} belongs to somebody else".format(name, self.path))
        return Folder(os.path.join(self.path, name), fd)

    def close(self) -> None:
        """Close the descriptor; what still uses the folder fails, whoever has its number."""
        fd, self.fd = self.fd, -1
        os.close(fd)

    def names(self) -> List[str]:
        """Every name in the folder, sorted."""
        return sorted(os.listdir(self.fd))

    def stat(self, name: str) -> Optional[os.stat_result]:
        """Look at a plain file; anything else, or nothing, gives None."""
        try:
            seen = os.stat(_check_name(name), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return seen if stat.S_ISREG(seen.st_mode) else None

    def size(self, name: str) -> Optional[int]:
        """Size in bytes of a plain file, or None."""
        seen = self.stat(name)
        return None if seen is None else seen.st_size

    def identity(self, name: str) -> Optional[Tuple[int, int, int]]:
        """What changes when a file is written again: (inode, size, mtime in ns), or None."""
        seen = self.stat(name)
        return None if seen is None else (seen.st_ino, seen.st_size, seen.st_mtime_ns)

    def has_folder(self, name: str) -> bool:
        """Say whether ``name`` is a folder here (a link to one is not)."""
        try:
            seen = os.stat(_check_name(name), dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return stat.S_ISDIR(seen.st_mode)

    def open_read(self, name: str) -> int:
        """Open a plain file.

        Raises:
            NotOurs: It is a link, a pipe or a device.
        """
        try:
            fd = os.open(_check_name(name), _READ, dir_fd=self.fd)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError):
                raise
            raise NotOurs("{} in {}: {}".format(name, self.path, exc.strerror)) from exc
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotOurs("{} in {} is not a plain file".format(name, self.path))
        return fd

    def read(self, name: str, *, limit: int) -> bytes:
        """Read a plain file of at most ``limit`` bytes."""
        fd = self.open_read(name)
        try:
            return read_descriptor(fd, limit)
        finally:
            os.close(fd)

    def open_append(self, name: str) -> int:
        """Open a plain file for reading and appending, made if it is missing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
        fd = calls.open(_check_name(name), flags, self.fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise NotOurs("{} in {} is not a plain file".format(name, self.path))
        return fd

    def write_whole(self, name: str, data: bytes) -> None:
        """Write a file that is there with all of its bytes, or as it was before; durable."""
        landing = _landing_name(name)
        self.remove(landing)
        fd = calls.open(landing, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.fd)
        try:
            try:
                view = memoryview(data)
                while view:
                    view = view[calls.write(fd, view) :]
                calls.fsync(fd)
            finally:
                os.close(fd)
            calls.rename(landing, self.fd, name, self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(landing)  # on a full disk every byte of it is wanted
            raise
        self.sync()

    def drop_landing(self, name: str) -> None:
        """Remove what a `write_whole` that was killed has left, if the disk lets us."""
        with contextlib.suppress(OSError):
            self.remove(_landing_name(name))

    def target(self, name: str) -> Optional[str]:
        """Where the link ``name`` leads; None if there is none."""
        try:
            return os.readlink(_check_name(name), dir_fd=self.fd)
        except OSError:
            return None

    def point(self, name: str, target: str) -> None:
        """Make ``name`` a link to ``target``, at once for whoever follows it; durable."""
        landing = _landing_name(name)
        self.remove(landing)
        calls.symlink(target, landing, self.fd)
        try:
            calls.rename(landing, self.fd, name, self.fd)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(landing)
            raise
        self.sync()

    def move(self, name: str, other: Folder, new_name: str) -> None:
        """Rename into ``other``; the new name is durable when this returns.

        The old one is not synced: after a power cut it may be there as well.
        """
        calls.rename(_check_name(name), self.fd, _check_name(new_name), other.fd)
        other.sync()

    def link(self, name: str, other: Folder, new_name: str) -> None:
        """Give a file a second name in ``other``; where the disk has no links, copy it.

        Not durable until ``other.sync()``.
        """
        try:
            calls.link(_check_name(name), self.fd, _check_name(new_name), other.fd)
        except FileExistsError:
            raise
        except OSError:
            self._copy(name, other, new_name)

    def _copy(self, name: str, other: Folder, new_name: str) -> None:
        source = self.open_read(name)
        try:
            fd = calls.open(new_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, other.fd)
            try:
                while True:
                    view = memoryview(os.read(source, 1 << 20))
                    if not view:
                        break
                    while view:
                        view = view[calls.write(fd, view) :]
                calls.fsync(fd)
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def remove(self, name: str) -> bool:
        """Remove a name if it is there, and say whether it was."""
        try:
            calls.unlink(_check_name(name), self.fd)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            self.remove_folder(name)
        return True

    def remove_folder(self, name: str) -> None:
        """Remove a folder and what is in it; links are removed, never followed."""
        inner = self.sub(name, create=False)
        try:
            for entry in inner.names():
                if inner.has_folder(entry):
                    inner.remove_folder(entry)
                else:
                    inner.remove(entry)
        finally:
            inner.close()
        calls.rmdir(name, self.fd)

    def sync(self) -> None:
        """Make the names in this folder durable."""
        calls.fsync(self.fd)

    def free_bytes(self) -> int:
        """Bytes an ordinary user may still write on this disk."""
        room = os.fstatvfs(self.fd)
        return room.f_bavail * room.f_frsize
