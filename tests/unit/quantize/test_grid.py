"""From ranges to scales: they cover, hold zero exactly, and promise no more than was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.quantize.grid import SMALLEST_SCALE, Grid, activation_grid

UINT8, INT8 = activation_grid("uint8-asymmetric"), activation_grid("int8-asymmetric")
EVEN8, EVEN16 = activation_grid("int8-symmetric"), activation_grid("int16-symmetric")
GRIDS = [UINT8, INT8, EVEN8, EVEN16]
NUMBERS = st.floats(-(2.0**100), 2.0**100, width=32)


def covers(grid: Grid, low: float, high: float) -> bool:
    step = grid.step_for(low, high)
    least, most = grid.range_of(step)
    slack = step.scale * 0.5000001  # a zero point is rounded, so an end may lie half a step off
    return least <= min(low, 0.0) + slack and most >= max(high, 0.0) - slack


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GRIDS), NUMBERS, NUMBERS)
def test_a_step_covers_its_range_and_holds_zero(grid: Grid, one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    step = grid.step_for(low, high)
    assert covers(grid, low, high)
    assert grid.low <= step.zero_point <= grid.high
    assert step.scale == np.float32(step.scale)
    assert grid.quantize(np.zeros(1, np.float32), step).tolist() == [step.zero_point]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(GRIDS), NUMBERS, NUMBERS)
def test_numbers_of_the_range_move_by_half_a_step_at_most(
    grid: Grid, one: float, other: float
) -> None:
    low, high = min(one, other), max(one, other)
    step = grid.step_for(low, high)
    numbers = np.linspace(low, high, 33).astype(np.float32)
    whole = grid.quantize(numbers, step).astype(np.float64)
    back = (whole - step.zero_point) * step.scale
    # float32 has fewer digits than 16 bits of a far number need
    slack = 0.502 * step.scale + 1e-6 * np.abs(numbers)
    assert (np.abs(back - numbers) <= slack + step.scale * 0.5).all()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([UINT8, INT8]), st.floats(2.0**-100, 2.0**100, width=32))
def test_the_end_of_a_rectifier_is_not_beyond_its_ceiling(grid: Grid, high: float) -> None:
    step = grid.step_for(0.0, high)
    most = np.float32(step.scale) * np.float32(grid.high - step.zero_point)
    assert step.zero_point == grid.low
    assert most <= np.float32(high)
    assert most >= np.float32(high) * (1 - 1e-6)


def test_a_clip_at_6_ends_there() -> None:
    for grid in (UINT8, INT8):
        step = grid.step_for(0.0, 6.0)
        assert 6.0 - 1e-6 <= step.scale * 255 <= 6.0


@pytest.mark.parametrize("grid", [EVEN8, EVEN16], ids=lambda grid: grid.dtype)
def test_symmetric_grids_have_their_zero_in_the_middle(grid: Grid) -> None:
    step = grid.step_for(-1.0, 3.0)
    assert step.zero_point == 0
    assert grid.low == -grid.high
    assert grid.range_of(step) == pytest.approx((-3.0, 3.0))


@pytest.mark.parametrize(
    ("grid", "ends", "scale", "zero_point"),
    [
        (INT8, (0.0, 1.0), 1 / 256, -128),  # softmax and sigmoid in LiteRT
        (INT8, (-1.0, 1.0), 1 / 128, 0),  # tanh in LiteRT
        (UINT8, (0.0, 1.0), 1 / 256, 0),
        (UINT8, (-1.0, 1.0), 1 / 128, 128),
        (EVEN8, (-1.0, 1.0), 1 / 128, 0),
        (EVEN16, (-1.0, 1.0), 1 / 32768, 0),
        (EVEN16, (0.0, 1.0), 1 / 32768, 0),
    ],
)
def test_fixed_intervals_have_the_step_that_runtimes_demand(
    grid: Grid, ends: tuple[float, float], scale: float, zero_point: int
) -> None:
    step = grid.fixed_step(*ends)
    assert (step.scale, step.zero_point) == (scale, zero_point)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dtype}-{grid.symmetric}")
def test_a_range_of_nothing_still_gives_a_step(grid: Grid) -> None:
    step = grid.step_for(0.0, 0.0)
    assert step.scale == 1.0
    assert grid.quantize(np.zeros(3, np.float32), step).tolist() == [step.zero_point] * 3


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dtype}-{grid.symmetric}")
@pytest.mark.parametrize("reach", [5e-324, 1e-45, 1e-40, 1e-38, 1e-36])
def test_scales_keep_away_from_numbers_without_a_reciprocal(grid: Grid, reach: float) -> None:
    for low, high in ((0.0, reach), (-reach, reach), (-reach, 0.0)):
        scale = np.float32(grid.step_for(low, high).scale)
        assert scale >= SMALLEST_SCALE * (1 - 1e-6)
        assert np.isfinite(np.float32(1) / scale)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.dtype}-{grid.symmetric}")
def test_the_widest_range_of_float32_has_a_finite_step(grid: Grid) -> None:
    most = float(np.finfo(np.float32).max)
    step = grid.step_for(-most, most)
    assert np.isfinite(np.float32(step.scale))
    assert step.scale * grid.high <= most * 1.0001


def test_numbers_beyond_the_grid_go_to_its_ends_and_halves_to_even() -> None:
    step = UINT8.step_for(0.0, 255.0)
    numbers = np.array([-9, 0.5, 1.5, 2.5, 254.6, 900], np.float32)
    assert UINT8.quantize(numbers, step).tolist() == [0, 0, 2, 2, 255, 255]
