"""Lanes: further links into one agent, over which the chunks of a blob may overtake others."""

from __future__ import annotations

import hashlib
import itertools
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.limits import MAX_AHEAD_BYTES
from tests.agent.agent_driver import (
    HELLO,
    AgentProcess,
    EchoBundle,
    SocketTalk,
    Start,
    push,
    stage,
)

BIG = random.Random(7).randbytes(300_000)
SHA256 = hashlib.sha256(BIG).hexdigest()


def put(talk: Any, start_at: int, end: int, **meta: Any) -> dict[str, Any]:
    fields = {"sha256": SHA256, "bytes": len(BIG), "offset": start_at, "ahead": True, **meta}
    reply: dict[str, Any] = talk.ask("put", BIG[start_at:end], **fields).meta
    return reply


def join(start: Start, token: str, **options: Any) -> AgentProcess:
    lane = start(command="lane", greet=False, **options)
    assert lane.ask("hello", **HELLO, lane=token).meta["ok"]
    return lane


def test_chunks_that_overtake_each_other_make_the_blob(agent: AgentProcess) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    edges = [*range(0, len(BIG), 10_000), len(BIG)]
    pieces = list(itertools.pairwise(edges))
    random.Random(1).shuffle(pieces)
    replies = [put(agent, *piece) for piece in [*pieces[:7], *pieces]]
    assert all(reply["ok"] for reply in replies)
    assert [reply["done"] for reply in replies] == [False] * (len(replies) - 1) + [True]
    push(agent, bundle)


def test_only_what_is_whole_from_the_start_counts_and_is_resumed(
    start: Start, state: Path
) -> None:
    agent = start()
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    assert put(agent, 0, 50_000)["have"] == 50_000
    assert put(agent, 100_000, 200_000)["have"] == 50_000
    assert (state / "staging" / SHA256).stat().st_size == 50_000
    agent.kill()
    agent = start()
    assert {blob["sha256"]: blob["have"] for blob in stage(agent, bundle)}[SHA256] == 50_000
    push(agent, bundle)


def test_chunks_ahead_are_capped_in_number_and_bytes(agent: AgentProcess) -> None:
    data = bytes(MAX_AHEAD_BYTES + (3 << 20))
    sha256 = hashlib.sha256(data).hexdigest()
    stage(agent, EchoBundle(data))
    meta = {"sha256": sha256, "bytes": len(data), "ahead": True}
    codes = [
        agent.ask("put", data[: 1 << 20], offset=offset, **meta).meta.get("code")
        for offset in range(1 << 20, len(data), 1 << 20)
    ]
    assert codes == [None] * 16 + ["gap"] * 2
    stage(agent, EchoBundle(BIG))
    tiny = [put(agent, offset, offset + 1).get("code") for offset in range(1, 1100)]
    assert tiny[0] == "gap", "the cap holds for all blobs together"


def test_pieces_ahead_are_capped_in_number(agent: AgentProcess) -> None:
    stage(agent, EchoBundle(BIG))
    codes = [put(agent, offset, offset + 1).get("code") for offset in range(1, 1100)]
    assert codes == [None] * 1024 + ["gap"] * 75
    assert put(agent, 0, 1)["have"] == 1025


def test_lanes_carry_one_blob_together(start: Start, state: Path) -> None:
    agent = start()
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    offer = agent.ask("lanes").meta
    assert offer["ahead_bytes"] == MAX_AHEAD_BYTES
    one, two = join(start, offer["token"]), join(start, offer["token"])
    assert put(two, 200_000, 300_000)["have"] == 0
    assert put(one, 100_000, 200_000)["have"] == 0
    assert put(agent, 0, 100_000)["done"] is True
    assert put(one, 0, 1)["done"] is True
    assert one.hang_up() == 0
    agent.kill()
    assert two.process.wait(10) == 0, "a lane ends with its agent"
    assert (state / "lanes.sock").exists(), "left by the kill, and no hindrance"
    agent = start()
    join(start, agent.ask("lanes").meta["token"])
    agent.hang_up()
    assert not (state / "lanes.sock").exists()


def test_every_python_can_be_a_lane(start: Start, python: str) -> None:
    agent = start(python=python)
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    lane = join(start, agent.ask("lanes").meta["token"], python=python)
    put(lane, 1000, len(BIG))
    assert put(agent, 0, 1000)["done"] is True


def test_daemon_takes_lanes_too(start: Start, state: Path) -> None:
    daemon = start("--python", "/usr/bin/false", command="run", greet=False)
    assert daemon.process.stderr is not None
    assert daemon.process.stderr.readline() == b"edge-agent: ready\n"
    talk = SocketTalk(state)
    assert talk.ask("hello", **HELLO).meta["ok"]
    stage(talk, EchoBundle(BIG))
    lane = join(start, talk.ask("lanes").meta["token"])
    put(lane, 1000, len(BIG))
    assert put(talk, 0, 1000)["done"] is True
    assert lane.hang_up() == 0
    talk.close()


def test_lane_without_the_token_is_refused_whatever_it_asks(start: Start) -> None:
    agent = start()
    stage(agent, EchoBundle(BIG))
    agent.ask("lanes")
    lane = start(command="lane", greet=False)
    for token in ("ab" * 16, "\u20ac", None, 7, ["x"]):
        reply = lane.ask("hello", **HELLO, lane=token).meta
        assert (reply["ok"], reply["code"]) == (False, "bad-request")
        assert reply["detail"] == "a lane cannot do that: its token is not known"
    assert put(lane, 0, 1000)["code"] == "bad-request"


@pytest.mark.parametrize("op", ["shutdown", "activate", "lanes", "status", None])
def test_lane_takes_only_put(start: Start, op: Any) -> None:
    agent = start()
    lane = join(start, agent.ask("lanes").meta["token"])
    assert lane.ask(op).meta["detail"] == "a lane cannot do that: it takes only put"
    assert agent.ask("status").meta["ok"]


def test_lane_without_an_agent_says_so(start: Start, state: Path) -> None:
    lane = start(command="lane", greet=False)
    assert lane.process.wait(10) == 3
    expected = f"edge-agent: failed at stage lane: no agent takes lanes in {state}\n"
    assert lane.stderr() == expected


def test_garbage_on_the_socket_of_the_lanes_harms_nobody(start: Start, state: Path) -> None:
    agent = start()
    agent.ask("lanes")
    for data in (b"", b"x", b"EDG1" * 1000):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(state / "lanes.sock"))
            client.sendall(data)
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    for client in crowd:
        client.connect(str(state / "lanes.sock"))
    for client in crowd:
        client.close()
    join(start, agent.ask("lanes").meta["token"])
    assert agent.ask("status").meta["ok"]
