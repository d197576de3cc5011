"""Applications are answered by the current release, whatever happens to it meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame
from tests.agent import inside as inside_process
from tests.agent.agent_driver import (
    ONE,
    AgentProcess,
    EchoBundle,
    SocketTalk,
    Start,
    current,
    deploy,
    push,
)

X = [{"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}]
ZERO = bytes(8)


@pytest.fixture
def daemon(start: Start) -> AgentProcess:
    return start_daemon(start)


def start_daemon(start: Start, *arguments: str) -> AgentProcess:
    daemon = start(*arguments, command="run", greet=False)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    return daemon


@pytest.fixture
def talk(daemon: AgentProcess, state: Path) -> Iterator[SocketTalk]:
    talk = SocketTalk(state)
    yield talk
    talk.close()


def infer(talk: Any, body: bytes = ONE, **meta: Any) -> Frame:
    frame: Frame = talk.ask("infer", body, **{"tensors": X, **meta})
    return frame


def serving(talk: Any) -> dict[str, Any]:
    found: dict[str, Any] = talk.ask("status").meta["serving"]
    return found


def zeros(folder: Path, **more: Any) -> EchoBundle:
    """A release that answers with zeros, so that its answers can be told from an echo's."""
    (folder / "always").touch()
    options = {"wrong_if": str(folder / "always"), **more}
    return EchoBundle(b"zeros", options=options, expected=ZERO)


def wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


# -- one request -------------------------------------------------------------------------------


def test_current_release_answers_whatever_its_number_of_parts(talk: SocketTalk) -> None:
    for parts in (1, 3):
        deploy(talk, bundle := EchoBundle(os.urandom(8), parts=parts))
        wait_for(lambda bundle=bundle: infer(talk).meta["bundle"] == bundle.id)
        reply = infer(talk, ONE[::-1])
        assert reply.body == ONE[::-1]
        assert reply.meta["tensors"][0]["name"] == "y"
        assert reply.meta["run_ms"] > 0


def test_served_release_is_described_before_and_after_it_is_loaded(talk: SocketTalk) -> None:
    assert talk.ask("served").meta["code"] == "not-found"
    deploy(talk, bundle := EchoBundle(name="digits"))
    before = talk.ask("served").meta
    assert (before["bundle"], before["name"], before["ready"]) == (bundle.id, "digits", False)
    assert before["inputs"] == bundle.manifest["inputs"]
    assert infer(talk).meta["ok"]
    assert talk.ask("served").meta["ready"] is True


def test_requests_that_cannot_be_are_refused_in_words(talk: SocketTalk) -> None:
    reply = infer(talk).meta
    assert (reply["code"], reply["detail"]) == (
        "not-found",
        "cannot infer: this device has no current release: deploy one",
    )
    deploy(talk, EchoBundle())
    odd = [{**X[0], "dtype": "float32"}]
    assert infer(talk, tensors=odd).meta["code"] == "bad-data"
    assert infer(talk, tensors=[]).meta["code"] == "bad-data"
    assert infer(talk, tensors="x").meta["code"] == "bad-request"
    assert infer(talk, b"1234").meta["code"] == "bad-request"
    assert infer(talk, timeout_s=-1).meta["code"] == "bad-request"
    assert infer(talk, release="a/../b").meta["code"] == "bad-request"
    assert infer(talk).meta["ok"]


def test_another_release_than_the_current_one_answers_if_it_is_named(
    talk: SocketTalk, tmp_path: Path
) -> None:
    deploy(talk, EchoBundle())
    push(talk, other := zeros(tmp_path))
    reply = infer(talk, release="candidate")
    assert (reply.body, reply.meta["bundle"]) == (ZERO, other.id)
    assert infer(talk).body == ONE


def test_agent_without_a_daemon_serves_too(agent: AgentProcess) -> None:
    deploy(agent, EchoBundle())
    assert infer(agent).body == ONE
    assert agent.hang_up() == 0


# -- workers that die --------------------------------------------------------------------------


