"""The main facts of a report as (label, value) rows, for a terminal, Markdown or a web page.

Text that came from a device or a model file is cleaned of control characters here, so that no
row can move a cursor or break a line; escaping for a markup language is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesdk.bench.spec_values import BenchSpec
from edgesdk.bench.values import (
    PERCENTILES,
    VERDICTS,
    Accuracy,
    AccuracyResult,
    BenchmarkReport,
    Latency,
    PercentileName,
)
from edgesdk.report.origin import origin_text
from edgesdk.report.trust import comparison_rows, trust_rows

__all__ = [
    "Row",
    "accuracy_text",
    "bytes_text",
    "clean",
    "compare_medians",
    "describe_speedup",
    "interval_text",
    "ms_text",
    "pace_text",
    "percentile_text",
    "score_text",
    "summary_rows",
    "value_text",
    "vectors_text",
]

_NO_DIFFERENCE = "no clear difference"
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a summary."""

    label: str
    value: str


def clean(value: object, *, limit: int = 300) -> str:
    """Make text from anywhere one printable line of at most ``limit`` characters."""
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 4 * limit])
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def ms_text(value: float | None) -> str:
    """Show a time with three significant digits."""
    if value is None:
        return "not measured"
    if value >= 100:
        return f"{value:,.0f} ms" if value < 1e9 else f"{value:.3g} ms"
    return f"{value:#.3g} ms" if value >= 0.001 else f"{value * 1000:.3g} µs"


def pace_text(spec: BenchSpec) -> str:
    """Say how inferences followed each other."""
    one_by_one = spec.scenario == "single-stream" and spec.batch == 1
    return "one by one" if one_by_one else spec.scenario


def vectors_text(count: int) -> str:
    """Say how many check vectors there are."""
    return "1 check vector" if count == 1 else f"{count} check vectors"


