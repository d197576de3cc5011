"""Programs that we start must not outlive us, even when this process is killed."""

from __future__ import annotations

import ctypes
import signal

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent does; call it in the child."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
