"""Ask a device to measure a bundle, and take the answer apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from edgesdk.bench.conditions import mean_clock_mhz, warmest_c
from edgesdk.bench.measurements import (
    Measurements,
    items_of,
    mapping_of,
    number_of,
    read_condition_samples,
    read_measurements,
)
from edgesdk.bench.procedure import broken_procedure, read_procedure
from edgesdk.bench.spec_values import threads_of
from edgesdk.bench.values import MAX_SAMPLES, BenchSpec, ConditionSample
from edgesdk.bundle import Bundle
from edgesdk.errors import DeviceError, EdgeError, InputError, LinkError
from edgesdk.progress import LiveFigures, OnProgress, Progress, ignore_progress
from edgesdk.wire.frames import Frame

__all__ = ["BenchSession", "Live", "OnLive", "take_measurements"]

#: Time for everything but the counted runs: a cold start, loading, warm-up.
_ALLOWANCE_S = 900.0
#: Where the spec gives no duration, only the number of runs.
_UNBOUNDED_S = 24 * 3600.0
#: Samples that are kept of what events told, should the measurement break off.
_MOST_KEPT = 200_000
_MOST_PER_EVENT = 4096
_MAX_SAMPLE_MS = 1e9


class BenchSession(Protocol):
    """What this package needs of a conversation with an agent.

    ``request`` waits for the reply up to ``timeout_s``, calls ``on_event`` with the meta of
    each event before it, and raises for a reply that is not ok.
    """

    device_name: str

    def request(
        self,
        op: str,
        meta: Mapping[str, Any] | None = None,
        body: bytes = b"",
        *,
        timeout_s: float = ...,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Frame:
        """Send one request and give its reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """How a measurement that goes on stands, twice a second."""

    step: str
    """``warm up`` or ``run``, in the agent's words."""
    done: int
    """Runs made in this step."""
    recent_ms: tuple[float, ...]
    """Some of the runs since the last time, spread evenly; all where they are few."""
    half_width: float | None
    """Half the 95 % interval of the median as a share of it, where that was looked at."""
    conditions: ConditionSample | None
    """The last look at the conditions, where there is one that was not told before."""


OnLive = Callable[[Live], None]


def ignore_live(live: Live) -> None:
    """Take how it stands and do nothing."""


@dataclass(slots=True)
class _Kept:
    """What arrived with events of the counted runs."""

    samples_ms: list[float] = field(default_factory=list)
    conditions: list[ConditionSample] = field(default_factory=list)
    runs: int = 0

    def take(self, live: Live) -> None:
        if live.conditions is not None:
            self.conditions.append(live.conditions)
        if live.step != "run":
            return
        self.runs = max(self.runs, live.done)
        if len(self.samples_ms) < _MOST_KEPT:
            self.samples_ms += live.recent_ms

    def measurements(self, exc: EdgeError, spec: BenchSpec) -> Measurements:
        kept = self.samples_ms[:_MOST_KEPT]
        return Measurements(
            samples_ms=tuple(kept),
            warmup_runs=spec.warmup_runs,
            cold_start_ms=None,
            load_ms=None,
            first_run_ms=None,
            peak_rss_bytes=None,
            wall_s=None,
            started=None,
            static={},
            condition_samples=tuple(self.conditions[:5000]),
            runtimes=(),
            part_median_ms={},
            part_share={},
            procedure=broken_procedure(str(exc), runs=self.runs, kept=len(kept), spec=spec),
            broken=exc,
        )


