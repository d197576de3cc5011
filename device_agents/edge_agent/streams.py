"""Several streams at once, and a server that requests arrive at. Worker only.

**Streams.** Each has a thread and a chain of its own and makes one run after the other.
**Server.** Requests arrive at random: the times between them are exponentially distributed, so
arrivals form a Poisson process, as in MLPerf's server scenario (Reddi et al., MLPerf Inference
Benchmark, 2020, section IV). Whoever is free takes the one that came first. A latency counts
from the arrival, so waiting for one's turn is in it. The times of arrival come from a seed.
"""

from __future__ import annotations

import array
import random
import threading
import time
from typing import TYPE_CHECKING, Dict, List, Optional

from edge_agent.loops import Call, Clock, Measurement, no_garbage
from edge_agent.pacing import Pace

if TYPE_CHECKING:
    from edge_agent.chain import Chain
    from edge_agent.runtimes.base import RawTensor

__all__ = ["Arrivals", "measure_streams"]

_BLOCK = 1 << 12
_WATCH_S = 0.02
#: A sleeping thread wakes up late by some tens of microseconds: the rest is waited for awake.
_AWAKE_NS = 200_000
_LONGEST_SLEEP_NS = 50_000_000
_MOST_COUNTED = 1 << 16


class Arrivals:
    """Times of a Poisson process, in nanoseconds after its begin; taken one by one.

    Args:
        rate_per_s: How many arrive in a second on average.
        seed: What the times are drawn from.
    """

    def __init__(self, rate_per_s: float, seed: int) -> None:
        self._rate = rate_per_s
        self._dice = random.Random(seed)  # noqa: S311 - a seed is the point
        self._lock = threading.Lock()
        self._at_s = 0.0
        self.taken = 0

    def take(self) -> int:
        """Give the next one."""
        with self._lock:
            self._at_s += self._dice.expovariate(self._rate)
            self.taken += 1
            return int(self._at_s * 1e9)

    def due_by(self, elapsed_ns: int) -> int:
        """Say how many of those not taken arrive until then; nobody takes any afterwards.

        They are counted one by one up to `_MOST_COUNTED`; what a hopeless rate has left
        waiting beyond is what that rate gives on average.
        """
        for count in range(_MOST_COUNTED):
            if self.take() > elapsed_ns:
                return count
        return _MOST_COUNTED + max(0, int((elapsed_ns / 1e9 - self._at_s) * self._rate))


class _Stream:
    """One thread: its calls, and what it measured."""

    def __init__(self, calls: List[Call], offset: int) -> None:
        self.calls = calls
        self.offset = offset
        self.samples = array.array("q")
        #: When each began, or arrived.
        self.at = array.array("q")
        #: What the call alone took, where a sample has waiting in it.
        self.service = array.array("q")
        self.count = 0
        self.error = None  # type: Optional[BaseException]

    def grow(self) -> None:
        for column in (self.samples, self.at, self.service):
            column.frombytes(bytes(8 * _BLOCK))


