"""The dip statistic, against values that can be worked out and sets drawn anew."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.bench.dip import DIP_LIMITS, dip, dip_limit, spread_ties


def test_two_far_points_have_half_of_the_larger_gap() -> None:
    # half of the samples at each end: no function with one mode comes nearer than 1/4
    far = np.concatenate([np.linspace(0, 1e-6, 500), np.linspace(1, 1 + 1e-6, 500)])
    assert dip(far) == pytest.approx(0.25, abs=0.002)


@pytest.mark.parametrize("count", [2, 5, 100])
def test_evenly_spaced_samples_have_the_smallest_dip(count: int) -> None:
    assert dip(np.arange(float(count))) == pytest.approx(0.5 / count)


def test_dip_follows_no_shift_no_scale_and_no_order() -> None:
    dice = np.random.default_rng(1)
    values = np.concatenate([dice.normal(0, 1, 80), dice.normal(4, 1, 60)])
    wanted = dip(values)
    assert wanted > 0.04
    assert dip(dice.permutation(values) * 7.5 - 3.0) == pytest.approx(wanted)
    assert dip(-values) == pytest.approx(wanted)


def test_equal_samples_have_no_dip() -> None:
    assert dip(np.full(10, 3.0)) == 0.05
    assert dip(np.array([1.0])) == 0.5


@pytest.mark.parametrize("count", [20, 100, 300])
def test_limits_are_exceeded_by_one_set_in_a_hundred(count: int) -> None:
    dice = np.random.default_rng(count)
    dips = [dip(dice.random(count)) for _ in range(400)]
    above = sum(each > dip_limit(count) for each in dips)
    assert above <= 0.01 * len(dips) + 3 * np.sqrt(0.01 * len(dips))
    # and a limit a fifth lower would be exceeded too often
    assert sum(each > 0.8 * dip_limit(count) for each in dips) > 0.02 * len(dips)


def test_limits_rise_with_the_number_of_samples() -> None:
    assert [limit for _, limit in DIP_LIMITS] == sorted(limit for _, limit in DIP_LIMITS)
    assert dip_limit(20) > dip_limit(200) > dip_limit(2000)


def test_ticks_of_a_clock_are_no_modes() -> None:
    dice = np.random.default_rng(2)
    ticks = np.round(dice.normal(50, 3, 2000))
    assert dip(np.sort(ticks)) > dip_limit(2000)
    assert dip(spread_ties(ticks)) < dip_limit(2000)
    assert np.abs(np.sort(ticks) - spread_ties(ticks)).max() <= 0.5
