"""Frames survive any cutting and any noise, and never cost more memory than one frame."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.wire.frames import (
    BARE_MAGIC,
    MAGIC,
    Frame,
    FrameError,
    FrameReader,
    bare_frame_ends,
    encode_frame,
    load_json,
)
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_META_BYTES

METAS = st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.none())
BODIES = st.binary(max_size=300)


def feed_in_pieces(reader: FrameReader, data: bytes, size: int) -> list[Frame]:
    frames = []
    for start in range(0, len(data), size):
        frames += reader.feed(data[start : start + size])
    return frames


@given(st.lists(st.tuples(METAS, BODIES), max_size=5), st.integers(1, 64))
def test_frames_arrive_whole_however_the_stream_is_cut(
    messages: list[tuple[dict[str, object], bytes]], size: int
) -> None:
    data = b"".join(encode_frame(Frame(meta, body)) for meta, body in messages)
    reader = FrameReader()
    got = [(frame.meta, frame.body) for frame in feed_in_pieces(reader, data, size)]
    assert got == messages
    assert reader.noise_bytes == 0


@given(st.binary(max_size=200), st.integers(1, 64))
def test_noise_before_a_frame_is_counted_and_costs_nothing(noise: bytes, size: int) -> None:
    reader = FrameReader()
    frame = encode_frame(Frame({"id": 1}, b"body"))
    # enough after it to complete any frame that the noise seems to announce within its limits
    got = feed_in_pieces(reader, noise + frame + frame, size)
    assert [(g.meta, g.body) for g in got][-1] == ({"id": 1}, b"body")
    assert reader.noise_bytes == len(noise)


@given(st.data())
def test_a_flipped_bit_loses_one_frame_and_not_the_next(data: st.DataObject) -> None:
    first, second = encode_frame(Frame({"n": 1}, b"a" * 50)), encode_frame(Frame({"n": 2}))
    bit = data.draw(st.integers(0, len(first) * 8 - 1))
    damaged = bytearray(first)
    damaged[bit // 8] ^= 1 << bit % 8
    reader = FrameReader()
    got = [frame.meta for frame in reader.feed(bytes(damaged) + second)]
    assert got == [{"n": 2}]
    assert reader.noise_bytes == len(first)


def test_a_truncated_frame_is_given_up_when_the_next_ones_come() -> None:
    whole = encode_frame(Frame({"n": 1}, b"a" * 50))
    for length in range(1, len(whole)):
        reader = FrameReader()
        got = reader.feed(whole[:length] + whole * 2)
        assert [frame.meta for frame in got] == [{"n": 1}] * len(got)
        assert got


def test_a_header_that_announces_too_much_is_dropped_at_once() -> None:
    lengths = struct.pack(">4sII", b"EDG1", MAX_META_BYTES + 1, MAX_BODY_BYTES)
    header = lengths + struct.pack(">I", zlib.crc32(lengths))
    reader = FrameReader()
    got = reader.feed(header + encode_frame(Frame({"n": 1})))
    assert [frame.meta for frame in got] == [{"n": 1}]
    assert reader.noise_bytes == len(header)


@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"\x11", b"E"])
def test_a_flood_without_frames_keeps_no_memory(byte: bytes) -> None:
    reader = FrameReader()
    for _ in range(64):
        assert reader.feed(byte * 65536) == []
    assert len(reader._buffer) < 65536
    assert reader.noise_bytes > 60 * 65536


def test_the_tail_of_noise_is_printable() -> None:
    reader = FrameReader()
    reader.feed(b"\x1b[31mraspberrypi login: \x07" + bytes(20))
    assert "raspberrypi login:" in reader.noise_tail
    assert "\x1b" not in reader.noise_tail


@pytest.mark.parametrize("meta", [b"[]", b"NaN", b'{"a":NaN}', b"\xff", b"[" * 90_000, b"1"])
def test_a_meta_that_is_no_plain_object_is_noise(meta: bytes) -> None:
    lengths = struct.pack(">4sII", b"EDG1", len(meta), 0)
    frame = lengths + struct.pack(">I", zlib.crc32(lengths)) + meta
    frame += struct.pack(">I", zlib.crc32(meta))
    reader = FrameReader()
    assert reader.feed(frame + encode_frame(Frame({"n": 1})))[0].meta == {"n": 1}
    assert reader.noise_bytes == len(frame)


@pytest.mark.parametrize(
    "frame",
    [
        Frame({"x": float("nan")}),
        Frame({"x": object()}),
        Frame({"x": "a" * MAX_META_BYTES}),
        Frame({}, bytes(MAX_BODY_BYTES + 1)),
    ],
    ids=["nan", "object", "long meta", "long body"],
)
def test_what_cannot_travel_is_refused_before_it_is_sent(frame: Frame) -> None:
    with pytest.raises(FrameError, match="cannot encode frame"):
        encode_frame(frame)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_can_be_fed(data: bytes) -> None:
    reader = FrameReader(max_body=1000, max_meta=1000)
    for frame in reader.feed(data):
        assert isinstance(frame.meta, dict)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_strict_json_reads_what_json_writes(value: object) -> None:
    assert load_json(json.dumps(value).encode()) == value


def bare(meta: dict[str, object], body: bytes) -> bytes:
    head, tail = bare_frame_ends(meta, len(body))
    return head + body + tail


@given(
    st.lists(st.tuples(METAS, BODIES, st.booleans()), max_size=5),
    st.integers(1, 64),
    st.binary(max_size=50),
)
def test_bare_frames_and_others_arrive_side_by_side(
    messages: list[tuple[dict[str, object], bytes, bool]], size: int, noise: bytes
) -> None:
    data = noise + b"".join(
        bare(meta, body) if is_bare else encode_frame(Frame(meta, body))
        for meta, body, is_bare in messages
    )
    reader = FrameReader(takes_bare=True)
    end = encode_frame(Frame({"end": 1}))
    got = [(frame.meta, frame.body) for frame in feed_in_pieces(reader, data + end * 2, size)]
    assert got[-len(messages) - 2 :] == [
        *((meta, body) for meta, body, _ in messages),
        ({"end": 1}, b""),
        ({"end": 1}, b""),
    ]


def test_bare_frame_is_noise_where_none_was_agreed() -> None:
    reader = FrameReader()
    assert [
        frame.meta for frame in reader.feed(bare({"n": 1}, b"x") + bare({"n": 2}, b""))
    ] == []
    assert reader.noise_bytes > 0


def test_bare_frame_with_a_damaged_head_or_meta_is_dropped() -> None:
    whole = bare({"n": 1}, b"a" * 50)
    after = encode_frame(Frame({"n": 2}))
    for place in (0, 5, 9, 13, 17, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        reader = FrameReader(takes_bare=True)
        assert [frame.meta for frame in reader.feed(bytes(damaged) + after)] == [{"n": 2}]


def test_bare_frame_over_a_limit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(FrameError, match="cannot encode frame"):
        bare_frame_ends({}, MAX_BODY_BYTES + 1)
    with pytest.raises(FrameError, match="cannot encode frame"):
        bare_frame_ends({"x": float("nan")}, 1)


def read_to_where_it_stays(reader: FrameReader, data: bytes, size: int) -> list[Frame]:
    """Read as an agent does: into the reader where it has room, else through a buffer."""
    frames, start = [], 0
    while start < len(data):
        room = reader.room()
        if room is None:
            frames += reader.feed(data[start : start + size])
            start += size
            continue
        piece = data[start : start + min(size, len(room))]
        room[: len(piece)] = piece
        frames += reader.filled(len(piece))
        start += len(piece)
    return frames


@pytest.mark.parametrize("size", [1 << 20, 70_000, 65_536, 4099])
def test_large_bare_bodies_are_read_to_where_they_stay(size: int) -> None:
    bodies = [b"a" * 70_000, b"b" * 65_536, b"", b"c" * 65_535, b"d" * 300_001]
    data = b"".join(
        bare({"n": n}, body) + encode_frame(Frame({"n": n}, b"between"))
        for n, body in enumerate(bodies)
    )
    for read in (read_to_where_it_stays, feed_in_pieces):
        reader = FrameReader(takes_bare=True)
        got = read(reader, data, size)
        assert [frame.body for frame in got[::2]] == bodies
        assert [frame.body for frame in got[1::2]] == [b"between"] * 5
        assert [frame.meta["n"] for frame in got[::2]] == [0, 1, 2, 3, 4]
        assert reader.noise_bytes == 0


def test_large_bare_body_that_is_none_gives_back_what_it_held() -> None:
    cut = bare({"n": 1}, b"a" * 70_000)[:20_000]
    after = [encode_frame(Frame({"n": n}, b"x" * 20_000)) for n in range(2, 8)]
    reader = FrameReader(takes_bare=True)
    got = read_to_where_it_stays(reader, cut + b"".join(after), 5000)
    assert [frame.meta["n"] for frame in got] == [2, 3, 4, 5, 6, 7]
    assert reader.noise_bytes == len(cut)


@given(st.lists(st.binary(max_size=200) | st.just(b"B"), max_size=6), st.integers(1, 90_000))
def test_any_bytes_around_large_bare_bodies_can_be_read(pieces: list[bytes], size: int) -> None:
    body = bytes(range(256)) * 300
    whole = bare({"n": 1}, body)
    data = b"".join(whole if piece == b"B" else piece for piece in pieces)
    reader = FrameReader(takes_bare=True, max_body=1 << 20)
    ends = bare({"end": 1}, b"")
    got = read_to_where_it_stays(reader, data + ends * 2, size)
    assert all(frame.meta == {"end": 1} or frame.body == body for frame in got)
    assert got[-1].meta == {"end": 1}


def test_bare_body_that_is_longer_than_a_chunk_takes_memory_only_as_it_comes() -> None:
    reader = FrameReader(takes_bare=True)
    head, _ = bare_frame_ends({"n": 1}, MAX_BODY_BYTES)
    assert reader.feed(head + bytes(1000)) == []
    assert reader.room() is None
    assert len(reader._buffer) < 2000


@pytest.mark.timeout(60)
@pytest.mark.parametrize("filler", [MAGIC, BARE_MAGIC])
def test_a_body_full_of_one_magic_is_looked_through_once(filler: bytes) -> None:
    """Where each step looks for the other one to the end, this takes minutes."""
    size = 1 << 20
    lengths = struct.pack(">4sII", MAGIC, 2, size)
    spoilt = b"".join(
        (lengths, struct.pack(">I", zlib.crc32(lengths)), b"{}", filler * (size // 4), bytes(4))
    )
    reader = FrameReader(takes_bare=True)
    assert reader.feed(spoilt) == []
    assert len(reader.feed(bytes(64) + encode_frame(Frame({"op": "ping"})))) == 1