def bytes_text(value: int | None) -> str:
    """Show a number of bytes in the largest binary unit that keeps it above one."""
    if value is None:
        return "not measured"
    amount, unit = float(value), 0
    while amount >= 1024 and unit < len(_BYTE_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return (
        f"{value} B"
        if unit == 0
        else f"{amount:.{0 if amount >= 100 else 1}f} {_BYTE_UNITS[unit]}"
    )


def percentile_text(latency: Latency, name: PercentileName) -> str:
    """Show a percentile with its interval, or why there is none."""
    value = getattr(latency, name)
    if value is None:
        return f"not given: {clean(latency.why[name])}"
    interval = latency.intervals[name]
    lower, upper = ms_text(interval.lower_ms), ms_text(interval.upper_ms)
    return f"{ms_text(value)} (95 % interval {lower.removesuffix(' ms')} to {upper})"


def value_text(value: float, *, rate: bool) -> str:
    """Show a rate in per cent, an error as a number."""
    return f"{value:.2%}" if rate else f"{value:.4g}"


def score_text(result: AccuracyResult) -> str:
    """Show the value of a metric."""
    return value_text(result.value, rate=result.kind == "rate")


def interval_text(result: AccuracyResult) -> str:
    """Show the interval of a metric, where it has one, and the number of samples."""
    count = f"{result.samples} samples"
    if result.lower is None or result.upper is None:
        return count
    rate = result.kind == "rate"
    lower, upper = (value_text(end, rate=rate) for end in (result.lower, result.upper))
    return f"{lower} to {upper}, {count}"


def accuracy_text(result: AccuracyResult) -> str:
    """Show a metric with its interval and where it was taken."""
    interval = "95 % interval " if result.lower is not None else ""
    return f"{score_text(result)} ({interval}{interval_text(result)}, on the {result.where})"


def describe_speedup(report: BenchmarkReport) -> str | None:
    """Say how the median compares with the baseline's, without a subject; None if unknown."""
    said = compare_medians(report)
    if said is None or report.baseline is None:
        return None
    name = clean(report.baseline.bundle.precision, limit=40)
    if said == _NO_DIFFERENCE:
        return f"shows no clear difference to {name} (the intervals of the medians overlap)"
    verb = "is" if said.endswith("fast") else "takes"
    return f"{verb} {said} as {name}"


def compare_medians(report: BenchmarkReport) -> str | None:
    """Say how the median compares with the baseline's in a few words; None if unknown.

    A difference is claimed only where the intervals of the two medians do not overlap.
    """
    if report.baseline is None:
        return None
    ours, theirs = report.latency.p50_ms, report.baseline.latency.p50_ms
    if not ours or not theirs:
        return None
    a = report.latency.intervals["p50_ms"]
    b = report.baseline.latency.intervals["p50_ms"]
    if a.lower_ms <= b.upper_ms and b.lower_ms <= a.upper_ms:
        return _NO_DIFFERENCE
    if ours <= theirs:
        return f"{theirs / ours:.2f} times as fast"
    return f"{ours / theirs:.2f} times as long"


def _origin_rows(report: BenchmarkReport) -> list[tuple[str, str]]:
    origin = report.model.origin
    return [] if origin is None else [("imported", clean(origin_text(origin)))]


def summary_rows(report: BenchmarkReport) -> tuple[Row, ...]:
    """Give the facts a reader wants first, in reading order."""
    rows = [
        ("verdict", f"{report.verdict}: {VERDICTS[report.verdict]}"),
        *(("because", reason) for reason in report.verdict_reasons),
        ("model", f"{report.model.name}, {report.bundle.precision}"),
        *_origin_rows(report),
        ("target", report.target.name),
        ("device", _device_text(report)),
        ("bundle", f"{report.bundle.id[:12]}, {bytes_text(report.bundle.bytes)}"),
        ("runs", f"{len(report.latency.samples_ms)} after {_warm_up_runs(report)} to warm up"),
    ]
    rows += [
        (name.removesuffix("_ms"), percentile_text(report.latency, name))
        for name, _ in PERCENTILES
    ]
    if report.throughput_per_s is not None:
        how = pace_text(report.spec)
        rows.append(("throughput", f"{report.throughput_per_s:,.4g} inferences/s, {how}"))
    for label, value in (("cold start", report.cold_start_ms), ("load", report.load_ms)):
        if value is not None:
            rows.append((label, ms_text(value)))
    if report.peak_rss_bytes is not None:
        rows.append(("peak memory", f"{bytes_text(report.peak_rss_bytes)} in the worker"))
    speedup = describe_speedup(report)
    if speedup is not None:
        rows.append(("speed", f"{report.bundle.precision} {speedup}"))
    rows += _accuracy_rows(report.accuracy)
    if report.baseline is not None and report.baseline.accuracy.labelled is not None:
        result = report.baseline.accuracy.labelled
        precision = report.baseline.bundle.precision
        rows.append((f"{result.metric}, {precision}", accuracy_text(result)))
    if report.contest is not None:
        rows.append(("contest", report.contest.why))
    rows += [*comparison_rows(report), *trust_rows(report)]
    rows += [("note", note) for note in report.conditions.notes]
    return tuple(Row(label=clean(label, limit=60), value=clean(value)) for label, value in rows)


def _warm_up_runs(report: BenchmarkReport) -> int:
    warm_up = None if report.procedure is None else report.procedure.warm_up
    return report.spec.warmup_runs if warm_up is None else warm_up.runs


def _device_text(report: BenchmarkReport) -> str:
    device = report.device
    what = device.device_tree_model or device.cpu_model or device.machine
    return f"{device.name} ({what})" if what else device.name


def _accuracy_rows(accuracy: Accuracy) -> list[tuple[str, str]]:
    rows = []
    check = accuracy.host_check
    if check is not None:
        said = "same as on the host" if check.passed else "NOT the same as on the host"
        rows.append(("outputs", f"{said}, {vectors_text(check.vectors)}"))
    for output in accuracy.reference:
        facts = []
        if output.cosine is not None:
            facts.append(f"cosine {output.cosine:.5f}")
        if output.max_abs_error is not None:
            facts.append(f"max error {output.max_abs_error:.3g}")
        if output.top1_agreement is not None:
            facts.append(f"top-1 agrees in {output.top1_agreement:.1%} of {output.rows}")
        rows.append((f"{output.name} to float", ", ".join(facts) or "not comparable"))
    for label, result in (
        ("", accuracy.labelled),
        (" unquantized", accuracy.labelled_reference),
    ):
        if result is not None:
            rows.append((f"{result.metric}{label}", accuracy_text(result)))
    return rows
