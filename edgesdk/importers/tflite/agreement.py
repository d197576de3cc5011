"""By what measure two tensors count as the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["FLOAT_BOUND", "MIXED_BOUND", "STEPS_SHARE", "WIDE_STEPS", "Agreement", "compare"]

#: How far numbers of a float file may be apart, as a share of the largest.
FLOAT_BOUND = 1e-4
#: ... and float numbers behind others that were rounded to 8 bits.
MIXED_BOUND = 0.02
#: Steps that numbers on a grid of 16 bits may be apart: one of 8 bits. LiteRT's kernels look up
#: tables and weigh with 10 bits there.
WIDE_STEPS = 256
#: The share of a quantized tensor's numbers that are within one step.
STEPS_SHARE = 0.995
#: What float32 cannot tell apart beside 1, where approximations of activations end.
_ALIKE = 2.0**-23
#: Of a step, which float32 rounds.
_SLACK = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How near a tensor is to LiteRT's.

    Attributes:
        name: Of the output, or of the tensor that an operator gives.
        unit: What ``largest`` counts: ``steps`` of its grid, ``share`` of the largest number,
            or ``differing`` for whole numbers and truths that are no measure.
        numbers: How many were compared.
        largest: The largest difference.
        bound: Up to where a difference is allowed.
        within: The share of numbers within the bound.
        wanted: The share that has to be.
        apart: The largest difference as it is.
        share: That over the largest number of LiteRT's.
    """

    name: str
    unit: str
    numbers: int
    largest: float
    bound: float
    within: float
    wanted: float
    apart: float
    share: float

    @property
    def holds(self) -> bool:
        """Whether the output counts as the same."""
        return self.within >= self.wanted

    def __str__(self) -> str:
        if self.unit == "steps":
            steps = "one step" if self.bound < 2 else f"{self.bound:.0f} steps"
            return (
                f"output {self.name!r}: {self.within:.3%} of {self.numbers} numbers within "
                f"{steps} of LiteRT's, at most {self.largest:.3g} apart"
            )
        if self.unit == "share":
            return (
                f"output {self.name!r}: at most {self.largest:.2g} of the largest number apart "
                f"from LiteRT's, {self.within:.3%} of {self.numbers} within {self.bound:g}"
            )
        return f"output {self.name!r}: {self.within:.3%} of {self.numbers} equal LiteRT's"


def compare(
    name: str,
    got: np.ndarray,
    wanted: np.ndarray,
    *,
    step: float | None,
    rounds: bool,
    is_wide: bool = False,
) -> Agreement:
    """Compare a tensor with LiteRT's by the measure that fits it.

    Args:
        name: What to call it.
        got: Ours.
        wanted: LiteRT's.
        step: What neighbours on its grid are apart; None where it has none.
        rounds: Whether numbers it was computed from were rounded by both on their own.
        is_wide: Whether its grid has 16 bits.
    """
    unit, bound, share = "share", MIXED_BOUND if rounds else FLOAT_BOUND, 1.0
    if step is not None:
        unit, bound = "steps", (WIDE_STEPS if is_wide else 1) + _SLACK
    elif wanted.dtype.kind != "f":
        unit, bound = "differing", 0.0
    if rounds or step is not None:
        share = STEPS_SHARE
    if got.shape != wanted.shape:
        return Agreement(
            name=name,
            unit="differing",
            numbers=wanted.size,
            largest=np.inf,
            bound=0.0,
            within=0.0,
            wanted=share,
            apart=np.inf,
            share=np.inf,
        )
    same = got == wanted
    if wanted.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(wanted)
    with np.errstate(invalid="ignore"):
        apart = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
    apart = np.where(same, 0.0, np.nan_to_num(apart, nan=np.inf))
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    largest = max(float(finite.max(initial=0.0)), 1e-12)
    measure = apart
    if unit == "steps" and step is not None:
        measure = apart / step
    elif unit == "share":
        measure = np.where(apart <= _ALIKE, 0.0, apart / largest)
    within = float(np.mean(measure <= bound)) if measure.size else 1.0
    return Agreement(
        name=name,
        unit=unit,
        numbers=int(measure.size),
        largest=float(measure.max(initial=0.0)),
        bound=bound,
        within=within,
        wanted=share,
        apart=float(apart.max(initial=0.0)),
        share=float(apart.max(initial=0.0)) / largest,
    )
