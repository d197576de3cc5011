"""A contest in every form of a report: who competed, how fast each was, who won and why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgesdk.bench.values import AccuracyResult
from edgesdk.errors import ReportError
from edgesdk.report.contest import contest_section, contest_table
from edgesdk.report.files import encode_report
from edgesdk.report.headline import remark_rows
from edgesdk.report.html import render_html
from edgesdk.report.markdown import render_markdown
from edgesdk.report.read import parse_report
from edgesdk.report.summary import summary_rows
from tests.unit.report.fixtures import FP32, INT8, make_contest, make_contestant, vary


def test_contestants_stand_side_by_side_with_the_winner_named() -> None:
    shown = contest_table(make_contest())
    assert shown.columns == ("contest", "median", "p95", "peak memory", "bundle", "")
    ort, lite, other = shown.rows
    assert ort[0] == "ort-cpu"
    assert ort[1].startswith("3.9")
    assert ort[3:] == ("75.0 MiB", INT8[:12], "the fastest: kept")
    assert lite[-1] == "1.61 times as long (95 % interval 1.58 to 1.66, 10 rounds)"
    assert other[1:4] == ("-", "-", "-")
    assert other[-1].startswith("out: cannot deploy to bench-3: it has no other")


@pytest.mark.parametrize(
    ("decided_by", "said"),
    [
        ("time", "the fastest: kept"),
        ("order", "a tie: kept, as it comes first"),
        ("accuracy", "kept, as it keeps its accuracy"),
        ("alone", "kept, as the only one left"),
        ("refused", "the better one; nothing was switched"),
    ],
)
def test_the_winner_says_what_it_was_kept_for(decided_by: str, said: str) -> None:
    assert contest_table(make_contest(decided_by=decided_by)).rows[0][-1] == said


def test_labelled_data_that_decided_have_a_column() -> None:
    result = AccuracyResult(
        metric="top-1",
        kind="rate",
        value=0.9,
        lower=None,
        upper=None,
        samples=10,
        where="device",
    )
    worse = make_contestant("b", "b", 1.0, bundle=INT8, labelled=result, why_out="it loses 9%")
    winner = make_contest().contestants[0]
    shown = contest_table(make_contest(contestants=(winner, worse), decided_by="accuracy"))
    assert shown.columns[4] == "labelled"
    assert [row[4] for row in shown.rows] == ["-", "90.00% top-1"]
    assert shown.rows[1][-1] == "out: it loses 9%"


def test_a_page_has_the_contest_and_one_without_has_not() -> None:
    page = render_html([vary(contest=make_contest())])
    for text in ("<h2>Contest</h2>", "litert 2.1.0", "1.58 to 1.66", "400 in 10 rounds"):
        assert text in page
    assert "<p>ort-cpu is the fastest" in page
    assert "The clock was limited meanwhile." not in page
    assert "limited meanwhile" in contest_section(make_contest(throttled=True), "k")
    assert "Contest" not in render_html([vary(contest=None)])


def test_times_of_an_emulated_device_are_called_that() -> None:
    contest = make_contest(emulated="qemu-user")
    columns = contest_table(contest).columns
    assert columns[1:4] == ("median, emulated", "p95, emulated", "peak memory")
    said = "The device was emulated (qemu-user): which is faster there says nothing of a board."
    assert said in contest_section(contest, "k")
    assert "emulated" not in contest_section(make_contest(), "k")


def test_markdown_has_the_contest_as_a_table() -> None:
    text = render_markdown([vary(contest=make_contest())])
    assert "| contest | median | p95 | peak memory | bundle |  |" in text
    assert "| litert-cpu | 6." in text
    assert "1.61 times as long" in text
    assert "| contest | median" not in render_markdown([vary(contest=None)])


def test_text_says_why_in_a_line() -> None:
    report = vary(contest=make_contest())
    for rows in (summary_rows(report), remark_rows(report)):
        told = [row.value for row in rows if row.label == "contest"]
        assert told == [make_contest().why]


def test_a_report_with_a_contest_survives_its_file() -> None:
    report = vary(contest=make_contest())
    assert parse_report(encode_report(report), name="r") == report


def test_a_report_of_an_earlier_version_has_no_contest() -> None:
    document = json.loads(encode_report(vary(contest=None)))
    del document["contest"]
    assert parse_report(json.dumps(document).encode(), name="r").contest is None


@pytest.mark.parametrize(
    "change",
    [
        {"winner": "nobody"},
        {"decided_by": "dice"},
        {"contestants": []},
        {"throttled": "yes"},
        {"emulated": 1},
    ],
)
def test_a_contest_that_makes_no_sense_is_no_report(change: dict[str, Any]) -> None:
    document = json.loads(encode_report(vary(contest=make_contest())))
    document["contest"] |= change
    with pytest.raises(ReportError, match="cannot read report r: contest"):
        parse_report(json.dumps(document).encode(), name="r")


def test_precisions_stand_with_their_size_and_distance() -> None:
    contest = make_contest(
        contestants=(
            make_contestant("cpu", "ort 1", 3.0, bundle=FP32, precision="fp32", cosine=1.0),
            make_contestant("cpu", "ort 1", 1.0, bundle=INT8, precision="int8", cosine=0.9991),
        ),
        winner="cpu int8",
    )
    shown = contest_table(contest)
    assert shown.columns[4:6] == ("size", "cosine to float")
    assert [row[0] for row in shown.rows] == ["cpu fp32", "cpu int8"]
    assert [row[4:6] for row in shown.rows] == [("500 KiB", "1.00000"), ("500 KiB", "0.99910")]
    assert [row[-1] for row in shown.rows] == ["", "the fastest: kept"]
    page = contest_section(contest, "k")
    assert page.count("cpu int8") == 2
    assert "cosine to float" in page


def test_a_winner_has_to_be_one_of_the_contestants() -> None:
    with pytest.raises(ValueError, match="the winner is no contestant"):
        make_contest(winner="ort-cpu int8")


def test_a_report_from_before_there_were_precisions_is_read() -> None:
    record = json.loads(encode_report(vary(contest=make_contest())))
    for each in record["contest"]["contestants"]:
        del each["precision"], each["cosine"]
    contest = parse_report(json.dumps(record).encode(), name="report.json").contest
    assert contest == make_contest()
