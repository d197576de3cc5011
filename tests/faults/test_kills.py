"""kill -9 of host, agent or worker at random moments of a deployment, and what is left then.

After every kill the device's current release is whole, the old or the new one, it answers its
check vectors bit for bit as it did before, and the next deployment succeeds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.build import build_bundle
from edgesdk.bundle import Bundle, read_bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import Session, connect, read_status, resolve_device
from edgesdk.model.open import open_model
from edgesdk.plan import load_recipe, model_facts, plan_build
from edgesdk.profiles.catalog import default_target

DEMO = Path(__file__).parents[2] / "configs" / "demo"
VICTIMS = ("host", "agent", "worker")
Answers = dict[str, list[bytes]]


def build(out: Path, precision: str) -> Bundle:
    opened = open_model(DEMO / "digits_cnn.onnx")
    profile = default_target()
    calib = open_dataset(DEMO / "calib.npz", opened.source.inputs)
    recipe = load_recipe(None, precision=precision)
    plan = plan_build(model_facts(opened), profile, recipe)
    return build_bundle(opened, profile, recipe, plan, calib=calib, out=out)


def open_session(state: Path) -> Session:
    return connect(resolve_device(f"local:?state={state}"))


def deploy(bundle: Bundle, state: Path) -> None:
    device = resolve_device(f"local:?state={state}")
    with connect(device) as session:
        receipt = deploy_bundle(bundle, session, device=device)
        assert receipt.slot == "current"


def answers(session: Session, bundle: Bundle) -> list[bytes]:
    """Run each check vector's inputs on the current release and give the raw outputs."""
    outputs = []
    for check in bundle.manifest["checks"]:
        body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
        asked = {"release": "current", "tensors": check["inputs"], "timeout_s": 60}
        end = max(spec["offset"] + spec["nbytes"] for spec in check["inputs"])
        outputs.append(session.request("run", asked, body[:end], timeout_s=90).body)
    return outputs


def children(pid: int) -> Iterator[int]:
    """Give the descendants of a process, nearest first."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = [int(word) for word in task.read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            yield from children(child)


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def find_victim(name: str, host: int) -> int | None:
    if name == "host":
        return host
    for pid in children(host):
        text = command(pid)
        if ".pyz" in text and (" worker" in text) == (name == "worker"):
            return pid
    return None


def start_deploy(bundle: Bundle, state: Path) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-m", "edgesdk.cli", "deploy", str(bundle.folder), "--no-bench"]
    return subprocess.Popen(
        [*program, "--device", f"local:?state={state}", "-o", f"{state}-run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_one(name: str, moment_s: float, bundle: Bundle, state: Path) -> bool:
    """Deploy, kill the victim at that moment or as soon after as it lives; say if it did."""
    host = start_deploy(bundle, state)
    killed = False
    begun = time.monotonic()
    while host.poll() is None:
        if time.monotonic() - begun >= moment_s and not killed:
            victim = find_victim(name, host.pid)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
                killed = True
        time.sleep(0.002)
    return killed


def run_kills(kills: int, folder: Path) -> dict[str, int]:
    """Go on until so many victims were hit: a busy machine stretches what moments aim at."""
    old, new = build(folder / "old", "fp32"), build(folder / "new", "int8")
    ready = folder / "ready"
    deploy(old, ready)
    with open_session(ready) as session:
        known: Answers = {old.id: answers(session, old)}
    whole_s = 0.0
    for _ in range(2):
        rehearsal = folder / "rehearsal"
        shutil.rmtree(rehearsal, ignore_errors=True)
        shutil.copytree(ready, rehearsal)
        begun = time.monotonic()
        assert start_deploy(new, rehearsal).wait(120) == 0
        whole_s = max(whole_s, time.monotonic() - begun)
    with open_session(rehearsal) as session:
        known[new.id] = answers(session, new)
    dice = random.Random(20261123)
    seen = {"old": 0, "new": 0, "killed": 0}
    for round_number in range(4 * kills):
        if seen["killed"] == kills:
            break
        state = folder / f"device-{round_number}"
        shutil.copytree(ready, state)
        victim = VICTIMS[round_number % len(VICTIMS)]
        seen["killed"] += kill_one(victim, dice.uniform(0.3, 1.1) * whole_s, new, state)
        with open_session(state) as session:
            current = read_status(session)["slots"]["current"]["bundle"]
            assert current in known, f"round {round_number}: neither old nor new is current"
            bundle = old if current == old.id else new
            seen["old" if bundle is old else "new"] += 1
            assert answers(session, bundle) == known[current]
        deploy(read_bundle(new.folder), state)
        with open_session(state) as session:
            assert read_status(session)["slots"]["current"]["bundle"] == new.id
            assert answers(session, new) == known[new.id]
        shutil.rmtree(state)
    return seen


@pytest.mark.slow
def test_a_few_kills_leave_one_whole_release(tmp_path: Path, home: Path) -> None:
    seen = run_kills(3, tmp_path)
    assert seen["killed"] == 3


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_fifty_kills_leave_one_whole_release(tmp_path: Path, home: Path) -> None:
    seen = run_kills(50, tmp_path)
    sys.stdout.write(f"\n50 kills: {seen}\n")
    assert seen["killed"] == 50
    assert seen["old"] > 0
    assert seen["new"] > 0
