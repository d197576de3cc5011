"""Parts that are finished on the device: engines built here, between a push and its check.

It happens in a worker of its own that holds nothing else, so that `run` and `bench` go on
meanwhile with what is loaded, or with a part's fallbacks. Both then share the memory of the
device: the builder is told to leave half of what is free, and the kernel to end it first where
that was not enough. A part that cannot be finished is an outcome, not an error: its fallbacks
serve.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Iterator, List

from edge_agent import asking
from edge_agent.child import Worker
from edge_agent.engines import Engines
from edge_agent.fs import NotOurs
from edge_agent.loading import for_worker
from edge_agent.refusals import Cancelled, Refused
from edge_agent.telemetry import mem_available_bytes, read_text
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame
from edgesdk.wire.ops import FINISHED_RUNTIMES

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = ["Finishing", "collect_engines", "engine_states", "finish"]

_TIMEOUT_S = 1800.0
_MAX_TIMEOUT_S = 86_400.0
_BUSY_WAIT_S = 2.0
#: What a builder that stops itself in time may take to say so.
_GRACE_S = 10.0
_KEPT = ("outcome", "fingerprint", "seconds", "bytes", "builder", "instead_of")
_MAX_TEXT = 800
#: Where a driver says its version, and Jetson Linux its release.
_DRIVERS = ("/proc/driver/nvidia/version", "/etc/nv_tegra_release")


class Finishing:
    """Who builds: one at a time, in a process that anybody may end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.worker = None  # type: Optional[Worker]

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Be the one who builds.

        Raises:
            Refused: Somebody else is.
        """
        if not self._lock.acquire(timeout=_BUSY_WAIT_S):
            raise Refused(
                codes.BUSY,
                "parts are being finished for another connection",
                op="finish",
                pid=os.getpid(),
            )
        try:
            yield
        finally:
            self._lock.release()

    def interrupt(self) -> None:
        """End the builder under whoever waits for it."""
        worker = self.worker
        if worker is not None:
            worker.kill()


def finish(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Finish every part of a release that needs it, and say what came of each."""
    bundle, manifest = agent.releases.need(asking.sha256(meta, "bundle"))
    timeout_s = asking.number(meta, "timeout_s", 0.001, _MAX_TIMEOUT_S, default=_TIMEOUT_S)
    again = asking.flag(meta, "force")
    deadline = time.monotonic() + timeout_s
    wanted = [
        (index, part)
        for index, part in enumerate(manifest["parts"])
        if part["runtime"] in FINISHED_RUNTIMES
    ]
    if not wanted:
        return Frame({"parts": []})
    paths = agent.releases.part_paths(bundle, manifest)
    found = []
    with agent.finishing.turn():
        free = mem_available_bytes()
        with ctx.ended_by(agent.finishing.interrupt):
            for index, part in wanted:
                if ctx.is_cancelled():
                    raise Cancelled
                record = _finish_one(
                    agent,
                    ctx,
                    part,
                    index=index,
                    files=paths[index],
                    deadline=deadline,
                    again=again,
                )
                found.append(record)
                agent.log.write(_line(record))
    if not _as_it_passed(agent, bundle, found):
        agent.releases.forget_pass(bundle)
        agent.supervisor.forget(bundle)
        if agent.has("serving"):
            agent.serving.refresh(bundle)
    return Frame({"parts": found, "mem_available_bytes": free})


def _as_it_passed(agent: Agent, bundle: str, found: List[Dict[str, Any]]) -> bool:
    """Say whether every part would run the very engine with which the release has passed.

    A pass says nothing of another engine, nor of the fallback of a part that has none now.
    """
    known = agent.releases.passed(bundle)
    used = {} if known is None else _engines_of(known[0])
    return all(
        record["outcome"] == "cached" and used.get(record["part"]) == record["fingerprint"]
        for record in found
    )


