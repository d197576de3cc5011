"""Names of the accuracy means, for those who choose among them without the quantizer itself."""

from __future__ import annotations

__all__ = ["ALL_MEANS", "MEANS"]

#: In the order in which they are tried.
ALL_MEANS = (
    "bias-correction",
    "equalization",
    "weight-range-mse",
    "range-mse",
    "range-percentile",
    "range-entropy",
    "range-moving-average",
    "compensated-rounding",
)
#: Those that are tried unless a recipe names others. Entropy and moving averages were never the
#: best range on the models measured, and each try costs a look at the held-out samples.
MEANS = (
    "bias-correction",
    "equalization",
    "weight-range-mse",
    "range-mse",
    "range-percentile",
    "compensated-rounding",
)