def test_request_whose_worker_was_killed_is_done_by_the_next(talk: SocketTalk) -> None:
    deploy(talk, EchoBundle())
    assert infer(talk).meta["ok"]
    for _ in range(3):
        os.kill(serving(talk)["pid"], signal.SIGKILL)
        assert infer(talk).body == ONE
    assert serving(talk)["restarts"] == 3


def test_request_that_kills_every_worker_is_answered_and_others_go_on(
    talk: SocketTalk,
) -> None:
    poison = b"poison.."
    deploy(talk, EchoBundle(options={"die_on": poison.hex()}))
    assert infer(talk).meta["ok"]
    reply = infer(talk, poison).meta
    assert reply["code"] == "worker-died"
    assert reply["facts"]["signal"] == "SIGKILL"
    assert infer(talk).body == ONE
    assert serving(talk)["restarts"] == 2, "one request costs no more"


def test_release_that_cannot_run_any_more_is_tried_again_after_a_pause(
    talk: SocketTalk, tmp_path: Path
) -> None:
    deploy(talk, EchoBundle(options={"die_if": str(tmp_path / "bad")}))
    assert infer(talk).meta["ok"]
    (tmp_path / "bad").touch()
    assert infer(talk).meta["code"] == "worker-died"
    began = time.monotonic()
    assert infer(talk).meta["code"] == "worker-died"
    assert time.monotonic() - began < 1, "nobody waits for what failed a moment ago"
    assert "SIGKILL" in serving(talk)["why_not"]
    (tmp_path / "bad").unlink()
    wait_for(lambda: infer(talk).body == ONE)
    assert serving(talk)["why_not"] is None


def test_release_whose_workers_die_on_probation_is_left_and_no_request_lost(
    talk: SocketTalk, tmp_path: Path
) -> None:
    deploy(talk, good := EchoBundle(b"good"))
    assert infer(talk).meta["ok"]
    deploy(talk, bad := zeros(tmp_path, die_if=str(tmp_path / "bad")))
    wait_for(lambda: infer(talk).meta["bundle"] == bad.id)
    (tmp_path / "bad").touch()
    for _ in range(3):
        reply = infer(talk)
        assert (reply.body, reply.meta["bundle"]) == (ONE, good.id)
    assert current(talk) == good.id
    (last,) = talk.ask("status").meta["returned"]
    assert "SIGKILL" in last["why"]


def test_hung_worker_is_ended_at_the_release_s_own_limit(
    start: Start, state: Path, tmp_path: Path
) -> None:
    start(command="run", greet=False, env={"EDGE_AGENT_WORKER_RUN_S": "1"})
    wait_for((state / "agent.sock").exists)
    talk = SocketTalk(state)
    deploy(talk, EchoBundle(options={"hang_if": str(tmp_path / "hang")}))
    assert infer(talk).meta["ok"]
    (tmp_path / "hang").touch()
    assert infer(talk).meta["code"] == "worker-timeout"
    (tmp_path / "hang").unlink()
    assert infer(talk).body == ONE
    talk.close()


# -- many requests -----------------------------------------------------------------------------


