"""What a request to a device takes beside the inference: link, framing, agent, pipes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgesdk.bench.measurements import mapping_of, number_of
from edgesdk.bench.procedure_values import Around
from edgesdk.bench.run import BenchSession
from edgesdk.bundle import Bundle

__all__ = ["with_link_time"]

_RUNS = 9
_BUDGET_S = 1.0
_TIMEOUT_S = 120.0
#: Of a request's bytes in all; more would keep a slow line busy for a minute.
_MOST_BYTES = 1 << 20
_SLOW_LINE_BYTES = 16 << 10


def with_link_time(
    session: BenchSession,
    bundle: Bundle,
    around: Around,
    *,
    slow_line: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> Around:
    """Ask for whole inferences from here, and add what the way there and back took.

    Up to 9 requests in about a second, the first of which does not count.

    Args:
        session: A conversation with the device's agent, whose worker holds the bundle.
        bundle: Its first check vector is what is sent.
        around: What the device measured.
        slow_line: Whether each byte takes long, as on a serial line.
        clock: Gives seconds.

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
    """
    check = bundle.manifest["checks"][0]
    specs: list[dict[str, Any]] = []
    body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
    pieces, offset = [], 0
    for spec in check["inputs"]:
        pieces.append(body[spec["offset"] : spec["offset"] + spec["nbytes"]])
        specs.append({**spec, "offset": offset})
        offset += spec["nbytes"]
    most = _SLOW_LINE_BYTES if slow_line else _MOST_BYTES
    if offset > most:
        return replace(around, why=f"an input of {offset} bytes is too long to send for this")
    taken: list[float] = []
    deadline = clock() + _BUDGET_S
    while len(taken) < _RUNS and (len(taken) < 2 or clock() < deadline):
        start = clock()
        reply = session.request(
            "run",
            {"release": bundle.id, "tensors": specs, "timeout_s": _TIMEOUT_S},
            b"".join(pieces),
            timeout_s=_TIMEOUT_S + 60.0,
        )
        spent_ms = (clock() - start) * 1e3
        run_ms = number_of(mapping_of(reply.meta).get("run_ms")) or 0.0
        taken.append(max(0.0, spent_ms - run_ms))
    counted = taken[1:]
    beside = sum(each or 0.0 for each in (around.in_ms, around.between_ms, around.out_ms))
    return replace(
        around,
        link_ms=max(0.0, statistics.median(counted) - beside),
        link_runs=len(counted),
        why="",
    )
