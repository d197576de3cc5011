"""The timed loop of one stream. Worker only.

The monotonic clock is read right before and right after the runtime's own call, and nothing
else lies between: inputs are bound before, samples go to an array that has room already, and
what decides about the next run (`edge_agent.pacing`) is asked between two runs, seldom.
"""

from __future__ import annotations

import array
import contextlib
import gc
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple

from edge_agent.pacing import Pace

if TYPE_CHECKING:
    from edge_agent.chain import Chain
    from edge_agent.runtimes.base import RawTensor

__all__ = [
    "Call",
    "Clock",
    "Measurement",
    "measure_one_stream",
    "no_garbage",
]

_BLOCK = 1 << 16
#: A function of a runtime and its arguments: what is timed.
Call = Tuple[Callable[..., Any], Tuple[Any, ...]]
Clock = Callable[[], int]


class Measurement:
    """What one benchmark collected: nanoseconds per run, and per run and part.

    ``parts`` is what the runtimes' own calls took; ``samples`` are with all hand-over. The
    arrays are signed, so that a clock that goes back is noticed and not fatal.
    """

    def __init__(self, limit: int, parts: int) -> None:
        first = max(1, min(limit, _BLOCK) if limit else _BLOCK)
        self.samples = array.array("q", bytes(8 * first))
        self.parts = [array.array("q", bytes(8 * first)) for _ in range(parts)]
        self.runs = 0
        self.wall_ns = 0
        #: How often the clock was seen to go back; those runs are not among the samples.
        self.clock_went_back = 0
        #: Of the warm-up: runs, nanoseconds, and why it ended.
        self.warm_up = {"runs": 0, "ns": 0, "stopped": "runs"}  # type: Dict[str, Any]
        #: Why the counted runs ended, and how narrow the median's interval was then.
        self.stopped = "runs"
        self.half_width = None  # type: Optional[float]
        #: More that a scenario has to tell.
        self.more = {}  # type: Dict[str, Any]

    def grow(self) -> None:
        """Make room for another block."""
        for samples in [self.samples] + self.parts:
            samples.frombytes(bytes(8 * _BLOCK))

    def cut(self) -> None:
        """Drop what was not used, and runs whose time cannot be true."""
        columns = [self.samples] + [part for part in self.parts if part is not self.samples]
        for samples in columns:
            del samples[self.runs :]
        bad = {i for samples in columns for i, ns in enumerate(samples) if ns < 0}
        for samples in columns if bad else []:
            samples[:] = array.array("q", [ns for i, ns in enumerate(samples) if i not in bad])
        self.runs = len(self.samples)
        self.clock_went_back = max(self.clock_went_back, len(bad))


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Collect garbage now, and none in the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure_one_stream(
    chain: Chain,
    vectors: List[Dict[str, RawTensor]],
    warm_up: Optional[Pace],
    pace: Pace,
    *,
    batch: int = 1,
    clock: Clock = time.perf_counter_ns,
) -> Measurement:
    """Run the vectors in turn, one run after the other, as `pace` says.

    Args:
        chain: What is loaded.
        vectors: Inputs.
        warm_up: How to warm up; None does not.
        pace: How long to measure.
        batch: Inferences that are timed together.
        clock: Gives nanoseconds.
    """
    one_call = len(chain.parts) == 1 or batch > 1
    calls = chain.calls(vectors, batch) if one_call else []
    kept = 0 if one_call else len(chain.parts)

    def loop(into: Measurement, pace: Pace) -> None:
        if one_call:
            _run_calls(calls, into, pace, clock)
        else:
            _run_parts(chain, vectors, into, pace, clock)

    with no_garbage():
        found = Measurement(pace.limit, kept)
        if warm_up is not None:
            warm = Measurement(warm_up.limit, kept)
            loop(warm, warm_up)
            found.warm_up = {"runs": warm.runs, "ns": warm.wall_ns, "stopped": warm_up.stopped}
        pace.announce()
        loop(found, pace)
        pace.over()
    found.cut()
    if len(chain.parts) == 1:
        found.parts = [found.samples]
    return found


def _run_calls(calls: List[Call], found: Measurement, pace: Pace, clock: Clock) -> None:
    count = len(calls)
    samples = found.samples
    limit = pace.limit
    index = 0
    began = last = clock()
    tick = pace.begin(began)
    while index < limit:
        function, arguments = calls[index % count]
        if index == len(samples):
            found.grow()
        start = clock()
        function(*arguments)
        end = clock()
        samples[index] = end - start
        index += 1
        if end >= tick or end < last:
            tick = pace.look((samples,), (index,), end)
            if not tick:
                break
        last = end
    _close(found, pace, index, clock() - began)


def _run_parts(
    chain: Chain, vectors: List[Any], found: Measurement, pace: Pace, clock: Clock
) -> None:
    parts = chain.parts
    first = [chain.feeds(parts[0], values) for values in vectors]
    count = len(vectors)
    limit = pace.limit
    index = 0
    began = previous = clock()
    tick = pace.begin(began)
    while index < limit:
        if index == len(found.samples):
            found.grow()
        values = dict(vectors[index % count])  # type: Dict[str, Any]
        feeds = first[index % count]
        start = clock()
        for number, part in enumerate(parts):
            if number:
                feeds = part.prepare(values)
            function, arguments = part.bind(feeds)
            called = clock()
            result = function(*arguments)
            found.parts[number][index] = clock() - called
            values.update(part.named(result))
        end = clock()
        found.samples[index] = end - start
        index += 1
        if end >= tick or end < previous:
            tick = pace.look((found.samples,), (index,), end)
            if not tick:
                break
        previous = end
    _close(found, pace, index, clock() - began)


def _close(found: Measurement, pace: Pace, runs: int, wall_ns: int) -> None:
    found.runs = runs
    found.wall_ns = max(0, wall_ns)
    found.stopped = pace.stopped
    pace.settle_account((found.samples,), (runs,))
    found.half_width = pace.half_width
    found.clock_went_back = pace.clock_went_back
