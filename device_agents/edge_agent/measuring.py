"""The operations that need a worker: check and run; `edge_agent.benching` has bench."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from edge_agent import asking, passes, probe
from edge_agent.compare import compare, same_twice, tolerance_of
from edge_agent.loading import Loaded
from edge_agent.refusals import Refused
from edge_agent.slots import utc_now
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_TENSOR_BYTES
from edgesdk.wire.tensors import TensorError, check_specs, element_count

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = [
    "MAX_TIMEOUT_S",
    "check",
    "check_vectors",
    "infer_once",
    "load_release",
    "run",
    "slice_tensors",
    "stored_vector",
]

_CHECK_TIMEOUT_S = 300.0
_RUN_TIMEOUT_S = 120.0
MAX_TIMEOUT_S = 86_400.0


def load_release(
    agent: Agent,
    ctx: Context,
    bundle: str,
    manifest: Dict[str, Any],
    *,
    threads: Optional[int] = None,
    fresh: bool = False,
    timeout_s: float,
) -> Loaded:
    """Give a worker that holds a release; who calls has its turn."""
    files = agent.releases.part_paths(bundle, manifest)
    is_held = not fresh and agent.supervisor.would_find(bundle, threads)
    with agent.probation.around("" if is_held else bundle, loads=True):
        return agent.supervisor.load(
            bundle,
            manifest,
            files,
            threads=threads,
            fresh=fresh,
            timeout_s=timeout_s,
            on_event=ctx.event,
            cancelled=ctx.is_cancelled,
        )


def infer_once(
    loaded: Loaded,
    specs: List[Dict[str, Any]],
    body: bytes,
    timeout_s: float,
    *,
    allowed_s: Optional[float] = None,
) -> Tuple[Frame, Optional[float]]:
    """Run once; give the worker's reply, and the cold start in ms if this was the first run."""
    run_s = loaded.limits["run_s"]
    if run_s is not None and run_s < timeout_s:  # the bundle's own bound, or the device's
        timeout_s, allowed_s = float(run_s), None
    reply = loaded.worker.request(
        {"op": "run", "tensors": specs},
        body,
        timeout_s=max(0.001, timeout_s),
        doing="running the model",
        allowed_s=allowed_s,
    )
    cold_ms = None
    if loaded.fresh:
        cold_ms = (time.monotonic() - loaded.worker.started) * 1000.0
        loaded.fresh = False
    try:
        check_specs(reply.meta.get("tensors"), len(reply.body))
    except TensorError as exc:
        raise Refused(
            codes.WORKER_FAILED, "the worker gave no tensors: {}".format(exc)
        ) from exc
    return reply, cold_ms


def slice_tensors(specs: List[Dict[str, Any]], body: Any) -> Tuple[List[Dict[str, Any]], bytes]:
    """Cut the tensors of ``specs`` out of ``body`` into bytes of their own."""
    view = memoryview(body)
    moved, pieces, offset = [], [], 0
    for spec in specs:
        pieces.append(view[spec["offset"] : spec["offset"] + spec["nbytes"]])
        moved.append(dict(spec, offset=offset))
        offset += spec["nbytes"]
    return moved, b"".join(pieces)


# -- run -------------------------------------------------------------------------------------


