"""How long a vendor's compiler may take, whatever a profile of the user's says."""

from __future__ import annotations

import pytest

from edgesdk.backends.program import time_limit_s


@pytest.mark.parametrize(
    ("said", "limit_s"),
    [(7, 7.0), ("soon", 300.0), (True, 300.0), (0, 300.0), (-5, 300.0), (10**400, 86_400.0)],
)
def test_a_limit_is_a_number_of_seconds_that_a_clock_can_hold(
    said: str | int | bool, limit_s: float
) -> None:
    assert time_limit_s({"compile-timeout-s": said}) == limit_s


def test_a_profile_that_says_nothing_gives_five_minutes() -> None:
    assert time_limit_s({"device": "NPU"}) == 300.0
