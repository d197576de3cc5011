"""Names of the accuracy means, for those who choose among them without the quantizer itself."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["ALL_MEANS", "MEANS", "Means"]

#: In the order in which they are tried.
Means = Literal[
    "bias-correction",
    "equalization",
    "weight-range-mse",
    "range-mse",
    "range-percentile",
    "range-entropy",
    "range-moving-average",
    "compensated-rounding",
]
ALL_MEANS: tuple[Means, ...] = get_args(Means)
#: Those that are tried unless a recipe names others. Entropy and moving averages were never the
#: best range on the models measured, and each try costs a look at the held-out samples.
MEANS = tuple(
    name for name in ALL_MEANS if name not in ("range-entropy", "range-moving-average")
)
