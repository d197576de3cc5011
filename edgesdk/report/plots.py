"""Plots of one report: its distribution of latency, its course over time, and the baseline."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.bench.conditions import mean_clock_mhz, warmest_c
from edgesdk.bench.statistics import quantile
from edgesdk.bench.values import PERCENTILES, BenchmarkReport
from edgesdk.report.drawing import (
    INK,
    MUTED,
    OURS,
    THEIRS,
    WARM,
    Drawn,
    drawing,
    is_wide,
    logarithmic,
    plain,
    thin,
)
from edgesdk.report.summary import bytes_text, ms_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison_plot", "latency_plot", "timeline_plot"]

_BINS = 48
#: Samples beyond this quantile are counted in the caption, not drawn: one hiccup would squeeze
#: everything else into a single bar.
_DRAWN = 0.995


def latency_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw the distribution: a histogram over the cumulative share, one time axis.

    On the cumulative share stand the percentiles with their intervals.

    Returns:
        None where there are too few samples to draw.
    """
    ours = sorted(report.latency.samples_ms)
    theirs = sorted(report.baseline.latency.samples_ms) if report.baseline else []
    if len(ours) < 2 or ours[0] == ours[-1]:
        return None
    shown = [ours] if len(theirs) < 2 else [ours, theirs]
    low = min(samples[0] for samples in shown)
    high = max(quantile(samples, _DRAWN) for samples in shown)
    if low == high:  # all but a few are equal: those few are what there is to see
        high = max(samples[-1] for samples in shown)
    far = is_wide(low, high)
    edges = _edges(low, high, far=far)
    out: list[str] = []
    with drawing(3.7, name, out) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for samples, colour in zip(shown, (OURS, THEIRS), strict=False):
            shares = [100 * n / len(samples) for n in _counts(samples, edges)]
            upper.stairs(shares, edges, fill=True, color=colour, alpha=0.3, linewidth=0)
            upper.stairs(shares, edges, color=colour, linewidth=1.2)
            times = [quantile(samples, i / 200) for i in range(201)]
            lower.plot(times, [i / 2 for i in range(201)], color=colour)
        _percentile_lines(report, upper, lower, high)
        upper.set_ylabel("% of runs")
        lower.set_ylabel("% done by then")
        lower.set_xlabel("latency, ms (logarithmic)" if far else "latency, ms")
        if far:
            logarithmic(lower, "x")
            lower.set_xlim(low / 1.05, high * 1.05)
        else:
            lower.set_xlim(low - (high - low) * 0.02, high + (high - low) * 0.02)
        lower.set_ylim(0, 105)
        for axes in (upper, lower):
            axes.grid(visible=False, axis="x")
    count = sum(map(len, shown))
    beyond = sum(len(samples) - bisect.bisect_right(samples, high) for samples in shown)
    told = [
        f"All {count:,} runs count here; the lower curve has a point for every half per cent."
    ]
    if report.latency.intervals:
        told.append("Bars across the dashed lines are 95 % intervals.")
    if beyond:
        told.append(f"{beyond:,} runs lie beyond the right edge.")
    return Drawn(svg=out[0], caption=" ".join(told))


def _edges(low: float, high: float, *, far: bool) -> list[float]:
    steps = [i / _BINS for i in range(_BINS + 1)]
    if far:
        inner = [low * (high / low) ** step for step in steps]
    else:
        inner = [low + (high - low) * step for step in steps]
    return [low, *inner[1:-1], high]


def _counts(ordered: Sequence[float], edges: Sequence[float]) -> list[int]:
    places = [bisect.bisect_left(ordered, edge) for edge in edges[:-1]]
    places.append(bisect.bisect_right(ordered, edges[-1]))
    return [right - left for left, right in itertools.pairwise(places)]


