"""Read what an agent answers to ``bench``: nothing it says is believed before it is checked.

The reply is a JSON object and a body of little-endian u64 nanoseconds, one per counted run.
What describes the circumstances (clocks, zones, runtime details) may be odd on an odd board:
there a field that makes no sense is dropped and the rest kept. What is a measurement is checked
strictly.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.bench.procedure_values import Procedure
from edgesdk.bench.values import MAX_SAMPLES, ConditionSample, Scalar
from edgesdk.devices.text import clean_text
from edgesdk.errors import EdgeError, ProtocolError
from edgesdk.wire.frames import Frame

__all__ = [
    "Detail",
    "Measurements",
    "RuntimeRecord",
    "items_of",
    "mapping_of",
    "number_of",
    "plain_detail",
    "read_condition_samples",
    "read_measurements",
    "read_runtimes",
    "utc_of",
]

Detail = dict[str, Scalar | tuple[Scalar, ...]]

_MAX_CONDITION_SAMPLES = 5000
_MAX_ENTRIES = 64
_MAX_TEXT = 500
_MAX_INT = (1 << 63) - 1
_OTHER_AGENT = "replace the agent there with `edgesdk agent install` and measure again"
_MAX_AMOUNT = 1e18
_MAX_DEGREES = 1e6
_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|\+00:00)\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRecord:
    """Which library ran a part, as the worker saw it; ``backend``: for which backend."""

    part: int
    runtime: str
    version: str | None
    detail: Detail
    backend: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What one ``bench`` request gave. Times of parts are by part index."""

    samples_ms: tuple[float, ...]
    warmup_runs: int
    cold_start_ms: float | None
    load_ms: float | None
    first_run_ms: float | None
    peak_rss_bytes: int | None
    wall_s: float | None
    started: str | None
    static: Detail
    condition_samples: tuple[ConditionSample, ...]
    runtimes: tuple[RuntimeRecord, ...]
    part_median_ms: dict[int, float]
    part_share: dict[int, float]
    procedure: Procedure | None = None
    broken: EdgeError | None = None
    """What broke the measurement off; then this is what had arrived until then."""


def read_measurements(frame: Frame, *, device: str) -> Measurements:
    """Check the reply to a ``bench`` request.

    Raises:
        ProtocolError: A measurement is missing, impossible or contradicts the samples.
    """
    meta = frame.meta
    runs = _count(meta, "runs", device)
    if runs is None or len(frame.body) != 8 * runs or runs > MAX_SAMPLES:
        raise ProtocolError(
            f"cannot read benchmark from {device}: {len(frame.body)} bytes of samples for"
            f" {runs} runs (expected 8 for each, at most {MAX_SAMPLES} runs)",
            hint=_OTHER_AGENT,
            device=device,
        )
    conditions = mapping_of(meta.get("conditions"))
    parts = [mapping_of(part) for part in items_of(meta.get("parts"))]
    return Measurements(
        samples_ms=tuple(ns / 1e6 for (ns,) in struct.iter_unpack("<Q", frame.body)),
        warmup_runs=_count(meta, "warmup_runs", device) or 0,
        cold_start_ms=_time(meta, "cold_start_ms", device),
        load_ms=_time(meta, "load_ms", device),
        first_run_ms=_time(meta, "first_run_ms", device),
        peak_rss_bytes=_count(meta, "peak_rss_bytes", device),
        wall_s=_time(meta, "wall_s", device),
        started=utc_of(meta.get("started")),
        static=plain_detail(conditions.get("static")),
        condition_samples=read_condition_samples(conditions.get("samples")),
        runtimes=tuple(read_runtimes(meta.get("runtimes"))),
        part_median_ms=_by_index(parts, "median_ms"),
        part_share={i: s for i, s in _by_index(parts, "share").items() if s <= 1.0},
    )


def plain_detail(value: object) -> Detail:
    """Flatten an object from a device to names with scalars or short lists; drop what is not.

    Nested objects become dotted names. Numbers that JSON cannot hold, deep structures and more
    than 64 entries are left out; long text is cut.
    """
    flat: Detail = {}
    for key, entry in mapping_of(value).items():
        name = _text(key)
        if isinstance(entry, Mapping):
            for inner, deep in list(entry.items())[:_MAX_ENTRIES]:
                _put(flat, f"{name}.{_text(inner)}", deep)
        else:
            _put(flat, name, entry)
    return dict(list(flat.items())[:_MAX_ENTRIES])


def _put(flat: Detail, name: str, value: object) -> None:
    if isinstance(value, list | tuple):
        kept = [_scalar(item) for item in value[:_MAX_ENTRIES]]
        flat[name] = tuple(item for item in kept if item is not None)
    elif isinstance(value, Mapping):
        try:
            flat[name] = json.dumps(value, allow_nan=False)[:_MAX_TEXT]
        except (TypeError, ValueError, RecursionError):
            return
    elif value is None or _scalar(value) is not None:
        flat[name] = _scalar(value)


