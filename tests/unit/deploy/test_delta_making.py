"""Search and encoder: what they make gives exactly the target, and is small."""

from __future__ import annotations

import hashlib
import io
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.deploy.delta_encode import encode_delta
from edgesdk.deploy.delta_match import align
from edgesdk.deploy.delta_pieces import Bytes, likeness
from edgesdk.wire.delta import apply_delta, read_header

RNG = np.random.default_rng(3)
#: Weights as files have them: float32, bell-shaped, between headers that do not change.
WEIGHTS = RNG.normal(0, 0.05, 60_000).astype("<f4")


def array(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8)


def delta_between(target: bytes, *bases: bytes, budget_s: float = 60.0) -> bytes:
    arrays = [array(base) for base in bases]
    pieces = align(array(target), arrays, budget_s=budget_s)
    for piece, after in itertools.pairwise(pieces):
        assert piece.end <= after.start
    names = [(hashlib.sha256(base).hexdigest(), array(base)) for base in bases]
    return encode_delta(hashlib.sha256(target).hexdigest(), array(target), pieces, names)


def made(delta: bytes, *bases: bytes) -> bytes:
    by_name = {hashlib.sha256(base).hexdigest(): base for base in bases}
    source = io.BytesIO(delta)
    head = read_header(source.read)
    used = [by_name[sha256] for sha256, _ in head.bases]
    out = io.BytesIO()
    apply_delta(head, source.read, lambda b, at, n: used[b][at : at + n], out.write)
    assert hashlib.sha256(out.getvalue()).hexdigest() == head.sha256
    return out.getvalue()


def model(weights: np.ndarray, *, names: str = "layer") -> bytes:
    """Something like a model file: text, then tensors with a header each."""
    nodes = b"".join(f"{names}.{k}/Conv kernel=3 pads=1,1,1,1;".encode() for k in range(40))
    tensors = b"".join(
        f"<tensor {k} dims={len(part)}>".encode() + part.tobytes()
        for k, part in enumerate(np.array_split(weights, 12))
    )
    return nodes + tensors


BASE = model(WEIGHTS)


def check(target: bytes, most_bytes: int, *bases: bytes) -> None:
    bases = bases or (BASE,)
    delta = delta_between(target, *bases)
    assert made(delta, *bases) == target
    assert len(delta) <= most_bytes


def test_the_same_again_costs_a_header() -> None:
    check(BASE, 100)


def test_something_inserted_costs_what_was_inserted() -> None:
    check(BASE[:900] + b"trained again on Tuesday" + BASE[900:], 200)


def test_new_names_cost_their_text() -> None:
    check(model(WEIGHTS, names="block/stage"), 700)


def test_a_new_tensor_costs_the_tensor_only() -> None:
    weights = WEIGHTS.copy()
    weights[10_000:15_000] = RNG.normal(0, 0.05, 5000)
    check(model(weights), int(20_000 * 0.95) + 500)


def test_scattered_weights_cost_a_few_bytes_each() -> None:
    weights = WEIGHTS.copy()
    spots = RNG.choice(len(weights), 60, replace=False)
    weights[spots] += 0.01
    check(model(weights), 60 * 7 + 150)


def test_weights_that_all_moved_a_little_cost_less_than_themselves() -> None:
    moved = (WEIGHTS * (1 + RNG.normal(0, 1e-4, len(WEIGHTS)))).astype("<f4")
    check(model(moved), int(0.75 * len(BASE)))


def test_int8_weights_that_moved_by_one_step_cost_a_quarter() -> None:
    before = np.clip(RNG.normal(0, 30, 80_000), -127, 127).astype(np.int8)
    after = before + RNG.integers(-1, 2, len(before)).astype(np.int8)
    check(
        b"head" * 30 + after.tobytes() + b"tail" * 30,
        25_000,
        b"head" * 30 + before.tobytes() + b"tail" * 30,
    )


def test_tensors_in_another_order_are_found() -> None:
    parts = [RNG.bytes(20_000) for _ in range(5)]
    check(b"".join(reversed(parts)), 400, b"".join(parts))


def test_several_bases_are_used_together() -> None:
    one, other = RNG.bytes(50_000), RNG.bytes(50_000)
    check(other[10_000:] + b"between" + one[:30_000], 400, one, other)


def test_nothing_in_common_costs_what_there_is() -> None:
    target = RNG.bytes(70_000)
    check(target, len(target) + 200, RNG.bytes(70_000))


def test_weights_with_nothing_in_common_are_packed_by_planes() -> None:
    target = RNG.normal(0, 1, 40_000).astype("<f4").tobytes()
    check(target, int(0.9 * len(target)), b"x" * 1000)


@pytest.mark.parametrize("target", [b"", b"a", b"ab" * 30, bytes(5000)])
@pytest.mark.parametrize("base", [b"", b"a", b"ba" * 30, bytes(700)])
def test_short_ones_come_out_right(target: bytes, base: bytes) -> None:
    assert made(delta_between(target, base), base) == target


def test_larger_than_a_piece_comes_out_right() -> None:
    base = RNG.bytes(2_500_000)
    target = bytearray(base[:1_200_000] + RNG.bytes(1_100_000) + base[1_150_000:])
    for spot in range(0, len(target), 9_973):
        target[spot] ^= 0x55
    delta = delta_between(bytes(target), base)
    assert made(delta, base) == target
    assert len(delta) < 1_110_000


def test_a_search_that_ran_out_of_time_still_gives_a_right_delta() -> None:
    parts = [RNG.bytes(20_000) for _ in range(5)]
    target, base = b"".join(reversed(parts)), b"".join(parts)
    assert made(delta_between(target, base, budget_s=0.0), base) == target


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(0, 12))
def test_any_sequence_of_edits_comes_out_right(seed: int, edits: int) -> None:
    rng = random.Random(seed)
    kinds = (bytes(rng.randrange(1, 2000)), rng.randbytes(3000), BASE[: rng.randrange(9000)])
    base = b"".join(rng.choice(kinds) for _ in range(rng.randrange(1, 5)))
    target = bytearray(base)
    for _ in range(edits):
        at, n = rng.randrange(len(target) + 1), rng.randrange(300)
        match rng.randrange(5):
            case 0:
                target[at:at] = rng.randbytes(n)
            case 1:
                del target[at : at + n]
            case 2:
                target[at : at + n] = rng.randbytes(len(target[at : at + n]))
            case 3:
                for spot in range(at, min(len(target), at + 10 * n), 1 + rng.randrange(30)):
                    target[spot] = target[spot] + 1 & 0xFF
            case 4:
                target[at:at] = target[: 5 * n]
    assert made(delta_between(bytes(target), base), base) == target


def test_likeness_tells_what_is_worth_a_search() -> None:
    new = WEIGHTS.copy()
    new[:6000] = 0.0
    assert likeness(array(BASE), array(BASE)) == 1.0
    assert likeness(array(BASE[:500] + b"x" * 70 + BASE[500:]), array(BASE)) > 0.95
    assert likeness(array(model(new)), array(BASE)) > 0.8
    assert likeness(array(model(RNG.normal(0, 1, 60_000).astype("<f4"))), array(BASE)) < 0.1
    assert likeness(array(b"short"), array(BASE)) == 0.0
