"""Reports survive writing and reading, and files from elsewhere are refused in words."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.bench.assemble import device_record
from edgesdk.bench.history import History, RunFilter
from edgesdk.bench.history_values import describe_run
from edgesdk.cli.recording import record_run
from edgesdk.errors import HistoryError, OutputError, ReportError
from edgesdk.report.files import encode_report, write_report
from edgesdk.report.read import MAX_REPORT_BYTES, parse_report, read_report, read_reports
from edgesdk.settings import resolve_settings
from tests.unit.bench.test_bench_assemble import assembled, measured
from tests.unit.report.fixtures import make_sample_report, vary

GOOD = encode_report(make_sample_report())


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    report = make_sample_report()
    written = write_report(report, tmp_path / "new" / "folder")
    assert read_report(written.json) == report
    assert read_report(written.json.parent) == report
    assert written.html.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in written.json.parent.iterdir()) == [
        "report.html",
        "report.json",
    ]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write report to .*file/below: "):
        write_report(vary(baseline=None), tmp_path / "file" / "below")


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"cannot read report .*: No such file") as caught:
        read_report(tmp_path / "gone.json")
    assert caught.value.exit_code == 2
    assert "report.json" in caught.value.hint


def changed(**fields: Any) -> bytes:
    document = json.loads(GOOD)
    document.update(fields)
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[]", "its schema is None \\(expected 'edgesdk.report/1'\\)"),
        (b'{"schema": "edgesdk.report/9"}', "its schema is 'edgesdk.report/9'"),
        (b'{"schema": 1, "schema": 2}', "the same key twice"),
        (b'{"schema": NaN}', "NaN is not a number in JSON"),
        (b'{"schema": -Infinity}', "-Infinity is not a number"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b"[]," * 300_000, "more than 200000 lists and objects"),
        (b" " * (MAX_REPORT_BYTES + 1), "it is larger than"),
        (
            b'{"schema": "edgesdk.report/1"}',
            "created: Field required; .* \\(and 2[0-9] more\\)",
        ),
        (changed(extra=1), "extra: "),
        (changed(verdict="fine"), "verdict: .*accelerated"),
        (changed(throughput_per_s="251"), "throughput_per_s.*: "),
        (changed(throughput_per_s=10**400), "throughput_per_s"),
        (changed(wall_s=1).replace(b'"wall_s": 1', b'"wall_s": 1e999'), "wall_s"),
        (changed(wall_s=1e19), "wall_s"),
        (changed(spec=None), "spec: "),
        (changed(edgesdk="\ud800"), "it is not|edgesdk|JSON"),
        (changed(edgesdk="x" * 30_000), "edgesdk: "),
    ],
)
def test_what_is_no_report_is_refused_with_a_reason(data: bytes, said: str) -> None:
    with pytest.raises(ReportError, match=f"(?s)cannot read report r.json: .*{said}"):
        parse_report(data, name="r.json")


def test_percentiles_that_contradict_themselves_are_refused() -> None:
    document = json.loads(GOOD)
    document["latency"]["why"] = {"p50_ms": "no reason"}
    with pytest.raises(ReportError, match="p50_ms needs a value and an interval"):
        parse_report(json.dumps(document).encode(), name="r.json")
    document["latency"]["why"] = {}
    document["latency"]["intervals"]["p50_ms"]["lower_ms"] = 1e6
    with pytest.raises(ReportError, match="lower_ms is above upper_ms"):
        parse_report(json.dumps(document).encode(), name="r.json")


def test_a_refusal_prints_nothing_that_moves_a_cursor() -> None:
    data = b'{"schema": "\\u001b[2J\\nedgesdk"}'
    with pytest.raises(ReportError) as caught:
        parse_report(data, name="r.json")
    assert str(caught.value).isprintable()
    data = json.dumps({**json.loads(GOOD), "\x1b[2J": 1}).encode()
    with pytest.raises(ReportError) as caught:
        parse_report(data, name="r.json")
    assert str(caught.value).isprintable()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_reports_are_read_or_refused(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(GOOD) - 1))
    junk = data.draw(st.binary(max_size=6))
    skip = data.draw(st.integers(0, 40))
    damaged = GOOD[:place] + junk + GOOD[place + skip :]
    with suppress(ReportError):
        parse_report(damaged, name="r.json")


@settings(max_examples=60, deadline=None)
@given(
    path=st.sampled_from(
        ["verdict", "latency", "model", "parts", "conditions", "placement", "baseline", "spec"]
    ),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
        ),
        max_leaves=8,
    ),
)
def test_any_json_in_any_field_is_read_or_refused(path: str, value: Any) -> None:
    with suppress(ReportError):
        parse_report(changed(**{path: value}), name="r.json")


def test_what_is_no_text_in_utf_8_is_replaced_where_it_comes_in(tmp_path: Path) -> None:
    """A folder named in Latin-1, a device's lone surrogate: nothing is lost by them."""
    static = {"governor": "\ud800ondemand", "\udcff": ["\ud800"], "deep": {"\ud801": 1}}
    samples = [{"t_s": 0.0, "governor": "\ud800", "throttled": ["\ud800"]}]
    runtimes = [{"part": 0, "runtime": "x\ud800", "detail": {"name": "\ud800"}}]
    report = assembled(
        measured=measured(conditions={"static": static, "samples": samples}, runtimes=runtimes),
        device=device_record(
            name="caf\udce9",
            url="local:\udcff",
            facts={},
            agent_version=None,
            agent_sha256=None,
        ),
        repeat=("edgesdk deploy 'caf\udce9'",),
    )
    assert report.repeat == ("edgesdk deploy 'caf\ufffd'",)
    assert report.conditions.static["governor"] == " ondemand"
    written = write_report(report, tmp_path / os.fsdecode(b"caf\xe9"))
    assert read_report(written.json) == report
    with History(tmp_path / "history.sqlite") as history:
        history.add(describe_run(report), encode_report(report))
        with pytest.raises(HistoryError, match="is no text in UTF-8"):
            history.resolve("\udcff", RunFilter())
        with pytest.raises(HistoryError, match="is no text in UTF-8"):
            history.add(describe_run(vary(), folder="/\udce9"), encode_report(vary()))


def test_a_bundle_whose_path_is_no_text_is_recorded_without_it(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    settings = resolve_settings({}, environ={"EDGESDK_HISTORY": str(tmp_path / "h.sqlite")})
    run = record_run(settings, make_sample_report(), folder=folder)
    with History(tmp_path / "h.sqlite") as history:
        (found,) = history.runs()
    assert (found.id, found.folder) == (run, None)


def test_a_name_that_no_file_can_have_is_an_error_with_a_sentence() -> None:
    for path in (Path("a" * 300), Path("a" * 300) / "report.json"):
        with pytest.raises(ReportError, match="File name too long"):
            read_report(path)
        with pytest.raises(ReportError, match="File name too long"):
            read_reports([path])
