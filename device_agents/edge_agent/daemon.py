"""How an agent lives: as the daemon of a state folder, or for one host on stdin and stdout.

Either way it holds the lock of the folder; flock, so it dies with its holder. Start-up has
named stages, and a start that fails says which one it reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Optional

from edge_agent import links
from edge_agent.fs import Folder, NotOurs
from edge_agent.handlers import Agent
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame, FrameError, FrameReader, encode_frame

__all__ = ["StartFailed", "run_daemon", "run_stdio"]

_LOCK = "lock"
#: Locked by whoever waits for the lock: the holder sees that it is wanted.
_WANTED = "lock.wanted"
_LOCK_WAIT_S = 3.0
_POLL_S = 0.05
_IDLE_CHECK_S = 5.0


class StartFailed(Exception):
    """The agent cannot start; ``stage`` is the last stage that was reached."""

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(why)
        self.stage = stage


@contextlib.contextmanager
def _stage(name: str) -> Any:
    try:
        yield
    except (OSError, NotOurs, ValueError, links.LineBusy) as exc:
        text = str(exc)
        if isinstance(exc, OSError) and exc.strerror:
            text = exc.strerror + (": {}".format(exc.filename) if exc.filename else "")
        raise StartFailed(name, text) from exc


class _Lock:
    """The lock file; its text names the holder for people, flock is what counts."""

    def __init__(self, root: Folder) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(_LOCK, flags, 0o600, dir_fd=root.fd)
        try:
            self._wanted = os.open(_WANTED, flags, 0o600, dir_fd=root.fd)
        except OSError:  # a full disk: the agent that is to free it has to start
            self._wanted = -1

    def take(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if self._wanted >= 0:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(self._wanted, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        self.give_up()
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, "{}\n".format(os.getpid()).encode("ascii"), 0)
        return True

    def give_up(self) -> None:
        """Want it no longer."""
        if self._wanted >= 0:
            fcntl.flock(self._wanted, fcntl.LOCK_UN)

    def release(self) -> None:
        """Let the next one have it; the end of the process does the same."""
        os.close(self._fd)
        if self._wanted >= 0:
            os.close(self._wanted)

    def is_wanted(self) -> bool:
        """Say, as its holder, whether another process waits for it."""
        if self._wanted < 0:
            return False
        try:
            fcntl.flock(self._wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._wanted, fcntl.LOCK_UN)
        return False

    def holder(self) -> int:
        """The process that has it, or 0 where that cannot be read."""
        try:
            return int(os.pread(self._fd, 32, 0) or b"0")
        except ValueError:
            return 0


def run_stdio(
    state: str, python: str, *, reading: int, writing: int, idle_exit_s: Optional[float]
) -> int:
    """Serve the host on two descriptors: through a living daemon, else alone under the lock."""
    with _stage("state-folder"):
        root = Folder.open_state(state)
    with _stage("lock"):
        lock = _Lock(root)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            daemon = links.connect(root.path, root.fd)
            if daemon is not None:
                lock.give_up()
                links.relay(reading, writing, daemon)
                return 0
            if lock.take():
                break
            if time.monotonic() > deadline:
                lock.give_up()
                _refuse_all(reading, writing, root.path, lock.holder())
                return 0
            time.sleep(_POLL_S)
    with _stage("store"):
        agent = Agent(root, python=python, daemon=False)
    agent.log.write("serving one host on stdin")

    def stop() -> None:
        agent.close()
        os._exit(0)

    agent.stop = stop
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop())
    _free_idle_workers(agent)
    try:
        links.serve_pair(
            agent, reading, writing, idle_exit_s=idle_exit_s, is_wanted=lock.is_wanted
        )
    except KeyboardInterrupt:
        pass
    finally:
        agent.close()
        lock.release()
    return 0


def _refuse_all(reading: int, writing: int, state: str, holder: int) -> None:
    """Answer every request with ``busy`` until the host goes away."""
    reader = FrameReader()
    while True:
        data = os.read(reading, 1 << 16)
        if not data:
            return
        for frame in reader.feed(data):
            reply = {
                "id": frame.meta.get("id"),
                "ok": False,
                "code": codes.BUSY,
                "detail": "another agent (process {}) serves {} for another host".format(
                    holder, state
                ),
                "facts": {"pid": holder, "state_dir": state},
            }  # type: Dict[str, Any]
            with contextlib.suppress(FrameError):
                links.write_all(writing, encode_frame(Frame(reply)))


def _free_idle_workers(agent: Agent) -> None:
    def look() -> None:
        while True:
            time.sleep(_IDLE_CHECK_S)
            agent.supervisor.drop_if_idle()

    threading.Thread(target=look, name="idle", daemon=True).start()


def run_daemon(state: str, python: str, *, tty: Optional[str], baud: int, rtscts: bool) -> int:
    """Serve the socket of the state folder, and a serial line if given, until SIGTERM."""
    with _stage("state-folder"):
        root = Folder.open_state(state)
    with _stage("lock"):
        lock = _Lock(root)
        deadline = time.monotonic() + _LOCK_WAIT_S
        while not lock.take():
            if time.monotonic() > deadline:
                raise ValueError(
                    "process {} serves {} already".format(lock.holder(), root.path)
                )
            time.sleep(_POLL_S)
    with _stage("store"):
        agent = Agent(root, python=python, daemon=True)
    line = None  # type: Optional[links.Tty]
    if tty is not None:
        with _stage("tty"):
            line = links.Tty(tty, baud, rtscts=rtscts)
            line.open()
    with _stage("socket"):
        server = links.listen(root.path, root.fd)
    agent.log.write("serving {} as daemon".format(root.path))
    try:
        _serve_until_stopped(agent, server, line)
    finally:
        with contextlib.suppress(OSError):
            os.unlink("agent.sock", dir_fd=root.fd)
        agent.log.write("ended")
        agent.close()
    return 0


def _serve_until_stopped(
    agent: Agent, server: socket.socket, line: Optional[links.Tty]
) -> None:
    # a pipe, because a signal may come while this thread holds the lock of an event
    reading, writing = os.pipe()
    agent.stop = lambda: _write_one(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    threads = []  # type: List[threading.Thread]
    if line is not None:
        serial = threading.Thread(
            target=line.serve, args=(agent, agent.log.write), name="tty", daemon=True
        )
        serial.start()
        threads.append(serial)
    threading.Thread(target=_accept_all, args=(agent, server), daemon=True).start()
    _free_idle_workers(agent)
    print("edge-agent: ready", file=sys.stderr, flush=True)
    os.read(reading, 1)
    server.close()
    if line is not None:
        line.stop()
    agent.supervisor.interrupt()
    for thread in threads:
        thread.join(timeout=2)


def _write_one(fd: int) -> None:
    os.write(fd, b"x")


def _accept_all(agent: Agent, server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        if links.peer_uid(connection) not in (os.geteuid(), 0):
            agent.log.write("a connection of another user was refused")
            connection.close()
            continue
        threading.Thread(target=_serve_one, args=(agent, connection), daemon=True).start()


def _serve_one(agent: Agent, connection: socket.socket) -> None:
    with connection:
        fd = connection.fileno()
        with contextlib.suppress(OSError):
            links.serve_pair(agent, fd, fd)
