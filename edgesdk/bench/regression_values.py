"""What a gate and a replay say: frozen trees that are JSON documents with a published schema.

A gate holds a measurement against a reference and says whether a build should fail. A replay
makes a measurement again and says whether it comes out the same. Both look at two runs, name
what differs in their circumstances, and rest on *looks*: each gives how many times as long ours
took as theirs, with an interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from edgesdk.bench.fields import CONFIG, Amount, Count, Fraction, Limits, Sha256, Text, UtcTime

__all__ = [
    "GATE_SCHEMA",
    "REPLAY_SCHEMA",
    "CheckName",
    "Difference",
    "GateCheck",
    "GateOutcome",
    "GateResult",
    "Look",
    "LookKind",
    "ReplayResult",
    "Side",
]

GATE_SCHEMA = "edgesdk.gate/1"
REPLAY_SCHEMA = "edgesdk.replay/1"

CheckName: TypeAlias = Literal["latency", "accuracy", "memory"]
#: ``unconfirmed``: a regression is suspected, and the second measurement could not be made.
GateOutcome: TypeAlias = Literal["passed", "failed", "unconfirmed"]
#: What was measured when each was recorded; both in turns on the device; ours anew, held
#: against what was recorded of theirs.
LookKind: TypeAlias = Literal["recorded", "interleaved", "fresh"]
#: An amount that may be below zero.
Change: TypeAlias = Annotated[float, Limits(ge=-1e18, le=1e18)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two runs."""

    __pydantic_config__ = CONFIG

    called: Text
    """How it was found: a label, a branch, an id or a file."""
    run: Sha256
    """Its id, as the history gives it."""
    created: UtcTime
    model: Text
    target: Text
    device: Text
    bundle: Sha256
    precision: Text
    samples: Count
    p50_ms: Amount | None
    lower_ms: Amount | None
    """Lower end of the 95 % interval of the median."""
    upper_ms: Amount | None
    peak_rss_bytes: Count | None
    labels: tuple[Text, ...]
    branch: Text | None
    commit: Text | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something in which the circumstances of the two runs differ."""

    __pydantic_config__ = CONFIG

    name: Text
    ours: Text
    theirs: Text
    decisive: bool
    """Whether times cannot be compared across it, unless that is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How many times as long ours took as theirs, seen once."""

    __pydantic_config__ = CONFIG

    kind: LookKind
    ratio: Amount
    lower: Amount
    """Lower end of the interval of the ratio."""
    upper: Amount
    coverage: Fraction
    p_value: Fraction | None
    """That ours is no slower than the limit allows; null where only the interval is known."""
    slower: bool
    """Whether ours is slower than the limit allows beyond what chance explains."""
    seconds: Amount | None
    """How long it took; null for what was recorded before."""
    seed: Count | None
    """What the order of the blocks was drawn with."""
    blocks: Count | None
    """Pairs of blocks measured in turns."""
    notes: tuple[Text, ...]
    """What a reader should know before trusting it."""

    def __post_init__(self) -> None:
        if not self.lower <= self.ratio <= self.upper:
            raise ValueError("the ratio is not within its interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCheck:
    """One limit, and whether it was kept."""

    __pydantic_config__ = CONFIG

    name: CheckName
    kept: bool | None
    """Null where a second measurement would have to decide and could not be made."""
    change: Change
    """Latency and memory: the share by which ours is above theirs. Accuracy: by how much ours
    is below theirs, in points of a rate (0.01 is one point) or as a share of an error."""
    limit: Amount
    """The largest change that is allowed."""
    text: Text
    """The outcome in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Whether a measurement may pass, and why."""

    __pydantic_config__ = CONFIG

    schema: Literal["edgesdk.gate/1"]
    created: UtcTime
    edgesdk: Text
    """Version of edgesdk that wrote this."""
    outcome: GateOutcome
    text: Text
    """The outcome in a sentence."""
    ours: Side
    theirs: Side
    differences: tuple[Difference, ...]
    looks: Annotated[tuple[Look, ...], Limits(min_length=1, max_length=2)]
    """The first look, and the second where the first saw a regression. A regression is what
    both saw."""
    checks: Annotated[tuple[GateCheck, ...], Limits(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """Whether a measurement that was made again came out as it was."""

    __pydantic_config__ = CONFIG

    schema: Literal["edgesdk.replay/1"]
    created: UtcTime
    edgesdk: Text
    agrees: bool
    """Whether some ratio within the margin of 1 is within the interval."""
    text: Text
    margin: Amount
    """How far from 1 the ratio may be, as a share."""
    ours: Side
    """The measurement that was made now."""
    theirs: Side
    """The one that was to be repeated."""
    differences: tuple[Difference, ...]
    look: Look
