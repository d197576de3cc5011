"""Inputs made from inputs: bytes flipped, cut and spliced, and JSON with odd values."""

from __future__ import annotations

import copy
import random
from typing import Any

__all__ = ["mutate_bytes", "mutate_json"]

_ODD_INTEGERS = (0, 1, -1, 127, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63)
_ODD_TEXTS = (
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/../../x",
    "a\0b",
    "-rf",
    "$(id)",
    ";reboot",
    "\x1b[2J",
    "\u202e",
    "\ud7ff",
    "CON",
    "x" * 300,
    "x" * 70_000,
    "0" * 64,
    "F" * 64,
    "current",
    "previous",
    "candidate",
    "NaN",
    "1e999",
)
_ODD_FLOATS = (0.0, -0.0, 1e-308, 1e308, -1e308, 0.5)
_MOST_BYTES = 1 << 16


def mutate_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Change some of ``data``; ``other`` is where pieces are taken from, too."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del out[at : at + rng.randint(1, 16)]
            case 3:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
            case 4:
                start = rng.randrange(len(out) + 1)
                out[at:at] = out[start : start + rng.randint(1, 64)]
            case 5 if other:
                start = rng.randrange(len(other))
                length = rng.randint(1, 64)
                out[at : at + length] = other[start : start + length]
            case _:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_ODD_INTEGERS) % (1 << 8 * width)
                out[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
    return bytes(out[:_MOST_BYTES])


def _odd_value(rng: random.Random) -> Any:
    match rng.randrange(8):
        case 0:
            return rng.choice(_ODD_INTEGERS) * rng.choice((1, 1, -1))
        case 1:
            return rng.choice(_ODD_FLOATS)
        case 2 | 3:
            return rng.choice(_ODD_TEXTS)
        case 4:
            return rng.choice((None, True, False))
        case 5:
            return rng.choice(([], {}, [[]], {"": None}))
        case 6:
            return [_odd_value(rng) for _ in range(rng.randrange(4))]
        case _:
            return {rng.choice(_ODD_TEXTS): _odd_value(rng) for _ in range(rng.randrange(3))}


def _change(value: Any, rng: random.Random) -> Any:
    """Change one thing somewhere in a JSON value."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        changed = dict(value)
        match rng.randrange(6):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(_ODD_TEXTS)] = _odd_value(rng)
            case _:
                changed[key] = _change(value[key], rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
            case _:
                return [*value[:at], _change(value[at], rng), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 4096, -value, value))
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return value[:at] + rng.choice((*_ODD_TEXTS[:12], "0", "f")) + value[at + 1 :]
    return _odd_value(rng)


def mutate_json(value: Any, rng: random.Random, times: int | None = None) -> Any:
    """Give a copy of a JSON value with a few things changed."""
    changed = copy.deepcopy(value)
    for _ in range(times or rng.choice((1, 1, 2, 3, 6))):
        changed = _change(changed, rng)
    return changed
