"""Which release is current, previous and candidate: one small file, switched by one rename.

The same file has what is known of the current release's probation and of releases that were
taken back, so that one rename changes all of it and no crash leaves half a decision. Here are
the state and its moves; when to make them is for `edge_agent.probation`.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from edge_agent.fs import Folder, NotOurs
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.ops import SLOTS

__all__ = ["Slots", "utc_now"]

_FILE = "slots.json"
_MAX_BYTES = 1 << 16
_KEPT_RETURNS = 8
_MAX_WHY = 400
#: The fields of a probation beside its bundles, with what a new one begins with.
_NEW_PROBATION = {
    "served_s": 0.0,
    "wanted_s": 0.0,
    "failures": 0,
    "last_failure": "",
    "starting": False,
    "answered": False,
    "max_latency_us": None,
}  # type: Dict[str, Any]


def utc_now() -> str:
    """The wall clock as ISO 8601 in UTC; shown to people, never used to order anything."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _read_entry(slot: str, entry: Any) -> Optional[Dict[str, Any]]:
    if entry is None:
        return None
    if not isinstance(entry, dict) or not is_sha256(entry.get("bundle")):
        raise ValueError("{} names no bundle".format(slot))
    return {
        "bundle": entry["bundle"],
        "since": str(entry.get("since")),
        "confirmed": entry.get("confirmed") is not False,
    }


def _is_of_kind(value: Any, like: Any) -> bool:
    if like is None:  # a number, or none
        return value is None or (type(value) in (int, float) and math.isfinite(value))
    if type(like) is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(like)


def _read_probation(record: Any) -> Optional[Dict[str, Any]]:
    if record is None:
        return None
    if not isinstance(record, dict):
        raise ValueError("probation is no record")
    bundles = {key: record.get(key) for key in ("bundle", "return_to")}
    if not all(is_sha256(bundle) for bundle in bundles.values()):
        raise ValueError("probation names no bundle")
    kept = {key: record.get(key, new) for key, new in _NEW_PROBATION.items()}
    for key, new in _NEW_PROBATION.items():
        if not _is_of_kind(kept[key], new):
            raise ValueError("probation has no proper {}".format(key))
    return dict(kept, **bundles)


def _read_returns(records: Any) -> List[Dict[str, Any]]:
    if not isinstance(records, list):
        raise ValueError("returned is no list")
    found = []
    for record in records[-_KEPT_RETURNS:]:
        if not isinstance(record, dict) or not is_sha256(record.get("bundle")):
            raise ValueError("returned names no bundle")
        kept = {key: str(record.get(key)) for key in ("bundle", "to", "why", "by", "since")}
        found.append(kept)
    return found


