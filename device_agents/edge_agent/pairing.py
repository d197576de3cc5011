"""The operation that measures two releases in turns: short blocks of one, then of the other.

Both stay loaded, each in a worker of its own, so that a turn costs no more than a message and
what disturbs one block disturbs its neighbour too. Where memory is short for two, or a device
lets only one process have it, each block loads its release anew, which the reply says.

The host says who goes first in each pair. The body of the reply has five little-endian u64 for
each pair: when it began (ns since the first), the medians of its two blocks (ns, ``release``
first) and how many runs each had. A block leaves out its first runs, which find the caches
full of the other's data.
"""

from __future__ import annotations

import array
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from edge_agent import asking, later
from edge_agent.benching import cpus_of
from edge_agent.limits import run_limit_s
from edge_agent.measuring import load_release, stored_vector
from edge_agent.middle import middle_of
from edge_agent.refusals import Cancelled, Refused
from edge_agent.sampling import Sampler, static_conditions
from edge_agent.slots import utc_now
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

if TYPE_CHECKING:
    from edge_agent.agent import Agent
    from edge_agent.context import Context

__all__ = ["pair"]

_MAX_PAIRS = 4096
_MAX_TIMEOUT_S = 86_400.0
#: Starting, loading and the first run of one release.
_TIMEOUT_S = 300.0
_FEWEST_RUNS = 3
_MOST_RUNS = 1 << 16
#: Before the blocks: long enough for clocks and thread pools to wake.
_WARMUP_S = 0.1
_WARMUP_RUNS = 3
#: What of a block's runs is left out at its beginning.
_COLD_SHARE = 10
#: What a worker says that finds the device taken by another, or ends for want of memory.
_ALONE_CODES = (codes.WORKER_FAILED, codes.WORKER_DIED)


