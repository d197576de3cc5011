"""Frames on a shared line: nothing damaged passes, nothing whole is refused."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.wire.arq_frames import (
    MAX_PAYLOAD_BYTES,
    cobs_decode,
    cobs_encode,
    open_frame,
    seal_frame,
)

SHAPES = [b"", b"\0", b"\0\0", b"a", bytes(254), b"x" * 253, b"x" * 254, b"x" * 255, b"x" * 508]


@given(st.one_of(st.binary(max_size=1200), st.sampled_from(SHAPES)))
def test_cobs_round_trip_has_no_zero_and_little_overhead(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= len(data) + len(data) // 254 + 2
    assert cobs_decode(encoded) == data


@given(st.binary(max_size=300))
def test_whatever_is_decoded_is_small_and_no_error(data: bytes) -> None:
    decoded = cobs_decode(data)
    assert decoded is None or len(decoded) <= len(data)


@pytest.mark.parametrize("key", [None, 0x1234ABCD])
def test_every_flip_truncation_and_duplicate_of_a_byte_is_noticed(key: int | None) -> None:
    sealed = seal_frame(random.Random(1).randbytes(90), key)
    for at in range(len(sealed)):
        for bit in range(8):
            spoilt = sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
            assert open_frame(spoilt, key) is None
        assert open_frame(sealed[:at], key) is None
        assert open_frame(sealed[at:][1:], key) is None
        assert open_frame(sealed[:at] + sealed[at : at + 1] + sealed[at:], key) is None


@given(st.binary(min_size=1, max_size=60), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_frame_of_another_key_never_passes(body: bytes, one: int, other: int) -> None:
    assert open_frame(seal_frame(body, one), one) == body
    if one != other:
        assert open_frame(seal_frame(body, one), other) is None


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x11])
def test_worst_payload_of_cobs_costs_no_more_than_random_bytes(fill: int) -> None:
    sealed = seal_frame(bytes([fill]) * MAX_PAYLOAD_BYTES, 7)
    assert len(sealed) <= MAX_PAYLOAD_BYTES * 1.005 + 8
    # as many blocks as random bytes have: the decoder takes a step for each
    at, steps = 0, 0
    while at < len(sealed):
        at, steps = at + sealed[at], steps + 1
    assert steps < 60


def test_frame_that_is_too_long_is_refused() -> None:
    assert open_frame(seal_frame(bytes(MAX_PAYLOAD_BYTES + 100), 7), 7) is None
    assert open_frame(b"\1" * 100_000, 7) is None
