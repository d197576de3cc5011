"""OpenSSH signatures (SSHSIG) on the device: read one, and have it checked.

Which key may sign, for what and until when is decided here, so that it is the same on every
device and each refusal has its own words. The cryptography is ``ssh-keygen``'s where the device
has one that passes a test with known answers, else `edge_agent.ed25519`; there is no third.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import struct
import subprocess
from typing import Dict, Iterator, List, Optional, Tuple

from edge_agent import ed25519
from edge_agent.signing_keys import Signer, find_signer
from edgesdk.wire.statement import MAX_SIGNATURE_CHARS, NAMESPACE

__all__ = ["BadSignature", "Checker", "Signature", "parse_signature"]

_BEGIN = "-----BEGIN SSH SIGNATURE-----"
_END = "-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_HASHES = ("sha256", "sha512")
#: What each kind of key signs with. No DSA, no SHA-1, no certificates.
_ALGORITHMS = {
    "ssh-ed25519": ("ssh-ed25519",),
    "sk-ssh-ed25519@openssh.com": ("sk-ssh-ed25519@openssh.com",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("sk-ecdsa-sha2-nistp256@openssh.com",),
    "ssh-rsa": ("rsa-sha2-256", "rsa-sha2-512"),
}
_MIN_RSA_BITS = 2048
#: Never looked for in PATH, which others may have set.
_SSH_KEYGEN = ("/usr/bin/ssh-keygen", "/usr/local/bin/ssh-keygen", "/bin/ssh-keygen")
_SSH_KEYGEN_S = 20.0
# known answers: a key that exists nowhere else, and what it says of two texts
_KNOWN_KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIOqG245WFPU6stXoou2L5oxgqYorfbOYqlO4F4SscfMy"
_KNOWN_TEXT = b"edgesdk asks whether ssh-keygen can verify"
_KNOWN_SIGNATURE = """\
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAg6obbjlYU9Tqy1eii7YvmjGCpii
t9s5iqU7gXhKxx8zIAAAAOYnVuZGxlQGVkZ2VzZGsAAAAAAAAABnNoYTUxMgAAAFMAAAAL
c3NoLWVkMjU1MTkAAABAppx5LWPDzncE9CBuC5+ERkPy+lgD+W/ZYsDX/CLAsz5T48PBle
zdUb1o2ukpxwLNgcspLEBInuFQ3YJbPhwJCQ==
-----END SSH SIGNATURE-----
"""


class BadSignature(Exception):
    """A signature that does not count; ``why`` is one word for programs."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


class Signature:
    """An SSHSIG, taken apart; ``armored`` is how it came."""

    def __init__(
        self, armored: str, key: bytes, key_type: str, hash_name: str, raw: bytes
    ) -> None:
        self.armored = armored
        self.key = key
        self.key_type = key_type
        self.hash_name = hash_name
        self.raw = raw


def _truncated(what: str) -> BadSignature:
    return BadSignature("truncated", "the signature is cut off in its {}".format(what))


