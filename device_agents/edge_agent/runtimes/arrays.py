"""Between tensors as they travel and numpy arrays; only for runtimes that need numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_agent.runtimes.base import RawTensor, RuntimeFailed
from edgesdk.wire.tensors import DTYPE_BYTES

__all__ = ["to_array", "to_raw"]


def to_array(value: Any) -> Any:
    """Give a contiguous array in the machine's byte order that owns its memory."""
    if not isinstance(value, RawTensor):
        return value
    dtype = np.dtype(value.dtype)
    flat = np.frombuffer(value.data, dtype=dtype.newbyteorder("<"))
    return flat.astype(dtype).reshape(value.shape)


def to_raw(value: Any) -> RawTensor:
    """Give the travelling form of an array.

    Raises:
        RuntimeFailed: It is no array, or its elements are strings or objects.
    """
    if isinstance(value, RawTensor):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.name not in DTYPE_BYTES:
        kind = getattr(getattr(value, "dtype", None), "name", type(value).__name__)
        raise RuntimeFailed("an output of type {} cannot be sent".format(kind))
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    return RawTensor(value.dtype.name, value.shape, np.ascontiguousarray(little).tobytes())
