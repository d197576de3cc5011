"""Where parts of the agent meet that know little of each other."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame, encode_frame
from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside, load_modules


@pytest.fixture
def inside(agent_modules: Callable[[str], Any], tmp_path: Path) -> Iterator[Inside]:
    modules = load_modules(agent_modules)
    found = Inside(modules, tmp_path / "state", python=sys.executable, daemon=True)
    yield found
    found.agent.close()


def eventually(holds: Callable[[], bool]) -> bool:
    """Say whether something comes true within a few seconds."""
    deadline = time.monotonic() + 5
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# -- sockets -----------------------------------------------------------------------------------


def test_lanes_leave_the_umask_of_other_threads_alone(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(os, "umask", lambda mask: seen.append(mask) or 0)
    assert inside.ask("lanes").meta["ok"]
    assert not seen
    mode = (tmp_path / "state" / "lanes.sock").lstat().st_mode
    assert stat.S_IMODE(mode) == 0o600


class Short:
    """A socket whose first connections find the process short of something."""

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.refused = 0

    def accept(self) -> Any:
        if self.refused < 2:
            self.refused += 1
            raise OSError(24, "Too many open files")
        return self.server.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)


def asked(path: Path) -> bool:
    """Say whether somebody takes a connection there, and closes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(5)
        link.connect(str(path))
        link.shutdown(socket.SHUT_WR)
        return link.recv(1) == b""


@pytest.mark.parametrize("short_of", ["descriptors", "threads"])
def test_lanes_come_in_again_once_there_are_descriptors_and_threads(
    inside: Inside,
    agent_modules: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    short_of: str,
) -> None:
    links = agent_modules("edge_agent.links")
    listen = links.listen
    if short_of == "descriptors":
        monkeypatch.setattr(links, "listen", lambda *words: Short(listen(*words)))
    assert inside.ask("lanes").meta["ok"]
    if short_of == "threads":
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        assert asked(tmp_path / "state" / "lanes.sock")
        monkeypatch.setattr(threading.Thread, "start", start)
    assert asked(tmp_path / "state" / "lanes.sock")
    assert asked(tmp_path / "state" / "lanes.sock")


