"""Several streams, arrivals, batches, and what lies around a call."""

from __future__ import annotations

import itertools
import math
import statistics
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

Modules = Callable[[str], Any]
FLOATS = {"name": "x", "dtype": "float32", "shape": ["n", 2]}


class SleepyPart:
    """Takes a while without the interpreter, and may be given to several threads."""

    input_names = ("x",)
    output_names = ("y",)

    def __init__(self, raw: Any, seconds: float, *, shares: bool = True) -> None:
        self._raw, self._seconds, self._shares = raw, seconds, shares
        self.busy = self.most_busy = 0
        self.fail = False
        self.seen: list[Any] = []
        self._lock = threading.Lock()

    def prepare(self, values: Any) -> Any:
        return values["x"]

    def bind(self, feeds: Any) -> Any:
        return self._run, (feeds,)

    def _run(self, value: Any) -> Any:
        with self._lock:
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
            self.seen.append(value)
        time.sleep(self._seconds)
        with self._lock:
            self.busy -= 1
        if self.fail:
            raise RuntimeError("the runtime gave up")
        return value

    def named(self, result: Any) -> Any:
        return {"y": result}

    def twin(self) -> Any:
        return self if self._shares else None


def sleepy(modules: Modules, seconds: float, **fields: Any) -> tuple[Any, SleepyPart, Any]:
    raw = modules("edge_agent.runtimes.base").RawTensor
    chain = modules("edge_agent.chain").Chain(["x"], ["y"])
    part = SleepyPart(raw, seconds, **fields)
    chain.parts.append(part)
    chain.records.append({"runtime": "sleepy"})
    chain._loads.append(lambda: sleepy(modules, seconds)[1])
    vector = {"x": raw("float32", [1, 2], struct.pack("<2f", 1.0, 2.0))}
    return chain, part, vector


def bench(modules: Modules, chain: Any, vector: Any, **asked: Any) -> tuple[Any, Any]:
    usual = {"warmup_runs": 0, "runs": 0, "duration_s": 0.0}
    make = modules("edge_agent.timing").make_benchmark
    return make(chain, usual | asked, [lambda: vector], lambda *said: None)


def test_streams_run_at_the_same_time(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.01)
    found, reply = bench(agent_modules, chain, vector, runs=40, streams=4, warmup_runs=4)
    assert part.most_busy == 4
    assert found.runs == 40
    assert reply["scenario"]["runs_by_stream"] == [10] * 4
    assert reply["wall_s"] < 0.75 * sum(found.samples) / 1e9
    assert min(found.samples) >= 10_000_000


def test_a_part_that_cannot_be_shared_is_loaded_again(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.002, shares=False)
    loaded: list[Any] = []

    def load() -> Any:
        loaded.append(sleepy(agent_modules, 0.002)[1])
        return loaded[-1]

    chain._loads[:] = [load]
    bench(agent_modules, chain, vector, runs=9, streams=3)
    assert len(loaded) == 2
    assert {each.most_busy for each in [part, *loaded]} == {1}


def test_an_error_in_a_stream_is_the_answer(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.001)
    part.fail = True
    with pytest.raises(RuntimeError, match="the runtime gave up"):
        bench(agent_modules, chain, vector, runs=1000, streams=2)


def test_arrivals_are_a_poisson_process(agent_modules: Modules) -> None:
    arrivals = agent_modules("edge_agent.streams").Arrivals(1000.0, 5)
    at = [arrivals.take() for _ in range(20_000)]
    gaps = [b - a for a, b in itertools.pairwise(at)]
    mean = statistics.fmean(gaps)
    assert mean == pytest.approx(1e6, rel=0.03)
    assert statistics.pstdev(gaps) == pytest.approx(mean, rel=0.05)  # of an exponential
    assert sum(gap > 2e6 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-2), abs=0.01)
    again = agent_modules("edge_agent.streams").Arrivals(1000.0, 5)
    assert [again.take() for _ in range(50)] == at[:50]


@pytest.mark.timeout(30)
def test_a_hopeless_rate_does_not_hold_up_the_end(agent_modules: Modules) -> None:
    """A day at a million arrivals a second, of which nobody takes any."""
    arrivals = agent_modules("edge_agent.streams").Arrivals(1e6, 5)
    expected = 86_400 * 1_000_000
    assert arrivals.due_by(86_400 * 10**9) == pytest.approx(expected, rel=1e-3)


