"""Seals and proofs: what is altered, repeated or sent back is no frame."""

from __future__ import annotations

import pytest

from edgesdk.wire.auth import (
    SEAL_BYTES,
    Keys,
    Opener,
    Sealer,
    key_of_text,
    new_nonce,
)
from edgesdk.wire.frames import Frame, FrameError, FrameReader
from edgesdk.wire.limits import MAX_BODY_BYTES

KEY = bytes(range(32))


def frame_of(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    return frame


def test_sealed_frames_come_back_as_they_were() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    for body in (b"", b"x", bytes(1000)):
        opened = opener.open(frame_of(sealer.encode(Frame({"op": "put", "ü": [1]}, body))))
        assert opened is not None
        assert (opened.meta, opened.body) == ({"op": "put", "ü": [1]}, body)
    assert opener.refused == 0


def test_no_two_seals_are_the_same() -> None:
    sealer = Sealer(KEY)
    assert sealer.encode(Frame({"op": "gc"})) != sealer.encode(Frame({"op": "gc"}))


def test_repeated_reordered_and_sent_back_frames_are_refused() -> None:
    sealer, opener = Sealer(KEY), Opener(KEY)
    first, second, third = (frame_of(sealer.encode(Frame({"n": n}))) for n in range(3))
    assert opener.open(second) is not None
    assert opener.open(second) is None
    assert opener.open(first) is None
    assert opener.open(third) is not None
    assert Opener(bytes(32)).open(third) is None
    assert opener.refused == 2


def test_every_flipped_bit_is_noticed() -> None:
    good = frame_of(Sealer(KEY).encode(Frame({"op": "gc"}, b"body")))
    assert good.raw_meta is not None
    for place in range(8 * len(good.body)):
        body = bytearray(good.body)
        body[place // 8] ^= 1 << place % 8
        assert Opener(KEY).open(Frame(good.meta, bytes(body), good.raw_meta)) is None
    for place in range(8 * len(good.raw_meta)):
        meta = bytearray(good.raw_meta)
        meta[place // 8] ^= 1 << place % 8
        assert Opener(KEY).open(Frame(good.meta, good.body, bytes(meta))) is None


def test_bytes_cannot_move_between_meta_and_body() -> None:
    good = frame_of(Sealer(KEY).encode(Frame({"a": 1}, b"{}")))
    assert good.raw_meta is not None
    moved = Frame(good.meta, good.body[1:], good.raw_meta + good.body[:1])
    assert Opener(KEY).open(moved) is None


@pytest.mark.parametrize("body", [b"", b"x", bytes(SEAL_BYTES), bytes(100)])
def test_frames_without_a_seal_are_refused(body: bytes) -> None:
    opener = Opener(KEY)
    assert opener.open(Frame({"op": "gc"}, body, b'{"op":"gc"}')) is None
    assert opener.open(Frame({"op": "gc"}, body)) is None
    assert opener.refused == 2


def test_largest_body_leaves_no_room() -> None:
    with pytest.raises(FrameError, match="no room for a seal"):
        Sealer(KEY).encode(Frame({}, bytes(MAX_BODY_BYTES)))


def test_proofs_and_seals_differ_by_key_greeting_and_direction() -> None:
    sets = [
        Keys(KEY, b"asked", b"answered"),
        Keys(KEY, b"asked!", b"answered"),
        Keys(KEY, b"asked", b"answered!"),
        Keys(KEY, b"askedanswered", b""),
        Keys(bytes(32), b"asked", b"answered"),
    ]
    values = [
        value
        for keys in sets
        for value in (
            bytes.fromhex(keys.host_proof),
            bytes.fromhex(keys.agent_proof),
            keys.host_seal,
            keys.agent_seal,
        )
    ]
    assert len(set(values)) == len(values)
    assert KEY not in values


@pytest.mark.parametrize("given", [None, 5, "", "00" * 32, "\udc80", ["x"], "é" * 64])
def test_anything_else_is_no_proof(given: object) -> None:
    assert not Keys.is_proof(given, Keys(KEY, b"", b"").host_proof)


@pytest.mark.parametrize(
    "text", ["", "secret", "0" * 64, "ab" * 32, KEY.hex().upper() + "G", KEY.hex()[:-1]]
)
def test_words_are_no_key_and_are_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="it is no key") as caught:
        key_of_text(text)
    assert len(text) < 8 or text not in str(caught.value)


def test_key_text_may_end_in_a_newline() -> None:
    assert key_of_text(KEY.hex() + "\r\n") == KEY


def test_nonces_do_not_repeat() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