class _Crew:
    """All the streams of one measurement."""

    def __init__(self, streams: List[_Stream], pace: Pace, clock: Clock) -> None:
        self._streams = streams
        self._pace = pace
        self._clock = clock
        self._is_over = False
        self._start = threading.Barrier(len(streams) + 1)
        self.began = 0

    def run(self, arrivals: Optional[Arrivals]) -> None:
        """Let all run until the pace says it is enough, and wait for the last one."""
        share = -(-self._pace.limit // len(self._streams))
        threads = [
            threading.Thread(target=self._work, args=(stream, share, arrivals), daemon=True)
            for stream in self._streams
        ]
        for thread in threads:
            thread.start()
        self.began = self._clock()
        tick = self._pace.begin(self.began)
        self._start.wait()
        for thread in threads:
            while thread.is_alive():
                thread.join(_WATCH_S)
                now = self._clock()
                if tick and now >= tick:
                    columns = [stream.samples for stream in self._streams]
                    counts = [stream.count for stream in self._streams]
                    tick = self._pace.look(columns, counts, now)
                if not tick or any(stream.error for stream in self._streams):
                    self._is_over = True
        self.wall_ns = max(0, self._clock() - self.began)
        for stream in self._streams:
            if stream.error is not None:
                raise stream.error

    def _work(self, stream: _Stream, share: int, arrivals: Optional[Arrivals]) -> None:
        try:
            self._start.wait()
            if arrivals is None:
                self._close_loop(stream, share)
            else:
                self._serve(stream, arrivals)
        except BaseException as exc:  # noqa: BLE001 - the thread that waits for us raises it
            stream.error = exc

    def _close_loop(self, stream: _Stream, share: int) -> None:
        clock, calls, index = self._clock, stream.calls, 0
        while index < share and not self._is_over:
            function, arguments = calls[(index + stream.offset) % len(calls)]
            if index == len(stream.samples):
                stream.grow()
            start = clock()
            function(*arguments)
            end = clock()
            stream.samples[index] = end - start
            stream.at[index] = start
            index += 1
            stream.count = index

    def _serve(self, stream: _Stream, arrivals: Arrivals) -> None:
        clock, calls, index = self._clock, stream.calls, 0
        while not self._is_over and arrivals.taken < self._pace.limit:
            due = self.began + arrivals.take()
            function, arguments = calls[(index + stream.offset) % len(calls)]
            if index == len(stream.samples):
                stream.grow()
            if not self._wait_until(due):
                return
            start = clock()
            function(*arguments)
            end = clock()
            stream.samples[index] = end - due
            stream.at[index] = due
            stream.service[index] = end - start
            index += 1
            stream.count = index

    def _wait_until(self, due: int) -> bool:
        """Wait for an arrival; say whether it came before the end."""
        while True:
            left = due - self._clock()
            if left <= 0:
                return True
            if self._is_over:
                return False
            if left > _AWAKE_NS:
                time.sleep(min(left - _AWAKE_NS, _LONGEST_SLEEP_NS) / 1e9)
            elif len(self._streams) > 1:
                time.sleep(0)  # others may have the interpreter


def measure_streams(
    chain: Chain,
    vectors: List[Dict[str, RawTensor]],
    warm_up: Optional[Pace],
    pace: Pace,
    *,
    streams: int,
    batch: int = 1,
    rate_per_s: float = 0.0,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> Measurement:
    """Run the vectors on several streams at once; with a rate, as they arrive.

    Args:
        chain: What is loaded; the streams beyond the first get twins of it.
        vectors: Inputs.
        warm_up: How to warm up, all streams at once and without pauses; None does not.
        pace: How long to measure.
        streams: How many runs are made at the same time at most.
        batch: Inferences that are timed together.
        rate_per_s: Arrivals per second; 0 has every stream make one run after the other.
        seed: What the arrivals are drawn from.
        clock: Gives nanoseconds.
    """
    chains = [chain] + [chain.twin() for _ in range(streams - 1)]
    calls = [each.calls(vectors, batch) for each in chains]
    found = Measurement(1, 0)
    with no_garbage():
        if warm_up is not None:
            warm = _Crew(
                [_Stream(each, number) for number, each in enumerate(calls)], warm_up, clock
            )
            warm.run(None)
            made = sum(stream.count for stream in warm._streams)
            found.warm_up = {"runs": made, "ns": warm.wall_ns, "stopped": warm_up.stopped}
        arrivals = Arrivals(rate_per_s, seed) if rate_per_s else None
        working = [_Stream(each, number) for number, each in enumerate(calls)]
        crew = _Crew(working, pace, clock)
        pace.announce()
        crew.run(arrivals)
        pace.over()
    found.wall_ns = crew.wall_ns
    found.stopped = pace.stopped
    counts = [stream.count for stream in working]
    pace.settle_account([stream.samples for stream in working], counts)
    found.half_width = pace.half_width
    in_order = sorted(
        (stream.at[i], stream.samples[i], stream.service[i])
        for stream in working
        for i in range(stream.count)
    )
    found.samples = array.array("q", [sample for _, sample, _ in in_order])
    found.runs = len(in_order)
    found.more = {"runs_by_stream": counts}
    if arrivals is not None:
        found.more["waiting_at_end"] = arrivals.due_by(crew.wall_ns)
        found.more["service_ns"] = (
            sorted(service for _, _, service in in_order)[len(in_order) // 2]
            if in_order
            else None
        )
    found.cut()
    if len(chain.parts) == 1 and arrivals is None:
        found.parts = [found.samples]
    return found
