"""The OpenSSH client's command line for a way over jump hosts, and the rules that stand on it.

The client reads the user's own configuration, so security keys, GSSAPI and all else that it
knows work. What that configuration says about trust does not count: the rules below stand on
the command line, where they win, for every hop. Nothing is enrolled, nobody is asked for
anything, and no connection that others opened is shared.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesdk.errors import AuthError, ChannelError, InventoryError, LinkError
from edgesdk.transport.ssh_config import Hop, Look, read_hop
from edgesdk.transport.ssh_rules import CIPHERS, KEEPALIVE_S, MACS, MAX_HOPS
from edgesdk.transport.url import DeviceUrl

__all__ = ["Leg", "UnclearError", "Way", "client_command", "find_client", "find_way", "hop_log"]

_PROGRAM = "ssh"
_LOOK_UP_S = 10.0
#: Options that came with later versions; an older client has no such thing to be switched off.
_LATER = "KnownHostsCommand,UpdateHostKeys,SessionType,StdinNull,ForkAfterAuthentication"
_RULES = (
    f"IgnoreUnknown={_LATER}",
    # trust: as `edgesdk.transport.known_hosts` has it, for every hop
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
    "NoHostAuthenticationForLocalhost=no",
    "KnownHostsCommand=none",
    "HostKeyAlgorithms=-*-cert-v01@openssh.com,ssh-rsa,ssh-dss",
    "KexAlgorithms=-*-sha1",
    f"Ciphers={','.join(CIPHERS)}",
    f"MACs={','.join(MACS)}",
    "FingerprintHash=sha256",
    # nobody is asked, and nothing but the one command runs
    "BatchMode=yes",
    "ControlMaster=no",
    "ControlPath=none",
    "ControlPersist=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "Tunnel=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "RequestTTY=no",
    "SessionType=default",
    "StdinNull=no",
    "ForkAfterAuthentication=no",
    "EscapeChar=none",
    "Compression=no",
    "ConnectionAttempts=1",
    f"ServerAliveInterval={KEEPALIVE_S}",
    "ServerAliveCountMax=3",
    "LogLevel=DEBUG1",
)


class UnclearError(LinkError):
    """The client has failed in a way that is not understood: another one may do better.

    ``error`` is what there is to say where no other is tried.
    """

    def __init__(self, error: LinkError | InventoryError) -> None:
        super().__init__(str(error), hint=error.hint, **error.facts)
        self.error = error


def find_client() -> str | None:
    """Give the path of the OpenSSH client, or None where there is none."""
    return shutil.which(_PROGRAM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One hop, and the name by which the configuration knows it."""

    alias: str
    hop: Hop


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The legs to a device, jump hosts first, and what every client on it is told.

    Attributes:
        home: The user's home where that is another than OpenSSH would look in, else None.
        known_hosts: Whether the legs' known hosts files go before the configuration's.
    """

    program: str
    legs: tuple[Leg, ...]
    home: Path | None
    known_hosts: bool

    @property
    def hops(self) -> tuple[Hop, ...]:
        """What was decided about each, jump hosts first."""
        return tuple(leg.hop for leg in self.legs)


def _other_home() -> Path | None:
    """Give $HOME where it is not the home that OpenSSH uses, which asks the user database."""
    home = Path.home()
    with contextlib.suppress(KeyError):
        if Path(pwd.getpwuid(os.getuid()).pw_dir) == home:
            return None
    return home


def _config_words(folder: Path, home: Path | None) -> list[str]:
    """Say which configuration to read, where that is not the one that is read anyway."""
    if home is None:
        return []
    path = folder / "config"
    path.write_text(f'Include "{home}/.ssh/config"\nMatch all\nInclude /etc/ssh/ssh_config\n')
    return ["-F", str(path)]


def _options(options: Sequence[str]) -> list[str]:
    return [word for option in options for word in ("-o", option)]


def _look_up(program: str, home: Path | None, words: Sequence[str]) -> Look:
    """Give a function that asks the client what its configuration says about a host."""

    def look_up(host: str) -> dict[str, list[str]]:
        with tempfile.TemporaryDirectory(prefix="edgesdk-ssh-") as folder:
            command = [program, *_config_words(Path(folder), home), *_options(_RULES), *words]
            try:
                done = subprocess.run(
                    [*command, "-G", "--", host],
                    capture_output=True,
                    stdin=subprocess.DEVNULL,
                    timeout=_LOOK_UP_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as exc:
                raise UnclearError(ChannelError(f"cannot run {program}: {exc}")) from exc
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason"]
            raise UnclearError(
                InventoryError(
                    f"cannot look up {host} in ~/.ssh/config: {said[-1][:300]}",
                    hint=f"`ssh -G {host}` shows what OpenSSH makes of it",
                )
            )
        found: dict[str, list[str]] = {}
        for line in done.stdout.decode("utf-8", "replace").splitlines():
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(_under_home(value, home))
        return found

    return look_up


def _under_home(value: str, home: Path | None) -> str:
    """Let a default that OpenSSH has expanded begin in the home that counts."""
    if home is None:
        return value
    with contextlib.suppress(KeyError):
        value = value.replace(pwd.getpwuid(os.getuid()).pw_dir + "/.ssh/", "~/.ssh/")
    return value


def find_way(url: DeviceUrl, program: str, known_hosts: Path | None) -> Way:
    """Resolve the way to the device.

    Raises:
        InventoryError: The configuration cannot be used.
        ChannelError: It leads in a circle, or the client does not take it.
    """
    assert url.host
    home = _other_home()
    key = url.query.get("key")

    def leg(host: str, user: str | None, port: int | None, key: str | None = None) -> Leg:
        if host.startswith("-"):
            raise InventoryError(
                f"cannot use ProxyJump {host!r} of ~/.ssh/config: no host begins with a dash",
                hint="write it like ProxyJump user@gateway:22",
            )
        words = ["-l", user] if user else []
        words += ["-p", str(port)] if port else []
        look_up = _look_up(program, home, words)
        return Leg(alias=host, hop=read_hop(host, user, port, key=key, look_up=look_up))

    legs = [leg(url.host, url.user, url.port, key)]
    while legs[0].hop.jumps:
        legs = [leg(*jump) for jump in legs[0].hop.jumps] + legs
        if len(legs) > MAX_HOPS:
            raise ChannelError(
                f"cannot reach {url}: its ProxyJump leads over more than {MAX_HOPS} hosts",
                hint="does a host in ~/.ssh/config jump through itself?",
            )
    if known_hosts is not None:
        legs = [
            replace(each, hop=replace(each.hop, known_hosts=(known_hosts,))) for each in legs
        ]
    if key is not None:
        _require_readable(Path(key).expanduser())
    return Way(
        program=program,
        legs=tuple(legs),
        home=home,
        known_hosts=known_hosts is not None or home is not None,
    )


def _require_readable(path: Path) -> None:
    """Refuse a key that was named and cannot be read: the client would go on without it."""
    try:
        path.open("rb").close()
    except OSError as exc:
        raise AuthError(
            f"cannot use key {path}: {(exc.strerror or str(exc)).lower()}",
            hint="name a private key that this user may read, or leave out ?key=",
            key=str(path),
        ) from exc


def _quoted(path: Path) -> str:
    return '"{}"'.format(str(path).replace("%", "%%"))


def hop_log(folder: Path, number: int) -> Path:
    """Give the file that the client of a hop logs to, the first hop being number 0."""
    return folder / f"{number}.log"


def client_command(way: Way, folder: Path, *, timeout_s: float) -> list[str]:
    """Give the client's command line before the remote command; each hop has its own log."""
    words: list[str] = []
    for number, (alias, hop) in enumerate((leg.alias, leg.hop) for leg in way.legs):
        before = [*words, "-W", f"[{hop.host}]:{hop.port}", "--", way.legs[number - 1].alias]
        words = [way.program, *_config_words(folder, way.home), *_options(_RULES)]
        words += ["-E", str(hop_log(folder, number)), "-o", f"ConnectTimeout={int(timeout_s)}"]
        words += ["-l", hop.user, "-p", str(hop.port)]
        if way.known_hosts:
            files = " ".join(map(_quoted, hop.known_hosts))
            words += _options([f"UserKnownHostsFile={files}", "GlobalKnownHostsFile=/dev/null"])
        if hop.keys_are_chosen:
            words += ["-o", "IdentitiesOnly=yes"]
        if hop.keys_are_chosen or way.home is not None:
            words += [word for key in hop.keys if key.is_file() for word in ("-i", str(key))]
        if number > 0:
            words += ["-o", "ProxyCommand=" + shlex.join(before).replace("%", "%%")]
        last = alias
    return [*words, "--", last]
