"""Named tensors between numpy and bytes, in the layout of `edgesdk.wire.tensors`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.errors import ProtocolError
from edgesdk.wire.tensors import DTYPE_BYTES, TensorError, check_specs

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TensorInfo", "pack_tensors", "unpack_tensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """What a graph says of one input or output.

    ``shape`` holds an int for a fixed extent, a str for a symbolic one and None for an unknown
    one; ``dtype`` is numpy's name (``"string"`` for ONNX strings).
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        extents = ", ".join("?" if extent is None else str(extent) for extent in self.shape)
        return f"{self.name}: {self.dtype}[{extents}]"


def pack_tensors(
    arrays: Mapping[str, np.ndarray], *, start: int = 0
) -> tuple[list[dict[str, Any]], bytes]:
    """Give the specs and the bytes of named arrays; offsets count from ``start``.

    Raises:
        TypeError: An array's dtype cannot travel (strings, objects, complex numbers).
    """
    import numpy as np

    specs: list[dict[str, Any]] = []
    pieces: list[bytes] = []
    offset = start
    for name, array in arrays.items():
        dtype = array.dtype.name
        if dtype not in DTYPE_BYTES:
            raise TypeError(f"tensor {name!r} of dtype {dtype} cannot be sent")
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        piece = np.ascontiguousarray(little).tobytes()
        specs.append(
            {
                "name": name,
                "dtype": dtype,
                "shape": [int(extent) for extent in array.shape],
                "offset": offset,
                "nbytes": len(piece),
            }
        )
        pieces.append(piece)
        offset += len(piece)
    return specs, b"".join(pieces)


def unpack_tensors(specs: Iterable[dict[str, Any]], body: bytes) -> dict[str, np.ndarray]:
    """Give named arrays, by name, that look into ``body`` without copying it.

    Raises:
        ProtocolError: Specs and bytes contradict each other.
    """
    import numpy as np

    try:
        checked = check_specs(list(specs), len(body))
    except TensorError as exc:
        raise ProtocolError(f"cannot read tensors from the device: {exc}") from exc
    return {
        spec["name"]: np.frombuffer(
            body,
            dtype=np.dtype(spec["dtype"]).newbyteorder("<"),
            count=spec["nbytes"] // DTYPE_BYTES[spec["dtype"]],
            offset=spec["offset"],
        ).reshape(spec["shape"])
        for spec in checked
    }
