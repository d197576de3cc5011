"""The links an agent serves: a pair of descriptors, a Unix socket, a serial line."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
import threading
import time
import tty
from typing import TYPE_CHECKING, Callable, Optional

from edge_agent.serve import Conversation

if TYPE_CHECKING:
    from edge_agent.handlers import Agent

__all__ = ["LineBusy", "Tty", "connect", "listen", "peer_uid", "relay", "serve_pair"]

_READ_BYTES = 1 << 18
#: Device numbers of pseudo-terminals (Linux, Documentation/admin-guide/devices.txt).
_PSEUDO_MAJORS = range(136, 144)
#: A host whose link was cut without a word is not noticed by sshd for hours. One that has been
#: silent for so long, with nothing under way, loses its turn once somebody else wants it.
_GIVE_WAY_S = 20.0
_GIVE_WAY_LOOK_S = 1.0
#: A frame on a serial line has no such gaps; hosts repeat after more than that.
_LINE_SILENCE_S = 0.4
_SOCKET = "agent.sock"
_PEERCRED = struct.Struct("3i")
#: sun_path holds 108 bytes; a longer path is reached through the folder's descriptor.
_MAX_SOCKET_PATH = 100


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however little a call takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def serve_pair(
    agent: Agent,
    reading: int,
    writing: int,
    *,
    idle_exit_s: Optional[float] = None,
    is_wanted: Optional[Callable[[], bool]] = None,
) -> None:
    """Serve one host on two descriptors until it closes them, or is silent for too long.

    Args:
        agent: Who answers.
        reading: Where requests come from.
        writing: Where answers go to.
        idle_exit_s: How long a host may ask nothing.
        is_wanted: Says whether another host waits; one that asks nothing gives way to it.
    """

    def read() -> bytes:
        while True:
            look_s = idle_exit_s
            if is_wanted is not None:
                look_s = min(_GIVE_WAY_LOOK_S, idle_exit_s or _GIVE_WAY_LOOK_S)
            ready, _, _ = select.select([reading], [], [], look_s)
            if ready:
                return os.read(reading, _READ_BYTES)
            if idle_exit_s is not None and talk.idle_s >= idle_exit_s:
                return b""
            if is_wanted is not None and talk.idle_s >= _GIVE_WAY_S and is_wanted():
                agent.log.write("the host was silent and another one waits: giving way")
                print("edge-agent: another host took over", file=sys.stderr, flush=True)
                return b""

    talk = Conversation(agent, read=read, write=lambda data: write_all(writing, data))
    talk.serve()


# -- the socket in the state folder ----------------------------------------------------------


def _address(state: str, folder_fd: int) -> str:
    path = os.path.join(state, _SOCKET)
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    return "/proc/self/fd/{}/{}".format(folder_fd, _SOCKET)


def listen(state: str, folder_fd: int) -> socket.socket:
    """Open the socket; the caller has the lock, so one that lies there is a dead agent's."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_SOCKET, dir_fd=folder_fd)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        server.bind(_address(state, folder_fd))
    finally:
        os.umask(before)
    server.listen(8)
    return server


def connect(state: str, folder_fd: int) -> Optional[socket.socket]:
    """Connect to a living daemon of this state folder, or give None."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(_address(state, folder_fd))
    except OSError:
        client.close()
        return None
    return client


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return int(_PEERCRED.unpack(raw)[1])


def relay(reading: int, writing: int, daemon: socket.socket) -> None:
    """Carry bytes between two descriptors and the daemon until the daemon closes."""

    def forward() -> None:
        with contextlib.suppress(OSError):
            while True:
                data = os.read(reading, _READ_BYTES)
                if not data:
                    break
                daemon.sendall(data)
        with contextlib.suppress(OSError):
            daemon.shutdown(socket.SHUT_WR)

    threading.Thread(target=forward, daemon=True).start()
    with contextlib.suppress(OSError):
        while True:
            data = daemon.recv(_READ_BYTES)
            if not data:
                return
            write_all(writing, data)


# -- the serial line -------------------------------------------------------------------------


class LineBusy(Exception):
    """Another program holds the serial line."""


class Tty:
    """A serial line that the agent owns: raw, exclusive, reopened when it goes away."""

    def __init__(self, path: str, baud: int, *, rtscts: bool) -> None:
        self._path = path
        self._speed = getattr(termios, "B{}".format(baud), None)
        if self._speed is None:
            raise ValueError("no baud rate {} on this system".format(baud))
        self._rtscts = rtscts
        self._fd = -1
        self._talk = None  # type: Optional[Conversation]
        self._patience_s = None  # type: Optional[float]
        self._stop_read, self._stop_write = os.pipe()
        self._stopped = False
        self._is_pseudo = False

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
            tty.setraw(fd, termios.TCSANOW)
            settings = termios.tcgetattr(fd)
            settings[2] |= termios.CLOCAL | termios.CREAD
            settings[2] &= ~(termios.HUPCL | termios.CSTOPB)
            if self._rtscts:
                settings[2] |= termios.CRTSCTS
            else:
                settings[2] &= ~termios.CRTSCTS
            settings[4] = settings[5] = self._speed
            termios.tcsetattr(fd, termios.TCSANOW, settings)
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, termios.TIOCEXCL)
            termios.tcflush(fd, termios.TCIFLUSH)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._is_pseudo = os.major(os.fstat(fd).st_rdev) in _PSEUDO_MAJORS

    def stop(self) -> None:
        """End `read` and with it the conversation, from any thread."""
        self._stopped = True
        os.write(self._stop_write, b"x")

    def read(self) -> bytes:
        """Give what arrives; nothing means the line went away or `stop` was called."""
        while True:
            ready, _, _ = select.select([self._fd, self._stop_read], [], [], self._patience_s)
            if self._stop_read in ready:
                return b""
            if not ready:
                self._patience_s = None
                if self._talk is not None:
                    self._talk.line_fell_silent()
                continue
            self._patience_s = _LINE_SILENCE_S
            try:
                return os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as exc:
                if exc.errno == errno.EIO:
                    return b""
                raise

    def write(self, data: bytes) -> None:
        """Write everything; waits while the line is busy."""
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._fd], [], 1.0)
            if self._stopped:
                raise BrokenPipeError
            if ready:
                with contextlib.suppress(BlockingIOError):
                    view = view[os.write(self._fd, view) :]

    def serve(self, agent: Agent, log: Callable[[str], None]) -> None:
        """Talk over the line until `stop`; a line that goes away is opened again."""
        while not self._stopped:
            talk = self._talk = Conversation(agent, read=self.read, write=self.write)
            try:
                talk.serve()
            except OSError as exc:
                log("{}: {}".format(self._path, exc.strerror))
            if talk.noise_bytes:
                log("{}: {} bytes were no frame".format(self._path, talk.noise_bytes))
            self._reopen()

    def _reopen(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)
        if self._is_pseudo:
            # it is gone for good, and the next to get its number is somebody else's
            self._stopped = True
        while not self._stopped:
            time.sleep(0.2)
            with contextlib.suppress(OSError, LineBusy):
                self.open()
                return
