"""Rates and times left, over the last seconds."""

from __future__ import annotations

from edgesdk.progress import Progress, RateMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_rate_before_it_was_measured() -> None:
    clock = Clock()
    meter = RateMeter(clock=clock)
    meter.note(1000)
    assert meter.per_s() is None
    clock.now += 0.5
    meter.note(1000)
    assert meter.per_s() == 2000


def test_rate_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    meter = RateMeter(span_s=5.0, clock=clock)
    done = 0
    for step in range(100):
        clock.now += 0.25
        done += 100 if step < 50 else 10
        meter.note(done)
    rate = meter.per_s()
    assert rate is not None
    assert 39 <= rate <= 41
    clock.now += 60.0
    assert (meter.per_s() or 0) < 4, "a stall shows without a further sign"


def test_time_left_follows_from_the_rate() -> None:
    assert Progress(step="s", done=25, total=100, rate_per_s=5.0).left_s == 15
    assert Progress(step="s", done=100, total=100, rate_per_s=5.0).left_s == 0
    assert Progress(step="s", done=25, total=100).left_s is None
    assert Progress(step="s", done=25, total=100, rate_per_s=0.0).left_s is None
    assert Progress(step="s", done=25, rate_per_s=5.0).left_s is None
