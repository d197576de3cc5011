"""What ran where, in every form of a report: readable, complete, and safe to show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgesdk.bench.offload import offload_unknown
from edgesdk.bench.offload_values import Offload, OffloadOp, OffloadPart, OffloadRow
from edgesdk.report.headline import remark_rows
from edgesdk.report.html import render_html
from edgesdk.report.junit import render_junit
from edgesdk.report.markdown import render_markdown
from edgesdk.report.offload import backend_rows, offload_rows, op_rows
from tests.unit.report.fixtures import make_sample_report, vary

HOSTILE = "<script>alert(1)</script>|\x1b[31m`x`"
ELSEWHERE = (
    "Conv_12 was planned for edgetpu and ran on the CPU in XNNPACK: 4.1% of the time (derived)"
)


def make_op(name: str, **fields: Any) -> OffloadOp:
    known = {
        "part": 0,
        "name": name,
        "op": "CONV_2D",
        "nodes": (name,),
        "predicted": "edgetpu",
        "predicted_share": 0.25,
        "backend": "edgetpu",
        "where": "EDGETPU",
        "accelerator": True,
        "time_us": 800.0,
        "share": 0.8,
        "derived": True,
        "precision": "int8",
        "count": 1,
        "agrees": True,
    }
    return OffloadOp(**{**known, **fields})


def make_offload(**fields: Any) -> Offload:
    fell = make_op(
        "Conv_12",
        backend="litert-cpu",
        where="XNNPACK",
        accelerator=False,
        time_us=41.0,
        share=0.041,
        agrees=False,
    )
    known = {
        "has_accelerator": True,
        "whole_us": 1000.0,
        "accelerator_share": 0.8,
        "cpu_share": 0.041,
        "unknown_share": 0.0,
        "between_share": 0.159,
        "off_accelerator_share": 0.2,
        "rows": (
            OffloadRow(
                backend="edgetpu",
                where=("EDGETPU",),
                accelerator=True,
                predicted_nodes=41,
                predicted_share=0.93,
                ops=40,
                measured_share=0.8,
                derived=True,
            ),
            OffloadRow(
                backend="litert-cpu",
                where=("XNNPACK",),
                accelerator=False,
                predicted_nodes=0,
                predicted_share=0.0,
                ops=1,
                measured_share=0.041,
                derived=True,
            ),
        ),
        "parts": (
            OffloadPart(
                index=0,
                backend="edgetpu",
                served_by="edgetpu",
                runtime="litert",
                time_us=990.0,
                share=0.99,
                accelerator_share=0.8,
                how="differences between the times of the model's beginnings",
                why=None,
            ),
        ),
        "ops": (make_op("Conv_0"), fell),
        "disagreements": (ELSEWHERE,),
        "disagreeing_ops": 1,
        "why": None,
    }
    return Offload(**{**known, **fields})


def test_planned_and_measured_shares_stand_beside_each_other() -> None:
    assert backend_rows(make_offload()) == [
        ("edgetpu", "41", "93.0%", "EDGETPU", "40", "80.0% derived"),
        ("litert-cpu", "0", "0.0%", "XNNPACK (CPU)", "1", "4.1% derived"),
        ("between ops and parts", "", "", "", "", "15.9%"),
    ]


def test_ops_that_ran_elsewhere_come_first() -> None:
    rows = op_rows(make_offload())
    assert rows[0][1:] == (
        "Conv_12", "edgetpu", "XNNPACK", "25.0%", "4.1% derived", "elsewhere than planned",
    )  # fmt: skip
    assert rows[1][-1] == ""


def test_a_few_lines_name_share_and_disagreements() -> None:
    rows = [(row.label, row.value) for row in offload_rows(vary(offload=make_offload()))]
    assert rows == [
        (
            "off accelerator",
            "20.0% of the time: 4.1% on the CPU, 15.9% in launches, copies and hand-over",
        ),
        ("elsewhere", ELSEWHERE),
    ]


def test_more_disagreements_than_fit_are_counted() -> None:
    many = make_offload(disagreements=(ELSEWHERE,) * 100, disagreeing_ops=470)
    rows = offload_rows(vary(offload=many), most=5)
    assert [row.label for row in rows].count("elsewhere") == 6
    assert rows[-1].value == "465 more ops; report.json has all"
    assert "370 more, which report.json names" in render_html([vary(offload=many)])


def test_a_disagreement_is_said_once_in_an_outcome() -> None:
    report = vary(
        offload=make_offload(), verdict="partly-fell-back", verdict_reasons=(ELSEWHERE,)
    )
    shown = [row.value for row in remark_rows(report)]
    assert sum(ELSEWHERE in value for value in shown) == 1


def test_a_target_without_accelerator_has_no_time_off_it() -> None:
    report = vary(offload=make_offload(has_accelerator=False, disagreements=()))
    assert "off accelerator" not in [row.label for row in offload_rows(report)]
    assert "Off the accelerator" not in render_html([report])


@pytest.mark.parametrize("render", [render_html, render_markdown, render_junit])
def test_every_form_tells_of_a_device_that_could_not_be_asked(render: Any) -> None:
    report = vary(offload=offload_unknown("this agent cannot say what ran where", profile=None))
    assert "his agent cannot say what ran where" in render([report])


@pytest.mark.parametrize("render", [render_html, render_markdown, render_junit])
def test_every_form_names_what_ran_elsewhere(render: Any) -> None:
    text = render([vary(offload=make_offload())]).replace("\\", "")
    assert ELSEWHERE in text
    if render is not render_junit:
        assert "elsewhere than planned" in text
        assert "93.0%" in text


@pytest.mark.parametrize("render", [render_html, render_markdown, render_junit])
def test_names_from_anywhere_are_text(render: Any) -> None:
    offload = make_offload(
        ops=(make_op(HOSTILE, where=HOSTILE, op=HOSTILE, predicted=HOSTILE),),
        disagreements=(HOSTILE,),
    )
    rows = tuple(replace(row, backend=HOSTILE, where=(HOSTILE,)) for row in offload.rows)
    text = render([vary(offload=replace(offload, rows=rows))])
    assert "<script>" not in text.replace("\\<", "")
    assert "\x1b" not in text


def test_a_report_without_a_record_has_no_section() -> None:
    report = make_sample_report()
    assert report.offload is None
    assert offload_rows(report) == ()
    assert "What ran where" not in render_html([report])


def junit(**fields: Any) -> ET.Element:
    return ET.fromstring(render_junit([vary(**fields)]).partition("\n")[2])


def test_a_promise_that_was_not_kept_fails_its_case() -> None:
    suite = junit(offload=make_offload(), verdict="fell-back-to-cpu")[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    cases = {case.get("name"): case for case in suite}
    failure = cases["ran where planned"].find("failure")
    assert failure is not None
    assert failure.get("message") == ELSEWHERE
    assert cases["outputs as on the host"].find("failure") is None


def test_what_nobody_looked_at_is_skipped_and_no_success() -> None:
    suite = junit(offload=None)[0]
    skipped = [case.get("name") for case in suite if case.find("skipped") is not None]
    assert skipped == ["ran where planned"]
    assert suite.get("skipped") == "1"


@pytest.mark.parametrize(
    ("op", "said"),
    [
        ({"accelerator": None, "agrees": None}, "1 ops do not tell where they ran"),
        ({"agrees": None}, "no op is known to have run where it was planned"),
    ],
)
def test_silence_of_a_runtime_is_no_success_either(op: dict[str, Any], said: str) -> None:
    offload = make_offload(ops=(make_op("a", **op),), disagreements=(), disagreeing_ops=0)
    case = junit(offload=offload)[0][2]
    skipped = case.find("skipped")
    assert skipped is not None
    assert skipped.get("message") == said


@pytest.mark.parametrize("record", ["none", "unasked", "usable"])
def test_a_bundle_that_partly_fell_back_fails_a_build(record: str) -> None:
    offload = {
        "none": None,
        "unasked": offload_unknown("nobody tells", profile=None),
        "usable": replace(offload_unknown("", profile=None), why=None),
    }[record]
    report = vary(verdict="partly-fell-back", verdict_reasons=("part 1",), offload=offload)
    suite = ET.fromstring(render_junit([report]))[0]
    assert suite.get("failures") == "1"
    (failure,) = suite.iter("failure")
    assert "part 1" in (failure.text or "")
