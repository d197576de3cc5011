"""Serving: applications on the device get answers from the current release, across switches.

The serving worker is another than the one of hosts' requests and outlives them. At a switch the
new release's worker is loaded and warmed while the old one goes on answering; it takes over
between two requests, so every answer is wholly of one release and none is lost. Where memory is
short for two workers the old one goes first, and requests wait meanwhile.

An inference changes nothing, so one whose worker died is done again by the next worker. A
request that kills two is answered with an error: it would kill the next as well.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Callable, ContextManager, Dict, Iterator, Optional, Tuple

from edge_agent import asking
from edge_agent.measuring import run
from edge_agent.refusals import Cancelled, Refused
from edge_agent.serving_keeper import Keeper
from edge_agent.serving_queue import Turns
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context
    from edge_agent.loading import Starter
    from edge_agent.memory import Memory

__all__ = ["FOR_APPLICATIONS", "Serving", "infer", "served"]

#: All that may be asked on the socket for applications.
FOR_APPLICATIONS = ("hello", "infer", "served")

_MOST_WAITING = 64
_MOST_WAITING_BYTES = 128 << 20
#: How many workers one request may cost.
_MOST_DEATHS = 2
_TIMEOUT_S = 30.0
_MAX_TIMEOUT_S = 3600.0
_CURRENT = {"release": "current"}
#: A host that measures wants the device to itself.
_ALONE = ("bench", "pair", "profile")


#: Objects, by raising, to a release that is about to answer: its id, its manifest.
Check = Callable[[str, Dict[str, Any]], None]


def _anything(bundle: str, manifest: Dict[str, Any]) -> None:
    """Whatever is current may answer."""


class Serving:
    """Answers applications with the current release.

    Args:
        agent: Whose slots and releases they are.
        memory: Says whether there is room for a second worker.
        starter: Starts the workers.
    """

    def __init__(self, agent: Agent, memory: Memory, starter: Starter) -> None:
        self._agent = agent
        self._memory = memory
        self._turns = Turns(_MOST_WAITING, _MOST_WAITING_BYTES)
        self._keeper = Keeper(agent, self._turns, memory, starter)
        self._answered = 0
        self._failed = 0

    def infer(
        self, specs: Any, body: bytes, *, timeout_s: float, check: Check = _anything
    ) -> Tuple[str, Frame]:
        """Run the current release once; give the bundle that answered, and its reply.

        Args:
            specs: The input tensors, unchecked.
            body: Their bytes.
            timeout_s: How long the request may wait for its turn and for a worker.
            check: Told which release is about to answer, and its manifest; may object.

        Raises:
            Refused: There is no current release, it takes other inputs, too many wait, or
                its worker cannot be started or dies of this request.
        """
        deadline = time.monotonic() + timeout_s
        try:
            with self._turns.turn("other applications", deadline, nbytes=len(body)):
                found = self._infer(specs, body, deadline, check)
        except Refused:
            self._failed += 1
            raise
        self._answered += 1
        return found

    def _infer(
        self, specs: Any, body: bytes, deadline: float, check: Check
    ) -> Tuple[str, Frame]:
        keeper, deaths = self._keeper, 0
        while True:
            served = keeper.at_hand(deadline)
            check(served.bundle, served.manifest)
            checked = asking.tensors(specs, body, served.inputs, served.bundle[:12])
            try:
                reply = served.run(checked, body)
            except Cancelled:
                keeper.drop(served)
                if keeper.closed:
                    raise Refused(codes.BUSY, "cannot infer: the agent ends") from None
                continue
            except Refused as exc:
                if exc.code in (codes.WORKER_DIED, codes.WORKER_TIMEOUT):
                    keeper.lost(served, str(exc))
                    deaths += 1
                    if exc.code == codes.WORKER_DIED and deaths < _MOST_DEATHS:
                        continue
                raise
            finally:
                keeper.used = time.monotonic()
            return served.bundle, reply

    def describe(self, release: str = "current") -> Dict[str, Any]:
        """Say what an application may ask, and whether it would be answered at once.

        Raises:
            Refused: There is no such release.
        """
        served = self._keeper.served
        if release == "current" and served is not None and served.is_alive():
            bundle, manifest = served.bundle, served.manifest
        else:
            served = None
            bundle, manifest = self._agent.releases.need(release)
        return {
            "bundle": bundle,
            "name": manifest["name"],
            "precision": manifest["precision"],
            "runtimes": [part["runtime"] for part in manifest["parts"]],
            "inputs": manifest["inputs"],
            "outputs": manifest["outputs"],
            "ready": served is not None,
            "waiting": self._turns.waiting,
        }

    def state(self) -> Optional[Dict[str, Any]]:
        """What serves now and how it went, for ``status``; None if nobody ever asked."""
        if not self._answered and not self._failed and not self._keeper.keep:
            return None
        return dict(
            self._keeper.state(),
            answered=self._answered,
            failed=self._failed,
            waiting=self._turns.waiting,
        )

    # -- what others tell --------------------------------------------------------------------

    def begin(self) -> None:
        """Load the current release now and keep it loaded."""
        self._keeper.keep = True
        self._keeper.call()

    def switched(self) -> None:
        """Another is current; returns soon, its worker takes over when it is warm."""
        self._keeper.call_if_begun()

    def refresh(self, bundle: str) -> None:
        """Load ``bundle`` again if it is served: its parts were finished anew."""
        self._keeper.refresh(bundle)

    def quiet(self, what: str, cancelled: Callable[[], bool]) -> ContextManager[None]:
        """Have no application served while something is measured; they wait for their turn."""
        return self._turns.turn(what, None, first=True, cancelled=cancelled)

    @contextlib.contextmanager
    def beside(
        self, op: str, bundle: str, manifest: Dict[str, Any], cancelled: Callable[[], bool]
    ) -> Iterator[None]:
        """Let a host's worker run: alone while it measures, or where memory is short.

        Applications' requests wait for their turn meanwhile, as long as their time allows.
        """
        keeper = self._keeper
        short = (
            keeper.served is not None
            and not self._agent.supervisor.would_find(bundle, None)
            and not self._memory.has_room(bundle, manifest)
        )
        if op not in _ALONE and not short:
            yield
            return
        with self.quiet("a host's {}".format(op), cancelled):
            served = keeper.served
            if short and served is not None and keeper.drop(served):
                self._agent.log.write("serving: worker freed for a host's {}".format(op))
            yield
        keeper.call_if_begun()

    @property
    def is_closed(self) -> bool:
        """Say whether the agent ends."""
        return self._keeper.closed

    def close(self) -> None:
        """End the workers; whoever waits is told that the agent ends."""
        self._keeper.close()


# -- operations --------------------------------------------------------------------------------


def infer(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Answer an application; a release that is not current runs in the hosts' worker."""
    release = asking.text(dict(_CURRENT, **meta), "release")
    if release != "current":
        if ctx.is_application:
            raise Refused(codes.BAD_REQUEST, "applications are answered by the current release")
        bundle, _ = agent.releases.need(release)
        found = run(agent, ctx, meta, body)
        return Frame(dict(found.meta, bundle=bundle), found.body)
    timeout_s = asking.number(meta, "timeout_s", 0.001, _MAX_TIMEOUT_S, default=_TIMEOUT_S)
    try:
        bundle, reply = agent.serving.infer(meta.get("tensors"), body, timeout_s=timeout_s)
    except Refused:
        if agent.serving.is_closed:
            ctx.cancel()  # no reply: who asked sees the link end, and asks the next agent
            raise Cancelled from None
        raise
    kept = {key: reply.meta[key] for key in ("tensors", "run_ms")}
    return Frame(dict(kept, bundle=bundle), reply.body)


def served(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Say what an application may ask."""
    return Frame(agent.serving.describe(asking.text(dict(_CURRENT, **meta), "release")))
