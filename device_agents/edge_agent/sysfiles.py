"""Small files of /proc and /sys below a root that can be another one, for tests."""

from __future__ import annotations

import glob
import os
from typing import Dict, List, Optional

__all__ = ["SysFiles", "read_int", "read_text"]

_MAX_TEXT_BYTES = 1 << 16


def read_text(path: str) -> Optional[str]:
    """The stripped text of a small system file, or None if it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_MAX_TEXT_BYTES).decode("utf-8", "replace").strip("\0 \n")
    except OSError:
        return None


def read_int(path: str) -> Optional[int]:
    """The number in a small system file, or None."""
    try:
        return int(read_text(path) or "", 0)
    except ValueError:
        return None


class SysFiles:
    """The files of one machine.

    Args:
        root: Stands before every path; empty for the machine this runs on.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root.rstrip("/")

    def text(self, path: str) -> Optional[str]:
        """The text of a file, or None."""
        return read_text(self.root + path)

    def number(self, path: str) -> Optional[int]:
        """The number in a file, or None."""
        return read_int(self.root + path)

    def find(self, *patterns: str) -> List[str]:
        """Paths that match, without the root; 10 comes after 9."""
        found = []  # type: List[str]
        for pattern in patterns:
            found += glob.glob(glob.escape(self.root) + pattern)
        cut = [path[len(self.root) :] for path in found]
        return sorted(cut, key=lambda path: (len(path), path))

    def fields(self, path: str) -> Dict[str, int]:
        """Numbers by name of a file like /proc/meminfo; kB are bytes."""
        found = {}
        for line in (self.text(path) or "").splitlines():
            words = line.replace(":", " ").split()
            if len(words) >= 2 and words[1].isdigit():
                found[words[0]] = int(words[1]) * (1024 if words[2:] == ["kB"] else 1)
        return found

    def driver(self, folder: str) -> str:
        """The name that a hwmon or a similar folder says it has, or an empty text."""
        return self.text(os.path.join(folder, "name")) or ""
