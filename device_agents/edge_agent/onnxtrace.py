"""Read the profile that onnxruntime writes: who ran which node for how long, run by run.

It is a list of events in Chrome's trace format. An event of a node tells its provider and its
time on the thread that ran it, which for a graph inside a node (a loop's body) lies within the
outer node's: what is inside is taken off the outer. A GPU works on by itself, and its kernels
are events of their own right after their node's; where they are missing, the node's time is
only what launching took, and marked as derived.
"""

from __future__ import annotations

import json
import os
import statistics
from typing import Any, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import OpRecord, RuntimeFailed, op_record

__all__ = ["MAX_TRACE_BYTES", "ON_CPU", "is_accelerator", "read_trace"]

MAX_TRACE_BYTES = 64 << 20
#: Providers that compute on the processor.
ON_CPU = frozenset(
    {
        "CPUExecutionProvider",
        "XnnpackExecutionProvider",
        "DnnlExecutionProvider",
        "ACLExecutionProvider",
        "ArmNNExecutionProvider",
    }
)
#: Providers that compute on what they were told to, which may be the processor.
_ON_EITHER = frozenset(
    {"OpenVINOExecutionProvider", "QNNExecutionProvider", "NnapiExecutionProvider", ""}
)
#: Providers whose calls return before the work is done.
_RETURN_EARLY = frozenset(
    {
        "CUDAExecutionProvider",
        "ROCMExecutionProvider",
        "MIGraphXExecutionProvider",
        "TensorrtExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
    }
)
_NODE_SUFFIX = "_kernel_time"
_PRECISIONS = {"float": "float32", "double": "float64"}

_Key = Tuple[str, str, str, str]


def is_accelerator(provider: str) -> Optional[bool]:
    """Say whether a provider is something other than the CPU; None if it may be either."""
    if provider in ON_CPU:
        return False
    return None if provider in _ON_EITHER else True


def read_trace(path: str) -> List[OpRecord]:
    """Read the trace of a session that ran a few times; the first run is left out.

    Raises:
        RuntimeFailed: It is too long, or no trace.
    """
    size = os.path.getsize(path)
    if size > MAX_TRACE_BYTES:
        raise RuntimeFailed(
            "onnxruntime's profile has {} bytes (at most {})".format(size, MAX_TRACE_BYTES)
        )
    with open(path, encoding="utf-8", errors="replace") as stream:
        try:
            events = json.load(stream)
        except (ValueError, RecursionError) as exc:
            raise RuntimeFailed("onnxruntime's profile is no trace: {}".format(exc)) from exc
    return _summed([event for event in events if _is_timed(event)])


def _is_timed(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and isinstance(event.get("name"), str)
        and isinstance(event.get("args"), dict)
        and all(isinstance(event.get(key), (int, float)) for key in ("ts", "dur"))
    )


def _summed(events: List[Dict[str, Any]]) -> List[OpRecord]:
    runs = sorted(
        (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event["name"] == "model_run"
    )
    counted = runs[1:] or runs
    spent = {}  # type: Dict[_Key, List[float]]
    facts = {}  # type: Dict[_Key, Tuple[Optional[str], bool]]
    for number, (begin, end) in enumerate(counted):
        inside = [event for event in events if begin <= event["ts"] <= end]
        for key, own_us, precision, derived in _own_times(inside):
            facts.setdefault(key, (precision, derived))
            times = spent.setdefault(key, [0.0] * len(counted))
            times[number] += own_us
    records = []
    for key, times in spent.items():
        op, name, provider, _ = key
        precision, derived = facts[key]
        records.append(
            op_record(
                op,
                name,
                provider,
                accelerator=is_accelerator(provider),
                us=statistics.median(times),
                derived=derived,
                precision=precision,
            )
        )
    return records


def _own_times(
    events: List[Dict[str, Any]],
) -> List[Tuple[_Key, float, Optional[str], bool]]:
    """Each node's time without that of the nodes within it, in order."""
    found = []
    open_nodes = []  # type: List[List[Any]]
    last = None  # type: Optional[List[Any]]
    for event in events:
        args = event["args"]
        if event.get("cat") == "Kernel" and last is not None:
            last[2] = (last[2] or 0.0) + event["dur"]
        if event.get("cat") != "Node" or not event["name"].endswith(_NODE_SUFFIX):
            continue
        last = [event, 0.0, None]
        found.append(last)
    nested = sorted(found, key=lambda entry: (entry[0]["ts"], -entry[0]["dur"]))
    for entry in nested:
        event = entry[0]
        while open_nodes and not _holds(open_nodes[-1][0], event):
            open_nodes.pop()
        if open_nodes:
            open_nodes[-1][1] += event["dur"]
        open_nodes.append(entry)
    rows = []
    for event, inner, on_device in found:
        args = event["args"]
        provider = str(args.get("provider", ""))
        name = event["name"][: -len(_NODE_SUFFIX)]
        key = (str(args.get("op_name", "")), name, provider, str(args.get("node_index", "")))
        own_us = max(0.0, event["dur"] - inner) if on_device is None else on_device
        derived = on_device is None and provider in _RETURN_EARLY
        rows.append((key, own_us, _precision(args), derived))
    return rows


def _holds(outer: Dict[str, Any], inner: Dict[str, Any]) -> bool:
    return (
        outer.get("tid") == inner.get("tid")
        and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
        and inner is not outer
    )


def _precision(args: Dict[str, Any]) -> Optional[str]:
    """The type of a node's first input."""
    shapes = args.get("input_type_shape")
    if not isinstance(shapes, list) or not shapes or not isinstance(shapes[0], dict):
        return None
    kind = next(iter(shapes[0]), None)
    return _PRECISIONS.get(str(kind), str(kind)) if kind else None
