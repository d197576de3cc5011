"""The daemon over months: its watchdog, its log, and disks and clocks that misbehave."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import (
    EchoBundle,
    SocketTalk,
    Start,
    Talk,
    current,
    deploy,
    push,
    stage,
    wait_until_gone,
)

Modules = Callable[[str], Any]
DEVICE_AGENTS = Path(__file__).parents[2] / "device_agents"


class Manager:
    """The service manager's end of sd_notify."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.seen: list[str] = []

    def wait_for(self, text: str, timeout_s: float = 20) -> str:
        deadline = time.monotonic() + timeout_s
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                message = self.socket.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"no {text!r} in {self.seen}") from None
            self.seen.append(message)
            if text in message:
                return message

    def is_fed_within(self, timeout_s: float) -> bool:
        try:
            self.wait_for("WATCHDOG=1", timeout_s)
        except AssertionError:
            return False
        return True


@pytest.fixture
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    in_folder = getattr(request, "param", "abstract") == "path"
    made = Manager(str(tmp_path / "notify") if in_folder else f"@edge-{secrets.token_hex(8)}")
    yield made
    made.socket.close()


def watched(manager: Manager, period_s: float = 0.6) -> dict[str, str]:
    period_us = str(int(period_s * 1e6))
    return {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": period_us}


@pytest.mark.parametrize("manager", ["abstract", "path"], indirect=True)
def test_daemon_tells_the_manager_how_it_is(
    start: Start, state: Path, manager: Manager
) -> None:
    daemon = start(command="run", greet=False, env=watched(manager))
    assert manager.wait_for("READY=1") == f"READY=1\nSTATUS=serving {state}"
    for _ in range(3):
        manager.wait_for("WATCHDOG=1")
    talk = SocketTalk(state)
    deploy(talk, EchoBundle())
    worker = talk.ask("status").meta["worker"]["pid"]
    given = Path(f"/proc/{worker}/environ").read_bytes()
    assert b"NOTIFY_SOCKET" not in given
    assert b"WATCHDOG" not in given
    talk.close()
    daemon.process.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    assert daemon.process.wait(10) == 0


def test_manager_is_told_whom_a_start_waits_for(
    start: Start, state: Path, manager: Manager
) -> None:
    served = start()
    start(command="run", greet=False, env=watched(manager))
    told = manager.wait_for("STATUS=")
    assert told.startswith(
        f"STATUS=waiting for process {served.process.pid}, which serves {state}\n"
    )
    assert "EXTEND_TIMEOUT_USEC=" in told
    assert served.hang_up() == 0
    manager.wait_for("READY=1")


#: Runs the agent with some of its names changed.
CHANGED = """
import sys, time
sys.path[:0] = {paths!r}
from edge_agent import handlers, serve, starting
{change}
from edge_agent.__main__ import main
sys.exit(main(["run", "--state", {state!r}]))
"""


@contextlib.contextmanager
def changed_daemon(
    change: str, state: Path, manager: Manager
) -> Iterator[subprocess.Popen[bytes]]:
    paths = [str(DEVICE_AGENTS), str(DEVICE_AGENTS.parent)]
    with (state.parent / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                CHANGED.format(paths=paths, change=change, state=str(state)),
            ],
            env={**os.environ, **watched(manager)},
            stderr=stderr,
            stdin=subprocess.DEVNULL,
        )
    try:
        manager.wait_for("READY=1")
        yield process
    finally:
        process.kill()
        process.wait()


def test_wedged_answer_stops_the_feeding_and_leaves_its_place(
    state: Path, manager: Manager
) -> None:
    change = "serve._ANSWER_S = 0.3; handlers.HANDLERS['logs'] = lambda *_: time.sleep(600)"
    with changed_daemon(change, state, manager) as process:
        assert manager.is_fed_within(20)
        stuck, well = SocketTalk(state), SocketTalk(state)
        stuck.send("logs", lines=1)
        assert manager.wait_for("STATUS=stuck") == (
            "STATUS=stuck: answering logs takes longer than 0.3 s"
        )
        assert not manager.is_fed_within(1.0)
        assert well.ask("status").meta["ok"], "the others are still served"
        process.send_signal(signal.SIGABRT)  # as systemd does
        assert process.wait(10) == -signal.SIGABRT
        assert "in _answer\n" in (state.parent / "stderr").read_text()
        stuck.close()
        well.close()


