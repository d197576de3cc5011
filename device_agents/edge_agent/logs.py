"""The agent's own log: two files of bounded size in the state folder.

Nothing here is synced: the last lines may be lost in a power cut, and flash memory is spared.
How much may be written in a time is bounded as well, for its sake.
"""

from __future__ import annotations

import os
import threading
import time
from typing import List

from edge_agent.fs import Folder, NotOurs, calls
from edge_agent.slots import utc_now

__all__ = ["Log"]

_FILE = "agent.log"
_OLD = "agent.log.1"
_MAX_BYTES = 256 << 10
_MAX_LINE = 500
_MAX_LINES = 1000
#: So many lines at once, and then one a second; what is more is only counted.
_BURST_LINES = 1000
_LINES_PER_S = 1.0
#: A clock that moves by more than this against the monotonic one was set.
_CLOCK_JUMP_S = 30.0


class Log:
    """Writes lines; never raises, because a full disk must not stop the agent."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._closed = False
        self._torn = False
        self._allowed = float(_BURST_LINES)
        self._left_out = 0
        self._last = time.monotonic()
        self._clock_ahead_s = time.time() - self._last

    def write(self, text: str) -> None:
        """Add one line: the time, the process, and ``text`` without control characters."""
        with self._lock:
            if self._closed:
                return
            now = time.monotonic()
            since_s, self._last = now - self._last, now
            self._allowed = min(_BURST_LINES, self._allowed + since_s * _LINES_PER_S)
            if self._allowed < 1.0:
                self._left_out += 1
                return
            self._allowed -= 1.0
            lines = []
            ahead_s = time.time() - now
            moved_s, self._clock_ahead_s = ahead_s - self._clock_ahead_s, ahead_s
            if abs(moved_s) > _CLOCK_JUMP_S:
                lines.append("the clock moved by {:+.0f} s (set, or asleep)".format(moved_s))
            if self._left_out:
                lines.append("{} lines were left out here".format(self._left_out))
                self._left_out = 0
            self._append("".join(map(_line, [*lines, text])).encode("utf-8", "replace"))

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        try:
            fd = self._folder.open_append(_FILE)
            try:
                size = os.fstat(fd).st_size
                if size > 2 * _MAX_BYTES:  # it could not be renamed: it must not grow for ever
                    calls.truncate(fd, 0)
                self._torn = True
                self._torn = calls.write(fd, data) != len(data)
            finally:
                os.close(fd)
            if size + len(data) > _MAX_BYTES:
                # two names, no sync: losing log lines in a power cut costs nothing
                calls.rename(_FILE, self._folder.fd, _OLD, self._folder.fd)
                self._torn = False
        except (OSError, NotOurs):
            pass

    def close(self) -> None:
        """Write nothing any more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._folder.close()

    def tail(self, lines: int) -> List[str]:
        """The last lines, oldest first; at most 1000."""
        kept = []  # type: List[str]
        for name in (_OLD, _FILE):
            try:
                data = self._folder.read(name, limit=3 * _MAX_BYTES)
            except (OSError, NotOurs):
                continue
            kept += filter(None, data.decode("utf-8", "replace").splitlines())
        count = max(0, min(lines, _MAX_LINES))
        return kept[-count:] if count else []


def _line(text: str) -> str:
    clean = "".join(c if c.isprintable() else " " for c in text)[:_MAX_LINE]
    return "{} [{}] {}\n".format(utc_now(), os.getpid(), clean)
