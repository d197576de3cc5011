"""Whether there is room for a second worker beside the one that is there."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Any, Callable, Dict, Optional

from edge_agent.telemetry import mem_available_bytes
from edgesdk.wire.manifest import part_files

__all__ = ["Memory", "give_back"]

_RESERVE_BYTES = 64 << 20
_BARE_WORKER_BYTES = 48 << 20


class Memory:
    """Estimates what a worker of a release takes: what one took before, else by its files.

    Args:
        available: Gives the bytes that can be had without swapping, or None if unknown.
    """

    def __init__(self, available: Callable[[], Optional[int]] = mem_available_bytes) -> None:
        self._available = available
        self._seen = {}  # type: Dict[str, int]

    def note(self, bundle: str, peak_bytes: Any) -> None:
        """Remember the most memory that a worker of ``bundle`` held."""
        if type(peak_bytes) is int:
            self._seen[bundle] = max(peak_bytes, self._seen.get(bundle, 0))

    def need(self, bundle: str, manifest: Dict[str, Any]) -> int:
        """Bytes that a worker of ``bundle`` will hold: weights are read, then arranged anew."""
        files = sum(size for _, _, size in part_files(manifest))
        return self._seen.get(bundle, _BARE_WORKER_BYTES + 2 * files)

    def has_room(self, bundle: str, manifest: Dict[str, Any], *, besides: int = 0) -> bool:
        """Say whether a worker of ``bundle`` fits beside all that runs now, and ``besides``."""
        available = self._available()
        wanted = self.need(bundle, manifest) + besides + _RESERVE_BYTES
        return available is None or available >= wanted


def give_back() -> None:
    """Give the system what the C library keeps: compiling modules leaves it a megabyte."""
    with contextlib.suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