class _Blob:
    """Reads the strings of an SSH structure."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, what: str) -> bytes:
        if len(self._data) < 4:
            raise _truncated(what)
        (length,) = struct.unpack_from(">I", self._data)
        if len(self._data) < 4 + length:
            raise _truncated(what)
        value, self._data = self._data[4 : 4 + length], self._data[4 + length :]
        return value

    def text(self, what: str) -> str:
        return self.take(what).decode("ascii", "backslashreplace")[:100]

    def end(self, what: str) -> None:
        if self._data:
            raise BadSignature("malformed", "the signature has bytes behind its " + what)


def _unarmor(armored: str) -> bytes:
    if not armored.strip():
        raise BadSignature("empty", "the signature is empty")
    if any(ord(char) > 126 for char in armored):  # blanks that are not ASCII are blanks, too
        raise BadSignature("malformed", "the signature is not ASCII")
    if len(armored) > MAX_SIGNATURE_CHARS:
        raise BadSignature(
            "malformed",
            "the signature has {} characters (at most {})".format(
                len(armored), MAX_SIGNATURE_CHARS
            ),
        )
    lines = armored.strip().splitlines()
    if lines[0] != _BEGIN:
        raise BadSignature("malformed", "the signature is no SSH signature")
    if lines[-1] != _END:
        raise _truncated("text")
    try:
        return base64.b64decode("".join(lines[1:-1]).encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise BadSignature("malformed", "the signature is not base64") from None


def parse_signature(armored: str) -> Signature:
    """Take a signature apart, and refuse what no key of ours could have made.

    Raises:
        BadSignature: It is empty, cut off, of an unknown algorithm, for another namespace...
    """
    data = _unarmor(armored)
    if len(data) < len(_MAGIC) + 4:
        raise _truncated("head")
    if not data.startswith(_MAGIC + struct.pack(">I", 1)):
        raise BadSignature("malformed", "the signature is no SSHSIG of version 1")
    blob = _Blob(data[len(_MAGIC) + 4 :])
    key = blob.take("key")
    namespace = blob.text("namespace")
    blob.take("reserved field")
    hash_name = blob.text("hash name")
    signature = _Blob(blob.take("signature"))
    blob.end("signature")
    if namespace != NAMESPACE:
        raise BadSignature(
            "wrong-namespace",
            "the signature was made for {!r} (expected {!r})".format(namespace, NAMESPACE),
        )
    key_type = _Blob(key).text("key")
    algorithm = signature.text("algorithm")
    if key_type not in _ALGORITHMS or algorithm not in _ALGORITHMS[key_type]:
        raise BadSignature(
            "unknown-algorithm",
            "the signature is {} by a key of type {}: no algorithm that this device "
            "knows".format(algorithm, key_type),
        )
    if hash_name not in _HASHES:
        raise BadSignature(
            "unknown-algorithm",
            "the signature hashes with {!r} (expected {})".format(
                hash_name, " or ".join(_HASHES)
            ),
        )
    return Signature(armored, key, key_type, hash_name, signature.take("value"))


def _why_weak(signature: Signature) -> Optional[str]:
    """Say what is wrong with the key or the numbers themselves."""
    key = _Blob(signature.key)
    key.take("key")
    if signature.key_type in ("ssh-ed25519", "sk-ssh-ed25519@openssh.com"):
        return ed25519.why_unsound(key.take("key"), signature.raw)
    if signature.key_type == "ssh-rsa":
        key.take("exponent")
        bits = int.from_bytes(key.take("modulus"), "big").bit_length()
        if bits < _MIN_RSA_BITS:
            return "its RSA key has {} bits (at least {})".format(bits, _MIN_RSA_BITS)
    else:
        key.take("curve")
        if not any(key.take("point")[1:]):
            return "its key is all zeros"
    return None


class Checker:
    """Checks signatures; finds out once what this device can do it with."""

    def __init__(self, ssh_keygen: Tuple[str, ...] = _SSH_KEYGEN) -> None:
        self._candidates = ssh_keygen
        self._found = None  # type: Optional[str]
        self._looked = False

    @property
    def tool(self) -> Optional[str]:
        """The ``ssh-keygen`` that is used, or None: then only Ed25519 can be checked."""
        if not self._looked:
            self._found = next((p for p in self._candidates if _works(p)), None)
            self._looked = True
        return self._found

    def check(
        self, message: bytes, armored: str, signers: List[Signer], now_s: float
    ) -> Signer:
        """Give who signed ``message``.

        Args:
            message: What should be signed.
            armored: The signature as text.
            signers: Who may sign, and who may no longer.
            now_s: Seconds since 1970, against which the validity of keys is held.

        Raises:
            BadSignature: It is not a good signature of one of them; ``why`` says how not.
        """
        signature = parse_signature(armored)
        weak = _why_weak(signature)
        if weak is not None:
            raise BadSignature("unsound", "the signature is unsound: " + weak)
        signer, why, text = find_signer(signers, signature.key, now_s)
        if signer is None:
            raise BadSignature(why, text)
        if not self._is_good(message, signature):
            raise BadSignature(
                "wrong", "the signature does not fit: what was signed is something else"
            )
        return signer

    def _is_good(self, message: bytes, signature: Signature) -> bool:
        if self.tool is not None:
            return _ask_ssh_keygen(
                self.tool, message, signature.armored, signature.key_type, signature.key
            )
        if signature.key_type != "ssh-ed25519":
            raise BadSignature(
                "unknown-algorithm",
                "this device has no ssh-keygen that verifies (OpenSSH 8.1 or newer), and "
                "without it checks ssh-ed25519 only, not {}".format(signature.key_type),
            )
        key = _Blob(signature.key)
        key.take("type")
        return ed25519.verify(key.take("key"), signature.raw, signed_bytes(message, signature))


def signed_bytes(message: bytes, signature: Signature) -> bytes:
    """Give what an SSHSIG signs: not the message, but its hash in a frame."""
    digest = hashlib.new(signature.hash_name, message).digest()
    fields = (NAMESPACE.encode("ascii"), b"", signature.hash_name.encode("ascii"), digest)
    return _MAGIC + b"".join(struct.pack(">I", len(field)) + field for field in fields)


@contextlib.contextmanager
def _as_files(texts: Dict[str, str]) -> Iterator[Dict[str, str]]:
    """Show texts as paths, through pipes: nothing is written to a disk that may be full."""
    descriptors = {}  # type: Dict[str, int]
    try:
        for name, text in texts.items():
            reading, writing = os.pipe()
            descriptors[name] = reading
            try:
                os.set_blocking(writing, False)  # texts are shorter than any pipe
                os.write(writing, text.encode("ascii"))
            finally:
                os.close(writing)
        yield {name: "/dev/fd/{}".format(fd) for name, fd in descriptors.items()}
    finally:
        for fd in descriptors.values():
            os.close(fd)


def _ask_ssh_keygen(tool: str, message: bytes, armored: str, key_type: str, key: bytes) -> bool:
    signer = "signer {} {}\n".format(key_type, base64.b64encode(key).decode("ascii"))
    try:
        with _as_files({"signers": signer, "signature": armored}) as paths:
            fds = [int(path.rpartition("/")[2]) for path in paths.values()]
            command = [tool, "-Y", "verify", "-I", "signer", "-n", NAMESPACE]
            command += ["-f", paths["signers"], "-s", paths["signature"]]
            done = subprocess.run(
                command,
                input=message,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=fds,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                cwd="/",
                timeout=_SSH_KEYGEN_S,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _works(tool: str) -> bool:
    """Say whether that program tells a good signature from a bad one."""
    if not os.access(tool, os.X_OK):
        return False
    key = base64.b64decode(_KNOWN_KEY)
    good = _ask_ssh_keygen(tool, _KNOWN_TEXT, _KNOWN_SIGNATURE, "ssh-ed25519", key)
    bad = _ask_ssh_keygen(tool, _KNOWN_TEXT + b"?", _KNOWN_SIGNATURE, "ssh-ed25519", key)
    return good and not bad
