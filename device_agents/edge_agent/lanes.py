"""Lanes: further links of one host into this agent, for a push that one link cannot carry.

An SSH server lets 2 MiB be under way on one channel, so at a long round trip one channel stands
still most of the time. A lane is one more login, whose ``edge-agent lane`` hands its own stdin
and stdout to the agent over a socket in the state folder and then only waits: the bytes take
no detour. The socket is there from the first time that a host asks for lanes.
"""

from __future__ import annotations

import array
import contextlib
import hmac
import os
import secrets
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, List

from edge_agent.lane import SOCKET
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["Lanes"]

_READ_BYTES = 1 << 18
_MAX_LANES = 16
_MAX_TOKENS = 8
#: How long a token lets lanes in, and how long a lane may take to show it.
_TOKEN_S = 600.0
_JOIN_S = 20.0


class Lanes:
    """The socket that lanes come in at, and the tokens that let them in."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._server = None  # type: Optional[socket.socket]
        self._tokens = {}  # type: Dict[str, float]
        self._count = 0

    def new_token(self) -> str:
        """Give a new token; listens from now on."""
        from edge_agent import links  # it imports what imports this module

        with self._lock:
            if self._server is None:
                root = self._agent.root
                self._server = links.listen(root.path, root.fd, SOCKET)
                threading.Thread(
                    target=links.accept_all,
                    args=(self._server, self._serve, self._agent.log.write),
                    kwargs={"name": "lane"},
                    name="lanes",
                    daemon=True,
                ).start()
            while len(self._tokens) >= _MAX_TOKENS:
                del self._tokens[min(self._tokens, key=self._tokens.__getitem__)]
            token = secrets.token_hex(16)
            self._tokens[token] = time.monotonic()
            return token

    def lets_in(self, token: Any) -> bool:
        """Say whether a lane that shows ``token`` may come in."""
        given = token.encode("utf-8", "replace") if isinstance(token, str) else b""
        with self._lock:
            return any(
                hmac.compare_digest(known.encode("ascii"), given)
                and time.monotonic() - since < _TOKEN_S
                for known, since in self._tokens.items()
            )

    def close(self) -> None:
        """Listen no longer; lanes that are open end with the process, or with their host."""
        with self._lock:
            server, self._server = self._server, None
            self._tokens.clear()
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # ends `accept`, which closing does not
            server.close()
            with contextlib.suppress(OSError):
                os.unlink(SOCKET, dir_fd=self._agent.root.fd)

    def _serve(self, connection: socket.socket) -> None:
        from edge_agent import links

        with self._lock:
            welcome = self._count < _MAX_LANES
            self._count += 1
        fds = []  # type: List[int]
        try:
            if not welcome or links.peer_uid(connection) not in (os.geteuid(), 0):
                return
            connection.settimeout(_JOIN_S)
            fds = _receive_descriptors(connection)
            if len(fds) == 2:
                _Lane(self._agent, fds[0], fds[1]).serve()
        except OSError:
            pass  # the host of this lane is gone
        finally:
            for fd in fds:
                os.close(fd)
            connection.close()
            with self._lock:
                self._count -= 1


class _Lane:
    """One lane: a conversation that shows a token first, and then takes only ``put``."""

    def __init__(self, agent: Agent, reading: int, writing: int) -> None:
        self._agent = agent
        self._reading = reading
        self._writing = writing
        self._joined = False

    def serve(self) -> None:
        from edge_agent.links import write_all
        from edge_agent.pipes import read_body, widen
        from edge_agent.serve import Conversation

        fd, is_wide = self._reading, widen(self._reading)

        Conversation(
            self._agent,
            read=lambda: os.read(fd, _READ_BYTES) if self._is_ready() else b"",
            read_into=lambda room: (
                read_body(fd, room, is_wide=is_wide) if self._is_ready() else 0
            ),
            write=lambda data: write_all(self._writing, data),
            answer=self._answer,
        ).serve()

    def _is_ready(self) -> bool:
        """Wait for something to read; False when a lane does not show its token in time."""
        ready, _, _ = select.select([self._reading], [], [], None if self._joined else _JOIN_S)
        return bool(ready)

    def _answer(self, agent: Agent, ctx: Any, request: Frame) -> Frame:
        from edge_agent.handlers import answer

        op = request.meta.get("op")
        if op == "hello":
            self._joined = agent.lanes.lets_in(request.meta.get("lane"))
        if op in ("hello", "put") and self._joined:
            return answer(agent, ctx, request)
        why = "it takes only put" if self._joined else "its token is not known"
        refused = Refused(codes.BAD_REQUEST, "a lane cannot do that: {}".format(why))
        return Frame(
            {
                "id": request.meta.get("id"),
                "ok": False,
                "code": refused.code,
                "detail": str(refused),
                "facts": {},
            }
        )


def _receive_descriptors(connection: socket.socket) -> List[int]:
    fds = array.array("i")
    room = socket.CMSG_SPACE(2 * fds.itemsize)
    _, ancillary, _, _ = connection.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
