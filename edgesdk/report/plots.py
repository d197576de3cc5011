"""Plots as inline SVG. The only module that imports matplotlib.

A plot takes its colours from the page, so it follows light, dark and print: matplotlib draws
with placeholder colours, which are replaced by CSS variables afterwards. Its text stays text in
the page's font. The same report gives the same bytes. Text from a device goes into a plot only
as plain ASCII: matplotlib would warn about missing glyphs and measure them wrong.
"""

from __future__ import annotations

import bisect
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgesdk.bench.conditions import mean_clock_mhz, warmest_c
from edgesdk.bench.statistics import quantile
from edgesdk.bench.values import PERCENTILES, BenchmarkReport
from edgesdk.report.summary import bytes_text, ms_text, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_plot", "latency_plot", "plots_available", "timeline_plot"]

_INK, _MUTED, _GRID, _OURS, _THEIRS, _WARM = (f"#0{n}ed9e" for n in range(6))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--line)",
    _OURS: "var(--ours)",
    _THEIRS: "var(--theirs)",
    _WARM: "var(--warm)",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "text.color": _INK,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
}
_WIDTH_IN = 5.0
_BINS = 48
#: Samples beyond this quantile are counted in the caption, not drawn: one hiccup would squeeze
#: everything else into a single bar.
_DRAWN = 0.995
_MOST_POINTS = 400
#: A ratio of the ends of an axis from which on it is logarithmic.
_WIDE = 8.0


