"""The operation that asks each runtime what it ran where, op by op."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Dict

from edge_agent import asking
from edge_agent.measuring import load_release, stored_vector
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = ["profile"]

_MAX_TIMEOUT_S = 86_400.0
_PROFILE_TIMEOUT_S = 120.0
#: Runtimes stop profiling by themselves after this share of the time left, or this long where
#: the host does not say how long.
_PROFILE_SHARE = 0.5
_PROFILE_BUDGET_S = 15.0


def profile(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Ask each runtime of a release what it runs where, op by op; never while measuring."""
    bundle, manifest = agent.releases.need(asking.text(meta, "release"))
    runs = asking.whole(meta, "runs", 1, 1000, default=10)
    threads = asking.whole(meta, "threads", 0, 1024, default=0) or None
    timeout_s = asking.number(
        meta, "timeout_s", 0.001, _MAX_TIMEOUT_S, default=_PROFILE_TIMEOUT_S
    )
    budget_s = asking.number(meta, "budget_s", 0.001, _MAX_TIMEOUT_S, default=_PROFILE_BUDGET_S)
    deadline = time.monotonic() + timeout_s
    vector = stored_vector(agent, manifest["checks"][0])
    with agent.worker_turn(ctx, bundle, manifest):
        loaded = load_release(
            agent, ctx, bundle, manifest, threads=threads, timeout_s=timeout_s
        )
        left_s = max(0.001, deadline - time.monotonic())
        budget_s = min(budget_s, left_s * _PROFILE_SHARE)
        request = {"vector": vector, "runs": runs, "budget_s": budget_s}
        reply = loaded.worker.request(
            {"op": "profile"},
            json.dumps(request).encode("utf-8"),
            timeout_s=left_s,
            doing="asking the runtime what it ran where",
            on_event=ctx.event,
            allowed_s=timeout_s,
        )
    return Frame({"runtimes": loaded.runtimes}, reply.body)
