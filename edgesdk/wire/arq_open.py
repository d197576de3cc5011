"""The frames that build and refuse a session on a serial line, and the keys they agree on.

Behind the mark `OPENING`: kind, version, then::

    SYN      token of the host 8, speeds u32 (the mask of `arq_rate`)
    SYN_ACK  token of the host 8, token of the agent 8, speeds u32
    RST      token of the agent 8
"""

from __future__ import annotations

import struct
import zlib
from typing import List, Optional, Sequence, Tuple

from edgesdk.wire.arq_frames import OPENING, open_frame, seal_frame
from edgesdk.wire.arq_rate import mask_of_rates, rates_of_mask

__all__ = [
    "LINE_VERSION",
    "RST",
    "SYN",
    "SYN_ACK",
    "TOKEN_BYTES",
    "Opening",
    "pack_rst",
    "pack_syn",
    "pack_syn_ack",
    "read_opening",
    "session_keys",
]

LINE_VERSION = 1
TOKEN_BYTES = 8
SYN, SYN_ACK, RST = b"S", b"A", b"R"
_MASK = struct.Struct(">I")
_TOKENS = {SYN: 1, SYN_ACK: 2, RST: 1}
_NO_TOKEN = bytes(TOKEN_BYTES)


class Opening:
    """What an opening frame says; ``tokens`` and ``rates`` are empty for another version."""

    __slots__ = ("kind", "rates", "tokens", "version")

    def __init__(
        self, kind: bytes, version: int, tokens: Sequence[bytes], rates: List[int]
    ) -> None:
        self.kind = kind
        self.version = version
        self.tokens = tokens
        self.rates = rates


def _pack(kind: bytes, rest: bytes) -> bytes:
    return seal_frame(OPENING + kind + bytes([LINE_VERSION]) + rest, None)


def pack_syn(token: bytes, rates: Sequence[int]) -> bytes:
    """Give what a host says to begin a session, as it stands between two delimiters."""
    return _pack(SYN, token + _MASK.pack(mask_of_rates(rates)))


def pack_syn_ack(host_token: bytes, token: bytes, rates: Sequence[int]) -> bytes:
    """Give the agent's answer; ``host_token`` is empty where the SYN could not be read."""
    return _pack(SYN_ACK, (host_token or _NO_TOKEN) + token + _MASK.pack(mask_of_rates(rates)))


def pack_rst(token: bytes) -> bytes:
    """Give what an agent without a session says to frames of one."""
    return _pack(RST, token)


def read_opening(chunk: bytes) -> Optional[Opening]:
    """Read what stood between two delimiters; None when it is no opening frame."""
    body = open_frame(chunk, None)
    at = len(OPENING)
    if body is None or not body.startswith(OPENING) or len(body) < at + 2:
        return None
    kind, version, rest = body[at : at + 1], body[at + 1], body[at + 2 :]
    if kind not in _TOKENS:
        return None
    if version != LINE_VERSION:
        return Opening(kind, version, (), [])
    count = _TOKENS[kind] * TOKEN_BYTES
    mask = rest[count:]
    if len(rest) < count or len(mask) != (0 if kind == RST else _MASK.size):
        return None
    tokens = [rest[i : i + TOKEN_BYTES] for i in range(0, count, TOKEN_BYTES)]
    return Opening(kind, version, tokens, rates_of_mask(_MASK.unpack(mask)[0]) if mask else [])


def session_keys(host_token: bytes, agent_token: bytes) -> Tuple[int, int]:
    """Give the keys of the way to the agent and of the way to the host."""
    both = host_token + agent_token
    return (
        zlib.crc32(b"to agent" + both) & 0xFFFFFFFF,
        zlib.crc32(b"to host" + both) & 0xFFFFFFFF,
    )
