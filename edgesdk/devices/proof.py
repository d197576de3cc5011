"""The key that host and device share where a link has no login: read it, prove it."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgesdk.devices.refusals import refusal_error
from edgesdk.errors import AuthError, OutputError
from edgesdk.wire.auth import KEY_BYTES, NONCE, Keys, Opener, Sealer, key_of_text
from edgesdk.wire.frames import Frame, meta_bytes

__all__ = ["make_key_file", "prove", "read_key_file"]

_MAX_KEY_FILE_BYTES = 4096


def prove(
    key: bytes | None,
    asked: Mapping[str, Any],
    answered: Frame,
    ask: Callable[[str], Frame],
    *,
    device_name: str,
) -> tuple[Sealer, Opener] | None:
    """Prove to the device that we hold the key, and have it prove the same.

    Args:
        key: The key, or None where none was given.
        asked: The meta of our greeting, as it was sent.
        answered: The device's answer to it.
        ask: Sends our proof and gives the answer.
        device_name: How messages call the device.

    Returns:
        What seals our frames and opens its own; None where no key is in play.

    Raises:
        AuthError: One of the two has a key and the other not, or not the same.
        LinkError: The link broke.
    """
    nonce = answered.meta.get("nonce")
    if nonce is None and key is None:
        return None
    if nonce is None:
        raise AuthError(
            f"cannot trust {device_name}: it asks for no key, although there is one for it",
            hint="is it the right device? `edge-agent trust key` there sets the key; without "
            "one, remove `key` from the inventory or the URL",
            device=device_name,
        )
    if key is None:
        raise AuthError(
            f"cannot talk to {device_name}: it asks for the key of its line",
            hint="name the file that has it: `key:` in the inventory, or serial://...?key=FILE",
            device=device_name,
        )
    if not isinstance(nonce, str) or not NONCE.match(nonce) or answered.raw_meta is None:
        raise AuthError(f"cannot trust {device_name}: its greeting makes no sense")
    keys = Keys(key, meta_bytes(dict(asked)), answered.raw_meta)
    reply = ask(keys.host_proof)
    if reply.meta.get("ok") is not True:
        raise refusal_error("auth", reply.meta, device_name=device_name)
    if not Keys.is_proof(reply.meta.get("proof"), keys.agent_proof):
        raise AuthError(
            f"cannot trust {device_name}: it cannot prove that it holds the key",
            hint="is it the right device, and nothing else on the line?",
            device=device_name,
        )
    return Sealer(keys.host_seal), Opener(keys.agent_seal)


def read_key_file(path: Path) -> bytes:
    """Read the key that is shared with a device.

    Raises:
        AuthError: There is no such file, others may read it, or it holds no key; the text
            repeats nothing of it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError("it is not a plain file")
            if stat.S_IMODE(mode) & 0o077:
                raise ValueError(f"others may read it (mode {stat.S_IMODE(mode):o})")
            text = stream.read(_MAX_KEY_FILE_BYTES).decode("ascii")
        return key_of_text(text)
    except (OSError, ValueError) as exc:
        seen = "it is not text" if isinstance(exc, UnicodeDecodeError) else str(exc)
        if isinstance(exc, OSError):
            seen = exc.strerror or seen
        hint = f"chmod 600 {path}" if "others may" in seen else ""
        raise AuthError(
            f"cannot use the key in {path}: {seen}",
            hint=hint or "`edgesdk trust key FILE` makes one; `edge-agent trust key` sets it",
            path=str(path),
        ) from None


def make_key_file(path: Path) -> None:
    """Make a new random key, in a file for this user alone.

    Raises:
        OutputError: Something is there already, or nothing may be written there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(secrets.token_hex(KEY_BYTES) + "\n")
    except OSError as exc:
        raise OutputError(
            f"cannot write a key to {path}: {exc.strerror or exc}",
            hint="name a file that does not exist yet",
            path=str(path),
        ) from exc
