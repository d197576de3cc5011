"""Reading the fields of a request: every one is checked before it is used."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.tensors import TensorError, check_specs

__all__ = [
    "flag",
    "line",
    "microseconds",
    "names",
    "number",
    "sha256",
    "tensors",
    "text",
    "whole",
]


def _bad(name: str, value: Any, expected: str) -> Refused:
    seen = repr(value)
    if len(seen) > 200:
        seen = seen[:200] + "..."
    return Refused(codes.BAD_REQUEST, "{} is {} (expected {})".format(name, seen, expected))


def sha256(meta: Dict[str, Any], name: str) -> str:
    """A field that is a lower-case SHA-256."""
    value = meta.get(name)
    if not is_sha256(value):
        raise _bad(name, value, "64 lower-case hexadecimal digits")
    return str(value)


def text(meta: Dict[str, Any], name: str) -> str:
    """A field that is text of reasonable length."""
    value = meta.get(name)
    if not isinstance(value, str) or len(value) > 256:
        raise _bad(name, value, "text")
    return value


def whole(
    meta: Dict[str, Any], name: str, low: int, high: int, *, default: Optional[int] = None
) -> int:
    """A field that is an integer between two bounds; ``default`` where it may be left out."""
    value = meta.get(name)
    if value is None and default is not None:
        return default
    if type(value) is not int or not low <= value <= high:
        raise _bad(name, value, "an integer from {} to {}".format(low, high))
    return value


def number(
    meta: Dict[str, Any], name: str, low: float, high: float, *, default: Optional[float] = None
) -> float:
    """A field that is a finite number between two bounds."""
    value = meta.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(name, value, "a number")
    if not low <= value <= high:  # NaN is not, nor is an integer that no float holds
        raise _bad(name, value, "a number from {:g} to {:g}".format(low, high))
    return float(value)


def microseconds(meta: Dict[str, Any], name: str) -> Optional[float]:
    """A field that is a time of up to an hour in microseconds, or is left out."""
    return None if meta.get(name) is None else number(meta, name, 1e-3, 3.6e9)


def line(meta: Dict[str, Any], name: str, *, limit: int = 200) -> str:
    """A field that is a line of text, or is left out; only what can be printed stays."""
    value = meta.get(name, "")
    if not isinstance(value, str):
        raise _bad(name, value, "text")
    clean = "".join(c if c.isprintable() else " " for c in value[: 4 * limit])
    return clean.strip()[:limit]


def flag(meta: Dict[str, Any], name: str, *, default: bool = False) -> bool:
    """A field that is true or false."""
    value = meta.get(name, default)
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def names(meta: Dict[str, Any], name: str, every: Sequence[str]) -> List[str]:
    """A field that lists short names; true stands for ``every``, false or missing for none."""
    value = meta.get(name, False)
    if isinstance(value, bool):
        return list(every) if value else []
    if not isinstance(value, list) or len(value) > 64:
        raise _bad(name, value, "true, false or a list of names")
    for item in value:
        if not isinstance(item, str) or len(item) > 128:
            raise _bad(name, value, "true, false or a list of names")
    return sorted(set(value))


def tensors(
    specs: Any, body: bytes, wanted: List[Dict[str, Any]], release: str
) -> List[Dict[str, Any]]:
    """Specs of input tensors, checked against their bytes and the bundle's inputs.

    Raises:
        Refused: ``bad-request`` if they contradict their bytes, ``bad-data`` if they are not
            what the bundle takes.
    """
    try:
        checked = check_specs(specs, len(body))
    except TensorError as exc:
        raise Refused(codes.BAD_REQUEST, "cannot read the tensors: {}".format(exc)) from exc
    seen = {spec["name"]: spec for spec in checked}
    names = [value["name"] for value in wanted]
    if len(seen) != len(checked) or sorted(seen) != sorted(names):
        raise Refused(
            codes.BAD_DATA,
            "the inputs are {} (release {} takes {})".format(
                sorted(spec["name"] for spec in checked), release, names
            )[:600],
        )
    for value in wanted:
        spec = seen[value["name"]]
        fixed = [n if type(n) is int else None for n in value["shape"]]
        fits = len(fixed) == len(spec["shape"]) and all(
            n is None or n == m for n, m in zip(fixed, spec["shape"])
        )
        if spec["dtype"] != value["dtype"] or not fits:
            raise Refused(
                codes.BAD_DATA,
                "input {!r} is {} {} (release {} takes {} {})".format(
                    value["name"],
                    spec["dtype"],
                    spec["shape"],
                    release,
                    value["dtype"],
                    value["shape"],
                ),
            )
    return checked
