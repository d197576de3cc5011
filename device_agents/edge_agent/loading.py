"""Starting a worker for a release: what it is told, and the next way when a library ends it."""

from __future__ import annotations

import json
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.child import OnEvent, Worker
from edge_agent.limits import limits_of
from edge_agent.refusals import Cancelled, Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

__all__ = ["Loaded", "Starter", "for_worker"]

#: What a fallback may say; all else is the part's own, such as the hashes of its files.
_OF_FALLBACK = ("backend", "runtime", "options", "spare")


def for_worker(part: Dict[str, Any]) -> Dict[str, Any]:
    """Give what a runtime may know of a part: its record, and its files by role and hash."""
    record = {key: part[key] for key in ("backend", "runtime", "options", "inputs", "outputs")}
    record["fallbacks"] = [
        {key: way[key] for key in _OF_FALLBACK if key in way}
        for way in part.get("fallbacks", [])
    ]
    record["roles"] = [entry["role"] for entry in part["files"]]
    record["sha256"] = [entry["sha256"] for entry in part["files"]]
    spare = part.get("spare", {"format": None, "files": []})
    record["spare_files"] = {
        "format": spare["format"],
        "roles": [entry["role"] for entry in spare["files"]],
        "sha256": [entry["sha256"] for entry in spare["files"]],
    }
    return record


class Loaded:
    """What a worker holds: the bundle, with which thread count, and what loading said."""

    def __init__(
        self,
        bundle: str,
        threads: Optional[int],
        worker: Worker,
        reply: Frame,
        limits: Dict[str, Any],
    ) -> None:
        self.bundle = bundle
        #: What it may take, see `edge_agent.limits`, and whether it has the network.
        self.limits = dict(limits, network=reply.meta.get("network"))
        self.threads = threads
        self.worker = worker
        self.load_ms = float(reply.meta["load_ms"])
        self.runtimes = list(reply.meta["runtimes"])
        self.module_files = [str(path) for path in reply.meta["module_files"]]
        self.fresh = True  # nothing has run in it yet
        self.stale = False  # loading it again would give something better


class Starter:
    """Starts workers that hold a release, one after the other; another thread may end them.

    Args:
        python: The interpreter for workers.
        scratch: Their working folder.
        cache: Where runtimes keep what they compiled, or None.
        log: Writes a line.
    """

    def __init__(
        self, python: str, scratch: str, cache: Optional[str], log: Callable[[str], None]
    ) -> None:
        self.python = python
        self.scratch = scratch
        self.cache = cache
        self._log = log
        self._running = None  # type: Optional[Worker]

    def start(
        self,
        bundle: str,
        manifest: Dict[str, Any],
        files: List[List[str]],
        *,
        threads: Optional[int],
        timeout_s: float,
        on_event: OnEvent,
        cancelled: Callable[[], bool],
    ) -> Loaded:
        """Start a worker and load every part of a release in it.

        Raises:
            Refused: A part cannot be loaded, by its own runtime nor by a fallback.
            Cancelled: Nobody waits for it any more.
        """
        request = {
            "parts": [for_worker(part) for part in manifest["parts"]],
            "files": files,
            "inputs": [value["name"] for value in manifest["inputs"]],
            "outputs": [value["name"] for value in manifest["outputs"]],
            "threads": threads,
            "cache_dir": self.cache,
            "failed": {},
        }  # type: Dict[str, Any]
        limits = limits_of(manifest)
        began = time.monotonic()
        left_s = timeout_s
        while True:
            attempt = [0, 0]  # the part, and which of its ways is being tried

            def note(event: Dict[str, Any], attempt: List[int] = attempt) -> None:
                if type(event.get("way")) is int and type(event.get("done")) is int:
                    attempt[:] = [event["done"], event["way"]]
                on_event(event)

            try:
                worker, reply = self._load_in_new(request, limits, left_s, note, cancelled)
            except Refused as exc:
                # a library that ends its process takes all with it: on with the next way
                part, way = attempt
                ways = len(manifest["parts"][part].get("fallbacks", []))
                if exc.code != codes.WORKER_DIED or way >= ways:
                    raise
                self._log("{}; going on with a fallback".format(exc)[:500])
                failed = request["failed"].setdefault(str(part), [])
                failed += [str(exc)] * (way + 1 - len(failed))
                left_s = max(0.001, timeout_s - (time.monotonic() - began))
                continue
            self._log("worker {} holds {}".format(worker.pid, bundle[:12]))
            return Loaded(bundle, threads, worker, reply, limits)

    def _load_in_new(
        self,
        request: Dict[str, Any],
        limits: Dict[str, Any],
        timeout_s: float,
        on_event: OnEvent,
        cancelled: Callable[[], bool],
    ) -> Tuple[Worker, Frame]:
        worker = self._running = Worker(self.python, self.scratch, limits)
        try:
            if cancelled():
                raise Cancelled
            # in the body: the records of many parts do not fit in a frame's meta
            reply = worker.request(
                {"op": "load"},
                json.dumps(request).encode("utf-8"),
                timeout_s=timeout_s,
                doing="starting",
                on_event=on_event,
            )
        except BaseException:
            worker.close()
            raise
        return worker, reply

    def interrupt(self) -> None:
        """Kill the worker that was started last; whoever waits for it ends as cancelled."""
        worker = self._running
        if worker is not None:
            worker.kill()

    def let_go(self) -> None:
        """The worker that was started last is somebody else's now."""
        self._running = None