def test_latency_of_a_server_counts_from_the_arrival(agent_modules: Modules) -> None:
    """More arrive than can be served: what waits gets later and later."""
    chain, _, vector = sleepy(agent_modules, 0.004)
    found, reply = bench(
        agent_modules, chain, vector, rate_per_s=2000.0, seed=3, duration_s=0.4
    )
    samples = list(found.samples)
    assert samples[-1] > 10 * samples[0]
    assert samples[-1] > 200_000_000
    assert reply["scenario"]["waiting_at_end"] > 300
    assert 4_000_000 <= reply["scenario"]["service_ns"] < samples[-1] / 4
    assert reply["parts"][0]["median_ms"] is None  # what it waited is no time of a part


def test_a_server_that_keeps_up_waits_for_arrivals(agent_modules: Modules) -> None:
    chain, _, vector = sleepy(agent_modules, 0.0005)
    found, reply = bench(
        agent_modules, chain, vector, rate_per_s=50.0, seed=3, duration_s=0.6, streams=2
    )
    assert 10 <= found.runs <= 60
    assert reply["scenario"]["waiting_at_end"] <= 2
    assert min(found.samples) >= 500_000


def test_a_batch_is_one_call_where_the_first_extent_is_open(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.0)
    _, reply = bench(agent_modules, chain, vector, runs=3, batch=5)
    assert reply["one_call"] is True
    assert [value.shape for value in part.seen] == [[5, 2]] * 3
    assert struct.unpack("<10f", part.seen[0].data) == (1.0, 2.0) * 5


def test_a_batch_is_call_after_call_where_it_is_fixed(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.0)
    chain.is_open = False
    found, reply = bench(agent_modules, chain, vector, runs=3, batch=5)
    assert reply["one_call"] is False
    assert found.runs == 3
    assert [value.shape for value in part.seen] == [[1, 2]] * 15


@pytest.mark.parametrize(
    ("dtype", "code", "values", "odd"),
    [
        ("float32", "f", (1.0, math.nan, math.inf), 2),
        ("float64", "d", (1.0, -math.inf), 1),
        ("float16", "e", (1.0, math.nan), 1),
        ("float32", "f", (0.0, 3e38), 0),
    ],
)
def test_odd_outputs_are_counted(
    agent_modules: Modules, dtype: str, code: str, values: tuple[float, ...], odd: int
) -> None:
    raw = agent_modules("edge_agent.runtimes.base").RawTensor
    data = struct.pack(f"<{len(values)}{code}", *values)
    count = agent_modules("edge_agent.handover").count_odd
    assert count(raw(dtype, [len(values)], data)) == odd
    assert count(raw("int32", [1], b"\xff\xff\xff\xff")) == 0


def test_what_lies_around_a_call_is_told_apart(agent_modules: Modules) -> None:
    chain, part, vector = sleepy(agent_modules, 0.003)
    slow = part.prepare

    def prepare(values: Any) -> Any:
        time.sleep(0.006)
        return slow(values)

    part.prepare = prepare  # type: ignore[method-assign]  # only this part is slow
    _, reply = bench(agent_modules, chain, vector, runs=3, around=True)
    around = reply["around"]
    assert around["runs"] >= 1
    assert 3_000_000 <= around["calls_ns"] < around["in_ns"]
    assert around["in_ns"] >= 6_000_000
    assert around["out_ns"] < 3_000_000


def test_threads_stay_on_the_processors_asked_for(agent_modules: Modules) -> None:
    import os

    ours = os.sched_getaffinity(0)
    kept_on = agent_modules("edge_agent.affinity").kept_on
    failed = agent_modules("edge_agent.runtimes.base").RuntimeFailed
    one = [min(ours)]
    with kept_on(one):
        assert os.sched_getaffinity(0) == set(one)
        seen: list[set[int]] = []
        thread = threading.Thread(target=lambda: seen.append(os.sched_getaffinity(0)))
        thread.start()
        thread.join()
        assert seen == [set(one)]
    assert os.sched_getaffinity(0) == ours
    with pytest.raises(failed, match="may not run on cpu 4000"), kept_on([4000]):
        pass
