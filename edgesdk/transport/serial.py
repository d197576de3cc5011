"""``serial://``, an agent on the other end of a line. The only module that imports pyserial.

The port is opened raw and for us alone, never with XON/XOFF, whose two bytes occur in every
blob. A line has a console's noise on it and loses bytes; frames find their way back and the
session repeats what was lost.
"""

from __future__ import annotations

import contextlib
import errno
import select
import time
from collections.abc import Iterator

import serial  # noqa: TID251 - this is the one module that may

from edgesdk.errors import ChannelClosed, ChannelError, ChannelTimeout
from edgesdk.transport.base import LinkTraits
from edgesdk.transport.url import DeviceUrl

__all__ = ["DEFAULT_BAUD", "SerialChannel", "line_traits", "open_serial"]

DEFAULT_BAUD = 115_200
_BITS_PER_BYTE = 10  # start, eight, stop
_SLICE_BYTES = 4096
_WINDOW_S = 0.08
_WINDOW_CHUNKS = 8


def line_traits(baud: int) -> LinkTraits:
    """Say how to use a line of ``baud`` bits a second.

    What is under way is bounded to about 80 ms of line, but never under eight chunks: more
    would only queue in the tty's buffers, and a repeated chunk would queue behind it.
    """
    bytes_per_s = baud / _BITS_PER_BYTE
    chunk_bytes = 4096 if baud >= 460_800 else 1024
    window_bytes = max(_WINDOW_CHUNKS * chunk_bytes, int(_WINDOW_S * bytes_per_s))
    return LinkTraits(
        chunk_bytes=chunk_bytes,
        window_bytes=window_bytes,
        lossy=True,
        # a full window, with its framing, may still be on its way out when we begin to wait
        repeat_s=0.5 + 1.5 * window_bytes / bytes_per_s,
        compress=True,
    )


@contextlib.contextmanager
def _our_errors(doing: str, port: str) -> Iterator[None]:
    """Re-raise what pyserial and the system throw as a ChannelError naming the operation."""
    try:
        yield
    except serial.SerialTimeoutException as exc:
        raise ChannelTimeout(f"cannot {doing} {port}: the port takes no data") from exc
    except (serial.SerialException, OSError) as exc:
        raise ChannelClosed(
            f"cannot {doing} {port}: the port is gone: {exc}",
            hint="is the cable still in? what was sent stays there, the next run continues",
            port=port,
        ) from exc


class SerialChannel:
    """A serial port; use `open_serial`."""

    def __init__(self, port: serial.Serial, *, name: str) -> None:
        self.name = name
        self.traits = line_traits(int(port.baudrate))
        self.notes: tuple[str, ...] = ()
        self._port = port

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        deadline = time.monotonic() + timeout_s
        with _our_errors("read from", self.name):
            self._require_open()
            while True:
                left_s = max(0.0, deadline - time.monotonic())
                if not select.select([self._port.fileno()], [], [], left_s)[0]:
                    raise ChannelTimeout(
                        f"cannot read from {self.name}: no data for {timeout_s:.3g} s",
                        timeout_s=timeout_s,
                    )
                # read(n) would wait for all n: ask for what is there
                data = bytes(self._port.read(max(1, self._port.in_waiting)))
                if data:
                    return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        with _our_errors("write to", self.name):
            self._require_open()
            if self._port.write_timeout != timeout_s:
                self._port.write_timeout = timeout_s
            for start in range(0, len(data), _SLICE_BYTES):
                self._port.write(data[start : start + _SLICE_BYTES])

    def _require_open(self) -> None:
        if not self._port.is_open:
            raise ChannelClosed(f"cannot use {self.name}: it was closed on this side")

    def close(self) -> None:
        """Give the port back; the agent on the other end stays."""
        with contextlib.suppress(serial.SerialException, OSError):
            self._port.close()


def _why_not_open(port: str, exc: Exception) -> ChannelError:
    number = getattr(exc, "errno", None)
    text = str(exc).lower()
    if number == errno.ENOENT:
        seen, hint = "there is no such port", "is the cable in? `ls /dev/tty*` shows the ports"
    elif number == errno.EACCES:
        seen = "this user may not open it"
        hint = "add yourself to its group, `sudo usermod -aG dialout $USER`, and log in again"
    elif number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        seen = "another program holds it"
        hint = f"close the terminal program that has it; `fuser {port}` names it"
    elif number in (errno.ENOTTY, errno.EINVAL) or "could not configure" in text:
        seen, hint = "it is no serial port, or does not know that speed", "is the path right?"
    else:
        seen, hint = str(exc), "is the port right?"
    return ChannelError(f"cannot open {port}: {seen}", hint=hint, port=port)


def open_serial(url: DeviceUrl) -> SerialChannel:
    """Open the port; the agent runs on the device's tty already.

    Raises:
        ChannelError: It is not there, busy, not a serial port, or this user may not open it.
    """
    baud = int(url.query.get("baud", DEFAULT_BAUD))
    try:
        port = serial.Serial(
            url.path,
            baudrate=baud,
            timeout=0,
            exclusive=True,
            xonxoff=False,
            rtscts=url.query.get("rtscts") == "1",
        )
    except (serial.SerialException, OSError, ValueError, OverflowError) as exc:
        raise _why_not_open(url.path, exc) from exc
    except Exception as exc:  # termios.error is no OSError; it comes when the path is no tty
        raise _why_not_open(url.path, exc) from exc
    with contextlib.suppress(OSError, ValueError, NotImplementedError, AttributeError):
        port.set_low_latency_mode(True)
    with contextlib.suppress(serial.SerialException, OSError):
        port.reset_input_buffer()
    return SerialChannel(port, name=str(url))
