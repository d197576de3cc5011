"""Rounding by the data: never worse than to nearest, and near the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError
from edgesdk.quantize.rounding import Order, inverse_root, output_error, round_weights


def _second(width: int, *, seed: int = 0, groups: int = 1, samples: int = 0) -> np.ndarray:
    """Moments of inputs that depend on each other, as those of a network do."""
    random = np.random.default_rng(seed)
    mix = random.standard_normal((groups, width, width)) / np.sqrt(width)
    x = random.standard_normal((groups, samples or 4 * width, width)) @ mix
    x = np.maximum(x + 0.3, 0)
    second: np.ndarray = x.transpose(0, 2, 1) @ x / x.shape[1]
    return second


def _errors(
    weight: np.ndarray, scale: np.ndarray, whole: np.ndarray, second: np.ndarray
) -> np.ndarray:
    return output_error(weight - whole * scale[:, None], second)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_row_is_worse_than_rounded_to_nearest(data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 4))
    width = data.draw(st.integers(1, 12))
    rows = groups * data.draw(st.integers(1, 5))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    second = _second(
        width,
        seed=data.draw(st.integers(0, 1 << 30)),
        groups=groups,
        samples=data.draw(st.integers(1, 40)),
    )
    dead = random.random((groups, width)) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    second = second * ~dead[:, None, :] * ~dead[:, :, None]
    second *= 10.0 ** data.draw(st.integers(-12, 12))
    weight = random.standard_normal((rows, width)) * 10.0 ** data.draw(st.integers(-6, 6))
    low, high = data.draw(st.sampled_from([(-127, 127), (-8, 7), (-1, 1), (0, 15), (-64, 64)]))
    scale = np.abs(weight).max(axis=1) / max(high, 1) * data.draw(st.floats(0.3, 2)) + 1e-30
    whole = round_weights(
        weight,
        scale,
        second,
        low=low,
        high=high,
        damp=data.draw(st.sampled_from([1e-6, 0.01, 1.0])),
        order=data.draw(st.sampled_from(["activation", "given"])),
        sweeps=data.draw(st.integers(0, 2)),
    )
    assert whole.dtype == np.int32
    assert low <= whole.min()
    assert whole.max() <= high
    nearest = np.clip(np.rint(weight / scale[:, None]), low, high)
    before = _errors(weight, scale, nearest, second)
    after = _errors(weight, scale, whole, second)
    assert (after <= before * (1 + 1e-9) + 1e-300).all()


@pytest.mark.parametrize("order", ["activation", "given"])
def test_the_error_is_a_fraction_of_that_of_rounding_to_nearest(order: Order) -> None:
    second = _second(96)
    weight = np.random.default_rng(3).standard_normal((40, 96))
    scale = np.abs(weight).max(axis=1) / 7
    nearest = np.rint(weight / scale[:, None])
    before = _errors(weight, scale, nearest, second).sum()
    whole = round_weights(weight, scale, second, low=-7, high=7, order=order)
    assert _errors(weight, scale, whole, second).sum() < 0.5 * before


def test_rows_of_four_come_near_the_best_of_all_roundings() -> None:
    second = _second(4, seed=5)
    weight = np.random.default_rng(6).standard_normal((20, 4))
    scale = np.full(20, 0.5)
    whole = round_weights(weight, scale, second, low=-8, high=7, damp=1e-6, sweeps=3)
    down = np.floor(weight / 0.5)
    each = [down + np.array(up) for up in itertools.product((-1, 0, 1, 2), repeat=4)]
    best = np.min([_errors(weight, scale, one, second) for one in each], axis=0)
    seen = _errors(weight, scale, whole, second)
    assert (seen <= 1e-12 + best).mean() > 0.7
    assert seen.sum() < 1.2 * best.sum()


def test_sweeps_only_lower_the_error() -> None:
    second = _second(130, groups=2)
    weight = np.random.default_rng(3).standard_normal((12, 130))
    scale = np.abs(weight).max(axis=1) / 7
    sums = [
        _errors(
            weight,
            scale,
            round_weights(weight, scale, second, low=-7, high=7, sweeps=n),
            second,
        ).sum()
        for n in (0, 1, 2, 4)
    ]
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] < sums[0]


@pytest.mark.parametrize("width", [9, 130])
def test_groups_are_rounded_as_if_each_stood_alone(width: int) -> None:
    second = _second(width, groups=3)
    weight = np.random.default_rng(3).standard_normal((6, width))
    scale = np.abs(weight).max(axis=1) / 7
    together = round_weights(weight, scale, second, low=-7, high=7)
    alone = [
        round_weights(
            weight[2 * at : 2 * at + 2],
            scale[2 * at : 2 * at + 2],
            second[at],
            low=-7,
            high=7,
        )
        for at in range(3)
    ]
    assert np.array_equal(together, np.concatenate(alone))


def test_blocks_change_nothing_but_the_time() -> None:
    """The plain algorithm, one column and one update at a time."""
    width = 150
    second = _second(width)[0]
    weight = np.random.default_rng(3).standard_normal((7, width))
    damped = second + 0.01 * np.diag(second).mean() * np.eye(width)
    root = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, plain = weight / 0.3, np.zeros((7, width))
    for at in range(width):
        plain[:, at] = np.clip(np.rint(left[:, at]), -7, 7)
        error = (left[:, at] - plain[:, at]) / root[at, at]
        left[:, at:] -= error[:, None] * root[at, at:]
    whole = round_weights(weight, 0.3, second, low=-7, high=7, order="given", sweeps=0)
    assert np.array_equal(whole, plain)


@pytest.mark.parametrize("width", [1, 5, 64, 65, 200])
def test_the_root_is_that_of_the_inverse(width: int) -> None:
    second = _second(width, groups=2) * 1e-9
    root = inverse_root(second, 0.01)
    assert root is not None
    assert np.array_equal(root, np.triu(root))
    mean = np.trace(second, axis1=1, axis2=2)[:, None, None] / width
    inverse = np.linalg.inv(second + 0.01 * mean * np.eye(width))
    np.testing.assert_allclose(root.transpose(0, 2, 1) @ root, inverse, rtol=1e-6)


def test_inputs_that_are_always_zero_take_no_part() -> None:
    second = _second(6)[0]
    second[2] = second[:, 2] = 0
    weight = np.random.default_rng(3).standard_normal((5, 6))
    whole = round_weights(weight, 0.25, second, low=-8, high=7)
    assert np.array_equal(whole[:, 2], np.clip(np.rint(weight[:, 2] / 0.25), -8, 7))
    rest = [0, 1, 3, 4, 5]
    without = round_weights(weight[:, rest], 0.25, second[np.ix_(rest, rest)], low=-8, high=7)
    assert np.array_equal(whole[:, rest], without)


def test_a_layer_that_saw_only_zeros_is_rounded_to_nearest() -> None:
    weight = np.random.default_rng(3).standard_normal((5, 6))
    whole = round_weights(weight, 0.25, np.zeros((6, 6)), low=-8, high=7)
    assert np.array_equal(whole, np.clip(np.rint(weight / 0.25), -8, 7))


def test_weights_or_moments_that_are_not_finite_are_refused() -> None:
    bad = np.eye(3)
    bad[1, 1] = np.nan
    for weight, second in ((np.ones((2, 3)), bad), (np.full((2, 3), np.inf), np.eye(3))):
        with pytest.raises(QuantizeError, match="cannot round weights: some, or the moments"):
            round_weights(weight, 1.0, second, low=-8, high=7)
