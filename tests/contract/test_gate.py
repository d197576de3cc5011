"""From measurements on a device to a gate that fails a build, and measurements made again.

The echo runtime takes as long as its options say, so what is slower is known. What is slower
here is so by far: the machine that runs the tests may be busy, and how small a difference a
comparison finds is tested in `tests/perf`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgesdk.bench.statistics import make_latency
from edgesdk.bundle import Bundle
from edgesdk.report.files import encode_report
from edgesdk.report.read import read_report
from edgesdk.testing import make_echo_bundle
from tests.contract.typed import Typed

QUICK = ("--runs", "60", "--warmup", "3")


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"local:?state={tmp_path / 'state'}"


def bundle_taking(delay_ms: float, folder: Path) -> Bundle:
    return make_echo_bundle(folder, part=folder.name.encode(), options={"delay_ms": delay_ms})


def run_gate(typed: Typed, *args: str | Path, code: int) -> dict[str, Any]:
    seen, out, err = typed._run(["gate", *map(str, args), "--format", "json"])
    assert seen == code, err
    record: dict[str, Any] = json.loads(out)
    return record


def slowed(report: Path, to: Path, factor: float, **fields: Any) -> Path:
    """Write a report that says that everything took ``factor`` times as long."""
    read = read_report(report)
    samples = [factor * each for each in read.latency.samples_ms]
    changed = replace(
        read, latency=make_latency(samples), created="2030-01-01T00:00:00Z", **fields
    )
    to.write_bytes(encode_report(changed))
    return to


def test_what_is_measured_is_recorded_with_its_label(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(1, tmp_path / "a")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK, "--label", "main")
    again = typed.ok("bench", device, "--bundle", bundle.folder, *QUICK)
    runs = typed.ok("history", "echo")["runs"]
    assert [run["id"] for run in runs] == [again["run"], done["run"]]
    assert [run["labels"] for run in runs] == [[], ["main"]]
    assert {(run["bundle"], run["device"], run["samples"]) for run in runs} == {
        (bundle.id, device, 60)
    }
    assert runs[0]["before"] == done["run"]


def test_the_history_can_be_left_out(
    typed: Typed, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_taking(1, tmp_path / "a")
    assert (
        typed.ok("deploy", bundle.folder, "-d", device, *QUICK, "--no-history")["run"] is None
    )
    assert typed.ok("deploy", bundle.folder, "-d", device, "--no-bench")["run"] is None
    monkeypatch.setenv("EDGESDK_KEEP_HISTORY", "no")
    assert typed.ok("bench", device, "--bundle", bundle.folder, *QUICK)["run"] is None
    assert typed.ok("history")["runs"] == []


def test_a_history_that_cannot_be_written_fails_nothing(
    typed: Typed, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_taking(1, tmp_path / "a")
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 100)
    monkeypatch.setenv("EDGESDK_HISTORY", str(tmp_path / "bad.sqlite"))
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK)
    assert done["run"] is None
    assert done["report"]["verdict"] == "cpu-as-planned"
    assert "warning: the measurement is not in the history: cannot use history" in typed.shown
    assert "move the file away" in typed.shown


def test_a_label_that_cannot_be_one_is_refused_before_anything_is_sent(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(1, tmp_path / "a")
    error = typed.refused("deploy", bundle.folder, "-d", device, "--label", "two words", code=2)
    assert "cannot use label 'two words'" in error["problem"]
    assert typed.ok("status", device)["current"] is None


def test_a_slower_release_is_measured_again_in_turns_and_fails_the_build(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    fast, slow = bundle_taking(2, tmp_path / "fast"), bundle_taking(8, tmp_path / "slow")
    typed.ok("deploy", fast.folder, "-d", device, *QUICK, "--label", "main")
    typed.ok("deploy", slow.folder, "-d", device, *QUICK, "--max-latency", "1s")
    found = run_gate(
        typed, "--against", "main", "--seconds", "2s", "--seed", "7", "-o", "g.xml", code=1
    )
    assert found["outcome"] == "failed"
    assert [each["kind"] for each in found["looks"]] == ["recorded", "interleaved"]
    assert found["looks"][1]["seed"] == 7
    assert found["looks"][1]["lower"] > 1.02
    assert 2.0 < found["looks"][1]["ratio"] < 8.0
    assert ET.parse(tmp_path / "g.xml").getroot()[0].get("failures") == "1"
    assert "failed: slower by more than 2 %, seen twice" in typed.shown
    # the other way round there is nothing to confirm, so nothing is measured
    newest = typed.ok("history", "--label", "main")["runs"][0]["id"]
    other = run_gate(typed, "--run", newest, "--against", found["ours"]["run"], code=0)
    assert len(other["looks"]) == 1
    assert typed.ok("status", device)["current"]["bundle"] == slow.id


def test_a_suspicion_that_the_device_does_not_confirm_passes(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    ours, theirs = bundle_taking(2, tmp_path / "ours"), bundle_taking(2, tmp_path / "theirs")
    typed.ok("deploy", theirs.folder, "-d", device, *QUICK, "--label", "main")
    done = typed.ok("deploy", ours.folder, "-d", device, *QUICK)
    unlucky = slowed(Path(done["folder"]) / "report.json", tmp_path / "unlucky.json", 20.0)
    found = run_gate(
        typed, "--report", unlucky, "--against", "main", "--seconds", "2s",
        "--max-regression", "100%", code=0,
    )  # fmt: skip
    assert found["outcome"] == "passed"
    assert [each["slower"] for each in found["looks"]] == [True, False]
    assert "is not confirmed" in found["text"]


def test_the_same_bundle_is_measured_anew_against_what_was_recorded(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(2, tmp_path / "a")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK)
    report = Path(done["folder"]) / "report.json"
    unlucky = slowed(report, tmp_path / "unlucky.json", 20.0)
    quicker = slowed(report, tmp_path / "quicker.json", 0.2)
    passed = run_gate(
        typed, "--report", unlucky, "--against", report, "--max-regression", "100%", code=0
    )
    assert [each["kind"] for each in passed["looks"]] == ["recorded", "fresh"]
    assert "both have the same bundle" in passed["looks"][1]["notes"][0]
    failed = run_gate(typed, "--report", report, "--against", quicker, code=1)
    assert 2.5 < failed["looks"][1]["ratio"] < 10.0


def test_both_can_be_measured_at_once_whatever_was_recorded(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    fast, slow = bundle_taking(2, tmp_path / "fast"), bundle_taking(8, tmp_path / "slow")
    first = typed.ok("deploy", fast.folder, "-d", device, *QUICK)
    second = typed.ok("deploy", slow.folder, "-d", device, *QUICK, "--max-latency", "1s")
    lucky = slowed(Path(second["folder"]) / "report.json", tmp_path / "lucky.json", 0.1)
    args = ("--report", lucky, "--against", first["run"], "--seconds", "2s")
    assert run_gate(typed, *args, code=0)["outcome"] == "passed"
    found = run_gate(typed, *args, "--measure", code=1)
    assert [each["kind"] for each in found["looks"]] == ["interleaved", "interleaved"]


def test_a_device_that_cannot_be_reached_neither_passes_nor_fails(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(1, tmp_path / "a")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK)
    report = Path(done["folder"]) / "report.json"
    gone = replace(read_report(report).device, name="ssh://pi@127.0.0.1:1")
    ours = slowed(report, tmp_path / "ours.json", 5.0, device=gone)
    theirs = slowed(report, tmp_path / "theirs.json", 1.0, device=gone)
    error = typed.refused("gate", "--report", ours, "--against", theirs, "-o", "g.xml", code=4)
    assert "cannot confirm a regression that is suspected" in error["problem"]
    assert "connection refused" in error["problem"]
    assert ET.parse(tmp_path / "g.xml").getroot()[0].get("errors") == "1"


# repeating


def test_a_measurement_is_repeated_and_agrees(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle, other = bundle_taking(4, tmp_path / "a"), bundle_taking(1, tmp_path / "b")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK, "--threads", "1")
    typed.ok("deploy", other.folder, "-d", device, "--no-bench")
    report = Path(done["folder"]) / "report.json"
    found = typed.ok("bench", "--like", report, "--margin", "100%", "--label", "again")
    assert found["replay"]["agrees"] is True
    assert found["report"]["spec"] == done["report"]["spec"]
    assert found["report"]["bundle"]["id"] == bundle.id
    assert found["replay"]["theirs"]["run"] == done["run"]
    assert typed.ok("history", "--label", "again")["runs"][0]["id"] == found["run"]
    assert typed.ok("status", device)["current"]["bundle"] == other.id


def test_a_repetition_elsewhere_names_what_differs_and_brings_the_bundle(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(4, tmp_path / "a")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK)
    other = f"local:?state={tmp_path / 'other'}"
    found = typed.ok("bench", other, "--like", done["run"][:10], "--margin", "100%")
    assert [each["name"] for each in found["replay"]["differences"]] == ["device"]
    assert typed.ok("status", other)["current"] is None
    releases = typed.ok("releases", other)["releases"]
    assert [(each["bundle"], each["slot"]) for each in releases] == [(bundle.id, "candidate")]


def test_a_repetition_that_comes_out_otherwise_ends_with_1(
    typed: Typed, device: str, tmp_path: Path
) -> None:
    bundle = bundle_taking(2, tmp_path / "a")
    done = typed.ok("deploy", bundle.folder, "-d", device, *QUICK)
    claimed = slowed(Path(done["folder"]) / "report.json", tmp_path / "claimed.json", 0.2)
    code, out, err = typed._run(["bench", device, "--like", str(claimed), "--format", "json"])
    assert code == 1, err
    replay = json.loads(out)["replay"]
    assert replay["agrees"] is False
    assert 2.5 < replay["look"]["ratio"] < 10.0
    assert replay["text"].startswith("does not agree within 5 %")
