"""``edgesdk history`` and ``edgesdk gate`` on recorded runs, without any device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgesdk.bench.history import History
from edgesdk.bench.history_values import describe_run
from edgesdk.bench.values import BenchmarkReport, BenchSpec
from edgesdk.cli.app import run
from edgesdk.report.files import encode_report
from tests.contract.typed import Typed
from tests.unit.bench.test_history import add, measured


@pytest.fixture
def typed(capsys, home: Path, tmp_path: Path, monkeypatch) -> Typed:
    monkeypatch.chdir(tmp_path)
    return Typed(capsys)


@pytest.fixture
def recorded(home: Path) -> list[str]:
    """Three runs, oldest first: of main, again of main, and one that is slower."""
    with History(home / ".local" / "share" / "edgesdk" / "history.sqlite") as history:
        return [
            add(history, measured(1, median_ms=4.0), "main", branch="trunk"),
            add(history, measured(2, median_ms=4.0), "main"),
            add(history, measured(3, median_ms=5.0)),
        ]


def save(path: Path, report: BenchmarkReport) -> Path:
    path.write_bytes(encode_report(report))
    return path


# history


def test_an_empty_history_says_what_fills_it(typed: Typed, home: Path) -> None:
    assert typed.ok("history")["runs"] == []
    typed.text("history")
    assert "edgesdk deploy and bench record" in typed.shown
    for command in (["show", "ffffffff"], ["export"], ["remove", "ffffffff"]):
        assert run(["history", *command]) == 2
    assert not (home / ".local").exists(), "reading makes no file"


def test_the_list_shows_newest_first_and_what_changed(
    typed: Typed, recorded: list[str]
) -> None:
    shown = typed.text("history")
    head, *rows = shown.splitlines()
    assert head.split()[:6] == ["run", "when", "model", "bundle", "precision", "device"]
    assert [row.split()[0] for row in rows] == [run[:12] for run in reversed(recorded)]
    assert "+2" in rows[0].split("-  ")[1]
    assert "not clear" in rows[1]
    assert rows[2].endswith("main, trunk@0123456")
    assert typed.text("history", "list") == shown


@pytest.mark.parametrize(
    ("args", "count"),
    [
        (["digits-cnn"], 3),
        (["digits-cnn", "--target", "raspberry-pi-5"], 3),
        (["--label", "main"], 2),
        (["--label", "trunk"], 1),
        (["--device", "bench-3", "--limit", "2"], 2),
        (["--device", "bench-9"], 0),
        (["--precision", "fp32"], 0),
        (["digits"], 0),
    ],
)
def test_the_list_takes_what_is_asked(
    args: list[str], count: int, typed: Typed, recorded: list[str]
) -> None:
    assert len(typed.ok("history", *args)["runs"]) == count


def test_a_model_that_nobody_measured_offers_near_ones(
    typed: Typed, recorded: list[str]
) -> None:
    typed.text("history", "digits")
    assert "did you mean digits-cnn?" in typed.shown


def test_a_run_is_shown_labelled_and_removed(typed: Typed, recorded: list[str]) -> None:
    run = recorded[2]
    shown = typed.ok("history", "show", run[:8])
    assert shown["run"]["id"] == run
    assert shown["report"]["schema"] == "edgesdk.report/1"
    assert "verdict" in typed.text("history", "show", run[:8])
    assert typed.ok("history", "label", run[:8], "v1", "v2")["run"]["labels"] == ["v1", "v2"]
    done = typed.ok("history", "label", run[:8], "v1", "--remove")
    assert done["run"]["labels"] == ["v2"]
    assert typed.ok("history", "remove", run[:8], recorded[0])["removed"] == [run, recorded[0]]
    assert [each["id"] for each in typed.ok("history")["runs"]] == [recorded[1]]


def test_a_removal_that_names_one_wrong_run_removes_none(
    typed: Typed, recorded: list[str]
) -> None:
    assert typed.refused("history", "remove", recorded[0], "ffffffff")["exit_code"] == 2
    assert len(typed.ok("history")["runs"]) == 3


def test_runs_move_to_another_history(
    typed: Typed, recorded: list[str], tmp_path: Path
) -> None:
    assert typed.refused("history", "export", code=2)["hint"].startswith("name a file")
    assert typed.ok("history", "export", "-o", "runs.jsonl", "--label", "main")["runs"] == 2
    done = typed.ok("history", "import", "runs.jsonl", "--history", "other.sqlite")
    assert done["added"] == recorded[:2]
    again = typed.ok(
        "history", "import", "runs.jsonl", "--history", "other.sqlite", "--label", "moved"
    )
    assert (again["added"], again["known"]) == ([], 2)
    moved = typed.ok("history", "--history", "other.sqlite", "--label", "moved")
    assert len(moved["runs"]) == 2
    assert moved["file"] == "other.sqlite"


def test_an_export_goes_to_stdout_without_a_file(recorded: list[str], capfdbinary) -> None:
    assert run(["history", "export"]) == 0
    out = capfdbinary.readouterr().out
    assert [json.loads(line)["schema"] for line in out.splitlines()] == [
        "edgesdk.history-line/1"
    ] * 3


def test_reports_fill_a_history(typed: Typed, tmp_path: Path) -> None:
    save(tmp_path / "a.json", measured(1))
    (tmp_path / "run").mkdir()
    save(tmp_path / "run" / "report.json", measured(2))
    done = typed.ok("history", "import", "a.json", "run", "a.json")
    assert (len(done["added"]), done["known"]) == (2, 1)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.jsonl", None, "cannot import none.jsonl: No such file"),
        ("none.json", None, "cannot read report none.json"),
        ("a.jsonl", b"", "it holds no line"),
        ("a.json", b"{}", "its schema is None"),
        ("a.jsonl", b"{}\n", "line 1: its schema is None"),
        ("a.jsonl", b"\x00" * 100, "line 1: it is not JSON"),
    ],
)
def test_a_bad_file_brings_nothing_in(
    name: str, content: bytes | None, problem: str, typed: Typed, tmp_path: Path
) -> None:
    good = save(tmp_path / "good.json", measured(1))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    error = typed.refused("history", "import", good, name, code=2)
    assert problem in error["problem"]
    assert typed.ok("history")["runs"] == []


def test_a_report_without_samples_is_no_measurement(typed: Typed, tmp_path: Path) -> None:
    from edgesdk.bench.statistics import make_latency

    save(tmp_path / "a.json", replace(measured(1), latency=make_latency([])))
    error = typed.refused("history", "import", "a.json", code=2)
    assert "it holds no latency sample" in error["problem"]


def test_a_damaged_history_is_an_error_with_a_way_on(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "bad.sqlite").write_bytes(b"no database" * 100)
    error = typed.refused("history", "--history", "bad.sqlite", code=2)
    assert error["code"] == "history-error"
    assert "move the file away" in error["hint"]


# gate


def gate(typed: Typed, *args: str | Path, code: int = 0) -> dict[str, Any]:
    seen, out, err = typed._run(["gate", *map(str, args), "--format", "json"])
    assert seen == code, err
    record: dict[str, Any] = json.loads(out)
    assert record["schema"] == "edgesdk.gate/1"
    return record


def test_what_is_as_fast_passes(typed: Typed, recorded: list[str]) -> None:
    found = gate(typed, "--against", "main", "--run", recorded[1])
    assert found["outcome"] == "passed"
    assert (found["ours"]["run"], found["theirs"]["run"]) == (recorded[1], recorded[0])
    assert found["theirs"]["branch"] == "trunk"
    assert typed.text("gate", "--against", "main", "--run", recorded[1]).startswith(
        "digits-cnn on bench-3: passed\n"
    )


def test_the_newest_run_is_held_against_the_newest_reference(
    typed: Typed, recorded: list[str]
) -> None:
    found = gate(typed, "--against", "main", "--max-regression", "90%")
    assert (found["ours"]["run"], found["theirs"]["run"]) == (recorded[2], recorded[1])
    assert found["looks"][0]["ratio"] == pytest.approx(1.25, abs=0.05)


def test_a_suspicion_that_cannot_be_confirmed_is_neither_a_pass_nor_a_failure(
    typed: Typed, recorded: list[str], tmp_path: Path
) -> None:
    files = ["-o", "g.xml", "-o", "g.md", "-o", "g.json"]
    error = typed.refused("gate", "--against", "main", *files, code=2)
    assert "cannot confirm a regression that is suspected" in error["problem"]
    assert "its bundle is neither under edgesdk-runs nor" in error["problem"]
    assert "--bundle" in error["hint"]
    assert error["facts"]["gate"]["outcome"] == "unconfirmed"
    assert ET.parse(tmp_path / "g.xml").getroot()[0].get("errors") == "1"
    assert "could not be confirmed" in (tmp_path / "g.md").read_text()
    assert json.loads((tmp_path / "g.json").read_bytes()) == error["facts"]["gate"]


def test_reports_are_compared_without_a_history(
    typed: Typed, tmp_path: Path, home: Path
) -> None:
    ours, theirs = (
        save(tmp_path / "a.json", measured(1)),
        save(tmp_path / "b.json", measured(2)),
    )
    assert gate(typed, "--report", ours, "--against", theirs)["outcome"] == "passed"
    assert not (home / ".local" / "share" / "edgesdk").exists()


def test_memory_and_accuracy_fail_without_a_second_look(
    typed: Typed, tmp_path: Path, recorded: list[str]
) -> None:
    report = measured(2)
    assert report.peak_rss_bytes is not None
    fat = replace(report, peak_rss_bytes=report.peak_rss_bytes * 2)
    path = save(tmp_path / "a.json", fat)
    found = gate(
        typed, "--report", path, "--against", recorded[0], "--max-memory-growth", "10%", code=1
    )
    assert found["outcome"] == "failed"
    assert "+100.00% (at most +10 %)" in found["text"]
    same = gate(typed, "--report", path, "--against", recorded[0], "--max-accuracy-drop", "0%")
    assert [check["kept"] for check in same["checks"]] == [True, True]


def test_other_circumstances_are_refused_by_name(
    typed: Typed, tmp_path: Path, recorded: list[str]
) -> None:
    path = save(tmp_path / "a.json", replace(measured(4), spec=BenchSpec(threads=2)))
    error = typed.refused("gate", "--report", path, "--against", "main", code=2)
    assert "threads is 2, was the default" in error["problem"]
    found = gate(typed, "--report", path, "--against", "main", "--allow", "threads")
    assert [each["name"] for each in found["differences"]] == ["threads"]


@pytest.mark.parametrize(
    ("args", "problem", "hint"),
    [
        ([], "no reference is named", "--against"),
        (["--against", "mian"], "no run has that label", "did you mean main"),
        (["--against", "main", "--model", "digit-cnn"], "no such measurement", "digits-cnn"),
        (["--against", "none.json"], "cannot read report none.json", "report.json"),
        (["--against", "main", "--run", "ffffffff"], "has no such id", "edgesdk history"),
        (["--against", "main", "--max-regression", "2"], "not a share", "1%"),
        (["--against", "main", "--max-regression", "-2%"], "not a share", "1%"),
        (["--against", "main", "--max-regression", "nan"], "not a share", "1%"),
        (["--against", "main", "--seconds", "0"], "too short", "10s"),
        (["--against", "main", "--seconds", "2d"], "longer than 3600 s", "10min"),
        (["--against", "main", "--allow", "govenor"], "no such circumstance", "governor"),
        (["--against", "main", "-o", "gate.pdf"], "expected .json, .xml, .md", "gate.xml"),
        (["--against", "main", "-d", "bench-9"], "cannot find device", ""),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(
    args: list[str], problem: str, hint: str, typed: Typed, recorded: list[str]
) -> None:
    error = typed.refused("gate", *args, code=2)
    assert problem in error["problem"]
    assert hint in error["hint"]


def test_a_run_is_not_its_own_reference(typed: Typed, recorded: list[str]) -> None:
    error = typed.refused("gate", "--run", recorded[0], "--against", "trunk", code=2)
    assert "there is no other run of model digits-cnn" in error["problem"]


def test_the_schema_of_the_result_is_printed(typed: Typed) -> None:
    schema = json.loads(typed.text("gate", "--schema"))
    assert schema["title"] == "edgesdk gate"
    assert typed.ok("gate", "--schema")["json_schema"] == schema


# replay


def test_options_that_change_a_repetition_are_refused(typed: Typed, tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", measured(1))
    for option in (["--runs", "9"], ["--threads", "2"], ["--release", "current"]):
        error = typed.refused("bench", "--like", path, *option, code=2)
        assert f"cannot use {option[0]} with --like" in error["problem"]
    assert "--like" in typed.refused("bench", "--margin", "5%", code=2)["hint"]


def test_a_report_that_cannot_be_repeated_is_said(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "foreign.json").write_text('{"schema": "other/1"}')
    error = typed.refused("bench", "--like", "foreign.json", code=2)
    assert "its schema is 'other/1'" in error["problem"]
    path = save(tmp_path / "a.json", measured(1))
    error = typed.refused("bench", "local:", "--like", path, code=2)
    assert "its bundle is neither under" in error["problem"]
    assert typed.refused("bench", "--like", "no-such-run", code=2)["code"] == "history-error"


# what a command line may hold


def test_a_name_that_no_file_can_have_is_looked_up_as_a_label(
    typed: Typed, recorded: list[str]
) -> None:
    for command in (["gate", "--against"], ["bench", "--like"]):
        error = typed.refused(*command, "x" * 300, code=2)
        assert error["code"] != "internal"
        assert "report this" not in str(error)


def test_a_folder_beside_does_not_hide_a_label(
    typed: Typed, recorded: list[str], tmp_path: Path
) -> None:
    (tmp_path / "main").mkdir()
    assert "main/report.json" not in str(typed.refused("bench", "--like", "main", code=2))


def test_help_is_given_after_an_option_and_a_limit_has_one(typed: Typed, capsys) -> None:
    assert run(["history", "--limit", "5", "--help"]) == 0
    assert "--precision" in capsys.readouterr().out
    assert run(["history", "--limit", str(10**20)]) == 2
    assert "internal" not in capsys.readouterr().err


def test_a_clock_that_was_set_back_is_told_of(typed: Typed, home: Path) -> None:
    with History(home / ".local" / "share" / "edgesdk" / "history.sqlite") as history:
        add(history, measured(1), "main")
        later, earlier = add(history, measured(9)), add(history, measured(5))
        history.add(replace(describe_run(measured(4)), folder=None), b"{}")
    assert gate(typed, "--against", "main")["ours"]["run"] == later
    assert f"note: run {later[:12]} has the latest date and is judged" in typed.shown
    assert f"run {earlier[:12]} was recorded after it" in typed.shown
    gate(typed, "--against", "main", "--run", earlier)
    assert typed.shown.count("note: ") == 1


def test_what_an_import_brought_is_no_sign_of_a_clock(typed: Typed, home: Path) -> None:
    with History(home / ".local" / "share" / "edgesdk" / "history.sqlite") as history:
        add(history, measured(1), "main")
        newest = add(history, measured(9))
        history.add(describe_run(measured(5)), encode_report(measured(5)))
    assert gate(typed, "--against", "main")["ours"]["run"] == newest
    assert "note: " not in typed.shown
