"""Device URLs.

``local:``, ``ssh://user@host:port?key=...``, ``serial:///dev/ttyUSB0?baud=921600`` (with
``serial://user@/dev/...`` where the agent is yet to be installed through a login),
``virtual:arm64``, ``virtual:vm?link=uart``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from edgesdk.errors import InventoryError

__all__ = [
    "BOARDS",
    "MACHINE_LINKS",
    "SCHEMES",
    "SSH_CLIENTS",
    "DeviceUrl",
    "parse_device_url",
]

#: The options each scheme takes behind the ``?``.
SCHEMES: Mapping[str, tuple[str, ...]] = {
    "local": ("state", "python"),
    "ssh": ("key", "state", "python", "client"),
    "serial": ("baud", "max_baud", "rtscts", "python", "state", "key"),
    "virtual": ("state", "link"),
}
#: What carries an SSH connection; see `edgesdk.transport.ssh_clients`.
SSH_CLIENTS = ("auto", "openssh", "paramiko")
#: The virtual boards there are; `edgesdk.testing.boards` knows what each is made of.
BOARDS = ("arm64", "vm")
#: How a virtual machine is reached; a board without a kernel of its own has neither.
MACHINE_LINKS = ("ssh", "uart")
#: An interpreter's name or path; nothing in it means anything to any shell.
_PYTHON = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,254}\Z")
_HOST = re.compile(r"[A-Za-z0-9_.:%][A-Za-z0-9_.:%-]{0,254}\Z")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,127}\Z")
_SHAPES = (
    "`local:`, `ssh://user@host:port`, `serial:///dev/ttyUSB0?baud=921600` or `virtual:arm64`"
)
_MAX_URL_CHARS = 4096
#: How a URL of a scheme without hosts is written.
_HOSTLESS = {
    "local": "write local:",
    "serial": "use three slashes: serial:///dev/ttyUSB0",
    "virtual": f"write virtual:{BOARDS[0]}",
}

_WITH_USER = {"ssh": "ssh://user@host:port", "serial": "serial://user@/dev/ttyUSB0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUrl:
    """Where an agent is and how to get there. It never holds a secret.

    ``path`` is the port of a serial device or the name of a virtual board, else empty;
    ``query`` holds the options that `SCHEMES` allows.
    """

    scheme: str
    user: str | None = None
    host: str | None = None
    port: int | None = None
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.scheme in ("local", "virtual"):
            text = f"{self.scheme}:{self.path}"
        else:
            host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
            text = f"{self.scheme}://{self.user + '@' if self.user else ''}{host}"
            text += f":{self.port}" if self.port else ""
            text += quote(self.path)
        options = "&".join(f"{key}={quote(self.query[key])}" for key in self.query)
        return f"{text}?{options}" if options else text


def _refuse(text: str, seen: str, hint: str) -> InventoryError:
    return InventoryError(f"cannot use device URL {text!r}: {seen}", hint=hint, url=text)


def _read_query(text: str, scheme: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    allowed = SCHEMES[scheme]
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            raise _refuse(
                text,
                f"{scheme} URLs have no option {key!r} (only {', '.join(allowed)})",
                f"did you mean {near[0]}=?" if near else f"remove {key}=",
            )
        if key in options or not value:
            seen = f"option {key!r} is {'given twice' if key in options else 'empty'}"
            raise _refuse(text, seen, f"give {key}= one value")
        if any(not char.isprintable() for char in value):
            raise _refuse(text, f"option {key!r} holds a control character", f"retype {key}=")
        options[key] = value
    _check_options(text, options)
    return options


def _check_options(text: str, options: Mapping[str, str]) -> None:
    python = options.get("python")
    if python is not None and not _PYTHON.match(python):
        raise _refuse(
            text,
            f"option 'python' is {python!r} (expected an interpreter's plain path or name)",
            "write it like python=/usr/bin/python3.8; ~, spaces and options are not taken",
        )
    client = options.get("client", SSH_CLIENTS[0])
    if client not in SSH_CLIENTS:
        seen = f"option 'client' is {client!r} (expected {', '.join(SSH_CLIENTS)})"
        raise _refuse(text, seen, "leave it out: auto is the default")
    for key in ("baud", "max_baud"):
        baud = options.get(key)
        if baud is not None and not (
            baud.isascii() and baud.isdigit() and 50 <= int(baud[:9]) <= 1 << 26
        ):
            seen = f"option {key!r} is {baud!r} (expected a number)"
            raise _refuse(text, seen, f"{key}=115200")
    if options.get("rtscts", "0") not in ("0", "1"):
        raise _refuse(
            text, f"option 'rtscts' is {options['rtscts']!r} (expected 0 or 1)", "rtscts=1"
        )


def _split(text: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(text)
        return parts, parts.port
    except ValueError as exc:
        raise _refuse(text, str(exc).lower(), f"device URLs look like {_SHAPES}") from exc


def parse_device_url(text: str) -> DeviceUrl:
    """Read a device URL.

    Raises:
        InventoryError: Unknown scheme or option, a password in the URL, or a part is missing.
    """
    if len(text) > _MAX_URL_CHARS or not text.isprintable():
        raise InventoryError(
            f"cannot use device URL: it has {len(text)} characters, or a control character",
            hint=f"device URLs look like {_SHAPES}",
        )
    scheme = text.partition(":")[0]
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(scheme, SCHEMES, n=1)
        raise _refuse(
            text,
            f"there is no scheme {scheme!r} (only {', '.join(SCHEMES)})",
            f"did you mean {near[0]}:?" if near else f"device URLs look like {_SHAPES}",
        )
    if "@" in text and ":" in text.partition("//")[2].rpartition("@")[0]:
        # the text is not repeated here: it would put the password on the screen and into logs
        raise InventoryError(
            f"cannot use this {scheme} URL: it has a password in it",
            hint="leave it out; use a key, or set EDGESDK_SSH_PASSWORD, or let edgesdk ask",
        )
    parts, port = _split(text)
    if parts.fragment:
        raise _refuse(text, "it has a # in it", "write # as %23")
    query = _read_query(text, scheme, parts.query)
    user = unquote(parts.username) if parts.username else None
    host, path = parts.hostname, unquote(parts.path)
    if user is not None and scheme in _WITH_USER and not _USER.match(user):
        raise _refuse(text, f"the user is {user!r}", f"write {_WITH_USER[scheme]}")
    if scheme == "ssh":
        if not host or not _HOST.match(host) or path not in ("", "/"):
            seen = f"the path {path!r} has no meaning" if host else "it names no host"
            raise _refuse(text, seen, "write ssh://user@host:port")
        return DeviceUrl(scheme=scheme, user=user, host=host, port=port, query=query)
    if parts.netloc and not (scheme == "serial" and user and parts.netloc.endswith("@")):
        raise _refuse(
            text,
            f"{scheme} URLs have no host, this one has {parts.netloc!r}",
            _HOSTLESS[scheme],
        )
    if scheme == "local" and path:
        raise _refuse(text, f"the path {path!r} has no meaning", "write local:?state=FOLDER")
    if scheme == "serial" and (not path.startswith("/") or "\0" in path):
        raise _refuse(text, "it names no port", "write serial:///dev/ttyUSB0?baud=921600")
    if scheme == "virtual" and path not in BOARDS:
        near = difflib.get_close_matches(path, BOARDS, n=1)
        seen = f"there is no virtual board {path!r} (only {', '.join(BOARDS)})"
        raise _refuse(text, seen, f"write virtual:{(*near, *BOARDS)[0]}")
    if scheme == "virtual" and query.get("link", "ssh") not in MACHINE_LINKS:
        seen = f"option 'link' is {query['link']!r} (expected {' or '.join(MACHINE_LINKS)})"
        raise _refuse(text, seen, "leave it out: ssh is the default")
    return DeviceUrl(scheme=scheme, user=user, path=path, query=query)
