"""A blob that only the device has is found by its checksums, block by block."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.deploy.delta_blocks import (
    BlockIndex,
    block_likeness,
    match_blocks,
    plan_blocks,
    read_blocks,
)
from edgesdk.deploy.delta_pieces import Bytes

RNG = np.random.default_rng(4)
BASE = RNG.bytes(300_123)


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def index_of(base: bytes, *, stride: int = 1) -> BlockIndex:
    """What the device would send."""
    plan = plan_blocks(len(base))
    body = b""
    for at in range(0, len(base), plan.block_bytes * stride):
        piece = base[at : at + plan.block_bytes]
        body += struct.pack(">I", zlib.adler32(piece))
        body += hashlib.sha256(piece).digest()[: plan.strong_bytes]
    index = read_blocks(
        body,
        size=len(base),
        block_bytes=plan.block_bytes,
        strong_bytes=plan.strong_bytes,
        stride=stride,
    )
    assert index is not None
    return index


def unmatched(target: bytes, base: bytes = BASE) -> int:
    """Check that pieces are what the base has there; give the bytes that none covers."""
    at = covered = 0
    for piece in match_blocks(array(target), index_of(base)):
        assert piece.exact
        assert piece.start >= at
        at = piece.end
        assert target[piece.start : at] == base[piece.offset : piece.offset + at - piece.start]
        covered += at - piece.start
    return len(target) - covered


def test_the_same_blob_is_one_piece() -> None:
    (piece,) = match_blocks(array(BASE), index_of(BASE))
    assert (piece.start, piece.end, piece.offset) == (0, len(BASE), 0)


def test_an_insertion_costs_one_block_and_itself() -> None:
    block = plan_blocks(len(BASE)).block_bytes
    assert unmatched(BASE[:100_001] + b"inserted" + BASE[100_001:]) <= block + 8


def test_moved_blocks_are_found() -> None:
    block = plan_blocks(len(BASE)).block_bytes
    assert unmatched(BASE[200_000:] + BASE[:150_000]) <= 4 * block


def test_nothing_in_common_is_no_piece() -> None:
    assert unmatched(RNG.bytes(200_000)) == 200_000


def test_padding_and_repetition_end_in_time_and_right() -> None:
    assert unmatched(bytes(500_000), bytes(400_000)) < 2048
    assert unmatched(b"ab" * 200_000, b"ab" * 150_000) < 2048
    assert unmatched(bytes(100_000) + BASE, BASE + bytes(100_000)) < 4096


@given(st.binary(max_size=5000), st.integers(0, 5000), st.integers(0, 400))
def test_pieces_are_true_for_any_cut(base: bytes, at: int, count: int) -> None:
    unmatched(base[at:] + base[: at + count], base)


def test_larger_blobs_have_larger_blocks_and_longer_hashes() -> None:
    small, model, large = (plan_blocks(size) for size in (10_000, 11 << 20, 4 << 30))
    assert small.block_bytes == 1024
    assert (model.block_bytes, model.strong_bytes) == (4096, 3)
    assert large.block_bytes > 4 * model.block_bytes
    assert large.strong_bytes > model.strong_bytes
    entries = (11 << 20) // model.block_bytes
    assert entries * (4 + model.strong_bytes) < 0.002 * (11 << 20)


def test_an_answer_of_another_length_is_no_index() -> None:
    for body in (b"", b"1234567", bytes(8)):
        got = read_blocks(body, size=3000, block_bytes=1024, strong_bytes=3)
        assert got is None


def test_a_few_blocks_tell_whether_the_rest_is_worth_asking_for() -> None:
    probe = index_of(BASE, stride=8)
    assert block_likeness(array(BASE), probe) == 1.0
    assert block_likeness(array(b"longer" + BASE), probe) > 0.9
    assert block_likeness(array(RNG.bytes(300_000)), probe) == 0.0
