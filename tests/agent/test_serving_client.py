"""The client for applications, the shell's ``infer``, and the socket for applications only."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.agent.agent_driver import ONE, AgentProcess, EchoBundle, SocketTalk, Start, deploy

APPLICATION = """
import array, sys
sys.path.insert(0, sys.argv[1])
from {} import AgentError, Client
with Client(sys.argv[2]) as client:
    print(client.describe()["name"])
    one = b"\\1\\0\\0\\0\\2\\0\\0\\0"
    for value in ([3, 4], one, array.array("i", [5, 6]), memoryview(bytes(8))):
        answer = client.infer({{"x": value}})["y"]
        print(answer.dtype, answer.shape, answer.tolist())
    try:
        client.infer({{"x": array.array("f", [5, 6])}})
    except AgentError as exc:
        print(exc.code)
    print("numpy" in sys.modules)
"""


@pytest.fixture
def daemon(start: Start, state: Path) -> AgentProcess:
    return start_daemon(start, state)


def start_daemon(start: Start, state: Path, *arguments: str) -> AgentProcess:
    daemon = start(*arguments, command="run", greet=False)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    return daemon


def put_current(state: Path, bundle: EchoBundle) -> EchoBundle:
    talk = SocketTalk(state)
    deploy(talk, bundle)
    talk.close()
    return bundle


@pytest.fixture
def client(
    agent_modules: Callable[[str], Any], daemon: AgentProcess, state: Path
) -> Iterator[Any]:
    with agent_modules("edge_agent.client").Client(str(state)) as client:
        yield client


def shell(agent_pyz: Path, python: str, *arguments: str, given: bytes = b"") -> Any:
    return subprocess.run(
        [python, "-I", "-S", str(agent_pyz), *arguments],
        input=given,
        capture_output=True,
        check=False,
    )


# -- the client --------------------------------------------------------------------------------


def test_application_on_every_python_needs_nothing_but_the_zipapp_or_one_file(
    python: str, agent_pyz: Path, daemon: AgentProcess, state: Path, tmp_path: Path
) -> None:
    put_current(state, EchoBundle(name="digits", parts=2))
    one_file = tmp_path / "edge_client.py"
    one_file.write_bytes(shell(agent_pyz, python, "client").stdout)
    for module, place in (("edge_agent.client", agent_pyz), ("edge_client", tmp_path)):
        done = subprocess.run(
            [python, "-I", "-S", "-c", APPLICATION.format(module), str(place), str(state)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "digits",
            *(
                "int32 (2,) [3, 4]",
                "int32 (2,) [1, 2]",
                "int32 (2,) [5, 6]",
                "int32 (2,) [0, 0]",
            ),
            *("bad-data", "False"),
        ]


def test_arrays_give_arrays(client: Any, state: Path) -> None:
    put_current(state, bundle := EchoBundle())
    for value in (
        np.array([7, 8], "<i4"),
        np.array([7, 8], ">i4"),
        np.array([7, 0, 8, 0], "i4")[::2],
    ):
        answer = client.infer({"x": value})["y"]
        assert answer.dtype == np.dtype("int32")
        assert answer.tolist() == [7, 8]
        answer += 1  # it owns its memory
    assert client.bundle == bundle.id


def test_inputs_that_are_no_tensor_are_refused_in_words(
    client: Any, state: Path, agent_modules: Callable[[str], Any]
) -> None:
    AgentError = agent_modules("edge_agent.client").AgentError
    put_current(state, EchoBundle())
    for value, words in (
        (b"1234567", "input 'x' has 7 bytes, the model takes int32 of shape [2]"),
        ([1, 2, 3], "is int32 [3]"),
        ([1, [2]], "the lists are not all of one length"),
        ([1, 2.5], "a value is no int32"),
        ("text", "'text' is no int32"),
        (None, "None is no int32"),
        ([1, 1 << 40], "a value is no int32"),
    ):
        with pytest.raises((ValueError, AgentError), match=re.escape(words)):
            client.infer({"x": value})
    with pytest.raises(ValueError, match=r"the model has no input 'z' \(it has 'x'\)"):
        client.infer({"z": [1, 2]})
    assert client.infer({"x": [1, 2]})["y"].tolist() == [1, 2]


def test_client_without_an_agent_says_where_it_looked(
    agent_modules: Callable[[str], Any], tmp_path: Path
) -> None:
    module = agent_modules("edge_agent.client")
    client = module.Client(str(tmp_path), connect_s=0.1)
    with pytest.raises(module.Unreachable) as caught:
        client.infer({"x": [1, 2]})
    assert str(caught.value) == (
        f"cannot reach an agent at {tmp_path}/agent.sock: No such file or directory: is its "
        "daemon running (edge-agent.pyz run)?"
    )


def test_client_outlives_a_restart_of_the_agent(
    client: Any, daemon: AgentProcess, start: Start, state: Path
) -> None:
    put_current(state, EchoBundle())
    assert client.infer({"x": [1, 2]})["y"].tolist() == [1, 2]
    daemon.kill()
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.infer({"x": [3, 4]})))
    asking.start()
    start_daemon(start, state)
    asking.join(20)
    assert answers[0]["y"].tolist() == [3, 4]


def test_no_request_is_lost_while_the_agent_is_told_to_end_and_starts_anew(
    client: Any, daemon: AgentProcess, start: Start, state: Path
) -> None:
    put_current(state, EchoBundle(options={"delay_ms": 20}))
    over, answers, failed = threading.Event(), [0], []

    def ask() -> None:
        try:
            while not over.is_set():
                assert client.infer({"x": [3, 4]})["y"].tolist() == [3, 4]
                answers[0] += 1
        except Exception as exc:  # noqa: BLE001 - shown below
            failed.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(2):
        before = answers[0]
        while answers[0] < before + 3 and not failed:
            time.sleep(0.01)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        daemon = start_daemon(start, state)
    over.set()
    asking.join(20)
    assert failed == []


def test_client_that_learned_of_an_older_release_looks_again(client: Any, state: Path) -> None:
    put_current(state, EchoBundle(b"old"))
    assert client.infer({"x": [1, 2]})
    floats = EchoBundle(b"new")
    for record in (*floats.manifest["inputs"], *floats.manifest["outputs"]):
        record["dtype"] = "float32"
    for part in floats.manifest["parts"]:
        for record in (*part["inputs"], *part["outputs"]):
            record["dtype"] = "float32"
    (check,) = floats.manifest["checks"]
    for record in (*check["inputs"], *check["expected"]):
        record["dtype"] = "float32"
    put_current(state, floats)
    seen = set()
    while "float32" not in seen:
        seen.add(client.infer({"x": [1, 2]})["y"].dtype)
    assert client.infer({"x": [1.5, 2]})["y"].tolist() == [1.5, 2.0]


def test_threads_may_share_a_client(client: Any, state: Path) -> None:
    put_current(state, EchoBundle())
    wrong: list[Any] = []

    def ask(number: int) -> None:
        for _ in range(20):
            answer = client.infer({"x": [number, 0]})["y"].tolist()
            wrong.extend([] if answer == [number, 0] else [answer])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- numbers and files -------------------------------------------------------------------------


def test_numpy_reads_what_is_written_and_writes_what_is_read(
    agent_modules: Callable[[str], Any], tmp_path: Path
) -> None:
    files = agent_modules("edge_agent.arrayfiles")
    for dtype in ("bool", "int8", "uint16", "float16", "int32", "float32", "uint64", "float64"):
        for shape in ((), (3,), (2, 3), (0, 4)):
            value = np.arange(int(np.prod(shape)), dtype="int64").astype(dtype).reshape(shape)
            path = tmp_path / "value.npy"
            np.save(path, value)
            assert files.read_npy(path.read_bytes()) == (dtype, list(shape), value.tobytes())
            path.write_bytes(files.npy_bytes(dtype, list(shape), value.tobytes()))
            again = np.load(path, allow_pickle=False)
            assert (again.dtype, again.shape) == (value.dtype, value.shape)
            assert again.tobytes() == value.tobytes()


def test_npy_files_that_are_none_or_not_ours_are_refused(
    agent_modules: Callable[[str], Any], tmp_path: Path
) -> None:
    files = agent_modules("edge_agent.arrayfiles")
    path = tmp_path / "value.npy"
    bad = [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 100, b"x" * 200]
    bad.append(b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100)
    for value in (np.array(["text"]), np.array([{}]), np.zeros(2, ">f4"), np.zeros(2, "c8")):
        np.save(path, value, allow_pickle=True)
        bad.append(path.read_bytes())
    np.save(path, np.zeros((2, 3), order="F"))
    bad.append(path.read_bytes())
    np.save(path, np.zeros(4))
    bad += [path.read_bytes()[:-1], path.read_bytes() + b"x"]
    for data in bad:
        with pytest.raises(ValueError, match=r"^(it|its) "):
            files.read_npy(data)


def test_infer_on_the_shell(
    agent_pyz: Path, oldest_python: str, daemon: AgentProcess, state: Path, tmp_path: Path
) -> None:
    bundle = put_current(state, EchoBundle())
    ask = ("infer", "--state", str(state), "--input")
    (tmp_path / "x.json").write_text('{"x": [5, 6]}')
    done = shell(agent_pyz, oldest_python, *ask, str(tmp_path / "x.json"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["bundle"] == bundle.id
    assert answer["outputs"][0] == {"name": "y", "dtype": "int32", "shape": [2], "data": [5, 6]}
    out = tmp_path / "y.npy"
    done = shell(agent_pyz, oldest_python, *ask, "x=-", "--output", f"y={out}", given=ONE)
    assert (done.returncode, done.stdout) == (0, b"")
    assert np.load(out).tolist() == [1, 2]
    done = shell(agent_pyz, oldest_python, *ask, str(tmp_path / "none.bin"))
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"edge-agent: cannot use {tmp_path}/none.bin: No such file or directory\n"
    )
    done = shell(agent_pyz, oldest_python, *ask, "-", "--release", "previous", given=ONE)
    assert done.returncode == 3
    assert json.loads(done.stdout)["code"] == "not-found"


def test_files_of_every_kind_become_inputs(
    agent_modules: Callable[[str], Any], tmp_path: Path
) -> None:
    read = agent_modules("edge_agent.inferring")._inputs
    two = np.array([5, 6], "int32")
    np.save(tmp_path / "x.npy", two)
    (tmp_path / "x.json").write_text("[5, 6]")
    (tmp_path / "a=b.json").write_text('{"y": [5, 6], "x": [5, 6]}')
    (tmp_path / "x.bin").write_bytes(two.tobytes())
    x = {"name": "x", "dtype": "int32", "shape": [2]}
    y = {"name": "y", "dtype": "int32", "shape": [None]}
    expected = ("x", "int32", [2], two.tobytes())
    for name in ("x.npy", "x.json", "x.bin"):
        assert read([str(tmp_path / name)], [x], 0) == [expected]
        assert read([f"x={tmp_path / name}"], [x, y], 0) == [expected]
    both = read([str(tmp_path / "a=b.json")], [x, y], 0)
    assert both == [("y", *expected[1:]), expected]
    with pytest.raises(
        ValueError, match="its input must be named, as in NAME=FILE; there are x, y"
    ):
        read([str(tmp_path / "x.bin")], [x, y], 0)
    with pytest.raises(ValueError, match="the model has no input 'y'"):
        read([str(tmp_path / "a=b.json")], [x], 0)
    (tmp_path / "x.json").write_text("[5, 6")
    with pytest.raises(ValueError, match=r"x\.json: it is not JSON"):
        read([str(tmp_path / "x.json")], [x], 0)


# -- a socket for applications -----------------------------------------------------------------


def test_application_socket_answers_inferences_and_nothing_else(
    agent_modules: Callable[[str], Any], start: Start, state: Path, tmp_path: Path
) -> None:
    module = agent_modules("edge_agent.client")
    path = tmp_path / "app.sock"
    daemon = start_daemon(start, state, "--app-socket", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    put_current(state, EchoBundle())
    with module.Client(path=str(path)) as client:
        assert client.infer({"x": [1, 2]})["y"].tolist() == [1, 2]
    talk = SocketTalk(state)
    talk.socket.close()
    talk.socket.__init__(1, 1)  # type: ignore[misc] # AF_UNIX, SOCK_STREAM: the same, elsewhere
    talk.socket.connect(str(path))
    talk.reading = talk.writing = talk.socket.fileno()
    for op in (
        "status",
        "rollback",
        "gc",
        "logs",
        "shutdown",
        "facts",
        "stage",
        "run",
        "nothing",
    ):
        reply = talk.ask(op).meta
        assert reply["ok"] is False
        assert reply["code"] == "unknown-op"
    tensors = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
    reply = talk.ask("infer", ONE, tensors=tensors, release="previous").meta
    assert reply["detail"] == "applications are answered by the current release"
    talk.close()
    daemon.process.terminate()
    assert daemon.process.wait(10) == 0
    assert not path.exists()


def test_application_socket_of_a_killed_agent_is_replaced_and_nothing_else_is(
    start: Start, state: Path, tmp_path: Path
) -> None:
    path = tmp_path / "app.sock"
    start_daemon(start, state, "--app-socket", str(path)).kill()
    assert path.exists()
    start_daemon(start, state, "--app-socket", str(path))
    other = start(
        "--state",
        str(tmp_path / "other"),
        "--app-socket",
        str(path),
        command="run",
        greet=False,
    )
    assert other.process.wait(20) == 3
    assert f"another program listens on {path}" in other.stderr()
    (tmp_path / "file").write_text("mine")
    other = start(
        *("--state", str(tmp_path / "other"), "--app-socket", str(tmp_path / "file")),
        command="run",
        greet=False,
    )
    assert other.process.wait(20) == 3
    assert f"{tmp_path}/file is there already and is no socket of ours" in other.stderr()
    assert (tmp_path / "file").read_text() == "mine"


@contextlib.contextmanager
def somebody_else(gid: int) -> Iterator[None]:
    """Be another user, of one group, for a moment."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_group_may_ask_and_others_may_not(start: Start, state: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        path = Path(place) / "app.sock"
        group = grp.getgrgid(1)
        options = ("--app-socket", str(path), "--app-group", group.gr_name)
        start_daemon(start, state, *options)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as link, somebody_else(group.gr_gid):
            link.connect(str(path))
        with socket.socket(socket.AF_UNIX) as link, somebody_else(65534):
            with pytest.raises(PermissionError):
                link.connect(str(path))
            with pytest.raises(PermissionError):
                link.connect(str(state / "agent.sock"))