class Slots:
    """The three slots. ``counter`` rises with every change: it orders events, clocks do not.

    A slot's entry is ``confirmed`` once its probation ended well, or where there was nothing to
    return to when it began. Reading takes no lock: a disk that hangs delays moves alone.
    """

    def __init__(self, root: Folder, log: Callable[[str], None]) -> None:
        self._root = root
        self._log = log
        self.lock = threading.RLock()
        self.counter = 0
        self._slots = dict.fromkeys(SLOTS)  # type: Dict[str, Optional[Dict[str, Any]]]
        self._probation = None  # type: Optional[Dict[str, Any]]
        self._returned = []  # type: List[Dict[str, Any]]
        root.drop_landing(_FILE)
        try:
            self._read(root.read(_FILE, limit=_MAX_BYTES))
        except FileNotFoundError:
            pass
        except (ValueError, NotOurs) as exc:
            # only a damaged disk does this; keep the file for people and go on
            log("slots.json is damaged and was put aside: {}".format(exc))
            root.move(_FILE, root, _FILE + ".damaged")

    def _read(self, data: bytes) -> None:
        record = json.loads(data.decode("utf-8"))
        if not isinstance(record, dict) or type(record.get("counter")) is not int:
            raise ValueError("it has no counter")
        slots = {slot: _read_entry(slot, record.get(slot)) for slot in SLOTS}
        probation = _read_probation(record.get("probation"))
        current = slots["current"]
        if probation is not None and (
            current is None or current["bundle"] != probation["bundle"]
        ):
            raise ValueError("probation is for another release than the current one")
        self._returned = _read_returns(record.get("returned", []))
        self._slots, self._probation = slots, probation
        self.counter = record["counter"]

    # -- what is where -----------------------------------------------------------------------

    def bundle(self, slot: str) -> Optional[str]:
        """The id of the bundle in ``slot``, or None."""
        entry = self._slots[slot]
        return None if entry is None else str(entry["bundle"])

    def since(self, slot: str) -> Optional[str]:
        """When the bundle in ``slot`` came there (ISO, UTC), or None."""
        entry = self._slots[slot]
        return None if entry is None else str(entry["since"])

    def is_confirmed(self, slot: str) -> bool:
        """Say whether what is in ``slot`` has been through its probation."""
        entry = self._slots[slot]
        return entry is not None and bool(entry["confirmed"])

    def slot_of(self, bundle: str) -> Optional[str]:
        """The slot that holds ``bundle``, or None."""
        for slot in SLOTS:
            if self.bundle(slot) == bundle:
                return slot
        return None

    def is_needed(self, bundle: str) -> bool:
        """Say whether a slot holds it, or the device would return to it."""
        probation = self._probation
        back = None if probation is None else probation["return_to"]
        return bundle == back or self.slot_of(bundle) is not None

    def state_of(self, bundle: str) -> str:
        """What there is to say of a release beside its slot, in a word or two."""
        probation = self._probation or {}
        if bundle == probation.get("bundle"):
            return "on probation"
        if bundle == probation.get("return_to"):
            return "returned to on failure"
        gone = [record for record in self._returned if record["bundle"] == bundle]
        if gone and gone[-1]["by"] == "device" and self.bundle("current") != bundle:
            return "taken back by the device"
        return ""

    def probation(self) -> Optional[Dict[str, Any]]:
        """What is known of the current release's probation: a copy; None where it has none."""
        record = self._probation  # replaced, never changed: no lock, whatever the disk does
        return None if record is None else dict(record)

    def returned(self) -> List[Dict[str, Any]]:
        """Releases that were taken back, the last one last: bundle, to, why, by, since."""
        return [dict(record) for record in self._returned]

    def notice(self) -> str:
        """What a host should hear first: the device went back by itself, and is there still."""
        last = self.returned()[-1:]
        if not last or last[0]["by"] != "device" or last[0]["to"] != self.bundle("current"):
            return ""
        return "release {} was taken back by the device itself ({}); {} is current".format(
            last[0]["bundle"][:12], last[0]["why"], last[0]["to"][:12]
        )

    # -- moves -------------------------------------------------------------------------------

    def tick(self) -> int:
        """Take the next number of the counter; saved with the next switch."""
        with self.lock:
            self.counter += 1
            return self.counter

    def _switch(self, **changes: Any) -> None:
        """Write the state with ``changes`` (of slots, probation, returned), and have it."""
        state = dict(self._slots, probation=self._probation, returned=self._returned)
        state.update(changes)
        record = dict(state, schema=1, counter=self.counter + 1)  # type: Dict[str, Any]
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode("utf-8")
        try:
            self._root.write_whole(_FILE, data)
        except OSError:
            # the rename may or may not have happened: memory follows the disk
            with contextlib.suppress(OSError, ValueError, NotOurs):
                self._read(self._root.read(_FILE, limit=_MAX_BYTES))
            raise
        self._slots = {slot: state[slot] for slot in SLOTS}
        self._probation, self._returned = state["probation"], state["returned"]
        self.counter += 1

    def make_candidate(self, bundle: str) -> None:
        """Put ``bundle`` forward; nothing runs it but its check."""
        with self.lock:
            if bundle not in (self.bundle("candidate"), self.bundle("current")):
                entry = {"bundle": bundle, "since": utc_now(), "confirmed": False}
                self._switch(candidate=entry)

    def withdraw(self, bundle: str) -> None:
        """Leave no candidate where it is ``bundle``; other slots keep what they hold."""
        with self.lock:
            if self.bundle("candidate") == bundle:
                self._switch(candidate=None)

    def _last_good(self, *, watched: bool) -> Optional[str]:
        """Where a device returns to from what becomes current next.

        That is the current release, unless it is on probation itself: then it is what that one
        would have returned to. Where nobody watches, every release would stay on probation, so
        there the current one counts.
        """
        if self._probation is None or not watched:
            return self.bundle("current")
        return str(self._probation["return_to"])

    def activate(
        self,
        bundle: str,
        *,
        wanted_s: float = 0.0,
        max_latency_us: Optional[float] = None,
        watched: bool = True,
    ) -> bool:
        """Make ``bundle`` current and what was current previous; say whether that changed.

        Whatever was put forward last, the choice is made: no candidate is left. Where there is
        a release to return to, and ``wanted_s`` is not 0, its probation begins.
        """
        with self.lock:
            if self.bundle("current") == bundle:
                if self.bundle("candidate") is not None:
                    self._switch(candidate=None)
                return False
            back = self._last_good(watched=watched)
            probation = None
            if wanted_s > 0 and back not in (None, bundle):
                probation = dict(
                    _NEW_PROBATION,
                    bundle=bundle,
                    return_to=back,
                    wanted_s=wanted_s,
                    max_latency_us=max_latency_us,
                )
            entry = {"bundle": bundle, "since": utc_now(), "confirmed": probation is None}
            self._switch(
                current=entry,
                previous=self._slots["current"],
                candidate=None,
                probation=probation,
            )
            return True

    def rollback(self, why: str = "", *, wanted_s: float = 0.0, watched: bool = True) -> None:
        """Exchange current and previous, because somebody asked for it.

        Raises:
            Refused: There is no previous release.
        """
        with self.lock:
            previous, current = self._slots["previous"], self._slots["current"]
            if previous is None or current is None:
                raise Refused(codes.NOT_FOUND, "there is no previous release")
            probation = None
            back = self._last_good(watched=watched)
            if not previous["confirmed"] and wanted_s > 0 and back != previous["bundle"]:
                probation = dict(
                    _NEW_PROBATION,
                    bundle=previous["bundle"],
                    return_to=back,
                    wanted_s=wanted_s,
                )
            entry = dict(previous, since=utc_now(), confirmed=probation is None)
            self._switch(
                current=entry,
                previous=current,
                probation=probation,
                returned=self._with_return(current["bundle"], previous["bundle"], why, "host"),
            )

    def _with_return(self, bundle: str, to: str, why: str, by: str) -> List[Dict[str, Any]]:
        record = {"bundle": bundle, "to": to, "why": why[:_MAX_WHY], "by": by}
        return [*self._returned, dict(record, since=utc_now())][-_KEPT_RETURNS:]

    def go_back(self, why: str) -> str:
        """End a probation that failed: the release to return to is current. Give its id.

        The one that failed is in no slot any more, so that nothing goes to it by itself.
        """
        with self.lock:
            probation, current = self._probation, self._slots["current"]
            assert probation is not None
            assert current is not None
            back = str(probation["return_to"])
            previous = self._slots["previous"]
            if previous is not None and previous["bundle"] == back:
                previous = None
            self._switch(
                current={"bundle": back, "since": utc_now(), "confirmed": True},
                previous=previous,
                probation=None,
                returned=self._with_return(current["bundle"], back, why, "device"),
            )
            return back

    def confirm(self) -> None:
        """End the probation: the current release stays."""
        with self.lock:
            current = self._slots["current"]
            if self._probation is not None and current is not None:
                self._switch(current=dict(current, confirmed=True), probation=None)

    def note(self, **changes: Any) -> None:
        """Change fields of the probation, durably.

        Where the disk refuses, memory has the change all the same: what failed is counted.
        """
        with self.lock:
            if self._probation is None:
                return
            self._probation = dict(self._probation, **changes)
            kept = self._probation
            try:
                self._switch()
            except OSError as exc:
                self._probation = kept
                self._log("the probation cannot be written down: {}".format(exc.strerror))