def test_host_that_reads_nothing_is_not_taken_for_a_wedge(agent_modules: Modules) -> None:
    clock = [0.0]
    vitals = agent_modules("edge_agent.vitals").Vitals(lambda: clock[0])
    with vitals.promise(10, "answering run"):
        with vitals.promise(100, "waiting for a worker"):
            clock[0] = 99
            assert vitals.faults() == []
            clock[0] = 101
            assert vitals.faults() == ["waiting for a worker takes longer than 100 s"]
            vitals.renew(50)
            assert vitals.faults() == []
        clock[0] = 110
        assert vitals.faults() == [], "what is left of it gets its time again"
        with vitals.waiting():
            clock[0] = 1e6
            assert vitals.faults() == []
        clock[0] += 10.5
        assert vitals.faults() == ["answering run takes longer than 10 s"]
    assert vitals.faults() == []


def test_thread_that_must_live_is_missed(agent_modules: Modules) -> None:
    vitals = agent_modules("edge_agent.vitals").Vitals()
    thread = threading.Thread(target=lambda: None, name="accept")
    thread.start()
    thread.join()
    vitals.need(thread)
    assert vitals.faults() == ["thread accept has ended"]
    vitals.release(thread)
    assert vitals.faults() == []


def test_watchdog_is_not_fed_without_an_answer_and_recovers(
    agent_modules: Modules, manager: Manager
) -> None:
    module = agent_modules("edge_agent.watchdog")
    answers = [True]
    said: list[str] = []
    dog = module.Watchdog(
        module.Notifier(manager.address, 30.0),
        lambda wait_s: answers[0] and wait_s == 10.0,
        said.append,
        agent_modules("edge_agent.vitals").Vitals(),
    )
    assert dog.look()
    manager.wait_for("WATCHDOG=1")
    answers[0] = False
    assert not dog.look()
    manager.wait_for("STATUS=stuck: the agent does not answer on its own socket")
    assert not dog.look()
    answers[0] = True
    assert dog.look()
    assert said == [
        "watchdog: not fed: the agent does not answer on its own socket",
        "watchdog: well again",
    ]


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "/nowhere/at/all", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "-5"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_manager_that_asks_for_nothing_gets_nothing(
    agent_modules: Modules, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    notifier = agent_modules("edge_agent.watchdog").Notifier.from_environment()
    assert notifier.watchdog_s is None
    assert notifier.tell(READY=1) is False
    assert not [name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))]


# -- connections and workers -----------------------------------------------------------------


def test_daemon_out_of_descriptors_goes_on_once_it_has_some(
    start: Start, state: Path, manager: Manager
) -> None:
    daemon = start(command="run", greet=False, env=watched(manager))
    manager.wait_for("READY=1")
    pid = daemon.process.pid
    soft = len(os.listdir(f"/proc/{pid}/fd")) + 3
    subprocess.run(
        ["prlimit", f"--pid={pid}", f"--nofile={soft}:"], check=True, stdin=subprocess.DEVNULL
    )
    talks = [SocketTalk(state) for _ in range(8)]
    time.sleep(0.5)
    for talk in talks:
        talk.close()
    subprocess.run(["prlimit", f"--pid={pid}", "--nofile=512:"], check=True)
    talk = SocketTalk(state)
    assert talk.ask("status").meta["agent"]["pid"] == pid
    talk.close()
    assert manager.is_fed_within(20)


