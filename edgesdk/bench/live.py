"""Read what an agent tells while it measures; what makes no sense there is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from edgesdk.progress import Live

__all__ = ["read_live"]

#: An agent tells of fewer runs at a time; what is beyond is not looked at.
_MOST_RECENT = 256
_MOST_ZONES = 256
_MAX_AMOUNT = 1e18


def read_live(value: object) -> Live | None:
    """Read the field ``live`` of an agent's progress event; None where it tells nothing."""
    if not isinstance(value, Mapping):
        return None
    recent, seen = value.get("recent_ns"), value.get("conditions")
    told = seen if isinstance(seen, Mapping) else {}
    clocks, zones, limits = told.get("cpu_mhz"), told.get("temp_c"), told.get("throttled")
    times = _numbers(recent)
    mhz = _numbers(clocks)
    degrees = _numbers(list(zones.values())[:_MOST_ZONES]) if isinstance(zones, Mapping) else []
    half_width = _numbers([value.get("half_width")])
    live = Live(
        begins=value.get("phase") == "counted",
        recent_ms=tuple(ns / 1e6 for ns in times if ns >= 0),
        half_width=half_width[0] if half_width and half_width[0] >= 0 else None,
        cpu_mhz=sum(mhz) / len(mhz) if mhz else None,
        temp_c=max(degrees, default=None),
        limited=bool(limits) if isinstance(limits, list) else None,
    )
    return None if live == Live() else live


def _numbers(values: object) -> list[float]:
    """Keep what is a finite number, of a list that may hold anything."""
    if not isinstance(values, list):
        return []
    return [
        float(value)
        for value in values[:_MOST_RECENT]
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= _MAX_AMOUNT
        and math.isfinite(value)
    ]
