"""Keys and signatures for tests of trust: real ones from ssh-keygen, and crafted ones."""

from __future__ import annotations

import base64
import hashlib
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from edgesdk.bundle.signing import Signature, sign_statement
from edgesdk.wire.statement import NAMESPACE
from tests.agent.agent_driver import EchoBundle

needs_ssh_keygen = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here (OpenSSH client)"
)


class Key:
    """A key pair of the user's, without passphrase."""

    def __init__(self, folder: Path, name: str = "key", kind: str = "ed25519") -> None:
        self.path = folder / name
        command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(self.path)]
        if kind == "rsa":
            command += ["-b", "2048"]  # quicker than the default, and the least that counts
        subprocess.run(command, check=True, timeout=60)
        self.public = self.path.with_suffix(".pub").read_text().strip()

    def signer(self, who: str = "me", options: str = "") -> str:
        """A line of allowed_signers."""
        return f"{who} {options + ' ' if options else ''}{self.public}\n"

    def sign(self, bundle: EchoBundle | str, **values: Any) -> Signature:
        """Sign a statement about a bundle as the command line does."""
        known: dict[str, Any] = {"name": "echo", "counter": 1, "key": str(self.path)}
        if not isinstance(bundle, str):
            known["name"] = bundle.manifest["name"]
            bundle = bundle.id
        return sign_statement(bundle=bundle, **{**known, **values})

    def sign_bytes(self, message: bytes, namespace: str = NAMESPACE) -> str:
        """Sign anything, for anything."""
        file = self.path.with_suffix(".message")
        file.write_bytes(message)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(self.path)]
        subprocess.run([*command, str(file)], check=True, capture_output=True, timeout=60)
        signature = Path(f"{file}.sig")
        text = signature.read_text()
        signature.unlink()
        return text


def packed(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(field)) + field for field in fields)


def armor(data: bytes) -> str:
    text = base64.b64encode(data).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(
        ["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""]
    )


def crafted(
    key: bytes,
    signature: bytes,
    *,
    namespace: bytes = NAMESPACE.encode(),
    hash_name: bytes = b"sha512",
    version: int = 1,
    tail: bytes = b"",
) -> str:
    """An SSHSIG from its pieces, whatever they are."""
    head = b"SSHSIG" + struct.pack(">I", version)
    return armor(head + packed(key, namespace, b"", hash_name, signature) + tail)


def signed_data(message: bytes, namespace: bytes = NAMESPACE.encode()) -> bytes:
    """What the key has to sign for ``message``."""
    digest = hashlib.sha512(message).digest()
    return b"SSHSIG" + packed(namespace, b"", b"sha512", digest)


class SecurityKey:
    """A FIDO key, played in software: what it signs is what a real one does."""

    KIND = b"sk-ssh-ed25519@openssh.com"
    APPLICATION = b"ssh:"

    def __init__(self) -> None:
        self._private = ed25519.Ed25519PrivateKey.generate()
        raw = self._private.public_key().public_bytes_raw()
        self.blob = packed(self.KIND, raw, self.APPLICATION)
        self.public = f"{self.KIND.decode()} {base64.b64encode(self.blob).decode()}"

    def sign_bytes(self, message: bytes) -> str:
        flags, counter = b"\1", struct.pack(">I", 7)
        text = hashlib.sha256(signed_data(message)).digest()
        data = hashlib.sha256(self.APPLICATION).digest() + flags + counter + text
        signature = packed(self.KIND, self._private.sign(data)) + flags + counter
        return crafted(self.blob, signature)
