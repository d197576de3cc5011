"""What an agent says of a benchmark is checked before anybody believes it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.bench.measurements import plain_detail, read_measurements
from edgesdk.errors import ProtocolError
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import reply_frame


def test_samples_come_from_the_body_in_nanoseconds() -> None:
    measured = read_measurements(reply_frame([2.5, 1.25, 3.0]), device="bench-3")
    assert measured.samples_ms == (2.5, 1.25, 3.0)
    assert measured.cold_start_ms == 300.5
    assert measured.part_median_ms == {0: 2.0}
    assert measured.runtimes[0].detail["assignment.CPUExecutionProvider"] == 12
    assert measured.condition_samples[0].throttled == ()


def test_what_was_not_measured_is_none() -> None:
    frame = reply_frame([1.0], cold_start_ms=None, load_ms=None, peak_rss_bytes=None)
    measured = read_measurements(frame, device="bench-3")
    assert measured.cold_start_ms is None
    assert measured.peak_rss_bytes is None


@pytest.mark.parametrize("runs", [2, 4, -1, True, "3", None, 1 << 70])
def test_a_count_that_the_samples_contradict_is_refused(runs: Any) -> None:
    with pytest.raises(ProtocolError, match="cannot read benchmark from bench-3: "):
        read_measurements(reply_frame([1.0, 2.0, 3.0], runs=runs), device="bench-3")


@pytest.mark.parametrize("value", [-1, "fast", True, [1], 1e19, float("inf"), float("nan")])
def test_an_impossible_time_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ProtocolError, match=r"load_ms is .* \(expected a number"):
        read_measurements(reply_frame([1.0], load_ms=value), device="bench-3")


def test_odd_conditions_are_dropped_and_the_rest_kept() -> None:
    samples = [
        {"t_s": "soon"},
        {
            "t_s": 1,
            "cpu_mhz": [1500, "x", None, -3],
            "temp_c": {"cpu": float("nan"), "gpu": -5, "x": 1e9},
            "load1": "high",
            "throttled": ["under-voltage"],
            "mem_available_bytes": -1,
        },
        7,
    ]
    conditions = {"static": {"governor": "ondemand", "bad": float("inf")}, "samples": samples}
    measured = read_measurements(reply_frame([1.0], conditions=conditions), device="d")
    (sample,) = measured.condition_samples
    assert sample.cpu_mhz == (1500.0,)
    assert sample.temp_c == {"gpu": -5.0}
    assert (sample.load1, sample.mem_available_bytes) == (None, None)
    assert sample.throttled == ("under-voltage",)
    assert measured.static == {"governor": "ondemand"}


def test_a_start_that_is_no_time_is_dropped() -> None:
    frame = reply_frame([1.0], started="<script>")
    assert read_measurements(frame, device="d").started is None


def test_detail_of_any_depth_becomes_short_and_flat() -> None:
    deep: dict[str, Any] = {}
    for _ in range(50_000):
        deep = {"d": deep}
    flat = plain_detail({"a": deep, "b": ["x", deep], "c": "y" * 9999, "n": {"m": 3}})
    assert flat["n.m"] == 3
    assert len(str(flat["c"])) == 500
    assert flat["b"] == ("x",)
    assert "a.d" not in flat


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(["conditions", "runtimes", "parts", "started", "wall_s", "load_ms"]),
        json_values,
    )
)
def test_whatever_an_agent_says_is_read_or_refused(changes: dict[str, Any]) -> None:
    try:
        measured = read_measurements(reply_frame([1.0, 2.0], **changes), device="d")
    except ProtocolError:
        return
    assert measured.samples_ms == (1.0, 2.0)
    for sample in measured.condition_samples:
        assert all(math.isfinite(degrees) for degrees in sample.temp_c.values())


def test_an_empty_reply_is_refused() -> None:
    with pytest.raises(ProtocolError, match="0 bytes of samples for None runs"):
        read_measurements(Frame({"ok": True}), device="d")
