"""Which worker serves: kept in step with the slots, warmed before it takes over, replaced.

Applications' requests have the turn while they use `served`; so has whoever changes it. A
thread loads what is wanted beside the worker that answers, and looks once a second whether that
one lives.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

from edge_agent.refusals import Cancelled, Refused
from edge_agent.serving_worker import Served, start_served
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.loading import Starter
    from edge_agent.memory import Memory
    from edge_agent.serving_queue import Turns

__all__ = ["Keeper"]

#: How many failed starts one request waits for.
_MOST_STARTS = 3
#: Between failed starts of one release.
_PAUSES_S = (0.05, 0.2, 0.5, 2.0, 10.0, 60.0)
_LOOK_S = 1.0
#: A worker that no application has used for so long is freed, unless it is to be kept.
_IDLE_S = 600.0


class _Failure:
    """Starts of a release that failed in a row."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.count = 0
        self.last = None  # type: Optional[Refused]
        self.again_at = 0.0


class Keeper:
    """Has the worker that serves, and the one that is about to.

    Args:
        agent: Whose slots and releases they are.
        turns: Who may use the worker.
        memory: Says whether there is room for a second worker.
        starter: Starts workers.
    """

    def __init__(self, agent: Agent, turns: Turns, memory: Memory, starter: Starter) -> None:
        #: Load the current release at once, and hold it however long nobody asks.
        self.keep = False
        #: When an application was answered last, by `time.monotonic`.
        self.used = time.monotonic()
        self.served = None  # type: Optional[Served]
        self.closed = False
        self.restarts = 0
        self.switches = 0
        self._agent = agent
        self._turns = turns
        self._memory = memory
        self._starter = starter
        self._next = None  # type: Optional[Served]
        self._failure = _Failure("")
        self._loading = threading.Lock()
        self._swapping = threading.Lock()
        self._wake = threading.Event()
        self._thread = None  # type: Optional[threading.Thread]
        self._beginning = threading.Lock()

    @property
    def why_not(self) -> Optional[str]:
        """Why the last start failed, if none has succeeded since."""
        last = self._failure.last
        return None if last is None else str(last)

    # -- for who has the turn ----------------------------------------------------------------

    def at_hand(self, deadline: float) -> Served:
        """Give a worker that answers: the wanted one's, or the old one's until that is warm.

        Raises:
            Refused: There is no current release, or it cannot be started.
        """
        while True:
            if self.closed:
                raise Refused(codes.BUSY, "cannot infer: the agent ends")
            wanted = self._agent.slots.bundle("current")
            if wanted is None:
                raise Refused(
                    codes.NOT_FOUND,
                    "cannot infer: this device has no current release: deploy one",
                    slot="current",
                )
            self._adopt()
            served = self.served
            if served is not None and not served.is_alive():
                self.lost(served, served.how_it_ended())
                served = None
            if served is not None:
                if served.bundle != wanted or served.is_stale:
                    self.call()
                return served
            try:
                self.served = self._load(wanted)
                self.call()  # it looks after the worker from now on
            except Refused:
                if self._agent.slots.bundle("current") != wanted:
                    continue  # it was given up for another
                failure = self._failure
                if failure.count > _MOST_STARTS or failure.again_at > deadline or self.closed:
                    raise
                time.sleep(max(0.0, failure.again_at - time.monotonic()))

    def lost(self, served: Served, why: str) -> None:
        """A worker ended that nobody here wanted to end."""
        if self.drop(served) and not self.closed:
            self.restarts += 1
            self._agent.log.write("serving {}: {}".format(served.bundle[:12], why))
            self._agent.probation.note_failed(served.bundle, why)

    def drop(self, served: Served) -> bool:
        """End a worker; say whether it was the one that serves."""
        served.close_soon()
        if self.served is served:
            self.served = None
            return True
        return False

    def _adopt(self) -> None:
        """Let the warm worker that waits take over, if its release is wanted."""
        if self._next is None:
            return
        with self._swapping:
            ready, self._next = self._next, None
        if ready is None:
            return
        if ready.bundle != self._agent.slots.bundle("current") or not ready.is_alive():
            ready.close_soon()
            return
        old, self.served = self.served, ready
        self.switches += 1
        if old is not None:
            old.close_soon()
        self._agent.log.write("serving {} from now on".format(ready.bundle[:12]))

    # -- starting ----------------------------------------------------------------------------

    def _load(self, bundle: str, *, for_later: bool = False) -> Served:
        """Give a warm worker that holds ``bundle``; failures in a row are spaced.

        Raises:
            Refused: It cannot be started, or was tried just now.
        """
        with self._loading:
            with self._swapping:
                ready, self._next = self._next, None
            if ready is not None and not (ready.bundle == bundle and ready.is_alive()):
                ready.close_soon()
                ready = None
            if ready is None:
                ready = self._start(bundle)
            if for_later:
                with self._swapping:
                    self._next = ready
            return ready

    def _start(self, bundle: str) -> Served:
        failure = self._failure
        if failure.bundle != bundle:
            failure = self._failure = _Failure(bundle)
        last = failure.last
        if last is not None and time.monotonic() < failure.again_at:
            raise Refused(last.code, str(last), **last.facts)
        self._agent.probation.note_starting(bundle)
        try:
            served = start_served(self._agent, self._memory, self._starter, bundle)
        except Cancelled:
            self._agent.probation.note_stopped(bundle)
            raise Refused(codes.WORKER_DIED, "cannot serve: the worker was ended") from None
        except OSError as exc:  # the disk's fault, not the release's
            self._agent.probation.note_stopped(bundle)
            text = "cannot serve {}: {}".format(bundle[:12], exc.strerror or exc)
            raise self._failed(failure, Refused(codes.WORKER_FAILED, text)) from exc
        except Refused as exc:
            self._failed(failure, exc)
            why = "it cannot be started: {}".format(exc)
            self._agent.probation.note_failed(bundle, why)
            raise
        self._failure = _Failure("")
        if self.closed:
            served.worker.close()
        self._agent.probation.note_good(bundle)
        return served

    def _failed(self, failure: _Failure, exc: Refused) -> Refused:
        pause_s = _PAUSES_S[min(failure.count, len(_PAUSES_S) - 1)]
        failure.count += 1
        failure.last = exc
        failure.again_at = time.monotonic() + pause_s
        text = "serving {}: start {} failed: {}"
        self._agent.log.write(text.format(failure.bundle[:12], failure.count, exc))
        return exc

    # -- the thread --------------------------------------------------------------------------

    def call(self) -> None:
        """Have the thread look soon; it is started with the first call."""
        with self._beginning:
            if self._thread is None and not self.closed:
                thread = threading.Thread(target=self._keep_all, name="serving", daemon=True)
                thread.start()
                self._thread = thread
        self._wake.set()

    def call_if_begun(self) -> None:
        """Have the thread look soon, where anything has ever been served."""
        if self._thread is not None:
            self._wake.set()

    def _keep_all(self) -> None:
        while not self.closed:
            self._wake.wait(_LOOK_S)
            self._wake.clear()
            try:
                self._keep_once()
            except Refused:
                pass  # noted already; `_start` keeps the pause before the next try
            except Exception as exc:  # noqa: BLE001 - nothing may end this thread
                self._agent.log.write("serving: {}: {}".format(type(exc).__name__, exc))

    def _keep_once(self) -> None:
        served = self.served
        if served is not None and not served.is_alive():
            with self._turns.turn("a new worker", None, first=True):
                if self.served is served:
                    self.lost(served, served.how_it_ended())
                served = self.served
        wanted = self._agent.slots.bundle("current")
        if wanted is None or self.closed or (served is None and not self.keep):
            return
        if served is not None and served.bundle == wanted and not served.is_stale:
            if not self.keep and time.monotonic() - self.used > _IDLE_S:
                self.free("nobody asked for {:.0f} minutes".format(_IDLE_S / 60))
            return
        alone = not (
            self._agent.supervisor.would_find(wanted, None)  # that one will be taken over
            or self._memory.has_room(*self._agent.releases.need(wanted))
        )
        if served is not None and not alone:
            self._load(wanted, for_later=True)
            with self._turns.turn("the switch of releases", None, first=True):
                self._adopt()
            return
        with self._turns.turn("the release's worker", None, first=True):
            if served is not None and alone and self.served is served:
                self.drop(served)  # memory is short: one worker at a time
            if self.served is None:
                self.served = self._load(wanted)

    def free(self, why: str) -> None:
        """End the worker until it is asked for again."""
        with self._turns.turn("a pause", None, first=True):
            served = self.served
            if served is not None and self.drop(served):
                self._agent.log.write("serving: worker freed: {}".format(why))

    def refresh(self, bundle: str) -> None:
        """Load ``bundle`` again if it is served."""
        served = self.served
        if served is not None and served.bundle == bundle:
            served.loaded.stale = True
            self.call()

    def state(self) -> Dict[str, Any]:
        """The worker that serves, for ``status``."""
        served = self.served
        alive = served is not None and served.is_alive()
        return {
            "bundle": served.bundle if served is not None and alive else None,
            "pid": served.worker.pid if served is not None and alive else None,
            "rss_bytes": served.worker.rss_bytes() if served is not None and alive else None,
            "restarts": self.restarts,
            "switches": self.switches,
            "why_not": self.why_not,
        }

    def close(self) -> None:
        """End the workers and the thread."""
        self.closed = True
        self._wake.set()
        self._starter.interrupt()
        for served in (self.served, self._next):
            if served is not None:
                served.worker.close()
