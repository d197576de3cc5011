"""The ``profile`` operation: what a runtime ran where, asked apart from any measurement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent.agent_driver import AgentProcess, EchoBundle, push

CONV = {
    "op": "Conv",
    "name": "c",
    "where": "NPU",
    "accelerator": True,
    "us": 1.5,
    "derived": False,
    "precision": "int8",
    "count": 1,
}


def ask(agent: AgentProcess, bundle: EchoBundle, **meta: Any) -> list[dict[str, Any]]:
    push(agent, bundle)
    reply = agent.ask("profile", release=bundle.id, **meta)
    assert reply.meta["ok"], reply.meta
    parts: list[dict[str, Any]] = json.loads(reply.body)["parts"]
    return parts


def test_each_part_of_a_chain_says_what_it_ran(agent: AgentProcess) -> None:
    parts = ask(agent, EchoBundle(parts=3), runs=3)
    assert [part["index"] for part in parts] == [0, 1, 2]
    for part in parts:
        (op,) = part["ops"]
        assert (op["op"], op["where"], op["accelerator"]) == ("Echo", "CPU", False)
        assert op["us"] > 0
        assert part["total_us"] > 0
        assert part["why"] is None
    assert any(event["step"] == "asking part 2 what ran where" for event in agent.talk.events)


def test_whole_is_timed_with_what_each_call_takes_of_it(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(parts=2, options={"delay_ms": 5}))
    document = json.loads(agent.ask("profile", release=bundle.id, runs=3).body)
    assert document["chain_us"] >= 10_000
    assert all(part["share"] * document["chain_us"] >= 4_999 for part in document["parts"])
    assert sum(part["share"] for part in document["parts"]) <= 1.0


@pytest.mark.parametrize(("parts", "turns"), [(1, False), (2, True)])
def test_parts_of_a_chain_are_told_that_they_take_turns(
    agent: AgentProcess, parts: int, turns: bool
) -> None:
    for part in ask(agent, EchoBundle(parts=parts, options={"tell_options": True})):
        assert json.loads(part["how"])["takes_turns"] is turns


def test_long_lists_end_in_sums_that_lose_no_time(agent: AgentProcess) -> None:
    ops = [{**CONV, "name": f"c{i}", "us": 1.0 + i % 7} for i in range(10_000)]
    (part,) = ask(agent, EchoBundle(options={"ops": ops}))
    assert len(part["ops"]) <= 8000
    assert sum(op["count"] for op in part["ops"]) == 10_000
    assert sum(op["us"] for op in part["ops"]) == sum(op["us"] for op in ops)


def test_runtime_that_fails_at_it_says_why_and_the_others_answer(agent: AgentProcess) -> None:
    bundle = EchoBundle(parts=2)
    bundle.manifest["parts"][0]["options"] = {"ops": 5}
    first, second = ask(agent, bundle)
    assert first["ops"] == []
    assert first["why"]
    assert second["ops"][0]["op"] == "Echo"


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"runs": 0}, "runs is 0"),
        ({"runs": 5000}, "runs is 5000"),
        ({"timeout_s": -1}, "-1"),
        ({"budget_s": 0}, "budget_s is 0"),
    ],
)
def test_request_is_checked(agent: AgentProcess, meta: dict[str, Any], text: str) -> None:
    push(agent, bundle := EchoBundle())
    reply = agent.ask("profile", release=bundle.id, **meta).meta
    assert (reply["code"], text in reply["detail"]) == ("bad-request", True)


def test_runtime_that_hangs_is_killed_in_time(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle(options={"delay_ms": 60_000}))
    reply = agent.ask("profile", release=bundle.id, timeout_s=1.0).meta
    assert reply["code"] == "worker-timeout"
    assert agent.ask("status").meta["worker"] is None


def test_folder_for_what_is_made_here_is_the_agents_to_give(
    agent: AgentProcess, state: Any
) -> None:
    assert (state / "cache").is_dir()
    (part,) = ask(agent, EchoBundle(options={"cache_dir": "/etc", "tell_options": True}))
    told = json.loads(part["how"])
    assert told["cache_dir"] == str(state / "cache" / "echo")
