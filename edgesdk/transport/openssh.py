"""``ssh://`` through the OpenSSH client: its processes encrypt, this one only feeds a pipe.

It reads the user's own configuration, so security keys, GSSAPI and all else that the client
knows work. What that configuration says about trust does not count: the rules below stand on
its command line, where they win. Each hop's host key has to be on file, nothing is enrolled,
nobody is asked for anything, and no connection that others opened is shared.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgesdk.errors import AuthError, ChannelError, EdgeError, InventoryError, LinkError
from edgesdk.transport.base import AgentImage
from edgesdk.transport.bootstrap import Placed, bootstrap_command, run_bootstrap
from edgesdk.transport.child_channel import ChildChannel
from edgesdk.transport.openssh_log import login_error, read_login
from edgesdk.transport.ssh_config import Hop, Look, read_hop
from edgesdk.transport.ssh_rules import (
    CIPHERS,
    KEEPALIVE_S,
    MACS,
    MAX_HOPS,
    SSH_TRAITS,
    channel_name,
    lost,
    timed_out,
    without_strict_kex,
)
from edgesdk.transport.url import DeviceUrl

__all__ = ["OpensshChannel", "UnclearError", "find_client", "open_openssh"]

_PROGRAM = "ssh"
_LOOK_UP_S = 10.0
_MAX_OUTPUT_BYTES = 1 << 20
_LOST = 255  # what the client ends with when it, and not the remote command, has failed
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
class _Leg:
    """One hop, and the name by which the configuration knows it."""

    alias: str
    hop: Hop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """The legs to a device, jump hosts first, and what every client on it is told.

    Attributes:
        home: The user's home where that is another than OpenSSH would look in, else None.
        known_hosts: Whether the legs' known hosts files go before the configuration's.
    """

    program: str
    legs: tuple[_Leg, ...]
    home: Path | None
    known_hosts: bool

    @property
    def hops(self) -> tuple[Hop, ...]:
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


def _find_way(url: DeviceUrl, program: str, known_hosts: Path | None) -> _Way:
    """Resolve the way to the device.

    Raises:
        InventoryError: The configuration cannot be used.
        ChannelError: It leads in a circle, or the client does not take it.
    """
    assert url.host
    home = _other_home()
    key = url.query.get("key")

    def leg(host: str, user: str | None, port: int | None, key: str | None = None) -> _Leg:
        if host.startswith("-"):
            raise InventoryError(
                f"cannot use ProxyJump {host!r} of ~/.ssh/config: no host begins with a dash"
            )
        words = ["-l", user] if user else []
        words += ["-p", str(port)] if port else []
        look_up = _look_up(program, home, words)
        return _Leg(alias=host, hop=read_hop(host, user, port, key=key, look_up=look_up))

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
    return _Way(
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
            f"cannot use key {path}: {(exc.strerror or str(exc)).lower()}", key=str(path)
        ) from exc


def _quoted(path: Path) -> str:
    return '"{}"'.format(str(path).replace("%", "%%"))


def _log(folder: Path, number: int) -> Path:
    return folder / f"{number}.log"


def _command(way: _Way, folder: Path, *, timeout_s: float) -> list[str]:
    """Give the client's command line before the remote command; each hop has its own log."""
    words: list[str] = []
    for number, (alias, hop) in enumerate((leg.alias, leg.hop) for leg in way.legs):
        before = [*words, "-W", f"[{hop.host}]:{hop.port}", "--", way.legs[number - 1].alias]
        words = [way.program, *_config_words(folder, way.home), *_options(_RULES)]
        words += ["-E", str(_log(folder, number)), "-o", f"ConnectTimeout={int(timeout_s)}"]
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


