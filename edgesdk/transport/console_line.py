"""A serial line as a terminal has it: bytes, no frames, no sessions."""

from __future__ import annotations

import os
import select
import time

from edgesdk.errors import ChannelClosed, ChannelTimeout

__all__ = ["ConsoleLine"]

_READ_BYTES = 4096
#: A tty's output buffer: what does not fit waits here, where the deadline is kept.
_SLICE_BYTES = 512


class ConsoleLine:
    """Reads and writes an open port; whoever opened it closes it.

    Args:
        fd: Descriptor of the port, raw.
        name: For messages.
    """

    def __init__(self, fd: int, *, name: str) -> None:
        self.name = name
        self._fd = fd

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        try:
            if not select.select([self._fd], [], [], timeout_s)[0]:
                raise ChannelTimeout(
                    f"cannot read from {self.name}: no data for {timeout_s:.3g} s",
                    timeout_s=timeout_s,
                )
            data = os.read(self._fd, _READ_BYTES)
        except OSError as exc:
            raise self._gone("read from", exc.strerror or str(exc)) from exc
        if not data:
            raise self._gone("read from", "the device is no longer there")
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        deadline = time.monotonic() + timeout_s
        view = memoryview(data)
        while view:
            left_s = max(0.0, deadline - time.monotonic())
            try:
                if not select.select([], [self._fd], [], left_s)[1]:
                    raise ChannelTimeout(
                        f"cannot write to {self.name}: the port takes no data",
                        hint="is flow control on that the other end does not know?",
                        timeout_s=timeout_s,
                    )
                view = view[os.write(self._fd, view[:_SLICE_BYTES]) :]
            except OSError as exc:
                raise self._gone("write to", exc.strerror or str(exc)) from exc

    def _gone(self, doing: str, why: str) -> ChannelClosed:
        return ChannelClosed(
            f"cannot {doing} {self.name}: the port is gone: {why}",
            hint="is the cable still in? what was sent stays there, the next run continues",
            port=self.name,
        )
