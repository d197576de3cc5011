"""Read OpenSSH ``known_hosts`` files: which keys a host may show, and which are revoked.

All of the format counts, patterns, negation, hashed names and ``@revoked`` included; what is
not understood is not trusted. ``@cert-authority`` lines are skipped: host certificates are not
used.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import HostKeyError

__all__ = [
    "KnownKey",
    "check_fingerprint",
    "check_host_key",
    "fingerprint",
    "host_id",
    "known_keys",
]

_MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """One line that speaks of the host."""

    kind: str
    blob: bytes
    revoked: bool
    path: Path
    line: int


def host_id(host: str, port: int) -> str:
    """Give the name under which a host is filed: ``host``, or ``[host]:port`` off port 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def fingerprint(blob: bytes) -> str:
    """Give a key's fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii")
    return "SHA256:" + digest.rstrip("=")


def _matches_hashed(pattern: str, name: str) -> bool:
    try:
        _, _, salt, digest = pattern.split("|")
        mac = hmac.new(base64.b64decode(salt), name.encode("utf-8"), hashlib.sha1).digest()
        return hmac.compare_digest(mac, base64.b64decode(digest))
    except (ValueError, binascii.Error):
        return False


def _matches(patterns: str, name: str) -> bool:
    found = False
    for pattern in patterns.lower().split(",") if "|" not in patterns else [patterns]:
        if pattern.startswith("|1|"):
            found = found or _matches_hashed(pattern, name)
            continue
        bare = pattern.removeprefix("!")
        # only * and ? are special to OpenSSH; fnmatch would also take [...], as in [host]:port
        if fnmatch.fnmatchcase(name, bare.replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _parse(raw: str, name: str, path: Path, number: int) -> KnownKey | None:
    fields = raw.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if marker not in ("", "@revoked") or len(fields) < 3 or not _matches(fields[0], name):
        return None
    try:
        blob = base64.b64decode(fields[2], validate=True)
    except (ValueError, binascii.Error):
        return None
    return KnownKey(
        kind=fields[1], blob=blob, revoked=marker == "@revoked", path=path, line=number
    )


def known_keys(paths: Iterable[Path], name: str) -> list[KnownKey]:
    """Give every key filed for ``name`` (see `host_id`); a missing file counts as empty."""
    found = []
    for path in paths:
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        for number, raw in enumerate(text.split("\n"), start=1):
            key = _parse(raw, name, path, number)
            if key is not None:
                found.append(key)
    return found


def check_host_key(
    blob: bytes,
    kind: str,
    known: Sequence[KnownKey],
    *,
    name: str,
    host: str,
    port: int,
    filed_as: str,
    files: Sequence[Path],
) -> None:
    """Refuse a host's key unless it is on file.

    Args:
        blob: The key it showed, and ``kind``, its type.
        kind: Such as ``ssh-ed25519``.
        known: What `known_keys` gave for ``filed_as``.
        name: How messages call the host.
        host: Its address, and ``port``: for the command that enrols it.
        port: See ``host``.
        filed_as: Its name in known hosts files.
        files: Those that were looked at; a new key would go into the first.

    Raises:
        HostKeyError: It is unknown, changed, of another kind, or revoked. There is no way
            around it but to enrol the key.
    """
    check_fingerprint(
        fingerprint(blob),
        kind,
        known,
        name=name,
        host=host,
        port=port,
        filed_as=filed_as,
        files=files,
    )


def check_fingerprint(
    shown: str,
    kind: str,
    known: Sequence[KnownKey],
    *,
    name: str,
    host: str,
    port: int,
    filed_as: str,
    files: Sequence[Path],
) -> None:
    """Refuse a host's key unless it is on file, where only its fingerprint is at hand.

    Args and errors are those of `check_host_key`; ``shown`` is what `fingerprint` gives.
    """
    short = _short(kind)
    facts = {
        "device": name,
        "fingerprint": shown,
        "key_type": kind,
        "known_hosts": str(files[0]),
    }
    look = f"on the device: `ssh-keygen -lf /etc/ssh/ssh_host_{short}_key.pub`"
    if any(entry.revoked and fingerprint(entry.blob) == shown for entry in known):
        raise HostKeyError(
            f"cannot trust {name}: its host key {shown} is revoked in the known hosts",
            hint="that key is known to be stolen or withdrawn; give the device a new one",
            **facts,
        )
    valid = [entry for entry in known if not entry.revoked]
    if any(fingerprint(entry.blob) == shown for entry in valid):
        return
    if valid:
        filed = next((entry for entry in valid if entry.kind == kind), valid[0])
        expected = fingerprint(filed.blob)
        raise HostKeyError(
            f"cannot trust {name}: its host key has changed: it shows {kind} {shown}, "
            f"{filed.path}:{filed.line} has {filed.kind} {expected}",
            hint=f"somebody may be in between. Compare {look}; only if it prints {shown}, "
            f"forget the old key, `ssh-keygen -R '{filed_as}' -f {filed.path}`, "
            "and enrol the new one",
            **facts,
            expected=expected,
        )
    scan = f"ssh-keyscan -p {port} -t {short} {host} >> {files[0]}"
    raise HostKeyError(
        f"cannot trust {name}: its host key is unknown: it shows {kind} {shown}, "
        f"and no line for {filed_as} is in {', '.join(str(path) for path in files)}",
        hint=f"compare {look}; if it prints {shown}, enrol it: `{scan}`",
        **facts,
    )


def _short(kind: str) -> str:
    return "rsa" if "rsa" in kind else "ecdsa" if "ecdsa" in kind else "ed25519"
