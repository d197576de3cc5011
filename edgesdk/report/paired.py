"""The plot of two releases measured in turns: every pair of blocks, and the outcome."""

from __future__ import annotations

from edgesdk.bench.compare_values import Comparison
from edgesdk.report.drawing import INK, MUTED, OURS, Drawn, drawing

__all__ = ["blocks_plot"]

_MOST_BLOCKS = 500


def blocks_plot(comparison: Comparison, name: str) -> Drawn | None:
    """Draw the ratio of each pair of blocks, ours by theirs, over the interval of them all.

    Returns:
        None where no block has a time to divide by.
    """
    ratios = [
        block.ours_ms / block.theirs_ms for block in comparison.blocks if block.theirs_ms > 0
    ]
    if not ratios:
        return None
    step = -(-len(ratios) // _MOST_BLOCKS)
    shown = ratios[::step]
    places = range(1, len(ratios) + 1, step)
    out: list[str] = []
    with drawing(2.4, name, out) as figure:
        axes = figure.subplots()
        axes.axhspan(comparison.lower, comparison.upper, color=OURS, alpha=0.25, linewidth=0)
        axes.axhline(comparison.ratio, color=OURS, linewidth=1.4)
        axes.axhline(1.0, color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.plot(list(places), shown, "o", color=MUTED, markersize=3)
        low = min(*shown, comparison.lower, 1.0)
        high = max(*shown, comparison.upper, 1.0)
        room = max(high - low, 0.01) * 0.1
        axes.set_ylim(low - room, high + room)
        axes.set_xlabel("pair of blocks")
        axes.set_ylabel("ours / theirs")
    told = (
        "Above 1 ours takes longer. The line is the ratio over all, the band its 95 % interval."
    )
    if step > 1:
        told += f" Of {len(ratios)} pairs every {step}th is drawn."
    return Drawn(svg=out[0], caption=told)
