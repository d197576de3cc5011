"""What somebody wants to see first of a report: before and after, side by side.

A few rows and a few sentences; `edgesdk.report.summary` has all the facts.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesdk.bench.values import (
    VERDICTS,
    AccuracyResult,
    BenchmarkReport,
    Latency,
    PercentileName,
)
from edgesdk.report.offload import offload_rows
from edgesdk.report.procedure import procedure_rows
from edgesdk.report.summary import (
    Row,
    bytes_text,
    clean,
    compare_medians,
    interval_text,
    ms_text,
    score_text,
    vectors_text,
)
from edgesdk.report.trust import comparison_rows, trust_rows

__all__ = ["Headline", "make_headline", "remark_rows"]

_LATENCY_ROWS: tuple[tuple[PercentileName, str], ...] = (
    ("p50_ms", "p50 latency"),
    ("p90_ms", "p90"),
    ("p99_ms", "p99"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """A small table. ``columns`` name what was measured; the last one is for remarks."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def make_headline(report: BenchmarkReport) -> Headline:
    """Set accuracy, latency, size and memory side by side: the baseline's before ours."""
    rows = [*_accuracy(report), *_latency(report)]
    floats = report.baseline
    before = None if floats is None else floats.bundle.bytes
    share = ""
    if floats is not None and before:
        share = f"{report.bundle.bytes / before:.0%} of {_precision(floats.bundle.precision)}"
    rows.append(("size", bytes_text(before), bytes_text(report.bundle.bytes), share))
    if report.peak_rss_bytes is not None:
        memory = None if floats is None else floats.peak_rss_bytes
        rows.append(("peak memory", bytes_text(memory), bytes_text(report.peak_rss_bytes), ""))
    names: tuple[str, ...] = ("", _precision(report.bundle.precision), "")
    if floats is not None:
        names = ("", _precision(floats.bundle.precision), *names[1:])
        return Headline(columns=names, rows=tuple(rows))
    alone = tuple((label, ours, remark) for label, _, ours, remark in rows)
    return Headline(columns=names, rows=alone)


def remark_rows(report: BenchmarkReport) -> tuple[Row, ...]:
    """Give what else somebody has to know: where it ran, how near it is, what disturbed it."""
    elsewhere = () if report.offload is None else report.offload.disagreements
    reasons = [reason for reason in report.verdict_reasons if reason not in elsewhere]
    rows = [("ran", "; ".join((VERDICTS[report.verdict], *reasons)))]
    rows += [(row.label, row.value) for row in offload_rows(report, most=5)]
    check = report.accuracy.host_check
    if check is not None:
        same = "same as" if check.passed else "NOT the same as"
        near = [
            f"{each.name} has cosine {each.cosine:.5f} to float"
            for each in report.accuracy.reference
            if each.cosine is not None
        ]
        said = f"{same} on the host in {vectors_text(check.vectors)}"
        rows.append(("outputs", "; ".join((said, *near[:3]))))
    if report.contest is not None:
        rows.append(("contest", report.contest.why))
    rows += [*comparison_rows(report), *trust_rows(report)]
    rows += [(row.label, row.value) for row in procedure_rows(report)]
    rows += [("note", note) for note in report.conditions.notes]
    return tuple(Row(label=label, value=clean(value)) for label, value in rows)


def _precision(text: str) -> str:
    return clean(text, limit=20)


def _accuracy(report: BenchmarkReport) -> list[tuple[str, str, str, str]]:
    after = report.accuracy.labelled
    if after is None:
        return []
    before = None if report.baseline is None else report.baseline.accuracy.labelled
    if report.baseline is None and report.accuracy.labelled_reference is not None:
        unquantized = report.accuracy.labelled_reference
        remark = f"{score_text(unquantized)} unquantized, on the {unquantized.where}"
    elif before is None:
        remark = f"95 % interval {interval_text(after)}" if after.lower is not None else ""
    else:
        remark = _change(before, after)
    shown = "" if before is None else score_text(before)
    return [(clean(after.metric, limit=20), shown, score_text(after), remark)]


def _change(before: AccuracyResult, after: AccuracyResult) -> str:
    count = f"on {after.samples} samples"
    if after.kind != "rate":
        return count
    points = 100 * (after.value - before.value)
    return f"{points:+.2f} points {count}" if abs(points) >= 0.005 else f"the same {count}"


def _latency(report: BenchmarkReport) -> list[tuple[str, str, str, str]]:
    if not report.latency.samples_ms:
        return []
    floats = None if report.baseline is None else report.baseline.latency
    emulated = report.conditions.static.get("emulated") is not None
    return [
        (
            f"{label}, emulated" if emulated else label,
            "" if floats is None else _percentile(floats, name),
            _percentile(report.latency, name),
            (compare_medians(report) if name == "p50_ms" else None)
            or _latency_remark(report.latency, name, alone=floats is None),
        )
        for name, label in _LATENCY_ROWS
    ]


def _percentile(latency: Latency, name: PercentileName) -> str:
    value = getattr(latency, name)
    return "-" if value is None else ms_text(value)


def _latency_remark(latency: Latency, name: PercentileName, *, alone: bool) -> str:
    interval = latency.intervals.get(name)
    if interval is None:
        return clean(latency.why[name])
    if not alone:
        return ""
    lower, upper = ms_text(interval.lower_ms), ms_text(interval.upper_ms)
    return f"95 % interval {lower.removesuffix(' ms')} to {upper}"
