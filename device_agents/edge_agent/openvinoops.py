"""What OpenVINO ran where: its runtime model (what fused, in which type) and its counters.

Worker only. The runtime model is the graph as the device executes it; an op's counters have the
same name. A device that has no runtime model still has counters, and the other way round.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Dict, List, Optional, Tuple

from edge_agent.runtimes.base import OpRecord, Profiling, op_record

__all__ = ["collect_ops", "count_places"]

#: Ops that only stand for data.
_NO_WORK = frozenset({"Input", "Output", "Const", "Parameter", "Result", "Constant"})
_PRECISIONS = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "uint8",
    "i32": "int32",
    "i64": "int64",
    "boolean": "bool",
}


def collect_ops(
    core: Any, model: Any, compiled: Any, device: str, asked: Profiling
) -> Tuple[List[OpRecord], str]:
    """Run a compilation that counts, and describe each op that was executed."""
    request = compiled.create_infer_request()
    spent = {}  # type: Dict[str, List[float]]
    kinds = {}  # type: Dict[str, Tuple[str, str]]
    done = 0
    for done in range(1 + asked.runs):
        request.infer(asked.feeds)
        if done:
            for info in request.profiling_info:
                if str(info.status).endswith("EXECUTED"):
                    name = _plain(str(info.node_name))
                    spent.setdefault(name, []).append(info.real_time.total_seconds() * 1e6)
                    kinds[name] = (str(info.node_type), str(info.exec_type))
        if done and time.monotonic() > asked.deadline:
            break
    facts = _runtime_facts(compiled)
    places = _Places(core, model, compiled, device)
    records = []
    order = [name for name in facts if name in spent]
    order += [name for name in spent if name not in facts]
    if not spent:
        order = list(facts)
    for name in order:
        told = facts.get(name, {})
        kind, exec_type = kinds.get(name, ("", ""))
        layer = str(told.get("layerType") or kind)
        if layer in _NO_WORK:
            continue
        sources = str(told.get("originalLayersNames") or "")
        where = places.find(name, sources)
        records.append(
            op_record(
                layer,
                sources or name,
                where,
                accelerator=_is_accelerator(where),
                us=statistics.median(spent[name]) if name in spent else None,
                precision=_precision(told.get("runtimePrecision"), exec_type),
            )
        )
    how = "OpenVINO's counters of {} runs".format(done)
    return records, how if spent else "OpenVINO's runtime model, without times"


def _runtime_facts(compiled: Any) -> Dict[str, Dict[str, str]]:
    """What the runtime model says of each op, by name, in the order of execution."""
    try:
        ops = compiled.get_runtime_model().get_ordered_ops()
    except Exception:  # noqa: BLE001 - not every device has one
        return {}
    found = []
    for op in ops:
        told = {}
        for key, value in dict(op.get_rt_info()).items():
            try:
                told[str(key)] = str(value.astype(str))
            except Exception:  # noqa: BLE001, S112 - attributes of devices differ in type
                continue
        found.append((_number(told.get("execOrder")), str(op.get_friendly_name()), told))
    found.sort(key=lambda entry: entry[0])
    return {_plain(name): told for _, name, told in found}


def _plain(name: str) -> str:
    """A name without the number of the device's share that HETERO puts in front."""
    front, colon, rest = name.partition(": ")
    return rest if colon and front[:8] == "subgraph" and front[8:].isdigit() else name


def _number(text: Optional[str]) -> int:
    return int(text) if text is not None and text.isdigit() else 1 << 30


def count_places(core: Any, model: Any, device: str) -> Dict[str, int]:
    """How many ops of a model each device takes where a name stands for a mix of them.

    Empty for one device, or where nobody can tell.
    """
    if device.partition(":")[0] != "HETERO":
        return {}
    try:
        places = core.query_model(model, device)
        kinds = {str(op.get_friendly_name()): str(op.get_type_name()) for op in model.get_ops()}
    except Exception:  # noqa: BLE001 - then nobody can tell
        return {}
    counts = {}  # type: Dict[str, int]
    for name, where in places.items():
        if kinds.get(str(name), "Constant") not in _NO_WORK:
            counts[str(where)] = counts.get(str(where), 0) + 1
    return counts


class _Places:
    """Which device runs an op, where a name stands for several devices."""

    def __init__(self, core: Any, model: Any, compiled: Any, device: str) -> None:
        self._by_op = {}  # type: Dict[str, str]
        mode, _, _ = device.partition(":")
        self._whole = device
        if mode in ("AUTO", "MULTI"):
            self._whole = _first_device(compiled) or device
        elif mode == "HETERO":
            self._whole = ""
            try:
                self._by_op = {
                    str(name): str(where)
                    for name, where in core.query_model(model, device).items()
                }
            except Exception:  # noqa: BLE001 - then nobody can tell
                self._by_op = {}
            only = set(self._by_op.values())
            if len(only) == 1:
                self._whole = only.pop()

    def find(self, name: str, sources: str) -> str:
        """Name the device, or give an empty text."""
        for candidate in [name] + sources.split(","):
            if candidate in self._by_op:
                return self._by_op[candidate]
        return self._whole


def _first_device(compiled: Any) -> Optional[str]:
    try:
        listed = compiled.get_property("EXECUTION_DEVICES")
    except Exception:  # noqa: BLE001 - devices differ in what they answer
        return None
    names = [listed] if isinstance(listed, str) else list(listed)
    return str(names[0]).strip("()") if names else None


def _is_accelerator(where: str) -> Optional[bool]:
    if not where or where.startswith(("AUTO", "MULTI", "HETERO")):
        return None
    return not where.upper().startswith("CPU")


def _precision(told: Optional[str], exec_type: str) -> Optional[str]:
    """The type an op computes in: the runtime model's word, else the kernel's suffix."""
    if told:
        return _PRECISIONS.get(told, told)
    suffix = exec_type.rpartition("_")[2].lower()
    return _PRECISIONS.get(suffix)
