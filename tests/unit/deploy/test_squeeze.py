"""Packing a chunk: always on a slow line, elsewhere only where measuring says that it pays."""

from __future__ import annotations

import random
import zlib

import pytest

from edgesdk.deploy.squeeze import Squeeze

SHRINKS = bytes(100_000)
NOISE = random.Random(1).randbytes(100_000)


class Clock:
    """Each look takes as long as is set."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now = 0.0
        self.looks = 0

    def __call__(self) -> float:
        self.now += self.step_s
        self.looks += 1
        return self.now


def pack(squeeze: Squeeze, chunk: bytes, rate: float | None) -> bytes | None:
    """What a push does with each chunk."""
    return squeeze.pack(chunk, rate) if squeeze.considers(rate) else None


def test_on_a_slow_line_whatever_shrinks_is_packed() -> None:
    squeeze = Squeeze(always=True, clock=Clock(1000.0))
    packed = pack(squeeze, SHRINKS, None)
    assert packed is not None
    assert zlib.decompress(packed) == SHRINKS
    assert pack(squeeze, NOISE, None) is None


def test_nothing_is_packed_before_the_rate_is_known_or_on_a_fast_link() -> None:
    clock = Clock(1e-6)
    squeeze = Squeeze(always=False, clock=clock)
    assert pack(squeeze, SHRINKS, None) is None
    assert pack(squeeze, SHRINKS, 100e6) is None
    assert pack(squeeze, b"", 1000.0) is None
    assert clock.looks == 0, "it did not even try"


def test_quick_packing_beside_a_slow_link_pays() -> None:
    squeeze = Squeeze(always=False, clock=Clock(1e-6))
    for _ in range(3):
        packed = pack(squeeze, SHRINKS, 1e6)
        assert packed is not None
        assert zlib.decompress(packed) == SHRINKS


@pytest.mark.parametrize(("data", "step_s"), [(NOISE, 1e-6), (SHRINKS, 10.0)])
def test_data_that_does_not_shrink_or_takes_too_long_is_tried_ever_less(
    data: bytes, step_s: float
) -> None:
    clock = Clock(step_s)
    squeeze = Squeeze(always=False, clock=clock)
    assert all(pack(squeeze, data, 1e6) is None for _ in range(2000))
    assert 5 <= clock.looks / 2 <= 9


def test_data_that_begins_to_shrink_is_found_and_a_chunk_between_does_no_harm() -> None:
    squeeze = Squeeze(always=False, clock=Clock(1e-6))
    assert pack(squeeze, NOISE, 1e6) is None
    found = [pack(squeeze, SHRINKS, 1e6) is not None for _ in range(40)]
    assert found == [False] * 32 + [True] * 8
    assert pack(squeeze, NOISE, 1e6) is None
    assert pack(squeeze, SHRINKS, 1e6) is not None