def test_agent_without_a_descriptor_for_its_question_counts_as_silent(
    agent_modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that feeds the watchdog goes on: it may ask again, once there are some."""
    links = agent_modules("edge_agent.links")

    def none_left(*_: Any) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(links.socket, "socket", none_left)
    assert links.connect(str(tmp_path), -1, timeout_s=1.0) is None


def test_hosts_over_the_limit_are_turned_away_and_the_rest_is_served(
    start: Start, state: Path
) -> None:
    daemon = start(command="run", greet=False)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    talks = [SocketTalk(state) for _ in range(64)]
    assert talks[-1].ask("ping").meta["ok"]
    over = SocketTalk(state)
    with pytest.raises((EOFError, BrokenPipeError, ConnectionResetError)):
        over.ask("ping")
    over.close()
    talks.pop().close()
    time.sleep(0.3)
    talks.append(SocketTalk(state))
    assert talks[-1].ask("ping").meta["ok"]
    for talk in talks:
        talk.close()


def test_worker_that_died_by_itself_is_collected(state: Path, manager: Manager) -> None:
    with changed_daemon("starting._IDLE_CHECK_S = 0.2", state, manager):
        talk = SocketTalk(state)
        deploy(talk, EchoBundle())
        worker = talk.ask("status").meta["worker"]["pid"]
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline, "a zombie stays"
            time.sleep(0.1)
        assert talk.ask("status").meta["worker"] is None
        assert talk.ask("check", force=True, bundle=current(talk)).meta["passed"]
        talk.close()


def test_process_that_a_driver_holds_does_not_hold_the_agent(
    agent_modules: Modules, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process in uninterruptible sleep outlives SIGKILL; one that is stopped stands in."""
    child = agent_modules("edge_agent.child")
    monkeypatch.setattr(child, "_BURIAL_S", 0.2)
    worker = child.Worker(sys.executable, str(tmp_path))
    monkeypatch.setattr(worker, "_kill_group", lambda: os.killpg(worker.pid, signal.SIGSTOP))
    worker.close()
    assert [process.pid for process in child._lingering] == [worker.pid]
    child.bury()
    assert child._lingering != []
    os.killpg(worker.pid, signal.SIGKILL)
    wait_until_gone(worker.pid)
    worker._drain.join(5)
    child.bury()
    assert child._lingering == []
    assert not Path(f"/proc/{worker.pid}").exists()


# -- the log ---------------------------------------------------------------------------------


@pytest.fixture
def log(agent_modules: Modules, tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "logs").mkdir(mode=0o700)
    folder = agent_modules("edge_agent.fs").Folder.open_state(str(tmp_path / "logs"))
    made = agent_modules("edge_agent.logs").Log(folder)
    yield made
    made.close()


def log_size(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "logs").iterdir())


def test_log_rotates_and_stays_small(
    agent_modules: Modules, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_modules("edge_agent.logs"), "_LINES_PER_S", 1e9)
    for number in range(3000):
        log.write(f"line {number} " + "x" * 400)
    assert log_size(tmp_path) <= 2 * ((256 << 10) + 600)
    assert {path.name for path in (tmp_path / "logs").iterdir()} <= {
        "agent.log",
        "agent.log.1",
    }
    assert f"line {2999}" in log.tail(1)[0]
    assert len(log.tail(5000)) <= 1000


