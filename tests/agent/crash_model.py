"""What a power cut may leave: a file system that keeps no more than it was made to keep.

`Recorder` stands in for the agent's system calls. It carries each one out, and keeps beside the
real disk a model of what would be on it after a cut: a file's bytes are safe once the file was
synced, a name is safe once its folder was. All else may be there or not. `states` gives what a
cut right now could leave, from everything to nothing; the worst file systems are covered, so a
rename between two folders may come apart, and an un-synced file may have its length without its
bytes. The idea is that of Pillai and others, "All File Systems Are Not Created Equal" (OSDI
2014); which subsets are built is said at `states`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Recorder", "State", "digest", "fsync_site", "write_state"]

#: A tree without a disk: names to trees, to targets of links, or to files by their identity.
State = dict[str, Any]


class File:
    """A file's bytes as a reader sees them now, and as they are safe."""

    def __init__(self, data: bytes = b"", mode: int = 0o600) -> None:
        self.now = data
        self.safe = data
        self.mode = mode

    @property
    def is_dirty(self) -> bool:
        return self.now != self.safe


class Link:
    """A symbolic link; its target is as safe as its name."""

    def __init__(self, target: str) -> None:
        self.target = target


class Directory:
    """Names as they are now, and as they are safe."""

    def __init__(self) -> None:
        self.now: dict[str, File | Link | Directory] = {}
        self.safe: dict[str, File | Link | Directory] = {}


Node = File | Link | Directory


class Change:
    """One name of one folder that is not safe yet; ``node`` is None where it goes away."""

    def __init__(self, folder: Directory, name: str, node: Node | None) -> None:
        self.folder = folder
        self.name = name
        self.node = node


class Group:
    """Changes of one folder that a file system makes together: a rename inside a folder."""

    def __init__(self, *changes: Change) -> None:
        self.changes = changes
        self.folder = changes[0].folder


Data = Callable[[File], bytes]


def _kept(file: File) -> bytes:
    return file.now


def _lost(file: File) -> bytes:
    return file.safe


def _blank(file: File) -> bytes:
    """The length arrived, the bytes did not."""
    return file.safe + b"\0" * (len(file.now) - len(file.safe))


