"""What both ends say of themselves in a greeting."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import edgesdk
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_CHUNK_BYTES
from edgesdk.wire.ops import PROTOCOL_NEWEST, PROTOCOL_OLDEST

__all__ = ["Hello", "read_hello", "version_error", "who_asks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the agent said of itself.

    ``signatures`` is "required", "checked" or "ignored"; ``notice`` is what a person should
    read first; ``takes_bare`` says that it takes bare frames, see `edgesdk.wire.frames`.
    """

    protocol: int
    agent_version: str
    agent_sha256: str
    python: str
    machine: str
    daemon: bool
    pid: int
    max_chunk_bytes: int
    max_body_bytes: int
    signatures: str = "ignored"
    notice: str = ""
    takes_bare: bool = False


def version_error(meta: Mapping[str, Any], *, device_name: str) -> ProtocolError:
    """Give the error for an agent with which no protocol version is shared."""
    facts = meta.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    theirs = facts.get("protocol")
    span = theirs if isinstance(theirs, list) and len(theirs) == 2 else [None, None]
    agent_version = clean_text(
        facts.get("agent_version") or meta.get("agent_version") or "unknown", limit=40
    )
    newest = span[1]
    if isinstance(newest, int) and newest < PROTOCOL_OLDEST:
        old = "the agent is the older one"
        hint = (
            "replace it with `edgesdk agent install`; behind a serial line copy the file "
            "that `edgesdk agent pack` writes"
        )
    else:
        old, hint = "this edgesdk is the older one", "update edgesdk on this computer"
    spoken = "-".join(str(end) for end in dict.fromkeys(span) if isinstance(end, int))
    ours = "-".join(str(end) for end in dict.fromkeys((PROTOCOL_OLDEST, PROTOCOL_NEWEST)))
    return ProtocolError(
        f"cannot talk to {device_name}: its agent {agent_version} speaks protocol "
        f"{spoken or 'unknown'}, edgesdk {edgesdk.__version__} speaks {ours}; {old}",
        hint=hint,
        device=device_name,
    )


def read_hello(meta: Mapping[str, Any]) -> Hello:
    """Read what the agent said of itself; what makes no sense is taken as not said."""
    limits = meta.get("limits")
    limits = limits if isinstance(limits, dict) else {}

    def number(value: object, fallback: int) -> int:
        return value if isinstance(value, int) and value > 0 else fallback

    return Hello(
        protocol=int(meta["protocol"]),
        agent_version=clean_text(meta.get("agent_version", ""), limit=40),
        agent_sha256=clean_text(meta.get("agent_sha256", ""), limit=64),
        python=clean_text(meta.get("python", ""), limit=40),
        machine=clean_text(meta.get("machine", ""), limit=40),
        daemon=meta.get("daemon") is True,
        pid=number(meta.get("pid"), 0),
        max_chunk_bytes=number(limits.get("max_chunk_bytes"), MAX_CHUNK_BYTES),
        max_body_bytes=number(limits.get("max_body_bytes"), MAX_BODY_BYTES),
        signatures=clean_text(meta.get("signatures", "ignored"), limit=20),
        notice=clean_text(meta.get("notice", ""), limit=600),
        takes_bare=meta.get("bare") is True,
    )


def who_asks() -> str:
    """Name this user and computer, for others who find the device held."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name in the environment, none for the user's number
        user = str(os.getuid())
    return clean_text(f"{user}@{socket.gethostname()}", limit=128)
