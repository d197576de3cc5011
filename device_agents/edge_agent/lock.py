"""The lock of a state folder: one agent serves it, and dies with its lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.fs import Folder
    from edge_agent.watchdog import Notifier

__all__ = ["Lock", "wait_for"]

_LOCK = "lock"
#: Locked by whoever waits for the lock: the holder sees that it is wanted.
_WANTED = "lock.wanted"
_WAIT_S = 3.0
#: Under a service manager: a host that is served over SSH right now may take that long.
_WAIT_MANAGED_S = 60.0
_POLL_S = 0.05


class Lock:
    """The lock file; its text names the holder for people, flock is what counts."""

    def __init__(self, root: Folder) -> None:
        # for reading: a file open for writing keeps its disk from being remounted read-only
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._root = root
        self._fd = os.open(_LOCK, flags, 0o600, dir_fd=root.fd)
        try:
            self._wanted = os.open(_WANTED, flags, 0o600, dir_fd=root.fd)
        except OSError:  # a full disk: the agent that is to free it has to start
            self._wanted = -1

    def take(self) -> bool:
        """Take it if it is free and say so; if not, let its holder know that it is wanted."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._wanted >= 0:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._wanted, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        self.give_up()
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(_LOCK, flags, dir_fd=self._root.fd)
            try:
                os.write(fd, "{}\n".format(os.getpid()).encode("ascii"))
            finally:
                os.close(fd)
        return True

    def give_up(self) -> None:
        """Want it no longer."""
        if self._wanted >= 0:
            fcntl.flock(self._wanted, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let the next one have it; the end of the process does the same."""
        os.close(self._fd)
        if self._wanted >= 0:
            os.close(self._wanted)

    def is_wanted(self) -> bool:
        """Say, as its holder, whether another process waits for it."""
        if self._wanted < 0:
            return False
        try:
            fcntl.flock(self._wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._wanted, fcntl.LOCK_UN)
        return False

    def holder(self) -> int:
        """The process that has it, or 0 where that cannot be read."""
        try:
            return int(os.pread(self._fd, 32, 0) or b"0")
        except ValueError:
            return 0


def wait_for(lock: Lock, root: Folder, notifier: Notifier) -> None:
    """Take the lock, or wait for it as long as the manager lets a start take.

    Raises:
        ValueError: Another process keeps it.
    """
    began = time.monotonic()
    told = False
    while not lock.take():
        waited_s = time.monotonic() - began
        if waited_s > (_WAIT_MANAGED_S if notifier.is_there else _WAIT_S):
            lock.give_up()
            raise ValueError("process {} serves {} already".format(lock.holder(), root.path))
        if not told and waited_s > 1.0:
            told = notifier.tell(
                STATUS="waiting for process {}, which serves {}".format(
                    lock.holder(), root.path
                ),
                EXTEND_TIMEOUT_USEC=int(2e6 * _WAIT_MANAGED_S),
            )
        time.sleep(_POLL_S)
