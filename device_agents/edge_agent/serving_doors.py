"""The ways in for applications that the daemon opens on request: a socket, and HTTP.

The socket in the state folder is for the agent's own user, and does everything. The one here
may lie anywhere and be open to a group: it answers inferences and nothing else.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any, Optional

from edge_agent import links
from edge_agent.serving_http import HttpServer, parse_address

if TYPE_CHECKING:
    import argparse

    from edge_agent.agent import Agent

__all__ = ["Doors", "add_serving_options"]

_MOST_APPLICATIONS = 16
_MAX_SOCKET_PATH = 100


def add_serving_options(parser: argparse.ArgumentParser) -> None:
    """Add to ``run`` what it takes for applications."""
    parser.add_argument(
        "--serve",
        action="store_true",
        help="load the current release at once and keep it loaded; by default the first "
        "request loads it, and it is freed after ten minutes without one",
    )
    parser.add_argument(
        "--app-socket",
        metavar="PATH",
        help="another Unix socket, for inferences only; the agent's own works without this",
    )
    parser.add_argument(
        "--app-group",
        metavar="GROUP",
        help="let users of this group open it; by default only the agent's user may",
    )
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="answer the Open Inference Protocol v2, for example on 127.0.0.1:8080",
    )
    parser.add_argument(
        "--http-anywhere",
        action="store_true",
        help="let --http listen where other computers reach it; there is no login",
    )


class Doors:
    """What is open for applications; closed with the daemon.

    Args:
        options: The command line of ``run``.

    Raises:
        ValueError: The options contradict themselves, or are not safe.
    """

    def __init__(self, options: Optional[argparse.Namespace] = None) -> None:
        given = {} if options is None else vars(options)  # type: Dict[str, Any]
        self.keep = bool(given.get("serve") or given.get("http"))
        self._path = given.get("app_socket")  # type: Optional[str]
        self._group = given.get("app_group")  # type: Optional[str]
        self._http = None
        self._anywhere = bool(given.get("http_anywhere"))
        if given.get("http"):
            self._http = parse_address(given["http"], anywhere=self._anywhere)
        if self._group and not self._path:
            raise ValueError("--app-group is for the socket that --app-socket names")
        self._server = None  # type: Optional[HttpServer]
        self._socket = None  # type: Optional[socket.socket]
        self._lock = threading.Lock()
        self._count = 0

    def open(self, agent: Agent) -> None:
        """Open what was asked for.

        Raises:
            OSError: An address is taken, a folder is missing, or something else that lies at
                the path is no socket of ours.
            ValueError: There is no such group.
        """
        if self._path:
            self._socket = self._listen(os.path.abspath(self._path))
            thread = threading.Thread(
                target=links.accept_all,
                args=(self._socket, lambda link: self._serve(agent, link), agent.log.write),
                kwargs={"name": "connection of an application"},
                daemon=True,
            )
            thread.start()
        if self._http is not None:
            self._server = HttpServer(agent, self._http, anywhere=self._anywhere)
            self._server.start()
            agent.log.write("http on {}:{}".format(*self._server.address))
        if self.keep:
            agent.serving.begin()

    @property
    def http_address(self) -> Any:
        """Host and port of the HTTP server, or None."""
        return None if self._server is None else self._server.address

    def _listen(self, path: str) -> socket.socket:
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            raise ValueError("the path of a socket has at most 100 bytes: {}".format(path))
        gid = -1
        if self._group:
            try:
                gid = grp.getgrnam(self._group).gr_gid
            except KeyError:
                raise ValueError("there is no group {!r}".format(self._group)) from None
        _remove_dead(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            before = os.umask(0o177)
            try:
                server.bind(path)
            finally:
                os.umask(before)
            if gid >= 0:
                os.chown(path, -1, gid)
                os.chmod(path, 0o660)
            server.listen(16)
        except BaseException:
            server.close()
            raise
        return server

    def _serve(self, agent: Agent, link: socket.socket) -> None:
        with self._lock:
            full = self._count >= _MOST_APPLICATIONS
            self._count += 1
        try:
            with link, contextlib.suppress(OSError):
                # with a group the kernel has asked for the right to write to the socket
                stranger = links.peer_uid(link) not in (os.geteuid(), 0) and not self._group
                if full or stranger:
                    why = "another user" if stranger else "too many connections"
                    agent.log.write("an application was turned away: {}".format(why))
                else:
                    links.serve_pair(agent, link.fileno(), link.fileno(), is_application=True)
        finally:
            with self._lock:
                self._count -= 1

    def close(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.stop()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            with contextlib.suppress(OSError):
                os.unlink(str(self._path))


def _remove_dead(path: str) -> None:
    """Remove the socket of an agent that was killed; leave whatever else is there."""
    try:
        seen = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(seen.st_mode) or seen.st_uid != os.geteuid():
        raise ValueError("{} is there already and is no socket of ours".format(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        try:
            other.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise ValueError("another program listens on {}".format(path))