def run(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Run a release once on the inputs in ``body``."""
    bundle, manifest = agent.releases.need(asking.text(meta, "release"))
    timeout_s = asking.number(meta, "timeout_s", 0.001, MAX_TIMEOUT_S, default=_RUN_TIMEOUT_S)
    specs = asking.tensors(meta.get("tensors"), body, manifest["inputs"], bundle[:12])
    deadline = time.monotonic() + timeout_s
    with agent.worker_turn(ctx, bundle, manifest):
        loaded = load_release(agent, ctx, bundle, manifest, timeout_s=timeout_s)
        left_s = deadline - time.monotonic()
        with agent.probation.around(bundle, loads=False):
            reply, _ = infer_once(loaded, specs, body, left_s, allowed_s=timeout_s)
    kept = {key: reply.meta[key] for key in ("tensors", "run_ms", "parts")}
    return Frame(kept, reply.body)


# -- check -----------------------------------------------------------------------------------


def check(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Run every check vector of a bundle and compare; a pass is recorded with the release.

    One that passes is timed as well, see `edge_agent.probe`; `activate` judges that.
    """
    bundle, manifest = agent.releases.need(asking.sha256(meta, "bundle"))
    timeout_s = asking.number(meta, "timeout_s", 0.001, MAX_TIMEOUT_S, default=_CHECK_TIMEOUT_S)
    bound = probe.bound_of(agent, bundle, manifest, asking.microseconds(meta, "max_latency_us"))
    if not asking.flag(meta, "force"):
        known = agent.releases.passed(bundle)
        if known is not None:
            record, outputs = known
            files = record.get("fingerprint", {}).get("module_files", [])
            now = passes.fingerprint(agent, manifest, files)
            same = passes.holds(record) and record.get("fingerprint") == now
            if same and bound.allows(probe.median_us(record)):
                reply = {k: v for k, v in record["reply"].items() if k != "reused"}
                return Frame(dict(reply, reused=True), outputs)
    with agent.worker_turn(ctx, bundle, manifest):
        reply, outputs, loaded = check_vectors(agent, ctx, bundle, manifest, timeout_s)
        if reply["passed"]:
            vectors = [stored_vector(agent, vector) for vector in manifest["checks"]]
            with agent.quiet("a host's latency probe", ctx.is_cancelled):
                reply["latency"] = probe.measure(loaded, vectors, bound, timeout_s)
    if reply["passed"]:
        fingerprint = passes.fingerprint(agent, manifest, loaded.module_files)
        record = {"reply": reply, "fingerprint": fingerprint, "since": utc_now()}
        agent.releases.record_pass(bundle, record, outputs)
    else:
        agent.releases.forget_pass(bundle)
    return Frame(reply, outputs)


def check_vectors(
    agent: Agent, ctx: Any, bundle: str, manifest: Dict[str, Any], timeout_s: float
) -> Tuple[Dict[str, Any], bytes, Loaded]:
    """Run the check vectors; who calls has the worker's turn.

    Returns:
        The reply's fields, the outputs that go with it, and the worker.
    """
    deadline = time.monotonic() + timeout_s
    loaded = load_release(agent, ctx, bundle, manifest, timeout_s=timeout_s)
    with agent.probation.around(bundle, loads=False):
        limits_s = (deadline, timeout_s)
        reply, outputs = _run_vectors(agent, ctx, loaded, manifest, limits_s)
    return reply, outputs, loaded


def _run_vectors(
    agent: Agent,
    ctx: Any,
    loaded: Loaded,
    manifest: Dict[str, Any],
    limits_s: Tuple[float, float],
) -> Tuple[Dict[str, Any], bytes]:
    deadline, timeout_s = limits_s
    was_new = loaded.fresh
    cold_ms = None
    vectors, pieces, offset = [], [], 0
    tensors = []  # type: List[Dict[str, Any]]
    total = len(manifest["checks"])
    for index, vector in enumerate(manifest["checks"]):
        blob = agent.store.blobs.read(vector["blob"]["sha256"], limit=vector["blob"]["bytes"])
        specs, inputs = slice_tensors(vector["inputs"], blob)
        if len(inputs) > MAX_TENSOR_BYTES:
            raise Refused(codes.BAD_REQUEST, "check vector {} is too large".format(index))
        reply, cold = infer_once(
            loaded, specs, inputs, deadline - time.monotonic(), allowed_s=timeout_s
        )
        cold_ms = cold if cold is not None else cold_ms
        seen = {spec["name"]: spec for spec in reply.meta["tensors"]}
        outputs = _judge(vector, seen, reply.body, blob)
        if not vector["expected"]:  # the host could not run the part
            left_s = deadline - time.monotonic()
            again, _ = infer_once(loaded, specs, inputs, left_s, allowed_s=timeout_s)
            outputs = same_twice(
                reply.meta["tensors"], reply.body, again.meta["tensors"], again.body
            )
        vectors.append({"index": index, "outputs": outputs})
        if offset + len(reply.body) <= MAX_BODY_BYTES:
            pieces.append(reply.body)
            tensors += [
                dict(spec, offset=spec["offset"] + offset, vector=index)
                for spec in reply.meta["tensors"]
            ]
            offset += len(reply.body)
        ctx.event({"event": "progress", "step": "check", "done": index + 1, "total": total})
    passed = all(out["within"] for vector in vectors for out in vector["outputs"])
    result = {
        "passed": passed,
        "reused": False,
        "vectors": vectors,
        "runtimes": loaded.runtimes,
        "load_ms": loaded.load_ms if was_new else None,
        "cold_start_ms": cold_ms,
        "tensors": tensors,
    }
    return result, b"".join(pieces)


def _judge(
    vector: Dict[str, Any], seen: Dict[str, Any], body: bytes, blob: bytes
) -> List[Dict[str, Any]]:
    """Compare the outputs of one vector with what the host's own run of the part gave."""
    results = []
    for expected in vector["expected"]:
        name = expected["name"]
        tolerance = tolerance_of(vector["tolerance"], name)
        spec = seen.get(name)
        if spec is None or _kind(spec) != _kind(expected):
            results.append(_other_tensor(spec, expected, tolerance["abs"]))
            continue
        results.append(
            compare(
                name,
                memoryview(body)[spec["offset"] : spec["offset"] + spec["nbytes"]],
                memoryview(blob)[expected["offset"] : expected["offset"] + expected["nbytes"]],
                dtype=expected["dtype"],
                tolerance=tolerance,
            )
        )
    return results


def _kind(spec: Dict[str, Any]) -> Tuple[str, List[int]]:
    return spec["dtype"], spec["shape"]


def _other_tensor(
    spec: Optional[Dict[str, Any]], expected: Dict[str, Any], allowed: float
) -> Dict[str, Any]:
    """The verdict on an output that is not there, or is another kind of tensor."""
    why = "missing"
    if spec is not None:
        why = "it is {} {} (expected {} {})".format(*_kind(spec), *_kind(expected))
    elements = element_count(expected["shape"])
    return {
        "name": expected["name"],
        "within": False,
        "max_abs_error": None,
        "allowed": allowed,
        "mismatches": elements,
        "elements": elements,
        "cosine": None,
        "why": why,
    }


def stored_vector(agent: Agent, vector: Dict[str, Any]) -> Dict[str, Any]:
    """Say where the inputs of a check vector lie, for a worker to read."""
    sha256 = vector["blob"]["sha256"]
    if agent.store.blobs.size(sha256) != vector["blob"]["bytes"]:
        raise Refused(codes.NOT_FOUND, "check vector {} is gone".format(sha256[:12]))
    return {
        "path": os.path.join(agent.store.blobs.path, sha256),
        "tensors": vector["inputs"],
    }
