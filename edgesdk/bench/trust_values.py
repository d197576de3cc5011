"""How far the figures of a measurement can be trusted, and why: values and words only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

from edgesdk.bench.fields import CONFIG, Amount, Count, Fraction, Limits, Text

__all__ = ["GRADES", "Grade", "Outliers", "Trust", "TrustReason", "Weight", "grade_of"]

Grade: TypeAlias = Literal["A", "B", "C", "D"]
#: What each grade means.
GRADES: dict[Grade, str] = {
    "A": "nothing was found that speaks against the figures",
    "B": "good for most uses; another run may differ somewhat",
    "C": "one thing makes the figures doubtful: look at it before they are quoted",
    "D": "not to be compared with other measurements",
}
assert set(get_args(Grade)) == set(GRADES)

#: One minor reason or several: B. One serious: C. Two serious or one grave: D.
Weight: TypeAlias = Literal["minor", "serious", "grave"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustReason:
    """Something that speaks against the figures."""

    __pydantic_config__ = CONFIG

    about: Literal[
        "samples",
        "interval",
        "warm-up",
        "drift",
        "modes",
        "outliers",
        "correlation",
        "throttling",
        "emulation",
        "clock",
        "temperature",
        "load",
        "broken off",
        "unknown conditions",
    ]
    weight: Weight
    text: Text
    """What was seen, with the figure and what it was held against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Runs far above the others: more than six robust standard deviations of the logarithm."""

    __pydantic_config__ = CONFIG

    count: Count
    share: Fraction
    """Of the runs."""
    time_share: Fraction
    """Of the time."""
    above_ms: Amount
    """The limit that they are above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """The grade of a measurement with its reasons."""

    __pydantic_config__ = CONFIG

    grade: Grade
    reasons: tuple[TrustReason, ...]
    """The gravest first; none with grade A."""
    effective_samples: Annotated[float, Limits(ge=0.0, le=1e18)]
    """How many independent samples would tell as much about the median as these do."""
    warmup_left: Count
    """Runs at the beginning that are still part of the warm-up."""
    drift: Annotated[float, Limits(ge=-1e18, le=1e18)] | None
    """By what share of the median the trend changes the time from the first run to the last;
    null where no trend is shown."""
    modes_ms: tuple[Amount, ...]
    """Where the samples gather, if that is in two places; else empty."""
    outliers: Outliers | None
    """Null where there are none."""

    @property
    def text(self) -> str:
        """The grade with its reasons in one line."""
        if not self.reasons:
            return f"{self.grade}: {GRADES[self.grade]}"
        return f"{self.grade}: {'; '.join(reason.text for reason in self.reasons)}"


def grade_of(weights: Sequence[Weight]) -> Grade:
    """Give the grade that goes with the weights of all reasons."""
    if "grave" in weights or weights.count("serious") > 1:
        return "D"
    if "serious" in weights:
        return "C"
    return "B" if weights else "A"
