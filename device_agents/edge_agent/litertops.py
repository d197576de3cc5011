"""Which delegate took which op of a LiteRT model, and how long each took. Worker only.

The interpreter lists all ops, also those that a delegate has replaced, and then one node for
each group it replaced: what that node reaches backwards from its outputs to its inputs is what
it stands for. XNNPACK is the CPU. LiteRT's Python has no profiler, so times are differences:
the model's beginnings, longer and longer, are timed; what they give is scaled to the whole.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edge_agent.tfliteprefix import beginning

__all__ = ["delegated", "merge_places", "spread_times", "work_of"]

_DELEGATE = "DELEGATE"
#: Ops whose second input is weights, and for how many elements of the output each counts.
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D")


def delegated(details: Sequence[Dict[str, Any]]) -> Dict[int, int]:
    """Say for each op that was replaced which delegate's node stands for it.

    Args:
        details: What ``_get_ops_details`` gives: the model's ops, then the delegates' nodes.

    Returns:
        The position of the delegate's node among ``details``, by that of the op.
    """
    ops = [(i, op) for i, op in enumerate(details) if op["op_name"] != _DELEGATE]
    makers = {int(tensor): i for i, op in ops for tensor in op["outputs"]}
    by_index = dict(ops)
    found = {}  # type: Dict[int, int]
    for node, op in enumerate(details):
        if op["op_name"] != _DELEGATE:
            continue
        known = {int(tensor) for tensor in op["inputs"]}
        wanted = [int(tensor) for tensor in op["outputs"]]
        while wanted:
            tensor = wanted.pop()
            maker = makers.get(tensor)
            if tensor in known or maker is None or maker in found:
                continue
            found[maker] = node
            wanted += [int(each) for each in by_index[maker]["inputs"]]
    return found


def work_of(op: Dict[str, Any], shapes: Dict[int, Sequence[int]]) -> float:
    """Guess an op's work: its multiplications, or where it has none, the elements it moves."""
    outputs = [_count(shapes.get(int(t), ())) for t in op["outputs"] if int(t) >= 0]
    inputs = [int(t) for t in op["inputs"]]
    moved = float(sum(outputs) + sum(_count(shapes.get(t, ())) for t in inputs if t >= 0))
    name = op["op_name"]
    weights = shapes.get(inputs[1], ()) if len(inputs) > 1 else ()
    if name not in _WEIGHTED or len(weights) < 2 or not outputs:
        return moved
    depthwise = name == "DEPTHWISE_CONV_2D"
    each = _count(weights) / max(1, weights[-1] if depthwise else weights[0])
    return moved + outputs[0] * each


def _count(shape: Sequence[int]) -> int:
    product = 1
    for extent in shape:
        product *= max(1, int(extent))
    return product


def spread_times(
    model: bytes,
    places: List[str],
    *,
    work: List[float],
    whole_us: float,
    time_model: Callable[[bytes], Optional[float]],
    deadline: float,
) -> List[float]:
    """Spread the time of a model over its ops.

    Beginnings are timed first where the place changes, then halfway between, and so on until
    all are or the time is up; between two that were timed, guessed work decides.

    Args:
        model: The file.
        places: What runs each op.
        work: Guessed for each op.
        whole_us: The measured time of all of them.
        time_model: Times a shortened file in microseconds; None where it cannot be run.
        deadline: By `time.monotonic`.
    """
    count = len(places)
    ends = {0: 0.0, count: whole_us}
    changes = [i for i in range(1, count) if places[i] != places[i - 1]]
    queue = changes + list(_halves(0, count))
    for end in queue:
        if end in ends:
            continue
        if time.monotonic() > deadline:
            break
        spent = time_model(beginning(model, end))
        if spent is not None:
            ends[end] = spent
    return _between(ends, work, whole_us)


def _halves(low: int, high: int) -> List[int]:
    """Every number between two, the middle first, then the middles of the halves, and so on."""
    found = []
    spans = [(low, high)]
    for begin, end in spans:
        middle = (begin + end) // 2
        if begin < middle < end:
            found.append(middle)
            spans += [(begin, middle), (middle, end)]
    return found


def _between(ends: Dict[int, float], work: List[float], whole_us: float) -> List[float]:
    times = [0.0] * len(work)
    known = sorted(ends)
    highest = 0.0
    for begin, end in zip(known, known[1:]):
        # a longer beginning cannot be faster: what says so is noise
        spent = max(0.0, ends[end] - max(highest, ends[begin]))
        highest = max(highest, ends[end], ends[begin])
        guessed = work[begin:end]
        total = sum(guessed)
        for index in range(begin, end):
            share = work[index] / total if total else 1.0 / (end - begin)
            times[index] = spent * share
    measured = sum(times)
    if not measured:
        return times
    return [spent * whole_us / measured for spent in times]


def merge_places(
    explicit: Dict[int, int], everything: Dict[int, int], name: Optional[str], count: int
) -> List[Tuple[str, Optional[bool]]]:
    """Name what runs each op: the delegate that was asked for, XNNPACK, or LiteRT's kernels."""
    found = []  # type: List[Tuple[str, Optional[bool]]]
    for index in range(count):
        if index in explicit:
            found.append(((name or _DELEGATE).upper(), True))
        elif index in everything:
            found.append(("XNNPACK", False))
        else:
            found.append(("CPU", False))
    return found
