"""Sizes, times, shares and processors as people write them: ``2GB``, ``20ms``, ``1%``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from edgesdk.errors import InputError, RecipeError
from edgesdk.near import suggest

if TYPE_CHECKING:
    from edgesdk.bench.spec_values import Scenario

__all__ = ["read_cpus", "read_scenario", "read_seconds", "read_share", "read_size"]

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ]*)")
_SIZES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "k": 1 << 10,
    "m": 1 << 20,
    "g": 1 << 30,
    "t": 1 << 40,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_SECONDS = {
    "": 1.0,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
}
_MOST_BYTES = 1 << 50
_CPU = re.compile(r"[0-9]{1,4}")
_MOST_CPUS = 1024


def _read(text: str, units: dict[str, float] | dict[str, int], option: str, like: str) -> float:
    found = _NUMBER.fullmatch(text.strip())
    factor = units.get(found.group(2).lower()) if found else None
    value = float(found.group(1)) * factor if found and factor is not None else math.inf
    if not math.isfinite(value):
        raise InputError(
            f"cannot use {option} {text!r}: not a number and a unit that is known",
            hint=f"write it like {like}",
            option=option,
            value=text,
        )
    return value


def read_size(text: str, *, option: str) -> int:
    """Read a size in bytes: ``2GB`` is 2 * 10**9, ``2GiB`` or ``2G`` are 2 * 2**30.

    Raises:
        InputError: It is none, or more than any device has.
    """
    value = _read(text, _SIZES, option, "2GB, 512MiB or 1000000")
    if value > _MOST_BYTES:
        raise InputError(
            f"cannot use {option} {text!r}: {value:.3g} bytes are more than any device has",
            hint="write it like 2GB or 512MiB",
            option=option,
            value=text,
        )
    return int(value)


def read_seconds(text: str, *, option: str, at_most_s: float) -> float:
    """Read a time in seconds: ``20ms``, ``1.5s``, ``10min``, ``2h``; no unit is seconds.

    Raises:
        InputError: It is none, or longer than ``at_most_s``.
    """
    value = _read(text, _SECONDS, option, "20ms, 1.5s, 10min or 2h")
    if value > at_most_s:
        raise InputError(
            f"cannot use {option} {text!r}: it is longer than {at_most_s:g} s",
            hint="write it like 20ms, 1.5s, 10min or 2h",
            option=option,
            value=text,
        )
    return value


def read_share(text: str, *, option: str, ends: bool = False) -> float:
    """Read a share between 0 and 1: ``1%`` or ``0.01``.

    Args:
        text: What the user typed.
        option: Of which option.
        ends: Whether ``0%`` and ``100%`` are among them.

    Raises:
        InputError: It is none; ``1`` alone is none, as it may be meant as ``1%``.
    """
    from edgesdk.plan.recipe import parse_share

    try:
        value = parse_share(text)
    except RecipeError:
        value = math.nan
    if not (0 < value < 1 or (ends and value in (0.0, 1.0))):
        raise InputError(
            f"cannot use {option} {text[:40]!r}: not a share between 0 % and 100 %",
            hint="write it like 1% or 0.01",
            option=option,
            value=text[:40],
        )
    return value


def read_cpus(text: str, *, option: str) -> tuple[int, ...]:
    """Read numbers of processors: ``0,1`` or ``2-5`` or ``0,4-7``.

    Raises:
        InputError: It is none, or more than 1024 of them.
    """
    found: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not _CPU.fullmatch(first) or (dash and not _CPU.fullmatch(last)):
            break
        if dash and int(last) < int(first):
            break
        found |= set(range(int(first), int(last or first) + 1))
    else:
        if 0 < len(found) <= _MOST_CPUS:
            return tuple(sorted(found))
    raise InputError(
        f"cannot use {option} {text!r}: not a list of processors",
        hint="write it like 0,1 or 2-3",
        option=option,
        value=text,
    )


def read_scenario(
    text: str | None, *, streams: int | None, batch: int | None, rate: float | None
) -> Scenario:
    """Read the name of a scenario; without one, the other options say which it is.

    Raises:
        InputError: There is none of that name.
    """
    from edgesdk.bench.spec_values import SCENARIOS

    if text is None:
        if rate is not None:
            return "server"
        if batch is not None and batch > 1:
            return "offline"
        return "multi-stream" if streams is not None and streams > 1 else "single-stream"
    for name in SCENARIOS:
        if name == text:
            return name
    raise InputError(
        f"cannot measure like that: there is no scenario {text!r}",
        hint=suggest(text, list(SCENARIOS)) or f"there are {', '.join(SCENARIOS)}",
        option="--scenario",
        value=text,
    )
