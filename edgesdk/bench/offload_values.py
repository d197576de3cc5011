"""What ran where, in share of time: predicted, actual and measured beside each other.

A part of ``report.json``; see `edgesdk.bench.values` for how these classes are used, and
`edgesdk.bench.offload` for how the numbers come about.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgesdk.bench.fields import CONFIG, Amount, Count, Fraction, Text

__all__ = ["Offload", "OffloadOp", "OffloadPart", "OffloadRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadOp:
    """One op as a runtime ran it: often several fused nodes, or one that it put in itself."""

    __pydantic_config__ = CONFIG

    part: Count
    """Index of the part it belongs to."""
    name: Text
    """What the runtime calls it; empty where the record is a sum of many."""
    op: Text
    """Its operator in the runtime's words."""
    nodes: tuple[Text, ...]
    """Nodes of the source graph that it stands for, as far as names tell."""
    predicted: Text | None
    """Backend that the plan gave these nodes; null where the plan has nothing like it."""
    predicted_share: Fraction | None
    """Share of the predicted time that they have."""
    backend: Text | None
    """Backend of the target that ran it; null where it is none of them, or not told."""
    where: Text
    """What ran it, in the runtime's words: XNNPACK, CPUExecutionProvider, NPU, DLA0."""
    accelerator: bool | None
    """Whether that is something other than the CPU; null where the runtime does not tell."""
    time_us: Amount | None
    """Of one inference."""
    share: Fraction | None
    """Of the time of one inference, end to end."""
    derived: bool
    """Whether its time was worked out from that of the part, not told by the runtime."""
    precision: Text | None
    """What it computed in."""
    count: Count
    """Ops that this stands for: a long list ends in sums."""
    agrees: bool | None
    """Whether it ran where it was planned; null where one of the two is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadPart:
    """One part as its runtime tells of it."""

    __pydantic_config__ = CONFIG

    index: Count
    backend: Text
    """What it was built for."""
    served_by: Text
    """The backend that ran it: another one where a fallback did."""
    runtime: Text
    time_us: Amount | None
    """What the runtime's own call takes of one inference, timed without any profiling."""
    share: Fraction | None
    """Of the time of one inference, end to end."""
    accelerator_share: Fraction | None
    """Of the time of one inference, what ran on an accelerator in this part."""
    how: Text
    """How the times of its ops were taken."""
    why: Text | None
    """Why there are no ops, where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadRow:
    """What was planned for one backend, or ran in one place."""

    __pydantic_config__ = CONFIG

    backend: Text | None
    """Id of a backend of the target; null for what ran on none of them."""
    where: tuple[Text, ...]
    """What ran it, in the runtimes' words; empty where nothing ran there."""
    accelerator: bool | None
    predicted_nodes: Count | None
    """Nodes planned for it; null where the bundle does not tell."""
    predicted_share: Fraction | None
    ops: Count
    """Ops that ran there, as the runtimes count them: after fusing."""
    measured_share: Fraction | None
    """Of the time of one inference; null where no time is known."""
    derived: bool
    """Whether some of that was worked out, not told by a runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offload:
    """What the runtimes said they ran where, asked apart from the measurement.

    The shares of one inference add up to 1: `accelerator_share`, `cpu_share`, `unknown_share`
    and `between_share`. Off the accelerator is everything but the first.
    """

    __pydantic_config__ = CONFIG

    has_accelerator: bool
    """Whether the target has one."""
    whole_us: Amount | None
    """Median of one inference with all hand-over, timed for this record alone."""
    accelerator_share: Fraction | None
    """What was spent in ops that ran on an accelerator; null where no time is known."""
    cpu_share: Fraction | None
    """What was spent in ops that ran on the CPU."""
    unknown_share: Fraction | None
    """What was spent in ops and parts that do not tell where they ran, or how long."""
    between_share: Fraction | None
    """What was spent between ops and parts: launches, copies, conversions, hand-over."""
    off_accelerator_share: Fraction | None
    """All that was not proven to run on the accelerator; what --max-cpu-time looks at."""
    rows: tuple[OffloadRow, ...]
    """By backend, those of the plan first."""
    parts: tuple[OffloadPart, ...]
    ops: tuple[OffloadOp, ...]
    """In the order of the chain; within a part in the order in which they run."""
    disagreements: tuple[Text, ...]
    """Ops that did not run where they were planned, the longest first, in words."""
    disagreeing_ops: Count
    """How many there are: ``disagreements`` names the first of them only."""
    why: Text | None
    """Why nothing is known, where the device could not be asked."""
