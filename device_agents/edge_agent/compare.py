"""Compare what a part gave with what the host expected, in plain Python: no numpy needed.

Equal bytes, the usual case, cost one comparison. NaN equals NaN and an infinity equals itself;
anything else against one of them is a mismatch of unbounded error.
"""

from __future__ import annotations

import array
import math
import struct
import sys
from typing import Any, Dict, List, Optional, Sequence

from edgesdk.wire.tensors import DTYPE_BYTES

__all__ = ["compare", "decode", "same_twice", "tolerance_of"]

_ARRAY_CODES = {
    "bool": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_PIECE_BYTES = 1 << 18
#: How many times ``abs`` the few elements that may stray can be off.
_STRAY_FACTOR = 4


def decode(data: Any, dtype: str) -> Sequence[Any]:
    """Give the numbers in little-endian bytes of a dtype."""
    if dtype == "float16":
        return struct.unpack("<{}e".format(len(data) // 2), data)
    values = array.array(_ARRAY_CODES[dtype])
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


class _Sums:
    """What one pass over both tensors collects."""

    def __init__(self, absolute: float, relative: float) -> None:
        self.absolute = absolute
        self.relative = relative
        self.mismatches = 0
        self.worst = 0.0
        self.bounded = True
        self.dot = 0.0
        self.left = 0.0
        self.right = 0.0

    def add(self, seen: Sequence[Any], expected: Sequence[Any]) -> None:
        """Compare two runs of numbers of equal length."""
        for a, b in zip(seen, expected):
            if a == b:
                if a - b == 0:  # not so for equal infinities
                    square = float(a) * float(a)
                    self.dot += square
                    self.left += square
                    self.right += square
                continue
            error = abs(a - b)
            if not math.isfinite(error):
                if math.isnan(a) and math.isnan(b):
                    continue
                self.mismatches += 1
                self.bounded = False
                continue
            self.worst = max(self.worst, error)
            if error > self.absolute + self.relative * abs(b):
                self.mismatches += 1
            self.dot += float(a) * float(b)
            self.left += float(a) * float(a)
            self.right += float(b) * float(b)

    def within(self, strays: float) -> bool:
        """Say whether all elements match, but for so many that are a few times as far off."""
        if not self.mismatches:
            return True
        near = self.bounded and self.worst <= _STRAY_FACTOR * self.absolute
        return near and self.mismatches <= strays

    def cosine(self) -> Optional[float]:
        """Cosine of the angle between both, or None where it has no meaning."""
        if not self.bounded:
            return None
        if self.left == 0 and self.right == 0:
            return 1.0
        if self.left == 0 or self.right == 0:
            return 0.0
        norm = math.sqrt(self.left) * math.sqrt(self.right)
        if not math.isfinite(norm) or norm == 0:
            return None
        return max(-1.0, min(1.0, self.dot / norm))


def compare(
    name: str,
    seen: Any,
    expected: Any,
    *,
    dtype: str,
    tolerance: Dict[str, float],
) -> Dict[str, Any]:
    """Compare two tensors of equal dtype and size, given as bytes.

    An element matches if it is no further off than ``abs + rel * |expected|``. The share
    ``stray`` of all elements, rounded down, may be further off, up to four times ``abs``: two
    rounding orders of one sum meet in a step now and then, in other places on every CPU.

    Returns:
        ``name``, ``within`` (all elements match but for the strays allowed),
        ``max_abs_error`` (None if it is not finite), ``allowed`` (``abs``), ``mismatches``,
        ``elements`` and ``cosine`` (None if a value is not finite).
    """
    seen_view, expected_view = memoryview(seen), memoryview(expected)
    elements = len(seen_view) // DTYPE_BYTES[dtype]
    sums = _Sums(tolerance["abs"], tolerance["rel"])
    if seen_view == expected_view:
        cosine = 1.0  # type: Optional[float]
        if dtype.startswith("float") and _has_odd_values(seen_view, dtype):
            cosine = None
    else:
        for start in range(0, len(seen_view), _PIECE_BYTES):
            piece = slice(start, start + _PIECE_BYTES)
            sums.add(decode(seen_view[piece], dtype), decode(expected_view[piece], dtype))
        cosine = sums.cosine()
    return {
        "name": name,
        "within": sums.within(tolerance.get("stray", 0.0) * elements),
        "max_abs_error": sums.worst if sums.bounded else None,
        "allowed": tolerance["abs"],
        "mismatches": sums.mismatches,
        "elements": elements,
        "cosine": cosine,
    }


def _has_odd_values(data: memoryview, dtype: str) -> bool:
    """Say whether a NaN or an infinity is among the numbers."""
    for start in range(0, len(data), _PIECE_BYTES):
        values = decode(data[start : start + _PIECE_BYTES], dtype)
        if not all(map(math.isfinite, values)):
            return True
    return False


def tolerance_of(tolerances: List[Any], name: str) -> Dict[str, float]:
    """Find how far elements of the output ``name`` may be off; without a record not at all."""
    for record in tolerances:
        if isinstance(record, dict) and record.get("output") == name:
            return {key: _positive(record.get(key)) for key in ("abs", "rel", "stray")}
    return {"abs": 0.0, "rel": 0.0, "stray": 0.0}


def _positive(value: Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if good else 0.0


def same_twice(
    specs: List[Dict[str, Any]], body: bytes, others: List[Dict[str, Any]], other: bytes
) -> List[Dict[str, Any]]:
    """Judge outputs that nobody could foretell: two runs agree, and every number is finite.

    Args:
        specs: Tensors of the first run, as the worker describes them.
        body: Their bytes.
        others: Tensors of the second run.
        other: Their bytes.

    Returns:
        A verdict for each output, as `compare` gives them.
    """
    again = {spec["name"]: spec for spec in others}
    exact = {"abs": 0.0, "rel": 0.0}
    results = []
    for spec in specs:
        first = memoryview(body)[spec["offset"] : spec["offset"] + spec["nbytes"]]
        twin = again.get(spec["name"])
        same_kind = twin is not None and (twin["dtype"], twin["shape"]) == (
            spec["dtype"],
            spec["shape"],
        )
        second = first
        if twin is not None and same_kind:
            second = memoryview(other)[twin["offset"] : twin["offset"] + twin["nbytes"]]
        verdict = compare(spec["name"], first, second, dtype=spec["dtype"], tolerance=exact)
        if not same_kind:
            verdict.update(within=False, why="a second run gives another tensor")
        elif spec["dtype"].startswith("float") and _has_odd_values(first, spec["dtype"]):
            verdict.update(within=False, why="it is not finite")
        elif not verdict["within"]:
            verdict["why"] = "a second run gives other numbers"
        results.append(verdict)
    return results
