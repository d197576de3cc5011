"""How a measurement went: a family of values of its own in ``report.json``.

What was asked for is in `edgesdk.bench.spec_values`; this is what came of it: why it ended,
what the time is made up of, what it cost in energy, and what was odd.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from edgesdk.bench.fields import CONFIG, Amount, Count, Fraction, Limits, Text

__all__ = ["STOPPED", "Around", "Energy", "Procedure", "Served", "Stopped", "WarmUp"]

Stopped: TypeAlias = Literal["runs", "interval", "time", "broken"]
#: Why counted runs end.
STOPPED: dict[Stopped, str] = {
    "runs": "the number of runs that was asked for",
    "interval": "the interval of the median was narrow enough",
    "time": "the time was up",
    "broken": "the device or the link to it was lost",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """The runs before those that count."""

    __pydantic_config__ = CONFIG

    runs: Count
    seconds: Amount
    settled: bool | None
    """Whether the runs stopped getting faster; null where a fixed number was asked for, or
    too few were made to tell."""
    how: Text
    """How that was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What one whole inference is made up of; medians, taken apart from the counted runs."""

    __pydantic_config__ = CONFIG

    runs: Count
    in_ms: Amount | None
    """From the bytes of the inputs to what the first runtime takes."""
    calls_ms: Amount | None
    """All runtimes' own calls."""
    between_ms: Amount | None
    """From part to part."""
    out_ms: Amount | None
    """From what the last runtime gave to bytes."""
    link_ms: Amount | None
    """A request from here and its reply, without what the worker took: link, agent, framing."""
    link_runs: Count
    why: Text
    """Why link_ms is null; empty where it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What came of arrivals in the server scenario."""

    __pydantic_config__ = CONFIG

    arrived_per_s: Amount | None
    done_per_s: Amount | None
    service_ms: Amount | None
    """The median of the inference alone, without waiting for its turn."""
    waiting_at_end: Count
    """How many had arrived and were not begun when the time was up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one sensor saw during the counted runs."""

    __pydantic_config__ = CONFIG

    sensor: Text
    kind: Literal["counter", "sampled"]
    """A counter of energy read before and after, or a sensor of power read now and then."""
    joules: Amount
    mean_w: Amount | None
    samples: Count | None
    """Readings the mean is of; null for a counter."""
    per_inference_mj: Amount | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Procedure:
    """How the counted runs came about."""

    __pydantic_config__ = CONFIG

    stopped: Stopped
    why: Text
    """Why they ended, in words."""
    half_width: Amount | None
    """Half the 95 % interval of the median as a share of it, from medians of 20 batches."""
    warm_up: WarmUp | None
    around: Around | None
    inferences: Count
    """Counted runs times the batch; in all, also where only some samples were kept."""
    per_s: Amount | None
    """Inferences by the time from the first counted run to the last."""
    one_call: bool | None
    """Whether a batch was one call of the runtime; else it was one call after the other."""
    runs_by_stream: Annotated[tuple[Count, ...], Limits(max_length=256)]
    served: Served | None
    energy: Annotated[tuple[Energy, ...], Limits(max_length=64)]
    energy_per_inference_mj: Amount | None
    """From the sensors that see the whole device or all its processors; null without any."""
    energy_why: Text
    """Why that is null, or which sensors it is from."""
    others_cpu: Amount | None
    """Cores that other processes took while it was measured, on average."""
    sampling_cpu: Fraction | None
    """What looking at the conditions took of one core."""
    clock_went_back: Count
    """How often the device's clock was seen to go back; those runs are left out."""
    odd_outputs: dict[str, Count]
    """Elements that are NaN or infinite, by output, over one run of each check vector."""
    incomplete: Text
    """What broke it off, where it did not end by itself; then samples may be a selection."""
