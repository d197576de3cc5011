"""Starts `login` on pseudo-terminals, for a daemon that has no right to.

`login` needs root, the agent must not have it. So before the daemon gives its rights up, and
before it has threads, it forks this helper, which keeps them. It knows one command line and
two requests: to start that on a new pseudo-terminal and hand over the other end, which anybody
at a serial console can have done as well, and to say whether it still runs.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
from typing import List, NoReturn, Optional, Tuple

__all__ = ["HelperGone", "LoginFailed", "Logins"]

_OPEN, _OPENED = b"open", b"opened"
_ASK, _RUNS, _ENDED = b"ask", b"runs", b"ended"
_MAX_TEXT = 400
_ANSWER_S = 10.0
_COLLECT_S = 5.0
#: Those that ignore a hangup stay; an agent that was taken over must not start ever more.
_MAX_ALIVE = 8
#: A serial line tells no size; that of a terminal everybody has.
_ROWS, _COLUMNS = 24, 80
_SIZE = struct.Struct("4H")
_TERM = "vt220"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class LoginFailed(Exception):
    """No login could be started."""


class HelperGone(LoginFailed):
    """Nor will one ever be: the helper has ended."""


class Logins:
    """The daemon's end of the helper."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self._link = link
        self.pid = pid

    @classmethod
    def start(cls, command: List[str]) -> Logins:
        """Fork the helper; only while this process has no other thread.

        Args:
            command: What is started on every terminal: an absolute path and its arguments.

        Raises:
            LoginFailed: There is no such program.
        """
        if not command or not os.path.isabs(command[0]) or not os.access(command[0], os.X_OK):
            raise LoginFailed(
                "there is no program {} (expected an absolute path such as /bin/login)".format(
                    command[0] if command else "''"
                )
            )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _help(theirs, command)
            finally:
                os._exit(0)
        theirs.close()
        ours.settimeout(_ANSWER_S)
        return cls(ours, pid)

    def open(self) -> int:
        """Start the command on a new terminal and give the descriptor of its other end.

        Raises:
            LoginFailed: It cannot be started; or `HelperGone`.
        """
        text, fd = self._request(_OPEN)
        if fd is None:
            raise LoginFailed(text.decode("utf-8", "replace"))
        return fd

    def is_running(self) -> bool:
        """Say whether the program that `open` started last still runs.

        Raises:
            HelperGone: The helper is gone.
        """
        return self._request(_ASK)[0] == _RUNS

    def _request(self, request: bytes) -> Tuple[bytes, Optional[int]]:
        try:
            self._link.sendall(request)
            text, fd = _receive(self._link)
        except OSError as exc:
            raise HelperGone("the process that starts logins is gone: {}".format(exc)) from exc
        if not text:
            raise HelperGone("the process that starts logins has ended")
        return text, fd

    def close(self) -> None:
        """Let the helper end."""
        self._link.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _receive(link: socket.socket) -> Tuple[bytes, Optional[int]]:
    fds = array.array("i")
    text, ancillary, _, _ = link.recvmsg(_MAX_TEXT, socket.CMSG_SPACE(fds.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    for fd in fds:
        os.set_inheritable(fd, False)
    return text, fds[0] if fds else None


def _help(link: socket.socket, command: List[str]) -> None:
    """Serve the daemon until it ends; with it end the terminals, and so what runs on them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive = []  # type: List[int]
    newest = 0
    with contextlib.suppress(OSError):
        while True:
            # an ended login is collected soon, whether or not another one is asked for
            asked = select.select([link], [], [], _COLLECT_S if alive else None)[0]
            alive = [pid for pid in alive if not _has_ended(pid)]
            request = link.recv(_MAX_TEXT) if asked else b""
            if request == _ASK:
                link.sendall(_RUNS if newest in alive else _ENDED)
            elif request == _OPEN:
                newest = _open_one(link, command, alive)
            elif asked:
                return


def _open_one(link: socket.socket, command: List[str], alive: List[int]) -> int:
    try:
        if len(alive) >= _MAX_ALIVE:
            raise OSError(errno.EAGAIN, "{} are running".format(len(alive)))
        pid, master = _start(command)
    except OSError as exc:
        text = "cannot start {}: {}".format(command[0], exc.strerror)
        link.sendall(text.encode("utf-8", "replace")[:_MAX_TEXT])
        return 0
    alive.append(pid)
    rights = array.array("i", [master])
    link.sendmsg([_OPENED], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    os.close(master)
    return pid


def _has_ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _start(command: List[str]) -> Tuple[int, int]:
    master, slave = os.openpty()
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, _SIZE.pack(_ROWS, _COLUMNS, 0, 0))
        pid = os.fork()
    except OSError:
        os.close(master)
        raise
    else:
        if pid == 0:
            os.close(master)
            _become(command, slave)
    finally:
        os.close(slave)
    return pid, master


def _become(command: List[str], slave: int) -> NoReturn:
    try:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for fd in (0, 1, 2):
            os.dup2(slave, fd)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        os.chdir("/")
        term = os.environ.get("TERM", "")
        env = {"TERM": term if term not in ("", "dumb", "linux") else _TERM, "PATH": _PATH}
        os.execve(command[0], command, env)  # noqa: S606 - as root wrote it, without a shell
    except OSError as exc:
        # for the person at the line; the daemon sees only that it ended at once
        text = "cannot start {}: {}\n".format(command[0], exc.strerror)
        with contextlib.suppress(OSError):
            os.write(2, text.encode(sys.getfilesystemencoding(), "replace"))
    finally:
        os._exit(127)
