"""The operation ``bench``: measure a release in its worker, and watch the device meanwhile."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from edge_agent import asking
from edge_agent.loading import Loaded
from edge_agent.measuring import (
    MAX_TIMEOUT_S,
    infer_once,
    load_release,
    slice_tensors,
    stored_vector,
)
from edge_agent.refusals import Refused
from edge_agent.sampling import Sampler, static_conditions
from edge_agent.slots import utc_now
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = ["bench", "cpus_of"]

#: A benchmark's worker reports twice a second; one inference may take this long.
_SILENCE_S = 300.0
_MAX_RUNS = 4 << 20
_MAX_CPUS = 1024
#: What a worker is asked for; the rest of a spec is for the agent.
_FOR_WORKER = (
    *("warmup_runs", "settle", "runs", "duration_s", "until", "patience_s"),
    *("streams", "batch", "rate_per_s", "seed", "cpus", "around"),
)
#: What the host is told of a worker's measurement.
_FROM_WORKER = (
    *("runs", "wall_s", "peak_rss_bytes", "parts", "stopped", "half_width", "warm_up"),
    *("clock_went_back", "one_call", "around", "scenario"),
)


def _bench_spec(meta: Dict[str, Any]) -> Dict[str, Any]:
    spec = meta.get("spec")
    if not isinstance(spec, dict):
        raise Refused(codes.BAD_REQUEST, "spec is missing")
    runs = asking.whole(spec, "runs", 0, _MAX_RUNS, default=0)
    duration_s = asking.number(spec, "duration_s", 0, MAX_TIMEOUT_S, default=0.0)
    if not runs and not duration_s:
        raise Refused(codes.BAD_REQUEST, "spec names neither runs nor duration_s")
    return {
        "warmup_runs": asking.whole(spec, "warmup_runs", 0, 1 << 20, default=0),
        "settle": asking.flag(spec, "settle"),
        "runs": runs,
        "duration_s": duration_s,
        "until": asking.number(spec, "until", 0, 1, default=0.0),
        "patience_s": asking.number(spec, "patience_s", 0, MAX_TIMEOUT_S, default=0.0),
        "streams": asking.whole(spec, "streams", 1, 256, default=1),
        "batch": asking.whole(spec, "batch", 1, 1 << 16, default=1),
        "rate_per_s": asking.number(spec, "rate_per_s", 0, 1e6, default=0.0),
        "seed": asking.whole(spec, "seed", 0, (1 << 63) - 1, default=0),
        "cpus": cpus_of(spec),
        "around": asking.flag(spec, "around"),
        "threads": asking.whole(spec, "threads", 0, 1024, default=0) or None,
        "fresh": asking.flag(spec, "fresh"),
        "sample_conditions": asking.flag(spec, "sample_conditions", default=True),
    }


def cpus_of(spec: Dict[str, Any]) -> Optional[List[int]]:
    """The processors that the worker is to stay on, or None.

    Raises:
        Refused: The agent may not use one of them, or it is none.
    """
    cpus = spec.get("cpus")
    if cpus is None:
        return None
    if (
        not isinstance(cpus, list)
        or not 0 < len(cpus) <= _MAX_CPUS
        or any(type(cpu) is not int or cpu < 0 for cpu in cpus)
    ):
        raise Refused(codes.BAD_REQUEST, "cpus must be a list of numbers of processors")
    if not hasattr(os, "sched_getaffinity"):
        raise Refused(codes.BAD_REQUEST, "this system cannot keep a process on some cpus")
    ours = os.sched_getaffinity(0)
    missing = sorted(set(cpus) - ours)
    if missing:
        raise Refused(
            codes.BAD_REQUEST,
            "there is no cpu {} for the agent here (it may use {})".format(
                missing[0], ", ".join(str(cpu) for cpu in sorted(ours)[:64])
            ),
            option="cpus",
        )
    return sorted(set(cpus))


def bench(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Measure a release on its own check vectors in its worker."""
    bundle, manifest = agent.releases.need(asking.text(meta, "release"))
    spec = _bench_spec(meta)
    timeout_s = asking.number(meta, "timeout_s", 0.001, MAX_TIMEOUT_S, default=_SILENCE_S)
    started = utc_now()
    cold_ms = first_ms = None
    vectors = [stored_vector(agent, vector) for vector in manifest["checks"]]
    with agent.worker_turn(ctx, bundle, manifest):
        loaded = load_release(
            agent,
            ctx,
            bundle,
            manifest,
            threads=spec["threads"],
            fresh=spec["fresh"],
            timeout_s=timeout_s,
        )
        was_new = loaded.fresh
        with agent.probation.around(bundle, loads=False):
            if was_new:
                first = manifest["checks"][0]["blob"]
                blob = agent.store.blobs.read(first["sha256"], limit=first["bytes"])
                specs, inputs = slice_tensors(manifest["checks"][0]["inputs"], blob)
                reply, cold_ms = infer_once(loaded, specs, inputs, timeout_s)
                first_ms = reply.meta["run_ms"]
            reply, conditions = _measure(loaded, ctx, spec, vectors, timeout_s)
    for part in reply.meta["parts"]:
        planned = manifest["parts"][part["index"]]["backend"]
        part["backend"] = loaded.runtimes[part["index"]].get("backend") or planned
    result = {key: reply.meta.get(key) for key in _FROM_WORKER}
    result.update(
        warmup_runs=spec["warmup_runs"],
        cold_start_ms=cold_ms,
        load_ms=loaded.load_ms if was_new else None,
        first_run_ms=first_ms,
        started=started,
        conditions=conditions,
        runtimes=loaded.runtimes,
    )
    return Frame(result, reply.body)


class _Relay:
    """Passes a worker's progress on, with what the sensors said last."""

    def __init__(self, ctx: Context, sampler: Optional[Sampler]) -> None:
        self._ctx = ctx
        self._sampler = sampler
        self._told = -1.0

    def event(self, event: Dict[str, Any]) -> None:
        phase = event.get("phase")
        if self._sampler is not None and phase == "counted":
            self._sampler.begin()
        elif self._sampler is not None and phase == "over":
            self._sampler.end()
        live = {
            k: event[k] for k in ("phase", "recent_ns", "since", "half_width") if k in event
        }
        seen = None if self._sampler is None else self._sampler.latest()
        if seen is not None and seen["t_s"] != self._told:
            self._told = seen["t_s"]
            live["conditions"] = seen
        self._ctx.event(dict(event, live=live))


def _measure(
    loaded: Loaded,
    ctx: Context,
    spec: Dict[str, Any],
    vectors: List[Dict[str, Any]],
    timeout_s: float,
) -> Tuple[Frame, Dict[str, Any]]:
    request = {key: spec[key] for key in _FOR_WORKER}
    static = static_conditions()
    if spec["cpus"]:
        static["cpus_measured_on"] = spec["cpus"]
    sampler = Sampler([loaded.worker.pid]) if spec["sample_conditions"] else None
    seen = {"samples": []}  # type: Dict[str, Any]
    try:
        reply = loaded.worker.request(
            {"op": "bench"},
            json.dumps(dict(request, vectors=vectors)).encode("utf-8"),
            timeout_s=timeout_s,
            doing="running the benchmark",
            on_event=_Relay(ctx, sampler).event,
            each_event_s=timeout_s,
        )
    finally:
        if sampler is not None:
            seen = sampler.finish()
    return reply, dict(seen, static=static)