class _Side:
    """One of the two releases: what to load, and the worker that holds it."""

    def __init__(
        self,
        agent: Agent,
        ctx: Context,
        release: str,
        threads: Optional[int],
        cpus: Optional[List[int]],
    ) -> None:
        self.bundle, self.manifest = agent.releases.need(release)
        self.vectors = [stored_vector(agent, v) for v in self.manifest["checks"]]
        self.loaded = None  # type: Any
        self.load_ms = []  # type: List[float]
        self.runs = 0
        self._agent = agent
        self._ctx = ctx
        self.cpus = cpus
        self._threads = threads

    def threads_of(self, part: Dict[str, Any]) -> Any:
        """How many threads a part is to have; None where its runtime chooses."""
        return self._threads or part["options"].get("threads")

    def load(self, starter: Any, timeout_s: float) -> None:
        """Load the release: in the supervisor's worker, or in one of ``starter``'s."""
        agent, ctx, bundle, manifest = self._agent, self._ctx, self.bundle, self.manifest
        if self.loaded is not None:
            self.loaded.worker.close()
        if starter is None:
            self.loaded = load_release(
                agent,
                ctx,
                bundle,
                manifest,
                threads=self._threads,
                fresh=True,
                timeout_s=timeout_s,
            )
        else:
            # no matter of the release's probation: a device may have room for one only
            self.loaded = starter.start(
                bundle,
                manifest,
                agent.releases.part_paths(bundle, manifest),
                threads=self._threads,
                timeout_s=timeout_s,
                on_event=ctx.event,
                cancelled=ctx.is_cancelled,
            )
        self.load_ms.append(self.loaded.load_ms)

    def ask(self, warmup_runs: int, runs: int, duration_s: float, timeout_s: float) -> Any:
        """Make runs; give their nanoseconds."""
        request = {
            "warmup_runs": warmup_runs,
            "runs": runs,
            "duration_s": duration_s,
            "vectors": self.vectors,
            "cpus": self.cpus,
        }
        with self._agent.probation.around(self.bundle, loads=False):
            reply = self.loaded.worker.request(
                {"op": "bench"},
                json.dumps(request).encode("utf-8"),
                timeout_s=run_limit_s(self.manifest, timeout_s),
                doing="measuring in turns",
                each_event_s=run_limit_s(self.manifest, timeout_s),
            )
        samples = array.array("Q")
        samples.frombytes(reply.body)
        if sys.byteorder == "big":
            samples.byteswap()
        if not samples:
            raise Refused(
                codes.WORKER_FAILED, "a block of {} has no runs".format(self.bundle[:12])
            )
        return samples

    def warm_up(self, block_ns: float, timeout_s: float) -> None:
        """Run until warm, and find out how many runs make a block."""
        self.ask(0, 1, 0.0, timeout_s)
        median = middle_of(self.ask(_WARMUP_RUNS, 0, _WARMUP_S, timeout_s))
        runs = round(block_ns / max(1.0, median))
        self.runs = max(_FEWEST_RUNS, min(_MOST_RUNS, runs))

    def block(self, timeout_s: float) -> Tuple[int, int]:
        """Measure a block; give its median and its number of runs."""
        samples = self.ask(1 + self.runs // _COLD_SHARE, self.runs, 0.0, timeout_s)
        return int(middle_of(samples)), len(samples)


class _Course:
    """The pairs, as they come."""

    def __init__(self, ctx: Context, order: str, duration_s: float) -> None:
        self.body = array.array("Q")
        self.pairs = 0
        self._ctx = ctx
        self._order = order
        self._began = time.monotonic()
        self._stop = self._began + duration_s

    def measure(self, sides: List[_Side], timeout_s: float, *, anew: bool) -> None:
        """Measure pairs until the order or the time ends; at least two."""
        total = len(self._order)
        for first in self._order:
            at_ns = int((time.monotonic() - self._began) * 1e9)
            found = [(0, 0), (0, 0)]
            for number in (0, 1) if first == "0" else (1, 0):
                side = sides[number]
                if anew:
                    side.load(None, timeout_s)
                    side.ask(_WARMUP_RUNS, 0, _WARMUP_S, timeout_s)
                found[number] = side.block(timeout_s)
            (ours, our_runs), (theirs, their_runs) = found
            self.body.extend((at_ns, ours, theirs, our_runs, their_runs))
            self.pairs += 1
            if self.pairs % 8 == 1 or anew:
                event = {"event": "progress", "step": "pairs", "done": self.pairs}
                self._ctx.event(dict(event, total=total))
            if self.pairs > 1 and time.monotonic() >= self._stop:
                return


def pair(agent: Agent, ctx: Context, meta: Dict[str, Any], body: bytes) -> Frame:
    """Measure two releases in turns, in blocks of a few milliseconds each."""
    order = meta.get("order")
    if (
        not isinstance(order, str)
        or not 1 <= len(order) <= _MAX_PAIRS
        or set(order) - {"0", "1"}
    ):
        text = "order must be 1 to {} times 0 or 1".format(_MAX_PAIRS)
        raise Refused(codes.BAD_REQUEST, text)
    block_ms = asking.number(meta, "block_ms", 0.1, 60_000.0, default=20.0)
    duration_s = asking.number(meta, "duration_s", 0.001, _MAX_TIMEOUT_S, default=10.0)
    timeout_s = asking.number(meta, "timeout_s", 0.001, _MAX_TIMEOUT_S, default=_TIMEOUT_S)
    threads = asking.whole(meta, "threads", 0, 1024, default=0) or None
    sampled = asking.flag(meta, "sample_conditions", default=True)
    beside = asking.flag(meta, "side_by_side", default=True)
    cpus = cpus_of(meta)
    sides = [
        _Side(agent, ctx, asking.text(meta, name), threads, cpus)
        for name in ("release", "against")
    ]
    if cpus is None:
        cpus = _one_cpu(sides)
        for side in sides:
            side.cpus = cpus
    started, began = utc_now(), time.monotonic()
    boss = agent.supervisor
    starter = later.loading.Starter(boss.python, boss.scratch, boss.cache, agent.log.write)

    def interrupt() -> None:
        starter.interrupt()
        boss.interrupt()

    asked = (order, duration_s, block_ms, timeout_s)
    with agent.worker_turn(ctx, sides[0].bundle, sides[0].manifest), ctx.ended_by(interrupt):
        if ctx.is_cancelled():
            raise Cancelled
        course, why, conditions = _in_turns(
            agent, ctx, sides, starter, asked=asked, flags=(beside, sampled)
        )
    meta = {
        "pairs": course.pairs,
        "mode": "reloaded" if why else "side-by-side",
        "why": why,
        "started": started,
        "wall_s": time.monotonic() - began,
        "load_ms": [middle_of(side.load_ms) for side in sides],
        "runtimes": [side.loaded.runtimes if side.loaded else [] for side in sides],
        "conditions": conditions,
        "cpus": cpus,
    }
    if sys.byteorder == "big":
        course.body.byteswap()
    return Frame(meta, course.body.tobytes())


def _one_cpu(sides: List[_Side]) -> Optional[List[int]]:
    """Choose a processor for both, where each computes in one thread; else leave it open.

    Two processors are rarely alike to the last per cent, and where each worker stays on one of
    its own that is measured, too: on two idle cores the ratio of a release to itself spread by
    1.4 % from start to start, and by 0.2 % on one. The last, as the first answers interrupts.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    if any(side.threads_of(part) != 1 for side in sides for part in side.manifest["parts"]):
        return None
    ours = sorted(os.sched_getaffinity(0))
    return ours[-1:] if len(ours) > 1 else None


def _in_turns(
    agent: Agent,
    ctx: Context,
    sides: List[_Side],
    starter: Any,
    *,
    asked: Tuple[str, float, float, float],
    flags: Tuple[bool, bool],
) -> Tuple[_Course, str, Dict[str, Any]]:
    """Load both, warm both up, measure; give the pairs, why they were reloaded, conditions."""
    order, duration_s, block_ms, timeout_s = asked
    # who is loaded first is drawn like the rest: memory is laid out in that order
    turn = sides if order[0] == "0" else sides[::-1]
    began = time.monotonic()
    try:
        why = "the host asked for it"
        if flags[0]:
            why = _load_both(agent, turn, starter, timeout_s)
        if why:
            agent.log.write("pair: each block loads anew: {}".format(why)[:500])
        for side in turn:
            if why:
                side.load(None, timeout_s)
            side.warm_up(block_ms * 1e6, timeout_s)
        left_s = duration_s - (time.monotonic() - began)
        course = _Course(ctx, order, left_s)
        static = static_conditions()
        pids = [side.loaded.worker.pid for side in sides]
        sampler = Sampler(pids) if flags[1] else None
        seen = {"samples": []}  # type: Dict[str, Any]
        try:
            if sampler is not None:
                sampler.begin()
            course.measure(sides, timeout_s, anew=bool(why))
        finally:
            if sampler is not None:
                seen = sampler.finish()
    finally:
        starter.interrupt()
        for side in sides:
            if side.loaded is not None:
                side.loaded.worker.close()
        agent.supervisor.drop()
    return course, why, dict(seen, static=static)


def _load_both(agent: Agent, turn: List[_Side], starter: Any, timeout_s: float) -> str:
    """Load one release and the other beside it; say why that cannot be, or nothing.

    Both start at once where memory is sure to do and neither is on probation, of which a
    failure that only the other one caused would be held against it.
    """
    memory = later.memory.Memory()
    first, second = turn
    taken = memory.need(first.bundle, first.manifest)
    at_once = memory.has_room(second.bundle, second.manifest, besides=taken) and not any(
        agent.probation.of(side.bundle) for side in turn
    )
    failed = []  # type: List[BaseException]

    def load(side: _Side, by: Any) -> None:
        try:
            side.load(by, timeout_s)
        except Exception as exc:  # noqa: BLE001 - looked at below, in the thread that replies
            failed.append(exc)

    if at_once:
        beside = threading.Thread(target=load, args=(second, starter), daemon=True)
        beside.start()
        load(first, None)
        if failed:
            starter.interrupt()
        beside.join()
    else:
        first.load(None, timeout_s)
        if not memory.has_room(second.bundle, second.manifest):
            return "memory is short for two workers at once"
        load(second, starter)
    if not failed:
        return ""
    exc = failed[0]
    if not isinstance(exc, Refused) or exc.code not in _ALONE_CODES:
        raise exc
    return "the two could not be loaded side by side: {}".format(exc)[:300]
