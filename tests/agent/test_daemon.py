"""Who serves a state folder: one daemon, or one host at a time; and who may not."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import stat
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame, encode_frame
from tests.agent.agent_driver import (
    HELLO,
    AgentProcess,
    EchoBundle,
    SocketTalk,
    Start,
    Talk,
    current,
    deploy,
    push,
)
from tests.agent.line_host import LineHost


@pytest.fixture
def daemon(start: Start, state: Path) -> AgentProcess:
    daemon = start(command="run", greet=False)
    wait_until_ready(daemon)
    return daemon


def wait_until_ready(daemon: AgentProcess) -> None:
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"


def test_daemon_answers_on_a_socket_closed_to_others(daemon: AgentProcess, state: Path) -> None:
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "agent.sock").stat().st_mode) & 0o077 == 0
    talk = SocketTalk(state)
    hello = talk.ask("hello", **HELLO).meta
    assert hello["daemon"] is True
    assert hello["pid"] == daemon.process.pid
    talk.close()


def test_stdio_agent_relays_to_a_living_daemon(
    daemon: AgentProcess, start: Start, state: Path
) -> None:
    relayed = start()
    assert relayed.hello["daemon"] is True
    assert relayed.hello["pid"] == daemon.process.pid
    deploy(relayed, bundle := EchoBundle())
    assert relayed.hang_up() == 0
    assert current(start()) == bundle.id


def test_two_hosts_share_a_daemon_and_a_busy_worker_is_named(
    daemon: AgentProcess, start: Start
) -> None:
    first, second = start(), start()
    push(first, slow := EchoBundle(options={"delay_ms": 60_000}))
    push(second, quick := EchoBundle())
    first.talk.send("check", bundle=slow.id)
    while second.ask("status").meta["worker"] is None:
        time.sleep(0.02)
    reply = second.ask("check", bundle=quick.id).meta
    assert reply["code"] == "busy"
    assert reply["detail"] == "the worker is busy with check for another connection"
    assert first.hang_up() == 0
    assert second.ask("check", bundle=quick.id).meta["passed"]


def test_daemon_ends_cleanly_on_sigterm(daemon: AgentProcess, state: Path) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0
    assert not (state / "agent.sock").exists()


def test_daemon_shows_what_its_threads_wait_for_and_goes_on(
    daemon: AgentProcess, state: Path
) -> None:
    daemon.process.send_signal(signal.SIGUSR1)
    assert daemon.process.stderr is not None
    seen = iter(daemon.process.stderr.readline, b"")
    assert any(b"in _serve_until_stopped" in line for line in seen)
    talk = SocketTalk(state)
    assert talk.ask("hello", **HELLO).meta["pid"] == daemon.process.pid
    talk.close()


def test_daemon_can_be_shut_down_by_a_host(daemon: AgentProcess, start: Start) -> None:
    assert start().ask("shutdown").meta["ok"]
    assert daemon.process.wait(10) == 0


def test_killed_daemon_leaves_nothing_in_the_way(daemon: AgentProcess, start: Start) -> None:
    daemon.kill()
    agent = start()
    assert agent.hello["daemon"] is False
    agent.hang_up()
    wait_until_ready(start(command="run", greet=False))


def test_second_daemon_says_who_is_there(daemon: AgentProcess, start: Start) -> None:
    second = start(command="run", greet=False)
    assert second.process.wait(20) == 3
    text = second.stderr()
    assert text.startswith("edge-agent: failed at stage lock: ")
    assert f"process {daemon.process.pid} serves" in text


def test_second_host_without_a_daemon_is_told_who_is_served(
    agent: AgentProcess, start: Start, state: Path
) -> None:
    second = start(greet=False)
    reply = second.ask("hello", **HELLO).meta
    assert reply["code"] == "busy"
    assert reply["facts"] == {"pid": agent.process.pid, "state_dir": str(state)}
    assert f"another agent (process {agent.process.pid}) serves" in reply["detail"]
    assert second.hang_up() == 0


def test_second_host_waits_for_one_that_is_leaving(agent: AgentProcess, start: Start) -> None:
    second = start(greet=False)
    second.talk.send("hello", **HELLO)
    time.sleep(0.3)
    agent.hang_up()
    assert second.talk.receive().meta["ok"]


def test_state_folder_open_to_others_is_refused(start: Start, state: Path) -> None:
    state.mkdir()
    (state / "something").touch()
    state.chmod(0o755)
    agent = start(greet=False)
    assert agent.process.wait(10) == 3
    assert agent.stderr() == (
        f"edge-agent: failed at stage state-folder: {state} has mode 755 (expected 700): "
        "others may read or write it\n"
    )


def test_empty_state_folder_is_closed_to_others(start: Start, state: Path) -> None:
    state.mkdir(mode=0o755)
    start()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_state_folder_that_is_a_link_or_a_file_is_refused(
    start: Start, state: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    state.symlink_to(tmp_path / "elsewhere")
    agent = start(greet=False)
    assert agent.process.wait(10) == 3
    assert "failed at stage state-folder" in agent.stderr()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_long_state_path_is_no_obstacle(start: Start, state: Path) -> None:
    deep = state.parent / ("d" * 100) / ("e" * 100)
    deep.parent.mkdir(parents=True)
    daemon = start("--state", str(deep), command="run", greet=False)
    wait_until_ready(daemon)
    relayed = start("--state", str(deep))
    assert relayed.hello["daemon"] is True


class Line:
    """A pseudo-terminal: the test holds one end, the agent opens the other."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        tty.setraw(self.theirs)
        self.path = os.ttyname(self.theirs)

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.close()


