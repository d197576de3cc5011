"""Keeping the worker: one at most, for one request at a time, freed when it is idle.

A worker that dies is an answer, not an accident: the reply names the signal and what the worker
was doing, and carries the end of its stderr. Whoever waits for it is told who has it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

from edge_agent import later
from edge_agent.refusals import Refused
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edge_agent.child import OnEvent
    from edge_agent.loading import Loaded

__all__ = ["Supervisor"]

_BUSY_WAIT_S = 2.0
_IDLE_S = 60.0


class Supervisor:
    """Holds at most one worker, for one request at a time, and frees it when it is idle."""

    def __init__(
        self, python: str, scratch: str, log: Callable[[str], None], *, cache: str = ""
    ) -> None:
        self.python = python or sys.executable
        if os.path.basename(self.python) != self.python:
            self.python = os.path.abspath(self.python)  # workers start in another folder
        self.scratch = scratch
        self.cache = cache or None
        self._log = log
        self._turn = threading.Lock()
        self._holder = ""
        self._loaded = None  # type: Optional[Loaded]
        self._starter = None  # type: Optional[Starter]
        self._probing = None  # type: Optional[Worker]
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
            and not held.stale
            and held.worker.answers()
        ):
            return held
        self.drop()
        if self._starter is None:
            self._starter = later.loading.Starter(
                self.python, self.scratch, self.cache, self._log
            )
        self._loaded = self._starter.start(
            bundle,
            manifest,
            files,
            threads=threads,
            timeout_s=timeout_s,
            on_event=on_event,
            cancelled=cancelled,
        )
        return self._loaded

    def would_find(self, bundle: str, threads: Optional[int]) -> bool:
        """Say whether `load` would find a living worker that holds just this."""
        held = self._loaded
        return (
            held is not None
            and held.bundle == bundle
            and held.threads == threads
            and not held.stale
            and held.worker.is_alive()
        )

    def idle_s(self) -> float:
        """For how long nobody has had the worker, in seconds; 0 while somebody has it."""
        return 0.0 if self._turn.locked() else time.monotonic() - self._idle_since

    def forget(self, bundle: str) -> None:
        """Have a bundle loaded again the next time it is wanted: its parts were finished."""
        held = self._loaded
        if held is not None and held.bundle == bundle:
            held.stale = True

    def probe(self, runtime: str, timeout_s: float) -> Dict[str, Any]:
        """Ask, in a process of its own, whether a runtime can be imported.

        Raises:
            Cancelled: Nobody waits for the answer any more.
        """
        try:
            worker = self._probing = later.child.Worker(self.python, self.scratch)
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
            self._probing = None

    def drop(self) -> None:
        """End the worker, if there is one."""
        held, self._loaded = self._loaded, None
        if self._starter is not None:
            self._starter.interrupt()
        if held is not None:
            held.worker.close()
            if later.has("memory"):  # a daemon, which stays
                later.memory.give_back()

    def interrupt(self) -> None:
        """Kill the worker under whoever waits for it; its request then ends as cancelled."""
        probing = self._probing
        if probing is not None:
            probing.kill()
        elif self._starter is not None:
            self._starter.interrupt()

    def hand_over(self, bundle: str) -> Optional[Loaded]:
        """Give the worker away if it is free and holds ``bundle`` as applications want it."""
        if not self._turn.acquire(blocking=False):
            return None
        try:
            held = self._loaded
            if (
                held is None
                or held.bundle != bundle
                or held.threads is not None
                or held.stale
                or not held.worker.answers()
            ):
                return None
            self._loaded = None
            if self._starter is not None:
                self._starter.let_go()
            return held
        finally:
            self._turn.release()

    def drop_if_free(self) -> None:
        """End the worker if no request has it."""
        if self._turn.acquire(blocking=False):
            try:
                self.drop()
            finally:
                self._turn.release()

    def unload(self) -> None:
        """Free the worker, if no request has it."""
        with self.turn("unload"):
            self.drop()

    def drop_if_idle(self) -> None:
        """Free a worker that nobody has used for a minute, and collect one that died."""
        if later.has("child"):
            later.child.bury()
        held = self._loaded
        if held is None or (
            held.worker.is_alive() and time.monotonic() - self._idle_since < _IDLE_S
        ):
            return
        self.drop_if_free()

    def state(self) -> Optional[Dict[str, Any]]:
        """What the worker holds, or None."""
        held = self._loaded
        if held is None or not held.worker.is_alive():
            return None
        return {
            "bundle": held.bundle,
            "pid": held.worker.pid,
            "rss_bytes": held.worker.rss_bytes(),
            "limits": held.limits,
        }