def _percentile_lines(report: BenchmarkReport, upper: Axes, lower: Axes, high: float) -> None:
    top = 0
    for title, share in PERCENTILES:
        value, interval = getattr(report.latency, title), report.latency.intervals.get(title)
        if value is None or interval is None or value > high:
            continue
        for axes in (upper, lower):
            axes.axvline(value, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        ends = (interval.lower_ms, min(interval.upper_ms, high))
        # a width in points: it is seen however narrow the interval is
        lower.plot(ends, [100 * share] * 2, color=INK, linewidth=4, solid_capstyle="butt")
        is_right = value > 0.9 * high
        upper.annotate(
            title.removesuffix("_ms"),
            (value, 1),
            xycoords=("data", "axes fraction"),
            ha="right" if is_right else "left",
            xytext=(-3 if is_right else 3, -8 - 12 * top),
            textcoords="offset points",
            fontsize=9.5,
        )
        top += 1


def timeline_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw samples in the order they were made, with clock and temperature under them.

    Returns:
        None where there are too few samples to draw.
    """
    samples = report.latency.samples_ms
    if len(samples) < 2:
        return None
    conditions = report.conditions.samples
    clock = [(s.t_s, mhz) for s in conditions if (mhz := mean_clock_mhz(s)) is not None]
    warmth = [(s.t_s, c) for s in conditions if (c := warmest_c(s)) is not None]
    others = [(s.t_s, s.others_cpu) for s in conditions if s.others_cpu is not None]
    power = [(s.t_s, max(s.power_w.values())) for s in conditions if s.power_w]
    panels = (
        (clock, "MHz", MUTED, "mean clock"),
        (warmth, "°C", WARM, "warmest zone"),
        (others, "cores", MUTED, "load of others"),
        (power, "W", WARM, "largest sensor of power"),
    )
    below = [panel for panel in panels if len(panel[0]) > 1]
    out: list[str] = []
    with drawing(2.4 + 0.65 * len(below), name, out) as figure:
        heights = (3, *(1.2 for _ in below))
        rows = figure.subplots(
            1 + len(below), 1, sharex=True, height_ratios=heights, squeeze=False
        )
        first, *lower = (row[0] for row in rows)
        times, is_spread = _times(report)
        drawn = [(0.0, samples[0]), *thin(list(zip(times, samples, strict=True)))]
        # a run lasts from the end of the one before it to its own
        first.plot(*zip(*drawn, strict=True), color=OURS, linewidth=0.9, drawstyle="steps-pre")
        first.set_ylabel("ms")
        high = quantile(sorted(samples), 0.998)
        if is_wide(min(samples), high):
            logarithmic(first, "y")
        else:
            first.set_ylim(bottom=0, top=1.08 * high if high else 1.0)
        for axes, (points, label, colour, _) in zip(lower, below, strict=True):
            axes.plot(*zip(*thin(points), strict=True), color=colour)
            axes.set_ylabel(label)
            _roomy(axes, [value for _, value in points])
        (lower[-1] if lower else first).set_xlabel("seconds of measuring")
        figure.align_ylabels()
    told = []
    if len(drawn) - 1 < len(samples):
        stretches = (len(drawn) - 1) // 2
        told.append(
            f"Of {len(samples):,} runs the fastest and the slowest of each of {stretches} "
            "stretches are drawn."
        )
    if is_spread:
        told.append("Runs overlapped, so they are spread evenly over the time.")
    if below:
        told.append(f"Below: {', '.join(panel[3] for panel in below)}.")
    return Drawn(svg=out[0], caption=" ".join(told))


def _times(report: BenchmarkReport) -> tuple[list[float], bool]:
    """Give when each run ended, in seconds, and whether that is only spread over the time."""
    samples, spec = report.latency.samples_ms, report.spec
    if spec.streams == 1 and spec.rate_per_s is None:
        return [total / 1000 for total in itertools.accumulate(samples)], False
    whole_s = report.wall_s or sum(samples) / 1000 / spec.streams
    return [whole_s * (i + 1) / len(samples) for i in range(len(samples))], True


def _roomy(axes: Axes, values: Sequence[float]) -> None:
    """Keep an axis from magnifying what hardly moves."""
    low, high = min(values), max(values)
    room = max(high - low, 0.1 * abs(high), 1e-6)
    axes.set_ylim(low - 0.3 * room, high + 0.3 * room)


def comparison_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw this bundle and the baseline as bars: time, size, memory, accuracy.

    Returns:
        None where there is nothing to compare.
    """
    base = report.baseline
    if base is None:
        return None
    ours, theirs = report.accuracy.labelled, base.accuracy.labelled
    metric = plain(ours.metric, 24) if ours else ""
    rate = ours is not None and ours.kind == "rate"
    panels: list[tuple[str, float | None, float | None, Callable[[Any], str]]] = [
        ("median latency", report.latency.p50_ms, base.latency.p50_ms, ms_text),
        ("size of the parts", report.bundle.bytes, base.bundle.bytes, bytes_text),
        ("peak memory", report.peak_rss_bytes, base.peak_rss_bytes, bytes_text),
        (
            metric,
            ours.value if ours else None,
            theirs.value if theirs else None,
            lambda value: value_text(value, rate=rate),
        ),
    ]
    drawn = [(t, a, b, show) for t, a, b, show in panels if a is not None and b is not None]
    if not drawn:
        return None
    labels = [plain(report.bundle.precision), plain(base.bundle.precision)]
    out: list[str] = []
    with drawing(0.2 + 0.85 * len(drawn), name, out, gap_pt=19) as figure:
        rows = figure.subplots(len(drawn), 1, squeeze=False)
        for (axes,), (title, a, b, show) in zip(rows, drawn, strict=True):
            _bars(axes, title, labels, (a, b), show)
    return Drawn(svg=out[0])


def _bars(
    axes: Axes,
    title: str,
    labels: Sequence[str],
    values: tuple[float, float],
    show: Callable[[Any], str],
) -> None:
    axes.barh([1, 0], values, height=0.68, color=(OURS, THEIRS), alpha=0.85)
    axes.set_yticks([1, 0], labels)
    axes.set_xlim(0, max(*values, 1e-9) * 1.3)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=9.5, color=MUTED, pad=3)
    for place, value in zip((1, 0), values, strict=True):
        text = show(value).replace("µ", "u")
        axes.annotate(
            text, (value, place), xytext=(5, 0), textcoords="offset points", va="center"
        )
