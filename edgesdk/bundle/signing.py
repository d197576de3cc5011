"""Sign a bundle as OpenSSH signs files, with keys that people have already.

What is signed is a short statement about the bundle, see `edgesdk.wire.statement`; it lies
beside the manifest as ``signed.json``, its signature as ``signed.json.sig``. ``ssh-keygen``
does the signing: it asks for a passphrase itself, reaches the user's agent and security keys,
and no secret ever passes through this process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from edgesdk.bundle.store import Bundle, read_regular
from edgesdk.errors import BundleError, InputError, OutputError
from edgesdk.wire.statement import (
    MAX_SIGNATURE_CHARS,
    MAX_STATEMENT_CHARS,
    NAMESPACE,
    SIGNATURE_FILE,
    STATEMENT_FILE,
    StatementError,
    load_statement,
    statement_bytes,
)

__all__ = [
    "AGENT",
    "Signature",
    "read_signature",
    "sign_bundle",
    "sign_statement",
    "write_signature",
]

#: Stands for "the one key that my ssh-agent holds" where a key file is asked for.
AGENT = "agent"
_KEY_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ssh-rsa",
    "ecdsa-sha2-",
    "sk-ecdsa-",
)
_SIGN_TIMEOUT_S = 300.0
_LIST_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A statement about a bundle and the OpenSSH signature on it.

    Attributes:
        statement: The signed bytes, which are text.
        armored: The signature, as ``ssh-keygen`` wrote it.
        bundle: The id of the bundle it is about.
        name: The artifact's name.
        counter: Its place among the statements about that name.
    """

    statement: str
    armored: str
    bundle: str
    name: str
    counter: int


def sign_statement(
    *,
    bundle: str,
    name: str,
    key: str,
    counter: int | None = None,
    downgrade: str | None = None,
) -> Signature:
    """Sign a statement about the bundle with that id and name.

    Args:
        bundle: Its id.
        name: The name in its manifest.
        key: The path of a private key, or of a public one whose private half an ssh-agent or a
            security key has; `AGENT` for the one key that the ssh-agent holds.
        counter: Orders statements about one name; the time in seconds unless given.
        downgrade: The random number with which a device answered that it would go back.

    Raises:
        InputError: No such key, no ``ssh-keygen``, or it did not sign.
    """
    now_s = int(time.time())
    try:
        statement = statement_bytes(
            bundle=bundle,
            name=name,
            counter=now_s if counter is None else counter,
            made=now_s,
            downgrade=downgrade,
        )
    except StatementError as exc:
        raise InputError(f"cannot sign bundle {bundle[:12]}: {exc}", bundle=bundle) from exc
    with _key_file(key) as path:
        armored = _sign(statement, path)
    return _signature(statement.decode("utf-8"), armored)


def sign_bundle(bundle: Bundle, *, key: str, counter: int | None = None) -> Signature:
    """Sign ``bundle``, and leave statement and signature in its folder.

    Signing it again replaces what was there. Arguments and errors are those of
    `sign_statement`.

    Raises:
        OutputError: The folder cannot be written.
    """
    signature = sign_statement(bundle=bundle.id, name=bundle.name, key=key, counter=counter)
    write_signature(bundle, signature)
    return signature


def write_signature(bundle: Bundle, signature: Signature) -> None:
    """Put a signature into the folder of its bundle, the statement last.

    Raises:
        OutputError: It cannot be written.
    """
    files = ((SIGNATURE_FILE, signature.armored), (STATEMENT_FILE, signature.statement))
    try:
        for name, text in files:
            with tempfile.NamedTemporaryFile(dir=bundle.folder, delete=False) as landing:
                landing.write(text.encode("utf-8"))
            Path(landing.name).chmod(0o644)
            Path(landing.name).replace(bundle.folder / name)
    except OSError as exc:
        raise OutputError(
            f"cannot write the signature to {bundle.folder}: {exc.strerror or exc}",
            hint="may you write there?",
            path=str(bundle.folder),
        ) from exc


