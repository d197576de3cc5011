"""On which processors the threads of this process may run. Worker only."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, List, Optional

from edge_agent.runtimes.base import RuntimeFailed

__all__ = ["kept_on", "not_ours"]


def not_ours(cpus: List[int]) -> List[int]:
    """Give those processors that this process may not run on."""
    if not hasattr(os, "sched_getaffinity"):
        return list(cpus)
    return sorted(set(cpus) - set(os.sched_getaffinity(0)))


def _threads() -> List[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return [0]


@contextlib.contextmanager
def kept_on(cpus: Optional[List[int]]) -> Iterator[None]:
    """Keep every thread there is, and those that they start, on these processors meanwhile.

    A runtime's own threads are kept there too, whatever it chose for them.

    Raises:
        RuntimeFailed: One is not ours, or the system refuses.
    """
    if not cpus:
        yield
        return
    missing = not_ours(cpus)
    if missing:
        raise RuntimeFailed("this process may not run on cpu {}".format(missing[0]))
    usual = set(os.sched_getaffinity(0))
    before = {}
    try:
        for thread in _threads():
            with contextlib.suppress(ProcessLookupError):
                before[thread] = set(os.sched_getaffinity(thread))
                os.sched_setaffinity(thread, cpus)
    except OSError as exc:
        raise RuntimeFailed("cannot stay on the cpus {}: {}".format(cpus, exc)) from exc
    try:
        yield
    finally:
        for thread in _threads():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, before.get(thread, usual))