class Firing:
    """Threads that ask without a pause, and keep what they were told."""

    def __init__(self, state: Path, count: int) -> None:
        self.over = threading.Event()
        self.answers: list[tuple[float, Frame]] = []
        self.failed: list[BaseException] = []
        self.threads = [
            threading.Thread(target=self._fire, args=(state,)) for _ in range(count)
        ]

    def _fire(self, state: Path) -> None:
        talk = SocketTalk(state)
        try:
            while not self.over.is_set():
                began = time.monotonic()
                reply = infer(talk)
                self.answers.append((time.monotonic() - began, reply))
        except BaseException as exc:  # noqa: BLE001 - shown by the test
            self.failed.append(exc)
        finally:
            talk.close()

    def __enter__(self) -> Firing:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def switch_under_fire(
    talk: SocketTalk, state: Path, folder: Path, *, switches: int, kill_every: int
) -> None:
    """Switch back and forth while threads ask; answers are wholly of the release they name."""
    echo, zero = EchoBundle(b"echo"), zeros(folder)
    deploy(talk, echo)
    deploy(talk, zero)
    assert talk.ask("confirm").meta["ok"]
    assert infer(talk).meta["ok"]
    kills = 0
    with Firing(state, 3) as firing:
        for number in range(switches):
            before = serving(talk)["switches"]
            assert talk.ask("rollback").meta["ok"]
            assert talk.ask("confirm").meta["ok"]
            if kill_every and number % kill_every == kill_every // 2:
                with contextlib.suppress(ProcessLookupError, TypeError):
                    os.kill(serving(talk)["pid"], signal.SIGKILL)
                    kills += 1
            wait_for(
                lambda before=before: (
                    serving(talk)["switches"] > before
                    or serving(talk)["bundle"] == current(talk)
                )
            )
    assert firing.failed == []
    expected = {echo.id: ONE, zero.id: ZERO}
    refused = [reply.meta for _, reply in firing.answers if not reply.meta["ok"]]
    assert refused == []
    mixed = [r.meta for _, r in firing.answers if expected[r.meta["bundle"]] != r.body]
    assert mixed == []
    assert not kill_every or kills >= switches // kill_every - 1
    assert {r.meta["bundle"] for _, r in firing.answers} == {echo.id, zero.id}
    assert infer(talk).meta["bundle"] == current(talk)
    took = sorted(seconds for seconds, _ in firing.answers)
    print(
        f"\n{len(took)} requests, {switches} switches, {kills} kills, 0 lost: "
        f"median {took[len(took) // 2] * 1e3:.2f} ms, longest {took[-1] * 1e3:.0f} ms"
    )


@pytest.mark.slow
def test_no_request_is_lost_over_twenty_switches_and_killed_workers(
    talk: SocketTalk, state: Path, tmp_path: Path
) -> None:
    switch_under_fire(talk, state, tmp_path, switches=20, kill_every=5)


@pytest.mark.faults
@pytest.mark.parametrize("kill_every", [0, 3])
def test_no_request_is_lost_over_two_hundred_switches(
    talk: SocketTalk, state: Path, tmp_path: Path, kill_every: int
) -> None:
    switch_under_fire(talk, state, tmp_path, switches=200, kill_every=kill_every)


def test_more_requests_than_may_wait_are_told_so(
    agent_modules: Callable[[str], Any],
) -> None:
    turns = agent_modules("edge_agent.serving_queue").Turns(2, 100)
    refused = agent_modules("edge_agent.refusals").Refused
    order: list[str] = []

    def wait(name: str, first: bool = False) -> None:
        with turns.turn(name, None, nbytes=40, first=first):
            order.append(name)

    with turns.turn("a long one", None):
        threads = []
        for number, name in enumerate(("one", "two")):
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            wait_for(lambda number=number: turns.waiting == number + 1)
        with pytest.raises(refused, match="2 requests wait already for a long one") as caught:
            wait("three")
        assert caught.value.code == "busy"
        threads.append(threading.Thread(target=wait, args=("ahead", True)))
        threads[-1].start()
        wait_for(lambda: turns.waiting == 3)
    for thread in threads:
        thread.join()
    assert order == ["ahead", "one", "two"]
    assert turns.waiting == 0
    with turns.turn("large", None):
        with pytest.raises(refused):
            with turns.turn("larger", None, nbytes=101):
                raise AssertionError
        with pytest.raises(refused, match=r"waited 0\.1 s for large"):
            with turns.turn("hasty", time.monotonic() + 0.1):
                raise AssertionError
    with turns.turn("free again", time.monotonic()):
        pass


def test_host_that_measures_has_the_device_alone_and_applications_wait(
    talk: SocketTalk, start: Start
) -> None:
    deploy(talk, EchoBundle(options={"delay_ms": 1}))
    assert infer(talk).meta["ok"]
    host = start()
    host.talk.send("bench", release="current", spec={"duration_s": 1.5, "warmup_runs": 0})
    wait_for(lambda: talk.ask("status").meta["worker"] is not None)
    time.sleep(0.3)
    reply = infer(talk, timeout_s=0.2).meta
    assert reply["code"] == "busy"
    assert "for a host's bench: give it more time" in reply["detail"]
    began = time.monotonic()
    assert infer(talk).body == ONE
    assert time.monotonic() - began > 0.2, "it was answered beside the measurement"
    assert host.talk.receive().meta["ok"]