@pytest.mark.parametrize("short_of", ["descriptors", "threads"])
def test_applications_come_in_again_once_there_are_descriptors_and_threads(
    inside: Inside,
    agent_modules: Callable[[str], Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    short_of: str,
) -> None:
    doors_module = agent_modules("edge_agent.serving_doors")
    path = tmp_path / "app.sock"
    doors = doors_module.Doors()
    doors._path = str(path)
    if short_of == "descriptors":
        listen = doors._listen
        monkeypatch.setattr(doors, "_listen", lambda where: Short(listen(where)))
    doors.open(inside.agent)
    if short_of == "threads":
        start = threading.Thread.start

        def fail(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", fail)
        assert asked(path)
        monkeypatch.setattr(threading.Thread, "start", start)
    assert asked(path)
    assert asked(path)
    doors.close()


# -- waiting -----------------------------------------------------------------------------------


def test_who_waits_for_long_is_not_taken_for_stuck(
    inside: Inside, agent_modules: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    serve, watchdog = agent_modules("edge_agent.serve"), agent_modules("edge_agent.watchdog")
    holding = agent_modules("edge_agent.holding")
    inside.agent.hold.take(holding.Peer(), "deploy", wait_s=0, cancelled=lambda: False)
    over = threading.Event()

    def host() -> None:
        waits = watchdog.vitals.promise(0.05, "answering hold")
        with waits, contextlib.suppress(inside.modules["refusals"].Cancelled):
            inside.agent.hold.take(serve.Peer(), "", wait_s=60, cancelled=over.is_set)

    def application() -> None:
        with watchdog.vitals.promise(0.05, "answering infer"), turns.turn("b", None):
            pass

    turns = agent_modules("edge_agent.serving_queue").Turns(4, 4)
    threads = [threading.Thread(target=work, daemon=True) for work in (host, application)]
    with turns.turn("a", None):
        for thread in threads:
            thread.start()
        assert eventually(lambda: turns.waiting == 1)
        time.sleep(0.4)
        assert not watchdog.vitals.faults()
        over.set()
    threads[1].join(5)


def test_look_that_waits_for_applications_gives_way(inside: Inside) -> None:
    bundle, second = EchoBundle(b"good"), EchoBundle(b"new")
    for each in (bundle, second):
        assert inside.push(each) is None
        assert inside.ask("check", bundle=each.id).meta["passed"]
        assert inside.ask("activate", bundle=each.id).meta["ok"]
    agent = inside.agent
    agent.watch._due = agent.supervisor._idle_since = 0.0
    with agent.serving._turns.turn("a long inference", None):
        look = threading.Thread(target=agent.watch.step, daemon=True)
        look.start()
        assert eventually(lambda: agent.serving._turns.waiting == 1)
        assert agent.supervisor.idle_s() == 0.0, "the look has the worker"
        # a host that needs no silence of applications does not wait for one
        with agent.worker_turn(inside.ctx):
            pass
        look.join(5)
        assert not look.is_alive()
    assert agent.slots.probation()["failures"] == 0


def test_look_gives_way_to_who_comes_just_when_it_begins(inside: Inside) -> None:
    agent, turn = inside.agent, inside.agent.supervisor.turn

    def turn_that_is_wanted(who: str) -> Any:
        agent.watch.give_way()
        return turn(who)

    agent.supervisor.turn = turn_that_is_wanted
    judged: list[bool] = []
    agent.watch._judge = lambda look, bundle: judged.append(look.is_cancelled())
    agent.watch._try("a" * 64)
    assert judged == [True]


@pytest.mark.parametrize("op", ["bench", "pair", "profile"])
def test_measurement_that_waits_for_applications_ends_with_its_host(
    inside: Inside, op: str
) -> None:
    agent = inside.agent
    refusals = inside.modules["refusals"]
    ctx = inside.modules["serve"].Context(op, lambda meta: None)
    with agent.serving._turns.turn("a long inference", None):
        ended: list[str] = []

        def ask() -> None:
            try:
                with agent.worker_turn(ctx, "a" * 64, {}):
                    ended.append("measured")
            except refusals.Cancelled:
                ended.append("cancelled")

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        assert eventually(lambda: agent.serving._turns.waiting == 1)
        ctx.cancel()
        thread.join(5)
        assert ended == ["cancelled"]


# -- what is deployed --------------------------------------------------------------------------


def test_release_that_is_tidied_away_meanwhile_does_not_become_current(inside: Inside) -> None:
    first, second, third = (EchoBundle(data) for data in (b"one", b"two", b"three"))
    for bundle in (first, second, third):
        assert inside.deploy(bundle) is None
    agent, part_paths = inside.agent, inside.agent.releases.part_paths

    def prove(*words: Any) -> Any:
        found = part_paths(*words)
        agent.releases.collect(0)  # another host's `gc`, just then
        return found

    agent.probation.confirm(third.id)
    agent.releases.part_paths = prove
    reply = inside.ask("activate", bundle=first.id).meta
    assert reply["code"] == "not-found"
    agent.releases.part_paths = part_paths
    assert inside.current() == third.id


# -- conversations -----------------------------------------------------------------------------


class Blocked:
    """A conversation whose first request is being answered until ``go``."""

    def __init__(self, serve: Any, meta: dict[str, Any], body: bytes = b"") -> None:
        self.go = threading.Event()
        self.reads = 0
        self._meta, self._body = meta, body
        self.answered = 0
        self.talk = serve.Conversation(
            None, read=self._read, write=lambda data: None, answer=self._answer
        )

    def _read(self) -> bytes:
        if self.go.is_set():
            return b""
        self.reads += 1
        return encode_frame(Frame({"id": self.reads, **self._meta}, self._body))

    def _answer(self, agent: Any, ctx: Any, request: Frame) -> Frame:
        self.go.wait(20)
        self.answered += 1
        return Frame({"id": request.meta["id"]})


@pytest.mark.parametrize(
    ("meta_bytes", "body_bytes", "most"), [(10, 0, 1030), (1 << 19, 0, 12), (10, 1 << 20, 8)]
)
def test_requests_that_wait_are_bounded_in_number_and_bytes(
    inside: Inside, meta_bytes: int, body_bytes: int, most: int
) -> None:
    meta = {"op": "x" * meta_bytes}
    blocked = Blocked(inside.modules["serve"], meta, bytes(body_bytes))
    thread = threading.Thread(target=blocked.talk.serve, daemon=True)
    thread.start()
    seen = -1
    while seen != blocked.reads and blocked.reads < 4 * most:
        seen = blocked.reads
        time.sleep(0.3)
    assert 0 < blocked.reads <= most
    blocked.go.set()
    thread.join(10)
    assert blocked.answered == blocked.reads, "what was asked is answered all the same"


def test_link_for_which_there_is_no_thread_leaves_none_behind(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "alive":
            raise RuntimeError("can't start new thread")
        start(thread)

    def names() -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    before = names().count("answer")
    monkeypatch.setattr(threading.Thread, "start", fail)
    talk = Blocked(inside.modules["serve"], {"op": "ping"}).talk
    with pytest.raises(RuntimeError):
        talk.serve()
    assert names().count("answer") == before


def test_host_that_hangs_up_ends_its_inference_of_a_candidate(inside: Inside) -> None:
    slow = EchoBundle(options={"delay_ms": 60_000})
    assert inside.push(slow) is None
    request = {"op": "infer", "release": "candidate", "timeout_s": 600.0}
    spec = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}
    asked = encode_frame(Frame({"id": 1, **request, "tensors": [spec]}, bytes(8)))
    feed = [asked]
    supervisor = inside.agent.supervisor

    def read() -> bytes:
        if feed:
            return feed.pop()
        assert eventually(lambda: supervisor.state() is not None)
        return b""

    talk = inside.modules["serve"].Conversation(
        inside.agent, read=read, write=lambda data: None
    )
    thread = threading.Thread(target=talk.serve, daemon=True)
    thread.start()
    thread.join(15)
    ended = not thread.is_alive()
    supervisor.interrupt()
    thread.join(15)
    assert ended
    assert supervisor.state() is None


@pytest.mark.parametrize(
    "seconds",
    [10**400, -(10**400), float("inf"), float("nan")],
    ids=["huge", "minus huge", "inf", "nan"],
)
def test_numbers_that_no_float_holds_are_refused(
    agent_modules: Callable[[str], Any], seconds: float
) -> None:
    asking, refusals = agent_modules("edge_agent.asking"), agent_modules("edge_agent.refusals")
    with pytest.raises(refusals.Refused, match="a number from 0 to 10"):
        asking.number({"timeout_s": seconds}, "timeout_s", 0, 10)


# -- descriptors -------------------------------------------------------------------------------


def test_staging_file_that_cannot_be_read_keeps_no_descriptor(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"some weights"
    sha256 = hashlib.sha256(data).hexdigest()
    assert inside.ask("stage", (bundle := EchoBundle(data)).data, bundle=bundle.id).meta["ok"]
    put = {"sha256": sha256, "bytes": len(data), "offset": 0}
    read = os.read

    def fail(fd: int, count: int) -> bytes:
        if "staging" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        return read(fd, count)

    monkeypatch.setattr(os, "read", fail)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert inside.ask("put", data, **put).meta["code"] == "disk-error"
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(os, "read", read)
    assert inside.ask("put", data, **put).meta["done"]


def test_closed_folder_is_never_another_one(
    agent_modules: Callable[[str], Any], tmp_path: Path
) -> None:
    fs = agent_modules("edge_agent.fs")
    root = fs.Folder.open_state(str(tmp_path / "state"))
    folder = root.sub("blobs")
    number = folder.fd
    folder.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").touch()
    other = os.open(tmp_path / "other", os.O_RDONLY)
    assert other == number, "the case that is tried"
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder.remove("mine")
    os.close(other)
    root.close()


def test_end_waits_for_a_chunk_that_is_being_written(inside: Inside) -> None:
    data = b"some weights"
    assert inside.ask("stage", (bundle := EchoBundle(data)).data, bundle=bundle.id).meta["ok"]
    store, written = inside.agent.store, threading.Event()

    def write() -> None:
        with store.lock:
            landing = store._landing(hashlib.sha256(data).hexdigest(), len(data))
            begun.set()
            time.sleep(0.2)
            os.fstat(landing.fd)
            written.set()

    begun = threading.Event()
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert begun.wait(5)
    store.close()
    inside.agent.store.close = lambda: None
    assert written.is_set()
    thread.join(5)


def test_what_is_remembered_of_pushes_is_bounded(inside: Inside) -> None:
    for number in range(30):
        bundle = EchoBundle(str(number).encode())
        assert inside.ask("stage", bundle.data, bundle=bundle.id).meta["ok"]
    assert len(inside.agent.store._used) <= 9