def _engines_of(passed: Dict[str, Any]) -> Dict[Any, Any]:
    reply = passed.get("reply", {})
    return {
        record.get("part"): record.get("detail", {}).get("engine")
        for record in reply.get("runtimes", [])
        if isinstance(record, dict)
    }


def _finish_one(
    agent: Agent,
    ctx: Context,
    part: Dict[str, Any],
    *,
    index: int,
    files: List[str],
    deadline: float,
    again: bool,
) -> Dict[str, Any]:
    """Let a worker of its own finish one part; a failure of any kind is what came of it."""
    began = time.monotonic()
    left_s = max(0.001, deadline - began)
    record = for_worker(part)
    if again:
        record["options"] = dict(record["options"], build_again=True)
    request = {
        "part": record,
        "files": files,
        "cache_dir": agent.supervisor.cache,
        "timeout_s": left_s,
    }
    result = {
        "part": index,
        "backend": part["backend"],
        "runtime": part["runtime"],
        "why": "",
    }  # type: Dict[str, Any]

    def on_event(event: Dict[str, Any]) -> None:
        step = "finishing part {}: {}".format(index, event.get("step"))[:200]
        ctx.event({"event": "progress", "step": step, "done": 0, "total": None})

    worker = None  # type: Optional[Worker]
    try:
        worker = agent.finishing.worker = Worker(
            agent.supervisor.python, agent.supervisor.scratch
        )
        reply = worker.request(
            {"op": "finish"},
            json.dumps(request).encode("utf-8"),
            timeout_s=left_s + _GRACE_S,
            doing="finishing part {} with {}".format(index, part["runtime"]),
            on_event=on_event,
            allowed_s=left_s,
        )
        result.update((key, reply.meta.get(key)) for key in _KEPT)
    except Refused as exc:
        result.update(outcome="failed", why=str(exc)[:_MAX_TEXT], code=exc.code)
        result["seconds"] = round(time.monotonic() - began, 3)
    finally:
        agent.finishing.worker = None
        if worker is not None:
            worker.close()
    return result


def _line(record: Dict[str, Any]) -> str:
    """What the log says of a part."""
    text = "part {} for {}: {}".format(record["part"], record["backend"], record["outcome"])
    if record["outcome"] == "failed":
        return "{}: {}".format(text, record["why"])[:600]
    text += " in {} s, engine {}".format(record["seconds"], str(record["fingerprint"])[:12])
    return text + (" ({})".format(record["instead_of"]) if record["instead_of"] else "")


# -- engines that are here -------------------------------------------------------------------


def _folders(agent: Agent) -> Iterator[Engines]:
    """The engines of each runtime that keeps any."""
    for name in FINISHED_RUNTIMES:
        path = os.path.join(str(agent.supervisor.cache), name)
        if not agent.supervisor.cache or not os.path.isdir(path):
            continue
        try:
            engines = Engines(path, agent.log.write)
        except (OSError, NotOurs) as exc:
            agent.log.write("the engines in {} cannot be read: {}".format(path, exc)[:500])
            continue
        with engines:
            yield engines


def _models(manifest: Dict[str, Any]) -> List[str]:
    return [
        part["files"][0]["sha256"]
        for part in manifest["parts"]
        if part["runtime"] in FINISHED_RUNTIMES
    ]


def engine_states(agent: Agent, manifest: Dict[str, Any]) -> List[List[Any]]:
    """What changes when an engine of a release is built again, or its driver is another."""
    models = _models(manifest)
    if not models:
        return []
    found = [state for engines in _folders(agent) for state in engines.states(models)]
    return found + [[path, read_text(path)] for path in _DRIVERS]


def collect_engines(agent: Agent) -> int:
    """Remove the engines of releases that are gone; give the bytes that were freed."""
    kept = []  # type: List[str]
    for bundle in agent.releases.ids():
        manifest = agent.releases.manifest(bundle)
        kept += [] if manifest is None else _models(manifest)
    return sum(engines.keep_only(kept) for engines in _folders(agent))
