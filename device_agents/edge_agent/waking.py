"""Wakes a thread that waits in `select`."""

from __future__ import annotations

import contextlib
import os

__all__ = ["Waker"]

_READ_BYTES = 1 << 12


class Waker:
    """A pipe to oneself: `wake` from any thread makes it readable until `settle`."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)

    def fileno(self) -> int:
        """Give what `select` waits for."""
        return self._reading

    def wake(self) -> None:
        """End the wait, or the next one; never waits itself."""
        with contextlib.suppress(BlockingIOError):  # it is full of such wishes
            os.write(self._writing, b"x")

    def settle(self) -> None:
        """Forget every `wake` until now."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reading, _READ_BYTES)
