"""What to know about the circumstances of a measurement before trusting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgesdk.bench.measurements import Measurements
from edgesdk.bench.procedure_values import Procedure
from edgesdk.bench.values import BenchSpec, Conditions, ConditionSample

__all__ = [
    "clock_moves",
    "company",
    "describe_conditions",
    "mean_clock_mhz",
    "slow_governors",
    "warmest_c",
    "warming",
]

#: Clocks of an unthrottled, busy core stay closer together than this share.
_CLOCK_SPREAD = 0.05
_WARMING_C = 10.0
#: A single stream needs one core for itself; load beyond this share of the cores is company.
_BUSY_SHARE = 0.5
#: Less is what any system does beside.
_COMPANY_CORES = 0.1
_SWAPPED_BYTES = 8 << 20
#: Of the arrivals, those that may wait when the time is up: chance brings some at once.
_LEFT_SHARE = 0.05


def mean_clock_mhz(sample: ConditionSample) -> float | None:
    """Give the mean clock over all cores."""
    return sum(sample.cpu_mhz) / len(sample.cpu_mhz) if sample.cpu_mhz else None


def warmest_c(sample: ConditionSample) -> float | None:
    """Give the temperature of the warmest zone."""
    return max(sample.temp_c.values(), default=None)


def slow_governors(static: Mapping[str, object]) -> list[str]:
    """Name what governs the clock, where that does not keep it still."""
    for name, value in static.items():
        values = value if isinstance(value, tuple) else (value,)
        slow = sorted({str(v) for v in values if v not in (None, "performance")})
        if "governor" in name and slow:
            return slow
    return []


def clock_moves(samples: Sequence[ConditionSample]) -> Iterator[str]:
    """Say that the clock moved, if it did."""
    clocks = [mhz for sample in samples if (mhz := mean_clock_mhz(sample))]
    if clocks and min(clocks) < max(clocks) * (1 - _CLOCK_SPREAD):
        yield f"the mean clock moved between {min(clocks):.0f} and {max(clocks):.0f} MHz"


def warming(samples: Sequence[ConditionSample]) -> Iterator[str]:
    """Say that the device got warmer, if it did."""
    warmth = [c for sample in samples if (c := warmest_c(sample)) is not None]
    if warmth and max(warmth) - warmth[0] > _WARMING_C:
        yield f"the device warmed up from {warmth[0]:.0f} to {max(warmth):.0f} °C"


def company(
    samples: Sequence[ConditionSample], cpu_count: int | None, procedure: Procedure | None
) -> Iterator[str]:
    """Say what other processes took: counted where the device can, else by its load."""
    others = None if procedure is None else procedure.others_cpu
    if others is not None:
        if others > _COMPANY_CORES:
            yield f"other processes took {others:.2f} cores while it was measured"
        return
    load = samples[0].load1 if samples else None
    if load is not None and cpu_count and load > cpu_count * _BUSY_SHARE:
        yield f"other work ran at the start: a load of {load:.2f} on {cpu_count} cores"


def describe_conditions(
    measured: Measurements | None, spec: BenchSpec, *, cpu_count: int | None
) -> Conditions:
    """Collect the circumstances and what they mean for the numbers."""
    if measured is None:
        return Conditions(static={}, samples=(), throttled=None, notes=())
    samples = measured.condition_samples
    said = [bool(sample.throttled) for sample in samples if sample.throttled is not None]
    return Conditions(
        static=measured.static,
        samples=samples,
        throttled=any(said) if said else None,
        notes=tuple(_notes(measured, spec, samples, cpu_count)),
    )


def _notes(
    measured: Measurements,
    spec: BenchSpec,
    samples: Sequence[ConditionSample],
    cpu_count: int | None,
) -> Iterator[str]:
    emulator = measured.static.get("emulated")
    if emulator is not None:
        yield (
            f"the device is emulated ({emulator}): a board takes other times, "
            "and another backend may be the faster one there"
        )
    procedure = measured.procedure
    if procedure is not None:
        yield from _of_procedure(procedure, spec)
    done = len(measured.samples_ms)
    in_time = procedure is not None and procedure.stopped != "time"
    if spec.runs and done < spec.runs and measured.broken is None and not in_time:
        yield f"the time limit of {spec.duration_s or 0:g} s ended it after {done} runs"
    slow = slow_governors(measured.static)
    if slow:
        yield f"the clock governor is {', '.join(slow)}, so the clock follows the load"
    throttling = [sample.throttled for sample in samples if sample.throttled]
    if throttling:
        causes = ", ".join(sorted({cause for causes in throttling for cause in causes}))
        yield f"the clock was limited in {len(throttling)} of {len(samples)} samples: {causes}"
    yield from clock_moves(samples)
    yield from warming(samples)
    yield from company(samples, cpu_count, procedure)
    swap = [s.swap_used_bytes for s in samples if s.swap_used_bytes is not None]
    if swap and swap[-1] - swap[0] > _SWAPPED_BYTES:
        yield f"memory was short: {(swap[-1] - swap[0]) >> 20} MiB more were swapped out"
    yield from _precisions(measured)
    if spec.sample_conditions and not samples:
        yield "the device tells nothing about clock, temperature or load"


def _of_procedure(procedure: Procedure, spec: BenchSpec) -> Iterator[str]:
    """Say what was odd in how the runs came about."""
    if procedure.incomplete:
        yield f"incomplete: {procedure.incomplete}"
    for name, count in procedure.odd_outputs.items():
        yield f"output {name} holds {count} elements that are NaN or infinite"
    if procedure.clock_went_back:
        yield (
            f"the device's clock went back {procedure.clock_went_back} times; those runs are "
            "left out"
        )
    if procedure.warm_up is not None and procedure.warm_up.settled is False:
        yield f"it was not warm when counting began: {procedure.warm_up.how}"
    width = procedure.half_width
    if spec.until is not None and width is not None and width > spec.until:
        yield (
            f"the time was up before the median was known to within {spec.until:.2%}: "
            f"it is to within {width:.2%}"
        )
    served = procedure.served
    done = procedure.inferences // spec.batch
    if served is not None and served.waiting_at_end > max(spec.streams, done * _LEFT_SHARE):
        yield (
            f"the device does not keep up with {spec.rate_per_s:g} arrivals per second: "
            f"{served.waiting_at_end} waited when the time was up"
        )


def _precisions(measured: Measurements) -> Iterator[str]:
    """Say where floats were computed in another type than the runtime would have taken."""
    for record in measured.runtimes:
        used, usual = record.detail.get("precision"), record.detail.get("default_precision")
        if isinstance(used, str) and isinstance(usual, str) and used != usual:
            yield (
                f"part {record.part}: floats are held at {used}; left alone, {record.runtime} "
                f"computes them in {usual} on this processor, which is less exact"
            )