def test_log_that_cannot_be_renamed_does_not_grow_for_ever(
    agent_modules: Modules, log: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = agent_modules("edge_agent.logs")
    monkeypatch.setattr(logs, "_LINES_PER_S", 1e9)
    (tmp_path / "logs" / "agent.log.1").mkdir()
    for number in range(4000):
        log.write(f"line {number} " + "x" * 400)
    assert log_size(tmp_path) <= 3 * (256 << 10) + 4096
    assert "line 3999" in log.tail(1)[0]


def test_flood_of_lines_is_counted_not_written(log: Any, tmp_path: Path) -> None:
    """Flash memory wears out; a host that asks nonsense in a loop must not do that."""
    for number in range(20_000):
        log.write(f"line {number}")
    assert log_size(tmp_path) < 100_000
    log._allowed = 5.0
    log.write("quiet again")
    before, last = log.tail(2)
    assert re.search(r"\] \d{5} lines were left out here$", before)
    assert last.endswith("] quiet again")


def test_log_says_that_the_clock_was_set(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    log.write("before")
    monkeypatch.setattr(time, "time", lambda: real() + 1.6e9)
    log.write("in the future")
    monkeypatch.setattr(time, "time", real)
    log.write("and back")
    assert [re.sub(r"^\S+ \[\d+\] ", "", line) for line in log.tail(9)] == [
        "before",
        "the clock moved by +1600000000 s (set, or asleep)",
        "in the future",
        "the clock moved by -1600000000 s (set, or asleep)",
        "and back",
    ]


def test_half_a_line_on_a_full_disk_spoils_no_other(
    agent_modules: Modules, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = agent_modules("edge_agent.logs")
    log.write("first")
    with monkeypatch.context() as patch:
        patch.setattr(logs.calls, "write", lambda fd, data: os.write(fd, data[:30]))
        log.write("cut short")
        patch.setattr(logs.calls, "write", lambda fd, data: 1 / 0 if fd < 0 else full())
        log.write("lost")
    log.write("last")
    texts = [line.rpartition("] ")[2] for line in log.tail(9)]
    assert texts[0] == "first"
    assert texts[-1] == "last"
    assert len(texts) == 3


def full() -> int:
    raise OSError(28, "No space left on device")


def test_only_people_are_shown_the_wall_clock() -> None:
    """A board without a battery starts in 1970 and jumps: nothing may be ordered by it."""
    found = {
        path.name
        for path in (DEVICE_AGENTS / "edge_agent").rglob("*.py")
        if re.search(r"\btime\.(time|time_ns|localtime)\(|datetime", path.read_text())
    }
    # a key may be good for a span of dates only, as ssh-keygen has it
    assert found <= {"logs.py", "policy.py"}


# -- disks -----------------------------------------------------------------------------------


class Disk:
    """A small disk of its own for one daemon, in a mount namespace of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.root = Path(f"/proc/{process.pid}/root/mnt")
        self.state = self.root / "state"

    def remount(self, how: str) -> None:
        command = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "mount"]
        subprocess.run([*command, "-o", f"remount,{how}", "/mnt"], check=True)


@pytest.fixture
def disk(agent_pyz: Path, oldest_python: str) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can make a disk of its own for a daemon (unshare, mount)")
    made = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation=private", "sh", "-c"),
            'mount -t tmpfs -o size=40m,nr_inodes=120 none /mnt && exec "$@"',
            *("sh", oldest_python, "-I", "-S", str(agent_pyz), "run", "--state", "/mnt/state"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        assert made.stderr is not None
        line = made.stderr.readline()
        if line != b"edge-agent: ready\n":
            pytest.skip(f"no disk can be mounted here: {line.decode().strip()}")
        yield Disk(made)
    finally:
        made.terminate()
        made.wait(10)
        made.stderr.close()


@contextlib.contextmanager
def used_up(folder: Path, size: int) -> Iterator[None]:
    """Make files of that size until no more can be made."""
    folder.mkdir()
    with contextlib.suppress(OSError):
        for number in range(10_000):
            (folder / str(number)).write_bytes(b"\0" * size)
    yield
    shutil.rmtree(folder)


def is_refused(talk: Talk, bundle: EchoBundle) -> str:
    """Push a bundle and give the code that says why that cannot be."""
    with contextlib.suppress(AssertionError):
        push(talk, bundle)
        raise RuntimeError("it was taken")
    reply = talk.ask("stage", bundle.data, bundle=bundle.id).meta
    if reply["ok"]:  # room for the manifest, but not for the rest
        sha256, data = next(iter(bundle.blobs.items()))
        reply = talk.ask("put", data, sha256=sha256, bytes=len(data), offset=0).meta
    assert not reply["ok"]
    return str(reply["code"])


def test_daemon_outlives_its_disk_full_without_inodes_and_read_only(disk: Disk) -> None:
    talk = SocketTalk(disk.state)
    deploy(talk, first := EchoBundle(b"first"))

    def still_serves() -> None:
        assert talk.ask("ping").meta["ok"]
        assert current(talk) == first.id
        assert talk.ask("logs", lines=5).meta["ok"]

    disk.remount("ro")
    assert is_refused(talk, EchoBundle(b"second")) == "read-only"
    assert not talk.ask("rollback").meta["ok"]
    still_serves()
    talk.ask("gc", budget_bytes=0)
    disk.remount("rw")
    push(talk, EchoBundle(b"second"))
    still_serves()

    for size in (0, 1 << 20):
        with used_up(disk.root / "filler", size):
            assert is_refused(talk, EchoBundle(b"third %d" % size)) == "no-space"
            still_serves()
            assert talk.ask("gc").meta["ok"]
        push(talk, EchoBundle(b"third %d" % size))
        still_serves()
    assert stage(talk, EchoBundle(b"fourth"))
    assert disk.process.poll() is None
    talk.close()
