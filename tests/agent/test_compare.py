"""The agent's comparison of tensors, without numpy, held against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgesdk.wire.tensors import DTYPE_BYTES

EXACT = {"abs": 0.0, "rel": 0.0}


@pytest.fixture(scope="module")
def compare(agent_modules: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    function: Callable[..., dict[str, Any]] = agent_modules("edge_agent.compare").compare
    return function


def run(compare: Any, seen: np.ndarray, expected: np.ndarray, **tolerance: float) -> Any:
    return compare(
        "y",
        seen.tobytes(),
        expected.tobytes(),
        dtype=seen.dtype.name,
        tolerance={**EXACT, **tolerance},
    )


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_equal_tensors_of_every_dtype_are_within(compare: Any, dtype: str) -> None:
    values = np.array([0, 1, 1, 0], dtype=dtype)
    result = run(compare, values, values)
    assert result["within"] is True
    assert (result["max_abs_error"], result["elements"], result["cosine"]) == (0, 4, 1.0)


@pytest.mark.parametrize("dtype", sorted(set(DTYPE_BYTES) - {"bool"}))
def test_one_step_off_is_within_one_step_and_no_less(compare: Any, dtype: str) -> None:
    seen, expected = np.array([3, 100], dtype=dtype), np.array([4, 100], dtype=dtype)
    assert run(compare, seen, expected, abs=1.0)["within"] is True
    result = run(compare, seen, expected, abs=0.5)
    assert result["within"] is False
    assert (result["mismatches"], result["max_abs_error"]) == (1, 1)


def test_relative_tolerance_counts_from_the_expected_value(compare: Any) -> None:
    seen, expected = np.array([101.0, 1.01]), np.array([100.0, 1.0])
    assert run(compare, seen, expected, rel=0.011)["within"] is True
    assert run(compare, seen, expected, rel=0.009)["mismatches"] == 2


def test_nan_and_infinity_equal_only_themselves(compare: Any) -> None:
    odd = np.array([math.nan, math.inf, -math.inf, 1.0], dtype=np.float32)
    assert run(compare, odd, odd.copy())["within"] is True
    other = np.array([math.nan, math.inf, -math.inf, 2.0], dtype=np.float32)
    assert run(compare, odd, other, abs=1.0)["within"] is True
    for seen, expected in (
        (math.nan, 1.0),
        (1.0, math.nan),
        (math.inf, 1.0),
        (math.inf, -math.inf),
    ):
        result = run(compare, np.array([seen]), np.array([expected]), abs=1e30)
        assert result["within"] is False
        assert result["max_abs_error"] is None
        assert result["cosine"] is None


def test_all_zero_tensors_point_the_same_way(compare: Any) -> None:
    assert run(compare, np.array([0.0, -0.0]), np.array([0.0, 0.0]))["cosine"] == 1.0
    assert run(compare, np.zeros(2), np.ones(2), abs=1.0)["cosine"] == 0.0


def test_empty_tensors_are_equal(compare: Any) -> None:
    assert run(compare, np.zeros(0), np.zeros(0))["within"] is True


@given(
    pair=st.sampled_from([np.float32, np.float64, np.int8, np.uint8, np.int64]).flatmap(
        lambda dtype: st.tuples(
            *[
                hnp.arrays(
                    dtype, 7, elements=hnp.from_dtype(np.dtype(dtype), allow_subnormal=False)
                )
            ]
            * 2
        )
    ),
    allowed=st.floats(0, 100),
)
def test_verdict_is_that_of_numpy(
    compare: Any, pair: tuple[np.ndarray, np.ndarray], allowed: float
) -> None:
    seen, expected = pair
    result = run(compare, seen, expected, abs=allowed)
    mismatches = 0
    for a, b in zip(seen.tolist(), expected.tolist(), strict=True):
        same = a == b or (a != a and b != b)
        mismatches += not (same or abs(a - b) <= allowed)
    assert result["mismatches"] == mismatches
    assert result["within"] == (mismatches == 0)
    cosine = result["cosine"]
    assert cosine is None or -1.0 <= cosine <= 1.0


def test_a_few_elements_may_stray_a_few_steps_where_the_bundle_says_so(compare: Any) -> None:
    expected = np.full(400, 100, dtype=np.uint8)

    def within(*values: int) -> bool:
        seen = expected.copy()
        seen[: len(values)] = values
        return bool(run(compare, seen, expected, abs=1.0, rel=0.0, stray=0.005)["within"])

    assert within(101, 99, 101)
    assert within(104, 96)
    assert not within(104, 96, 102)
    assert not within(105)
