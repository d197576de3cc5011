"""Keeping the worker: one at most, for one request at a time, freed when it is idle.

A worker that dies is an answer, not an accident: the reply names the signal and what the worker
was doing, and carries the end of its stderr. Whoever waits for it is told who has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from edge_agent.child import OnEvent, Worker
from edge_agent.refusals import Cancelled, Refused
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

__all__ = ["Loaded", "Supervisor"]

_BUSY_WAIT_S = 2.0
_IDLE_S = 60.0


class Loaded:
    """What a worker holds: the bundle, with which thread count, and what loading said."""

    def __init__(
        self, bundle: str, threads: Optional[int], worker: Worker, reply: Frame
    ) -> None:
        self.bundle = bundle
        self.threads = threads
        self.worker = worker
        self.load_ms = float(reply.meta["load_ms"])
        self.runtimes = list(reply.meta["runtimes"])
        self.module_files = [str(path) for path in reply.meta["module_files"]]
        self.fresh = True  # nothing has run in it yet


class Supervisor:
    """Holds at most one worker, for one request at a time, and frees it when it is idle."""

    def __init__(self, python: str, scratch: str, log: Callable[[str], None]) -> None:
        self.python = python or sys.executable
        self._scratch = scratch
        self._log = log
        self._turn = threading.Lock()
        self._holder = ""
        self._loaded = None  # type: Optional[Loaded]
        self._running = None  # type: Optional[Worker]
        self._idle_since = time.monotonic()

    @contextlib.contextmanager
    def turn(self, who: str) -> Iterator[None]:
        """Have the worker for oneself.

        Raises:
            Refused: Another request has it and did not end soon.
        """
        if not self._turn.acquire(timeout=_BUSY_WAIT_S):
            raise Refused(
                codes.BUSY,
                "the worker is busy with {} for another connection".format(self._holder),
                op=self._holder,
                pid=os.getpid(),
            )
        self._holder = who
        try:
            yield
        finally:
            if self._loaded is not None and not self._loaded.worker.is_alive():
                self.drop()
            self._idle_since = time.monotonic()
            self._turn.release()

    def load(
        self,
        bundle: str,
        manifest: Dict[str, Any],
        files: List[List[str]],
        *,
        threads: Optional[int],
        fresh: bool,
        timeout_s: float,
        on_event: OnEvent,
        cancelled: Callable[[], bool],
    ) -> Loaded:
        """Give a worker that holds ``bundle``: the one that is there, or a new one."""
        held = self._loaded
        if (
            not fresh
            and held is not None
            and held.bundle == bundle
            and held.threads == threads
            and held.worker.answers()
        ):
            return held
        self.drop()
        worker = self._running = Worker(self.python, self._scratch)
        request = {
            "parts": [
                {key: part[key] for key in ("runtime", "options", "inputs", "outputs")}
                for part in manifest["parts"]
            ],
            "files": files,
            "inputs": [value["name"] for value in manifest["inputs"]],
            "outputs": [value["name"] for value in manifest["outputs"]],
            "threads": threads,
        }
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
            self._loaded = Loaded(bundle, threads, worker, reply)
        except BaseException:
            worker.close()
            self._running = None
            raise
        self._log("worker {} holds {}".format(worker.pid, bundle[:12]))
        return self._loaded

    def probe(self, runtime: str, timeout_s: float) -> Dict[str, Any]:
        """Ask, in a process of its own, whether a runtime can be imported.

        Raises:
            Cancelled: Nobody waits for the answer any more.
        """
        before = self._running
        try:
            worker = self._running = Worker(self.python, self._scratch)
        except Refused as exc:
            return {"version": None, "why": str(exc), "detail": exc.facts}
        try:
            reply = worker.request(
                {"op": "probe", "runtime": runtime},
                timeout_s=timeout_s,
                doing="importing " + runtime,
            )
            return {key: reply.meta.get(key) for key in ("version", "why", "detail")}
        except Refused as exc:
            return {"version": None, "why": str(exc), "detail": exc.facts}
        finally:
            worker.close()
            self._running = before

    def drop(self) -> None:
        """End the worker, if there is one."""
        held, self._loaded = self._loaded, None
        running, self._running = self._running, None
        for worker in {held.worker if held else None, running} - {None}:
            assert worker is not None
            worker.close()

    def interrupt(self) -> None:
        """Kill the worker under whoever waits for it; its request then ends as cancelled."""
        worker = self._running
        if worker is not None:
            worker.kill()

    def unload(self) -> None:
        """Free the worker, if no request has it."""
        with self.turn("unload"):
            self.drop()

    def drop_if_idle(self) -> None:
        """Free a worker that nobody has used for a minute."""
        if self._loaded is None or time.monotonic() - self._idle_since < _IDLE_S:
            return
        if self._turn.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self._turn.release()

    def state(self) -> Optional[Dict[str, Any]]:
        """What the worker holds, or None."""
        held = self._loaded
        if held is None or not held.worker.is_alive():
            return None
        return {
            "bundle": held.bundle,
            "pid": held.worker.pid,
            "rss_bytes": held.worker.rss_bytes(),
        }