def plots_available() -> bool:
    """Say whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def _drawing(height_in: float, name: str, into: list[str]) -> Iterator[Figure]:
    """Give an empty figure and put its SVG into ``into`` afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        figure.patch.set_visible(False)
        yield figure
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    into.append(_inline(text.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """Strip what only a file of its own needs, and tie colours and font to the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg {box.group() if box else ""} aria-hidden="true" focusable="false"'
    rest = re.sub(r'<g id="[^"]*">', "<g>", rest)
    rest = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', rest)
    rest = re.sub(r'xlink:href="#', f'href="#{name}-', rest)
    rest = re.sub(r"url\(#", f"url(#{name}-", rest)
    rest = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", rest)
    rest = re.sub(r"\s*font-family:[^;\"]*;?", "", rest)
    for colour, variable in _VARIABLES.items():
        rest = rest.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", f"{head}>{rest}").strip()


def _plain(text: str, limit: int = 14) -> str:
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return kept if len(kept) <= limit else f"{kept[: limit - 2]}.."


def latency_plot(report: BenchmarkReport, name: str) -> tuple[str, str] | None:
    """Draw the distribution: a histogram over the cumulative share, one time axis.

    Returns:
        The SVG and its caption; None where there are too few samples to draw.
    """
    ours = sorted(report.latency.samples_ms)
    theirs = sorted(report.baseline.latency.samples_ms) if report.baseline else []
    if len(ours) < 2 or ours[0] == ours[-1]:
        return None
    shown = [ours] if len(theirs) < 2 else [ours, theirs]
    low = min(samples[0] for samples in shown)
    high = max(quantile(samples, _DRAWN) for samples in shown)
    far = _is_wide(low, high)
    edges = _edges(low, high, far=far)
    out: list[str] = []
    with _drawing(3.6, name, out) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for samples, colour in zip(shown, (_OURS, _THEIRS), strict=False):
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
            _logarithmic(lower, "x")
            lower.set_xlim(low / 1.05, high * 1.05)
        else:
            lower.set_xlim(low - (high - low) * 0.02, high + (high - low) * 0.02)
        lower.set_ylim(0, 103)
        for axes in (upper, lower):
            axes.grid(visible=False, axis="x")
    beyond = sum(len(samples) - bisect.bisect_right(samples, high) for samples in shown)
    caption = f"{beyond} of {sum(map(len, shown))} samples lie beyond the right edge."
    return out[0], caption if beyond else ""


def _is_wide(low: float, high: float) -> bool:
    """Say whether a linear axis would squeeze most of the samples into its first bit."""
    return low > 0 and high / low > _WIDE


def _edges(low: float, high: float, *, far: bool) -> list[float]:
    steps = [i / _BINS for i in range(_BINS + 1)]
    if far:
        inner = [low * (high / low) ** step for step in steps]
    else:
        inner = [low + (high - low) * step for step in steps]
    return [low, *inner[1:-1], high]


def _logarithmic(axes: Axes, side: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _counts(ordered: Sequence[float], edges: Sequence[float]) -> list[int]:
    places = [bisect.bisect_left(ordered, edge) for edge in edges[:-1]]
    places.append(bisect.bisect_right(ordered, edges[-1]))
    return [right - left for left, right in itertools.pairwise(places)]


def _percentile_lines(report: BenchmarkReport, upper: Axes, lower: Axes, high: float) -> None:
    top = 0
    for title, _ in PERCENTILES:
        value = getattr(report.latency, title)
        if value is None or value > high:
            continue
        for axes in (upper, lower):
            axes.axvline(value, color=_INK, linewidth=0.9, linestyle=(0, (3, 2)))
        upper.annotate(
            title.removesuffix("_ms"),
            (value, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, -8 - 12 * top),
            textcoords="offset points",
            fontsize=9.5,
        )
        top += 1


def timeline_plot(report: BenchmarkReport, name: str) -> tuple[str, str] | None:
    """Draw samples in the order they were made, with clock and temperature under them.

    Returns:
        The SVG and its caption; None where there are too few samples to draw.
    """
    samples = report.latency.samples_ms
    if len(samples) < 2:
        return None
    conditions = report.conditions.samples
    clock = [(s.t_s, mhz) for s in conditions if (mhz := mean_clock_mhz(s)) is not None]
    warmth = [(s.t_s, c) for s in conditions if (c := warmest_c(s)) is not None]
    below = [
        (points, label, colour)
        for points, label, colour in ((clock, "MHz", _MUTED), (warmth, "°C", _WARM))
        if len(points) > 1
    ]
    out: list[str] = []
    with _drawing(3.6 if below else 2.4, name, out) as figure:
        heights = (3, *(1.2 for _ in below))
        rows = figure.subplots(
            1 + len(below), 1, sharex=True, height_ratios=heights, squeeze=False
        )
        first, *others = (row[0] for row in rows)
        times = [total / 1000 for total in itertools.accumulate(samples)]
        drawn = [(0.0, samples[0]), *_thin(list(zip(times, samples, strict=True)))]
        # a run lasts from the end of the one before it to its own
        first.plot(*zip(*drawn, strict=True), color=_OURS, linewidth=0.9, drawstyle="steps-pre")
        first.set_ylabel("ms")
        high = quantile(sorted(samples), 0.998)
        if _is_wide(min(samples), high):
            _logarithmic(first, "y")
        else:
            first.set_ylim(bottom=0, top=1.08 * high if high else 1.0)
        for axes, (points, label, colour) in zip(others, below, strict=True):
            axes.plot(*zip(*_thin(points), strict=True), color=colour)
            axes.set_ylabel(label)
            _roomy(axes, [value for _, value in points])
        (others[-1] if others else first).set_xlabel("seconds of measuring")
        figure.align_ylabels()
    thinned = "Of many samples the extremes of each short stretch are drawn."
    return out[0], thinned if len(samples) > _MOST_POINTS else ""


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the lowest and the highest point of each stretch, in order."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    kept = []
    size = len(points) / (_MOST_POINTS // 2)
    for i in range(_MOST_POINTS // 2):
        stretch = points[int(i * size) : int((i + 1) * size)]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return kept


def _roomy(axes: Axes, values: Sequence[float]) -> None:
    """Keep an axis from magnifying what hardly moves."""
    low, high = min(values), max(values)
    room = max(high - low, 0.1 * abs(high), 1e-6)
    axes.set_ylim(low - 0.3 * room, high + 0.3 * room)


def comparison_plot(report: BenchmarkReport, name: str) -> tuple[str, str] | None:
    """Draw this bundle and the baseline as bars: time, size, memory, accuracy.

    Returns:
        The SVG and its caption; None where there is nothing to compare.
    """
    base = report.baseline
    if base is None:
        return None
    ours, theirs = report.accuracy.labelled, base.accuracy.labelled
    metric = _plain(ours.metric, 24) if ours else ""
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
    labels = [_plain(report.bundle.precision), _plain(base.bundle.precision)]
    out: list[str] = []
    with _drawing(0.2 + 0.85 * len(drawn), name, out) as figure:
        rows = figure.subplots(len(drawn), 1, squeeze=False)
        for (axes,), (title, a, b, show) in zip(rows, drawn, strict=True):
            _bars(axes, title, labels, (a, b), show)
    return out[0], ""


def _bars(
    axes: Axes,
    title: str,
    labels: Sequence[str],
    values: tuple[float, float],
    show: Callable[[Any], str],
) -> None:
    axes.barh([1, 0], values, height=0.68, color=(_OURS, _THEIRS), alpha=0.85)
    axes.set_yticks([1, 0], labels)
    axes.set_xlim(0, max(*values, 1e-9) * 1.3)
    axes.set_xticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title, loc="left", fontsize=9.5, color=_MUTED, pad=3)
    for place, value in zip((1, 0), values, strict=True):
        text = show(value).replace("µ", "u")
        axes.annotate(
            text, (value, place), xytext=(5, 0), textcoords="offset points", va="center"
        )
