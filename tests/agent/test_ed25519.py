"""The verifier in Python alone: published vectors, and what a lax one would let through."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19
#: RFC 8032, section 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e"
        "39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f"
        "3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67"
        "f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba"
        "3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfb"
        "c7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.fixture(scope="module")
def ed25519(agent_modules: Callable[[str], Any]) -> Any:
    return agent_modules("edge_agent.ed25519")


@pytest.mark.parametrize("vector", VECTORS, ids=["empty", "one byte", "two bytes", "sha"])
def test_published_vectors_verify(ed25519: Any, vector: tuple[str, str, str]) -> None:
    public, message, signature = (bytes.fromhex(text) for text in vector)
    assert ed25519.verify(public, signature, message)
    assert not ed25519.verify(public, signature, message + b"\0")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, message)


def test_every_flipped_bit_is_noticed(ed25519: Any) -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[2])
    for place in range(0, 512, 5):
        broken = bytearray(signature)
        broken[place // 8] ^= 1 << place % 8
        assert not ed25519.verify(public, bytes(broken), message), place
    for place in range(0, 256, 5):
        other = bytearray(public)
        other[place // 8] ^= 1 << place % 8
        assert not ed25519.verify(bytes(other), signature, message), place


def test_agrees_with_another_implementation(ed25519: Any) -> None:
    for length in (0, 1, 31, 32, 64, 127, 128, 1000):
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        message = os.urandom(length)
        assert ed25519.verify(public, private.sign(message), message)
        assert not ed25519.verify(public, private.sign(message + b"!"), message)


@pytest.mark.parametrize("times", [1, 2, 14])
def test_other_form_of_a_good_signature_is_refused(ed25519: Any, times: int) -> None:
    public, message, signature = (bytes.fromhex(text) for text in VECTORS[1])
    scalar = int.from_bytes(signature[32:], "little") + times * ORDER
    other = signature[:32] + scalar.to_bytes(32, "little")
    assert not ed25519.verify(public, other, message)
    assert "not reduced" in ed25519.why_unsound(public, other)


def _small_order_points(module: Any) -> set[bytes]:
    """All eight, as multiples of one of order eight."""
    found = set()
    for y in range(2, 60):
        point = module._decode(y.to_bytes(32, "little"))
        if point is None:
            continue
        multiple = module._NEUTRAL  # order * point leaves only its part of small order
        for place in range(ORDER.bit_length() - 1, -1, -1):
            multiple = module._double(multiple)
            if ORDER >> place & 1:
                multiple = module._add(multiple, point)
        step = multiple
        for _ in range(8):
            found.add(module._encode(step))
            step = module._add(step, multiple)
        if len(found) == 8:
            return found
    raise AssertionError("not all points of small order were found")


def test_keys_of_small_order_fit_no_message(ed25519: Any) -> None:
    for point in _small_order_points(ed25519):
        # R the neutral point, S zero: a lax verifier takes this for many messages
        signature = (1).to_bytes(32, "little") + bytes(32)
        assert ed25519.why_unsound(point, signature) is not None, point.hex()
        for message in (b"", b"a", b"b", b"c", b"d", b"e", b"f", b"g"):
            assert not ed25519.verify(point, signature, message)


def test_commitments_of_small_order_are_refused(ed25519: Any) -> None:
    public = bytes.fromhex(VECTORS[0][0])
    for point in _small_order_points(ed25519):
        assert "first half" in ed25519.why_unsound(public, point + bytes(32))


def test_only_the_one_encoding_of_a_point_counts(ed25519: Any) -> None:
    signature = bytes.fromhex(VECTORS[0][2])
    for y in range(19):  # y + p still fits into 255 bits
        for sign in (0, 1 << 255):
            encoded = (y + P | sign).to_bytes(32, "little")
            assert ed25519._decode(encoded) is None
            assert not ed25519.verify(encoded, signature, b"")
    for y in (1, P - 1):  # x is zero, and zero has no sign
        assert ed25519._decode((y | 1 << 255).to_bytes(32, "little")) is None


def test_zero_key_is_refused_with_its_own_words(ed25519: Any) -> None:
    assert ed25519.why_unsound(bytes(32), bytes(64)) == "its key is all zeros"
    assert not ed25519.verify(bytes(32), bytes(64), b"")


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_wrong_lengths_are_refused(ed25519: Any, key: int, signature: int) -> None:
    assert not ed25519.verify(b"\1" * key, b"\1" * signature, b"")


def test_random_bytes_are_refused_as_elsewhere(ed25519: Any) -> None:
    for _ in range(20):
        public, signature = os.urandom(32), os.urandom(64)
        assert not ed25519.verify(public, signature, b"x")
        with pytest.raises((InvalidSignature, ValueError)):
            Ed25519PublicKey.from_public_bytes(public).verify(signature, b"x")