def test_client_with_a_short_time_does_not_cost_the_worker(
    talk: SocketTalk, tmp_path: Path
) -> None:
    deploy(talk, EchoBundle(options={"slow_if": str(tmp_path / "slow")}))
    assert infer(talk).meta["ok"]
    (tmp_path / "slow").touch()
    pid = serving(talk)["pid"]
    infer(talk, timeout_s=0.01)
    assert serving(talk)["pid"] == pid
    assert serving(talk)["restarts"] == 0


# -- memory ------------------------------------------------------------------------------------


class Inside(inside_process.Inside):
    """An agent in this process, whose memory the test decides on."""

    def __init__(self, agent_modules: Callable[[str], Any], state: Path) -> None:
        super().__init__(inside_process.load_modules(agent_modules), state, daemon=True)
        self.available = 1 << 40
        self.agent.serving._memory._available = lambda: self.available


@pytest.fixture
def inside(agent_modules: Callable[[str], Any], state: Path) -> Iterator[Inside]:
    inside = Inside(agent_modules, state)
    yield inside
    inside.agent.close()


def prepare(inside: Inside, bundle: EchoBundle) -> None:
    """Check a release, and end the worker of the check: it would be taken over, and is warm."""
    push(inside, bundle)
    assert inside.ask("check", bundle=bundle.id).meta["passed"]
    inside.agent.supervisor.drop()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_where_memory_is_short_one_worker_lives_at_a_time(inside: Inside) -> None:
    deploy(inside, first := EchoBundle(b"first"))
    inside.available = 0
    assert infer(inside).meta["bundle"] == first.id
    server = serving(inside)["pid"]
    assert inside.ask("status").meta["worker"] is None, "the worker of the check was taken over"
    push(inside, second := EchoBundle(b"second"))
    assert inside.ask("check", bundle=second.id).meta["passed"]
    assert not alive(server), "it made room for the check"
    assert inside.ask("activate", bundle=second.id).meta["ok"]
    wait_for(lambda: infer(inside).meta["bundle"] == second.id)


def test_where_memory_is_plenty_the_old_worker_serves_until_the_new_one_is_warm(
    inside: Inside,
) -> None:
    deploy(inside, first := EchoBundle(b"first"))
    assert infer(inside).meta["ok"]
    server = serving(inside)["pid"]
    slow = EchoBundle(b"slow", options={"load_delay_ms": 800})
    prepare(inside, slow)
    assert inside.ask("activate", bundle=slow.id).meta["ok"]
    reply = infer(inside)
    assert (reply.meta["bundle"], serving(inside)["pid"]) == (first.id, server)
    wait_for(lambda: infer(inside).meta["bundle"] == slow.id)
    wait_for(lambda: not alive(server))


def test_release_that_fails_to_start_is_left_while_the_old_one_goes_on_answering(
    inside: Inside, tmp_path: Path
) -> None:
    deploy(inside, first := EchoBundle(b"first"))
    assert infer(inside).meta["ok"]
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    prepare(inside, bad := EchoBundle(b"bad", name="bad"))
    inside.agent.serving._keeper._starter.python = str(script)
    assert inside.ask("activate", bundle=bad.id).meta["ok"]
    answers = []
    wait_for(lambda: answers.append(infer(inside)) or current(inside) == first.id)
    assert {reply.meta["bundle"] for reply in answers} == {first.id}
    assert inside.ask("status").meta["returned"][0]["bundle"] == bad.id


def test_worker_that_nobody_asks_is_freed_unless_it_is_to_be_kept(
    inside: Inside, agent_modules: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_modules("edge_agent.serving_keeper"), "_IDLE_S", 0.2)
    deploy(inside, EchoBundle())
    assert infer(inside).meta["ok"]
    wait_for(lambda: serving(inside)["pid"] is None)
    inside.agent.serving.begin()
    wait_for(lambda: serving(inside)["pid"] is not None)
    pid = serving(inside)["pid"]
    time.sleep(1.3)
    assert serving(inside)["pid"] == pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: serving(inside)["pid"] not in (None, pid))


