"""What samples show: found where it is, and rarely where it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgesdk.bench.diagnose import Diagnosis, diagnose

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Make = Callable[[np.random.Generator], Floats]
ROUNDS = 120


def clean(dice: np.random.Generator, count: int = 400, sigma: float = 0.08) -> Floats:
    """Lognormal times around 2 ms, of which 2 % are interrupted and take up to ten times."""
    times = 2.0 * np.exp(dice.normal(0.0, sigma, count))
    hit = dice.random(count) < 0.02
    times[hit] *= dice.uniform(2.0, 10.0, int(hit.sum()))
    return times


def linked(dice: np.random.Generator, count: int, rho: float) -> Floats:
    noise = dice.normal(0.0, 0.05, count)
    for k in range(1, count):
        noise[k] += rho * noise[k - 1]
    return 2.0 * np.exp(noise)


def share(make: Make, found: Callable[[Diagnosis], object], *, seed: int = 0) -> float:
    dice = np.random.default_rng(seed)
    return sum(bool(found(diagnose(make(dice)))) for _ in range(ROUNDS)) / ROUNDS


CLEAN: dict[str, Make] = {
    "short": lambda dice: clean(dice, 60),
    "usual": clean,
    "long": lambda dice: clean(dice, 2000),
    "wide": lambda dice: clean(dice, sigma=0.5),
    "heavy-tailed": lambda dice: 1.0 + dice.pareto(2.5, 400),
    "coarse clock": lambda dice: np.round(clean(dice, 1000, 0.03) * 50) / 50,
    "linked": lambda dice: linked(dice, 1000, 0.7),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_samples_raise_hardly_an_alarm(name: str) -> None:
    dice = np.random.default_rng(3)
    found = [diagnose(CLEAN[name](dice)) for _ in range(ROUNDS)]
    # at a true rate of 1 % five of 120 come up in one of 250 sets
    assert sum(each.drift is not None for each in found) <= 4
    assert sum(each.modes is not None for each in found) <= 4
    assert sum(each.warmup_left > 0 for each in found) <= 4


def test_drift_is_found_with_its_size() -> None:
    line = np.linspace(1.0, 1.10, 400)
    assert share(lambda d: clean(d) * line, lambda f: f.drift) >= 0.9
    dice = np.random.default_rng(1)
    sizes = [
        f.drift for _ in range(50) if (f := diagnose(clean(dice) * line)).drift is not None
    ]
    assert np.median(sizes) == pytest.approx(0.10, abs=0.025)


def test_drift_is_found_among_neighbours_that_agree() -> None:
    line = np.linspace(1.0, 0.85, 2000)
    assert share(lambda d: linked(d, 2000, 0.5) * line, lambda f: (f.drift or 0.0) < 0.0) >= 0.9


def test_drift_that_does_not_matter_is_not_named() -> None:
    line = np.linspace(1.0, 1.01, 1000)
    assert share(lambda d: clean(d, 1000, 0.02) * line, lambda f: f.drift) <= 0.02


def test_warm_up_that_is_left_is_found_with_its_length() -> None:
    steps = np.concatenate([np.full(20, 1.3), np.ones(380)])
    dice = np.random.default_rng(2)
    found = [diagnose(clean(dice) * steps) for _ in range(ROUNDS)]
    lengths = [each.warmup_left for each in found if each.warmup_left]
    assert len(lengths) >= 0.95 * ROUNDS
    assert 10 <= np.median(lengths) <= 30
    decay = 1.0 + 0.4 * np.exp(-np.arange(400) / 15)
    assert share(lambda d: clean(d) * decay, lambda f: f.warmup_left) >= 0.9


def test_drift_is_not_called_a_warm_up_nor_the_other_way_round() -> None:
    line = np.linspace(1.1, 1.0, 400)
    assert share(lambda d: clean(d, sigma=0.04) * line, lambda f: f.warmup_left) <= 0.15
    steps = np.concatenate([np.full(20, 1.3), np.ones(380)])
    assert share(lambda d: clean(d) * steps, lambda f: f.drift) <= 0.03


@pytest.mark.parametrize(("slow_share", "factor"), [(0.5, 1.2), (0.4, 1.3), (0.25, 1.3)])
def test_two_modes_are_found_where_they_are(slow_share: float, factor: float) -> None:
    def make(dice: np.random.Generator) -> Floats:
        return clean(dice, sigma=0.03) * np.where(dice.random(400) < slow_share, factor, 1.0)

    assert share(make, lambda f: f.modes) >= 0.9
    modes = diagnose(make(np.random.default_rng(4))).modes
    assert modes is not None
    assert modes.fast_ms == pytest.approx(2.0, rel=0.02)
    assert modes.slow_ms == pytest.approx(2.0 * factor, rel=0.02)
    assert modes.slow_share == pytest.approx(slow_share, abs=0.1)


def test_outliers_are_named_with_their_share_of_runs_and_time() -> None:
    times = np.full(100, 2.0) + np.linspace(0, 0.02, 100)
    times[[20, 40, 60]] = 20.0
    outliers = diagnose(times).outliers
    assert outliers is not None
    assert (outliers.count, outliers.share) == (3, 0.03)
    assert outliers.time_share == pytest.approx(60 / (60 + 97 * 2.01), rel=0.01)
    assert 2.02 < outliers.above_ms < 3
    assert diagnose(times[:20]).outliers is None


def test_neighbours_that_agree_make_fewer_independent_samples() -> None:
    dice = np.random.default_rng(5)
    assert diagnose(clean(dice)).effective_samples > 250
    assert diagnose(linked(dice, 2000, 0.9)).effective_samples < 300


@pytest.mark.parametrize("times", [[], [1.0], [2.0] * 19, [2.0] * 500, [0.0] * 50])
def test_few_or_equal_samples_tell_nothing(times: list[float]) -> None:
    found = diagnose(times)
    assert (found.drift, found.modes, found.outliers) == (None, None, None)
    assert (found.warmup_left, found.count) == (0, len(times))


def test_a_million_samples_are_looked_at_within_seconds() -> None:
    dice = np.random.default_rng(6)
    found = diagnose(clean(dice, 1_000_000) * np.linspace(1.0, 1.06, 1_000_000))
    assert found.drift == pytest.approx(0.06, abs=0.01)
    assert found.count == 1_000_000


@pytest.mark.parametrize("zeros", [0.55, 0.65, 0.75])
def test_runs_too_short_for_the_clock_are_survived(zeros: float) -> None:
    """Where more than half of what follows the first runs is 0, there is no share of it."""
    dice = np.random.default_rng(3)
    for _ in range(20):
        later = np.where(dice.random(270) < zeros, 0.0, 1.0)
        found = diagnose([1.0] * 130 + later.tolist())
        assert found.count == 400
        assert np.isfinite([found.warmup_share, found.drift or 0.0]).all()