def _scalar(value: object) -> Scalar:
    """Keep a scalar that JSON and a reader can take, else give None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _MAX_INT else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _text(value) if isinstance(value, str) else None


def _text(value: object) -> str:
    return clean_text(str(value)[:_MAX_TEXT])


def utc_of(value: object) -> str | None:
    """Keep a time in UTC, in the form that a report has it."""
    return value if isinstance(value, str) and _UTC.match(value) else None


def mapping_of(value: object) -> Mapping[str, Any]:
    """Keep an object; anything else is an empty one."""
    return value if isinstance(value, Mapping) else {}


def items_of(value: object) -> list[Any]:
    """Keep a list; anything else is an empty one."""
    return value if isinstance(value, list) else []


def number_of(value: object) -> float | None:
    """Keep a finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= _MAX_AMOUNT else None


def _refuse(name: str, value: object, device: str) -> ProtocolError:
    return ProtocolError(
        f"cannot read benchmark from {device}: {name} is {str(value)[:80]!r}"
        " (expected a number that is not negative, or null)",
        hint=_OTHER_AGENT,
        device=device,
        field=name,
    )


def _time(meta: Mapping[str, Any], name: str, device: str) -> float | None:
    value = meta.get(name)
    number = number_of(value)
    if value is not None and number is None:
        raise _refuse(name, value, device)
    return number


def _count(meta: Mapping[str, Any], name: str, device: str) -> int | None:
    value = meta.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= _MAX_INT:
        raise _refuse(name, value, device)
    return value


def _by_index(parts: list[Mapping[str, Any]], field: str) -> dict[int, float]:
    found = {}
    for part in parts:
        index, number = part.get("index"), number_of(part.get(field))
        if type(index) is int and number is not None:
            found[index] = number
    return found


def read_runtimes(value: object) -> list[RuntimeRecord]:
    """Read which library ran which part; what makes no sense is left out."""
    records = []
    for entry in items_of(value):
        record = mapping_of(entry)
        part, runtime, version = (record.get(key) for key in ("part", "runtime", "version"))
        backend = record.get("backend")
        if type(part) is int and isinstance(runtime, str):
            records.append(
                RuntimeRecord(
                    part=part,
                    runtime=_text(runtime),
                    version=_text(version) if isinstance(version, str) else None,
                    detail=plain_detail(record.get("detail")),
                    backend=_text(backend) if isinstance(backend, str) else None,
                )
            )
    return records


def read_condition_samples(value: object) -> tuple[ConditionSample, ...]:
    """Read what the device said of itself meanwhile; what makes no sense is left out."""
    samples = []
    for entry in items_of(value)[:_MAX_CONDITION_SAMPLES]:
        record = mapping_of(entry)
        t_s = number_of(record.get("t_s"))
        if t_s is None:
            continue
        clocks = [number_of(mhz) for mhz in items_of(record.get("cpu_mhz"))[:1024]]
        governor = record.get("governor")
        samples.append(
            ConditionSample(
                t_s=t_s,
                cpu_mhz=tuple(mhz for mhz in clocks if mhz is not None),
                temp_c=_temperatures(record.get("temp_c")),
                load1=number_of(record.get("load1")),
                throttled=_throttled(record.get("throttled")),
                mem_available_bytes=_bytes(record.get("mem_available_bytes")),
                governor=_text(governor) if isinstance(governor, str) else None,
                others_cpu=number_of(record.get("others_cpu")),
                swap_used_bytes=_bytes(record.get("swap_used_bytes")),
                engine_mhz=_amounts(record.get("engine_mhz")),
                power_w=_amounts(record.get("power_w")),
            )
        )
    return tuple(samples)


def _bytes(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_INT else None


def _amounts(value: object) -> dict[str, float]:
    found = {}
    for name, amount in list(mapping_of(value).items())[:_MAX_ENTRIES]:
        known = number_of(amount)
        if known is not None:
            found[_text(name)] = known
    return found


def _throttled(value: object) -> tuple[str, ...] | None:
    if isinstance(value, bool):
        return ("throttled",) if value else ()
    if not isinstance(value, list):
        return None
    return tuple(_text(reason) for reason in value[:_MAX_ENTRIES])


def _temperatures(value: object) -> dict[str, float]:
    zones = {}
    for zone, degrees in list(mapping_of(value).items())[:_MAX_ENTRIES]:
        if isinstance(degrees, bool) or not isinstance(degrees, int | float):
            continue
        if abs(degrees) <= _MAX_DEGREES:
            zones[_text(zone)] = float(degrees)
    return zones
