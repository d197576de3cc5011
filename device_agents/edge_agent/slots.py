"""Which release is current, previous and candidate: one small file, switched by one rename."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any, Callable, Dict, Optional

from edge_agent.fs import Folder, NotOurs
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.manifest import is_sha256
from edgesdk.wire.ops import SLOTS

__all__ = ["Slots", "utc_now"]

_FILE = "slots.json"
_MAX_BYTES = 1 << 16


def utc_now() -> str:
    """The wall clock as ISO 8601 in UTC; shown to people, never used to order anything."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Slots:
    """The three slots. ``counter`` rises with every change: it orders events, clocks do not."""

    def __init__(self, root: Folder, log: Callable[[str], None]) -> None:
        self._root = root
        self._lock = threading.RLock()
        self.counter = 0
        self._slots = dict.fromkeys(SLOTS)  # type: Dict[str, Optional[Dict[str, Any]]]
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
        slots = dict.fromkeys(SLOTS)  # type: Dict[str, Optional[Dict[str, Any]]]
        for slot in SLOTS:
            entry = record.get(slot)
            if entry is None:
                continue
            if not isinstance(entry, dict) or not is_sha256(entry.get("bundle")):
                raise ValueError("{} names no bundle".format(slot))
            slots[slot] = {"bundle": entry["bundle"], "since": str(entry.get("since"))}
        self._slots = slots
        self.counter = record["counter"]

    def bundle(self, slot: str) -> Optional[str]:
        """The id of the bundle in ``slot``, or None."""
        entry = self._slots[slot]
        return None if entry is None else str(entry["bundle"])

    def since(self, slot: str) -> Optional[str]:
        """When the bundle in ``slot`` came there (ISO, UTC), or None."""
        entry = self._slots[slot]
        return None if entry is None else str(entry["since"])

    def slot_of(self, bundle: str) -> Optional[str]:
        """The slot that holds ``bundle``, or None."""
        for slot in SLOTS:
            if self.bundle(slot) == bundle:
                return slot
        return None

    def tick(self) -> int:
        """Take the next number of the counter; saved with the next switch."""
        with self._lock:
            self.counter += 1
            return self.counter

    def _switch(self, **changes: Optional[Dict[str, Any]]) -> None:
        slots = dict(self._slots)
        slots.update(changes)
        record = dict(slots, schema=1, counter=self.counter + 1)  # type: Dict[str, Any]
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode("utf-8")
        try:
            self._root.write_whole(_FILE, data)
        except OSError:
            # the rename may or may not have happened: memory follows the disk
            with contextlib.suppress(OSError, ValueError, NotOurs):
                self._read(self._root.read(_FILE, limit=_MAX_BYTES))
            raise
        self._slots = slots
        self.counter += 1

    def make_candidate(self, bundle: str) -> None:
        """Put ``bundle`` forward; nothing runs it but its check."""
        with self._lock:
            if bundle not in (self.bundle("candidate"), self.bundle("current")):
                self._switch(candidate={"bundle": bundle, "since": utc_now()})

    def activate(self, bundle: str) -> bool:
        """Make ``bundle`` current and what was current previous; say whether that changed."""
        with self._lock:
            if self.bundle("current") == bundle:
                return False
            changes = {
                "current": {"bundle": bundle, "since": utc_now()},
                "previous": self._slots["current"],
            }  # type: Dict[str, Optional[Dict[str, Any]]]
            if self.bundle("candidate") == bundle:
                changes["candidate"] = None
            self._switch(**changes)
            return True

    def rollback(self) -> None:
        """Exchange current and previous.

        Raises:
            Refused: There is no previous release.
        """
        with self._lock:
            previous = self._slots["previous"]
            if previous is None:
                raise Refused(codes.NOT_FOUND, "there is no previous release")
            self._switch(
                current={"bundle": previous["bundle"], "since": utc_now()},
                previous=self._slots["current"],
            )
