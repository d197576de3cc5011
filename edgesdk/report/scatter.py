"""Plots over several reports: medians under each other, and accuracy and size over time.

A report is its number in the table of the page; colours would not do for twenty devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.report.drawing import (
    INK,
    MUTED,
    OURS,
    THEIRS,
    Drawn,
    drawing,
    is_wide,
    logarithmic,
    plain,
)
from edgesdk.report.several import Point, Scored, front, scored_points
from edgesdk.report.summary import ms_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["accuracy_scatter", "fastest_text", "medians_plot", "size_scatter"]

#: More rows would not fit under each other.
_MOST_ROWS = 64


def medians_plot(points: Sequence[Point], name: str) -> Drawn | None:
    """Draw the median of each report with its 95 % interval, and its p90 as a tick.

    Returns:
        None with fewer than two medians.
    """
    timed = [(point, point.p50_ms) for point in points if point.p50_ms]
    if len(timed) < 2:
        return None
    shown = timed[:_MOST_ROWS]
    values = [value for point, p50 in shown for value in (p50, point.p90_ms) if value]
    far = is_wide(min(values), max(values))
    out: list[str] = []
    with drawing(0.6 + 0.23 * len(shown), name, out) as figure:
        axes = figure.subplots()
        for place, (point, p50) in enumerate(shown):
            colour = THEIRS if point.is_baseline else OURS
            if point.interval is not None:
                ends = (point.interval.lower_ms, point.interval.upper_ms)
                axes.plot(ends, [place] * 2, color=colour, linewidth=3, solid_capstyle="butt")
            if point.p90_ms is not None:
                reach = (p50, point.p90_ms)
                axes.plot(reach, [place] * 2, color=colour, linewidth=0.8)
                axes.plot([point.p90_ms], [place], "|", color=colour, markersize=7)
            axes.plot([p50], [place], **_marker(point, colour))
        labels = [f"{p.mark}  {plain(p.precision, 9)}, {plain(p.device, 14)}" for p, _ in shown]
        axes.set_yticks(range(len(shown)), labels)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlabel("latency, ms (logarithmic)" if far else "latency, ms")
        if far:
            logarithmic(axes, "x")
        else:
            axes.set_xlim(left=0)
    told = ["A dot is the median, the thick line its 95 % interval, the tick p90."]
    if len(timed) > len(shown):
        told.append(f"The first {len(shown)} of {len(timed)} are drawn.")
    told += _emulated([point for point, _ in shown])
    return Drawn(svg=out[0], caption=" ".join(told))


def accuracy_scatter(points: Sequence[Point], name: str) -> Drawn | None:
    """Draw accuracy over latency with the Pareto front.

    Returns:
        None where fewer than two points have the same metric.
    """
    metric, scored, without = scored_points(points)
    if len(scored) < 2:
        return None
    first = scored[0][0].labelled
    rate = first is not None and first.kind == "rate"
    if rate:
        scored = [(point, time, 100 * value) for point, time, value in scored]
    better = _greater if rate else _less
    label = f"{plain(metric, 24)}, %" if rate else plain(metric, 24)
    drawn = _scatter(scored, name, label=label, better=better, intervals=100 if rate else 1)
    told = [drawn.caption]
    if without:
        told.append(f"{without} without a value of {metric} are left out.")
    return Drawn(svg=drawn.svg, caption=" ".join(told))


def size_scatter(points: Sequence[Point], name: str) -> Drawn | None:
    """Draw the size of the parts over latency with the Pareto front.

    Returns:
        None with fewer than two medians.
    """
    scored = [(p, p.p50_ms, p.size_bytes / (1 << 20)) for p in points if p.p50_ms]
    if len(scored) < 2:
        return None
    return _scatter(scored, name, label="size of the parts, MiB", better=_less)


def _greater(one: float, other: float) -> bool:
    return one > other


def _less(one: float, other: float) -> bool:
    return one < other


def _scatter(
    scored: Sequence[Scored],
    name: str,
    *,
    label: str,
    better: Callable[[float, float], bool],
    intervals: float | None = None,
) -> Drawn:
    """Draw points with their marks; ``intervals`` scales those of a metric, None draws none."""
    best = front(scored, better=better)
    times, values = [each[1] for each in scored], [each[2] for each in scored]
    out: list[str] = []
    with drawing(3.3, name, out) as figure:
        axes = figure.subplots()
        if len(best) > 1:
            steps = "steps-post"
            axes.plot(
                [each[1] for each in best],
                [each[2] for each in best],
                color=MUTED,
                linewidth=1.0,
                linestyle=(0, (4, 2)),
                drawstyle=steps,
            )
        for each in scored:
            _place(axes, each, on_front=each in best, intervals=intervals)
        for text, time, value in _marks(scored):
            axes.annotate(
                text,
                (time, value),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=9.5,
                color=INK,
            )
        far = is_wide(min(times), max(times))
        axes.set_xlabel("median latency, ms (logarithmic)" if far else "median latency, ms")
        axes.set_ylabel(label)
        if far:
            logarithmic(axes, "x")
        if intervals is None and is_wide(min(values), max(values)):
            logarithmic(axes, "y")
        axes.margins(0.12)
    names = ", ".join(each[0].title for each in best)
    told = [f"On the Pareto front (filled, joined): {names}." if names else "No front."]
    if any(each[0].is_baseline for each in scored):
        told.append("b is the baseline of that report.")
    told += _emulated([each[0] for each in scored])
    return Drawn(svg=out[0], caption=" ".join(told))


def _place(axes: Axes, each: Scored, *, on_front: bool, intervals: float | None) -> None:
    point, time, value = each
    colour = THEIRS if point.is_baseline else OURS
    result = point.labelled
    if intervals and result is not None and result.lower is not None:
        ends = [intervals * end for end in (result.lower, result.upper) if end is not None]
        axes.plot([time] * len(ends), ends, color=colour, linewidth=0.8, alpha=0.7)
    style = _marker(point, colour)
    if not on_front:
        style["markerfacecolor"] = "none"
    axes.plot([time], [value], **style)


def _marks(scored: Sequence[Scored]) -> list[tuple[str, float, float]]:
    """Give the names of points and their places; those that nearly coincide share one."""
    times, values = [each[1] for each in scored], [each[2] for each in scored]
    near = [(max(ends) - min(ends) or 1.0) * 0.025 for ends in (times, values)]
    marks: list[tuple[str, float, float]] = []
    for point, time, value in scored:
        for place, (text, x, y) in enumerate(marks):
            if abs(x - time) <= near[0] and abs(y - value) <= near[1]:
                marks[place] = (f"{text}, {point.mark}", x, y)
                break
        else:
            marks.append((point.mark, time, value))
    return marks


def _marker(point: Point, colour: str) -> dict[str, Any]:
    shape = "s" if point.is_baseline else "o"
    fill = "none" if point.emulated else colour
    return {
        "marker": shape,
        "markersize": 6.5,
        "color": colour,
        "markerfacecolor": fill,
        "linestyle": "none",
    }


def _emulated(points: Sequence[Point]) -> list[str]:
    names = [point.mark for point in points if point.emulated]
    if not names:
        return []
    return [f"Emulated, so their times say nothing of a board (hollow): {', '.join(names)}."]


def fastest_text(points: Sequence[Point]) -> str | None:
    """Say which report of a model has the lowest median that no emulator took."""
    timed = [point for point in points if point.p50_ms and not point.emulated]
    if len(timed) < 2:
        return None
    best = min(timed, key=lambda point: point.p50_ms or 0.0)
    return f"{best.title} has the lowest median: {ms_text(best.p50_ms)}"
