"""The rows a terminal shows are short, clean and honest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgesdk.bench.statistics import make_latency
from edgesdk.report.markdown import escape_markdown, render_markdown
from edgesdk.report.summary import (
    bytes_text,
    clean,
    describe_speedup,
    ms_text,
    summary_rows,
)
from tests.unit.report.fixtures import make_sample_report, vary


def test_rows_say_the_main_facts_in_order() -> None:
    rows = {row.label: row.value for row in summary_rows(make_sample_report())}
    assert list(rows)[:2] == ["verdict", "because"]
    assert rows["p50"] == "3.95 ms (95 % interval 3.92 to 3.96 ms)"
    assert rows["device"] == "bench-3 (Raspberry Pi 5 Model B Rev 1.0)"
    assert rows["speed"] == "int8 is 2.46 times as fast as fp32"
    assert rows["outputs"] == "same as on the host, 8 check vectors"
    assert rows["top-1"] == (
        "98.33% (95 % interval 96.40% to 99.23%, 360 samples, on the device)"
    )
    assert "top-1, fp32" in rows


def test_a_missing_percentile_says_why() -> None:
    rows = {
        row.label: row.value for row in summary_rows(vary(latency=make_latency([1.0] * 40)))
    }
    assert rows["p99"] == "not given: needs 368 samples, has 40"


def test_text_of_a_device_cannot_move_a_cursor() -> None:
    report = make_sample_report()
    report = replace(
        report, device=replace(report.device, name="a\x1b[2J\nb\u202ec" + "x" * 999)
    )
    for row in summary_rows(report):
        assert row.value.isprintable()
        assert len(row.value) <= 300


def test_markdown_is_one_table_a_report_and_escapes() -> None:
    report = make_sample_report()
    report = replace(report, model=replace(report.model, name="a|b<script>[x](y)"))
    text = render_markdown([report, make_sample_report()])
    assert text.count("\n|---|---|\n") == 2
    assert "<script>" not in text.replace("\\<", "")
    assert "a\\|b" in text


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (3.0, "is 3.33 times as fast as fp32"),
        (20.0, "takes 2.00 times as long as fp32"),
        (10.0, "shows no clear difference to fp32 (the intervals of the medians overlap)"),
    ],
)
def test_a_speedup_is_claimed_only_where_the_intervals_part(ours: float, said: str) -> None:
    report = make_sample_report()
    assert report.baseline is not None
    samples = [ours + i / 1e4 for i in range(-50, 51)]
    theirs = [10.0 + i / 1e4 for i in range(-50, 51)]
    report = replace(
        report,
        latency=make_latency(samples),
        baseline=replace(report.baseline, latency=make_latency(theirs)),
    )
    assert describe_speedup(report) == said
    assert describe_speedup(replace(report, latency=make_latency([]))) is None
    assert describe_speedup(replace(report, baseline=None)) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0.0, "0 µs"),
        (0.0005, "0.5 µs"),
        (1.0, "1.00 ms"),
        (99.94, "99.9 ms"),
        (1234.5, "1,234 ms"),
        (1e300, "1e+300 ms"),
    ],
)
def test_times_have_three_digits(value: float | None, text: str) -> None:
    assert ms_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1 << 30, "1.0 GiB"),
    ],
)
def test_bytes_have_a_unit(value: int | None, text: str) -> None:
    assert bytes_text(value) == text


def test_clean_text_is_one_line_of_bounded_length() -> None:
    assert clean("a\tb\n c") == "a b c"
    assert len(clean("x" * 10_000)) == 300


def test_text_in_markdown_means_nothing_but_itself() -> None:
    shown = escape_markdown("~~x~~ &copy; https://a.example www.b.example *y* a: b & c")
    assert shown == (
        "\\~\\~x\\~\\~ \\&copy; https\\://a.example www\\.b.example \\*y\\* a: b \\& c"
    )
