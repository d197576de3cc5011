"""Numbers and tensors' bytes: between lists as people and JSON write them and what travels."""

from __future__ import annotations

import struct
from typing import Any, List, Optional, Sequence, Tuple

from edgesdk.wire.tensors import DTYPE_BYTES, TensorError, element_count

__all__ = ["flatten", "nest", "pack_values", "shape_for", "unpack_values"]

#: How the struct module calls each dtype.
_CODES = {
    "bool": "?",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "float16": "e",
    "int32": "i",
    "uint32": "I",
    "float32": "f",
    "int64": "q",
    "uint64": "Q",
    "float64": "d",
}
_MAX_DEPTH = 32


def pack_values(dtype: str, values: Sequence[Any]) -> bytes:
    """Give the bytes of a flat list of numbers, little endian.

    Raises:
        TensorError: The dtype is unknown, or a value is no number or does not fit it.
    """
    if dtype not in _CODES:
        raise TensorError("no tensor has dtype {!r}".format(dtype))
    if dtype == "bool":
        # the struct module takes the truth of anything
        odd = [v for v in values if v is not True and v is not False and v not in (0, 1)]
    else:
        odd = [v for v in values if type(v) not in (int, float)]
    if odd:
        raise TensorError("{!r} is no {}".format(odd[0], dtype)[:200])
    if dtype.startswith("float"):
        values = [float(v) for v in values] if _has_large(values) else values
    try:
        return struct.pack("<{}{}".format(len(values), _CODES[dtype]), *values)
    except (struct.error, OverflowError) as exc:
        raise TensorError("a value is no {}: {}".format(dtype, exc)) from None


def _has_large(values: Sequence[Any]) -> bool:
    """Say whether an integer is among them that no float holds."""
    try:
        return any(type(v) is int and float(v) != v for v in values)
    except OverflowError:
        raise TensorError("a value is too large for a float") from None


def unpack_values(dtype: str, data: Any) -> List[Any]:
    """Give a tensor's elements as a flat list of numbers."""
    count = len(data) // DTYPE_BYTES[dtype]
    return list(struct.unpack("<{}{}".format(count, _CODES[dtype]), data))


def nest(values: List[Any], shape: Sequence[int]) -> Any:
    """Give a flat list the form of ``shape``; a scalar becomes the number itself."""
    if not shape:
        return values[0]
    for extent in reversed(list(shape)[1:]):
        rows = len(values) // extent if extent else 0
        values = [values[i * extent : (i + 1) * extent] for i in range(rows)]
    return values


def flatten(value: Any) -> Tuple[List[Any], List[int]]:
    """Give the numbers in nested lists, and their shape.

    Raises:
        TensorError: The lists are uneven, or nested too deeply.
    """
    shape = []  # type: List[int]
    level = [value]  # type: List[Any]
    while level and any(isinstance(item, (list, tuple)) for item in level):
        if len(shape) == _MAX_DEPTH:
            raise TensorError("lists are nested more than {} deep".format(_MAX_DEPTH))
        sizes = {len(item) if isinstance(item, (list, tuple)) else -1 for item in level}
        if len(sizes) != 1:
            raise TensorError("the lists are not all of one length")
        shape.append(sizes.pop())
        level = [inner for item in level for inner in item]
    return level, shape


def shape_for(declared: Sequence[Any], dtype: str, nbytes: int) -> Optional[List[int]]:
    """Give the shape that bytes without one must have, or None where that is not clear.

    Args:
        declared: The shape a model declares; what is no number may have any size.
        dtype: Its dtype.
        nbytes: How many bytes there are.
    """
    shape = [extent if type(extent) is int else None for extent in declared]
    fixed = element_count([extent for extent in shape if extent is not None])
    size = DTYPE_BYTES[dtype]
    if None in shape:
        if shape.count(None) > 1 or fixed == 0 or nbytes % (fixed * size):
            return None
        shape[shape.index(None)] = nbytes // (fixed * size)
    found = [extent for extent in shape if extent is not None]
    return found if element_count(found) * size == nbytes else None
