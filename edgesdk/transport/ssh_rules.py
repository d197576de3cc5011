"""What holds for ``ssh://`` whichever program carries it: traits, algorithms, error texts."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.errors import AuthError, ChannelClosed, ChannelError, ChannelTimeout
from edgesdk.transport.base import LinkTraits

__all__ = [
    "CIPHERS",
    "KEEPALIVE_S",
    "MACS",
    "MAX_HOPS",
    "SSH_TRAITS",
    "channel_name",
    "lost",
    "no_login",
    "no_such_host",
    "not_reached",
    "nothing_listens",
    "timed_out",
    "without_strict_kex",
]

SSH_TRAITS = LinkTraits(
    chunk_bytes=512 << 10,
    window_bytes=2 << 20,
    silence_s=20.0,
    lane_bytes=2 << 20,  # OpenSSH, channels.h: CHAN_SES_WINDOW_DEFAULT
)
KEEPALIVE_S = 10
MAX_HOPS = 8
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
#: Encrypt-then-MAC last: with CTR it is open to prefix truncation without strict KEX.
MACS = (
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
)


def channel_name(url: object) -> str:
    """Give what messages call the channel of a URL."""
    return str(url).partition("?")[0]


def without_strict_kex(name: str) -> str:
    """Give the note for a server that is open to prefix truncation."""
    return (
        f"the SSH server of {name} does not offer strict key exchange (CVE-2023-48795): "
        "update it"
    )


def timed_out(doing: str, name: str) -> ChannelTimeout:
    """Nothing answered in time."""
    return ChannelTimeout(
        f"cannot {doing} {name}: no answer in time",
        hint="is the device on, and is this the right address?",
        device=name,
    )


def no_such_host(doing: str, name: str, reason: str) -> ChannelError:
    """The name cannot be looked up."""
    return ChannelError(
        f"cannot {doing} {name}: no such host: {reason}",
        hint="is the name spelled right, and does this network know it?",
        device=name,
    )


def nothing_listens(doing: str, name: str) -> ChannelError:
    """Connection refused."""
    return ChannelError(
        f"cannot {doing} {name}: connection refused",
        hint="does an SSH server run there, on this port?",
        device=name,
    )


def not_reached(doing: str, name: str, reason: str) -> ChannelError:
    """Whatever else goes wrong before a login."""
    hint = "is that an SSH server, and does it still accept connections?"
    if "no acceptable" in reason or "ncompatible" in reason or "no matching" in reason:
        hint = "its SSH server is too old: edgesdk uses no CBC cipher and no SHA-1"
    return ChannelError(f"cannot {doing} {name}: {reason}", hint=hint, device=name)


def no_login(name: str, user: str, problem: str, tried: Sequence[str]) -> AuthError:
    """Nothing that was offered lets this user in."""
    return AuthError(
        f"cannot log in to {name} as {user}: {problem or 'no key was accepted'} "
        f"(tried {', '.join(tried) or 'nothing, there was no key'})",
        hint="put a public key there with `ssh-copy-id`, name one with ?key=FILE, or set "
        "EDGESDK_SSH_PASSWORD",
        device=name,
        tried=list(tried),
    )


def lost(doing: str, name: str, status: int | None, stderr: str) -> ChannelClosed:
    """An open channel has ended.

    Args:
        doing: What was to be done, as in "read from".
        name: The channel's name.
        status: What the agent ended with; None where the connection was lost.
        stderr: The last of the agent's standard error.
    """
    how = (
        "the connection was lost" if status is None else f"the agent ended with status {status}"
    )
    last = ": " + stderr.splitlines()[-1][:300] if stderr else ""
    return ChannelClosed(
        f"cannot {doing} {name}: {how}{last}",
        hint="what was sent stays there, the next run continues",
        status=status,
        stderr=stderr,
    )
