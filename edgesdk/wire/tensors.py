"""Tensors on the wire and in blobs: a JSON list of specs beside one run of raw bytes.

A spec is ``{"name", "dtype", "shape", "offset", "nbytes"}``; elements are little endian, row
major, dtype names are numpy's. Both ends check specs with `check_specs` before a byte is read.
"""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

__all__ = ["DTYPE_BYTES", "TensorError", "check_specs", "element_count"]

#: Size in bytes of one element of each dtype that may travel. Strings do not: they are objects.
DTYPE_BYTES = {
    "bool": 1,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "float16": 2,
    "int32": 4,
    "uint32": 4,
    "float32": 4,
    "int64": 8,
    "uint64": 8,
    "float64": 8,
}
_MAX_RANK = 32


class TensorError(ValueError):
    """A tensor list contradicts itself or the bytes it came with."""


def element_count(shape: Sequence[int]) -> int:
    """Multiply out a shape."""
    count = 1
    for extent in shape:
        count *= extent
    return count


def check_specs(specs: Any, total_bytes: int) -> List[Dict[str, Any]]:
    """Check a list of tensor specs from a peer against the number of bytes that came with it.

    Raises:
        TensorError: A field is missing or of the wrong type, a shape and a size disagree, or a
            tensor reaches outside the bytes.
    """
    if not isinstance(specs, list):
        raise TensorError("tensors must be a list")
    for spec in specs:
        if not isinstance(spec, dict):
            raise TensorError("a tensor spec must be an object")
        name, dtype, shape = spec.get("name"), spec.get("dtype"), spec.get("shape")
        offset, nbytes = spec.get("offset"), spec.get("nbytes")
        if not isinstance(name, str):
            raise TensorError("a tensor has no name")
        if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
            raise TensorError("tensor {!r} has dtype {!r}".format(name, dtype))
        if (
            not isinstance(shape, list)
            or len(shape) > _MAX_RANK
            or any(type(extent) is not int or not 0 <= extent < 1 << 48 for extent in shape)
        ):
            raise TensorError("tensor {!r} has shape {!r}".format(name, shape))
        if type(offset) is not int or type(nbytes) is not int or offset < 0 or nbytes < 0:
            raise TensorError("tensor {!r} has no place".format(name))
        if element_count(shape) * DTYPE_BYTES[dtype] != nbytes:
            raise TensorError(
                "tensor {!r} of shape {} and dtype {} cannot have {} bytes".format(
                    name, shape, dtype, nbytes
                )
            )
        if offset + nbytes > total_bytes:
            raise TensorError(
                "tensor {!r} ends at byte {} of {}".format(name, offset + nbytes, total_bytes)
            )
    return specs
