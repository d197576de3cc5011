"""What the OpenSSH client's log says of a login, and the error that follows from it.

The log only explains: what is let in and what is refused was decided by the client, so lines
that a server could have put there change nothing but the text of an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import HostKeyError, LinkError
from edgesdk.transport.known_hosts import check_fingerprint, host_id, known_keys
from edgesdk.transport.ssh_config import Hop
from edgesdk.transport.ssh_rules import (
    no_login,
    no_such_host,
    not_reached,
    nothing_listens,
    timed_out,
)

__all__ = ["Login", "login_error", "read_login"]

_MAX_LOG_BYTES = 1 << 20
_HOST_KEY = re.compile(r"debug1: Server host key: (\S+) (SHA256:\S+)")
_OFFERED = re.compile(r"debug1: Offering public key: (.*) \S+ (SHA256:\S+)(.*)")
_RESOLVED = re.compile(r"Could not resolve hostname .*?: (.*)")
_CONNECT = re.compile(r"connect to (?:host|address) .*? port \d+: (.*)")
#: Lines that explain no failure: debugging output, and what is told of every connection.
_NO_REASON = re.compile(
    r"debug\d: |OpenSSH_|Authenticated to |Transferred: |Bytes per second: |\Z"
)
_REFUSED_LOGIN = re.compile(r"Permission denied \((.*)\)|Too many authentication failures")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """One client's log.

    Attributes:
        logged_in: It got that far.
        heard: The other end spoke SSH.
        host_key: The type and the fingerprint of the key that it showed.
        refused_key: The client does not trust that key.
        strict_kex: Whether the key exchange was strict; None if there was none.
        offered: The keys that were offered, as messages name them.
        words: What the client said that may explain a failure, line by line.
    """

    logged_in: bool
    heard: bool
    host_key: tuple[str, str] | None
    refused_key: bool
    strict_kex: bool | None
    offered: tuple[str, ...]
    words: tuple[str, ...]


def read_login(path: Path) -> Login:
    """Read the log file of a client; one that is not there counts as empty."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines()]
    keys = [match for line in lines if (match := _HOST_KEY.match(line))]
    has_keys = "debug1: SSH2_MSG_NEWKEYS received" in lines
    return Login(
        logged_in=any(line.startswith("Authenticated to ") for line in lines),
        heard=any(line.startswith("debug1: Remote protocol version") for line in lines),
        host_key=(keys[-1][1], keys[-1][2]) if keys else None,
        refused_key="Host key verification failed." in lines,
        strict_kex=any("resetting read seqnr" in line for line in lines) if has_keys else None,
        offered=tuple(_label(match) for line in lines if (match := _OFFERED.match(line))),
        words=tuple(line for line in lines if not _NO_REASON.match(line)),
    )


def _label(offered: re.Match[str]) -> str:
    path, shown, source = offered.groups()
    return f"ssh-agent {shown}" if "agent" in source else path


def login_error(login: Login, hop: Hop, *, stderr: str) -> tuple[LinkError, bool]:
    """Say why a login failed, and whether that is sure.

    Args:
        login: What `read_login` found of the hop that failed.
        hop: That hop.
        stderr: What was written to standard error meanwhile, by a ProxyCommand for instance.
    """
    text = "\n".join(login.words)
    if login.refused_key:
        # what it refuses stays refused: another client knows less of the reasons, such as keys
        # that the user has revoked
        return _key_error(login, hop), True
    if (refused := _REFUSED_LOGIN.search(text)) is not None:
        takes = refused[1] or ""
        problem = "" if "publickey" in takes or not takes else f"it takes only {takes}"
        return no_login(hop.name, hop.user, problem, login.offered), True
    if (found := _CONNECT.search(text) or _RESOLVED.search(text)) is not None:
        return _no_connection(hop.name, found), True
    if not login.words:
        return timed_out("reach", hop.name), True
    doing, reason = "reach", _reason(login.words)
    if hop.proxy_command is not None and not login.heard:
        doing, reason = "run the ProxyCommand for", (stderr.splitlines() or [reason])[-1]
    return not_reached(doing, hop.name, reason[:300]), False


def _no_connection(name: str, found: re.Match[str]) -> LinkError:
    reason = found[1]
    if found.re is _RESOLVED:
        return no_such_host("reach", name, reason)
    if "refused" in reason:
        return nothing_listens("reach", name)
    if "timed out" in reason:
        return timed_out("reach", name)
    return not_reached("reach", name, reason.lower())


def _reason(words: Sequence[str]) -> str:
    """The line that says most: the first that names a cause, else the last."""
    for line in words:
        if "no matching" in line or line.startswith("kex_exchange_identification"):
            return line.partition(": ")[2] or line
    return words[-1]


def _key_error(login: Login, hop: Hop) -> HostKeyError:
    filed_as = hop.key_alias or host_id(hop.host, hop.port)
    if login.host_key is not None:
        kind, shown = login.host_key
        try:
            check_fingerprint(
                shown,
                kind,
                known_keys(hop.known_hosts, filed_as),
                name=hop.name,
                host=hop.host,
                port=hop.port,
                filed_as=filed_as,
                files=hop.known_hosts,
            )
        except HostKeyError as exc:
            return exc
    said = [line for line in login.words if not line.startswith("@")]
    return HostKeyError(
        f"cannot trust {hop.name}: the OpenSSH client refuses its host key: {said[0][:300]}",
        hint=f"`ssh {hop.host}` shows the whole reason",
        device=hop.name,
    )
