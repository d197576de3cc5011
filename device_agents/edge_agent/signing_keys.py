"""Who may sign: the ``allowed_signers`` of OpenSSH, and the keys that are revoked.

The file is that of ``ssh-keygen``'s ALLOWED SIGNERS, less certificates: a line has principals,
options (``namespaces``, ``valid-after``, ``valid-before``), the key's type and the key. A line
that is not understood is an error, never skipped: it might have said "no longer".
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import time
from typing import Dict, List, Optional, Tuple

from edgesdk.wire.statement import NAMESPACE

__all__ = [
    "MAX_KEYS_CHARS",
    "KeysError",
    "Signer",
    "find_signer",
    "fingerprint",
    "load_signers",
]

MAX_KEYS_CHARS = 1 << 17
_MAX_KEYS = 256
_TIME_FORMS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


class KeysError(ValueError):
    """A list of keys cannot be read."""


class Signer:
    """One key: whose it is, and when it counts."""

    def __init__(self, principals: str, key_type: str, key: bytes) -> None:
        self.principals = principals
        self.key_type = key_type
        self.key = key
        self.namespaces = None  # type: Optional[str]
        self.after_s = None  # type: Optional[float]
        self.before_s = None  # type: Optional[float]
        self.revoked = False

    @property
    def label(self) -> str:
        """Whose key it is, with its fingerprint, for people."""
        return "{} ({})".format(self.principals, fingerprint(self.key))


def fingerprint(key: bytes) -> str:
    """Give the fingerprint of a key as OpenSSH writes it."""
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode("ascii")
    return "SHA256:" + digest.rstrip("=")


def _fields(line: str) -> List[str]:
    """Split at blanks, except inside double quotes."""
    fields, quoted, start = [], False, None  # type: List[str], bool, Optional[int]
    for place, char in enumerate(line + " "):
        if char == '"':
            quoted = not quoted
        if char in " \t" and not quoted:
            if start is not None:
                fields.append(line[start:place])
            start = None
        elif start is None:
            start = place
    if quoted:
        raise KeysError("a quote is not closed")
    return fields


def _options(text: str) -> Dict[str, str]:
    options = {}  # type: Dict[str, str]
    rest = text
    while rest:
        name, equals, rest = rest.partition("=")
        if not equals or not rest.startswith('"'):
            raise KeysError("the option {!r} is not known here".format(name or text)[:120])
        value, quote, rest = rest[1:].partition('"')
        if not quote or (rest and not rest.startswith(",")):
            raise KeysError("the options {!r} cannot be read".format(text)[:200])
        rest = rest[1:]
        name = name.lower()
        if name in options or name not in ("namespaces", "valid-after", "valid-before"):
            raise KeysError("the option {!r} is not known here, or twice".format(name)[:120])
        options[name] = value
    return options


def _seconds(text: str) -> float:
    import calendar  # brings the locale and dates along, which few daemons need

    digits = text[:-1] if text.endswith(("Z", "z")) else text
    form = _TIME_FORMS.get(len(digits))
    try:
        if form is None or not digits.isdigit():
            raise ValueError
        moment = time.strptime(digits, form)
        return float(calendar.timegm(moment) if digits != text else time.mktime(moment))
    except (ValueError, OverflowError):
        raise KeysError("{!r} is no time (expected like 20270131Z)".format(text)) from None


def _decode_key(key_type: str, text: str) -> bytes:
    try:
        key = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise KeysError("{!r} is no key".format(text[:40])) from None
    name = key_type.encode("utf-8")
    if key[: 4 + len(name)] != len(name).to_bytes(4, "big") + name:
        raise KeysError("a key is not of the type {!r} that it says".format(key_type)[:120])
    if b"-cert-" in name:
        raise KeysError("certificates are not taken here: list the key itself")
    return key


def _is_key_type(text: str) -> bool:
    return text.startswith(("ssh-", "ecdsa-", "sk-")) and "=" not in text


def _lines(text: str) -> List[Tuple[int, str]]:
    if len(text) > MAX_KEYS_CHARS:
        raise KeysError("it has more than {} characters".format(MAX_KEYS_CHARS))
    numbered = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    kept = [(n, line) for n, line in numbered if line and not line.startswith("#")]
    if len(kept) > _MAX_KEYS:
        raise KeysError("it has more than {} keys".format(_MAX_KEYS))
    return kept


def _signer(line: str) -> Signer:
    fields = _fields(line)
    options = {}  # type: Dict[str, str]
    if len(fields) > 1 and not _is_key_type(fields[1]):
        options = _options(fields.pop(1))
    if len(fields) < 3:
        raise KeysError("expected a name, a key's type and the key")
    signer = Signer(fields[0].strip('"'), fields[1], _decode_key(fields[1], fields[2]))
    signer.namespaces = options.get("namespaces")
    if "valid-after" in options:
        signer.after_s = _seconds(options["valid-after"])
    if "valid-before" in options:
        signer.before_s = _seconds(options["valid-before"])
    return signer


def load_signers(allowed: str, revoked: str = "") -> List[Signer]:
    """Read ``allowed_signers``, and the list of public keys that no longer count.

    Raises:
        KeysError: A line of either cannot be understood.
    """
    signers = []  # type: List[Signer]
    for number, line in _lines(allowed):
        try:
            signers.append(_signer(line))
        except KeysError as exc:
            raise KeysError("line {} of the signers: {}".format(number, exc)) from None
    gone = set()
    for number, line in _lines(revoked):
        fields = line.split()
        try:
            if len(fields) < 2:
                raise KeysError("expected a key's type and the key")
            gone.add(_decode_key(fields[0], fields[1]))
        except KeysError as exc:
            raise KeysError("line {} of the revoked keys: {}".format(number, exc)) from None
    unlisted = gone - {signer.key for signer in signers}
    signers += [Signer("revoked", "", key) for key in sorted(unlisted)]
    for signer in signers:
        signer.revoked = signer.key in gone
    return signers


def find_signer(
    signers: List[Signer], key: bytes, now_s: float
) -> Tuple[Optional[Signer], str, str]:
    """Find who signs with ``key`` now: the signer, or None with one word and a sentence."""
    held = [signer for signer in signers if signer.key == key]
    if not held:
        text = "the signature is by a key that this device does not know ({})"
        return None, "unknown-key", text.format(fingerprint(key))
    if any(signer.revoked for signer in held):
        text = "the signature is by a revoked key ({})"
        return None, "revoked", text.format(fingerprint(key))
    refused = ("", "")
    for signer in held:
        refused = _why_not_now(signer, now_s)
        if not refused[0]:
            return signer, "", ""
    return None, refused[0], refused[1]


def _is_listed(name: str, patterns: str) -> bool:
    """Say whether a list of patterns has ``name``; one with a ``!`` that fits says no."""
    listed = False
    for pattern in patterns.split(","):
        says_no = pattern.startswith("!")
        plain = pattern[says_no:].replace("[", "[[]")  # here only * and ? mean more than text
        if fnmatch.fnmatchcase(name, plain):
            if says_no:
                return False
            listed = True
    return listed


def _why_not_now(signer: Signer, now_s: float) -> Tuple[str, str]:
    if signer.namespaces is not None and not _is_listed(NAMESPACE, signer.namespaces):
        return "wrong-namespace", "the key of {} may sign {} only (not {})".format(
            signer.label, signer.namespaces, NAMESPACE
        )
    if signer.after_s is not None and now_s < signer.after_s:
        return "not-yet-valid", "the key of {} is not valid yet".format(signer.label)
    if signer.before_s is not None and now_s >= signer.before_s:
        return "expired", "the key of {} has expired".format(signer.label)
    return "", ""
