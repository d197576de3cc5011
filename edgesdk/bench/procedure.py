"""Read how a measurement went out of an agent's reply; what makes no sense there is null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgesdk.bench.measurements import Measurements, items_of, mapping_of, number_of
from edgesdk.bench.procedure_values import (
    STOPPED,
    Around,
    Energy,
    Procedure,
    Served,
    Stopped,
    WarmUp,
)
from edgesdk.bench.statistics import throughput_per_s
from edgesdk.bench.values import BenchSpec
from edgesdk.devices.text import clean_text

__all__ = ["broken_procedure", "read_procedure", "throughput"]

_MAX_TEXT = 200
_MAX_INT = (1 << 63) - 1
#: Rails that all of a device's power comes in by, as boards label them.
_INPUT_RAILS = ("VDD_IN", "VIN", "VIN_SYS_5V0", "5V_IN", "POM_5V_IN", "EXT5V")
#: Drivers of chips that boards put into their supply; of others nobody knows what they see.
_SUPPLY_DRIVERS = ("ina2",)

_OLD_AGENT = "the agent there does not tell"
_SETTLE = (
    "the faster of the last two windows (5 runs and 20 ms at least) was at most 2 % below the "
    "faster of the two before"
)
#: Four windows of five runs in a stream: before that no warm-up can be seen to settle.
_FEWEST_TO_SETTLE = 20
#: More inferences in a second than any report can hold: then the time makes no sense.
_MAX_PER_S = 1e18


def read_procedure(meta: Mapping[str, Any], spec: BenchSpec) -> Procedure:
    """Read the reply to a ``bench`` request; what makes no sense there is null here."""
    runs = _count(meta.get("runs")) or 0
    conditions = mapping_of(meta.get("conditions"))
    samples = items_of(conditions.get("samples"))
    inferences = runs * spec.batch
    wall_s = number_of(meta.get("wall_s"))
    energy = _energy(conditions, inferences)
    whole_mj, energy_why = _whole(energy, conditions, sampled=spec.sample_conditions)
    half_width = number_of(meta.get("half_width"))
    stopped = _stopped(meta.get("stopped"), spec, runs)
    scenario = mapping_of(meta.get("scenario"))
    return Procedure(
        stopped=stopped,
        why=_why(stopped, spec, runs, half_width),
        half_width=half_width,
        warm_up=_warm_up(meta.get("warm_up"), spec.streams),
        around=_around(meta.get("around")),
        inferences=inferences,
        per_s=_rate(inferences, wall_s),
        one_call=_flag(meta.get("one_call")) if spec.batch > 1 else None,
        runs_by_stream=tuple(
            count
            for each in items_of(scenario.get("runs_by_stream"))[:256]
            if (count := _count(each)) is not None
        ),
        served=_served(scenario, runs, wall_s) if spec.rate_per_s is not None else None,
        energy=energy,
        energy_per_inference_mj=whole_mj,
        energy_why=energy_why,
        others_cpu=_others(samples),
        sampling_cpu=_share(conditions.get("cpu_share")),
        clock_went_back=_count(meta.get("clock_went_back")) or 0,
        odd_outputs={
            clean_text(str(name)[:_MAX_TEXT]): count
            for name, value in list(mapping_of(_odd(meta)).items())[:64]
            if (count := _count(value))
        },
        incomplete="",
    )


def broken_procedure(why: str, *, runs: int, kept: int, spec: BenchSpec) -> Procedure:
    """Describe a measurement of which only what had arrived is there.

    Args:
        why: What broke it off.
        runs: Counted runs that the device had told of.
        kept: Samples of them that are here.
        spec: What was asked for.
    """
    text = f"{why}; {kept} of {runs} runs made until then are here"
    return Procedure(
        stopped="broken",
        why=STOPPED["broken"],
        half_width=None,
        warm_up=None,
        around=None,
        inferences=runs * spec.batch,
        per_s=None,
        one_call=None,
        runs_by_stream=(),
        served=None,
        energy=(),
        energy_per_inference_mj=None,
        energy_why="the measurement broke off",
        others_cpu=None,
        sampling_cpu=None,
        clock_went_back=0,
        odd_outputs={},
        incomplete=text[:2000],
    )


def throughput(measured: Measurements | None, spec: BenchSpec) -> float | None:
    """Inferences per second; runs that overlap, wait or are batches count by the wall clock."""
    if measured is None:
        return None
    if spec.scenario == "single-stream" and spec.batch == 1:
        return throughput_per_s(measured.samples_ms)
    return measured.procedure.per_s if measured.procedure else None


def _odd(meta: Mapping[str, Any]) -> object:
    return mapping_of(meta.get("around")).get("odd")


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_INT else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _share(value: object) -> float | None:
    number = number_of(value)
    return number if number is not None and number <= 1 else None


def _ms(value: object) -> float | None:
    number = number_of(value)
    return None if number is None else number / 1e6


def _stopped(value: object, spec: BenchSpec, runs: int) -> Stopped:
    for known in STOPPED:
        if known == value and known != "broken":
            return known
    return "runs" if spec.runs and runs >= spec.runs else "time"


def _why(stopped: Stopped, spec: BenchSpec, runs: int, half_width: float | None) -> str:
    text = f"{STOPPED[stopped]}, after {runs} runs"
    if half_width is None:
        return text if spec.until is None else f"{text}; too few for an interval by batches"
    text += f"; the median is known to within {half_width:.2%}"
    if spec.until is not None:
        text += f" (asked for: {spec.until:.2%})"
    return text


def _warm_up(value: object, streams: int) -> WarmUp | None:
    told = mapping_of(value)
    runs = _count(told.get("runs"))
    if runs is None:
        return None
    settles = told.get("settle") is True
    seconds = (number_of(told.get("ns")) or 0.0) / 1e9
    settled = told.get("stopped") == "settled" if settles else None
    how = "a fixed number of runs"
    if settles and settled:
        how = _SETTLE
    elif settles and runs < _FEWEST_TO_SETTLE * streams:
        settled, how = None, f"too few runs in {seconds:.1f} s to tell whether it was warm"
    elif settles:
        how = f"the runs still got faster after {seconds:.1f} s"
    return WarmUp(runs=runs, seconds=seconds, settled=settled, how=how)


def _around(value: object) -> Around | None:
    told = mapping_of(value)
    runs = _count(told.get("runs"))
    if runs is None:
        return None
    return Around(
        runs=runs,
        in_ms=_ms(told.get("in_ns")),
        calls_ms=_ms(told.get("calls_ns")),
        between_ms=_ms(told.get("between_ns")),
        out_ms=_ms(told.get("out_ns")),
        link_ms=None,
        link_runs=0,
        why="nobody asked",
    )


def _rate(count: int, wall_s: float | None) -> float | None:
    if not wall_s or count > _MAX_PER_S * wall_s:
        return None
    return count / wall_s


def _served(scenario: Mapping[str, Any], runs: int, wall_s: float | None) -> Served:
    waiting = _count(scenario.get("waiting_at_end")) or 0
    return Served(
        arrived_per_s=_rate(runs + waiting, wall_s),
        done_per_s=_rate(runs, wall_s),
        service_ms=_ms(scenario.get("service_ns")),
        waiting_at_end=waiting,
    )


def _energy(conditions: Mapping[str, Any], inferences: int) -> tuple[Energy, ...]:
    found = []
    for entry in items_of(conditions.get("energy"))[:64]:
        told = mapping_of(entry)
        joules = number_of(told.get("joules"))
        kind = told.get("kind")
        if joules is None or kind not in ("counter", "sampled"):
            continue
        found.append(
            Energy(
                sensor=clean_text(str(told.get("name"))[:_MAX_TEXT]),
                kind="counter" if kind == "counter" else "sampled",
                joules=joules,
                mean_w=number_of(told.get("mean_w")),
                samples=_count(told.get("samples")),
                per_inference_mj=joules * 1e3 / inferences if inferences else None,
            )
        )
    return tuple(found)


def _whole(
    energy: Sequence[Energy], conditions: Mapping[str, Any], *, sampled: bool
) -> tuple[float | None, str]:
    """Find what the whole device took: energy per inference in mJ, and from what or why not."""
    if not energy:
        why = conditions.get("why_no_energy")
        if not sampled:
            return None, "conditions were not sampled"
        told = clean_text(why[:_MAX_TEXT]) if isinstance(why, str) else ""
        return None, told or _OLD_AGENT
    known = [each for each in energy if each.per_inference_mj is not None]
    platform = [each for each in known if each.kind == "counter" and each.sensor == "psys"]
    inputs = [each for each in known if each.sensor.upper() in _INPUT_RAILS]
    packages = [
        each for each in known if each.kind == "counter" and each.sensor.startswith("package")
    ]
    alone = [each for each in known if each.sensor.lower().startswith(_SUPPLY_DRIVERS)]
    chosen = platform[:1] or inputs[:1] or packages or (alone if len(known) == 1 else [])
    if not chosen:
        return None, "none of its sensors sees the whole device"
    few = [each for each in chosen if each.samples is not None and each.samples < 3]
    if few:
        return None, f"too short: {few[0].samples} readings of {few[0].sensor}"
    what = "all processors" if chosen == packages else "the device"
    names = ", ".join(each.sensor for each in chosen)
    total = sum(each.per_inference_mj or 0.0 for each in chosen)
    return total, f"of {what}, by {names}"


def _others(samples: Sequence[Any]) -> float | None:
    """Average what others took over the time between the samples."""
    spent = whole = 0.0
    before = None
    for entry in samples:
        told = mapping_of(entry)
        at, cores = number_of(told.get("t_s")), number_of(told.get("others_cpu"))
        if at is not None and before is not None and cores is not None and at > before:
            spent += cores * (at - before)
            whole += at - before
        before = at if at is not None else before
    return spent / whole if whole > 0 else None
