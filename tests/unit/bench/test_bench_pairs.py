"""Ratios of pairs: the right answer, and wrong ones no more often than promised."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgesdk.bench.pairs import (
    autocorrelation_time,
    combine_starts,
    hodges_lehmann,
    holm,
    p_above,
    paired_ratio,
)

Starts = list[list[tuple[float, float]]]


def draw(
    dice: np.random.Generator,
    ratio: float,
    *,
    starts: int = 4,
    pairs: int = 40,
    noise: float = 0.03,
    between: float = 0.004,
) -> Starts:
    """Pairs with a load that both feel, spikes that one feels, and an effect of the start."""
    made = []
    for _ in range(starts):
        shared = np.exp(np.cumsum(dice.normal(0, 0.02, pairs)))
        effect = ratio * math.exp(dice.normal(0, between))
        sides = []
        for mean in (effect, 1.0):
            times = mean * shared * np.exp(dice.normal(0, noise, pairs))
            times[dice.random(pairs) < 0.05] *= dice.uniform(1.5, 6.0)
            sides.append(times.tolist())
        made.append(list(zip(*sides, strict=True)))
    return made


def test_ratio_of_equal_pairs_is_exact() -> None:
    found = paired_ratio([[(2.0, 1.0)] * 10] * 3)
    assert found.ratio == pytest.approx(2.0)
    assert found.lower < 2.0 < found.upper
    assert found.upper - found.lower < 1e-3


def test_outliers_of_one_side_do_not_move_the_estimate() -> None:
    pairs = [1.0 + 0.001 * k for k in range(20)]
    calm, _ = hodges_lehmann(np.log(pairs))
    hit, _ = hodges_lehmann(np.log([*pairs[:17], 50.0, 60.0, 70.0]))
    assert abs(hit - calm) < 0.005


def test_interval_holds_the_truth_and_the_alarm_is_rare() -> None:
    dice = np.random.default_rng(6)
    held = alarms = 0
    rounds = 400
    for _ in range(rounds):
        found = paired_ratio(draw(dice, 1.0))
        held += found.lower <= 1.0 <= found.upper
        alarms += p_above(found.ratio, 1.02, found.log_error, found.freedom) <= 0.05
    assert held >= 0.93 * rounds
    assert alarms <= 0.02 * rounds


def test_alarm_at_the_very_bound_is_as_rare_as_its_level() -> None:
    dice = np.random.default_rng(7)
    found = [paired_ratio(draw(dice, 1.02)) for _ in range(400)]
    alarms = sum(p_above(f.ratio, 1.02, f.log_error, f.freedom) <= 0.05 for f in found)
    assert alarms <= 0.07 * len(found)


def test_five_per_cent_more_are_found() -> None:
    dice = np.random.default_rng(8)
    found = [paired_ratio(draw(dice, 1.05)) for _ in range(200)]
    alarms = sum(p_above(f.ratio, 1.02, f.log_error, f.freedom) <= 0.05 for f in found)
    assert alarms >= 0.95 * len(found)


def test_starts_that_disagree_widen_the_interval() -> None:
    close = combine_starts([0.01, 0.011, 0.009], [0.002] * 3)
    apart = combine_starts([0.05, 0.01, -0.03], [0.002] * 3)
    assert apart.upper / apart.lower > 5 * (close.upper / close.lower - 1) + 1
    assert apart.between > 0.03
    assert close.between == 0.0
    # one start alone leaves the most to Student's t
    assert combine_starts([0.0], [0.01]).upper > 1.1


def test_single_pairs_that_happen_to_agree_prove_nothing() -> None:
    found = paired_ratio([[(1.05, 1.0)], [(1.05, 1.0)], [(1.05, 1.0)]])
    assert p_above(found.ratio, 1.02, found.log_error, found.freedom) > 0.005
    assert found.upper - found.lower > 0.02


def test_neighbours_that_agree_count_as_fewer() -> None:
    dice = np.random.default_rng(9)
    noise = dice.normal(size=4000)
    linked = np.zeros(4000)
    for k in range(1, 4000):
        linked[k] = 0.8 * linked[k - 1] + noise[k]
    assert autocorrelation_time(noise) < 1.3
    # (1 + 0.8) / (1 - 0.8) for the values; ranks tell nearly the same
    assert 6 < autocorrelation_time(linked) < 12
    assert autocorrelation_time([1.0] * 50) == 1.0


def test_many_pairs_are_averaged_first_and_give_the_same() -> None:
    dice = np.random.default_rng(10)
    logs = 0.03 + dice.normal(0, 0.02, 5000)
    estimate, error = hodges_lehmann(logs)
    assert abs(estimate - 0.03) < 4 * error
    assert error == pytest.approx(0.02 / math.sqrt(5000), rel=0.5)


def test_holm_gives_what_holm_gives() -> None:
    # from the smallest on times 3, 2 and 1, and never falling
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
