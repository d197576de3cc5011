"""What each runtime of a chain really ran where, op by op. Worker only, never while measuring.

For each part there is one record::

    index, runtime
    ops       see `edge_agent.runtimes.base.op_record`; in order, the last ones may be sums
    how       how the times of the ops were taken, in a few words
    total_us  median of the part's own call, measured here without any profiling; or null
    share     of the time of the whole chain, what that call takes within it
    why       why there are no ops, or null

An op's ``us`` may add up to less than ``total_us`` (what the runtime spends between ops) or to
more (profiling costs time); the host compares shares. The whole chain is timed beside, with all
hand-over, so that what passes between parts is known too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional

from edge_agent.chain import Chain
from edge_agent.runtimes.base import OpRecord, Part, Profiling, RawTensor, RuntimeFailed

__all__ = ["MAX_OPS", "profile_parts", "shortened", "time_chain"]

#: Records of one profile, all parts together: they fit one reply whatever their text.
MAX_OPS = 8000
_MAX_TEXT = 500
#: Of the time there is, what timing the whole chain may take.
_CHAIN_SHARE = 0.2


def time_chain(
    chain: Chain,
    inputs: Dict[str, RawTensor],
    *,
    runs: int,
    deadline: float,
    report: Callable[[str, int, Optional[int]], None],
) -> Dict[str, Any]:
    """Time the whole as a benchmark does it.

    Returns:
        ``chain_us``, the median time of one inference in microseconds, and ``shares``: of that
        time, the median of each runtime's own call within the chain.
    """
    found = chain.measure(
        [inputs],
        warmup_runs=1,
        runs=runs,
        duration_s=max(0.001, (deadline - time.monotonic()) * _CHAIN_SHARE),
        report=report,
    )
    calls = [statistics.median(spent) for spent in found.parts]
    whole = max(statistics.median(found.samples), sum(calls), 1)
    return {"chain_us": whole / 1e3, "shares": [spent / whole for spent in calls]}


def profile_parts(
    chain: Chain,
    inputs: Dict[str, RawTensor],
    *,
    runs: int,
    deadline: float,
    report: Callable[[str, int, Optional[int]], None],
) -> List[Dict[str, Any]]:
    """Ask part by part; one that does not tell, or fails at it, says why.

    Args:
        chain: What is loaded.
        inputs: One check vector.
        runs: How often each part is run at most, for its total and again for its ops.
        deadline: By `time.monotonic`; parts that come after it are only listed.
        report: Told what is being done.
    """
    values = dict(inputs)  # type: Dict[str, Any]
    found = []
    most = max(16, MAX_OPS // max(1, len(chain.parts)))
    for index, part in enumerate(chain.parts):
        report("asking part {} what ran where".format(index), index, len(chain.parts))
        record = {
            "index": index,
            "runtime": chain.records[index]["runtime"],
            "ops": [],
            "how": "",
            "total_us": None,
            "why": None,
        }  # type: Dict[str, Any]
        feeds = part.prepare(values)
        function, arguments = part.bind(feeds)
        values.update(part.named(function(*arguments)))
        left_s = max(0.0, deadline - time.monotonic()) / (len(chain.parts) - index)
        stop = time.monotonic() + left_s
        record["total_us"] = _median_us(
            function, arguments, runs, time.monotonic() + left_s / 4
        )
        try:
            ops, how = _ask(part, feeds, runs, stop)
            record["ops"], record["how"] = shortened(ops, most), how[:_MAX_TEXT]
        except NotImplementedError:
            record["why"] = "this agent cannot ask {}".format(record["runtime"])
        except RuntimeFailed as exc:
            record["why"] = str(exc)[:_MAX_TEXT]
        except Exception as exc:  # noqa: BLE001 - whatever a library raises, the rest goes on
            record["why"] = "{}: {}".format(type(exc).__name__, exc)[:_MAX_TEXT]
        found.append(record)
    return found


def _ask(part: Part, feeds: Any, runs: int, deadline: float) -> Any:
    with tempfile.TemporaryDirectory(prefix="profile-", dir=os.getcwd()) as folder:
        return part.profile(Profiling(feeds, runs=runs, folder=folder, deadline=deadline))


def _median_us(
    function: Callable[..., Any], arguments: Any, runs: int, deadline: float
) -> Optional[float]:
    spent = []
    for _ in range(runs):
        start = time.perf_counter_ns()
        function(*arguments)
        spent.append((time.perf_counter_ns() - start) / 1e3)
        if time.monotonic() > deadline:
            break
    return statistics.median(spent) if spent else None


def shortened(ops: List[OpRecord], most: int) -> List[OpRecord]:
    """Give at most ``most`` records: the shortest are summed by op, place and precision.

    What is summed comes last. Where even the sums are too many, the shortest of them are left
    out.
    """
    if len(ops) <= most:
        return ops
    order = sorted(range(len(ops)), key=lambda i: ops[i].get("us") or 0.0, reverse=True)
    kept = set(order[: most // 2])
    sums = {}  # type: Dict[Any, OpRecord]
    for index in order[most // 2 :]:
        op = ops[index]
        key = tuple(op[name] for name in ("op", "where", "accelerator", "derived", "precision"))
        known = sums.get(key)
        if known is None:
            sums[key] = dict(op, name="")
            continue
        known["count"] += op["count"]
        if op["us"] is not None:
            known["us"] = (known["us"] or 0.0) + op["us"]
    largest = sorted(sums.values(), key=lambda op: op["us"] or 0.0, reverse=True)
    return [op for index, op in enumerate(ops) if index in kept] + largest[: most - most // 2]
