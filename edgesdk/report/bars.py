"""Bars of one report: where the time goes, planned beside measured, and what memory it takes.

A name stands over its bars, not beside them, so that long ones fit on a telephone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.bench.offload_values import Offload
from edgesdk.bench.values import BenchmarkReport
from edgesdk.report.drawing import INK, MUTED, OURS, THEIRS, Drawn, drawing, plain
from edgesdk.report.offload import top_ops
from edgesdk.report.summary import bytes_text, ms_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["memory_plot", "ops_plot", "shares_plot"]

_MOST_OPS = 12
_MOST_ROWS = 12
_NAME = 56


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One length with its text; ``planned`` says whose colour it has."""

    value: float
    text: str
    planned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    title: str
    bars: tuple[_Bar, ...]


def shares_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw the share of time of each backend, planned and measured, and of each part.

    Returns:
        None where no share of time is known.
    """
    offload = report.offload
    groups = []
    if offload is not None:
        for row in offload.rows[:_MOST_ROWS]:
            title = f"{row.backend or 'none of the target'}'s ops" if row.ops else row.backend
            groups.append(_shares(str(title), row.predicted_share, row.measured_share))
        if offload.between_share is not None and offload.between_share >= 0.0005:
            groups.append(_shares("between ops and parts", None, offload.between_share))
    for part in report.parts[:_MOST_ROWS]:
        if part.share is None or (len(report.parts) == 1 and groups):
            continue
        text = f"{part.share:.1%}"
        if part.median_ms is not None:
            text = f"{_ascii_ms(part.median_ms)}, {text}"
        title = f"part {part.index}, {part.runtime} for {part.backend}"
        groups.append(_Group(title=title, bars=(_Bar(value=part.share, text=text),)))
    groups = [group for group in groups if group.bars]
    planned = any(bar.planned for group in groups for bar in group.bars)
    if not groups or (len(groups) == 1 and not planned):
        return None
    return _draw(groups, name, caption="Shares of the time of one inference.")


def ops_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw the ops that took longest: their share of time, planned and measured.

    Returns:
        None where no op has a time.
    """
    offload = report.offload
    if offload is None:
        return None
    by_time = [op for op in top_ops(offload, _MOST_OPS) if op.share is not None]
    groups = []
    is_mixed = len({op.where for op in offload.ops}) > 1
    for op in sorted(by_time, key=lambda op: op.share or 0.0, reverse=True):
        what = op.op if op.count == 1 else f"{op.count} {op.op}"
        elsewhere = ", elsewhere than planned" if op.agrees is False else ""
        where = f" on {op.where}" if op.where and is_mixed else ""
        called = f" {op.nodes[0]}" if op.nodes else ""
        time = "" if op.time_us is None else f"{_ascii_ms(op.time_us / 1000)}, "
        groups.append(
            _shares(f"{what}{called}{where}{elsewhere}", op.predicted_share, op.share, time)
        )
    return _draw(groups, name, caption=_ops_caption(offload, len(groups))) if groups else None


def _ops_caption(offload: Offload, drawn: int) -> str:
    whole = len(offload.ops)
    if drawn == whole:
        return "Shares of the time of one inference, all ops."
    return f"Shares of the time of one inference; the {drawn} longest of {whole} ops are drawn."


def memory_plot(report: BenchmarkReport, name: str) -> Drawn | None:
    """Draw what the parts take on disk, the worker at its peak, and what was left free.

    Returns:
        None where only the size of the parts is known.
    """
    base = report.baseline
    free = [
        sample.mem_available_bytes
        for sample in report.conditions.samples
        if sample.mem_available_bytes is not None
    ]
    figures: list[tuple[str, int | None, int | None]] = [
        (
            "parts on disk",
            report.bundle.bytes,
            None if base is None else base.bundle.bytes,
        ),
        (
            "worker at its peak, runtime included",
            report.peak_rss_bytes,
            None if base is None else base.peak_rss_bytes,
        ),
        ("left free on the device, at the least", min(free, default=None), None),
    ]
    known = [(title, ours, theirs) for title, ours, theirs in figures if ours is not None]
    if len(known) < 2:
        return None
    values = [value for _, *pair in known for value in pair if value]
    out: list[str] = []
    with drawing(0.55 + 0.44 * len(known), name, out) as figure:
        axes = figure.subplots()
        for place, (title, ours, theirs) in enumerate(known):
            axes.annotate(
                title,
                (0, place - 0.42),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=9.5,
                color=MUTED,
            )
            for value, colour in ((theirs, THEIRS), (ours, OURS)):
                if value:
                    axes.plot([value], [place], "o", color=colour, markersize=7)
            if ours is not None:
                axes.annotate(
                    bytes_text(ours),
                    (max(ours, theirs or 0, 1), place),
                    xytext=(8, 0),
                    textcoords="offset points",
                    va="center",
                )
        axes.set_xscale("log", base=2)
        axes.set_ylim(len(known) - 0.5, -0.75)
        low, high = min(values, default=1), max(values, default=1)
        axes.set_xlim(low / 3, high * max(8.0, (high / low) ** 0.35))
        _byte_ticks(axes, low / 3, high * 1.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    return Drawn(svg=out[0], caption="The axis is logarithmic.")


def _byte_ticks(axes: Axes, low: float, high: float) -> None:
    """Put ticks at powers of 1024, or of 2 where there would be fewer than two."""
    from matplotlib.ticker import NullLocator

    ticks = [1024**i for i in range(6) if low <= 1024**i <= high]
    if len(ticks) < 2:
        ticks = [2**i for i in range(0, 63, 2) if low <= 2**i <= high]
    axes.set_xticks(ticks, [bytes_text(tick).replace(".0 ", " ") for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _shares(
    title: str, planned: float | None, measured: float | None, time: str = ""
) -> _Group:
    bars = []
    if planned is not None:
        bars.append(_Bar(value=planned, text=f"{planned:.1%} planned", planned=True))
    if measured is not None:
        bars.append(_Bar(value=measured, text=f"{time}{measured:.1%} measured"))
    return _Group(title=title, bars=tuple(bars))


def _ascii_ms(value: float) -> str:
    return ms_text(value).replace("µ", "u")


def _draw(groups: Sequence[_Group], name: str, *, caption: str) -> Drawn:
    """Draw groups under each other; the axis has no numbers, each bar says its own."""
    line = 0.19
    height = line * sum(len(group.bars) + 1.35 for group in groups) + 0.1
    out: list[str] = []
    most = max((bar.value for group in groups for bar in group.bars), default=0.0)
    with drawing(height, name, out) as figure:
        axes = figure.subplots()
        at = 0.0
        for group in groups:
            axes.annotate(
                plain(group.title, _NAME),
                (0, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=9.5,
                color=MUTED,
            )
            for bar in group.bars:
                at += 1
                length = bar.value / most if most > 0 else 0.0
                axes.barh(
                    at,
                    length,
                    height=0.78,
                    color=THEIRS if bar.planned else OURS,
                    alpha=0.85,
                )
                axes.annotate(
                    bar.text,
                    (length, at),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9.5,
                    color=INK,
                )
            at += 1.35
        axes.set_ylim(at - 0.7, -0.6)
        axes.set_xlim(0, 1.75)
        axes.set_axis_off()
    return Drawn(svg=out[0], caption=caption)
