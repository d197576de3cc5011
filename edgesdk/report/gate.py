"""The result of a gate for build servers: JUnit XML, Markdown, and the schema of its JSON."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from edgesdk.bench.regression_values import (
    Difference,
    GateCheck,
    GateResult,
    Look,
    Side,
)
from edgesdk.report.markdown import escape_markdown, markdown_table
from edgesdk.report.summary import bytes_text, clean, ms_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "LOOK_HEAD",
    "encode_gate",
    "gate_schema",
    "look_rows",
    "render_gate_junit",
    "render_gate_markdown",
    "side_rows",
]

LOOK_HEAD = ("look", "times as long", "95 % interval", "saw")
_WORDS = {"passed": "passed", "failed": "failed", "unconfirmed": "could not be confirmed"}
_LOOKS = {
    "recorded": "as recorded",
    "interleaved": "in turns on the device",
    "fresh": "measured again",
}


@cache
def _gate_adapter() -> TypeAdapter[GateResult]:
    from pydantic import TypeAdapter

    return TypeAdapter(GateResult)


def encode_gate(result: GateResult) -> bytes:
    """Give the JSON document of a result: UTF-8, indented, ending in a newline."""
    return _gate_adapter().dump_json(result, indent=2) + b"\n"


def gate_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of a gate's document."""
    schema = _gate_adapter().json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgesdk gate",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def side_rows(ours: Side, theirs: Side) -> list[tuple[str, str, str]]:
    """Set the two runs beside each other: what, ours, theirs."""
    rows = [
        ("run", ours.run[:12], theirs.run[:12]),
        ("called", ours.called, theirs.called),
        ("when", ours.created, theirs.created),
        ("bundle", ours.bundle[:12], theirs.bundle[:12]),
        ("precision", ours.precision, theirs.precision),
        ("commit", _commit(ours), _commit(theirs)),
        ("p50", _median(ours), _median(theirs)),
        ("samples", str(ours.samples), str(theirs.samples)),
        ("peak memory", bytes_text(ours.peak_rss_bytes), bytes_text(theirs.peak_rss_bytes)),
    ]
    return [
        (name, clean(a, limit=100), clean(b, limit=100))
        for name, a, b in rows
        if name != "commit" or a or b
    ]


def look_rows(looks: tuple[Look, ...]) -> list[tuple[str, str, str, str]]:
    """List the looks: how, the ratio, its interval, what it saw."""
    return [
        (
            _LOOKS[look.kind],
            f"{look.ratio:.3f}",
            f"{look.lower:.3f} to {look.upper:.3f}",
            "slower than allowed" if look.slower else "no regression shown",
        )
        for look in looks
    ]


def _commit(side: Side) -> str:
    commit = side.commit[:12] if side.commit else ""
    return " ".join(filter(None, (side.branch, commit)))


def _median(side: Side) -> str:
    if side.p50_ms is None or side.lower_ms is None or side.upper_ms is None:
        return "-"
    lower = ms_text(side.lower_ms).removesuffix(" ms")
    return f"{ms_text(side.p50_ms)} ({lower} to {ms_text(side.upper_ms)})"


def render_gate_junit(result: GateResult) -> str:
    """Give a JUnit document: one case a limit; what could not be confirmed is an error."""
    root = ET.Element("testsuites", name="edgesdk")
    ours = result.ours
    suite = ET.SubElement(
        root,
        "testsuite",
        name=clean(f"gate of {ours.model} on {ours.device} against {result.theirs.called}"),
        timestamp=result.created.removesuffix("Z").removesuffix("+00:00"),
        tests=str(len(result.checks)),
        failures=str(sum(check.kept is False for check in result.checks)),
        errors=str(sum(check.kept is None for check in result.checks)),
        skipped="0",
    )
    for check in result.checks:
        case = ET.SubElement(
            suite,
            "testcase",
            name=check.name,
            classname=clean(f"edgesdk.{ours.target}.{ours.model}"),
        )
        if check.name == "latency" and ours.p50_ms is not None:
            case.set("time", f"{ours.p50_ms / 1000:.6f}")
        if check.kept is not True:
            tag = "failure" if check.kept is False else "error"
            wrong = ET.SubElement(case, tag, message=clean(check.text))
            wrong.text = "\n".join(_details(result))
        else:
            ET.SubElement(case, "system-out").text = clean(check.text)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _details(result: GateResult) -> list[str]:
    lines = [f"{name}: {a}, was {b}" for name, a, b in side_rows(result.ours, result.theirs)]
    lines += [": ".join((how, f"{ratio} ({span}), {saw}"))
              for how, ratio, span, saw in look_rows(result.looks)]  # fmt: skip
    lines += [f"differs: {_difference(each)}" for each in result.differences]
    return [clean(line) for line in lines]


def _difference(each: Difference) -> str:
    return f"{each.name} is {each.ours}, was {each.theirs}"


def render_gate_markdown(result: GateResult) -> str:
    """Give a comment for a pull request."""
    kept = {True: "kept", False: "not kept", None: "could not be confirmed"}
    ours, theirs = result.ours, result.theirs
    checks = [
        (
            check.name,
            _percent(check, check.limit),
            _percent(check, check.change),
            kept[check.kept],
        )
        for check in result.checks
    ]
    lines = [
        f"### edgesdk gate: {_WORDS[result.outcome]}",
        "",
        escape_markdown(clean(result.text, limit=1000)),
        "",
        *markdown_table(("limit", "allowed", "change", "outcome"), checks),
        *markdown_table(
            (f"{ours.model} on {ours.device}", "this", "reference"),
            side_rows(ours, theirs),
        ),
        *markdown_table(LOOK_HEAD, look_rows(result.looks)),
    ]
    notes = dict.fromkeys(note for look in result.looks for note in look.notes)
    told = [*(f"differs: {_difference(each)}" for each in result.differences), *notes]
    lines += [f"- {escape_markdown(clean(each))}" for each in told]
    return "\n".join(lines).rstrip() + "\n"


def _percent(check: GateCheck, value: float) -> str:
    sign = -1.0 if check.name == "accuracy" else 1.0
    return f"{sign * value:+.2%}"
