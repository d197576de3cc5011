"""Weights and biases in integers: on their grid, near what they were, with sums that fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgesdk.profiles.values import QuantScheme, SchemeRules
from edgesdk.quantize.weights import (
    bias_as_int32,
    bias_floor,
    quantize_weight,
    weight_grid,
)
from tests.unit.quantize.modes import normal

RULES = SchemeRules(name="test", compute=("Conv",), placement="operators")
PER_CHANNEL = QuantScheme(
    activations="uint8-asymmetric", weights="int8-per-channel-symmetric", rules=RULES
)
PER_TENSOR = replace(PER_CHANNEL, weights="int8-per-tensor-symmetric")
LOPSIDED = replace(PER_CHANNEL, weights="uint8-per-tensor-asymmetric")


def uneven(*shape: int) -> np.ndarray:
    """Give weights whose first axis spans decades."""
    return normal(*shape) * np.logspace(-3, 1, shape[0]).reshape(-1, *[1] * (len(shape) - 1))


def error(weight: np.ndarray, back: np.ndarray) -> float:
    return float(((weight - back) ** 2).sum())


@pytest.mark.parametrize(("shape", "axis"), [((6, 3, 3, 3), 0), ((5, 7), 1), ((4, 3, 5), 2)])
def test_each_channel_has_a_scale_of_its_own(shape: tuple[int, ...], axis: int) -> None:
    weight = np.moveaxis(uneven(shape[axis], *shape[:axis], *shape[axis + 1 :]), 0, axis)
    grid = weight_grid(PER_CHANNEL)
    whole = quantize_weight(weight, grid, axis)
    assert (whole.integers.shape, whole.axis) == (shape, axis)
    others = tuple(i for i in range(len(shape)) if i != axis)
    reach = np.abs(weight).max(axis=others)
    assert whole.scale == pytest.approx(reach / 127)
    assert (np.abs(whole.integers).max(axis=others) == 127).all()
    near = np.abs(whole.numbers() - weight).max(axis=others)
    assert (near <= whole.scale * 0.5001).all()
    assert not whole.zero_point.any()


def test_one_scale_for_all_has_no_axis() -> None:
    weight = normal(6, 3, 3, 3)
    whole = quantize_weight(weight, weight_grid(PER_TENSOR), None)
    assert (whole.scale.shape, whole.zero_point.shape, whole.axis) == ((), (), None)
    assert np.abs(whole.numbers() - weight).max() <= float(whole.scale) * 0.5001


def test_weights_all_above_zero_use_the_whole_of_an_unsigned_grid() -> None:
    weight = np.abs(normal(6, 4)) + 1
    whole = quantize_weight(weight, weight_grid(LOPSIDED), 0)
    assert whole.integers.dtype == np.uint8
    assert (whole.integers.max(), int(whole.zero_point)) == (255, 0)
    assert np.abs(whole.numbers() - weight).max() <= float(whole.scale) * 0.5001


@pytest.mark.parametrize(
    ("scheme", "low", "high"),
    [
        (PER_CHANNEL, -127, 127),
        (replace(PER_CHANNEL, rules=replace(RULES, narrow_weights=False)), -128, 127),
        (replace(PER_CHANNEL, reduce_range=True), -63, 63),
        (replace(LOPSIDED, reduce_range=True), 0, 127),
        (LOPSIDED, 0, 255),
    ],
)
def test_integers_keep_to_what_the_kernels_take(
    scheme: QuantScheme, low: int, high: int
) -> None:
    grid = weight_grid(scheme)
    assert (grid.low, grid.high) == (low, high)
    for least_error in (False, True):
        whole = quantize_weight(uneven(9, 40), grid, 0, least_error=least_error)
        assert whole.integers.min() >= low
        assert whole.integers.max() <= high


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    st.booleans(),
)
def test_scales_of_least_error_are_never_worse(weight: np.ndarray, each: bool) -> None:
    axis = 0 if each else None
    grid = weight_grid(PER_CHANNEL)
    plain = quantize_weight(weight, grid, axis)
    best = quantize_weight(weight, grid, axis, least_error=True)
    assert error(weight, best.numbers()) <= error(weight, plain.numbers()) * 1.0001 + 1e-12


def test_least_error_gains_where_one_weight_sticks_out() -> None:
    weight = normal(4, 900)
    weight[:, 0] = 6.0
    grid = weight_grid(replace(PER_CHANNEL, reduce_range=True))
    plain, best = (quantize_weight(weight, grid, 0, least_error=e) for e in (False, True))
    assert error(weight, best.numbers()) < error(weight, plain.numbers())


def test_what_matters_more_decides_the_scale() -> None:
    weight = normal(1, 100)
    weight[0, 0] = 6.0
    importance = np.full((1, 100), 1e-9)
    importance[0, 0] = 1.0
    grid = weight_grid(PER_CHANNEL)
    whole = quantize_weight(weight, grid, 0, least_error=True, importance=importance)
    assert abs(whole.numbers()[0, 0] - 6.0) < 1e-3


@pytest.mark.parametrize("scheme", [PER_CHANNEL, PER_TENSOR, LOPSIDED])
def test_a_bias_far_beyond_its_weights_makes_the_step_coarser(scheme: QuantScheme) -> None:
    axis = 0 if "channel" in scheme.weights else None
    weight, bias = normal(3, 8) * 1e-6, np.array([1e3, 1e-3, 0.0])
    grid, input_scale = weight_grid(scheme), 1e-3
    floor = bias_floor(bias, input_scale)
    floor = floor if axis == 0 else floor.max(keepdims=True)
    assert quantize_weight(weight, grid, axis).is_below(floor)
    whole = quantize_weight(weight, grid, axis, floor=floor)
    assert not np.any(whole.scale < floor.astype(np.float32) * 0.999999)
    scale = np.float32(input_scale) * whole.scale
    stored = bias_as_int32(bias, scale)
    assert np.abs(stored).max() <= 2**30 + 64
    assert (np.abs(stored * scale.astype(np.float64) - bias) <= 0.51 * scale + 1e-4).all()


@pytest.mark.parametrize("scheme", [PER_CHANNEL, PER_TENSOR, LOPSIDED])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-30, 1.0, 1e30])
def test_channels_of_zeros_keep_their_bias(scheme: QuantScheme, size: float) -> None:
    axis = 0 if "channel" in scheme.weights else None
    weight, bias = np.zeros((3, 8), np.float32), np.array([size, -size, 0.0], np.float32)
    for input_scale in (1e-9, 1e-3, 1e3):
        floor = bias_floor(bias, input_scale)
        floor = floor if axis == 0 else floor.max(keepdims=True)
        whole = quantize_weight(weight, weight_grid(scheme), axis, floor=floor)
        assert not np.any(whole.numbers())
        scale = np.float32(input_scale) * whole.scale
        stored = bias_as_int32(bias, scale) * scale.astype(np.float64)
        assert np.isfinite(whole.scale).all()
        assert stored == pytest.approx(bias.astype(np.float64), rel=1e-3, abs=2.0**-120)


def test_a_weight_needs_no_floor_that_it_is_above() -> None:
    weight = normal(3, 8)
    whole = quantize_weight(weight, weight_grid(PER_CHANNEL), 0)
    assert not whole.is_below(bias_floor(np.ones(3), 0.01))


def test_weights_too_small_for_float32_steps_are_zero() -> None:
    weight = np.full((2, 4), 1e-42, np.float32)
    whole = quantize_weight(weight, weight_grid(PER_CHANNEL), 0, least_error=True)
    assert np.isfinite(1 / whole.scale).all()
    assert np.abs(whole.numbers()).max() < 1e-35
