"""A pack of samples through a chain, one after the other. Worker only.

Samples are never joined into a larger batch than the model was built for: each is one run, just
as an application makes it, so its numbers are those that an application gets.
"""

from __future__ import annotations

import heapq
import math
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import RawTensor, RuntimeFailed
from edgesdk.wire.limits import MAX_BODY_BYTES
from edgesdk.wire.values import pack_values, unpack_values

__all__ = ["evaluate_pack", "top_places"]

_REPORT_S = 0.5
_STEP = "evaluate"
#: A run of outputs takes about a hundred bytes of the reply's fields.
_MAX_RUNS = 4096


class _Output:
    """The values of one output, in runs of samples for which it has one dtype and shape."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runs = []  # type: List[Dict[str, Any]]
        self.pieces = []  # type: List[Any]
        self.nbytes = 0

    def add(self, index: int, value: RawTensor, top: int) -> None:
        """Take the value for one sample."""
        shape = [int(n) for n in value.shape]
        last = self.runs[-1] if self.runs else None
        if last is None or last["dtype"] != value.dtype or last["shape"][1:] != shape:
            last = {"name": self.name, "dtype": value.dtype, "shape": [0] + shape}
            last.update(first=index, nbytes=0)
            if top:
                last["top"] = top
            self.runs.append(last)
        last["shape"][0] += 1
        last["nbytes"] += len(value.data)
        self.nbytes += len(value.data)
        self.pieces.append(value.data)


def top_places(dtype: str, shape: List[int], data: Any, top: int) -> Optional[RawTensor]:
    """Give the places of the ``top`` largest values of each row, the first of equals first.

    Exact: the same places as a stable sort of the values gives. A row that holds a NaN has
    -1 in every place. None for what is no matrix of floats, or has too few columns.
    """
    if not dtype.startswith("float") or len(shape) != 2 or shape[1] < top:
        return None
    rows, columns = shape
    values = unpack_values(dtype, data)
    places = []  # type: List[int]
    for start in range(0, rows * columns, columns):
        row = values[start : start + columns]
        if any(map(math.isnan, row)):
            places += [-1] * top
        elif top == 1:
            places.append(row.index(max(row)))
        else:
            places += heapq.nsmallest(top, range(columns), key=lambda i, row=row: -row[i])
    return RawTensor("int32", [rows, top], pack_values("int32", places))


def _raw(value: Any) -> RawTensor:
    if isinstance(value, RawTensor):
        return value
    from edge_agent.runtimes.arrays import to_raw

    return to_raw(value)


def evaluate_pack(
    chain: Any,
    meta: Dict[str, Any],
    body: Any,
    report: Callable[[str, int, Optional[int]], None],
) -> Tuple[Dict[str, Any], bytes]:
    """Run every sample of a pack.

    Args:
        chain: What is loaded.
        meta: ``samples``, ``tensors`` (checked), ``outputs`` and ``top``.
        body: The bytes of the pack.
        report: Told of samples, at least twice a second where they are short.

    Returns:
        The reply's fields and its body.

    Raises:
        RuntimeFailed: A run failed, or the outputs do not fit in one reply.
    """
    count, top = meta["samples"], meta["top"]
    view = memoryview(body)
    cuts = [
        (s["name"], s["dtype"], s["shape"][1:], s["offset"], s["nbytes"] // count)
        for s in meta["tensors"]
    ]
    outputs = [_Output(name) for name in meta["outputs"]]
    spent_ns = 0
    tick = time.monotonic() + _REPORT_S
    for index in range(count):
        values = {
            name: RawTensor(dtype, shape, view[at + index * size : at + (index + 1) * size])
            for name, dtype, shape, at, size in cuts
        }
        found, spent = chain.run(values)
        spent_ns += sum(spent)
        for output in outputs:
            raw = _raw(found[output.name])
            if top:
                best = top_places(raw.dtype, [int(n) for n in raw.shape], raw.data, top)
                output.add(index, best or raw, top if best else 0)
            else:
                output.add(index, raw, 0)
        if time.monotonic() >= tick:
            _check_room(outputs, index + 1)
            report(_STEP, index + 1, count)
            tick = time.monotonic() + _REPORT_S
    _check_room(outputs, count)
    specs, pieces, offset = [], [], 0
    for output in outputs:
        pieces += output.pieces
        for run in output.runs:
            specs.append(dict(run, offset=offset))
            offset += run["nbytes"]
    joined = b"".join(pieces)  # thousands of small pieces are written faster as one
    return {"ok": True, "samples": count, "tensors": specs, "run_ms": spent_ns / 1e6}, joined


def _check_room(outputs: List[_Output], done: int) -> None:
    total = sum(output.nbytes for output in outputs)
    if total > MAX_BODY_BYTES or sum(len(output.runs) for output in outputs) > _MAX_RUNS:
        text = "the outputs of {} samples have {} bytes, too many for one reply"
        raise RuntimeFailed(text.format(done, total))
