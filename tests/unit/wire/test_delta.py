"""A delta makes exactly its result, or is refused; it never makes more, whatever it says."""

from __future__ import annotations

import hashlib
import io
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.wire.delta import (
    BLOCK,
    COPY,
    INSERT,
    PATCH,
    PIECE_BYTES,
    SHIFT,
    DeltaError,
    DeltaHeader,
    add_bytes,
    apply_delta,
    encode_header,
    put_varint,
    read_header,
    zigzag,
)

BASE = bytes(range(256)) * 16
OTHER = b"another base, shorter"


def numbers(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        put_varint(out, value)
    return bytes(out)


def stream(data: bytes, *, deflate: bool = False) -> bytes:
    sent = data
    if deflate:
        engine = zlib.compressobj(9, zlib.DEFLATED, -15)
        sent = engine.compress(data) + engine.flush()
    return numbers(len(data), len(sent)) + sent


def section(
    steps: bytes, *, gaps: bytes = b"", data: bytes = b"", blocks: bytes = b""
) -> bytes:
    return stream(steps) + stream(gaps) + stream(data) + blocks


def header(size: int, bases: tuple[bytes, ...] = (BASE, OTHER)) -> bytes:
    listed = [(hashlib.sha256(base).hexdigest(), len(base)) for base in bases]
    return encode_header(DeltaHeader("00" * 32, size, listed))


def made(delta: bytes, bases: tuple[bytes, ...] = (BASE, OTHER)) -> bytes:
    source = io.BytesIO(delta)
    out = io.BytesIO()
    apply_delta(
        read_header(source.read),
        source.read,
        lambda base, offset, count: bases[base][offset : offset + count],
        out.write,
    )
    return out.getvalue()


def test_every_step_does_what_it_says() -> None:
    steps = (
        numbers(COPY, 0, zigzag(100), 50)
        + numbers(INSERT, 3)
        + numbers(PATCH, 0, zigzag(-150), 10, 2, 1, 2)
        + numbers(BLOCK, 5, 2, 3, 0)
        + numbers(SHIFT, 1, zigzag(0), 4, 1, 4)
    )
    delta = header(50 + 3 + 10 + 5 + 4) + section(
        steps, gaps=numbers(1, 2), data=b"abc\x05\x06\x07", blocks=b"xyz" + b"\1\2\3\4"
    )
    patched = bytearray(BASE[:10])
    patched[1] += 5
    patched[4] += 6
    patched[5] += 7
    shifted = bytes(a + b for a, b in zip(OTHER, (1, 2, 3, 4), strict=False))
    assert made(delta) == BASE[100:150] + b"abc" + patched + b"x\0y\0z" + shifted


def test_streams_and_planes_may_be_deflated() -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    plane = engine.compress(b"q" * 500) + engine.flush()
    steps = numbers(INSERT, 900) + numbers(BLOCK, 1000, 2, 0, len(plane))
    delta = header(1900) + stream(steps) + stream(b"") + stream(b"z" * 900, deflate=True)
    assert made(delta + plane) == b"z" * 900 + b"\0q" * 500


def test_an_empty_result_needs_no_section() -> None:
    assert made(header(0)) == b""


def test_a_copy_may_be_longer_than_a_piece_and_is_written_in_pieces() -> None:
    base = bytes(3 * PIECE_BYTES)
    sizes: list[int] = []
    source = io.BytesIO(header(len(base), (base,)) + section(numbers(COPY, 0, 0, len(base))))
    head = read_header(source.read)
    apply_delta(
        head,
        source.read,
        lambda _, at, n: base[at : at + n],
        lambda data: sizes.append(len(data)),
    )
    assert sizes == [PIECE_BYTES] * 3


WRONG: list[tuple[bytes, str]] = [
    (b"EDD2" + bytes(60), "no delta of a kind that is known"),
    (b"ED", "ends within its mark"),
    (header(10), "ends within its steps"),
    (header(10) + section(b""), "a section without steps"),
    (header(10) + section(numbers(7)), "a step of kind 7"),
    (header(10) + section(numbers(INSERT, 4), data=b"abc"), "its data end early"),
    (header(4) + section(numbers(INSERT, 4), data=b"abcde"), "gaps or data that no step uses"),
    (header(4) + section(numbers(INSERT, 4), gaps=b"\1", data=b"abcd"), "no step uses"),
    (header(4) + section(numbers(INSERT, 4), data=b"abcd") + b"x", "something follows"),
    (header(4) + section(numbers(INSERT, 5), data=b"abcde"), "more than the 4 bytes"),
    (header(4) + section(numbers(INSERT, 0)), "a step is 0 bytes long"),
    (header(1 << 22) + section(numbers(INSERT, 1 << 21)), "a step is 2097152 bytes long"),
    (header(4) + section(numbers(COPY, 2, 0, 4)), "reads base 2 of 2"),
    (header(4) + section(numbers(COPY, 0, zigzag(-1), 4)), "reads at -1 of a base"),
    (header(4) + section(numbers(COPY, 1, zigzag(18), 4)), "past the end of a base of 21"),
    (header(4) + section(numbers(COPY, 1, zigzag(1 << 55), 4)), "past the end"),
    (header(5000) + section(numbers(COPY, 0, 0, 4097)), "past the end of a base of 4096"),
    (header(9) + section(numbers(PATCH, 0, 0, 9, 1, 4), gaps=b"\7", data=b"abcd"), "run of a"),
    (header(9) + section(numbers(PATCH, 0, 0, 9, 2, 1), gaps=b"\1\1", data=b"a"), "steps end"),
    (header(9) + section(numbers(PATCH, 0, 0, 9, 1, 1), data=b"a"), "its gaps end early"),
    (header(9) + section(numbers(BLOCK, 9, 0)), "a block has 0 planes"),
    (header(9) + section(numbers(BLOCK, 9, 17)), "a block has 17 planes"),
    (header(9) + section(numbers(BLOCK, 9, 1, 9), blocks=b"abc"), "ends within a block"),
    (header(9) + section(numbers(BLOCK, 9, 1, 10), blocks=bytes(10)), "9 bytes, sent as 10"),
    (header(9) + section(numbers(BLOCK, 9, 1, 3), blocks=b"\xff" * 3), "cannot be inflated"),
    (header(9) + section(b"\x80" * 12), "hold no number"),
    (header(9) + section(b"\x80"), "its steps end early"),
    (header(9) + b"\xff" * 12, "is no number"),
    (header(9) + numbers(PIECE_BYTES + 1, 5), "is 1048577 (at most 1048576)"),
    (encode_header(DeltaHeader("00" * 32, 1 << 41, [])), "the size of its result is"),
    (b"EDD1" + bytes(32) + numbers(5, 17), "its number of bases is 17 (at most 16)"),
]


@pytest.mark.parametrize(("delta", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_is_wrong_is_named(delta: bytes, why: str) -> None:
    with pytest.raises(DeltaError) as caught:
        made(delta)
    assert why in str(caught.value)


@pytest.mark.parametrize(("declared", "inside"), [(1000, 1 << 18), (PIECE_BYTES, 1 << 26)])
def test_a_bomb_is_inflated_no_further_than_it_declares(declared: int, inside: int) -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = engine.compress(bytes(inside)) + engine.flush()
    assert len(bomb) < declared
    streams = stream(numbers(INSERT, declared)) + stream(b"")
    with pytest.raises(DeltaError, match=f"does not inflate to {declared} bytes"):
        made(header(declared) + streams + numbers(declared, len(bomb)) + bomb)


def test_a_base_that_is_shorter_than_it_should_be_is_noticed() -> None:
    delta = header(100) + section(numbers(COPY, 0, zigzag(50), 100))
    with pytest.raises(DeltaError, match="a base ends at 80"):
        made(delta, (BASE[:80], OTHER))


GOOD = header(63) + section(
    numbers(COPY, 0, zigzag(100), 40)
    + numbers(INSERT, 3)
    + numbers(PATCH, 0, zigzag(-140), 10, 2, 1, 2)
    + numbers(BLOCK, 6, 2, 3, 0)
    + numbers(SHIFT, 1, zigzag(0), 4, 1, 4),
    gaps=numbers(1, 2),
    data=b"abc\x05\x06\x07",
    blocks=b"xyz" + b"\1\2\3\4",
)


def bounded(delta: bytes) -> int:
    """Apply, and give how much was written; only our own error may come out."""
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)
        assert len(data) <= PIECE_BYTES

    source = io.BytesIO(delta)
    try:
        head = read_header(source.read)
        bases = (BASE, OTHER)
        sizes = [len(base) for base in bases]
        if [size for _, size in head.bases] != sizes:
            return 0
        apply_delta(head, source.read, lambda b, at, n: bases[b][at : at + n], write)
    except DeltaError:
        return written
    assert written == head.size
    return written


def test_every_truncation_is_refused() -> None:
    assert bounded(GOOD) == 63
    for length in range(len(GOOD)):
        with pytest.raises(DeltaError):
            made(GOOD[:length])


def test_every_flipped_bit_is_survived() -> None:
    for bit in range(8 * len(GOOD)):
        damaged = bytearray(GOOD)
        damaged[bit // 8] ^= 1 << bit % 8
        assert bounded(bytes(damaged)) <= 1 << 20


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_random_sections_are_survived(junk: bytes) -> None:
    assert bounded(header(500) + junk) <= 500


SHORT = st.binary(max_size=40)


@given(st.lists(st.integers(0, 300), max_size=30), SHORT, SHORT)
def test_random_steps_are_survived(steps: list[int], gaps: bytes, data: bytes) -> None:
    whole = header(500) + section(numbers(*steps), gaps=gaps, data=data, blocks=data)
    assert bounded(whole) <= 500


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1))
def test_bytes_are_added_one_by_one(pairs: list[tuple[int, int]]) -> None:
    one, other = (bytes(column) for column in zip(*pairs, strict=True))
    assert add_bytes(one, other) == bytes((a + b) % 256 for a, b in pairs)


@given(st.integers(-(1 << 40), 1 << 40))
def test_a_signed_number_comes_back(value: int) -> None:
    unsigned = zigzag(value)
    assert unsigned >= 0
    assert (unsigned >> 1 if not unsigned & 1 else -((unsigned + 1) >> 1)) == value
