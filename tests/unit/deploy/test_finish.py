"""Parts that a device finishes: the order of steps, what the receipt keeps, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import Deployment, deploy_bundle
from edgesdk.devices import Session, resolve_device
from edgesdk.errors import DeviceError, ProtocolError, RuntimeMissing
from edgesdk.testing import ScriptedChannel, make_echo_bundle
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from tests.unit.deploy.test_deploy import CHECK, FACTS, willing_agent

FALLBACK = {"backend": "ort-cpu", "runtime": "onnxruntime", "options": {}}
BUILT = {
    "part": 0,
    "backend": "echo",
    "outcome": "built",
    "fingerprint": "ab" * 20,
    "seconds": 3.25,
    "builder": "trtexec 10.3.0",
    "instead_of": "the engine that is here was built for driver 12060 (here 12080)",
    "why": "",
}
FAILED = {"part": 0, "outcome": "failed", "why": "trtexec was stopped", "code": "worker-failed"}


def deploy(
    tmp_path: Path, replies: dict[str, Any], *, fallbacks: bool = True
) -> tuple[Deployment, list[str]]:
    bundle = make_echo_bundle(
        tmp_path / "b", runtime="tensorrt", fallbacks=[FALLBACK] if fallbacks else []
    )
    agent = willing_agent(bundle.id, replies)
    channel = ScriptedChannel(agent)
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    receipt = deploy_bundle(bundle, session, device=resolve_device("local:"))
    ops = [str(request.meta["op"]) for request in agent.requests]
    return receipt, [op for op in ops if op not in {"hold", "release"}]


def served_by(backend: str) -> dict[str, Any]:
    used = {"part": 0, "runtime": "x", "version": "1", "detail": {}, "backend": backend}
    return {**CHECK, "runtimes": [used]}


def test_parts_are_finished_between_commit_and_check(tmp_path: Path) -> None:
    receipt, ops = deploy(tmp_path, {"finish": {"parts": [BUILT]}, "check": served_by("echo")})
    assert ops == ["hello", "stage", "commit", "finish", "check", "activate"]
    (part,) = receipt.finished
    assert (part.outcome, part.fingerprint, part.seconds) == ("built", "ab" * 20, 3.25)
    assert part.served_by == "echo"
    assert receipt.notes == (
        "part 0 was finished on the device in 3.2 s by trtexec 10.3.0 (the engine that is here "
        "was built for driver 12060 (here 12080))",
    )
    assert Deployment.from_json(json.loads(json.dumps(receipt.to_json()))) == receipt


def test_a_failed_part_says_what_serves_it(tmp_path: Path) -> None:
    replies = {"finish": {"parts": [FAILED]}, "check": served_by("ort-cpu")}
    receipt, _ = deploy(tmp_path, replies)
    assert receipt.finished[0].why == "trtexec was stopped"
    assert receipt.notes == (
        "part 0 is not finished for echo, ort-cpu serves it: trtexec was stopped",
    )


def test_a_finished_part_that_does_not_serve_is_said(tmp_path: Path) -> None:
    replies = {
        "finish": {"parts": [{**BUILT, "outcome": "cached"}]},
        "check": served_by("ort-cpu"),
    }
    receipt, _ = deploy(tmp_path, replies)
    assert receipt.notes == ("part 0 was finished for echo, and ort-cpu serves it",)


def test_without_a_fallback_the_failure_ends_the_deployment(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="part 0 for echo: trtexec was stopped") as caught:
        deploy(tmp_path, {"finish": {"parts": [FAILED]}}, fallbacks=False)
    assert caught.value.facts["code"] == codes.WORKER_FAILED


def test_an_older_agent_leaves_it_to_the_fallbacks(tmp_path: Path) -> None:
    def finish(request: Frame) -> list[Frame]:
        no = {"ok": False, "code": codes.UNKNOWN_OP, "detail": "no such", "facts": {}}
        return [Frame({"id": request.meta["id"], **no})]

    receipt, ops = deploy(tmp_path, {"finish": finish, "check": served_by("ort-cpu")})
    assert ops[-2:] == ["check", "activate"]
    assert receipt.finished[0].outcome == "unknown"
    assert "the agent there is older than this operation" in receipt.notes[0]


@pytest.mark.parametrize(
    "parts",
    [
        None,
        [],
        [{"part": 0, "outcome": "perhaps"}],
        [{"part": 1, "outcome": "built"}],
        [{"part": True, "outcome": "built"}],
        [BUILT, BUILT],
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(tmp_path: Path, parts: Any) -> None:
    with pytest.raises(ProtocolError, match="cannot read what came of finishing parts"):
        deploy(tmp_path, {"finish": {"parts": parts}})


def test_what_a_device_says_is_cleaned(tmp_path: Path) -> None:
    odd = {**BUILT, "seconds": "NaN", "builder": ["x"], "instead_of": "\x1b[31m" + "x" * 5000}
    receipt, _ = deploy(tmp_path, {"finish": {"parts": [odd]}, "check": served_by("echo")})
    (part,) = receipt.finished
    assert (part.seconds, part.builder) == (None, None)
    assert "\x1b" not in part.instead_of
    assert len(part.instead_of) <= 520


def missing(runtimes: dict[str, str | None], tmp_path: Path) -> dict[str, Any]:
    def stage(request: Frame) -> list[Frame]:
        bundle = make_echo_bundle(tmp_path / "same", runtime="tensorrt", fallbacks=[FALLBACK])
        sha256 = bundle.manifest["parts"][0]["files"][0]["sha256"]
        blobs = [{"sha256": sha256, "bytes": 25, "have": 0}]
        return [Frame({"id": request.meta["id"], "ok": True, "missing": blobs})]

    probed = {
        name: {"version": None if why else "1", "why": why, "detail": {}}
        for name, why in runtimes.items()
    }
    return {"stage": stage, "facts": {"facts": {**FACTS, "runtimes": probed}}}


def test_a_runtime_is_missed_only_where_its_fallbacks_are_too(tmp_path: Path) -> None:
    gone = {"tensorrt": "no module", "onnxruntime": "no module either"}
    with pytest.raises(RuntimeMissing, match="it has no tensorrt: no module"):
        deploy(tmp_path, missing(gone, tmp_path))
    replies = missing({"tensorrt": "no module", "onnxruntime": None}, tmp_path)
    replies["put"] = {"have": 25, "done": True}
    replies["finish"] = {"parts": [FAILED]}
    (tmp_path / "again").mkdir()
    receipt, ops = deploy(tmp_path / "again", {**replies, "check": served_by("ort-cpu")})
    assert "put" in ops
    assert receipt.finished[0].outcome == "failed"


def test_receipts_from_before_can_be_read(tmp_path: Path) -> None:
    receipt, _ = deploy(tmp_path, {"finish": {"parts": [BUILT]}})
    earlier = {key: value for key, value in receipt.to_json().items() if key != "finished"}
    assert Deployment.from_json({**earlier, "finished_parts": []}).finished == ()
