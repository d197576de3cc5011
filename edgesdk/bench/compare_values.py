"""What a comparison of two releases on one device gives: frozen, and what it says in words.

Nothing here measures; the interval and the p-values are those of `edgesdk.bench.pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from edgesdk.bench.fields import CONFIG, Amount, Count, Fraction, Limits, Sha256, Text, UtcTime

__all__ = ["Comparison", "PairMode", "PairedBlock", "PairedVerdict"]

#: Both releases loaded at once in a worker each, or each block loading its release anew.
PairMode: TypeAlias = Literal["side-by-side", "reloaded"]
PairedVerdict: TypeAlias = Literal["slower", "faster", "no difference shown"]

#: An interval that leaves 1 out is the claim; its error is shared by both sides.
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBlock:
    """A block of runs of each release, one right after the other in an order that was drawn."""

    __pydantic_config__ = CONFIG

    start: Count
    """Which start of the workers it belongs to, from 0: each start has processes of its own."""
    t_s: Amount
    """When it began, in seconds since the first block of that start."""
    ours_ms: Amount
    """The median of our block."""
    theirs_ms: Amount
    runs: tuple[Count, Count]
    """How many runs each block has, ours first."""
    ours_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How many times as long ours takes as theirs, measured in turns on one device."""

    __pydantic_config__ = CONFIG

    ours: Sha256
    """Id of our bundle: what the ratio is above."""
    theirs: Sha256
    device: Text
    started: UtcTime | None
    """When the device began, by its own clock."""
    blocks: Annotated[tuple[PairedBlock, ...], Limits(min_length=1)]
    """In the order in which they were measured."""
    starts: Annotated[int, Limits(ge=1)]
    """How often both workers were started: memory is laid out anew each time."""
    mode: PairMode
    ratio: Amount
    """Ours by theirs; above 1 ours is slower. The mean over the starts of each start's
    Hodges-Lehmann estimate of the blocks' log ratios."""
    lower: Amount
    """Lower end of the interval of that ratio."""
    upper: Amount
    coverage: Fraction
    """What the interval is made for: 0.95."""
    log_error: Annotated[float, Limits(gt=0.0, le=1e18)]
    """Standard error of the logarithm of the ratio."""
    freedom: Annotated[float, Limits(gt=0.0, le=1e18)]
    """Degrees of freedom of Student's t that go with it."""
    seed: Count
    """What the order was drawn with."""
    seconds: Amount
    """How long all of it took, loading included."""
    throttled: bool | None
    """Whether any sample said that the clock was limited; null where nothing tells."""
    emulated: Text | None
    """What emulated the device, if anything."""
    notes: tuple[Text, ...]
    """What a reader should know before trusting it."""
    adjusted_p: Fraction | None = None
    """The p-value of "there is no difference" after Holm's correction, where ours was compared
    with several releases; null where it was with one."""

    def __post_init__(self) -> None:
        if not 0.0 < self.lower <= self.ratio <= self.upper:
            raise ValueError("the ratio is not within its interval, or that is not above 0")

    def slower_than(self, margin: float) -> float:
        """Give the p-value against "ours takes at most 1 + margin times as long".

        Small says that ours is slower than that. ``margin`` is a share: 0.02 for 2 %.
        """
        from edgesdk.bench.pairs import p_above

        return p_above(self.ratio, 1.0 + margin, self.log_error, self.freedom)

    def faster_than(self, margin: float) -> float:
        """Give the p-value against "theirs takes at most 1 + margin times as long"."""
        from edgesdk.bench.pairs import p_above

        return p_above(1.0 / self.ratio, 1.0 + margin, self.log_error, self.freedom)

    @property
    def p_value(self) -> float:
        """The two-sided p-value of "there is no difference", as it was measured."""
        return min(1.0, 2.0 * min(self.slower_than(0.0), self.faster_than(0.0)))

    @property
    def verdict(self) -> PairedVerdict:
        """Say who is faster, if that is shown at the level of 5 %."""
        shown = self.p_value if self.adjusted_p is None else self.adjusted_p
        if shown > _LEVEL:
            return "no difference shown"
        return "slower" if self.ratio > 1.0 else "faster"

    @property
    def at_least(self) -> float:
        """By what share ours is slower or faster at least, 0 where no difference is shown.

        It is the near end of the interval, as a share of their time.
        """
        if self.verdict == "no difference shown":
            return 0.0
        return max(0.0, self.lower - 1.0 if self.ratio > 1.0 else 1.0 - self.upper)

    @property
    def text(self) -> str:
        """The outcome in a sentence."""
        seen = (
            f"{self.ratio:.3f} times as long (95 % interval {self.lower:.3f} to "
            f"{self.upper:.3f}, {len(self.blocks)} pairs of blocks, {self.starts} starts)"
        )
        if self.verdict == "no difference shown":
            reach = max(self.upper - 1.0, 1.0 - self.lower)
            return f"no difference shown; one of more than {reach:.1%} is ruled out: {seen}"
        return f"{self.verdict} by at least {self.at_least:.1%}: {seen}"
