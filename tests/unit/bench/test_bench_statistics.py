"""Percentiles and their intervals, against brute force and known counts."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from edgesdk.bench.statistics import (
    make_latency,
    order_statistic_ranks,
    quantile,
    samples_needed,
    throughput_per_s,
)


@pytest.mark.parametrize(("p", "needed"), [(0.5, 6), (0.9, 36), (0.99, 368)])
def test_each_percentile_needs_its_number_of_samples(p: float, needed: int) -> None:
    assert samples_needed(p) == needed
    assert order_statistic_ranks(needed - 1, p) is None
    assert order_statistic_ranks(needed, p) is not None


def test_p99_is_given_from_368_samples_on_and_says_why_not_before() -> None:
    short = make_latency([float(i) for i in range(367)])
    assert short.p99_ms is None
    assert short.why == {"p99_ms": "needs 368 samples, has 367"}
    full = make_latency([float(i) for i in range(368)])
    assert full.p99_ms == pytest.approx(363.33)
    assert full.why == {}
    assert full.intervals["p99_ms"].upper_ms == 367.0


def exact_ranks(n: int, p: float) -> tuple[int, int, float] | None:
    masses = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    lowers = [r for r in range(1, n + 1) if math.fsum(masses[:r]) <= 0.025]
    uppers = [r for r in range(1, n + 1) if math.fsum(masses[r:]) <= 0.025]
    if not lowers or not uppers:
        return None
    lower, upper = max(lowers), min(uppers)
    return lower, upper, math.fsum(masses[lower:upper])


@pytest.mark.parametrize("n", [1, 5, 6, 7, 29, 35, 36, 50, 100, 299, 368, 400, 700])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.99])
def test_ranks_equal_those_of_the_summed_binomial(n: int, p: float) -> None:
    ranks, expected = order_statistic_ranks(n, p), exact_ranks(n, p)
    assert (ranks is None) == (expected is None)
    if ranks is not None and expected is not None:
        assert ranks[:2] == expected[:2]
        assert ranks[2] == pytest.approx(expected[2], abs=1e-9)
        assert ranks[2] >= 0.95


def test_millions_of_samples_have_a_narrow_interval_at_once() -> None:
    ranks = order_statistic_ranks(4_000_000, 0.5)
    assert ranks is not None
    lower, upper, coverage = ranks
    assert 2_000_000 - 1970 < lower < 2_000_000 < upper < 2_000_000 + 1970
    assert coverage == pytest.approx(0.95, abs=0.001)


def test_intervals_cover_the_true_quantile_as_often_as_promised() -> None:
    generator = random.Random(7)
    hits = 0
    for _ in range(400):
        interval = make_latency([generator.random() for _ in range(60)]).intervals["p90_ms"]
        hits += interval.lower_ms <= 0.9 <= interval.upper_ms
    assert hits / 400 > 0.93


def test_quantiles_are_those_of_numpy() -> None:
    generator = random.Random(3)
    for count in (1, 2, 3, 10, 101):
        ordered = sorted(generator.random() for _ in range(count))
        for p in (0.0, 0.5, 0.9, 0.99, 1.0):
            assert quantile(ordered, p) == pytest.approx(float(np.quantile(ordered, p)))


def test_nothing_measured_is_null_and_not_zero() -> None:
    latency = make_latency([])
    assert (latency.p50_ms, latency.mean_ms, latency.min_ms) == (None, None, None)
    assert latency.why["p50_ms"] == "needs 6 samples, has 0"
    assert throughput_per_s([]) is None
    assert throughput_per_s([0.0]) is None


def test_throughput_is_runs_over_summed_time() -> None:
    assert throughput_per_s([2.0, 3.0, 5.0]) == pytest.approx(300.0)


def test_samples_keep_their_order() -> None:
    assert make_latency([3.0, 1.0, 2.0]).samples_ms == (3.0, 1.0, 2.0)
