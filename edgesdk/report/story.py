"""What a page shows in plots, in a few lines of text: spread, course over time, conditions."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from edgesdk.bench.conditions import mean_clock_mhz, warmest_c
from edgesdk.bench.statistics import quantile
from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.drawing import is_wide
from edgesdk.report.spark import course, histogram, spark
from edgesdk.report.summary import Row, clean, ms_text

__all__ = ["story_rows"]

#: Where the line of the spread ends: one hiccup would squeeze the rest into one bar.
_DRAWN = 0.99
_FEWEST = 12
#: The bottom of the course over time, by its lowest value: noise is not magnified.
_ROOM = 0.8


def story_rows(report: BenchmarkReport) -> tuple[Row, ...]:
    """Give the lines that stand for the plots of a page; none for what was not measured."""
    rows = []
    samples = report.latency.samples_ms
    if len(samples) >= _FEWEST:
        rows.append(Row(label="spread", value=_spread(samples)))
        medians = course(samples)
        low, high = ms_text(min(medians)).removesuffix(" ms"), ms_text(max(medians))
        rows.append(
            Row(
                label="over time",
                value=f"{spark(medians, low=_ROOM * min(medians))} medians {low} to {high}",
            )
        )
    conditions = _conditions(report)
    if conditions:
        rows.append(Row(label="conditions", value=conditions))
    return tuple(rows)


def _spread(samples: Sequence[float]) -> str:
    ordered = sorted(samples)
    low, high = ordered[0], quantile(ordered, _DRAWN)
    beyond = sum(sample > high for sample in ordered)
    bars, note = histogram(ordered, low, high), ""
    if is_wide(low, high):
        bars = histogram([log10(max(each, low)) for each in ordered], log10(low), log10(high))
        note = ", logarithmic"
    text = f"{bars} {ms_text(low).removesuffix(' ms')} to {ms_text(high)}{note}"
    if beyond:
        text += f", {beyond} up to {ms_text(ordered[-1])}"
    return text


def _conditions(report: BenchmarkReport) -> str:
    samples = report.conditions.samples
    told = []
    governors = {
        clean(each, limit=20)
        for name, value in report.conditions.static.items()
        if "governor" in name
        for each in (value if isinstance(value, tuple) else (value,))
        if each is not None
    }
    if governors:
        told.append(f"governor {', '.join(sorted(governors))}")
    clocks = [mhz for sample in samples if (mhz := mean_clock_mhz(sample)) is not None]
    warmth = [c for sample in samples if (c := warmest_c(sample)) is not None]
    loads = [sample.load1 for sample in samples if sample.load1 is not None]
    for values, digits, unit in ((clocks, ".0f", " MHz"), (warmth, ".0f", " °C")):
        if values:
            told.append(_span(values, digits) + unit)
    if loads:
        told.append(f"load {_span(loads, '.2f')}")
    if report.conditions.throttled:
        told.append("clock limited")
    return ", ".join(told)


def _span(values: Sequence[float], digits: str) -> str:
    low, high = (format(end, digits) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
