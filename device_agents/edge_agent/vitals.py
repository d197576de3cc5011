"""What the threads of this process promise, by which the watchdog sees that none is stuck.

Threads that do something for a host promise to be through within a time; one that only waits
for a host promises nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Callable, Iterator, List

__all__ = ["Vitals", "vitals"]

_FOREVER = float("inf")


class Vitals:
    """What each thread has promised. All times are those of the monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        #: Per thread, innermost last: when it is due, what it asked for, and what it does.
        self._promises = {}  # type: Dict[int, List[List[Any]]]
        self._needed = []  # type: List[threading.Thread]

    @contextlib.contextmanager
    def promise(self, within_s: float, doing: str) -> Iterator[None]:
        """Be through with the block within that time; an inner promise takes its place."""
        me = threading.get_ident()
        with self._lock:
            self._promises.setdefault(me, []).append(
                [self._clock() + within_s, within_s, doing]
            )
        try:
            yield
        finally:
            with self._lock:
                mine = self._promises[me]
                mine.pop()
                if mine:
                    mine[-1][0] = self._clock() + mine[-1][1]
                else:
                    del self._promises[me]

    def waiting(self, doing: str = "waiting for the host") -> Any:
        """Wait in the block for somebody who may take for ever: that is no fault of ours."""
        return self.promise(_FOREVER, doing)

    def renew(self, within_s: float) -> None:
        """Give the innermost promise of this thread that much time from now."""
        with self._lock:
            mine = self._promises.get(threading.get_ident())
            if mine:
                mine[-1][0] = self._clock() + within_s

    def need(self, thread: threading.Thread) -> None:
        """Count the agent as stuck once this thread has ended."""
        with self._lock:
            self._needed.append(thread)

    def release(self, thread: threading.Thread) -> None:
        """Let a thread end that was needed."""
        with self._lock:
            if thread in self._needed:
                self._needed.remove(thread)

    def faults(self) -> List[str]:
        """Say what is wrong; nothing is the answer of an agent that is well."""
        found = []
        with self._lock:
            now = self._clock()
            for stack in self._promises.values():
                due, within_s, doing = stack[-1]
                if now > due:
                    found.append("{} takes longer than {:g} s".format(doing, within_s))
            needed = list(self._needed)
        ended = [each.name for each in needed if each.ident is not None and not each.is_alive()]
        return found + ["thread {} has ended".format(name) for name in ended]


#: The promises of this process.
vitals = Vitals()