def test_daemon_owns_a_serial_line_and_survives_its_noise(start: Start, line: Line) -> None:
    daemon = start("--tty", line.path, "--baud", "115200", command="run", greet=False)
    wait_until_ready(daemon)
    os.write(line.ours, b"\r\nRaspbian login: \x1b[0m[  12.3] oops EDG1\x11\x13\r\n")
    talk = LineHost(line.ours)
    assert talk.ask("hello", **HELLO).meta["daemon"] is True
    bundle = EchoBundle(bytes(range(256)) * 40)
    deploy(talk, bundle)
    os.write(line.ours, bytes(5000) + b"[  99.9] oops\r\n" * 400)
    assert current(talk) == bundle.id
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(10) == 0
    talk.vanish()


def test_new_session_on_the_line_ends_what_the_old_one_waits_for(
    start: Start, line: Line
) -> None:
    wait_until_ready(start("--tty", line.path, command="run", greet=False))
    talk = LineHost(line.ours)
    talk.ask("hello", **HELLO)
    push(talk, bundle := EchoBundle(options={"delay_ms": 60_000}))
    talk.send("check", bundle=bundle.id)
    time.sleep(0.5)
    talk.vanish()
    started = time.monotonic()
    talk = LineHost(line.ours, seed=2)
    talk.ask("hello", **HELLO)
    assert time.monotonic() - started < 5
    while talk.ask("status").meta["worker"] is not None:
        assert time.monotonic() - started < 10, "the worker still waits"
    talk.hang_up()


def test_pseudo_terminal_that_went_away_is_not_taken_again(start: Start, state: Path) -> None:
    line = Line()
    wait_until_ready(start("--tty", line.path, command="run", greet=False))
    line.close()
    other = line_called(line.path)
    try:
        talk = SocketTalk(state)
        assert talk.ask("status").meta["ok"]
        talk.close()
        time.sleep(0.5)
        host = LineHost(other.ours)
        time.sleep(1.0)
        assert not host.arq.is_open, "the agent answers on a terminal that is not its own"
        host.vanish()
    finally:
        other.close()


