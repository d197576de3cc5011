"""The result of a gate as JUnit, Markdown and JSON, with text from anywhere in it."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from edgesdk.bench.regression import check_latency, make_gate, side_of
from edgesdk.bench.regression_conditions import find_differences
from edgesdk.bench.regression_values import GateResult
from edgesdk.cli.output import jsonable
from edgesdk.report.gate import (
    encode_gate,
    gate_schema,
    render_gate_junit,
    render_gate_markdown,
)
from tests.unit.bench.test_regression import look
from tests.unit.report.fixtures import make_sample_report

FINE = look("recorded", slower=False, ratio=1.0)
SLOW = look("recorded", slower=True)
EVIL = 'x" |<b>*`[y](z)\x1b[2J\n# \ud800'


def result(*looks: object, evil: bool = False) -> GateResult:
    ours = theirs = make_sample_report()
    if evil:
        theirs = replace(theirs, device=replace(theirs.device, kernel=EVIL))
        ours = replace(ours, model=replace(ours.model, name=EVIL))
    return make_gate(
        ours=side_of(ours, called="the newest run"),
        theirs=side_of(theirs, called=EVIL if evil else "main"),
        differences=find_differences(ours, theirs),
        looks=list(looks),  # type: ignore[arg-type]  # looks, as every caller gives
        checks=[check_latency(list(looks), limit=0.02)],  # type: ignore[arg-type]  # the same
    )


@pytest.mark.parametrize(
    ("looks", "tag", "counts"),
    [
        ([FINE], "system-out", ("0", "0")),
        ([SLOW, SLOW], "failure", ("1", "0")),
        ([SLOW], "error", ("0", "1")),
    ],
)
def test_junit_tells_a_failure_from_what_could_not_be_confirmed(
    looks: list[object], tag: str, counts: tuple[str, str]
) -> None:
    root = ET.fromstring(render_gate_junit(result(*looks)))
    suite = root[0]
    assert (suite.get("failures"), suite.get("errors")) == counts
    (case,) = suite
    assert (case.get("name"), case[0].tag) == ("latency", tag)
    assert case.get("classname") == "edgesdk.raspberry-pi-5.digits-cnn"


@pytest.mark.parametrize("render", [render_gate_junit, render_gate_markdown])
def test_text_from_anywhere_stays_text(render) -> None:
    text = render(result(SLOW, SLOW, evil=True))
    assert "\x1b" not in text
    text.encode("utf-8")
    if render is render_gate_junit:
        ET.fromstring(text)
    else:
        assert "<b>" not in text.replace("\\<b\\>", "")
        assert "\n# " not in text


def test_markdown_has_both_runs_and_each_look() -> None:
    text = render_gate_markdown(result(SLOW, look("interleaved", slower=True)))
    assert text.startswith("### edgesdk gate: failed\n")
    assert "| latency | +2.00% | +5.00% | not kept |" in text
    assert "| as recorded | 1.050 | 1.045 to 1.055 | slower than allowed |" in text
    assert "| in turns on the device | 1.050 |" in text


def test_the_document_is_as_its_schema_says() -> None:
    for looks in ([FINE], [SLOW], [SLOW, SLOW]):
        found = result(*looks)
        document = json.loads(encode_gate(found))
        jsonschema.Draft202012Validator(gate_schema()).validate(document)
        assert document == json.loads(json.dumps(jsonable(found)))


def test_the_schema_refuses_what_is_none() -> None:
    document = json.loads(encode_gate(result(FINE)))
    validator = jsonschema.Draft202012Validator(gate_schema())
    for wrong in (
        {**document, "outcome": "maybe"},
        {**document, "more": 1},
        {**document, "looks": []},
        {key: value for key, value in document.items() if key != "ours"},
    ):
        assert not validator.is_valid(wrong)
