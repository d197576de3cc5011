"""``serial://``, an agent on the other end of a line. The only module that imports pyserial.

The port is opened raw and for us alone, never with XON/XOFF, whose two bytes occur in every
blob. A line has a console's noise on it and loses bytes; `edgesdk.wire.arq` makes a stream of
it that loses nothing. A thread moves the bytes, so that the other end is answered, and the line
kept, whatever the session does meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import serial  # noqa: TID251 - this is the one module that may

from edgesdk.errors import ChannelClosed, ChannelError, ChannelTimeout
from edgesdk.transport.base import LinkTraits
from edgesdk.transport.console_line import ConsoleLine
from edgesdk.transport.url import DeviceUrl
from edgesdk.wire.arq import Arq
from edgesdk.wire.arq_rate import RATES

__all__ = ["DEFAULT_BAUD", "SerialChannel", "line_traits", "open_console", "open_serial"]

DEFAULT_BAUD = 115_200
_BITS_PER_BYTE = 10  # start, eight, stop
_READ_BYTES = 1 << 16
_CHUNK_S = 1.5
_SMALLEST_CHUNK_BYTES, _LARGEST_CHUNK_BYTES = 512, 16 << 10
_SILENCE_S = 15.0
#: The driver's buffer has to be empty before the speed changes; looked at so often.
_DRAIN_LOOK_S = 0.005
_DRAIN_S = 1.0
#: On closing: how long what was sent may take to arrive, and the farewell.
_LINGER_S = 0.5
_FAREWELL_S = 0.5
_COUNT = struct.Struct("i")


def line_traits(baud: int) -> LinkTraits:
    """Say how to use a line of ``baud`` bits a second.

    A chunk is at most 1.5 s of line, since an agent keeps whole chunks only; two are under way,
    so that the line has something to do while the agent writes one.
    """
    bytes_per_s = baud / _BITS_PER_BYTE
    chunk_bytes = _LARGEST_CHUNK_BYTES
    while chunk_bytes > _SMALLEST_CHUNK_BYTES and chunk_bytes > _CHUNK_S * bytes_per_s:
        chunk_bytes //= 2
    return LinkTraits(
        chunk_bytes=chunk_bytes,
        window_bytes=2 * chunk_bytes,
        silence_s=_SILENCE_S,
        compress=True,
    )


@contextlib.contextmanager
def _our_errors(doing: str, port: str) -> Iterator[None]:
    """Re-raise what pyserial and the system throw as a ChannelError naming the operation."""
    try:
        yield
    except (serial.SerialException, OSError, termios.error) as exc:
        raise _gone(doing, port, exc) from exc


def _gone(doing: str, port: str, exc: BaseException) -> ChannelClosed:
    return ChannelClosed(
        f"cannot {doing} {port}: the port is gone: {exc}",
        hint="is the cable still in? what was sent stays there, the next run continues",
        port=port,
    )


class SerialChannel:
    """A serial port; use `open_serial`."""

    def __init__(self, port: serial.Serial, *, name: str, max_baud: int | None = None) -> None:
        self.name = name
        base = int(port.baudrate)
        self.traits = line_traits(base)
        self.notes: tuple[str, ...] = ()
        self._port = port
        self._fd = port.fileno()
        limit = max(RATES) if max_baud is None else max_baud
        rates = [r for r in RATES if r <= limit and hasattr(termios, f"B{r}")]
        self._arq = Arq(is_host=True, baud=base, rates=rates, new_token=os.urandom)
        self._baud_now = base
        self._state = threading.Condition()
        self._failed: BaseException | None = None
        self._closed = False
        self._change_by: float | None = None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._fd, False)
        self._arq.connect(time.monotonic())
        self._thread = threading.Thread(target=self._pump_all, name="serial", daemon=True)
        self._thread.start()

    @property
    def noise_bytes(self) -> int:
        """Bytes that came and were no frames: boot messages, or a bad cable."""
        return self._arq.noise_bytes

    @property
    def noise_tail(self) -> str:
        """The last of them, as printable text."""
        return self._arq.noise_tail

    @property
    def baud(self) -> int:
        """The speed of the line now, in bits a second."""
        return self._baud_now

    @property
    def bytes_sent(self) -> int:
        """Bytes of the stream that have arrived at the agent."""
        return self._arq.sender.settled_bytes

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        deadline = time.monotonic() + timeout_s
        with self._state:
            while not self._arq.receiver.ready_bytes:
                self._require_open("read from")
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise ChannelTimeout(
                        f"cannot read from {self.name}: no data for {timeout_s:.3g} s",
                        timeout_s=timeout_s,
                    )
                self._state.wait(left_s)
            data = self._arq.get()
            if self._arq.receiver.ack_at(0.0) is not None:
                self._wake()  # the agent may wait for the room that was just made
            return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        view = memoryview(data)
        deadline = time.monotonic() + timeout_s
        with self._state:
            while view:
                self._require_open("write to")
                count = self._arq.put(bytes(view[: self._arq.sender.room]))
                view = view[count:]
                if count:
                    deadline = time.monotonic() + timeout_s
                    self._wake()
                elif time.monotonic() >= deadline:
                    raise ChannelTimeout(
                        f"cannot write to {self.name}: the other end took no data for "
                        f"{timeout_s:.3g} s",
                        hint="is the device still powered and connected? what was sent stays "
                        "there, the next run continues",
                        timeout_s=timeout_s,
                    )
                if view:
                    self._state.wait(max(0.0, deadline - time.monotonic()))

    def _require_open(self, doing: str) -> None:
        if self._failed is not None:
            raise _gone(doing, self.name, self._failed) from self._failed
        if self._closed:
            raise ChannelClosed(f"cannot use {self.name}: it was closed on this side")
        if self._arq.is_idle:
            raise ChannelClosed(
                f"cannot {doing} {self.name}: {self._arq.why_ended}",
                hint="what was sent stays there, the next run continues",
                port=self.name,
            )

    def close(self) -> None:
        """Give the port back; the agent on the other end stays."""
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._state.notify_all()
        self._wake()
        self._thread.join()
        with contextlib.suppress(serial.SerialException, OSError, termios.error):
            self._port.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    # the thread that owns the port

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _pump_all(self) -> None:
        try:
            self._pump()
            self._use_speed(self._arq.base_baud)
        except (serial.SerialException, OSError, termios.error, ValueError) as exc:
            self._failed = exc
        with self._state:
            self._state.notify_all()

    def _pump(self) -> None:
        pending = b""
        closing_by: float | None = None
        while True:
            now = time.monotonic()
            with self._state:
                if self._closed:
                    closing_by = now + _LINGER_S if closing_by is None else closing_by
                    if self._is_done(now, closing_by):
                        return
                self._arq.tick(now)
                waits = None if pending else self._follow_speed(now)
                if waits is None:
                    pending = pending or self._arq.take(now)
                    wake_at = self._arq.wake_at(now)
                    waits = None if wake_at is None else max(0.0, wake_at - now)
                self._state.notify_all()
            if pending and waits is not None:
                waits = max(waits, _DRAIN_LOOK_S)
            if closing_by is not None:
                waits = _DRAIN_LOOK_S if waits is None else min(waits, _DRAIN_LOOK_S)
            pending = self._move(pending, waits)

    def _move(self, pending: bytes, waits: float | None) -> bytes:
        """Wait, take what came, send of ``pending`` what the port takes; give the rest."""
        readable, writable, _ = select.select(
            [self._fd, self._wake_read], [self._fd] if pending else [], [], waits
        )
        if self._wake_read in readable:
            os.read(self._wake_read, _READ_BYTES)
        if self._fd in readable:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._fd, _READ_BYTES)
                if not data:
                    raise OSError(errno.EIO, "the device is no longer there")
                with self._state:
                    self._arq.feed(data, time.monotonic())
                    self._state.notify_all()
        if writable:
            with contextlib.suppress(BlockingIOError):
                pending = pending[os.write(self._fd, pending) :]
        return pending

    def _is_done(self, now: float, by: float) -> bool:
        arq = self._arq
        if not arq.is_open:
            return arq.is_idle or now >= by + _FAREWELL_S
        if not arq.sender.unsettled_bytes or now >= by:
            arq.hang_up(now)
        return False

    def _follow_speed(self, now: float) -> float | None:
        """Set the port to its speed; gives how long to wait for that, None when it has it."""
        if self._arq.baud == self._baud_now:
            self._change_by = None
            return None
        if self._change_by is None:
            self._change_by = now + _DRAIN_S
        if now < self._change_by and self._undrained():
            return _DRAIN_LOOK_S
        self._use_speed(self._arq.baud)
        return 0.0

    def _undrained(self) -> int:
        raw = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(_COUNT.size))
        return int(_COUNT.unpack(raw)[0])

    def _use_speed(self, baud: int) -> None:
        if baud == self._baud_now:
            return
        self._baud_now = baud
        # an adapter that refuses is not heard by the agent, and both go back by themselves
        with contextlib.suppress(serial.SerialException, ValueError, termios.error):
            self._port.baudrate = baud
        new = line_traits(baud)
        self.traits = replace(
            self.traits, chunk_bytes=new.chunk_bytes, window_bytes=new.window_bytes
        )


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
    max_baud = int(url.query["max_baud"]) if "max_baud" in url.query else None
    return SerialChannel(_open_port(url), name=str(url), max_baud=max_baud)


@contextlib.contextmanager
def open_console(url: DeviceUrl) -> Iterator[ConsoleLine]:
    """Open the port as a terminal does, for a device that has only a login on it.

    Raises:
        ChannelError: See `open_serial`.
    """
    port = _open_port(url)
    try:
        yield ConsoleLine(port.fileno(), name=str(url))
    finally:
        with contextlib.suppress(serial.SerialException, OSError, termios.error):
            port.close()


def _open_port(url: DeviceUrl) -> serial.Serial:
    try:
        port = serial.Serial(
            url.path,
            baudrate=int(url.query.get("baud", DEFAULT_BAUD)),
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
    return port
