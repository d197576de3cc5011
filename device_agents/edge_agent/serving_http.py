"""HTTP for applications: a small server of HTTP/1.1 that trusts nothing a peer says.

It reads one request at a time: a head of bounded size within bounded time, a body of the length
that was announced and no other. Nothing of it becomes a path. What the requests mean is for
`edge_agent.serving_v2`. Loopback only, unless the daemon is told otherwise, and there is no
login: whoever can open a connection can ask the model.

The server of the standard library is not used: it has no limit on how long a head may take,
and takes bodies without a length.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Dict, Iterator, Optional, Tuple

from edge_agent.serving_v2 import Api, Response, error

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["HttpServer", "parse_address"]

_MOST_CONNECTIONS = 32
_MOST_HEAD_BYTES = 16 << 10
_MOST_HEADERS = 64
_MOST_BODIES_BYTES = 128 << 20
_HEAD_S = 10.0
_IDLE_S = 60.0
#: A body or an answer may take `_HEAD_S` and what it takes at this rate.
_SLOWEST_BYTES_PER_S = 64 << 10
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_REQUEST = re.compile(r"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.([01])\Z")
_HOST = re.compile(r"(localhost|\[[0-9a-fA-F:.]+\]|[0-9.]+)(?::\d{1,5})?\Z")
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


def parse_address(text: str, *, anywhere: bool) -> Tuple[str, int]:
    """Read ``HOST:PORT``; a host is an address, or ``localhost``.

    Raises:
        ValueError: It is neither, or lies outside this device and ``anywhere`` is not set.
    """
    import ipaddress  # only where a door is opened

    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("{!r} is not HOST:PORT, such as 127.0.0.1:8080".format(text))
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise ValueError("{!r} is no address (names are not looked up)".format(host)) from None
    if not address.is_loopback and not anywhere:
        raise ValueError(
            "{} can be reached from other computers, and HTTP has no login here: use "
            "127.0.0.1, or add --http-anywhere".format(address)
        )
    return str(address), int(port)


class _Bad(Exception):
    """A request that is not read to its end; the connection ends with this answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Request:
    """The head of a request."""

    def __init__(self, method: str, path: str, *, minor: int, headers: Dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        wanted = headers.get("connection", "").lower()
        words = [word.strip() for word in wanted.split(",")]
        self.keeps = "close" not in words if minor else "keep-alive" in words


def _parse_head(head: bytes) -> _Request:
    try:
        first, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        raise _Bad(400, "the head is not ASCII") from None
    found = _REQUEST.match(first)
    if found is None:
        if re.search(r" HTTP/[02-9]", first):
            raise _Bad(505, "this server speaks HTTP/1.1")
        raise _Bad(400, "the request line is not METHOD PATH HTTP/1.1")
    if len(lines) > _MOST_HEADERS:
        raise _Bad(431, "more than {} header lines".format(_MOST_HEADERS))
    headers = {}  # type: Dict[str, str]
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.match(name) or any(ord(c) < 32 and c != "\t" for c in value):
            raise _Bad(400, "a header line is not NAME: VALUE")
        name = name.lower()
        if name in headers:
            if name in ("content-length", "host", "transfer-encoding") or "length" in name:
                raise _Bad(400, "{} is there twice".format(name))
            value = headers[name] + "," + value
        headers[name] = value.strip(" \t")
    return _Request(
        found.group(1),
        found.group(2).partition("?")[0],
        minor=int(found.group(3)),
        headers=headers,
    )


def _length(headers: Dict[str, str]) -> Optional[int]:
    if "transfer-encoding" in headers:
        raise _Bad(411, "a body needs a Content-Length; chunks are not taken")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise _Bad(415, "a body may not be compressed")
    text = headers.get("content-length")
    if text is None:
        return None
    if not re.match(r"[0-9]{1,15}\Z", text):
        raise _Bad(400, "Content-Length is no number of bytes")
    return int(text)


class _Connection:
    """One peer, until it goes, is idle for too long, or breaks a rule."""

    def __init__(self, server: HttpServer, link: socket.socket) -> None:
        self.link = link
        self.idle_since = None  # type: Optional[float]
        self._server = server
        self._buffer = b""

    def serve(self) -> None:
        """Answer until it is over."""
        try:
            while self._serve_one():
                pass
        except _Bad as exc:
            with contextlib.suppress(OSError):
                self._send(error(exc.status, str(exc)), keeps=False)
                self._drain()
        except OSError:
            pass  # it went away, or was sent away
        finally:
            self.link.close()

    def turn_away(self) -> None:
        """Say that there are too many, without waiting for anything."""
        with contextlib.suppress(OSError):
            self._send(error(503, "too many connections: try again in a moment"), keeps=False)
        self.link.close()

    def _receive(self, most: int, deadline: float) -> bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise _Bad(408, "the request did not come in time")
        self.link.settimeout(left_s)
        try:
            return self.link.recv(most)
        except socket.timeout:
            raise _Bad(408, "the request did not come in time") from None

    def _read_head(self) -> Optional[bytes]:
        if not self._buffer:
            self.idle_since = time.monotonic()
            self.link.settimeout(_IDLE_S)
            try:
                self._buffer = self.link.recv(_MOST_HEAD_BYTES)
            except socket.timeout:
                return None
            self.idle_since = None
        deadline = time.monotonic() + _HEAD_S
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if 0 <= end <= _MOST_HEAD_BYTES:
                head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
                return head
            if len(self._buffer) > _MOST_HEAD_BYTES:
                raise _Bad(431, "the head has more than {} bytes".format(_MOST_HEAD_BYTES))
            data = self._receive(_MOST_HEAD_BYTES, deadline)
            if not data:
                return None
            self._buffer += data

    def _serve_one(self) -> bool:
        head = self._read_head()
        if head is None:
            return False
        request = _parse_head(head)
        self._server.admit(request.headers)
        length = _length(request.headers)
        body = b""
        if request.method == "POST":
            if length is None:
                raise _Bad(411, "a POST needs a Content-Length")
            most = self._server.api.most_body_bytes(request.path)
            if length > most:
                raise _Bad(413, "the body has {} bytes (at most {})".format(length, most))
            with self._server.room_for(length):
                body = self._read_body(length, request.headers)
                answer = self._server.api.answer("POST", request.path, request.headers, body)
        elif length:
            raise _Bad(413, "a {} has no body".format(request.method[:16]))
        else:
            answer = self._server.api.answer(request.method, request.path, request.headers, b"")
        keeps = request.keeps and not self._server.stopped
        self._send(answer, keeps=keeps)
        return keeps

    def _read_body(self, length: int, headers: Dict[str, str]) -> bytes:
        expected = headers.get("expect", "")
        if expected:
            if expected.lower() != "100-continue":
                raise _Bad(417, "only 100-continue can be expected")
            self.link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        deadline = time.monotonic() + _HEAD_S + length / _SLOWEST_BYTES_PER_S
        pieces = [self._buffer[:length]]
        self._buffer = self._buffer[length:]
        missing = length - len(pieces[0])
        while missing:
            data = self._receive(min(missing, 1 << 18), deadline)
            if not data:
                raise ConnectionResetError("half a body")
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def _send(self, answer: Response, *, keeps: bool) -> None:
        lines = [
            "HTTP/1.1 {} {}".format(answer.status, _PHRASES[answer.status]),
            "Content-Length: {}".format(len(answer.text) + len(answer.binary)),
            "Connection: {}".format("keep-alive" if keeps else "close"),
            "X-Content-Type-Options: nosniff",
        ]
        lines += ["{}: {}".format(name, value) for name, value in answer.headers]
        head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
        data = head + answer.text + answer.binary
        self.link.settimeout(_HEAD_S + len(data) / _SLOWEST_BYTES_PER_S)
        self.link.sendall(data)

    def _drain(self) -> None:
        """Let the peer read the answer before what it still sends makes the kernel reset it."""
        self.link.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 1.0
        with contextlib.suppress(_Bad):
            for _ in range(64):
                if not self._receive(1 << 16, deadline):
                    return


class HttpServer:
    """Listens, keeps the number of connections and of bytes in memory bounded.

    Args:
        agent: Who answers.
        address: Where to listen, from `parse_address`.
        anywhere: Whether peers on other computers are meant to come.
    """

    def __init__(self, agent: Agent, address: Tuple[str, int], *, anywhere: bool) -> None:
        self.api = Api(agent)
        self.stopped = False
        self._agent = agent
        self._anywhere = anywhere
        self._lock = threading.Lock()
        self._connections = []  # type: list
        self._held_bytes = 0
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(16)
        except OSError:
            self._socket.close()
            raise
        self.address = self._socket.getsockname()[:2]

    def start(self) -> None:
        """Serve from now on."""
        threading.Thread(target=self._accept_all, name="http", daemon=True).start()

    def stop(self) -> None:
        """Listen no longer; requests under way are still answered."""
        self.stopped = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def admit(self, headers: Dict[str, str]) -> None:
        """Turn away web pages: a browser on this device must not be their way in.

        Raises:
            _Bad: The request comes from a page, or was sent to a name that is not ours.
        """
        if "origin" in headers:
            raise _Bad(403, "web pages may not ask: the request has an Origin")
        host = headers.get("host")
        if host is None:
            raise _Bad(400, "the request has no Host")
        found = _HOST.match(host)
        if self._anywhere:
            return
        import ipaddress

        name = found.group(1).strip("[]") if found is not None else ""
        with contextlib.suppress(ValueError):
            if name == "localhost" or ipaddress.ip_address(name).is_loopback:
                return
        raise _Bad(403, "the request is for another host than this device")

    @contextlib.contextmanager
    def room_for(self, nbytes: int) -> Iterator[None]:
        """Hold a body in memory, if all bodies together stay within bounds."""
        with self._lock:
            if self._held_bytes + nbytes > _MOST_BODIES_BYTES:
                raise _Bad(503, "too many large requests at once: try again in a moment")
            self._held_bytes += nbytes
        try:
            yield
        finally:
            with self._lock:
                self._held_bytes -= nbytes

    def _accept_all(self) -> None:
        while not self.stopped:
            try:
                link, _ = self._socket.accept()
            except OSError:
                if self.stopped:
                    return
                time.sleep(0.1)  # out of descriptors: some connection will end
                continue
            with contextlib.suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, link)
            with self._lock:
                count = len(self._connections)
                full = count >= _MOST_CONNECTIONS and not self._end_an_idle_one()
                full = full or count >= 2 * _MOST_CONNECTIONS
                if not full:
                    self._connections.append(connection)
            if full:
                connection.turn_away()
                continue
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except RuntimeError:  # no thread can be started
                with self._lock:
                    self._connections.remove(connection)
                connection.turn_away()

    def _end_an_idle_one(self) -> bool:
        idle = [c for c in self._connections if c.idle_since is not None]
        if idle:
            oldest = min(idle, key=lambda c: c.idle_since or 0.0)
            oldest.idle_since = None  # it is not counted on twice
            with contextlib.suppress(OSError):
                oldest.link.shutdown(socket.SHUT_RDWR)
        return bool(idle)

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.serve()
        except Exception as exc:  # noqa: BLE001 - one request never ends the agent
            self._agent.log.write("http: {}: {}".format(type(exc).__name__, exc))
            connection.link.close()
        finally:
            with self._lock:
                self._connections.remove(connection)
