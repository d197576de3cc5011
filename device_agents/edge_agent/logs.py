"""The agent's own log: two files of bounded size in the state folder."""

from __future__ import annotations

import os
import threading
from typing import List

from edge_agent.fs import Folder, NotOurs, calls
from edge_agent.slots import utc_now

__all__ = ["Log"]

_FILE = "agent.log"
_OLD = "agent.log.1"
_MAX_BYTES = 256 << 10
_MAX_LINE = 500
_MAX_LINES = 1000


class Log:
    """Writes lines; never raises, because a full disk must not stop the agent."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Add one line: the time, the process, and ``text`` without control characters."""
        clean = "".join(c if c.isprintable() else " " for c in text)[:_MAX_LINE]
        line = "{} [{}] {}\n".format(utc_now(), os.getpid(), clean)
        with self._lock:
            try:
                fd = self._folder.open_append(_FILE)
                try:
                    calls.write(fd, line.encode("utf-8", "replace"))
                    size = os.fstat(fd).st_size
                finally:
                    os.close(fd)
                if size > _MAX_BYTES:
                    # two names, no sync: losing log lines in a power cut costs nothing
                    calls.rename(_FILE, self._folder.fd, _OLD, self._folder.fd)
            except (OSError, NotOurs):
                pass

    def close(self) -> None:
        """Write nothing any more."""
        with self._lock:
            self._folder.close()

    def tail(self, lines: int) -> List[str]:
        """The last lines, oldest first; at most 1000."""
        kept = []  # type: List[str]
        for name in (_OLD, _FILE):
            try:
                data = self._folder.read(name, limit=2 * _MAX_BYTES)
            except (OSError, NotOurs):
                continue
            kept += data.decode("utf-8", "replace").splitlines()
        count = max(0, min(lines, _MAX_LINES))
        return kept[-count:] if count else []
