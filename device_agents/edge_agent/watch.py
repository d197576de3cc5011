"""The daemon's eye on a release that is on probation: it tries it now and then, and times it.

So a release that nobody uses proves itself, too: it has to start, its check vectors have to
give the same numbers, and its latency probe has to stay within its bound (three times in a row
above it is a failure: other load passes). Hosts come first: a look waits until the worker has
been free for a moment, and gives way as soon as somebody wants it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Dict, Optional

from edge_agent import measuring, probe
from edge_agent.context import Context
from edge_agent.refusals import Cancelled, Refused
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edge_agent.agent import Agent

__all__ = ["Watch"]

_OP = "a look at the release on probation"
_STEP_S = 1.0
#: Hosts that deploy pause between requests; a look in between would cost them a loaded worker.
_QUIET_S = 3.0
#: A device that hosts keep busy is looked at all the same, so long after a look was due.
_PATIENCE_S = 60.0
#: Between looks at a release that is well: as long as it has served, within these.
_EVERY_S = (10.0, 120.0)
_AGAIN_S = 1.0
_SLOW_AGAIN_S = 10.0
_SLOW_LOOKS = 3
#: A look may take this long, and ten times what the check took that has passed.
_LOOK_S = 30.0
_TIMES = 10.0


class Watch:
    """Looks at the release on probation; `step` does what is due, `run` does so for good."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._guard = threading.Lock()
        self._look = None  # type: Optional[Context]
        self._due = time.monotonic()
        self._slow = 0
        agent.probation.on_switch.append(lambda _: self._begin_anew())

    def _begin_anew(self) -> None:
        self._slow = 0
        self._due = time.monotonic()

    def start(self) -> None:
        """Look for as long as the agent lives."""
        threading.Thread(target=self._run, name="probation", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(_STEP_S)
            try:
                self.step()
            except Exception as exc:  # noqa: BLE001 - whatever it is, the next look may work
                self._agent.log.write("probation: {}: {}".format(type(exc).__name__, exc))
                self._due = time.monotonic() + _EVERY_S[1]

    def give_way(self) -> None:
        """End a look that is under way: a host wants the worker."""
        with self._guard:
            if self._look is not None:
                self._look.cancel()

    def step(self) -> None:
        """Count time, and look if that is due and nobody is there to be disturbed."""
        probation, now = self._agent.probation, time.monotonic()
        probation.tick()
        state = probation.state()
        if state is None:
            return
        last = probation.is_served()
        if now < self._due and not (last and self._due - now > _SLOW_AGAIN_S):
            return
        if self._agent.supervisor.idle_s() < _QUIET_S and now - self._due < _PATIENCE_S:
            return
        wait_s = self._try(state["bundle"])
        if wait_s is None:
            self._see_to_return(state["return_to"])
            least_s, most_s = _EVERY_S
            wait_s = min(most_s, max(least_s, state["served_s"]))
            if last:
                probation.confirm(state["bundle"])
        self._due = time.monotonic() + wait_s

    def _see_to_return(self, back: str) -> None:
        """Prove now the bytes that a return would need: then, it takes no time."""
        why = self._agent.releases.why_not(back)
        if why is not None:
            text = "release {} is what the device would return to: {}"
            self._agent.log.write(text.format(back[:12], why))

    def _try(self, bundle: str) -> Optional[float]:
        """Look once; None where all is well, else the seconds until the next time."""
        look = Context(_OP, lambda _: None)  # no host is told how far it is
        try:
            with self._guard:
                self._look = look  # from now on: who wants the worker may come at any time
            interrupt = self._agent.supervisor.interrupt
            with self._agent.supervisor.turn(look.op), look.ended_by(interrupt):
                return self._judge(look, bundle)
        except Cancelled:
            return _QUIET_S
        except Refused as exc:  # what it says of the release is counted already
            if exc.code in (codes.NOT_FOUND, codes.BAD_HASH):
                self._agent.probation.note_failed(bundle, str(exc))
            return _QUIET_S if exc.code == codes.BUSY else _AGAIN_S
        finally:
            with self._guard:
                self._look = None

    def _judge(self, look: Context, bundle: str) -> Optional[float]:
        agent = self._agent
        record = agent.probation.of(bundle)
        if record is None or look.is_cancelled():
            return _QUIET_S
        _, manifest = agent.releases.need(bundle)
        # out of memory, the kernel would end the look, and that would count as a failure
        with agent.serving.beside("look", bundle, manifest, look.is_cancelled):
            return self._look_at(look, bundle, manifest, record["max_latency_us"])

    def _look_at(
        self, look: Context, bundle: str, manifest: Dict[str, Any], max_latency_us: Any
    ) -> Optional[float]:
        agent = self._agent
        limit_s = self._limit_s(bundle, len(manifest["checks"]))
        reply, _, loaded = measuring.check_vectors(agent, look, bundle, manifest, limit_s)
        why = _why_off(reply)
        if why:
            agent.probation.note_failed(bundle, why, at_once=True)
            return _AGAIN_S
        bound = probe.bound_on_probation(agent, bundle, max_latency_us)
        vectors = [measuring.stored_vector(agent, vector) for vector in manifest["checks"]]
        quiet = agent.quiet("a look at the new release", look.is_cancelled)
        with agent.probation.around(bundle, loads=False), quiet:
            us = probe.measure(loaded, vectors, bound, limit_s)["median_us"]
        if bound.allows(us):
            self._slow = 0
            return None
        self._slow += 1
        why = "an inference takes {:.3f} ms (at most {:.3f} ms, {})".format(
            us / 1e3, (bound.us or 0.0) / 1e3, bound.why
        )
        agent.log.write("release {}: {}".format(bundle[:12], why))
        if self._slow >= _SLOW_LOOKS:
            agent.probation.note_failed(bundle, why, at_once=True)
        return _SLOW_AGAIN_S

    def _limit_s(self, bundle: str, vectors: int) -> float:
        known = self._agent.releases.pass_record(bundle)
        took_ms = 0.0
        if known is not None:
            reply = known.get("reply", {})
            one_ms = (probe.median_us(known) or 0.0) / 1e3
            cold_ms = reply.get("cold_start_ms") or reply.get("load_ms") or 0.0
            took_ms = float(cold_ms) + 2 * vectors * one_ms
        return _LOOK_S + _TIMES * took_ms / 1e3


def _why_off(reply: Dict[str, Any]) -> str:
    """Say which output of a look is off, and by how much; nothing where none is."""
    for vector in reply["vectors"]:
        for output in vector["outputs"]:
            if not output["within"]:
                return "check vector {}: output {} is off by {} (allowed {})".format(
                    vector["index"],
                    output["name"],
                    output["max_abs_error"],
                    output["allowed"],
                )
    return ""
