"""What is remembered of a tensor: exact ends, a bounded sample, and ranges made of both."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgesdk.quantize.grid import Grid, activation_grid
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.ranges import RANGE_METHODS, RangeMethod

GRID = activation_grid("uint8-asymmetric")
WIDE_GRIDS = [activation_grid("int8-symmetric"), activation_grid("int16-symmetric")]
FINITE = st.floats(-1e6, 1e6, width=32)


def seen(*arrays: np.ndarray, axis: int | None = None, by_channel: bool = False) -> TensorStats:
    stats = TensorStats(axis=axis, by_channel=by_channel)
    for array in arrays:
        stats.update(array)
    return stats


def normal(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def _same(one: np.ndarray, other: np.ndarray, *, exact: bool) -> bool:
    return np.array_equal(one, other) if exact else np.allclose(one, other, rtol=1e-6)


def noise(numbers: np.ndarray, ends: tuple[float, float], grid: Grid = GRID) -> float:
    """Give the power of what rounding to a range loses, over that of the numbers."""
    step = grid.step_for(*ends)
    back = (grid.quantize(numbers, step).astype(np.float64) - step.zero_point) * step.scale
    return float(((back - numbers) ** 2).sum() / (numbers.astype(np.float64) ** 2).sum())


def test_ends_are_exact_per_tensor_and_per_channel() -> None:
    arrays = [normal(2 * 3 * 5 * 7, seed).reshape(2, 3, 5, 7) for seed in range(9)]
    whole = np.concatenate(arrays)
    stats = seen(*arrays, axis=1, by_channel=True)
    assert (stats.low, stats.high) == (whole.min(), whole.max())
    assert stats.channel_low is not None
    assert stats.channel_high is not None
    assert np.array_equal(stats.channel_low, whole.min(axis=(0, 2, 3)))
    assert np.array_equal(stats.channel_high, whole.max(axis=(0, 2, 3)))


@pytest.mark.parametrize(
    ("axis", "shape"), [(None, (40, 999)), (1, (40, 6, 33)), (-1, (40, 9, 5))]
)
def test_everything_is_the_same_however_samples_are_batched(
    axis: int | None, shape: tuple[int, ...]
) -> None:
    whole = normal(int(np.prod(shape))).reshape(shape)
    alone = seen(*(whole[i : i + 1] for i in range(40)), axis=axis, by_channel=axis is not None)
    for cuts in ([40], [1, 7, 32], [16, 16, 8]):
        batched = TensorStats(axis=axis, by_channel=axis is not None)
        for part in np.split(whole, np.cumsum(cuts)[:-1]):
            batched.update(part, together=len(part))
        before, after = alone.to_arrays(), batched.to_arrays()
        assert before.keys() == after.keys()
        assert all(_same(before[name], after[name], exact=name != "sums") for name in before)


@pytest.mark.parametrize("shape", [(1, 70_000), (1, 24, 40, 40), (1, 50, 768), (1, 9000, 4, 4)])
def test_what_is_held_does_not_grow_with_the_samples(shape: tuple[int, ...]) -> None:
    array = normal(int(np.prod(shape))).reshape(shape)
    held = {}
    for count in (8, 512):
        stats = TensorStats(axis=1 if len(shape) == 4 else -1 if len(shape) == 3 else None)
        most = 0
        for _ in range(count):
            stats.update(array)
            most = max(most, sum(each.size for each in stats._rows))
        held[count] = most
    channels = 1 if len(shape) == 2 else shape[1] if len(shape) == 4 else shape[-1]
    assert held[512] <= max(1 << 15, 32 * channels)
    assert held[512] <= held[8] * 1.2


def test_all_numbers_are_kept_where_they_fit() -> None:
    arrays = [normal(5 * 40, seed).reshape(1, 5, 8, 5) for seed in range(7)]
    rows = seen(*arrays, axis=1).rows
    wanted = np.concatenate([np.moveaxis(a, 1, -1).reshape(-1, 5) for a in arrays])
    assert np.array_equal(rows, wanted)


def test_early_and_late_samples_count_alike() -> None:
    stats = seen(*(np.full((1, 3000), number, np.float32) for number in range(100)))
    shares = np.bincount(stats.rows.reshape(-1).astype(int), minlength=100) / stats.rows.size
    assert np.allclose(shares, 0.01, atol=0.001)


@pytest.mark.parametrize("width", [32, 64, 100, 256])
def test_no_column_of_a_picture_is_preferred(width: int) -> None:
    picture = np.tile(np.arange(width, dtype=np.float32), (1, 1, 512, 1))
    stats = seen(*[picture] * 20, axis=1)
    shares = np.bincount(stats.rows.reshape(-1).astype(int), minlength=width)
    assert shares.min() > 0.6 * shares.mean()


def test_the_percentile_leaves_the_tails_out() -> None:
    numbers = np.concatenate([normal(30_000), [1000.0]]).astype(np.float32)
    low, high = seen(numbers[None]).range("percentile", GRID)
    assert (low, high) == tuple(np.quantile(numbers, (1e-4, 1 - 1e-4)))
    assert high < 5


@pytest.mark.parametrize("grid", [GRID, *WIDE_GRIDS], ids=lambda grid: grid.dtype)
@pytest.mark.parametrize("tail", [1.0, 8.0, 40.0])
def test_the_squared_error_is_that_of_the_best_range(grid: Grid, tail: float) -> None:
    random = np.random.default_rng(3)
    numbers = random.standard_normal(30_000)
    numbers[:20] *= tail
    numbers = numbers.astype(np.float32)
    found = noise(numbers, seen(numbers[None]).range("mse", grid), grid)
    reach = float(np.abs(numbers).max())
    ranges = [
        (max(-r, numbers.min()), min(r, numbers.max()))
        for r in np.linspace(0.2, 1, 161) * reach
    ]
    best = min(noise(numbers, (float(low), float(high)), grid) for low, high in ranges)
    assert found <= best * 1.1


def test_of_more_numbers_than_are_held_the_ends_weigh_what_they_are() -> None:
    numbers = normal(1_000_000)
    ends = seen(*np.split(numbers, 10)).range("mse", GRID)
    assert noise(numbers, ends) < 0.8 * noise(numbers, (numbers.min(), numbers.max()))
    assert 3.6 < ends[1] < 4.6


def _reference_entropy(numbers: np.ndarray, bins: int = 2048, levels: int = 128) -> float:
    """Find the end for numbers from 0 by plain loops."""
    counts, edges = np.histogram(numbers[numbers > 0], bins=bins)
    scores = {}
    for last in range(levels, bins + 1, 16):
        whole = counts[:last].astype(float)
        whole[-1] += counts[last:].sum()
        part = counts[:last].astype(float)
        coarse = np.zeros(last)
        for cell in np.array_split(np.arange(last), levels):
            used = cell[part[cell] > 0]
            if used.size:
                coarse[used] = part[used].sum() / used.size
        p, q = whole / whole.sum(), coarse / coarse.sum()
        q = np.maximum(q, 1e-9)
        used = p > 0
        scores[float(edges[last])] = float((p[used] * np.log(p[used] / q[used])).sum())
    return min(scores, key=lambda end: scores[end])


@pytest.mark.parametrize("count", [1000, 30_000])
@pytest.mark.parametrize("rectified", [False, True])
def test_entropy_does_not_cut_into_a_bell(count: int, *, rectified: bool) -> None:
    numbers = normal(count)
    numbers = np.maximum(numbers, 0) if rectified else numbers
    low, high = seen(numbers[None]).range("entropy", GRID)
    assert 2.7 < high <= numbers.max()
    assert low == 0 if rectified else numbers.min() <= low < -2.7
    assert noise(numbers, (low, high)) < 6e-4


def test_entropy_is_that_of_a_plain_reference() -> None:
    numbers = np.abs(normal(32_000))
    high = seen(numbers[None]).range("entropy", GRID)[1]
    assert high == pytest.approx(_reference_entropy(numbers), rel=0.15)


def test_entropy_gives_up_a_few_outliers() -> None:
    numbers = normal(32_000)
    numbers[::4000] = 60.0
    low, high = seen(numbers[None]).range("entropy", GRID)
    assert 2.7 < high < 20
    assert -20 < low < -2.7


def test_the_moving_average_follows_sample_by_sample() -> None:
    arrays = [normal(100, seed)[None] * (seed + 1) for seed in range(12)]
    low, high = arrays[0].min(), arrays[0].max()
    for array in arrays[1:]:
        low, high = low + 0.1 * (array.min() - low), high + 0.1 * (array.max() - high)
    assert seen(*arrays).range("moving-average", GRID) == pytest.approx((low, high))


def test_merged_statistics_are_those_of_the_whole_stream() -> None:
    arrays = [normal(6 * 50, seed).reshape(1, 6, 50) * (seed + 1) for seed in range(10)]
    whole = seen(*arrays, axis=1, by_channel=True)
    merged = seen(*arrays[:4], axis=1, by_channel=True).merge(
        seen(*arrays[4:], axis=1, by_channel=True)
    )
    for name, array in whole.to_arrays().items():
        if name != "numbers":
            assert _same(array, merged.to_arrays()[name], exact=name != "sums")
    methods: tuple[RangeMethod, ...] = ("min-max", "percentile", "mse", "entropy")
    for method in methods:
        assert merged.range(method, GRID) == whole.range(method, GRID)
    low, high = merged.average
    assert whole.low <= low < high <= whole.high


def test_merging_a_long_and_a_short_stream_keeps_their_shares() -> None:
    long = seen(*[np.zeros((1, 50_000), np.float32)] * 9)
    merged = seen(np.ones((1, 50_000), np.float32)).merge(long)
    assert merged.rows.size <= 1 << 15
    assert merged.rows.mean() == pytest.approx(0.1, abs=0.01)


def test_merging_with_nothing_is_the_other() -> None:
    one = seen(normal(50)[None], axis=1)
    for merged in (one.merge(TensorStats(axis=1)), TensorStats(axis=1).merge(one)):
        assert (merged.low, merged.high, merged.seen) == (one.low, one.high, 1)
        assert np.array_equal(merged.rows, one.rows)


def test_statistics_survive_being_written_as_arrays() -> None:
    stats = seen(
        *(normal(4 * 9, s).reshape(1, 4, 9) for s in range(5)), axis=1, by_channel=True
    )
    back = TensorStats(axis=1, by_channel=True)
    back.from_arrays(stats.to_arrays())
    more = normal(4 * 9, 77).reshape(1, 4, 9)
    stats.update(more)
    back.update(more)
    ours, theirs = stats.to_arrays(), back.to_arrays()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_channels_that_changed_in_number_are_followed_no_more() -> None:
    stats = seen(
        np.ones((1, 3, 2), np.float32), np.ones((1, 4, 2), np.float32), axis=1, by_channel=True
    )
    assert not stats.by_channel
    assert not stats.merge(
        seen(np.ones((1, 3, 2), np.float32), axis=1, by_channel=True)
    ).by_channel
    back = TensorStats(axis=1, by_channel=True)
    back.from_arrays(stats.to_arrays())
    assert not back.by_channel


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("by_channel", [False, True])
def test_a_run_that_gives_no_numbers_is_counted_and_changes_nothing(
    bad: float, *, by_channel: bool
) -> None:
    stats = seen(np.ones((1, 2, 3), np.float32), axis=1, by_channel=by_channel)
    array = np.zeros((1, 2, 3), np.float32)
    array[0, 1, 2] = bad
    stats.update(array)
    assert (stats.not_finite, stats.seen, stats.low, stats.high) == (1, 1, 1.0, 1.0)
    assert stats.merge(stats).not_finite == 2


def test_an_empty_array_changes_nothing() -> None:
    stats = TensorStats(axis=1, by_channel=True)
    stats.update(np.zeros((0, 4), np.float32))
    assert (stats.seen, stats.rows.size) == (0, 0)
    assert stats.range("mse", GRID) == (0.0, 0.0)


def test_channels_are_scaled_as_if_they_had_always_been() -> None:
    array = np.abs(normal(4 * 50)).reshape(1, 4, 50)
    factors = np.array([1.0, 2.0, 8.0, 0.5])
    stats = seen(array, axis=1, by_channel=True)
    stats.scale_channels(factors, ceiling=6.0)
    wanted = seen(
        np.minimum(array * factors[None, :, None], 6).astype(np.float32),
        axis=1,
        by_channel=True,
    )
    assert np.allclose(stats.rows, wanted.rows)
    assert stats.channel_high is not None
    assert stats.channel_high == pytest.approx(np.minimum(array.max(axis=(0, 2)) * factors, 6))
    assert (stats.low, stats.high) == pytest.approx((wanted.low, wanted.high))


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=40), elements=FINITE
    ),
    st.sampled_from(RANGE_METHODS),
    st.sampled_from([GRID, *WIDE_GRIDS]),
)
def test_every_range_lies_within_what_was_seen_and_its_grid_holds_0(
    array: np.ndarray, method: RangeMethod, grid: Grid
) -> None:
    stats = seen(array, axis=1)
    low, high = stats.range(method, grid)
    reach = max(-stats.low, stats.high, 0.0)
    assert low <= high
    if method == "mse" and grid.symmetric:
        assert -reach * 1.001 <= low <= high <= reach * 1.001
    else:
        assert min(stats.low, 0.0) <= low <= high <= max(stats.high, 0.0)
    step = grid.step_for(low, high)
    least, most = grid.range_of(step)
    assert least <= 0 <= most
    assert grid.quantize(np.zeros(1, np.float32), step)[0] == step.zero_point
