"""Releases and slots: nothing unproven becomes current, and going back always works."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agent.agent_driver import (
    AgentProcess,
    EchoBundle,
    Start,
    current,
    deploy,
    push,
)

ONE, TWO, THREE = (EchoBundle(data, name=data.decode()) for data in (b"one", b"two", b"three"))

INPUT = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}


def test_unchecked_bundle_cannot_be_activated(agent: AgentProcess) -> None:
    push(agent, ONE)
    reply = agent.ask("activate", bundle=ONE.id).meta
    assert reply["code"] == "check-failed"
    assert reply["detail"] == (
        f"cannot activate {ONE.id[:12]}: it has not passed its check vectors on this device"
    )
    assert current(agent) is None


def test_bundle_with_other_numbers_fails_its_check_and_stays_out(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    wrong = EchoBundle(expected=b"\1\0\0\0\5\0\0\0")
    push(agent, wrong)
    reply = agent.ask("check", bundle=wrong.id).meta
    assert reply["passed"] is False
    assert reply["vectors"][0]["outputs"] == [
        {
            "name": "y",
            "within": False,
            "max_abs_error": 3,
            "allowed": 0.0,
            "mismatches": 1,
            "elements": 2,
            "cosine": pytest.approx(11 / (5**0.5 * 26**0.5)),
        }
    ]
    assert agent.ask("activate", bundle=wrong.id).meta["code"] == "check-failed"
    assert current(agent) == ONE.id


def test_difference_within_its_tolerance_passes(agent: AgentProcess) -> None:
    deploy(agent, EchoBundle(expected=b"\1\0\0\0\3\0\0\0", tolerance=1.0))


def test_check_gives_the_outputs_and_is_reused_until_forced(start: Start) -> None:
    agent = start()
    push(agent, ONE)
    first = agent.ask("check", bundle=ONE.id)
    assert first.meta["reused"] is False
    assert first.meta["cold_start_ms"] > first.meta["load_ms"]
    assert first.body == b"\1\0\0\0\2\0\0\0"
    assert first.meta["tensors"][0]["vector"] == 0
    agent.hang_up()
    agent = start()
    again = agent.ask("check", bundle=ONE.id)
    assert again.meta["reused"] is True
    assert again.body == first.body
    assert again.meta["vectors"] == first.meta["vectors"]
    assert agent.ask("status").meta["worker"] is None
    assert agent.ask("check", bundle=ONE.id, force=True).meta["reused"] is False
    assert agent.ask("status").meta["worker"]["bundle"] == ONE.id


def test_damaged_record_of_a_pass_is_not_reused(agent: AgentProcess, state: Path) -> None:
    deploy(agent, ONE)
    (state / "releases" / ONE.id / "passed.bin").write_bytes(b"other")
    assert agent.ask("check", bundle=ONE.id).meta["reused"] is False


def test_activation_moves_the_old_release_to_previous(agent: AgentProcess) -> None:
    for bundle in (ONE, TWO, THREE):
        deploy(agent, bundle)
    slots = agent.ask("status").meta["slots"]
    assert slots["current"]["bundle"] == THREE.id
    assert slots["current"]["verified"] is True
    assert (slots["current"]["name"], slots["current"]["target"]) == ("three", "some-board")
    assert slots["previous"]["bundle"] == TWO.id
    assert slots["candidate"] is None


def test_activating_the_current_release_again_keeps_previous(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    deploy(agent, TWO)
    deploy(agent, TWO)
    assert agent.ask("status").meta["slots"]["previous"]["bundle"] == ONE.id


def test_committed_bundle_is_the_candidate(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    push(agent, TWO)
    slots = agent.ask("status").meta["slots"]
    assert slots["candidate"]["bundle"] == TWO.id
    assert slots["candidate"]["verified"] is False
    assert slots["current"]["bundle"] == ONE.id


@pytest.mark.parametrize("winner", [ONE, TWO], ids=["the current one", "another one"])
def test_activation_leaves_no_candidate_whichever_was_put_forward_last(
    agent: AgentProcess, winner: EchoBundle
) -> None:
    deploy(agent, ONE)
    for bundle in (TWO, THREE):
        push(agent, bundle)
        assert agent.ask("check", bundle=bundle.id).meta["passed"] is True
    assert agent.ask("status").meta["slots"]["candidate"]["bundle"] == THREE.id
    slots = agent.ask("activate", bundle=winner.id).meta["slots"]
    assert slots["current"]["bundle"] == winner.id
    assert slots["candidate"] is None
    removed = agent.ask("gc").meta["removed"]
    assert THREE.id in removed


def test_rollback_without_a_previous_release_is_refused(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    reply = agent.ask("rollback").meta
    assert reply["code"] == "not-found"
    assert reply["detail"] == "there is no previous release"
    assert current(agent) == ONE.id


def test_rollback_to_a_damaged_release_is_refused(agent: AgentProcess, state: Path) -> None:
    deploy(agent, ONE)
    deploy(agent, TWO)
    part = state / "releases" / ONE.id / "part-0.bin"
    part.unlink()
    reply = agent.ask("rollback").meta
    assert reply["code"] == "not-found"
    assert "is damaged: part-0.bin is missing; push it again" in reply["detail"]
    assert current(agent) == TWO.id
    push(agent, ONE)
    assert agent.ask("rollback").meta["slots"]["current"]["bundle"] == ONE.id


@pytest.mark.parametrize("slot", ["current", "previous", "candidate"])
def test_empty_slot_is_named(agent: AgentProcess, slot: str) -> None:
    spec = {"runs": 1, "warmup_runs": 0}
    reply = agent.ask("bench", release=slot, spec=spec).meta
    assert reply["code"] == "not-found"
    assert reply["detail"] == f"this device has no {slot} release"


def test_releases_lists_what_is_here(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    push(agent, TWO)
    found = {r["bundle"]: r for r in agent.ask("releases").meta["releases"]}
    assert found[ONE.id]["slot"] == "current"
    assert found[ONE.id]["checked"] is True
    assert found[ONE.id]["bytes"] == 3
    assert found[TWO.id]["slot"] == "candidate"
    assert found[TWO.id]["checked"] is False


def test_garbage_is_what_no_slot_holds(agent: AgentProcess, state: Path) -> None:
    others = [EchoBundle(bytes([n]) * 1000) for n in range(3)]
    for bundle in (*others, ONE, TWO):
        deploy(agent, bundle)
    reply = agent.ask("gc").meta
    assert reply["removed"] == [bundle.id for bundle in others]
    assert reply["freed_bytes"] == 3000
    assert sorted(reply["kept"]) == sorted([ONE.id, TWO.id])
    assert sorted(path.name for path in (state / "releases").iterdir()) == reply["kept"]
    assert agent.ask("check", bundle=ONE.id, force=True).meta["passed"]


def test_garbage_within_the_budget_stays(agent: AgentProcess) -> None:
    others = [EchoBundle(bytes([n]) * 1000) for n in range(3)]
    for bundle in (*others, ONE, TWO):
        deploy(agent, bundle)
    assert agent.ask("gc", budget_bytes=1 << 30).meta["removed"] == []
    assert agent.ask("gc", budget_bytes=2500).meta["removed"] == [others[0].id]


def test_garbage_collection_leaves_a_push_under_way_alone(agent: AgentProcess) -> None:
    bundle = EchoBundle(bytes(100_000))
    sha256 = bundle.manifest["parts"][0]["files"][0]["sha256"]
    agent.ask("stage", bundle.data, bundle=bundle.id)
    agent.ask("put", bytes(50_000), sha256=sha256, bytes=100_000, offset=0)
    agent.ask("gc")
    reply = agent.ask("put", bytes(50_000), sha256=sha256, bytes=100_000, offset=50_000).meta
    assert reply["done"] is True


def test_damaged_slots_file_is_put_aside_and_a_push_works(start: Start, state: Path) -> None:
    agent = start()
    deploy(agent, ONE)
    agent.hang_up()
    (state / "slots.json").write_text('{"counter": 1, "current": {"bundle": "../x"}}')
    agent = start()
    assert current(agent) is None
    assert (state / "slots.json.damaged").exists()
    deploy(agent, ONE)


def test_clock_that_jumps_reorders_nothing(start: Start, state: Path) -> None:
    agent = start()
    for bundle in (ONE, TWO, THREE):
        deploy(agent, bundle)
    agent.hang_up()
    record = json.loads((state / "slots.json").read_text())
    record["current"]["since"] = "1990-01-01T00:00:00Z"
    (state / "slots.json").write_text(json.dumps(record))
    agent = start()
    assert agent.ask("gc").meta["removed"] == [ONE.id]
    assert current(agent) == THREE.id


def test_release_whose_bytes_rotted_is_neither_run_nor_rolled_back_to(
    agent: AgentProcess, start: Start, state: Path
) -> None:
    deploy(agent, old := EchoBundle(b"old model"))
    deploy(agent, new := EchoBundle(b"new model"))
    agent.hang_up()
    (part,) = (state / "releases" / old.id).glob("part-0.*")
    part.chmod(0o600)
    part.write_bytes(b"OLD model")
    later = start()
    for reply in (
        later.ask("rollback").meta,
        later.ask("run", bytes(8), release="previous", tensors=[INPUT]).meta,
    ):
        assert reply["code"] == "not-found"
        assert reply["detail"] == (
            f"release {old.id[:12]} is damaged: {part.name} does not hash to its name; "
            "push it again"
        )
    assert current(later) == new.id
    refused = later.ask("commit", bundle=old.id).meta
    assert len(refused["facts"]["missing"]) == 1, "the same bytes, and they are thrown away"
    deploy(later, old)
    assert current(later) == old.id


def test_one_release_goes_alone_from_the_place_of_a_candidate_too(agent: AgentProcess) -> None:
    deploy(agent, ONE)
    deploy(agent, TWO)
    other = EchoBundle(b"other", name="other")
    push(agent, other)
    push(agent, THREE)
    reply = agent.ask("gc", bundle=THREE.id, budget_bytes=1 << 50).meta
    assert reply["removed"] == [THREE.id]
    assert reply["freed_bytes"] > 0
    assert reply["kept"] == sorted([ONE.id, TWO.id, other.id])
    slots = agent.ask("status").meta["slots"]
    assert slots["candidate"] is None
    assert slots["current"]["bundle"] == TWO.id
    assert slots["previous"]["bundle"] == ONE.id
    assert agent.ask("gc", bundle=THREE.id).meta["removed"] == []


@pytest.mark.parametrize("held", [ONE, TWO])
def test_one_that_a_slot_holds_does_not_go(agent: AgentProcess, held: EchoBundle) -> None:
    deploy(agent, ONE)
    deploy(agent, TWO)
    push(agent, THREE)
    reply = agent.ask("gc", bundle=held.id).meta
    assert reply["ok"] is False
    assert reply["detail"] == f"cannot remove {held.id[:12]}: a slot holds it"
    assert agent.ask("gc", bundle="../x").meta["code"] == "bad-request"
    assert current(agent) == TWO.id
    assert agent.ask("status").meta["slots"]["candidate"]["bundle"] == THREE.id