class OpensshChannel(ChildChannel):
    """The pipes of a client; use `open_openssh` to get one with the agent behind it."""

    def __init__(
        self,
        way: _Way,
        command: str,
        *,
        name: str,
        timeout_s: float,
        reach_again: Callable[[float], OpensshChannel] | None = None,
    ) -> None:
        self._way = way
        self._reach_again = reach_again
        self._folder = Path(tempfile.mkdtemp(prefix="edgesdk-ssh-"))
        self._connect_s = timeout_s
        self.placed: Placed | None = None
        try:
            super().__init__(
                [*_command(way, self._folder, timeout_s=max(1.0, timeout_s)), command],
                name=name,
                traits=SSH_TRAITS,
            )
        except OSError as exc:
            shutil.rmtree(self._folder, ignore_errors=True)
            problem = ChannelError(f"cannot run {way.program}: {exc.strerror}")
            raise UnclearError(problem) from exc

    @property
    def exit_status(self) -> int | None:
        """What the remote command ended with, if it has ended."""
        status = self._child.poll()
        return None if status is None or status < 0 or status == _LOST else status

    def login_failure(self) -> tuple[LinkError, bool] | None:
        """Say why there is no login, and whether that is sure; None if there is one."""
        failed = None
        for number, hop in enumerate(self._way.hops):
            login = read_login(_log(self._folder, number))
            if login.logged_in and login.strict_kex is False:
                note = without_strict_kex(hop.name)
                self.notes += () if note in self.notes else (note,)
            if not login.logged_in and failed is None:
                failed = login_error(login, hop, stderr=self.stderr_tail)
        return failed

    def _why_gone(self, doing: str, status: int | None, tail: str) -> EdgeError:
        is_lost = status is None or status < 0 or status == _LOST
        if is_lost:
            words = read_login(_log(self._folder, len(self._way.legs) - 1)).words
            tail = tail or (words[-1] if words else "")
        return lost(doing, self.name, None if is_lost else status, tail)

    def run(self, command: str, data: bytes, *, timeout_s: float) -> bytes:
        """Run one more command on the host; gives its output, of which 1 MiB counts.

        Raises:
            ChannelError: The host cannot be reached again, or the command never ends.
        """
        deadline = time.monotonic() + timeout_s
        extra = OpensshChannel(self._way, command, name=self.name, timeout_s=timeout_s)
        with contextlib.closing(extra):
            extra.write(data, timeout_s=timeout_s)
            extra.end_input()
            output = b""
            try:
                while len(output) < _MAX_OUTPUT_BYTES:
                    output += extra.read(timeout_s=max(0.1, deadline - time.monotonic()))
            except ChannelError:
                failure = extra.login_failure()
                if failure is not None:
                    raise failure[0] from None
                if extra.exit_status is None:
                    raise
        return output

    def open_lane(self, *, timeout_s: float) -> OpensshChannel:
        """Connect once more, as a lane; see `edgesdk.transport.base.ManyLanes`."""
        if self._reach_again is None or self._is_closing:
            raise ChannelError(f"cannot open a lane to {self.name}: it has no agent")
        return self._reach_again(timeout_s)

    def close(self) -> None:
        """End the agent's input and the client."""
        try:
            super().close()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)


def open_openssh(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    program: str,
    timeout_s: float = 30.0,
    start: bool = True,
    known_hosts: Path | None = None,
) -> OpensshChannel:
    """Log in without asking anybody, put the agent there unless it is, and start it.

    Args:
        url: An ``ssh://`` URL.
        agent: What to start.
        program: The OpenSSH client, see `find_client`.
        timeout_s: How long all that may take.
        start: False leaves it at putting the agent there; the channel is then at its end.
        known_hosts: The only file that knows the host's key, for a host of our own making.

    Raises:
        HostKeyError: The host's key, or a jump host's, is unknown or changed.
        AuthError: What the client has lets nobody in.
        BootstrapError: Logged in, but the agent cannot be started.
        UnclearError: The client failed and the reason is not understood.
        ChannelError: The host cannot be reached.
    """
    deadline = time.monotonic() + timeout_s
    way = _find_way(url, program, known_hosts)

    def reach_again(timeout_s: float) -> OpensshChannel:
        return _start(way, url, agent, command=["lane"], deadline=time.monotonic() + timeout_s)

    return _start(
        way,
        url,
        agent,
        command=["stdio"] if start else None,
        deadline=deadline,
        reach_again=reach_again if start else None,
    )


def _start(
    way: _Way,
    url: DeviceUrl,
    agent: AgentImage,
    *,
    command: list[str] | None,
    deadline: float,
    reach_again: Callable[[float], OpensshChannel] | None = None,
) -> OpensshChannel:
    """Start the agent at the end of a way; nothing stays open when that fails."""
    channel = OpensshChannel(
        way,
        bootstrap_command(url.query.get("python", "python3")),
        name=channel_name(url),
        timeout_s=max(1.0, deadline - time.monotonic()),
        reach_again=reach_again,
    )
    try:
        try:
            channel.placed = run_bootstrap(
                channel, agent, state=url.query.get("state"), command=command, deadline=deadline
            )
        except LinkError as exc:
            failure = channel.login_failure()
            if failure is None:
                raise
            error, is_sure = failure
            if time.monotonic() >= deadline:
                raise timed_out("reach", str(error.facts.get("device", channel.name))) from exc
            if is_sure:
                raise error from exc
            raise UnclearError(error) from exc
        channel.login_failure()  # what a person should know of it
    except BaseException:
        channel.close()
        raise
    return channel
