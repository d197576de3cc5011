"""Checking Ed25519 signatures in Python alone (RFC 8032), for devices without ``ssh-keygen``.

Verification only, so nothing here is secret and nothing has to take the same time always. It is
strict where the RFC leaves a choice: the scalar must be below the group's order (else anybody
could make a second signature out of a good one), points must have their one encoding, and a key
or a commitment of small order is refused (with such a key one signature fits many messages, and
the all-zero key is one). The equation is checked without the cofactor, as OpenSSH does.
"""

from __future__ import annotations

import hashlib
from typing import Optional, Tuple

__all__ = ["verify", "why_unsound"]

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)  # a square root of -1

# a point in extended coordinates: x = X/Z, y = Y/Z, x*y = T/Z
_Point = Tuple[int, int, int, int]
_NEUTRAL = (0, 1, 1, 0)


def _add(left: _Point, right: _Point) -> _Point:
    a = (left[1] - left[0]) * (right[1] - right[0]) % _P
    b = (left[1] + left[0]) * (right[1] + right[0]) % _P
    c = 2 * left[3] * right[3] * _D % _P
    d = 2 * left[2] * right[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _double(point: _Point) -> _Point:
    a = point[0] * point[0] % _P
    b = point[1] * point[1] % _P
    c = 2 * point[2] * point[2] % _P
    h = a + b
    e = h - (point[0] + point[1]) * (point[0] + point[1]) % _P
    g = a - b
    f = c + g
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _is_neutral(point: _Point) -> bool:
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0


def _decode(data: bytes) -> Optional[_Point]:
    """Give the point with that encoding, or None; only the one canonical encoding counts."""
    y = int.from_bytes(data, "little")
    sign = y >> 255
    y &= (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return (x, y, 1, x * y % _P)


def _encode(point: _Point) -> bytes:
    inverse = pow(point[2], _P - 2, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


_BASE_Y = 4 * pow(5, _P - 2, _P) % _P
_BASE = _decode(_BASE_Y.to_bytes(32, "little"))  # type: _Point  # type: ignore[assignment]  # it is on the curve


def _is_small(point: _Point) -> bool:
    return _is_neutral(_double(_double(_double(point))))


def _both(first: int, left: _Point, second: int, right: _Point) -> _Point:
    """Give ``first * left + second * right``, with one doubling for a bit of each."""
    table = {(1, 0): left, (0, 1): right, (1, 1): _add(left, right)}
    result = _NEUTRAL  # type: _Point
    for place in range(max(first.bit_length(), second.bit_length()) - 1, -1, -1):
        result = _double(result)
        bits = (first >> place & 1, second >> place & 1)
        if bits != (0, 0):
            result = _add(result, table[bits])
    return result


def why_unsound(public: bytes, signature: bytes) -> Optional[str]:
    """Say what is wrong with a key or a signature whatever was signed; None if nothing is."""
    if len(public) != 32 or len(signature) != 64:
        return "key and signature have {} and {} bytes (expected 32 and 64)".format(
            len(public), len(signature)
        )
    why = None
    key, commitment = _decode(public), _decode(signature[:32])
    if not any(public):
        why = "its key is all zeros"
    elif key is None:
        why = "its key is no point of the curve"
    elif _is_small(key):
        why = "its key is of small order: one signature would fit many messages"
    elif commitment is None or _is_small(commitment):
        why = "its first half is no point that a signer would give"
    elif int.from_bytes(signature[32:], "little") >= _ORDER:
        why = "its second half is not reduced: it is another form of somebody's signature"
    return why


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether ``signature`` is that of ``message`` with the key ``public``."""
    if why_unsound(public, signature) is not None:
        return False
    key = _decode(public)
    assert key is not None
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    scalar = int.from_bytes(signature[32:], "little")
    minus_key = (_P - key[0], key[1], 1, _P - key[3])
    return _encode(_both(scalar, _BASE, challenge, minus_key)) == signature[:32]
