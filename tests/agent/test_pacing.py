"""When a warm-up is over and enough was measured, by clocks and samples made up for it."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from edgesdk.bench.values import MAX_SAMPLES

Modules = Callable[[str], Any]
MS = 1_000_000


class Clock:
    """Moves on by what each run takes; the part below reads it before and after."""

    def __init__(self) -> None:
        self.now = 10**12

    def __call__(self) -> int:
        return self.now


class FakePart:
    """A part whose runs take what a function of their number says."""

    input_names = ("x",)

    def __init__(self, clock: Clock, takes: Callable[[int], int]) -> None:
        self._clock, self._takes = clock, takes
        self.runs = 0

    def prepare(self, values: Any) -> Any:
        return values

    def bind(self, feeds: Any) -> Any:
        return self._run, (feeds,)

    def _run(self, feeds: Any) -> None:
        self._clock.now += self._takes(self.runs)
        self.runs += 1


def measure(
    modules: Modules,
    takes: Callable[[int], int],
    *,
    warm: dict[str, Any] | None = None,
    **fields: Any,
) -> Any:
    """Measure a fake part; gives the measurement, and what was reported."""
    chain_of, pacing, loops = (
        modules("edge_agent." + name) for name in ("chain", "pacing", "loops")
    )
    clock = Clock()
    chain = chain_of.Chain(["x"], ["y"])
    chain.parts.append(FakePart(clock, takes))
    told: list[tuple[Any, ...]] = []

    def pace(step: str, **given: Any) -> Any:
        usual = {"least": 0, "most": 1 << 20, "duration_ns": 0}
        report = lambda *said: told.append(said)  # noqa: E731 - one line says it
        return pacing.Pace(**usual | given, report=report, step=step)

    found = loops.measure_one_stream(
        chain,
        [{"x": 1}],
        None if warm is None else pace("warm up", **warm),
        pace("run", **fields),
        clock=clock,
    )
    return found, told


def noisy(sigma: float, seed: int = 1) -> Callable[[int], int]:
    dice = random.Random(seed)
    return lambda run: int(MS * dice.lognormvariate(0, sigma))


def test_a_fixed_number_of_runs_is_just_that(agent_modules: Modules) -> None:
    found, told = measure(agent_modules, lambda run: MS, least=7)
    assert list(found.samples) == [MS] * 7
    assert found.stopped == "runs"
    assert [said[3]["phase"] for said in told if "phase" in said[3]] == ["counted", "over"]


def test_time_ends_it_where_the_runs_do_not(agent_modules: Modules) -> None:
    found, _ = measure(agent_modules, lambda run: MS, least=10_000, duration_ns=50 * MS)
    assert found.runs == 50
    assert found.stopped == "time"


@pytest.mark.parametrize(("sigma", "most"), [(0.02, 450), (0.3, 20_000)])
def test_it_goes_on_until_the_median_is_known(
    agent_modules: Modules, sigma: float, most: int
) -> None:
    found, _ = measure(agent_modules, noisy(sigma), least=400, until=0.01, duration_ns=10**12)
    assert found.stopped == "interval"
    assert 400 <= found.runs <= most
    assert found.half_width <= 0.01
    assert statistics.median(found.samples) == pytest.approx(MS, rel=0.02)


def test_noise_that_never_ends_is_cut_off_by_patience(agent_modules: Modules) -> None:
    drift = lambda run: MS if run // 97 % 2 else 2 * MS  # noqa: E731 - a clock that flips
    found, _ = measure(
        agent_modules, drift, least=400, until=0.001, patience_ns=2000 * MS, duration_ns=10**12
    )
    assert found.stopped == "time"
    assert 1000 <= found.runs <= 4000
    assert found.half_width > 0.001


def test_runs_that_are_alike_are_not_taken_as_independent(agent_modules: Modules) -> None:
    """Slow drift: an interval of single runs would be narrow, the one by batches is not."""
    width = agent_modules("edge_agent.pacing").half_width
    slow = [int(MS * (1 + 0.2 * (run / 2000))) for run in range(2000)]
    mixed = random.Random(1).sample(slow, len(slow))
    assert width([slow], [len(slow)]) > 4 * width([mixed], [len(mixed)])


def test_the_interval_covers_the_median_as_often_as_it_says(agent_modules: Modules) -> None:
    """The half-width is of an interval between order statistics: look at those."""
    dice = random.Random(7)
    inside = 0
    for _ in range(400):
        medians = sorted(
            statistics.median(dice.lognormvariate(0, 0.5) for _ in range(9)) for _ in range(20)
        )
        inside += medians[5] <= 1.0 <= medians[14]
    assert inside >= 0.93 * 400


def test_too_few_runs_have_no_interval(agent_modules: Modules) -> None:
    width = agent_modules("edge_agent.pacing").half_width
    assert width([[1] * 59], [59]) is None
    assert width([[1] * 60], [60]) == 0.0


def test_a_warm_up_goes_on_while_runs_get_faster(agent_modules: Modules) -> None:
    def takes(run: int) -> int:
        return max(MS, int(10 * MS * 0.97**run))  # settles after about 76 runs

    found, _ = measure(
        agent_modules, takes, warm={"settle": True, "least": 3, "duration_ns": 10**10}, least=20
    )
    assert found.warm_up["stopped"] == "settled"
    assert 76 <= found.warm_up["runs"] <= 250
    assert set(found.samples) == {MS}


def test_a_warm_up_that_does_not_settle_ends_with_its_time(agent_modules: Modules) -> None:
    found, _ = measure(
        agent_modules,
        lambda run: int(100 * MS * 0.99**run) + 1,
        warm={"settle": True, "duration_ns": 1000 * MS},
        least=5,
    )
    assert found.warm_up["stopped"] == "time"


def test_a_device_that_throttles_is_not_taken_for_cold(agent_modules: Modules) -> None:
    found, _ = measure(
        agent_modules,
        lambda run: int(MS * 1.002**run),
        warm={"settle": True, "duration_ns": 10**12},
        least=5,
    )
    assert found.warm_up["stopped"] == "settled"
    assert found.warm_up["runs"] < 150


def test_a_clock_that_goes_back_loses_those_runs_only(agent_modules: Modules) -> None:
    def takes(run: int) -> int:
        return -3_600_000 * MS if run in (10, 30) else MS

    found, _ = measure(agent_modules, takes, least=10**6, duration_ns=500 * MS)
    assert found.clock_went_back == 2
    assert set(found.samples) == {MS}
    assert 100 <= found.runs <= 600  # an hour back does not make it an hour longer
    assert found.stopped == "time"


def test_events_tell_how_it_goes(agent_modules: Modules) -> None:
    _, told = measure(agent_modules, noisy(0.1), least=3000)
    live = [said[3] for said in told if "recent_ns" in said[3]]
    assert len(live) >= 4
    assert all(0 < len(each["recent_ns"]) <= 49 for each in live)
    assert sum(each["since"] for each in live) <= 3000
    assert all(said[2] == 3000 for said in told if "recent_ns" in said[3])


def test_all_runs_of_a_slow_model_are_told_of(agent_modules: Modules) -> None:
    """So that what was measured until a device is lost is all there."""
    slow, told = measure(agent_modules, lambda run: (90 + run) * MS, least=40)
    recent = [ns for said in told for ns in said[3].get("recent_ns", [])]
    assert recent == list(slow.samples)[: len(recent)]
    assert len(recent) >= 34


def test_room_is_made_for_more_samples_than_were_expected(agent_modules: Modules) -> None:
    found, _ = measure(agent_modules, lambda run: 5, least=70_000)
    assert found.runs == len(found.samples) == 70_000


def test_no_more_runs_are_made_than_the_host_takes(
    agent_modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = agent_modules("edge_agent.timing")
    chain, clock = agent_modules("edge_agent.chain").Chain(["x"], ["y"]), Clock()
    chain.parts.append(FakePart(clock, lambda _: MS))
    limits = []

    def measure_nothing(_chain: Any, _vectors: Any, _warm_up: Any, pace: Any, **_: Any) -> Any:
        limits.append(pace.limit)
        return agent_modules("edge_agent.loops").Measurement(1, 1)

    monkeypatch.setattr(timing, "measure_one_stream", measure_nothing)
    asked = {"warmup_runs": 0, "runs": 400, "duration_s": 60.0, "until": 0.01}
    for more in ({}, {"runs": 0, "until": None}, {"runs": 1 << 30}):
        timing.make_benchmark(chain, {**asked, **more}, [lambda: {"x": 1}], lambda *_: None)
    assert limits == [MAX_SAMPLES] * 3