def read_signature(bundle: Bundle) -> Signature | None:
    """Read the signature in a bundle's folder; None where there is none.

    Whether it counts is for the device to say; here it is only held against the bundle.

    Raises:
        BundleError: There is half of one, or it is about another bundle.
    """
    statement = _read(bundle, STATEMENT_FILE, MAX_STATEMENT_CHARS)
    armored = _read(bundle, SIGNATURE_FILE, MAX_SIGNATURE_CHARS)
    if statement is None and armored is None:
        return None
    problem = ""
    signature = None
    if statement is None or armored is None:
        problem = f"there is no {STATEMENT_FILE if statement is None else SIGNATURE_FILE}"
    else:
        try:
            signature = _signature(statement, armored)
        except StatementError as exc:
            problem = f"{STATEMENT_FILE}: {exc}"
    if signature is not None and (signature.bundle, signature.name) != (bundle.id, bundle.name):
        problem = f"it is about {signature.name} {signature.bundle[:12]}"
    if problem or signature is None:
        raise BundleError(
            f"cannot use the signature of bundle {bundle.folder}: {problem}",
            hint="sign it again: `edgesdk bundle sign`",
            path=str(bundle.folder),
        )
    return signature


def _read(bundle: Bundle, name: str, most: int) -> str | None:
    try:
        return read_regular(bundle.folder / name, most).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise BundleError(
            f"cannot read {name} of bundle {bundle.folder}: {exc}",
            hint="sign it again: `edgesdk bundle sign`",
            path=str(bundle.folder / name),
        ) from exc


def _signature(statement: str, armored: str) -> Signature:
    said = load_statement(statement.encode("utf-8"))
    return Signature(
        statement=statement,
        armored=armored,
        bundle=said["bundle"],
        name=said["name"],
        counter=said["counter"],
    )


def _tool(name: str) -> str:
    found = which(name)
    if found is None:
        raise InputError(
            f"cannot sign: there is no {name} on this computer",
            hint="install the OpenSSH client, 8.1 or newer",
        )
    return found


@contextlib.contextmanager
def _key_file(key: str) -> Iterator[Path]:
    """Give the path of a key file for as long as it is needed."""
    if key != AGENT:
        path = Path(key).expanduser()
        if not path.is_file():
            raise InputError(
                f"cannot sign with {key}: there is no such file",
                hint="name a private key such as ~/.ssh/id_ed25519, the .pub file of a key "
                "that your ssh-agent holds, or `agent`",
                key=key,
            )
        yield path.absolute()
        return
    line = _only_key_of_agent()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "key.pub"
        path.write_text(line + "\n", encoding="utf-8")
        yield path


def _only_key_of_agent() -> str:
    try:
        done = subprocess.run(
            [_tool("ssh-add"), "-L"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_LIST_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise InputError(f"cannot ask the ssh-agent for its keys: {exc}") from exc
    lines = [line for line in done.stdout.splitlines() if line.startswith(_KEY_TYPES)]
    keys = [line for line in lines if "-cert-" not in line.partition(" ")[0]]
    if len(keys) != 1:
        seen = f"it holds {len(keys)} keys" if keys else "it holds no key, or does not run"
        raise InputError(
            f"cannot sign with the ssh-agent: {seen}",
            hint="name the .pub file of the one to sign with" if keys else "`ssh-add` adds one",
        )
    return keys[0]


def _sign(statement: bytes, key: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STATEMENT_FILE
        file.write_bytes(statement)
        command = [_tool("ssh-keygen"), "-Y", "sign", "-q", "-n", NAMESPACE]
        command += ["-f", str(key), str(file)]
        said = ""
        try:
            # its stdin stays ours: it asks at the terminal for passphrase or touch
            done = subprocess.run(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={**os.environ, "LC_ALL": "C"},
                timeout=_SIGN_TIMEOUT_S,
                check=False,
            )
            said = " ".join(done.stderr.split())[-300:]
            armored = (Path(folder) / SIGNATURE_FILE).read_text(encoding="ascii")
        except subprocess.TimeoutExpired as exc:
            raise InputError(
                f"cannot sign with {key}: ssh-keygen took longer than {_SIGN_TIMEOUT_S:g} s"
            ) from exc
        except (OSError, ValueError) as exc:
            raise InputError(
                f"cannot sign with {key}: {said or exc}",
                hint="is it a private key that you can read, and the passphrase right? "
                "ssh-keygen signs from OpenSSH 8.1 on",
                key=str(key),
            ) from exc
    return armored
