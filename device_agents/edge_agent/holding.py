"""Who has the device to himself: one host at a time may change what is deployed.

Each operation is whole by itself; a deployment is many of them, and two that mix would each
undo what the other has just proven. So a host takes hold of the device first. The hold ends
with its conversation, however that ends; a holder that has been silent for long, with nothing
under way, loses it to the next one who asks. Everybody else is told who has it, for how long
and for what.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from typing import Any, Callable, Dict, Optional

from edge_agent.fs import Folder, NotOurs, calls
from edge_agent.refusals import Cancelled, Refused
from edge_agent.vitals import vitals
from edgesdk.wire import codes

__all__ = ["HELD_OPS", "Hold", "Peer", "holder_text", "read_holder"]

#: What a host may do only while nobody else holds the device.
HELD_OPS = frozenset(("stage", "commit", "finish", "activate", "rollback", "confirm", "gc"))
#: A link that was cut without a word looks like a host that thinks: for so long it may.
_SILENT_S = 20.0
_LOOK_S = 0.2
_FILE = "holder.json"
_MAX_BYTES = 4096


class Peer:
    """One host in one session. ``idle_s`` says for how long it has asked for nothing."""

    def __init__(self, idle_s: Callable[[], float] = lambda: 0.0) -> None:
        self.who = ""
        self.gone = False
        self.idle_s = idle_s


class Hold:
    """The hold on one device, whose state folder is ``root``."""

    def __init__(
        self, root: Optional[Folder] = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.Lock()
        self._peer = None  # type: Optional[Peer]
        self._doing = ""
        self._since = 0.0

    def _holder(self) -> Optional[Peer]:
        peer = self._peer
        if peer is None or peer.gone:
            return None
        return peer

    def _is_free_for(self, peer: Optional[Peer]) -> bool:
        held = self._holder()
        return held is None or held is peer or held.idle_s() > _SILENT_S

    def state(self) -> Optional[Dict[str, Any]]:
        """Who holds the device: who, doing, for_s; None where nobody does."""
        with self._lock:
            peer = self._holder()
            if peer is None:
                return None
            held_s = self._clock() - self._since
            return {"who": peer.who, "doing": self._doing, "for_s": round(held_s, 1)}

    def take(
        self, peer: Peer, doing: str, *, wait_s: float, cancelled: Callable[[], bool]
    ) -> None:
        """Take the hold, or wait for it.

        Raises:
            Refused: Somebody else has it still.
            Cancelled: Who asked is gone.
        """
        deadline = self._clock() + wait_s
        while True:
            with self._lock:
                if self._is_free_for(peer):
                    if self._holder() is not peer:
                        self._since = self._clock()
                    self._peer, self._doing = peer, doing
                    break
            if cancelled():
                raise Cancelled
            if self._clock() >= deadline:
                raise self._refusal()
            with vitals.waiting("waiting for who holds the device"):
                time.sleep(_LOOK_S)
        self._note({"who": peer.who, "doing": doing, "since": self._since})

    def release(self, peer: Optional[Peer]) -> None:
        """Let go of it, if it is that peer's."""
        with self._lock:
            if peer is None or self._peer is not peer:
                return
            self._peer = None
        self._note({})

    def _note(self, record: Dict[str, Any]) -> None:
        """Write down who has it, for agents that find the folder locked. Not durable."""
        if self._root is None:
            return
        data = json.dumps(dict(record, pid=os.getpid())).encode("utf-8")
        with contextlib.suppress(OSError, NotOurs):
            self._root.remove(_FILE)
            fd = calls.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._root.fd)
            try:
                calls.write(fd, data)
            finally:
                os.close(fd)

    def require(self, peer: Optional[Peer]) -> None:
        """See that nobody else has it; a holder that was silent for too long has lost it.

        Raises:
            Refused: Somebody else does.
        """
        with self._lock:
            if self._is_free_for(peer):
                if self._peer is not peer:
                    self._peer = None
                return
        raise self._refusal()

    def _refusal(self) -> Refused:
        state = self.state() or {"who": "", "doing": "", "for_s": 0.0}
        return Refused(
            codes.BUSY, "the device is held by {}".format(holder_text(state)), **state
        )


def holder_text(state: Dict[str, Any]) -> str:
    """Say who holds a device, for how long, and for what."""
    return "{} ({}, for {:.0f} s)".format(
        state["who"] or "another host", state["doing"] or "at work", state["for_s"]
    )


def read_holder(root: Folder, pid: int) -> Optional[Dict[str, Any]]:
    """What process ``pid``, which serves the folder, has written of its holder, or None."""
    try:
        record = json.loads(root.read(_FILE, limit=_MAX_BYTES).decode("utf-8"))
        held_s = time.monotonic() - float(record["since"])  # one clock for all processes
        found = {"who": str(record["who"]), "doing": str(record["doing"])}
        return dict(found, for_s=round(max(0.0, held_s), 1)) if record["pid"] == pid else None
    except (OSError, NotOurs, ValueError, KeyError, TypeError):
        return None
