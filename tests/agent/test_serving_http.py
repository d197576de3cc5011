"""The Open Inference Protocol over HTTP: what it answers, and how it bears hostile peers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.agent.agent_driver import ONE, EchoBundle, SocketTalk, Start, deploy

INFER = "/v2/models/digits/infer"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A daemon that serves HTTP, and the model it has."""

    def __init__(self, start: Start, state: Path) -> None:
        self.port = free_port()
        self.daemon = start("--http", f"127.0.0.1:{self.port}", command="run", greet=False)
        assert self.daemon.process.stderr is not None
        assert self.daemon.process.stderr.readline() == b"edge-agent: ready\n"
        self.talk = SocketTalk(state)

    def deploy(self, bundle: EchoBundle) -> EchoBundle:
        deploy(self.talk, bundle)
        deadline = time.monotonic() + 10
        while self.ask("GET", "/v2/health/ready")[0] != 200 or self.version() != bundle.id:
            assert time.monotonic() < deadline, "it is not ready"
            time.sleep(0.02)
        return bundle

    def version(self) -> str:
        versions: list[str] = self.ask("GET", "/v2/models/current")[1]["versions"]
        return versions[0]

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, bytes]:
        """Give status, JSON and what lies behind it."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        link.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        reply = link.getresponse()
        data = reply.read()
        length = int(reply.getheader("Inference-Header-Content-Length") or len(data))
        link.close()
        return reply.status, json.loads(data[:length]), data[length:]

    def raw(self, data: bytes, *, timeout_s: float = 5) -> bytes:
        """Send bytes as they are, and read until the server closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while piece := link.recv(1 << 16):
                    answer += piece
            return answer