def line_called(path: str) -> Line:
    """A new pseudo-terminal that gets the number of one that was closed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        line = Line()
        if line.path == path:
            return line
        line.close()
        time.sleep(0.01)
    pytest.skip(f"another process has {path} now")


def test_line_that_is_missing_or_held_is_named(start: Start, line: Line) -> None:
    missing = start("--tty", "/dev/ttyNOPE", greet=False, command="run")
    assert missing.process.wait(10) == 3
    text = "edge-agent: failed at stage tty: No such file or directory: /dev/ttyNOPE\n"
    assert missing.stderr() == text
    fcntl.flock(line.theirs, fcntl.LOCK_EX)
    held = start("--tty", line.path, greet=False, command="run")
    assert held.process.wait(10) == 3
    text = f"edge-agent: failed at stage tty: {line.path} is held by another program\n"
    assert held.stderr() == text
    odd = start("--tty", line.path, "--baud", "12345", greet=False, command="run")
    assert odd.process.wait(10) == 3
    assert "no baud rate 12345 on this system" in odd.stderr()


def test_hosts_push_the_same_bundle_at_once(daemon: AgentProcess, start: Start) -> None:
    bundle = EchoBundle(os.urandom(400_000))
    agents = [start(), start()]
    failed: list[Exception] = []

    def work(agent: AgentProcess) -> None:
        try:
            push(agent, bundle, chunk=10_000)
        except Exception as exc:  # noqa: BLE001 - shown by the assertion below
            failed.append(exc)

    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert agents[0].ask("check", bundle=bundle.id).meta["passed"]


def test_half_frame_of_a_killed_host_does_not_swallow_the_next_greeting(
    start: Start, line: Line
) -> None:
    wait_until_ready(start("--tty", line.path, command="run", greet=False))
    killed = LineHost(line.ours)
    killed.ask("hello", **HELLO)
    killed.write(encode_frame(Frame({"op": "run", "id": 7}, bytes(8 << 20)))[:3000])
    time.sleep(0.2)
    killed.vanish()
    os.write(line.ours, b"\0" + bytes(range(1, 200)))
    talk = LineHost(line.ours, seed=2)
    assert talk.ask("hello", **HELLO).meta["ok"]
    talk.hang_up()


def test_silent_host_gives_way_to_one_that_waits(
    agent_modules: Callable[[str], Any],
    start: Start,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A host behind a link that was cut without a word looks just like this one."""
    links, stdio = agent_modules("edge_agent.links"), agent_modules("edge_agent.stdio")
    monkeypatch.setattr(links, "_GIVE_WAY_S", 0.6)
    monkeypatch.setattr(links, "_GIVE_WAY_LOOK_S", 0.1)
    reading, host_writes = os.pipe()
    host_reads, writing = os.pipe()
    serving = threading.Thread(
        target=stdio.run_stdio,
        args=(str(state), ""),
        kwargs={"reading": reading, "writing": writing, "idle_exit_s": None},
    )
    serving.start()
    silent = Talk(host_reads, host_writes)
    assert silent.ask("hello", **HELLO).meta["ok"]
    time.sleep(1.2)
    assert silent.ask("status").meta["ok"], "nobody waits: silence is no reason to go"
    newcomer = start(greet=False)
    assert newcomer.ask("hello", **HELLO).meta["ok"]
    serving.join(5)
    assert not serving.is_alive()
    for fd in (reading, host_writes, host_reads, writing):
        os.close(fd)


def test_full_disk_does_not_keep_the_agent_from_starting(
    agent_modules: Callable[[str], Any],
    start: Start,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has to start to free the disk."""
    start().hang_up()
    fs, locks = agent_modules("edge_agent.fs"), agent_modules("edge_agent.lock")
    (state / "lock.wanted").unlink()

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    root = fs.Folder.open_state(str(state))
    real_open = os.open
    with monkeypatch.context() as patch:
        patch.setattr(
            os,
            "open",
            lambda name, flags, *a, **k: (
                full()
                if "wanted" in name or flags & os.O_WRONLY
                else real_open(name, flags, *a, **k)
            ),
        )
        lock = locks.Lock(root)
        assert lock.take()
    assert not lock.is_wanted()
    assert not locks.Lock(root).take()
    lock.release()
    assert locks.Lock(root).take()
    root.close()
