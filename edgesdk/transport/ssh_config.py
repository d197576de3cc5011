"""What OpenSSH's configuration says about a host, as plain values.

``Include`` is carried out here, because the library that reads the rest does not know it.
"""

from __future__ import annotations

import fnmatch
import getpass
import glob
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import InventoryError

__all__ = ["Hop", "Jump", "Look", "config_text", "parse_jumps", "read_hop"]

#: Host, user, port, as in a ProxyJump line.
Jump = tuple[str, str | None, int | None]
Look = Callable[[str], dict[str, list[str]]]

_JUMP = re.compile(r"(?:ssh://)?(?:([^@\s]+)@)?(\[[^\]\s]+\]|[^:@/\s]+)(?::(\d{1,5}))?/?\Z")
_DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
_LINE = re.compile(r"\s*([A-Za-z]+)(?:\s*=\s*|\s+)(.*?)\s*\Z")
_BLOCK = re.compile("host|match")
_MAX_DEPTH = 16  # as OpenSSH
_MAX_CONFIG_BYTES = 1 << 20
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One host to log in to, everything about it decided.

    Attributes:
        name: How messages call it.
        keys: Private key files to try, in order.
        keys_are_chosen: They were named by the user, so a missing one is an error.
        only_these_keys: The keys of a running ssh-agent are not tried.
        known_hosts: Files that may know its host key; a new one would go into the first.
        jumps: The hosts to go through, first to last.
    """

    name: str
    host: str
    port: int
    user: str
    keys: tuple[Path, ...]
    keys_are_chosen: bool
    only_these_keys: bool
    key_alias: str | None
    known_hosts: tuple[Path, ...]
    jumps: tuple[Jump, ...]
    proxy_command: str | None


def config_text(user: Path, system: Path | None, *, host: str) -> str:
    """Give the text of both files as ``host`` meets it, with the files that they include.

    An ``Include`` inside a ``Host`` block counts where that block matches; inside a ``Match``
    block only where that is ``Match all``. A file that cannot be read counts as empty, as with
    OpenSSH.
    """
    lines = list(_expanded(user, folder=user.parent, host=host, depth=0))
    lines.append("Host *")
    if system is not None:
        lines += _expanded(system, folder=system.parent, host=host, depth=0)
    return "\n".join(lines) + "\n"


def _expanded(path: Path, *, folder: Path, host: str, depth: int) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES).decode("utf-8", "replace")
    except OSError:
        return
    block, applies = "Host *", True
    for line in text.splitlines():
        match = _LINE.match(line)
        keyword = match[1].lower() if match else ""
        if match and _BLOCK.fullmatch(keyword):
            block = line.strip()
            everything = match[2].strip().lower() == "all"
            applies = everything if keyword == "match" else _host_matches(match[2], host)
        if not match or keyword != "include":
            yield line
            continue
        if not applies or depth >= _MAX_DEPTH:
            continue
        for pattern in match[2].split():
            given = str(folder / Path(pattern.strip('"')).expanduser())
            for included in sorted(glob.glob(given)):  # noqa: PTH207 - the pattern is absolute
                yield from _expanded(Path(included), folder=folder, host=host, depth=depth + 1)
                yield block  # what follows belongs to the block it was written in


def _host_matches(patterns: str, host: str) -> bool:
    found = False
    for pattern in patterns.split():
        bare = pattern.strip('"').removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(host, bare):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def parse_jumps(text: str) -> tuple[Jump, ...]:
    """Read a ProxyJump value.

    Raises:
        InventoryError: It is none.
    """
    if text.strip().lower() == "none":
        return ()
    jumps = []
    for piece in text.split(","):
        match = _JUMP.match(piece.strip())
        if match is None or (match[3] and not 0 < int(match[3]) < 65536):
            raise InventoryError(
                f"cannot use ProxyJump {text!r} of ~/.ssh/config: {piece.strip()!r} is no host",
                hint="write it like ProxyJump user@gateway:22",
            )
        jumps.append((match[2].strip("[]"), match[1], int(match[3]) if match[3] else None))
    return tuple(jumps)


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(piece).expanduser() for piece in text.split() if piece.lower() != "none")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as exc:
        raise InventoryError(
            "cannot choose a user for SSH: this one has no name",
            hint="write ssh://user@host",
        ) from exc


def read_hop(
    host: str,
    user: str | None = None,
    port: int | None = None,
    *,
    key: str | None = None,
    look_up: Look,
) -> Hop:
    """Decide everything about one host: what the URL says goes before the configuration.

    Args:
        host: Its name in the URL or in a ProxyJump.
        user: From there, if given; so ``port``.
        port: See ``user``.
        key: The private key the URL names; no other is tried then.
        look_up: Gives the configuration's keywords, in lower case, for a host.

    Raises:
        InventoryError: The configuration cannot be used.
    """
    home = Path.home() / ".ssh"
    found = look_up(host)
    chosen = [key] if key else found.get("identityfile", [])
    keys = tuple(Path(path).expanduser() for path in chosen)
    defaults = tuple(home / name for name in _DEFAULT_KEYS)
    real_port = port or int(_first(found, "port", "22"))
    real_user = user or _first(found, "user", "") or _user_name()
    known = _paths(
        _first(found, "userknownhostsfile", f"{home}/known_hosts {home}/known_hosts2")
    )
    known += _paths(_first(found, "globalknownhostsfile", _GLOBAL_KNOWN_HOSTS))
    jump = _first(found, "proxyjump", "none")
    command = _first(found, "proxycommand", "none")
    return Hop(
        name=f"ssh://{real_user}@{host}" + (f":{real_port}" if real_port != 22 else ""),
        host=_first(found, "hostname", host),
        port=real_port,
        user=real_user,
        keys=keys or defaults,
        keys_are_chosen=key is not None,
        only_these_keys=key is not None or _first(found, "identitiesonly", "no") == "yes",
        key_alias=_first(found, "hostkeyalias", "") or None,
        known_hosts=known or (home / "known_hosts",),
        jumps=parse_jumps(jump),
        proxy_command=command if command.lower() != "none" else None,
    )


def _first(found: dict[str, list[str]], key: str, fallback: str) -> str:
    values = found.get(key)
    return values[0] if values else fallback
