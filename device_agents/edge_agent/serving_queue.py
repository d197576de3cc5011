"""Turns: one request at a time, first come first served, bounded, with a way to the front.

A runtime answers one request at a time. Whoever has the turn may use the serving worker; a host
that measures takes the turn for the whole measurement, ahead of everybody who waits.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
from typing import Any, Callable, Iterator, Optional

from edge_agent.refusals import Cancelled, Refused
from edge_agent.vitals import vitals
from edgesdk.wire import codes

__all__ = ["Turns"]

_LOOK_S = 0.1


def _never() -> bool:
    """It is wanted for as long as it may wait."""
    return False


def _came(mine: Any, deadline: Optional[float], cancelled: Callable[[], bool]) -> bool:
    """Wait for a lock until the deadline, or until nobody wants it any more."""
    while not cancelled():
        left_s = _LOOK_S if deadline is None else deadline - time.monotonic()
        if mine.acquire(timeout=min(_LOOK_S, max(0.0, left_s))):
            return True
        if left_s <= 0:
            return False
    return False


class Turns:
    """A bounded queue for one thing.

    Args:
        most_waiting: How many may wait.
        most_bytes: How many bytes the requests that wait may hold together.
    """

    def __init__(self, most_waiting: int, most_bytes: int) -> None:
        self._most_waiting = most_waiting
        self._most_bytes = most_bytes
        self._state = threading.Lock()
        self._taken = False
        self._holder = ""
        self._owner = 0
        self._bytes = 0
        self._waiting = collections.deque()  # type: collections.deque

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def holder(self) -> str:
        """What has the turn, in a few words."""
        return self._holder

    @contextlib.contextmanager
    def turn(
        self,
        what: str,
        deadline: Optional[float],
        *,
        nbytes: int = 0,
        first: bool = False,
        cancelled: Callable[[], bool] = _never,
    ) -> Iterator[None]:
        """Have the turn; with ``first``, who has it already may take it once more.

        Args:
            what: In a few words, for those who wait.
            deadline: By `time.monotonic`; None waits for ever.
            nbytes: What the request holds in memory while it waits.
            first: Go ahead of all who wait, and never be turned away.
            cancelled: Looked at now and then: it is not wanted any more.

        Raises:
            Cancelled: It was not wanted any more before it came.
            Refused: ``busy``: too many wait already, or the turn did not come in time.
        """
        if first and self._owner == threading.get_ident():
            yield
            return
        self._take(what, deadline, nbytes, first=first, cancelled=cancelled)
        self._owner = threading.get_ident()
        try:
            yield
        finally:
            self._owner = 0
            self._pass_on()

    def _take(
        self,
        what: str,
        deadline: Optional[float],
        nbytes: int,
        *,
        first: bool,
        cancelled: Callable[[], bool],
    ) -> None:
        with self._state:
            if not self._taken:
                self._taken, self._holder = True, what
                return
            full = len(self._waiting) >= self._most_waiting
            if not first and (full or self._bytes + nbytes > self._most_bytes):
                raise Refused(
                    codes.BUSY,
                    "{} requests wait already for {}: send fewer at a time, or try again "
                    "in a moment".format(len(self._waiting), self._holder),
                    waiting=len(self._waiting),
                    op=self._holder,
                )
            mine = threading.Lock()
            mine.acquire()
            entry = (mine, what, nbytes)
            self._bytes += nbytes
            if first:
                self._waiting.appendleft(entry)
            else:
                self._waiting.append(entry)
        began = time.monotonic()
        with vitals.waiting("waiting for " + self._holder):
            if _came(mine, deadline, cancelled):
                return
        with self._state:
            if entry not in self._waiting:
                return  # it came at the last moment
            self._waiting.remove(entry)
            self._bytes -= nbytes
        if cancelled():
            raise Cancelled
        raise Refused(
            codes.BUSY,
            "the request waited {:.1f} s for {}: give it more time, or try again".format(
                time.monotonic() - began, self._holder
            ),
            waiting=len(self._waiting),
            op=self._holder,
        )

    def _pass_on(self) -> None:
        with self._state:
            if not self._waiting:
                self._taken, self._holder = False, ""
                return
            mine, self._holder, nbytes = self._waiting.popleft()
            self._bytes -= nbytes
            mine.release()
