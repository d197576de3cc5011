"""Tiny plots in one line of text, for terminals: bars of eight heights."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["course", "histogram", "spark"]

_BARS = "▁▂▃▄▅▆▇█"


def spark(values: Sequence[float], *, low: float | None = None) -> str:
    """Draw values as bars, the lowest of ``low`` and the values at the bottom."""
    if not values:
        return ""
    bottom = min(values) if low is None else min(low, *values)
    span = max(values) - bottom
    if span <= 0:
        return _BARS[0] * len(values)
    top = len(_BARS) - 1
    return "".join(
        _BARS[min(top, int((value - bottom) / span * len(_BARS)))] for value in values
    )


def histogram(values: Sequence[float], low: float, high: float, *, width: int = 24) -> str:
    """Draw how many values lie in each of ``width`` bins from ``low`` to ``high``.

    Values outside are left out; a bin that is not empty is at least the second lowest bar.
    """
    counts = [0] * width
    span = high - low
    for value in values:
        if low <= value <= high:
            counts[min(width - 1, int((value - low) / span * width) if span > 0 else 0)] += 1
    top = max(counts) or 1
    last = len(_BARS) - 1
    return "".join(
        _BARS[max(1, round(count / top * last))] if count else _BARS[0] for count in counts
    )


def course(values: Sequence[float], *, width: int = 24) -> list[float]:
    """Give the medians of ``width`` stretches of values, or the values where they are few."""
    if len(values) <= width:
        return list(values)
    medians = []
    for i in range(width):
        stretch = sorted(values[len(values) * i // width : len(values) * (i + 1) // width])
        medians.append(stretch[len(stretch) // 2])
    return medians
