"""The links an agent serves: a pair of descriptors, and a Unix socket."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Callable, Optional

from edge_agent.pipes import read_body, widen
from edge_agent.serve import Conversation

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["accept_all", "connect", "listen", "peer_uid", "relay", "serve_pair"]

_READ_BYTES = 1 << 18
#: A host whose link was cut without a word is not noticed by sshd for hours. One that has been
#: silent for so long, with nothing under way, loses its turn once somebody else wants it.
_GIVE_WAY_S = 20.0
_GIVE_WAY_LOOK_S = 1.0
_ACCEPT_PAUSE_S = 0.2
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
    is_application: bool = False,
) -> None:
    """Serve one host on two descriptors until it closes them, or is silent for too long.

    Args:
        agent: Who answers.
        reading: Where requests come from.
        writing: Where answers go to.
        idle_exit_s: How long a host may ask nothing.
        is_wanted: Says whether another host waits; one that asks nothing gives way to it.
        is_application: It may only ask for inferences.
    """
    is_wide = widen(reading)

    def is_ready() -> bool:
        """Wait for something to read; False when this host has lost its turn."""
        while True:
            look_s = idle_exit_s
            if is_wanted is not None:
                look_s = min(_GIVE_WAY_LOOK_S, idle_exit_s or _GIVE_WAY_LOOK_S)
            ready, _, _ = select.select([reading], [], [], look_s)
            if ready:
                return True
            if idle_exit_s is not None and talk.idle_s >= idle_exit_s:
                return False
            if is_wanted is not None and talk.idle_s >= _GIVE_WAY_S and is_wanted():
                agent.log.write("the host was silent and another one waits: giving way")
                print("edge-agent: another host took over", file=sys.stderr, flush=True)
                return False

    talk = Conversation(
        agent,
        read=lambda: os.read(reading, _READ_BYTES) if is_ready() else b"",
        read_into=lambda room: read_body(reading, room, is_wide=is_wide) if is_ready() else 0,
        write=lambda data: write_all(writing, data),
        is_application=is_application,
    )
    talk.serve()


# -- the socket in the state folder ----------------------------------------------------------


def _address(state: str, folder_fd: int, name: str) -> str:
    path = os.path.join(state, name)
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    return "/proc/self/fd/{}/{}".format(folder_fd, name)


def listen(state: str, folder_fd: int, name: str = _SOCKET) -> socket.socket:
    """Open the socket; the caller has the lock, so one that lies there is a dead agent's.

    The umask is left alone, for it is that of all threads: a folder that another one makes
    meanwhile could not be entered. Nobody else gets into the folder anyway.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder_fd)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(server.fileno(), 0o600)  # Linux gives it to the name
        server.bind(_address(state, folder_fd, name))
        server.listen(8)
    except BaseException:
        server.close()
        raise
    return server


def accept_all(
    server: socket.socket,
    serve: Callable[[socket.socket], None],
    log: Callable[[str], None],
    *,
    name: str = "link",
) -> None:
    """Start a thread for every connection until the socket is closed.

    Where there are no descriptors or threads left it goes on later: others give some back.

    Args:
        server: The socket.
        serve: Called in the thread of a connection; it closes it.
        log: Takes a line for the agent's log.
        name: What comes in, for the log.
    """
    while True:
        try:
            connection, _ = server.accept()
        except OSError as exc:
            if exc.errno in (errno.EBADF, errno.EINVAL):
                return  # it was closed, because the agent ends
            log("cannot accept a {}: {}".format(name, exc.strerror))
            time.sleep(_ACCEPT_PAUSE_S)
            continue
        try:
            threading.Thread(target=serve, args=(connection,), name=name, daemon=True).start()
        except RuntimeError as exc:  # no thread can be started
            log("a {} was refused: {}".format(name, exc))
            connection.close()
            time.sleep(_ACCEPT_PAUSE_S)


def connect(
    state: str, folder_fd: int, name: str = _SOCKET, *, timeout_s: Optional[float] = None
) -> Optional[socket.socket]:
    """Connect to a living daemon of this state folder, or give None."""
    try:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError:
        return None  # no descriptor is left for it
    client.settimeout(timeout_s)
    try:
        client.connect(_address(state, folder_fd, name))
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
