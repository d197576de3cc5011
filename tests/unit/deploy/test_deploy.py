"""The order of a deployment, and what each refusal leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import Deployment, Standing, deploy_bundle, hold_device
from edgesdk.devices import Session, resolve_device
from edgesdk.errors import (
    DeviceError,
    ProfileError,
    ProtocolError,
    ReportError,
    RuntimeMissing,
    SelfCheckError,
    SpaceError,
    TargetMismatch,
)
from edgesdk.profiles import default_target, find_target, load_catalog
from edgesdk.testing import FakeAgent, ScriptedChannel, make_echo_bundle
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

FACTS = {
    "machine": "mips",
    "system": "Linux",
    "cpu_model": "",
    "devices": [],
    "pci": [],
    "usb": [],
}
OUTPUT = {
    "name": "y",
    "within": True,
    "max_abs_error": 0,
    "allowed": 0,
    "mismatches": 0,
    "elements": 64,
    "cosine": 1.0,
}
CHECK = {
    "passed": True,
    "reused": False,
    "vectors": [{"index": 0, "outputs": [OUTPUT]}],
    "runtimes": [{"part": 0, "runtime": "echo", "version": "1", "detail": {}}],
    "load_ms": 1.5,
    "cold_start_ms": 2.5,
    "tensors": [],
}


def willing_agent(bundle_id: str, replies: dict[str, Any]) -> FakeAgent:
    """An agent that has all of a bundle and takes it; ``replies`` say what it does else."""
    return FakeAgent(
        {
            "facts": {"facts": FACTS},
            "stage": {"missing": [], "needed_bytes": 0, "free_bytes": 1},
            "commit": {"committed": True},
            "check": CHECK,
            "activate": {"slots": {"current": {"bundle": bundle_id}, "previous": None}},
            **replies,
        }
    )


def deploy(
    tmp_path: Path, replies: dict[str, Any], **options: Any
) -> tuple[Deployment, FakeAgent]:
    bundle = make_echo_bundle(tmp_path / "b")
    agent = willing_agent(bundle.id, replies)
    channel = ScriptedChannel(agent)
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    try:
        return deploy_bundle(bundle, session, device=resolve_device("local:"), **options), agent
    finally:
        ops = [str(request.meta["op"]) for request in agent.requests]
        HELD[:] = ops
        OPS[:] = [op for op in ops if op not in {"hold", "release"}]


OPS: list[str] = []
#: The same, with what keeps other hosts away meanwhile.
HELD: list[str] = []


def test_steps_come_in_their_order(tmp_path: Path) -> None:
    deploy(tmp_path, {}, profile=find_target(default_target().name), force_target=True)
    assert OPS == ["hello", "facts", "stage", "commit", "check", "activate"]


def test_device_is_held_from_the_first_step_to_the_last(tmp_path: Path) -> None:
    deploy(tmp_path / "one", {})
    assert HELD[:2] == ["hello", "hold"]
    assert HELD[-2:] == ["activate", "release"]
    failed = {**CHECK, "passed": False, "vectors": []}
    with pytest.raises(SelfCheckError):
        deploy(tmp_path / "two", {"check": failed})
    assert HELD[-2:] == ["check", "release"]


def test_device_that_another_host_holds_is_left_alone_and_the_holder_is_named(
    tmp_path: Path,
) -> None:
    def held(request: Frame) -> list[Frame]:
        detail = "the device is held by alice@laptop (deploy, for 42 s)"
        facts = {"who": "alice@laptop", "doing": "deploy", "for_s": 42.0}
        echo = {"id": request.meta["id"], "ok": False, "code": codes.BUSY}
        return [Frame({**echo, "detail": detail, "facts": facts})]

    with pytest.raises(DeviceError) as caught:
        deploy(tmp_path, {"hold": held})
    assert str(caught.value) == (
        "cannot take hold of bench-3: the device is held by alice@laptop (deploy, for 42 s)"
    )
    assert "--wait" in caught.value.hint
    assert caught.value.facts["who"] == "alice@laptop"
    assert HELD == ["hello", "hold"]


def test_receipt_says_how_the_probation_stands(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "same")
    state = {
        "bundle": bundle.id,
        "return_to": "c" * 64,
        "served_s": 0.0,
        "wanted_s": 600.0,
        "failures": 0,
        "max_failures": 3,
        "last_failure": "",
        "watched": True,
    }
    slots = {"current": {"bundle": bundle.id}, "previous": {"bundle": "c" * 64}}
    standing = Standing(max_latency_s=0.02, probation_s=60.0)
    receipt, agent = deploy(
        tmp_path, {"activate": {"slots": slots, "probation": state}}, standing=standing
    )
    assert receipt.outcome == "on-probation"
    assert receipt.probation is not None
    assert receipt.probation.return_to == "c" * 64
    assert Deployment.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt
    (check,) = agent.asked("check")
    (activate,) = agent.asked("activate")
    assert check.meta["max_latency_us"] == activate.meta["max_latency_us"] == 20_000
    assert activate.meta["probation_s"] == 60.0


def test_manifest_goes_in_pieces_only_to_a_device_that_does_not_know_it(tmp_path: Path) -> None:
    pieces: list[int] = []

    def stage(request: Frame) -> list[Frame]:
        echo = {"id": request.meta["id"]}
        if not request.body:
            no = {"ok": False, "code": codes.NOT_FOUND, "detail": "not known", "facts": {}}
            return [Frame({**echo, **no})]
        assert request.meta["offset"] == sum(pieces)
        pieces.append(len(request.body))
        if sum(pieces) < request.meta["bytes"]:
            return [Frame({**echo, "ok": True, "have": sum(pieces)})]
        return [Frame({**echo, "ok": True, "missing": []})]

    receipt, _ = deploy(tmp_path, {"stage": stage})
    assert receipt.slot == "current"
    assert len(pieces) > 1
    assert max(pieces) <= 1024


def test_wrong_target_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(TargetMismatch, match="cannot deploy to bench-3: it is no ") as caught:
        deploy(tmp_path, {}, profile=find_target("raspberry-pi-5"))
    assert OPS == ["hello", "facts"]
    assert "--force-target" in caught.value.hint
    assert caught.value.exit_code == 5


def test_a_target_without_an_agent_is_refused_before_anything_is_sent_there(
    tmp_path: Path,
) -> None:
    firmware = next(each for each in load_catalog().values() if not each.agent.reach)
    with pytest.raises(ProfileError, match=f"cannot deploy to {firmware.name}: no agent"):
        deploy(tmp_path, {}, profile=firmware, force_target=True)
    assert OPS == ["hello"], "which whoever opened the session said"


def test_forced_target_is_in_the_receipt(tmp_path: Path) -> None:
    receipt, _ = deploy(tmp_path, {}, profile=find_target("raspberry-pi-5"), force_target=True)
    assert receipt.target == "raspberry-pi-5"
    assert receipt.target_mismatch


def test_too_little_room_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    stage = {"missing": [], "needed_bytes": 10, "free_bytes": 3}
    with pytest.raises(SpaceError, match="the bundle needs 10 bytes more, 3 are free"):
        deploy(tmp_path, {"stage": stage})
    assert OPS == ["hello", "stage"]


def test_failed_check_is_not_activated(tmp_path: Path) -> None:
    off = {**OUTPUT, "within": False, "max_abs_error": 3, "mismatches": 1}
    check = {**CHECK, "passed": False, "vectors": [{"index": 0, "outputs": [off]}]}
    with pytest.raises(SelfCheckError, match="output y is off by 3") as caught:
        deploy(tmp_path, {"check": check})
    assert OPS[-1] == "check"
    assert caught.value.facts["self_check"]["passed"] is False


@pytest.mark.parametrize(
    "check",
    [
        {**CHECK, "vectors": []},
        {**CHECK, "passed": "yes"},
        {**CHECK, "vectors": [{"index": 0, "outputs": [{**OUTPUT, "within": 1}]}]},
        {},
    ],
    ids=["no vectors", "no verdict", "verdict and outputs differ", "nothing"],
)
def test_check_that_proves_nothing_is_not_taken_for_a_pass(
    tmp_path: Path, check: dict[str, Any]
) -> None:
    with pytest.raises(ProtocolError, match="cannot read the outcome of the check vectors"):
        deploy(tmp_path, {"check": check})
    assert OPS[-1] == "check"


def test_device_that_activates_something_else_is_found_out(tmp_path: Path) -> None:
    slots = {"current": {"bundle": "f" * 64}, "previous": None}
    with pytest.raises(ProtocolError, match=r"it says that f+ is current"):
        deploy(tmp_path, {"activate": {"slots": slots}})


def test_receipt_survives_json(tmp_path: Path) -> None:
    receipt, _ = deploy(tmp_path, {})
    text = json.dumps(receipt.to_json())
    assert Deployment.from_json(json.loads(text)) == receipt


def test_what_is_no_receipt_is_refused(tmp_path: Path) -> None:
    receipt, _ = deploy(tmp_path, {})
    with pytest.raises(ReportError, match="cannot read deployment receipt"):
        Deployment.from_json({**receipt.to_json(), "self_check": {}})


def test_runtime_that_is_missing_is_said_before_a_blob_is_sent(tmp_path: Path) -> None:
    def stage(request: Frame) -> list[Frame]:
        sha256 = bundle.manifest["parts"][0]["files"][0]["sha256"]
        missing = [{"sha256": sha256, "bytes": 64, "have": 0}]
        return [Frame({"id": request.meta["id"], "ok": True, "missing": missing})]

    bundle = make_echo_bundle(tmp_path / "b")
    gone = {"version": None, "why": "No module named 'echo'", "detail": {}}
    facts = {**FACTS, "runtimes": {"echo": gone}}
    with pytest.raises(RuntimeMissing, match="it has no echo: No module named 'echo'"):
        deploy(tmp_path, {"stage": stage, "facts": {"facts": facts}})
    assert OPS == ["hello", "stage", "facts"]


def test_notes_of_the_session_are_in_the_receipt(tmp_path: Path) -> None:
    receipt, _ = deploy(tmp_path, {})
    assert receipt.notes == ()
    again = Deployment.from_json({**receipt.to_json(), "notes": ["the agent is old"]})
    assert again.notes == ("the agent is old",)
    earlier = {key: value for key, value in receipt.to_json().items() if key != "notes"}
    assert Deployment.from_json(earlier).notes == ()


def test_waiting_for_another_host_begins_with_its_name(tmp_path: Path) -> None:
    asked: list[float] = []
    told: list[str] = []

    def held(request: Frame) -> list[Frame]:
        asked.append(request.meta.get("wait_s", 0.0))
        echo = {"id": request.meta["id"], "ok": len(asked) > 1}
        return [Frame({**echo, "code": codes.BUSY, "detail": "held by alice", "facts": {}})]

    channel = ScriptedChannel(FakeAgent({"hold": held}))
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    with hold_device(session, doing="deploy", wait_s=60.0, on_wait=told.append):
        assert session.is_holding
        with hold_device(session, doing="deploy"):
            assert session.is_holding
        assert session.is_holding, "the outer one lets go"
    assert not session.is_holding
    assert asked == [0.0, 60.0]
    assert told == ["cannot take hold of bench-3: held by alice"]
