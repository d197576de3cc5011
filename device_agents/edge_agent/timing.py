"""One benchmark as a worker makes it: warm up, measure, look at what lies around. Worker only.

A request has ``vectors``, ``warmup_runs``, ``runs`` and ``duration_s``, and may have ``settle``
(warm up until the runs get no faster), ``until`` and ``patience_s`` (go on beyond ``runs``
until the median's interval is narrow), ``streams``, ``rate_per_s``, ``seed`` and ``batch``,
``cpus``, and ``around`` (whether to take apart what lies around the runtime's call).
"""

from __future__ import annotations

import statistics
from typing import Any, Callable, Dict, List, Tuple

from edge_agent.affinity import kept_on
from edge_agent.chain import Chain
from edge_agent.handover import time_handover
from edge_agent.loops import Measurement, measure_one_stream
from edge_agent.pacing import Pace
from edge_agent.runtimes.base import RawTensor
from edge_agent.streams import measure_streams
from edgesdk.wire.limits import MAX_SAMPLES

__all__ = ["make_benchmark"]

_MAX_WARM_UP_RUNS = 1 << 20
_MAX_WARM_UP_NS = 10_000_000_000
#: Of the time to measure in, what warming up takes at most.
_WARM_UP_SHARE = 5
Make = Callable[[], Dict[str, RawTensor]]


def make_benchmark(
    chain: Chain, asked: Dict[str, Any], makers: List[Make], report: Callable[..., None]
) -> Tuple[Measurement, Dict[str, Any]]:
    """Measure as asked.

    Args:
        chain: What is loaded.
        asked: The request, see above.
        makers: Give the tensors of each vector.
        report: Told how far it is.

    Returns:
        The samples, and the fields of the reply.
    """
    vectors = [make() for make in makers]
    duration_ns = int(asked["duration_s"] * 1e9)
    warm_up = _warm_up(asked, duration_ns, report)
    pace = Pace(
        least=min(asked["runs"] or MAX_SAMPLES, MAX_SAMPLES),
        most=MAX_SAMPLES,
        duration_ns=duration_ns,
        until=asked.get("until") or 0.0,
        patience_ns=int((asked.get("patience_s") or 0.0) * 1e9),
        report=report,
        step="run",
    )
    batch, streams = asked.get("batch") or 1, asked.get("streams") or 1
    rate_per_s = asked.get("rate_per_s") or 0.0
    with kept_on(asked.get("cpus")):
        if streams > 1 or rate_per_s:
            found = measure_streams(
                chain,
                vectors,
                warm_up,
                pace,
                streams=streams,
                batch=batch,
                rate_per_s=rate_per_s,
                seed=asked.get("seed") or 0,
            )
        else:
            found = measure_one_stream(chain, vectors, warm_up, pace, batch=batch)
        around = time_handover(chain, makers) if asked.get("around") else None
    reply = {
        "runs": found.runs,
        "wall_s": found.wall_ns / 1e9,
        "parts": _parts(chain, found),
        "stopped": found.stopped,
        "half_width": found.half_width,
        "warm_up": dict(found.warm_up, settle=bool(asked.get("settle"))),
        "clock_went_back": found.clock_went_back,
        "one_call": batch == 1 or chain.is_open,
        "around": around,
        "scenario": found.more,
    }
    return found, reply


def _warm_up(asked: Dict[str, Any], duration_ns: int, report: Callable[..., None]) -> Any:
    runs, settle = asked["warmup_runs"], bool(asked.get("settle"))
    if not runs and not settle:
        return None
    most_ns = min(duration_ns // _WARM_UP_SHARE or _MAX_WARM_UP_NS, _MAX_WARM_UP_NS)
    return Pace(
        least=runs,
        most=_MAX_WARM_UP_RUNS,
        duration_ns=most_ns if settle else 0,
        settle=settle,
        report=report,
        step="warm up",
    )


def _parts(chain: Chain, found: Measurement) -> List[Dict[str, Any]]:
    """Say what each runtime's own call took, where that was timed apart."""
    whole = sum(found.samples) or 1
    known = bool(found.parts) and found.runs > 0
    return [
        {
            "index": index,
            "runtime": record["runtime"],
            "median_ms": statistics.median(found.parts[index]) / 1e6 if known else None,
            "share": min(1.0, sum(found.parts[index]) / whole) if known else None,
        }
        for index, record in enumerate(chain.records)
    ]