def take_measurements(
    session: BenchSession,
    *,
    bundle: Bundle,
    spec: BenchSpec,
    step: str | None = None,
    around: bool = False,
    keep_partial: bool = False,
    on_live: OnLive = ignore_live,
    on_progress: OnProgress = ignore_progress,
) -> Measurements:
    """Measure ``bundle``, which the device must hold and have checked, as ``spec`` says.

    Runs use the inputs of the check vectors in turn. The device stops at ``spec.runs`` or
    ``spec.duration_s``, whichever comes first; with ``spec.until`` it goes on beyond the runs
    until the median is known that well.

    Args:
        session: A conversation with the device's agent.
        bundle: The bundle to measure; it is asked for by id, not by slot.
        spec: How often, how long, under which circumstances.
        step: What to call this in progress; the bundle's precision tells where it is None.
        around: Have taken apart, after the counted runs, what lies around the runtime's call.
        keep_partial: Give what had arrived where the device or the link is lost after some
            counted runs: with `Measurements.broken`, and marked in the procedure.
        on_live: Told how it stands, twice a second.
        on_progress: Told about counted runs.

    Raises:
        DeviceError: The device does not hold the bundle, or its worker failed.
        LinkError: The connection broke, or the answer makes no sense.
        InputError: The device lacks a processor that the worker is to be kept on.
    """
    step = step or f"measure {bundle.precision}"
    timeout_s = (_UNBOUNDED_S if spec.duration_s is None else spec.duration_s) + _ALLOWANCE_S
    kept = _Kept()

    def on_event(event: Mapping[str, Any]) -> None:
        _tell(event, step, on_progress)
        live = _read_live(event)
        if live is not None:
            kept.take(live)
            on_live(live)

    try:
        reply = session.request(
            "bench",
            {"release": bundle.id, "spec": _asked(spec, around=around)},
            timeout_s=timeout_s,
            on_event=on_event,
        )
        measured = read_measurements(reply, device=session.device_name)
    except (DeviceError, LinkError) as exc:
        if exc.facts.get("option") == "cpus":
            raise InputError(str(exc), hint="name processors it has with --cpus") from exc
        if not keep_partial or not kept.samples_ms:
            raise
        return kept.measurements(exc, spec)
    measured = replace(measured, procedure=read_procedure(reply.meta, spec))
    done = len(measured.samples_ms)
    on_progress(Progress(step=step, done=done, total=done, unit="runs"))
    return measured


def _asked(spec: BenchSpec, *, around: bool) -> dict[str, Any]:
    """Put a spec in the agent's words; what is as ever is left out."""
    asked: dict[str, Any] = {
        "warmup_runs": spec.warmup_runs,
        "runs": spec.runs or MAX_SAMPLES,
        "duration_s": spec.duration_s,
        "threads": threads_of(spec),
        "fresh": spec.fresh,
        "sample_conditions": spec.sample_conditions,
    }
    more: dict[str, Any] = {
        "around": around or None,
        "settle": spec.settle or None,
        "until": spec.until,
        "patience_s": spec.patience_s,
        "streams": spec.streams if spec.streams > 1 else None,
        "batch": spec.batch if spec.batch > 1 else None,
        "rate_per_s": spec.rate_per_s,
        "seed": spec.seed or None,
        "cpus": None if spec.cpus is None else list(spec.cpus),
    }
    return asked | {name: value for name, value in more.items() if value is not None}


def _tell(event: Mapping[str, Any], step: str, on_progress: OnProgress) -> None:
    """Pass a device's progress on, if it is one that makes sense."""
    done, total = event.get("done"), event.get("total")
    if event.get("event") != "progress" or type(done) is not int or done < 0:
        return
    known = total if type(total) is int and total >= done else None
    on_progress(
        Progress(
            step=step, done=done, total=known, unit="runs", live=_figures(_read_live(event))
        )
    )


def _figures(live: Live | None) -> LiveFigures | None:
    """Give what people see of how it stands; runs to warm up are none of the figures."""
    if live is None:
        return None
    seen = live.conditions
    return LiveFigures(
        recent_ms=live.recent_ms if live.step == "run" else (),
        half_width=live.half_width if live.step == "run" else None,
        cpu_mhz=None if seen is None else mean_clock_mhz(seen),
        temp_c=None if seen is None else warmest_c(seen),
        limited=None if seen is None or seen.throttled is None else bool(seen.throttled),
    )


def _read_live(event: Mapping[str, Any]) -> Live | None:
    """Read what an event tells besides; None where it tells nothing that makes sense."""
    live, done = mapping_of(event.get("live")), event.get("done")
    if not live or event.get("event") != "progress" or type(done) is not int or done < 0:
        return None
    recent = [number_of(ns) for ns in items_of(live.get("recent_ns"))[:_MOST_PER_EVENT]]
    seen = read_condition_samples([live.get("conditions")])
    return Live(
        step=str(event.get("step"))[:80],
        done=done,
        recent_ms=tuple(
            ns / 1e6 for ns in recent if ns is not None and ns / 1e6 <= _MAX_SAMPLE_MS
        ),
        half_width=number_of(live.get("half_width")),
        conditions=seen[0] if seen else None,
    )
