"""Proof that both ends of a line hold one key, and a seal on every frame after that.

A serial line has no login. Where the device demands it, ``hello`` carries a random number of
each end, ``auth`` the proofs of both: HMAC-SHA256 under a key made from the shared key and the
hash of the whole greeting, so that nothing in it can have been changed (a version, a limit) and
no earlier proof fits. From then on every frame ends in a *seal* of 24 bytes: a number that
only rises, and the first 16 bytes of an HMAC over number, meta and body, under a key for that
direction and session. So a frame that is injected, altered, replayed, reordered or sent back is
no frame. What is said can be read by who has the wire; it is proven, not hidden.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import struct
from typing import Optional

from edgesdk.wire.frames import Frame, FrameError, encode_frame, meta_bytes
from edgesdk.wire.limits import MAX_BODY_BYTES

__all__ = [
    "KEY_BYTES",
    "NONCE",
    "SEAL_BYTES",
    "Keys",
    "Opener",
    "Sealer",
    "key_of_text",
    "new_nonce",
]

KEY_BYTES = 32
SEAL_BYTES = 24
_NUMBER = struct.Struct(">Q")
_MAC_BYTES = SEAL_BYTES - _NUMBER.size
_HEX_KEY = re.compile(r"[0-9a-f]{64}\Z")
#: What a nonce looks like.
NONCE = re.compile(r"[0-9a-f]{32}\Z")


def new_nonce() -> str:
    """Give a random number for one greeting, as 32 hexadecimal digits."""
    return secrets.token_hex(16)


def key_of_text(text: str) -> bytes:
    """Read a shared key: 64 lower-case hexadecimal digits, and nothing else.

    Words that people can remember are not taken: who listens could try them all at home.

    Raises:
        ValueError: It is something else; the text is not repeated.
    """
    text = text.strip()
    if not _HEX_KEY.match(text) or len(set(text)) < 8:
        raise ValueError("it is no key (expected 64 random hexadecimal digits)")
    return bytes.fromhex(text)


class Keys:
    """What both ends derive from the shared key and the greeting, as its bytes went over."""

    def __init__(self, shared: bytes, asked: bytes, answered: bytes) -> None:
        transcript = hashlib.sha256(
            hashlib.sha256(asked).digest() + hashlib.sha256(answered).digest()
        ).digest()
        self._root = hmac.new(shared, b"edgesdk line 1" + transcript, hashlib.sha256).digest()
        self.host_proof = self._derive(b"proof of the host").hex()
        self.agent_proof = self._derive(b"proof of the agent").hex()
        self.host_seal = self._derive(b"seal of the host")
        self.agent_seal = self._derive(b"seal of the agent")

    def _derive(self, label: bytes) -> bytes:
        return hmac.new(self._root, label, hashlib.sha256).digest()

    @staticmethod
    def is_proof(given: object, proof: str) -> bool:
        """Compare a proof from the peer, in the same time wherever it differs."""
        return isinstance(given, str) and hmac.compare_digest(
            given.encode("utf-8", "replace"), proof.encode("ascii")
        )


def _mac(key: bytes, number: bytes, meta: bytes, body: bytes) -> bytes:
    mac = hmac.new(key, number + struct.pack(">I", len(meta)), hashlib.sha256)
    mac.update(meta)
    mac.update(body)
    return mac.digest()[:_MAC_BYTES]


class Sealer:
    """Encodes frames with a seal; one for each direction of a session."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._number = 0

    def encode(self, frame: Frame) -> bytes:
        """Give the bytes of ``frame``, sealed; no two calls give the same.

        Raises:
            FrameError: As `edgesdk.wire.frames.encode_frame`.
        """
        if len(frame.body) > MAX_BODY_BYTES - SEAL_BYTES:
            raise FrameError("cannot encode frame: its body leaves no room for a seal")
        self._number += 1
        number = _NUMBER.pack(self._number)
        seal = number + _mac(self._key, number, meta_bytes(frame.meta), frame.body)
        return encode_frame(Frame(frame.meta, frame.body + seal))


class Opener:
    """Takes the seal off frames of the peer; ``refused`` counts those without a good one."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._newest = 0
        self.refused = 0

    def open(self, frame: Frame) -> Optional[Frame]:
        """Give the frame without its seal, or None where that is not good or not newer."""
        seal, body = frame.body[-SEAL_BYTES:], frame.body[:-SEAL_BYTES]
        if len(seal) == SEAL_BYTES and frame.raw_meta is not None:
            number = seal[: _NUMBER.size]
            (value,) = _NUMBER.unpack(number)
            good = hmac.compare_digest(
                seal[_NUMBER.size :], _mac(self._key, number, frame.raw_meta, body)
            )
            if good and value > self._newest:
                self._newest = value
                return Frame(frame.meta, body, frame.raw_meta)
        self.refused += 1
        return None
