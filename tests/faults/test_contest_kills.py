"""kill -9 in the middle of a contest: the device keeps what it had, or the other one wins.

Both bundles are on the device and are measured in turns when the kill comes. Nothing is active
of either until the contest is over, so host and agent may die at any moment of it; a worker
that dies takes one contestant out, and the deployment goes on with the other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgesdk.devices import connect, read_status, resolve_device
from tests.faults.test_kills import DEMO, answers, build, deploy, find_victim

pytest.importorskip("openvino", reason="needs openvino, to have two runtimes here")
pytestmark = pytest.mark.slow

TARGET = """
schema: 1
family: test-contest
vendor: nobody
backends:
  - id: ort-cpu
    kind: onnxruntime
    runtime: onnxruntime
    precisions: [fp32]
    requirement: python3 -m pip install onnxruntime
  - id: openvino-cpu
    kind: openvino
    runtime: openvino
    precisions: [fp32]
    requirement: python3 -m pip install openvino
    options: {device: CPU}
contest: [ort-cpu, openvino-cpu]
agent: {python: "3.7", reach: [local]}
identify: {machine: ["*"]}
provenance:
  - {fields: [backends, agent, identify, contest], kind: assumed, source: a test,
     checked: "2026-12-01"}
variants:
  - {name: test-contest, title: This computer with a contest}
"""


def start(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    (folder / "targets").mkdir(exist_ok=True)
    (folder / "targets" / "test-contest.yaml").write_text(TARGET, encoding="utf-8")
    options = {
        "--target": "test-contest",
        "--targets-dir": folder / "targets",
        "--device": f"local:?state={folder / 'state'}",
        "--output": folder / "run",
    }
    named = [str(word) for option in options.items() for word in option]
    model = str(DEMO / "digits_cnn.onnx")
    with (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "edgesdk.cli", "deploy", model, *named, *more],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def told(folder: Path) -> str:
    """What the host said on stderr."""
    return (folder / "stderr").read_text("utf-8", "replace")


def measuring(folder: Path) -> bool:
    """Say whether a contest is in its rounds: the agent's log has a line for each."""
    logs = (folder / "state" / "logs").glob("*")
    return sum(path.read_text("utf-8", "replace").count("bench: done") for path in logs) >= 2


def kill_in_the_middle(victim: str, folder: Path) -> subprocess.Popen[bytes]:
    # rounds of 1.5 s, so that a kill hits one and not the moment between two
    host = start(folder, "--runs", "0", "--duration", "15")
    deadline = time.monotonic() + 120
    while not measuring(folder):
        assert host.poll() is None, told(folder)
        assert time.monotonic() < deadline, "the contest never began"
        time.sleep(0.01)
    # the worker that is there has just ended its round: the next one is in the middle of one
    done = find_victim("worker", host.pid)
    while (pid := find_victim(victim, host.pid)) in (None, done):
        assert host.poll() is None, "it was over before anything could be killed"
        time.sleep(0.002)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    host.wait(timeout=180)
    return host


@pytest.mark.parametrize("victim", ["host", "agent"])
def test_what_dies_in_a_contest_leaves_the_old_release_current(
    tmp_path: Path, home: Path, victim: str
) -> None:
    old = build(tmp_path / "old", "fp32")
    deploy(old, tmp_path / "state")
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    with connect(device) as session:
        known = answers(session, old)
    assert kill_in_the_middle(victim, tmp_path).returncode != 0
    with connect(device) as session:
        slots = read_status(session)["slots"]
        assert slots["current"]["bundle"] == old.id
        assert slots["previous"] is None
        assert answers(session, old) == known
    assert start(tmp_path, "--no-contest", "--no-bench").wait(timeout=120) == 0
    with connect(device) as session:
        slots = read_status(session)["slots"]
        won = json.loads((tmp_path / "run" / "deployment.json").read_bytes())
        assert slots["current"]["bundle"] == won["bundle_id"] != old.id
        assert slots["previous"]["bundle"] == old.id
        assert slots["candidate"] is None


def test_a_worker_that_dies_in_a_contest_takes_one_out(tmp_path: Path, home: Path) -> None:
    host = kill_in_the_middle("worker", tmp_path)
    assert host.returncode == 0, told(tmp_path)
    contest = json.loads((tmp_path / "run" / "report.json").read_bytes())["contest"]
    assert contest["decided_by"] == "alone"
    (dropped,) = (each for each in contest["contestants"] if each["why_out"])
    assert "SIGKILL" in dropped["why_out"]
    assert dropped["backend"] != contest["winner"]
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    with connect(device) as session:
        current = read_status(session)["slots"]["current"]["bundle"]
    (kept,) = (e for e in contest["contestants"] if e["backend"] == contest["winner"])
    assert current == kept["bundle"]["id"]
