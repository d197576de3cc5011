"""The middle of some numbers, without the library's `statistics` and all that it imports."""

from __future__ import annotations

from typing import Sequence

__all__ = ["middle_of"]


def middle_of(values: Sequence[float]) -> float:
    """The median; the mean of the two in the middle where there are two."""
    ordered = sorted(values)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2
