"""Exports come back as they were; lines from anywhere bring in nothing that is not sound."""

from __future__ import annotations

import io
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bench import history_lines
from edgesdk.bench.history import History, RunFilter
from edgesdk.bench.history_lines import LINE_SCHEMA, export_lines, import_lines
from edgesdk.errors import HistoryError
from edgesdk.report.files import encode_report
from edgesdk.report.read import parse_report
from tests.unit.bench.test_history import add, measured


@pytest.fixture
def full(tmp_path: Path):
    with History(tmp_path / "full.sqlite") as history:
        add(history, measured(1), "main", branch="topic")
        add(history, measured(2), "v1", "main")
        add(history, measured(3, device="bench-4"))
        yield history


@pytest.fixture
def empty(tmp_path: Path):
    with History(tmp_path / "empty.sqlite") as history:
        yield history


def take(history: History, *lines: bytes) -> history_lines.ImportedRuns:
    stream = io.BytesIO(b"".join(lines))
    return import_lines(history, stream, name="runs.jsonl", parse_report=parse_report)


def line(**fields: Any) -> bytes:
    report = json.loads(encode_report(measured(7)))
    document = {"schema": LINE_SCHEMA, "labels": [], "report": report, **fields}
    return json.dumps(document).encode() + b"\n"


def test_an_export_comes_back_as_it_was(full: History, empty: History) -> None:
    lines = list(export_lines(full))
    assert all(each.count(b"\n") == 1 and each.isascii() for each in lines)
    done = take(empty, *lines)
    assert len(done.added) == 3
    assert done.there == ()
    for ours, theirs in zip(empty.runs(), full.runs(), strict=True):
        assert (ours.id, ours.labels, ours.provenance, ours.p50_ms, ours.conditions) == (
            theirs.id,
            theirs.labels,
            theirs.provenance,
            theirs.p50_ms,
            theirs.conditions,
        )
        assert ours.folder is None, "where a bundle lay says nothing on another computer"
    assert list(export_lines(empty)) == lines


def test_what_is_there_already_is_left_out(full: History) -> None:
    done = take(full, *export_lines(full))
    assert done.added == ()
    assert len(done.there) == 3
    assert len(full.runs()) == 3


def test_an_export_may_be_a_part(full: History) -> None:
    assert len(list(export_lines(full, RunFilter(label="main")))) == 2


def test_a_report_of_an_earlier_edgesdk_without_newer_fields_is_taken(empty: History) -> None:
    report = json.loads(encode_report(measured(7)))
    for name in ("contest", "offload"):
        del report[name]
    (run,) = take(empty, line(report=report)).added
    assert take(empty, line()).there == (run,), "and is the same run"


@pytest.mark.parametrize(
    ("bad", "seen"),
    [
        (b"", "it holds no line"),
        (b"\n  \n", "it holds no line"),
        (b"{}\n", "line 1: its schema is None"),
        (b"[1]\n", "line 1: its schema is None"),
        (b"nonsense\n", "line 1: it is not JSON"),
        (b"\xff\xfe\n", "line 1: it is not JSON"),
        (b"[" * 100_000 + b"\n", "line 1: it is nested too deeply"),
        (b'{"schema": NaN}\n', "NaN is not a number in JSON"),
        (line(schema="edgesdk.history-line/2"), "its schema is 'edgesdk.history-line/2'"),
        (line(report=None), "it has no report"),
        (line(report={}), "its schema is None"),
        (line(report={"schema": "edgesdk.report/9"}), "its schema is 'edgesdk.report/9'"),
        (line().replace(b'"load_ms": 38.2', b'"load_ms": 1e999'), "is too large"),
        (line(report={"schema": "\ud800"}), "its schema is"),
        (line(more=1), "unknown field 'more'"),
        (line(labels="main"), "labels is no list"),
        (line(labels=["x"] * 51), "labels is no list of at most 50"),
        (line(labels=[1]), "a label is no text"),
        (line(labels=["two words"]), "cannot use label"),
        (line(branch=7), "branch is neither null"),
        (line(branch="a\nb"), "branch is neither null"),
        (line(commit="abc"), "commit is neither null"),
    ],
)
def test_one_bad_line_brings_nothing_in(bad: bytes, seen: str, empty: History) -> None:
    with pytest.raises(HistoryError) as caught:
        take(empty, *([line()] if bad.strip() else []), bad.replace(b"line 1", b"line 2"))
    assert seen.replace("line 1", "line 2") in str(caught.value)
    assert caught.value.hint
    assert empty.runs() == []


def test_a_later_schema_says_to_update(empty: History) -> None:
    with pytest.raises(HistoryError) as caught:
        take(empty, line(schema="edgesdk.history-line/2"))
    assert "update this one" in caught.value.hint


def test_limits_hold(empty: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_lines, "MAX_LINE_BYTES", 100)
    with pytest.raises(HistoryError, match="line 1 is longer than 100 bytes"):
        take(empty, line())
    monkeypatch.setattr(history_lines, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(history_lines, "MAX_LINES", 2)
    with pytest.raises(HistoryError, match="more than 2 lines"):
        take(empty, line(), line(), line())
    assert empty.runs() == []


def test_a_damaged_report_ends_an_export(full: History) -> None:
    run = full.runs()[0].id
    full._connection.execute("UPDATE runs SET report = x'00' WHERE id = ?", (run,))
    with pytest.raises(HistoryError, match=run[:12]):
        list(export_lines(full))


@pytest.mark.parametrize("damaged", [b"{broken", b"\xff", b'{"a": 1e999}', b"[" * 100_000])
def test_a_report_that_is_no_json_ends_an_export(full: History, damaged: bytes) -> None:
    run = full.runs()[0].id
    row = (zlib.compress(damaged), run)
    full._connection.execute("UPDATE runs SET report = ? WHERE id = ?", row)
    with pytest.raises(HistoryError, match=f"cannot export run {run[:12]}") as caught:
        list(export_lines(full))
    assert "edgesdk history remove" in caught.value.hint


def test_a_line_of_countless_lists_is_refused_before_it_is_unpacked(empty: History) -> None:
    """Each takes some fifty times the memory of its two characters."""
    bad = b'{"report":[' + b"[]," * 300_000 + b"[]]}\n"
    tracemalloc.start()
    with pytest.raises(HistoryError, match="more than 200002 lists and objects"):
        take(empty, bad)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(bad)
