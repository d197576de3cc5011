"""How an agent starts, as daemon or for one host: in named stages.

A start that fails says which stage it reached.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Iterator

from edge_agent.fs import NotOurs

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["StartFailed", "free_idle_workers", "stage"]

_IDLE_CHECK_S = 5.0


class StartFailed(Exception):
    """The agent cannot start; ``stage`` is the last stage that was reached."""

    def __init__(self, stage: str, why: str) -> None:
        super().__init__(why)
        self.stage = stage


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Let the block be one stage of the start.

    Raises:
        StartFailed: The block raised what can come of a state folder, a path or an option.
    """
    try:
        yield
    except (OSError, NotOurs, ValueError) as exc:
        text = str(exc)
        if isinstance(exc, OSError) and exc.strerror:
            text = exc.strerror + (": {}".format(exc.filename) if exc.filename else "")
        raise StartFailed(name, text) from exc


def free_idle_workers(agent: Agent) -> threading.Thread:
    """Free the worker whenever nobody has used it for a while; gives the thread that does."""

    def look() -> None:
        while True:
            time.sleep(_IDLE_CHECK_S)
            agent.supervisor.drop_if_idle()

    thread = threading.Thread(target=look, name="idle", daemon=True)
    thread.start()
    return thread