@pytest.fixture(scope="module")
def server(agent_pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One daemon for all tests that leave it as it was."""
    import sys

    from tests.agent import agent_driver

    state = tmp_path_factory.mktemp("http") / "state"
    python = agent_driver.find_python("3.7") or sys.executable
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, command: str, greet: bool) -> Any:
            line = [python, "-I", "-S", str(agent_pyz), command, "--state", str(state)]
            agent = agent_driver.AgentProcess([*line, *arguments], greet=greet)
            return stack.enter_context(agent)

        server = Server(start, state)
        server.deploy(EchoBundle(name="digits"))
        yield server
        server.talk.close()


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "shape": [2], "datatype": "INT32", "data": [3, 4], **changes}


# -- the protocol ------------------------------------------------------------------------------


def test_server_and_model_describe_themselves(server: Server) -> None:
    status, document, _ = server.ask("GET", "/v2")
    assert status == 200
    assert document["name"] == "edge-agent"
    assert document["extensions"] == ["binary_tensor_data"]
    assert server.ask("GET", "/v2/health/live")[:2] == (200, {"live": True})
    assert server.ask("GET", "/v2/health/ready")[:2] == (200, {"live": True, "ready": True})
    status, model, _ = server.ask("GET", "/v2/models/digits")
    assert status == 200
    assert model == {
        "name": "digits",
        "versions": [server.version()],
        "platform": "edgesdk_echo",
        "inputs": [{"name": "x", "datatype": "INT32", "shape": [2]}],
        "outputs": [{"name": "y", "datatype": "INT32", "shape": [2]}],
    }
    version = f"/v2/models/digits/versions/{model['versions'][0]}"
    assert server.ask("GET", version)[1] == model
    assert server.ask("GET", version + "/ready")[:2] == (200, {"name": "digits", "ready": True})


def test_inference_with_json_tensors(server: Server) -> None:
    request = {"id": "42", "inputs": [tensor()], "outputs": [{"name": "y"}]}
    status, answer, rest = server.ask("POST", INFER, request)
    assert (status, rest) == (200, b"")
    assert answer == {
        "model_name": "digits",
        "model_version": server.version(),
        "id": "42",
        "outputs": [{"name": "y", "datatype": "INT32", "shape": [2], "data": [3, 4]}],
    }
    nested = {"inputs": [tensor(data=[[3], [4]])]}
    path = f"/v2/models/digits/versions/{server.version()}/infer?x=1"
    status, answer, _ = server.ask("POST", path, nested)
    assert status == 200
    assert answer["outputs"][0]["data"] == [3, 4]
    assert "id" not in answer


@pytest.mark.parametrize("where", ["request", "output"])
def test_inference_with_binary_tensors(server: Server, where: str) -> None:
    request: dict[str, Any] = {
        "inputs": [tensor(data=None, parameters={"binary_data_size": 8})]
    }
    if where == "request":
        request["parameters"] = {"binary_data_output": True}
    else:
        request["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    text = json.dumps(request).encode()
    length = {"Inference_Header_Content_Length": str(len(text))}
    status, answer, rest = server.ask("POST", INFER, text + ONE, **length)
    assert (status, rest) == (200, ONE)
    (output,) = answer["outputs"]
    assert output["parameters"] == {"binary_data_size": 8}
    assert "data" not in output


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ([], "it is not a JSON object"),
        ({}, "inputs is no list"),
        ({"inputs": [tensor(), tensor()]}, "the inputs are ['x', 'x']"),
        ({"inputs": [tensor(name=7)]}, "an input has no name"),
        ({"inputs": [tensor(name="z")]}, "the inputs are ['z']"),
        ({"inputs": [tensor(datatype="BYTES")]}, "has the datatype 'BYTES' (expected one of"),
        ({"inputs": [tensor(datatype="FP32")]}, "is float32 [2]"),
        ({"inputs": [tensor(shape=[-2])]}, "has the shape [-2]"),
        ({"inputs": [tensor(shape=[2, 1 << 60])]}, "has the shape"),
        ({"inputs": [tensor(shape=[1 << 40] * 30)]}, "has 2 elements"),
        ({"inputs": [tensor(data=[1])]}, "has 1 elements (its shape makes 2)"),
        ({"inputs": [tensor(data=[1, 1 << 40])]}, "a value is no int32"),
        ({"inputs": [tensor(data=[1, 2.5])]}, "a value is no int32"),
        ({"inputs": [tensor(data=[1, "2"])]}, "'2' is no int32"),
        ({"inputs": [tensor(data=[[1], 2])]}, "not all of one length"),
        ({"inputs": [tensor(data=None)]}, "has 1 elements"),
        ({"inputs": [tensor(parameters={"binary_data_size": 8})]}, "8 bytes of binary data"),
        ({"inputs": [tensor(parameters={"binary_data_size": -8})]}, "-8 bytes of binary"),
        ({"inputs": [tensor(parameters=7)]}, "are no object"),
        ({"inputs": [tensor()], "id": 7}, "id is no string"),
        ({"inputs": [tensor()], "outputs": [{"name": "z"}]}, "has no output 'z'"),
        ({"inputs": [tensor()], "outputs": [{"name": "y"}] * 2}, "asked for twice"),
        ({"inputs": [tensor()], "parameters": {"sequence_id": 1}}, "not offer sequence_id"),
        ({"inputs": [tensor()], "parameters": {"timeout": -1}}, "microseconds"),
        (b'{"inputs": [NaN]}', "NaN is not JSON"),
        (b"[" * 50_000, "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
    ],
)
def test_request_that_cannot_be_is_an_error_in_words(
    server: Server, request_: Any, words: str
) -> None:
    status, answer, _ = server.ask("POST", INFER, request_)
    assert status == 400
    assert words in answer["error"]


def test_binary_data_must_add_up(server: Server) -> None:
    text = json.dumps({"inputs": [tensor()]}).encode()
    for length in ("-1", "x", str(len(text) + 1), "9" * 30):
        status, answer, _ = server.ask(
            "POST", INFER, text, Inference_Header_Content_Length=length
        )
        assert (status, "does not lie within the body" in answer["error"]) == (400, True)
    status, answer, _ = server.ask(
        "POST", INFER, text + b"more", Inference_Header_Content_Length=str(len(text))
    )
    assert (status, "4 bytes of binary data belong to no input" in answer["error"]) == (
        400,
        True,
    )


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v1/models/digits", 404),
        ("/v2/", 404),
        ("/v2/models", 404),
        ("/v2/models/other", 404),
        ("/v2/models/digits/versions/1", 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd", 404),
        ("/v2/models/../../agent.sock", 404),
        ("/v2/models/digits/versions/../ready", 404),
        ("/v2/models/digits/infer", 405),
    ],
)
def test_paths_name_only_what_is_served(server: Server, path: str, status: int) -> None:
    found, answer, _ = server.ask("GET", path)
    assert found == status
    assert answer["error"]


def test_values_that_json_does_not_know_go_as_binary_data_only(
    server: Server, agent_modules: Callable[[str], Any]
) -> None:
    v2 = agent_modules("edge_agent.serving_v2")
    frame = agent_modules("edgesdk.wire.frames").Frame
    spec = {"name": "y", "dtype": "float32", "shape": [1], "offset": 0, "nbytes": 4}
    reply = frame({"tensors": [spec]}, b"\0\0\xc0\x7f")
    with pytest.raises(ValueError, match="ask for binary data"):
        v2._answered(reply, None, as_binary=False)
    assert v2._answered(reply, None, as_binary=True)[1] == [b"\0\0\xc0\x7f"]


# -- hostile peers -----------------------------------------------------------------------------

HOST = b"Host: localhost\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n\r\n", 400),
        (b"GET /v2\r\n\r\n", 400),
        (b"GET /v2 HTTP/2.0\r\n\r\n", 505),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"get /v2 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://localhost/v2 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /v2\0 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403),
        (b"GET /v2 HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n", 403),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"Origin: http://localhost\r\n\r\n", 403),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"A b: c\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b" folded: c\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"A: b\nc\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"A: \xff\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"v" * 2000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 413),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", 411),
        (
            b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nabc",
            411,
        ),
        (
            b"POST /v2 HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            400,
        ),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: -3\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", 400),
        (
            b"POST "
            + INFER.encode()
            + b" HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 9999999\r\n\r\n",
            413,
        ),
        (
            b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n"
            b"Content-Encoding: gzip\r\n\r\nx",
            415,
        ),
        (b"POST /v2 HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nExpect: x\r\n\r\nx", 417),
    ],
)
def test_request_that_breaks_a_rule_is_refused_and_the_connection_ends(
    server: Server, data: bytes, status: int
) -> None:
    # what follows must never be taken for a request of its own
    answer = server.raw(data + b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert server.ask("GET", "/v2/health/ready")[0] == 200


def test_requests_in_one_go_and_a_body_announced_first_are_answered(server: Server) -> None:
    request = b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n"
    answer = server.raw(request * 3)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    old = b"GET /v2/health/live HTTP/1.0\r\n" + HOST + b"\r\n"
    assert server.raw(old * 2).count(b"HTTP/1.1 200 OK") == 1
    body = json.dumps({"inputs": [tensor()]}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
    answer = server.raw(head.encode() + HOST + b"\r\n" + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_half_a_body_is_answered_by_nobody(server: Server) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nContent-Length: 500\r\n".encode()
    assert server.raw(head + HOST + b"\r\n{") == b""


@given(st.binary(max_size=300))
def test_no_head_is_more_than_a_refusal(
    agent_modules: Callable[[str], Any], data: bytes
) -> None:
    module = agent_modules("edge_agent.serving_http")
    for head in (data, b"GET /v2 HTTP/1.1\r\n" + data):
        with contextlib.suppress(module._Bad):
            request = module._parse_head(head)
            module._length(request.headers)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs"]
            )
            | st.sampled_from(["binary_data_size", "binary_data_output", "timeout", "id", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.binary(max_size=20), st.integers(-1, 400))
def test_no_request_is_more_than_an_error(
    agent_modules: Callable[[str], Any], request_: Any, rest: bytes, length: int
) -> None:
    module = agent_modules("edge_agent.serving_v2")
    refusals = agent_modules("edge_agent.refusals")
    known = {"bundle": "0" * 64, "name": "m", "inputs": [], "outputs": [], "ready": True}

    class Serving:
        def describe(self) -> dict[str, Any]:
            return known

        def infer(self, specs: Any, *_: Any, **__: Any) -> None:
            raise refusals.Refused("bad-data", f"read as {specs}")

    class Agent:
        serving = Serving()

    for text in (request_, {"inputs": [{**tensor(), "name": "x"}], **dict_of(request_)}):
        body = json.dumps(text).encode() + rest
        headers = {"inference-header-content-length": str(length)} if length >= 0 else {}
        answer = module.Api(Agent()).answer("POST", "/v2/models/m/infer", headers, body)
        assert answer.status == 400
        assert json.loads(answer.text)["error"]


def dict_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def test_slow_peers_are_given_up_and_idle_ones_make_room(
    agent_modules: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = agent_modules("edge_agent.serving_http")
    monkeypatch.setattr(module, "_HEAD_S", 0.4)
    monkeypatch.setattr(module, "_IDLE_S", 30.0)
    monkeypatch.setattr(module, "_MOST_CONNECTIONS", 4)

    class Agent:
        class log:
            write = staticmethod(lambda text: None)

    server = module.HttpServer(Agent(), ("127.0.0.1", 0), anywhere=False)
    server.start()
    request = b"GET /v2 HTTP/1.1\r\n" + HOST + b"\r\n"
    try:
        with contextlib.ExitStack() as stack:
            slow = stack.enter_context(socket.create_connection(server.address, timeout=5))
            with contextlib.suppress(OSError):
                for byte in request:
                    slow.sendall(bytes([byte]))
                    time.sleep(0.05)
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
            idle = []
            for _ in range(12):
                link = stack.enter_context(socket.create_connection(server.address, timeout=5))
                link.sendall(request)
                assert link.recv(4096).startswith(b"HTTP/1.1 200 ")
                idle.append(link)
                time.sleep(0.05)  # it is idle once the server reads again
            assert idle[0].recv(10) == b"", "the oldest made room"
            assert len(server._connections) <= 8
    finally:
        server.stop()


def test_release_switches_under_requests_and_a_version_is_never_another_s(
    start: Start, state: Path, tmp_path: Path
) -> None:
    server = Server(start, state)
    assert server.ask("GET", "/v2/health/ready")[0] == 503
    assert server.ask("GET", "/v2/models/digits")[0] == 404
    first = server.deploy(EchoBundle(b"first", name="digits"))
    (tmp_path / "on").touch()
    options = {"wrong_if": str(tmp_path / "on")}
    second = EchoBundle(b"second", name="digits", options=options, expected=bytes(8))
    deploy(server.talk, second)
    seen = set()
    deadline = time.monotonic() + 10
    while second.id not in seen and time.monotonic() < deadline:
        status, answer, _ = server.ask("POST", INFER, {"inputs": [tensor()]})
        assert status == 200
        seen.add(answer["model_version"])
        expected = [3, 4] if answer["model_version"] == first.id else [0, 0]
        assert answer["outputs"][0]["data"] == expected
    assert second.id in seen
    old = f"/v2/models/digits/versions/{first.id}/infer"
    assert server.ask("POST", old, {"inputs": [tensor()]})[0] == 404
    server.talk.close()


# -- where it listens --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0.0.0.0:8080", "0.0.0.0 can be reached from other computers, and HTTP has no login"),
        ("[::]:8080", ":: can be reached from other computers"),
        ("192.168.1.1:8080", "can be reached from other computers"),
        ("example.org:8080", "'example.org' is no address (names are not looked up)"),
        ("8080", "'8080' is not HOST:PORT, such as 127.0.0.1:8080"),
        ("127.0.0.1:99999", "is not HOST:PORT"),
        ("127.0.0.1:", "is not HOST:PORT"),
    ],
)
def test_http_listens_on_this_device_only(
    agent_modules: Callable[[str], Any], given: str, words: str
) -> None:
    parse = agent_modules("edge_agent.serving_http").parse_address
    with pytest.raises(ValueError, match=re.escape(words)):
        parse(given, anywhere=False)
    assert parse("localhost:80", anywhere=False) == ("127.0.0.1", 80)
    assert parse("[::1]:80", anywhere=False) == ("::1", 80)


def test_daemon_does_not_start_with_an_address_that_others_reach(start: Start) -> None:
    daemon = start("--http", "0.0.0.0:8080", command="run", greet=False)
    assert daemon.process.wait(20) == 3
    assert daemon.stderr() == (
        "edge-agent: failed at stage applications: 0.0.0.0 can be reached from other "
        "computers, and HTTP has no login here: use 127.0.0.1, or add --http-anywhere\n"
    )


def test_daemon_that_is_told_so_listens_anywhere(start: Start) -> None:
    port = free_port()
    daemon = start(
        *("--http", f"0.0.0.0:{port}", "--http-anywhere"), command="run", greet=False
    )
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    link.request("GET", "/v2", headers={"Host": "board.example:8080"})
    assert link.getresponse().status == 200
    link.close()
