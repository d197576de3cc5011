"""What a request is to the code that answers it."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Dict, Iterator, Optional

from edge_agent.holding import Peer

__all__ = ["Context"]


class Context:
    """One request on its way: how a handler tells of progress, or learns nobody waits.

    Args:
        op: What is asked.
        send_event: Takes a sign of progress.
        peer: Who asks; nobody in particular where the agent asks itself.
        is_application: A program on the device asks, beside the gate of trust.
    """

    def __init__(
        self,
        op: str,
        send_event: Callable[[Dict[str, Any]], None],
        peer: Optional[Peer] = None,
        *,
        is_application: bool = False,
    ) -> None:
        self.op = op
        self.peer = peer or Peer()
        self.is_application = is_application
        self.after = None  # type: Optional[Callable[[], None]]
        #: Whether the link says who asks: the system does, except on a serial line.
        self.is_proven = True
        #: Whether bare frames are taken: the link checks what it carries.
        self.takes_bare = False
        self._send_event = send_event
        self._cancelled = threading.Event()
        self._guard = threading.Lock()
        self._ends_it = None  # type: Optional[Callable[[], None]]

    def event(self, meta: Dict[str, Any]) -> None:
        """Tell the host how far the work is; only known fields of ``meta`` go out."""
        kept = {k: meta[k] for k in ("event", "step", "done", "total", "live") if k in meta}
        self._send_event(kept)

    def is_cancelled(self) -> bool:
        """Say whether the one who asked is gone."""
        return self._cancelled.is_set()

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """Let ``end`` be called, from any thread, when nobody waits for the block any more.

        Once the block is left it is not called, nor still at work: what it ends may be
        somebody else's by then. So it has to be quick.
        """
        with self._guard:
            self._ends_it = end
        try:
            yield
        finally:
            with self._guard:
                self._ends_it = None

    def cancel(self) -> None:
        """Nobody waits any more: end what can be ended."""
        self._cancelled.set()
        with self._guard:
            if self._ends_it is not None:
                self._ends_it()
