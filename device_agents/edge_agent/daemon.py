"""The daemon of a state folder: it serves a socket, and a serial line, until SIGTERM."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Optional

from edge_agent import links
from edge_agent.agent import Agent
from edge_agent.console import Console
from edge_agent.fs import Folder
from edge_agent.line import LineBusy, Tty
from edge_agent.lock import Lock, wait_for
from edge_agent.serving_doors import Doors
from edge_agent.starting import StartFailed, free_idle_workers, stage
from edge_agent.vitals import vitals
from edge_agent.watchdog import Notifier, Watchdog
from edgesdk.wire.frames import Frame, FrameReader, encode_frame

if TYPE_CHECKING:
    import argparse

    from edge_agent.login import Logins

__all__ = ["run_daemon"]

#: Connections at once; the worker is one anyway, and a host has one or two.
_MAX_CONNECTIONS = 64
_ACCEPT_PAUSE_S = 0.2


def run_daemon(
    state: str,
    python: str,
    *,
    tty: Optional[str],
    baud: int,
    rtscts: bool,
    logins: Optional[Logins] = None,
    applications: Optional[argparse.Namespace] = None,
) -> int:
    """Serve the socket of the state folder, and a serial line if given, until SIGTERM.

    Args:
        state: The state folder.
        python: Interpreter for workers.
        tty: The line.
        baud: Its speed, in bits a second.
        rtscts: Whether it has hardware flow control.
        logins: Lets people log in on the line as well.
        applications: How applications are served beside the socket in the state folder.

    Raises:
        StartFailed: It cannot start.
    """
    notifier = Notifier.from_environment()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # systemd ends a stuck agent with SIGABRT: then the journal has where it was
        faulthandler.enable()
    with contextlib.suppress(OSError, ValueError, AttributeError):
        # what every thread waits for, for people, and the agent goes on
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    # where a thread ends for the first time glibc opens a library, and where it finds no free
    # descriptor it aborts the process: have that behind us
    first = threading.Thread(target=int)
    first.start()
    first.join()
    with stage("applications"):
        doors = Doors(applications)
    with stage("state-folder"):
        root = Folder.open_state(state)
    with stage("lock"):
        lock = Lock(root)
        wait_for(lock, root, notifier)
    with stage("store"):
        agent = Agent(root, python=python, daemon=True)
    line = None  # type: Optional[Tty]
    if tty is not None:
        with stage("tty"):
            line = Tty(tty, baud, rtscts=rtscts)
            try:
                line.open()
            except LineBusy as exc:
                raise StartFailed("tty", str(exc)) from exc
    with stage("socket"):
        server = links.listen(root.path, root.fd)
    agent.log.write("serving {} as daemon".format(root.path))
    console = None  # type: Optional[Console]
    if line is not None and logins is not None:
        console = Console(logins, line.say, agent.log.write)
        line.on_text, line.on_session = console.on_text, console.on_session
        line.on_gone = console.hang_up
    try:
        with stage("applications"):
            doors.open(agent)
        _serve_until_stopped(agent, server, line, console, notifier)
    finally:
        doors.close()
        with contextlib.suppress(OSError):
            os.unlink("agent.sock", dir_fd=root.fd)
        agent.log.write("ended")
        agent.close()
        if logins is not None:
            logins.close()
    return 0


def _serve_until_stopped(
    agent: Agent,
    server: socket.socket,
    line: Optional[Tty],
    console: Optional[Console],
    notifier: Notifier,
) -> None:
    # a pipe, because a signal may come while this thread holds the lock of an event
    reading, writing = os.pipe()
    agent.stop = lambda: _write_one(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    threads = []  # type: List[threading.Thread]
    if line is not None:
        threads.append(_begin("tty", agent, line.serve, agent, agent.log.write))
    if console is not None:
        threads.append(_begin("console", agent, console.serve))
    room = threading.BoundedSemaphore(_MAX_CONNECTIONS)
    accepting = threading.Thread(
        target=_accept_all, args=(agent, server, room), name="accept", daemon=True
    )
    accepting.start()
    vitals.need(accepting)
    vitals.need(free_idle_workers(agent))
    agent.watch.start()
    watchdog = Watchdog(notifier, lambda wait_s: _answers(agent, room, wait_s), agent.log.write)
    watchdog.start()
    notifier.tell(READY=1, STATUS="serving {}".format(agent.root.path))
    print("edge-agent: ready", file=sys.stderr, flush=True)
    os.read(reading, 1)
    notifier.tell(STOPPING=1, STATUS="ending")
    watchdog.stop()
    vitals.release(accepting)
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
    server.close()
    if console is not None:
        console.stop()
    if line is not None:
        line.stop()
    agent.supervisor.interrupt()
    agent.finishing.interrupt()
    for thread in threads:
        thread.join(timeout=2)


def _begin(name: str, agent: Agent, work: Callable[..., None], *words: Any) -> Any:
    """Start a thread that has to live until it ends by itself; give it."""

    def run() -> None:
        try:
            work(*words)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the watchdog makes an end of it
            agent.log.write("thread {} has failed: {!r}".format(name, exc))
            return
        vitals.release(thread)

    thread = threading.Thread(target=run, name=name, daemon=True)
    vitals.need(thread)  # first, for it may end at once
    thread.start()
    return thread


def _write_one(fd: int) -> None:
    os.write(fd, b"x")


def _answers(agent: Agent, room: Any, wait_s: float) -> bool:
    """Ask our own socket, as a host would, and say whether an answer came."""
    if not room.acquire(blocking=False):
        return True  # all places are taken, by hosts: that is not being stuck
    room.release()
    deadline = time.monotonic() + wait_s
    link = links.connect(agent.root.path, agent.root.fd, timeout_s=wait_s)
    if link is None:
        return False
    with link:
        try:
            link.sendall(encode_frame(Frame({"op": "ping", "id": 1})))
            reader = FrameReader()
            while True:
                link.settimeout(max(0.001, deadline - time.monotonic()))
                data = link.recv(4096)
                if not data:
                    return False
                for frame in reader.feed(data):
                    if "event" not in frame.meta:
                        return frame.meta.get("ok") is True
        except OSError:
            return False


def _accept_all(agent: Agent, server: socket.socket, room: Any) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError as exc:
            if exc.errno in (errno.EBADF, errno.EINVAL):
                return  # it was closed, because the agent ends
            agent.log.write("cannot accept a connection: {}".format(exc.strerror))
            time.sleep(_ACCEPT_PAUSE_S)  # out of descriptors or memory: others give some back
            continue
        if links.peer_uid(connection) not in (os.geteuid(), 0):
            agent.log.write("a connection of another user was refused")
            connection.close()
            continue
        if not room.acquire(blocking=False):
            agent.log.write("over {} connections: one was refused".format(_MAX_CONNECTIONS))
            connection.close()
            continue
        try:
            threading.Thread(
                target=_serve_one, args=(agent, connection, room), daemon=True
            ).start()
        except RuntimeError as exc:  # no thread can be started
            agent.log.write("a connection was refused: {}".format(exc))
            connection.close()
            room.release()
            time.sleep(_ACCEPT_PAUSE_S)


def _serve_one(agent: Agent, connection: socket.socket, room: Any) -> None:
    try:
        with connection:
            fd = connection.fileno()
            with contextlib.suppress(OSError):
                links.serve_pair(agent, fd, fd)
    finally:
        room.release()
