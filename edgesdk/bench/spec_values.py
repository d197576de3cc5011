"""What a measurement is asked for: a family of values of its own in ``report.json``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, get_args

from edgesdk.bench.fields import CONFIG, Count, Limits
from edgesdk.wire.limits import MAX_SAMPLES

__all__ = ["MAX_SAMPLES", "SCENARIOS", "BenchSpec", "Scenario", "threads_of"]

Scenario: TypeAlias = Literal["single-stream", "multi-stream", "offline", "server"]
#: What each scenario does, by the name MLPerf Inference has for it.
SCENARIOS: dict[Scenario, str] = {
    "single-stream": "one inference after the other",
    "multi-stream": "several streams at once, one inference after the other in each",
    "offline": "batches, one after the other in each stream: what counts is the throughput",
    "server": "inferences arrive at random; latency counts from the arrival",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSpec:
    """What was asked for: how often, how long, and under which circumstances."""

    __pydantic_config__ = CONFIG

    warmup_runs: Count = 10
    """Runs that are made first and not counted; at least so many where it settles."""
    runs: Annotated[int, Limits(ge=0, le=MAX_SAMPLES)] = 400
    """Runs to count, at least so many with until; 0 means as many as fit into duration_s."""
    duration_s: Annotated[float, Limits(gt=0.0)] | None = 60.0
    """Measuring stops after this time at the latest; null means no limit but runs."""
    threads: Annotated[int, Limits(ge=1)] | None = None
    """Threads of the runtime; null leaves the bundle's own setting."""
    fresh: bool = True
    """Start a new worker first, so that cold start and load are measured."""
    sample_conditions: bool = True
    """Sample clocks, temperature and load while measuring."""
    settle: bool = False
    """Warm up until the runs get no faster any more, for a fifth of duration_s at most."""
    until: Annotated[float, Limits(gt=0.0, lt=1.0)] | None = None
    """Go on beyond runs until half the 95 % interval of the median is this share of it."""
    patience_s: Annotated[float, Limits(gt=0.0)] | None = None
    """For how long to go on for that; null means until duration_s is up."""
    scenario: Scenario = "single-stream"
    """What the runs are like, in the words of MLPerf Inference."""
    streams: Annotated[int, Limits(ge=1, le=256)] = 1
    """How many runs are made at the same time at most."""
    batch: Annotated[int, Limits(ge=1, le=65_536)] = 1
    """Inferences that one counted run makes and is timed with."""
    rate_per_s: Annotated[float, Limits(gt=0.0, le=1e6)] | None = None
    """Runs that arrive in a second on average, in the server scenario."""
    seed: Annotated[int, Limits(ge=0, le=(1 << 63) - 1)] = 0
    """What the times of arrival are drawn from."""
    cpus: Annotated[tuple[Count, ...], Limits(max_length=1024)] | None = None
    """Processors that the worker is kept on while it measures; null leaves it free."""

    def __post_init__(self) -> None:
        if self.runs == 0 and self.duration_s is None:
            raise ValueError("runs is 0 and duration_s is null, so measuring would never end")
        if self.warmup_runs < 0 or not 0 <= self.runs <= MAX_SAMPLES:
            raise ValueError(f"warmup_runs must not be negative, runs be 0 to {MAX_SAMPLES}")
        if self.duration_s is not None and not 0 < self.duration_s < float("inf"):
            raise ValueError("duration_s must be a positive number")
        if self.threads is not None and self.threads < 1:
            raise ValueError("threads must be at least 1")
        self._check_until()
        self._check_scenario()

    def _check_until(self) -> None:
        if self.until is not None:
            if not 0 < self.until < 1:
                raise ValueError("until must be a share between 0 and 1")
            if self.runs == 0:
                raise ValueError("until needs runs, the least that are made")
            if self.duration_s is None:
                raise ValueError("until needs duration_s: noise may keep it from being reached")
        if self.patience_s is not None and not 0 < self.patience_s < float("inf"):
            raise ValueError("patience_s must be a positive number")

    def _check_scenario(self) -> None:
        name = self.scenario
        if name not in get_args(Scenario):
            raise ValueError(f"there is no scenario {name!r}")
        if not 1 <= self.streams <= 256 or not 1 <= self.batch <= 65_536:
            raise ValueError("streams must be 1 to 256, batch 1 to 65536")
        if self.cpus is not None and (not self.cpus or min(self.cpus) < 0):
            raise ValueError("cpus must name one processor at least")
        if (self.rate_per_s is not None) != (name == "server"):
            raise ValueError("rate_per_s goes with the server scenario, which needs it")
        if self.rate_per_s is not None and not 0 < self.rate_per_s <= 1e6:
            raise ValueError("rate_per_s must be above 0 and at most 1000000")
        if name == "single-stream" and self.streams > 1:
            raise ValueError("several streams are the multi-stream, offline or server scenario")
        if name == "multi-stream" and self.streams == 1:
            raise ValueError("the multi-stream scenario needs 2 streams or more")
        if name == "offline" and self.batch == 1:
            raise ValueError("the offline scenario needs a batch of 2 or more")


def threads_of(spec: BenchSpec) -> int | None:
    """Say how many threads a runtime gets; None leaves the bundle's own setting.

    On named processors that is one for each: more would wait for each other.
    """
    if spec.threads is None and spec.cpus is not None:
        return len(spec.cpus)
    return spec.threads


assert set(SCENARIOS) == set(get_args(Scenario))
