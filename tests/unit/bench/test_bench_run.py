"""Asking a device to measure, with a scripted conversation."""

from __future__ import annotations

import pytest

from edgesdk.bench.run import take_measurements
from edgesdk.bench.values import MAX_SAMPLES, BenchSpec
from edgesdk.progress import Progress
from tests.unit.bench.fixtures import ScriptedSession, make_bundle, reply_frame


def test_the_bundle_is_asked_for_by_id_with_the_whole_spec() -> None:
    session = ScriptedSession(reply_frame([1.0, 2.0]))
    spec = BenchSpec(warmup_runs=1, runs=2, duration_s=5.0, threads=2, fresh=False)
    take_measurements(session, bundle=make_bundle(), spec=spec)
    assert session.asked == [
        (
            "bench",
            {
                "release": "ef" * 32,
                "spec": {
                    "warmup_runs": 1,
                    "runs": 2,
                    "duration_s": 5.0,
                    "threads": 2,
                    "fresh": False,
                    "sample_conditions": True,
                },
            },
        )
    ]
    assert session.timeouts_s[0] > 5.0


def test_a_run_without_a_count_is_bounded_by_what_a_reply_can_hold() -> None:
    session = ScriptedSession(reply_frame([1.0]))
    take_measurements(session, bundle=make_bundle(), spec=BenchSpec(runs=0, duration_s=1.0))
    assert session.asked[0][1]["spec"]["runs"] == MAX_SAMPLES


def test_progress_is_passed_on_and_nonsense_is_not() -> None:
    events = (
        {"event": "alive"},
        {"event": "progress", "step": "bench", "done": 1, "total": 2},
        {"event": "progress", "done": -1, "total": 2},
        {"event": "progress", "done": 5, "total": 2},
        {"event": "progress", "done": "x"},
    )
    session = ScriptedSession(reply_frame([1.0, 2.0]), events=events)
    seen: list[Progress] = []
    take_measurements(session, bundle=make_bundle(), spec=BenchSpec(), on_progress=seen.append)
    assert [(p.done, p.total) for p in seen] == [(1, 2), (5, None), (2, 2)]
    assert {p.step for p in seen} == {"measure int8"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"runs": 0, "duration_s": None}, "would never end"),
        ({"runs": -1}, "runs be 0 to"),
        ({"warmup_runs": -1}, "must not be negative"),
        ({"duration_s": 0.0}, "duration_s must be a positive number"),
        ({"duration_s": float("nan")}, "duration_s must be a positive number"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_a_spec_that_cannot_be_met_is_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        BenchSpec(**fields)  # type: ignore[arg-type]
