"""Names of the accuracy means, for those who choose among them without the quantizer itself."""

from __future__ import annotations

__all__ = ["MEANS"]

#: In the order in which they are tried.
MEANS = (
    "bias-correction",
    "equalization",
    "range-mse",
    "range-percentile",
    "compensated-rounding",
)
