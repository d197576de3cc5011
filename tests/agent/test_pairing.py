"""The ``pair`` operation: two releases measured in turns, each in a worker of its own."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.frames import Frame
from tests.agent.agent_driver import AgentProcess, EchoBundle, push, wait_until_gone

FIELDS = struct.Struct("<5Q")


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def ask(agent: AgentProcess, ours: EchoBundle, theirs: EchoBundle, **meta: Any) -> Frame:
    for bundle in (ours, theirs):
        push(agent, bundle)
    meta = {"order": "0110" * 100, "duration_s": 2.0, "block_ms": 5.0, **meta}
    return agent.ask("pair", release=ours.id, against=theirs.id, **meta)


def records(reply: Frame) -> list[tuple[int, ...]]:
    assert reply.meta["ok"], reply.meta
    found = list(FIELDS.iter_unpack(reply.body))
    assert len(found) == reply.meta["pairs"] > 0
    return found


def test_blocks_of_both_come_in_pairs_ours_first(agent: AgentProcess) -> None:
    quick = EchoBundle(b"quick", options={"delay_ms": 1})
    slow = EchoBundle(b"slow", options={"delay_ms": 3})
    reply = ask(agent, slow, quick)
    found = records(reply)
    assert (reply.meta["mode"], reply.meta["why"]) == ("side-by-side", "")
    # sleeps may be longer than they should on a busy machine, never shorter
    assert min(ours for _, ours, *_ in found) >= 3_000_000
    assert 1_000_000 <= min(theirs for _, _, theirs, *_ in found) < 3_000_000
    assert [at for at, *_ in found] == sorted(at for at, *_ in found)
    # a block has as many runs as fit into its time, and three at least
    assert all(our_runs == 3 and 3 <= their_runs <= 5 for *_, our_runs, their_runs in found)
    assert reply.meta["conditions"]["samples"]
    assert [each[0]["runtime"] for each in reply.meta["runtimes"]] == ["echo", "echo"]


def test_release_may_be_measured_against_itself(agent: AgentProcess) -> None:
    bundle = EchoBundle(options={"delay_ms": 1})
    found = records(ask(agent, bundle, bundle, order="01"))
    assert len(found) == 2
    assert min(min(ours, theirs) for _, ours, theirs, _, _ in found) >= 1_000_000


def test_releases_of_one_thread_share_a_processor_and_others_do_not(
    agent: AgentProcess,
) -> None:
    ours = max(os.sched_getaffinity(0))
    one = EchoBundle(options={"delay_ms": 1, "threads": 1})
    more = EchoBundle(b"more", options={"delay_ms": 1})
    expected = [ours] if len(os.sched_getaffinity(0)) > 1 else None
    assert ask(agent, one, one, order="01").meta["cpus"] == expected
    assert ask(agent, one, more, order="01").meta["cpus"] is None
    assert ask(agent, one, more, order="01", threads=1).meta["cpus"] == expected
    assert ask(agent, one, one, order="01", cpus=[0]).meta["cpus"] == [0]


def test_device_for_one_process_only_is_shared_by_reloading(
    agent: AgentProcess, tmp_path: Path
) -> None:
    taken = str(tmp_path / "device.lock")
    ours, theirs = (
        EchoBundle(d, options={"alone": taken, "delay_ms": 1}) for d in (b"a", b"b")
    )
    reply = ask(agent, ours, theirs, order="01")
    assert len(records(reply)) == 2
    assert reply.meta["mode"] == "reloaded"
    assert "another process has the device" in reply.meta["why"]


def test_room_is_asked_for_both_where_both_start_at_once(
    agent_modules: Callable[[str], Any],
) -> None:
    memory, one = agent_modules("edge_agent.memory"), EchoBundle()
    need = memory.Memory().need(one.id, one.manifest)
    for factor, fits in ((4.0, True), (2.0, False)):
        room = memory.Memory(available=lambda factor=factor: int(need * factor))
        assert room.has_room(one.id, one.manifest, besides=need) is fits


def test_host_may_ask_for_reloading(agent: AgentProcess) -> None:
    bundle = EchoBundle(options={"delay_ms": 1})
    reply = ask(agent, bundle, EchoBundle(b"other"), order="10", side_by_side=False)
    assert (reply.meta["mode"], reply.meta["pairs"]) == ("reloaded", 2)


def test_worker_that_dies_is_named_and_the_next_request_is_answered(
    agent: AgentProcess, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    ours = EchoBundle(b"dies", options={"die_if": str(bad)})
    theirs = EchoBundle(b"lives", options={"delay_ms": 1})
    bad.touch()
    reply = ask(agent, ours, theirs, order="01").meta
    assert (reply["ok"], reply["code"]) == (False, "worker-died")
    bad.unlink()
    assert records(ask(agent, ours, theirs, order="01"))
    assert agent.ask("status").meta["worker"] is None


def test_both_workers_end_when_the_host_goes_away(agent: AgentProcess) -> None:
    ours, theirs = (EchoBundle(d, options={"delay_ms": 1}) for d in (b"a", b"b"))
    for bundle in (ours, theirs):
        push(agent, bundle)
    asked = {"release": ours.id, "against": theirs.id, "order": "01" * 2000}
    agent.talk.send("pair", duration_s=60.0, block_ms=5.0, **asked)
    deadline = time.monotonic() + 20
    while len(workers := children_of(agent.process.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    agent.hang_up()
    for pid in workers:
        wait_until_gone(pid)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"order": ""}, "order must be"),
        ({"order": "012"}, "order must be"),
        ({"order": 7}, "order must be"),
        ({"order": "0" * 4097}, "order must be"),
        ({"block_ms": 0}, "block_ms"),
        ({"duration_s": -1}, "duration_s"),
        ({"side_by_side": 1}, "side_by_side"),
    ],
)
def test_nonsense_is_refused(agent: AgentProcess, wrong: dict[str, Any], said: str) -> None:
    reply = ask(agent, EchoBundle(), EchoBundle(b"other"), **wrong).meta
    assert (reply["ok"], reply["code"]) == (False, "bad-request")
    assert said in reply["detail"]


def test_release_that_is_not_there_is_refused(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle())
    reply = agent.ask("pair", release=bundle.id, against="previous", order="01").meta
    assert reply["ok"] is False
    assert reply["code"] == "not-found"
