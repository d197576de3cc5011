"""A serial line that the agent owns: raw, exclusive, reopened when it goes away.

One thread, `Tty.serve`, reads and writes the port and runs the line's protocol
(`edgesdk.wire.arq`); each session of a host is a conversation in a thread of its own. While no
host is there, what arrives is given to ``on_text``, and `Tty.say` prints, with or without one.
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
import tty
from typing import TYPE_CHECKING, Callable, Optional

from edge_agent.serve import Conversation
from edge_agent.waking import Waker
from edgesdk.wire.arq import Arq
from edgesdk.wire.arq_rate import RATES

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edgesdk.wire.arq_receive import Receiver
    from edgesdk.wire.arq_send import Sender

__all__ = ["LineBusy", "Tty"]

_READ_BYTES = 1 << 16
#: Device numbers of pseudo-terminals (Linux, Documentation/admin-guide/devices.txt).
_PSEUDO_MAJORS = range(136, 144)
#: What is said and not yet sent: little, so that Ctrl-C ends a flood at once.
_SAY_BYTES = 1024
_SAY_AT_ONCE_BYTES = 256
_REOPEN_S = 0.2
#: When the daemon ends: how long the last answers may take, and the farewell.
_LINGER_S = 1.0
_FAREWELL_S = 0.3
#: The driver's buffer has to be empty before the speed changes; looked at so often.
_DRAIN_LOOK_S = 0.005
_DRAIN_S = 1.0
#: Conversations whose host is gone, but whose last request cannot be ended.
_MAX_TALKS = 8
_COUNT = struct.Struct("i")


class LineBusy(Exception):
    """Another program holds the serial line."""


def _speed_constant(baud: int) -> Optional[int]:
    return getattr(termios, "B{}".format(baud), None)


class _Stream:
    """The bytes of one session, as a conversation reads and writes them."""

    def __init__(
        self,
        state: threading.Condition,
        wake: Callable[[], None],
        sender: Sender,
        receiver: Receiver,
    ) -> None:
        self._state = state
        self._wake = wake
        self._sender = sender
        self._receiver = receiver
        self.is_over = False

    def read(self) -> bytes:
        """Give what has come; nothing means that the session is over."""
        with self._state:
            while not self._receiver.ready_bytes and not self.is_over:
                self._state.wait()
            data = self._receiver.take()
            if self._receiver.ack_at(0.0) is not None:
                self._wake()  # the host may wait for the room that was just made
            return data

    def write(self, data: bytes) -> None:
        """Hand over everything; waits while the line is busy."""
        view = memoryview(data)
        with self._state:
            while view:
                if self.is_over:
                    raise BrokenPipeError
                count = self._sender.put(bytes(view[: self._sender.room]))
                view = view[count:]
                self._wake()
                if view:
                    self._state.wait()


class Tty:
    """The line.

    Args:
        path: Of the port.
        baud: The base speed, at which hosts find the agent, in bits a second.
        rtscts: Whether the line has hardware flow control.
        max_baud: The fastest speed that may be tried; None for whatever the port has.
        on_text: Takes what arrives and is no frame while no host is there. Called by the
            thread that serves the line, so it must not wait.
        on_session: Told when a host comes (True) and when it is gone (False); the same holds.
    """

    def __init__(
        self,
        path: str,
        baud: int,
        *,
        rtscts: bool,
        max_baud: Optional[int] = None,
        on_text: Optional[Callable[[bytes], None]] = None,
        on_session: Optional[Callable[[bool], None]] = None,
    ) -> None:
        if _speed_constant(baud) is None:
            raise ValueError("no baud rate {} on this system".format(baud))
        self._path = path
        self._baud = self._baud_now = baud
        limit = max_baud if max_baud is not None else max(RATES)
        self._rates = [rate for rate in RATES if rate <= limit and _speed_constant(rate)]
        self._rtscts = rtscts
        self.on_text = on_text
        self.on_session = on_session
        #: Told when the line has gone away, before it is opened again.
        self.on_gone = None  # type: Optional[Callable[[], None]]
        self._fd = -1
        self._state = threading.Condition()
        self._heard = []  # type: list
        self._arq = self._new_arq()
        self._stream = None  # type: Optional[_Stream]
        self._served = 0
        self._talks = []  # type: list
        self._said = bytearray()
        self._waker = Waker()
        self._stopped = False
        self._is_pseudo = False
        self._change_by = None  # type: Optional[float]

    def _new_arq(self) -> Arq:
        return Arq(
            is_host=False,
            baud=self._baud,
            rates=self._rates,
            new_token=os.urandom,
            on_text=self._heard.append,
        )

    def open(self) -> None:
        """Open and set up the line.

        Raises:
            LineBusy: Somebody else holds it.
            OSError: It cannot be opened, or is no serial line.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LineBusy("{} is held by another program".format(self._path)) from None
            try:
                self._set_up(fd)
            except termios.error as exc:  # which is no OSError
                raise OSError(*exc.args) from None
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._baud_now = self._baud
        self._is_pseudo = os.major(os.fstat(fd).st_rdev) in _PSEUDO_MAJORS

    def _set_up(self, fd: int) -> None:
        tty.setraw(fd, termios.TCSANOW)
        settings = termios.tcgetattr(fd)
        settings[2] |= termios.CLOCAL | termios.CREAD
        settings[2] &= ~(termios.HUPCL | termios.CSTOPB)
        if self._rtscts:
            settings[2] |= termios.CRTSCTS
        else:
            settings[2] &= ~termios.CRTSCTS
        settings[4] = settings[5] = _speed_constant(self._baud)
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCEXCL)
        termios.tcflush(fd, termios.TCIFLUSH)

    # what other threads call

    @property
    def has_host(self) -> bool:
        """Say whether a host has a session on the line."""
        return self._arq.is_open

    def say(self, data: bytes) -> int:
        """Print on the line, between frames where a host is there; never waits.

        Returns:
            How many bytes there was room for.
        """
        with self._state:
            count = min(len(data), _SAY_BYTES - len(self._said))
            self._said += data[:count]
        self._waker.wake()
        return count

    def stop(self) -> None:
        """End `serve` and its conversations, once the last answers are out."""
        self._stopped = True
        self._waker.wake()

    # the thread of the line

    def serve(self, agent: Agent, log: Callable[[str], None]) -> None:
        """Talk over the line until `stop`; a line that goes away is opened again."""
        while not self._stopped:
            self._arq, self._served = self._new_arq(), 0
            try:
                self._pump(agent, log)
            except OSError as exc:
                log("{}: {}".format(self._path, exc.strerror))
            except termios.error as exc:
                log("{}: {}".format(self._path, exc))
            self._end_stream(log)
            self._reopen()

    def _pump(self, agent: Agent, log: Callable[[str], None]) -> None:
        """Move bytes until the line goes away or the daemon ends."""
        pending = b""
        until = None  # type: Optional[float]
        while True:
            now = time.monotonic()
            if self._stopped:
                until = now + _LINGER_S + _FAREWELL_S if until is None else until
                if self._is_done(now, until):
                    return
            with self._state:
                self._arq.tick(now)
                waits = self._follow_speed(now, log) if not pending else None
                if waits is None:
                    pending = pending or self._next_output(now)
                    wake_at = self._arq.wake_at(now)
                    waits = None if wake_at is None else max(0.0, wake_at - now)
                self._state.notify_all()
            self._follow_session(agent, log)
            if pending and waits is not None:
                waits = max(waits, _DRAIN_LOOK_S)
            if until is not None:
                waits = min(_DRAIN_LOOK_S, waits if waits is not None else _DRAIN_LOOK_S)
            readable, writable, _ = select.select(
                [self._fd, self._waker], [self._fd] if pending else [], [], waits
            )
            if self._waker in readable:
                self._waker.settle()
            if self._fd in readable and not self._take_input():
                return
            if writable:
                with contextlib.suppress(BlockingIOError):
                    pending = pending[os.write(self._fd, pending) :]

    def _follow_speed(self, now: float, log: Callable[[str], None]) -> Optional[float]:
        """Set the port to its speed; gives how long to wait for that, None when it has it."""
        if self._arq.baud == self._baud_now:
            self._change_by = None
            return None
        if self._change_by is None:
            self._change_by = now + _DRAIN_S
        if now < self._change_by and self._undrained():
            return _DRAIN_LOOK_S
        self._set_speed(self._arq.baud, log)
        return 0.0

    def _next_output(self, now: float) -> bytes:
        said = bytes(self._said[:_SAY_AT_ONCE_BYTES])
        if said:
            del self._said[: len(said)]
            return said + self._arq.take(now)
        return self._arq.take(now)

    def _take_input(self) -> bool:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return True
        except OSError as exc:
            if exc.errno == errno.EIO:
                return False
            raise
        if not data:
            return False
        with self._state:
            self._arq.feed(data, time.monotonic())
            self._state.notify_all()
        heard = list(self._heard)
        self._heard.clear()
        if self.on_text is not None:
            for text in heard:
                self.on_text(text)
        return True

    def _undrained(self) -> int:
        try:
            raw = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(_COUNT.size))
        except OSError:
            return 0
        return int(_COUNT.unpack(raw)[0])

    def _set_speed(self, baud: int, log: Callable[[str], None]) -> None:
        self._baud_now = (
            baud  # whatever comes of it: the host will not be heard, and both go back
        )
        settings = termios.tcgetattr(self._fd)
        settings[4] = settings[5] = _speed_constant(baud)
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, settings)
        except termios.error as exc:
            log("{}: cannot be set to {} baud: {}".format(self._path, baud, exc))

    def _is_done(self, now: float, until: float) -> bool:
        """While the daemon ends: the last answers have arrived, or took too long."""
        with self._state:
            if self._arq.is_open:
                if not self._arq.sender.unsettled_bytes or now >= until - _FAREWELL_S:
                    self._arq.hang_up(now)
                return False
            return self._arq.is_idle or now >= until

    # conversations

    def _follow_session(self, agent: Agent, log: Callable[[str], None]) -> None:
        arq = self._arq
        is_new = arq.sessions != self._served
        if self._stream is not None and (is_new or not arq.is_open):
            self._end_stream(log)
        if not is_new:
            return
        self._served = arq.sessions
        self._talks = [talk for talk in self._talks if talk.is_alive()]
        if not arq.is_open or len(self._talks) >= _MAX_TALKS:
            return
        stream = _Stream(self._state, self._waker.wake, arq.sender, arq.receiver)
        self._stream = stream
        talk = threading.Thread(
            target=self._talk, args=(agent, stream, log), name="line", daemon=True
        )
        self._talks.append(talk)
        if self.on_session is not None:
            self.on_session(True)
        talk.start()

    def _talk(self, agent: Agent, stream: _Stream, log: Callable[[str], None]) -> None:
        try:
            Conversation(agent, read=stream.read, write=stream.write, is_line=True).serve()
        except OSError as exc:
            log("{}: {}".format(self._path, exc.strerror))

    def _end_stream(self, log: Callable[[str], None]) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        with self._state:
            stream.is_over = True
            self._state.notify_all()
        log(
            "{}: a host is gone ({}); {} bytes were no frame".format(
                self._path, self._arq.why_ended or "the line went away", self._arq.noise_bytes
            )
        )
        if self.on_session is not None:
            self.on_session(False)

    def _reopen(self) -> None:
        with self._state:
            self._said = bytearray()
        if self.on_gone is not None:
            self.on_gone()
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if self._is_pseudo:
            # it is gone for good, and the next to get its number is somebody else's
            self._stopped = True
        while not self._stopped:
            time.sleep(_REOPEN_S)
            with contextlib.suppress(OSError, LineBusy):
                self.open()
                return