def _half(file: File) -> bytes:
    return file.now[: (len(file.safe) + len(file.now)) // 2]


def fsync_site(frame: FrameType | None) -> str:
    """Name the line of the agent that syncs: in ``fs.py``, or what calls its ``sync``.

    `Folder.sync` is only a name for the call, so its caller is what counts.
    """
    while frame is not None:
        name, code = Path(frame.f_code.co_filename).name, frame.f_code.co_name
        if (name, code) != ("fs.py", "sync") and name != "crash_model.py":
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    raise AssertionError("nobody calls")


class Recorder:
    """System calls with a model of the disk. ``on_change`` is called after each of them.

    Args:
        real: What carries them out.
        root: The state folder; what is in it counts as safe.
        without: A site, as `fsync_site` names it, whose syncs are forgotten.
        links: Whether the disk has hard links.
    """

    def __init__(
        self, real: Any, root: Path, *, without: str | None = None, links: bool = True
    ) -> None:
        self._real = real
        self._without = without
        self._links = links
        self._folders: dict[int, Directory] = {}
        self._files: dict[int, File] = {}
        self._pending: list[Group] = []
        self.sites: set[str] = set()
        self.count = 0
        self.on_change: Callable[[], None] = lambda: None
        self.root = self._read(root)

    def _read(self, path: Path) -> Directory:
        folder = Directory()
        self._folders[path.stat().st_ino] = folder
        for each in path.iterdir():
            node: Node
            if each.is_symlink():
                node = Link(os.readlink(each))
            elif each.is_dir():
                node = self._read(each)
            elif each.is_file():
                seen = each.stat()
                known = self._files.get(seen.st_ino)
                node = known or File(each.read_bytes(), stat.S_IMODE(seen.st_mode))
                self._files[seen.st_ino] = node
            else:
                continue
            folder.now[each.name] = folder.safe[each.name] = node
        return folder

    def _folder(self, fd: int) -> Directory:
        return self._folders[os.fstat(fd).st_ino]

    def _file(self, fd: int) -> File:
        return self._files[os.fstat(fd).st_ino]

    def _change(self, *changes: Change) -> None:
        for change in changes:
            if change.node is None:
                del change.folder.now[change.name]
            else:
                change.folder.now[change.name] = change.node
        groups: dict[int, list[Change]] = {}
        for change in changes:
            groups.setdefault(id(change.folder), []).append(change)
        self._pending += [Group(*each) for each in groups.values()]
        self._done()

    def _done(self) -> None:
        self.count += 1
        self.on_change()

    # -- the calls ---------------------------------------------------------------------------

    def open(self, name: str, flags: int, dir_fd: int) -> int:
        folder = self._folder(dir_fd)
        fd: int = self._real.open(name, flags, dir_fd)
        if name in folder.now:
            node = folder.now[name]
            assert isinstance(node, File)
            self._files[os.fstat(fd).st_ino] = node
        else:
            made = self._files[os.fstat(fd).st_ino] = File()
            self._change(Change(folder, name, made))
        return fd

    def write(self, fd: int, data: Any) -> int:
        file = self._file(fd)
        is_appended = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        at = len(file.now) if is_appended else os.lseek(fd, 0, os.SEEK_CUR)
        count: int = self._real.write(fd, data)
        self._put(file, at, bytes(data[:count]))
        return count

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        count: int = self._real.pwrite(fd, data, offset)
        self._put(self._file(fd), offset, bytes(data[:count]))
        return count

    def _put(self, file: File, at: int, data: bytes) -> None:
        before = file.now.ljust(at, b"\0")
        file.now = before[:at] + data + before[at + len(data) :]
        self._done()

    def truncate(self, fd: int, length: int) -> None:
        self._real.truncate(fd, length)
        file = self._file(fd)
        file.now = file.now[:length].ljust(length, b"\0")
        self._done()

    def fsync(self, fd: int) -> None:
        site = fsync_site(sys._getframe(1))
        self.sites.add(site)
        if site == self._without:
            return
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            file = self._file(fd)
            file.safe = file.now
        else:
            folder = self._folder(fd)
            for group in self._pending:
                if group.folder is folder:
                    _apply(group, lambda each: each.safe)
            self._pending = [each for each in self._pending if each.folder is not folder]
        self._done()

    def chmod(self, fd: int, mode: int) -> None:
        self._real.chmod(fd, mode)
        self._file(fd).mode = mode
        self._done()

    def mkdir(self, name: str, dir_fd: int) -> None:
        self._real.mkdir(name, dir_fd)
        made = Directory()
        self._folders[os.stat(name, dir_fd=dir_fd).st_ino] = made
        self._change(Change(self._folder(dir_fd), name, made))

    def rename(self, name: str, dir_fd: int, new_name: str, new_dir_fd: int) -> None:
        self._real.rename(name, dir_fd, new_name, new_dir_fd)
        source, target = self._folder(dir_fd), self._folder(new_dir_fd)
        node = source.now[name]
        self._change(Change(target, new_name, node), Change(source, name, None))

    def link(self, name: str, dir_fd: int, new_name: str, new_dir_fd: int) -> None:
        if not self._links:
            raise PermissionError("this disk has no links")
        self._real.link(name, dir_fd, new_name, new_dir_fd)
        node = self._folder(dir_fd).now[name]
        self._change(Change(self._folder(new_dir_fd), new_name, node))

    def symlink(self, target: str, name: str, dir_fd: int) -> None:
        self._real.symlink(target, name, dir_fd)
        self._change(Change(self._folder(dir_fd), name, Link(target)))

    def unlink(self, name: str, dir_fd: int) -> None:
        self._real.unlink(name, dir_fd)
        self._change(Change(self._folder(dir_fd), name, None))

    def rmdir(self, name: str, dir_fd: int) -> None:
        self._real.rmdir(name, dir_fd)
        self._change(Change(self._folder(dir_fd), name, None))

    # -- what a cut leaves -------------------------------------------------------------------

    def states(self) -> Iterator[State]:
        """Give what a power cut right now may leave, some of it more than once.

        Of names: the first N changes in order for every N, all but one, and one alone. Of
        bytes, with each: all kept, and all that was not synced lost; with all names also blanks
        in its place, a half of it, and the loss of one file alone.
        """
        every = self._pending
        choices = [every[:count] for count in range(len(every) + 1)]
        choices += [[each for each in every if each is not out] for out in every]
        choices += [[each] for each in every]
        for kept in choices:
            yield self._tree(kept, _kept)
            yield self._tree(kept, _lost)
        for data in (_blank, _half):
            yield self._tree(every, data)
        for file in {id(each): each for each in self._files.values() if each.is_dirty}.values():
            yield self._tree(
                every, lambda each, lost=file: _lost(each) if each is lost else each.now
            )

    def _tree(self, kept: list[Group], data: Data) -> State:
        names: dict[int, dict[str, Node]] = {}

        def of(folder: Directory) -> dict[str, Node]:
            return names.setdefault(id(folder), dict(folder.safe))

        for group in kept:
            _apply(group, of)

        def build(folder: Directory) -> State:
            return {name: leaf(node) for name, node in sorted(of(folder).items())}

        def leaf(node: Node) -> Any:
            if isinstance(node, Directory):
                return build(node)
            if isinstance(node, Link):
                return node.target
            return (id(node), node.mode, data(node))

        return build(self.root)


def _apply(group: Group, names: Callable[[Directory], dict[str, Node]]) -> None:
    for change in group.changes:
        if change.node is None:
            names(change.folder).pop(change.name, None)
        else:
            names(change.folder)[change.name] = change.node


def digest(state: State) -> str:
    """Name a state, so that one that was seen is not looked at again."""
    return hashlib.sha256(repr(state).encode("utf-8")).hexdigest()


def write_state(state: State, folder: Path) -> None:
    """Make the files of a state; what was one file under two names is one again."""
    made: dict[int, Path] = {}

    def write(tree: State, path: Path) -> None:
        path.mkdir(mode=0o700)
        for name, node in tree.items():
            if isinstance(node, dict):
                write(node, path / name)
                continue
            if isinstance(node, str):
                (path / name).symlink_to(node)
                continue
            identity, mode, data = node
            if identity in made:
                os.link(made[identity], path / name)
                continue
            made[identity] = path / name
            (path / name).write_bytes(data)
            (path / name).chmod(mode)

    write(state, folder)
