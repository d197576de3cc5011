"""A release that goes bad on a device with a daemon: taken back, and everybody is told."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cli.app import run
from edgesdk.testing import make_echo_bundle


@pytest.fixture
def device(agent_pyz: Path, tmp_path: Path, home: Path) -> Iterator[str]:
    """A daemon of its own, reached through its socket."""
    state = tmp_path / "state"
    command = [sys.executable, str(agent_pyz), "run", "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as daemon:
        assert daemon.stderr is not None
        assert b"ready" in daemon.stderr.readline()
        yield f"local:?state={state}"
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


def answer(args: list[str], capsys: Any, *, code: int = 0) -> tuple[dict[str, Any], str]:
    assert run([*args, "--format", "json"]) == code
    seen = capsys.readouterr()
    return json.loads(seen.out.splitlines()[-1] if code else seen.out), seen.err


def touch_when_current(state: Path, bundle: str, path: Path) -> threading.Thread:
    """Let the release go bad as soon as it is current and has answered once."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                record = json.loads((state / "slots.json").read_text())
            except (OSError, ValueError):
                continue
            probation = record.get("probation") or {}
            if probation.get("bundle") == bundle and probation.get("answered"):
                path.touch()
                return

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["die_if", "wrong_if", "slow_if"])
def test_deploy_that_watches_ends_with_six_where_the_device_went_back(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    broken = tmp_path / "broken"
    good = make_echo_bundle(tmp_path / "good", name="good")
    bad = make_echo_bundle(tmp_path / "bad", name="bad", options={how: str(broken)})
    options = ["--no-bench", "--device", device]
    answer(["deploy", str(good.folder), *options, "-o", str(tmp_path / "r1")], capsys)
    touch_when_current(tmp_path / "state", bad.id, broken)
    run_folder = tmp_path / "r2"
    assert run(["deploy", str(bad.folder), *options, "--watch", "-o", str(run_folder)]) == 6
    seen = capsys.readouterr()
    assert "was taken back by" in seen.out
    assert "the device went back to" in seen.err
    (receipt,) = run_folder.glob("*.json")
    record = json.loads(receipt.read_text())
    assert record["outcome"] == "returned"
    status, notes = answer(["status", device], capsys)
    assert status["current"]["bundle"] == good.id
    assert status["previous"] is None
    assert status["returned"][-1]["by"] == "device"
    assert f"release {bad.id[:12]} was taken back by the device itself" in notes
    logs, _ = answer(["devices", "logs", device], capsys)
    assert any(f"returned from {bad.id[:12]} to {good.id[:12]}" in x for x in logs["lines"])


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_deploy_that_watches_a_good_release_ends_well(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = make_echo_bundle(tmp_path / "good", name="good")
    other = make_echo_bundle(tmp_path / "other", name="other")
    options = ["--no-bench", "--device", device]
    answer(["deploy", str(good.folder), *options, "-o", str(tmp_path / "r1")], capsys)
    more = ["--watch", "--probation", "6s", "-o", str(tmp_path / "r2")]
    record, _ = answer(["deploy", str(other.folder), *options, *more], capsys)
    assert record["deployment"]["outcome"] == "active"
    status, _ = answer(["status", device], capsys)
    assert status["probation"] is None
    assert status["current"]["confirmed"] is True


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_applications_are_answered_by_the_old_release_again(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release crashes in the midst of service: its third crash is its last."""
    from edge_agent.client import AgentError, Client

    broken = tmp_path / "broken"
    good = make_echo_bundle(tmp_path / "good", name="good")
    bad = make_echo_bundle(tmp_path / "bad", name="bad", options={"die_if": str(broken)})
    options = ["--no-bench", "--device", device]
    given = bytes(range(64))
    for bundle in (good, bad):
        args = ["deploy", str(bundle.folder), *options, "-o", str(tmp_path / bundle.id)]
        answer(args, capsys)
    failures, answered = 0, []
    with Client(str(tmp_path / "state")) as client:
        assert bytes(client.infer({"x": given})["y"].data) == given
        assert client.bundle == bad.id
        broken.touch()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(answered) < 20:
            try:
                assert bytes(client.infer({"x": given})["y"].data) == given
                answered.append(client.bundle)
            except AgentError:
                failures += 1
                time.sleep(0.05)
    assert set(answered) == {good.id}
    assert len(answered) == 20
    status, _ = answer(["status", device], capsys)
    assert status["returned"][-1]["bundle"] == bad.id
    assert status["returned"][-1]["why"].startswith("it failed 3 times on probation")
    sys.stdout.write(f"\n{failures} requests failed before the device went back\n")
