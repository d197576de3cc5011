"""Probation: a release that has just become current must prove itself, or the device goes back.

A probation ends well when the release has served for long enough (counted by the monotonic
clock while a daemon watches, and kept across restarts), or when somebody confirms it. It ends
badly at its third failure: a worker that died, a start that failed, a start during which the
agent or the whole device went down. It ends badly at once when check vectors give other numbers
or an inference takes too long. Then the last confirmed release is current again, and the one
that failed is in no slot: nothing goes to it by itself.

Wall clocks take no part in this. Every change is one rename of ``slots.json``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from edge_agent.refusals import Refused
from edge_agent.slots import Slots
from edgesdk.wire import codes

__all__ = ["MAX_FAILURES", "PROBATION_S", "Probation"]

#: So many failures within a probation end it.
MAX_FAILURES = 3
#: How long a release must serve, in seconds, unless its deployment says otherwise.
PROBATION_S = 600.0
#: Time served is written down this often: a power cut takes no more of it.
_SAVE_S = 30.0
#: A return that something is in the way of is tried again after this long.
_RETRY_S = 5.0
#: A host that gives less time than this to an inference has not shown that the release hangs.
_FAIR_S = 30.0
_TELLING = (codes.WORKER_DIED, codes.NO_RUNTIME)


class Probation:
    """Counts for and against the current release, and switches back when it failed.

    `note_starting`, `note_good` and `note_failed` may be called from any thread for any bundle;
    one that is not on probation is passed over, at the price of a comparison.

    Args:
        slots: The state that is switched.
        log: Takes lines for the agent's log.
        why_not: Says why a release cannot be run (its files are damaged), or None.
        watched: Whether a daemon watches; without one no time is served.
        clock: Seconds that only rise; tests bring their own.
    """

    def __init__(
        self,
        slots: Slots,
        log: Callable[[str], None],
        *,
        why_not: Callable[[str], Optional[str]],
        watched: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watched = watched
        #: Called with the bundle that is current now, after every switch, whoever asked for it.
        #: In the thread that made the switch, with no lock held: be quick, wake somebody else.
        self.on_switch = []  # type: List[Callable[[str], None]]
        #: Called with the bundle whose probation ended well. A power cut may come in between:
        #: who keeps something of his own compares it with `confirmed` when he starts.
        self.on_confirmed = []  # type: List[Callable[[str], None]]
        #: Called with a bundle that the device itself took back: what was proven of it is void.
        self.on_returned = []  # type: List[Callable[[str], None]]
        self._slots = slots
        self._log = log
        self._why_not = why_not
        self._clock = clock
        self._lock = threading.RLock()
        self._last = clock()
        self._unsaved_s = 0.0
        self._due = ""  # why it must go back, where something did not let it
        self._obstacle = ""
        self._retry_at = 0.0

    def take_up(self) -> None:
        """Go on with what an earlier process left: a start that never ended is a failure.

        To be called once, when the hooks are there.
        """
        record = self._slots.probation()
        if record is not None and record["failures"] >= MAX_FAILURES:
            self._due = record["last_failure"]
        if record is not None and record["starting"]:
            self.note_failed(
                record["bundle"],
                "the agent or the device went down while the release was being started",
            )

    # -- what is known -----------------------------------------------------------------------

    def of(self, bundle: Optional[str]) -> Optional[Dict[str, Any]]:
        """The record of the probation, if it is that bundle's."""
        record = self._slots.probation()
        return record if record is not None and record["bundle"] == bundle else None

    def state(self) -> Optional[Dict[str, Any]]:
        """What to tell of the probation that is under way, or None."""
        record = self._slots.probation()
        if record is None:
            return None
        kept = ("bundle", "return_to", "wanted_s", "failures", "last_failure")
        state = {key: record[key] for key in kept}
        state["served_s"] = round(record["served_s"] + self._unsaved_s, 1)
        return dict(state, watched=self.watched, max_failures=MAX_FAILURES)

    def confirmed(self) -> Optional[str]:
        """The current release, if it is not on probation."""
        return self._slots.bundle("current") if self._slots.is_confirmed("current") else None

    def is_served(self) -> bool:
        """Say whether the release has served its time; what remains is a last look at it."""
        state = self.state()
        return state is not None and state["served_s"] >= state["wanted_s"]

    # -- what happens to it ------------------------------------------------------------------

    def activate(
        self, bundle: str, *, wanted_s: float, max_latency_us: Optional[float]
    ) -> bool:
        """Make a bundle current, on probation; say whether that changed anything."""
        with self._lock:
            changed = self._slots.activate(
                bundle, wanted_s=wanted_s, max_latency_us=max_latency_us, watched=self.watched
            )
            if changed:
                self._begin_anew()
            stays = self.of(bundle) is None  # now: once the lock is free it may fail
        if changed:
            self._tell(self.on_switch, bundle)
            if stays:
                self._tell(self.on_confirmed, bundle)
        return changed

    def rollback(self, why: str) -> None:
        """Exchange current and previous, as a person asked.

        Raises:
            Refused: There is no previous release.
        """
        with self._lock:
            left = self._slots.bundle("current")
            self._slots.rollback(why, wanted_s=PROBATION_S, watched=self.watched)
            self._begin_anew()
        bundle = self._slots.bundle("current")
        self._log("rolled back from {} to {}: {}".format(_short(left), _short(bundle), why))
        self._tell(self.on_switch, bundle)

    def _begin_anew(self) -> None:
        self._unsaved_s, self._last, self._due = 0.0, self._clock(), ""

    def confirm(self, bundle: str) -> bool:
        """End the probation of ``bundle`` well; say whether it is the one that has any."""
        with self._lock:
            record = self.of(bundle)
            if record is None:
                return False
            self._slots.confirm()
            self._unsaved_s, self._due = 0.0, ""
        self._log("release {} is confirmed".format(_short(record["bundle"])))
        self._tell(self.on_confirmed, record["bundle"])
        return True

    def note_starting(self, bundle: str) -> None:
        """Write down that a start begins: should nothing come after it, it failed."""
        if self.of(bundle) is None:
            return
        with self._lock:
            record = self.of(bundle)
            if record is not None and not record["starting"]:
                self._slots.note(starting=True)

    def note_stopped(self, bundle: str) -> None:
        """A start was given up for another reason than the release: it counts for nothing."""
        if self.of(bundle) is None:
            return
        with self._lock:
            record = self.of(bundle)
            if record is not None and record["starting"]:
                self._slots.note(starting=False)

    def note_good(self, bundle: str) -> None:
        """The release has given an answer; but for the first one this costs a look."""
        record = self.of(bundle)
        if record is None or (record["answered"] and not record["starting"]):
            return
        with self._lock:
            if self.of(bundle) is not None:
                self._slots.note(starting=False, answered=True)

    def note_failed(self, bundle: str, why: str, *, at_once: bool = False) -> Optional[str]:
        """Count a failure; give the bundle that is current instead, if this was the last one.

        Args:
            bundle: The release that failed; one that is not on probation is passed over.
            why: A sentence for people.
            at_once: It is no accident that may pass, such as wrong numbers.
        """
        if self.of(bundle) is None:
            return None
        with self._lock:
            record = self.of(bundle)
            if record is None:
                return None
            failures = record["failures"] + 1
            self._log(
                "release {} failed {} of {} times on probation: {}".format(
                    _short(bundle), failures, MAX_FAILURES, why
                )[:480]
            )
            if failures < MAX_FAILURES and not at_once:
                self._slots.note(failures=failures, last_failure=why[:400], starting=False)
                return None
            if not at_once:
                why = "it failed {} times on probation, at last: {}".format(failures, why)
            back = self._go_back(record, why)
            if back is None:  # one failure more shall try it again, whatever this one was
                self._slots.note(
                    failures=max(failures, MAX_FAILURES), last_failure=why[:400], starting=False
                )
                return None
        self._tell_returned(bundle, back)
        return back

    def _tell_returned(self, bundle: str, back: str) -> None:
        self._tell(self.on_returned, bundle)
        self._tell(self.on_switch, back)

    def _go_back(self, record: Dict[str, Any], why: str) -> Optional[str]:
        bundle, back = record["bundle"], record["return_to"]
        obstacle = self._why_not(back)
        if obstacle is None:
            try:
                self._slots.go_back(why)
            except OSError as exc:
                obstacle = exc.strerror or str(exc)
        if obstacle is not None:
            self._due, self._retry_at = why, self._clock() + _RETRY_S
            if obstacle != self._obstacle:  # once, not every time
                text = "release {} failed, and the device cannot return to {}: {}"
                self._log(text.format(_short(bundle), _short(back), obstacle)[:480])
            self._obstacle = obstacle
            return None
        self._due, self._obstacle, self._unsaved_s = "", "", 0.0
        text = "returned from {} to {}: {}"
        self._log(text.format(_short(bundle), _short(back), why)[:480])
        return str(back)

    # -- time --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Count the time since the last tick as served, and retry a return that was refused.

        Only time that follows an answer counts.
        """
        back = None
        with self._lock:
            now = self._clock()
            passed_s, self._last = max(0.0, now - self._last), now
            record = self._slots.probation()
            if record is None:
                return
            if self._due:
                if now >= self._retry_at:
                    back = self._go_back(record, self._due)
            elif self.watched and record["answered"]:
                self._unsaved_s += passed_s
                if self._unsaved_s >= _SAVE_S or self.is_served():
                    self._save(record)
        if back is not None:
            self._tell_returned(record["bundle"], back)

    def _save(self, record: Dict[str, Any]) -> None:
        if not self._unsaved_s:
            return
        served_s, self._unsaved_s = record["served_s"] + self._unsaved_s, 0.0
        self._slots.note(served_s=served_s)

    def close(self) -> None:
        """Write down the time served; a start that is under way ends with us, unblamed."""
        with self._lock:
            record = self._slots.probation()
            if record is not None and (self._unsaved_s or record["starting"]):
                self._slots.note(starting=False, served_s=record["served_s"] + self._unsaved_s)
                self._unsaved_s = 0.0

    # -- around a use of the release ---------------------------------------------------------

    @contextlib.contextmanager
    def around(self, bundle: str, *, loads: bool) -> Iterator[None]:
        """Note what becomes of a use of a release.

        The refusal that ends a probation says so, in its text and its facts.

        Args:
            bundle: The release.
            loads: It is being loaded, which begins a start; else it runs, which ends one well.
        """
        if self.of(bundle) is None:
            yield
            return
        if loads:
            self.note_starting(bundle)
        try:
            yield
        except Refused as exc:
            if not _tells_of_release(exc, loads=loads):
                self.note_stopped(bundle)
                raise
            back = self.note_failed(bundle, str(exc))
            if back is None:
                raise
            text = "{}; it was on probation, and the device returned to {}"
            facts = dict(exc.facts, returned_to=back)
            raise Refused(exc.code, text.format(exc, _short(back)), **facts) from exc
        except BaseException:
            self.note_stopped(bundle)
            raise
        if not loads:
            self.note_good(bundle)

    def _tell(self, hooks: List[Callable[[str], None]], bundle: Any) -> None:
        for hook in list(hooks):
            try:
                hook(bundle)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the switch is made
                text = "after a switch to {}: {}: {}"
                self._log(text.format(_short(bundle), type(exc).__name__, exc)[:480])


def _tells_of_release(exc: Refused, *, loads: bool) -> bool:
    """Say whether a refusal is the release's fault, and not that of what was asked of it."""
    if exc.code == codes.WORKER_TIMEOUT:
        limit_s = exc.facts.get("timeout_s")
        return isinstance(limit_s, (int, float)) and limit_s >= _FAIR_S
    return exc.code in _TELLING or (loads and exc.code == codes.WORKER_FAILED)


def _short(bundle: Any) -> str:
    return str(bundle)[:12]