def test_stricter_of_two_limits_holds(
    agent_modules: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = agent_modules("edge_agent.limits")
    for name in ("MEMORY_BYTES", "NICENESS", "RUN_S"):
        monkeypatch.delenv(f"EDGE_AGENT_WORKER_{name}", raising=False)
    none = {"memory_bytes": None, "niceness": 0, "run_s": None}
    for odd in (None, [], {"memory_bytes": -1, "niceness": "x", "run_s": True}):
        assert limits.limits_of({"limits": odd}) == none
    wish = {"limits": {"memory_bytes": 100, "niceness": 5, "run_s": 2.5}}
    assert limits.limits_of(wish) == wish["limits"]
    monkeypatch.setenv("EDGE_AGENT_WORKER_MEMORY_BYTES", "50")
    monkeypatch.setenv("EDGE_AGENT_WORKER_NICENESS", "99")
    monkeypatch.setenv("EDGE_AGENT_WORKER_RUN_S", "9")
    assert limits.limits_of(wish) == {"memory_bytes": 50, "niceness": 19, "run_s": 2.5}
    assert limits.run_limit_s(wish, 120.0) == 2.5


def test_bundle_s_limits_hold_for_its_workers(agent: AgentProcess) -> None:
    bundle = EchoBundle(options={"allocate_mib": 900})
    bundle.manifest["limits"] = {"memory_bytes": 400 << 20}
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert "echo cannot load part 0: MemoryError" in reply["detail"]
    bundle = EchoBundle()
    bundle.manifest["limits"] = {"niceness": 7}
    deploy(agent, bundle)
    assert infer(agent).meta["ok"]
    assert os.getpriority(os.PRIO_PROCESS, serving(agent)["pid"]) >= 7


# -- the stable path ---------------------------------------------------------------------------


def test_release_of_one_part_is_at_a_stable_path(start: Start, state: Path) -> None:
    path = state / "serve" / "current"
    agent = start()
    deploy(agent, first := EchoBundle(b"first"))
    assert (path / "part-0.bin").read_bytes() == b"first"
    deploy(agent, EchoBundle(b"second"))
    assert (path / "part-0.bin").read_bytes() == b"second"
    assert agent.ask("rollback").meta["ok"]
    assert (path / "part-0.bin").read_bytes() == b"first"
    agent.kill()
    path.unlink()
    path.symlink_to("../releases/" + "0" * 64)  # as a power cut may leave it
    agent = start()
    assert os.readlink(path) == f"../releases/{first.id}"
    deploy(agent, EchoBundle(b"third", parts=2))
    assert not path.is_symlink(), "half a model is worse than none"
    assert agent.ask("gc").meta["ok"]


def test_stable_path_is_whole_at_every_moment_of_a_switch(start: Start, state: Path) -> None:
    path = state / "serve" / "current"
    agent = start()
    deploy(agent, EchoBundle(b"first"))
    deploy(agent, EchoBundle(b"second"))
    over, seen, failed = threading.Event(), set(), []

    def look() -> None:
        while not over.is_set():
            try:
                seen.add((path / "part-0.bin").read_bytes())
            except OSError as exc:
                failed.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(20):
        agent.ask("rollback")
        agent.ask("gc")
    over.set()
    thread.join()
    assert failed == []
    assert seen == {b"first", b"second"}


def test_something_else_in_place_of_the_stable_path_does_no_harm(
    start: Start, state: Path, tmp_path: Path
) -> None:
    start().hang_up()
    (tmp_path / "elsewhere").mkdir()
    (state / "serve").symlink_to(tmp_path / "elsewhere")
    agent = start()
    deploy(agent, bundle := EchoBundle())
    assert current(agent) == bundle.id
    assert list((tmp_path / "elsewhere").iterdir()) == []
