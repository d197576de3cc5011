"""Sizes, times and shares as people write them: ``2GB``, ``20ms``, ``10min``, ``2%``."""

from __future__ import annotations

import math
import re

from edgesdk.errors import InputError

__all__ = ["read_seconds", "read_share", "read_size"]

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


def read_share(text: str, *, option: str) -> float:
    """Read a share that is small and may be zero: ``2%`` or ``0.02``.

    Raises:
        InputError: It is none, is ``1`` or more without a percent sign, or above 100 %.
    """
    plain = text.strip()
    percent = plain.endswith("%")
    try:
        value = float(plain.removesuffix("%").strip()) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not percent and value >= 1.0:
        raise InputError(
            f"cannot use {option} {plain[:40]!r}: without a percent sign it says a multiple",
            hint=f"write {plain[:20]}%, or 0.02 for two per cent",
            option=option,
            value=plain[:40],
        )
    if not 0.0 <= value <= 1.0:
        raise InputError(
            f"cannot use {option} {plain[:40]!r}: it is no share (expected 0% to 100%)",
            hint="write 2% or 0.02",
            option=option,
            value=plain[:40],
        )
    return value
