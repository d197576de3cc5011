"""``ssh://``: the agent over one SSH connection. The only module that imports paramiko.

Host keys are always checked, for every hop, and nothing here ever adds one. What SSH needs to
know of a host comes from ``~/.ssh/config`` and ``/etc/ssh/ssh_config`` as OpenSSH reads them:
HostName, User, Port, IdentityFile, IdentitiesOnly, HostKeyAlias, UserKnownHostsFile,
GlobalKnownHostsFile, ProxyJump, ProxyCommand, Include.

What makes it fast was measured against scp: one exec channel instead of SFTP, AES-GCM first,
TCP_NODELAY (paramiko sets neither), and slices that fill a packet exactly, because paramiko
copies the tail of larger ones on every packet.

It has more than 400 lines because no other module may import paramiko; what needs no paramiko
(configuration, known hosts, bootstrap) has modules of its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgesdk.transport.lean_import import standing_aside

try:
    with standing_aside("invoke", user="paramiko.config"):
        import paramiko  # noqa: TID251 - this is the one module that may
except ImportError:  # a paramiko that cannot do without
    import paramiko  # noqa: TID251 - this is the one module that may

from edgesdk.errors import (
    AuthError,
    ChannelClosed,
    ChannelError,
    ChannelTimeout,
    InventoryError,
    LinkError,
)
from edgesdk.transport.base import AgentImage, OnPassword
from edgesdk.transport.bootstrap import Placed, bootstrap_command, run_bootstrap
from edgesdk.transport.known_hosts import KnownKey, check_host_key, host_id, known_keys
from edgesdk.transport.ssh_config import Hop, Look, config_text, read_hop
from edgesdk.transport.ssh_rules import (
    CIPHERS,
    KEEPALIVE_S,
    MACS,
    MAX_HOPS,
    SSH_TRAITS,
    channel_name,
    lost,
    no_login,
    no_such_host,
    not_reached,
    nothing_listens,
    timed_out,
    without_strict_kex,
)
from edgesdk.transport.url import DeviceUrl

__all__ = ["SshChannel", "open_paramiko"]

_SLICE_BYTES = 32_704  # one packet of 32 768 bytes less its header
_READ_BYTES = 1 << 20
_STDERR_KEPT_BYTES = 4096
_DEAD_AFTER_MS = 30_000
_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_PASSWORDS = {"password", "keyboard-interactive"}
_LOG = "edgesdk.transport.ssh"
logging.getLogger(_LOG).addHandler(logging.NullHandler())


@contextlib.contextmanager
def _our_errors(doing: str, name: str) -> Iterator[None]:
    """Re-raise what paramiko and the system throw, naming the operation."""
    try:
        yield
    except LinkError:
        raise
    except paramiko.AuthenticationException as exc:
        raise AuthError(f"cannot {doing} {name}: {exc}", device=name) from exc
    except TimeoutError as exc:
        raise timed_out(doing, name) from exc
    except socket.gaierror as exc:
        raise no_such_host(doing, name, str(exc.strerror)) from exc
    except ConnectionRefusedError as exc:
        raise nothing_listens(doing, name) from exc
    except (paramiko.SSHException, EOFError, OSError) as exc:
        reason = str(exc) or "the other end hung up"
        raise not_reached(doing, name, reason) from exc


class _Route:
    """The transports to a device, the jump hosts' first; closing it closes them all."""

    def __init__(self) -> None:
        self.transports: list[paramiko.Transport] = []
        self.notes: tuple[str, ...] = ()
        #: What let us in at each hop: a key, a password, or None where neither is kept.
        self.let_in_by: list[paramiko.PKey | str | None] = []
        self.proxy: paramiko.ProxyCommand | None = None

    @property
    def last(self) -> paramiko.Transport:
        return self.transports[-1]

    def close(self) -> None:
        # the last hop first, and to its end: it says goodbye through the one before
        for transport in reversed(self.transports):
            if isinstance(transport.sock, socket.socket):
                with contextlib.suppress(OSError):
                    # its thread looks only ten times a second
                    transport.sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(Exception):
                transport.close()
            if transport.is_alive():
                transport.join(2.0)
        if self.proxy is not None:
            _end(self.proxy.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop a ProxyCommand and collect it, which paramiko does not."""
    process.terminate()
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _socket_to(hop: Hop, route: _Route, name: str, deadline: float) -> Any:
    """Give a connected socket, or what paramiko takes for one."""
    if hop.proxy_command is not None:
        with _our_errors("run the ProxyCommand for", name):
            route.proxy = paramiko.ProxyCommand(hop.proxy_command)
            return route.proxy
    with _our_errors("reach", name):
        sock = socket.create_connection(
            (hop.host, hop.port), timeout=max(0.1, deadline - time.monotonic())
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER_MS)
        return sock


def _tunnel(through: paramiko.Transport, hop: Hop, name: str, deadline: float) -> Any:
    with _our_errors("reach", name):
        return through.open_channel(
            "direct-tcpip",
            (hop.host, hop.port),
            ("127.0.0.1", 0),
            timeout=max(0.1, deadline - time.monotonic()),
        )


def _choose_algorithms(transport: paramiko.Transport, known: list[KnownKey]) -> None:
    options = transport.get_security_options()
    options.ciphers = CIPHERS
    options.digests = MACS
    kinds = {key.kind for key in known if not key.revoked}
    if "ssh-rsa" in kinds:
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    # a host known by one key is asked for that one, as OpenSSH does
    options.key_types = tuple(sorted(_KEY_TYPES, key=lambda kind: kind not in kinds))


def _load_key(path: Path, on_password: OnPassword | None) -> paramiko.PKey:
    """Read a private key file, asking for its passphrase if it has one.

    Raises:
        AuthError: It cannot be read.
    """
    try:
        try:
            return paramiko.PKey.from_path(path)
        except TypeError:  # encrypted, and no passphrase was given
            passphrase = on_password(f"passphrase of {path}") if on_password else None
            if passphrase is None:
                raise AuthError(
                    f"cannot use key {path}: it has a passphrase",
                    hint="load it with `ssh-add`, which edgesdk asks too",
                    key=str(path),
                ) from None
            secret: Any = passphrase.encode("utf-8")  # its stubs say text, it takes only bytes
            return paramiko.PKey.from_path(path, secret)
    except OSError as exc:
        raise AuthError(
            f"cannot use key {path}: {(exc.strerror or str(exc)).lower()}", key=str(path)
        ) from exc
    except (paramiko.SSHException, paramiko.pkey.UnknownKeyType, ValueError, TypeError) as exc:
        raise AuthError(
            f"cannot use key {path}: {exc}",
            hint="is it a private key, and the passphrase right?",
            key=str(path),
        ) from exc


@contextlib.contextmanager
def _ssh_agent(hop: Hop) -> Iterator[paramiko.Agent | None]:
    """Have the user's ssh-agent, if there is one and it may be asked."""
    agent = None
    if not hop.only_these_keys:
        with contextlib.suppress(paramiko.SSHException, OSError):
            agent = paramiko.Agent()
    try:
        yield agent
    finally:
        if agent is not None:
            agent.close()


def _keys(
    hop: Hop, agent: paramiko.Agent | None, on_password: OnPassword | None
) -> Iterator[tuple[str, paramiko.PKey]]:
    """Give the keys to try: those named, or those of the ssh-agent and those that lie around.

    A file is read when its turn comes, so nobody is asked for a passphrase in vain.
    """
    if hop.keys_are_chosen:
        yield from ((str(path), _load_key(path, on_password)) for path in hop.keys)
        return
    problem: AuthError | None = None
    given = 0
    if agent is not None:
        for held in agent.get_keys():
            given += 1
            yield f"ssh-agent {held.fingerprint}", held
    for path in hop.keys:
        if not path.is_file():
            continue
        try:
            key = _load_key(path, on_password)
        except AuthError as exc:
            problem = exc
            continue
        given += 1
        yield str(path), key
    if problem is not None and not given:
        raise problem


def _log_in(
    transport: paramiko.Transport, hop: Hop, on_password: OnPassword | None
) -> paramiko.PKey | str | None:
    """Offer the keys, then a password if the server takes one.

    Gives what was accepted, for a further connection: a key from a file or a password.

    Raises:
        AuthError: Nothing was accepted.
    """
    with _ssh_agent(hop) as agent:
        return _log_in_with(transport, hop, agent, on_password)


def _log_in_again(
    transport: paramiko.Transport, hop: Hop, secret: paramiko.PKey | str | None
) -> None:
    """Log in with what let us in before; nobody is asked for anything.

    Raises:
        AuthError: It is not accepted now, or not enough.
    """
    if secret is None:
        _log_in(transport, hop, None)
        return
    with _our_errors("log in again to", hop.name):
        further = (
            transport.auth_password(hop.user, secret)
            if isinstance(secret, str)
            else transport.auth_publickey(hop.user, secret)
        )
    if further:
        raise AuthError(f"cannot log in again to {hop.name}: it asks for a second factor")


def _log_in_with(
    transport: paramiko.Transport,
    hop: Hop,
    agent: paramiko.Agent | None,
    on_password: OnPassword | None,
) -> paramiko.PKey | str | None:
    tried: list[str] = []
    takes_password = True
    problem = ""
    try:
        for label, key in _keys(hop, agent, on_password):
            tried.append(label)
            try:
                if not transport.auth_publickey(hop.user, key):
                    return None if isinstance(key, paramiko.AgentKey) else key
                problem = "it asks for a second factor"
            except paramiko.BadAuthenticationType as exc:
                takes_password = _PASSWORDS.intersection(exc.allowed_types) != set()
                break
            except paramiko.AuthenticationException:
                continue
        password = os.environ.get("EDGESDK_SSH_PASSWORD") if takes_password else None
        if password is None and takes_password and on_password is not None:
            password = on_password(f"password of {hop.user} on {hop.name}")
        if password is not None:
            tried.append("a password")
            if not transport.auth_password(hop.user, password):
                return password
    except LinkError:
        raise
    except paramiko.BadAuthenticationType as exc:
        problem = f"it takes only {', '.join(exc.allowed_types)}"
    except paramiko.AuthenticationException:
        problem = "wrong password"
    except (paramiko.SSHException, EOFError, OSError) as exc:
        problem = f"it hung up ({exc or 'too many keys were offered'})"
    raise no_login(hop.name, hop.user, problem, tried)


def _connect_hop(
    route: _Route,
    hop: Hop,
    *,
    deadline: float,
    on_password: OnPassword | None,
    before: _Route | None,
) -> None:
    """Add one hop to the route: connect, check its host key, log in (as ``before``)."""
    name = hop.name
    sock = (
        _tunnel(route.last, hop, name, deadline)
        if route.transports
        else _socket_to(hop, route, name, deadline)
    )
    filed_as = hop.key_alias or host_id(hop.host, hop.port)
    known = known_keys(hop.known_hosts, filed_as)
    with _our_errors("reach", name):
        transport = paramiko.Transport(sock)
        route.transports.append(transport)
        transport.daemon = True
        transport.set_log_channel(_LOG)
        _choose_algorithms(transport, known)
        left_s = max(0.1, deadline - time.monotonic())
        transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = left_s
        transport.start_client(timeout=left_s)
        if not transport.initial_kex_done:  # paramiko returns without a word when it is late
            raise TimeoutError
    key = transport.get_remote_server_key()
    check_host_key(
        key.asbytes(),
        key.get_name(),
        known,
        name=name,
        host=hop.host,
        port=hop.port,
        filed_as=filed_as,
        files=hop.known_hosts,
    )
    if not getattr(transport, "agreed_on_strict_kex", False):
        route.notes += (without_strict_kex(name),)
    if before is None:
        route.let_in_by.append(_log_in(transport, hop, on_password))
    else:
        _log_in_again(transport, hop, before.let_in_by[len(route.transports) - 1])
    transport.set_keepalive(KEEPALIVE_S)


def _read_config(home: Path, system: Path) -> Look:
    """Give a function that looks a host up in the user's and the system's OpenSSH files."""

    def look_up(host: str) -> dict[str, list[str]]:
        try:
            try:
                config = paramiko.SSHConfig.from_text(config_text(home, system, host=host))
            except paramiko.SSHException:  # a system's file may use what paramiko cannot read
                config = paramiko.SSHConfig.from_text(config_text(home, None, host=host))
            found = dict(config.lookup(host))
        except Exception as exc:  # paramiko raises whatever a Match exec needs and lacks
            raise InventoryError(
                f"cannot look up {host} in {home}: {exc}",
                hint=f"`ssh -G {host}` shows what OpenSSH makes of it",
                path=str(home),
            ) from exc
        return {
            key: value if isinstance(value, list) else [value] for key, value in found.items()
        }

    return look_up


def _hops(url: DeviceUrl) -> list[Hop]:
    """Resolve the way to the device, jump hosts first."""
    assert url.host
    look_up = _read_config(Path.home() / ".ssh" / "config", Path("/etc/ssh/ssh_config"))
    key = url.query.get("key")
    hops = [read_hop(url.host, url.user, url.port, key=key, look_up=look_up)]
    while hops[0].jumps:
        before = [read_hop(*jump, look_up=look_up) for jump in hops[0].jumps]
        hops = before + hops
        if len(hops) > MAX_HOPS:
            raise ChannelError(
                f"cannot reach {url}: its ProxyJump leads over more than {MAX_HOPS} hosts",
                hint="does a host in ~/.ssh/config jump through itself?",
            )
    return hops


def _connect(
    url: DeviceUrl,
    *,
    timeout_s: float,
    on_password: OnPassword | None,
    before: _Route | None = None,
    known_hosts: Path | None = None,
) -> _Route:
    route = _Route()
    deadline = time.monotonic() + timeout_s
    try:
        for hop in _hops(url):
            if known_hosts is not None:
                hop = replace(hop, known_hosts=(known_hosts,))  # noqa: PLW2901 - the same hop
            _connect_hop(route, hop, deadline=deadline, on_password=on_password, before=before)
    except BaseException:
        route.close()
        raise
    return route


class SshChannel:
    """One exec channel; use `open_paramiko` to get one with the agent behind it."""

    def __init__(
        self,
        route: _Route,
        command: str,
        *,
        name: str,
        timeout_s: float,
        reach_again: Callable[[float], SshChannel] | None = None,
    ) -> None:
        self.name = name
        self.traits = SSH_TRAITS
        self.notes = route.notes
        self._route = route
        self._reach_again = reach_again
        self._stderr_tail = b""
        self._pending = b""
        self._closed = False
        self.placed: Placed | None = None
        with _our_errors("start the agent on", name):
            self._exec = route.last.open_session(timeout=timeout_s)
            self._exec.settimeout(timeout_s)
            self._exec.exec_command(command)

    @property
    def stderr_tail(self) -> str:
        """The last that came on standard error."""
        while self._exec.recv_stderr_ready():
            data = self._exec.recv_stderr(65536)
            self._stderr_tail = (self._stderr_tail + data)[-_STDERR_KEPT_BYTES:]
        return self._stderr_tail.decode("utf-8", "replace").strip()

    @property
    def exit_status(self) -> int | None:
        """What the remote command ended with, if it has ended."""
        return self._exec.recv_exit_status() if self._exec.exit_status_ready() else None

    def give_back(self, data: bytes) -> None:
        """Let the next `read` give ``data`` first."""
        self._pending = data + self._pending

    def run(self, command: str, data: bytes, *, timeout_s: float) -> bytes:
        """Run one more command over this connection; gives its output, of which 1 MiB counts.

        Raises:
            ChannelError: The connection was lost, or the command never ends.
        """
        with _our_errors("run a command on", self.name):
            extra = self._route.last.open_session(timeout=timeout_s)
            try:
                extra.settimeout(timeout_s)
                extra.exec_command(command)
                extra.sendall(data)
                extra.shutdown_write()
                output = b""
                while len(output) < _READ_BYTES and (piece := extra.recv(65536)):
                    output += piece
            finally:
                extra.close()
        return output

    def open_lane(self, *, timeout_s: float) -> SshChannel:
        """Connect once more, as a lane; see `edgesdk.transport.base.ManyLanes`."""
        if self._reach_again is None or self._closed:
            raise ChannelError(f"cannot open a lane to {self.name}: it has no agent")
        return self._reach_again(timeout_s)

    def _gone(self, doing: str) -> ChannelClosed:
        if self._closed:
            return ChannelClosed(f"cannot {doing} {self.name}: it was closed on this side")
        self._exec.status_event.wait(0.5)
        tail, status = self.stderr_tail, self.exit_status
        return lost(doing, self.name, None if status is None or status < 0 else status, tail)

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        if self._pending:
            data, self._pending = self._pending, b""
            return data
        if self._closed:
            raise self._gone("read from")
        try:
            self._exec.settimeout(timeout_s)
            data = self._exec.recv(_READ_BYTES)
        except TimeoutError as exc:
            _ = self.stderr_tail  # unread it would fill the window and stop the agent
            raise ChannelTimeout(
                f"cannot read from {self.name}: no data for {timeout_s:.3g} s",
                timeout_s=timeout_s,
            ) from exc
        except (OSError, paramiko.SSHException, EOFError) as exc:
            raise self._gone("read from") from exc
        if not data:
            raise self._gone("read from")
        if self._exec.recv_stderr_ready():
            _ = self.stderr_tail
        return data

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        try:
            self._exec.settimeout(timeout_s)
            view = memoryview(data)
            for start in range(0, len(data), _SLICE_BYTES):
                piece = view[start : start + _SLICE_BYTES]
                while piece:
                    if self._closed:
                        raise self._gone("write to")
                    sent = self._exec.send(piece)  # type: ignore[arg-type]  # takes any buffer
                    if not sent:
                        raise self._gone("write to")
                    piece = piece[sent:]
        except TimeoutError as exc:
            raise ChannelTimeout(
                f"cannot write to {self.name}: no byte was taken for {timeout_s:g} s",
                timeout_s=timeout_s,
            ) from exc
        except (OSError, paramiko.SSHException, EOFError) as exc:
            raise self._gone("write to") from exc

    def close(self) -> None:
        """End the agent's input and the connections."""
        if self._closed:
            return
        with contextlib.suppress(Exception):
            self._exec.shutdown_write()
            self._exec.status_event.wait(1.0)
        self._closed = True
        with contextlib.suppress(Exception):
            self._exec.close()
        self._route.close()


def open_paramiko(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    timeout_s: float = 30.0,
    on_password: OnPassword | None = None,
    start: bool = True,
    known_hosts: Path | None = None,
) -> SshChannel:
    """Log in, put the agent there unless it is, and start it.

    Args:
        url: An ``ssh://`` URL.
        agent: What to start.
        timeout_s: How long all that may take.
        on_password: Asked for a password or passphrase.
        start: False leaves it at putting the agent there; the channel is then at its end.
        known_hosts: The only file that knows the host's key, for a host of our own making.

    Raises:
        HostKeyError: The host's key, or a jump host's, is unknown or changed.
        AuthError: No key and no password is accepted.
        BootstrapError: Logged in, but the agent cannot be started.
        ChannelError: The host cannot be reached.
    """
    deadline = time.monotonic() + timeout_s
    route = _connect(url, timeout_s=timeout_s, on_password=on_password, known_hosts=known_hosts)

    def reach_again(timeout_s: float) -> SshChannel:
        deadline = time.monotonic() + timeout_s
        further = _connect(
            url, timeout_s=timeout_s, on_password=None, before=route, known_hosts=known_hosts
        )
        return _start(further, url, agent, command=["lane"], deadline=deadline)

    return _start(
        route,
        url,
        agent,
        command=["stdio"] if start else None,
        deadline=deadline,
        reach_again=reach_again if start else None,
    )


def _start(
    route: _Route,
    url: DeviceUrl,
    agent: AgentImage,
    *,
    command: list[str] | None,
    deadline: float,
    reach_again: Callable[[float], SshChannel] | None = None,
) -> SshChannel:
    """Start the agent at the end of a route, which is closed when that fails."""
    try:
        channel = SshChannel(
            route,
            bootstrap_command(url.query.get("python", "python3")),
            name=channel_name(url),
            timeout_s=max(1.0, deadline - time.monotonic()),
            reach_again=reach_again,
        )
        channel.placed = run_bootstrap(
            channel, agent, state=url.query.get("state"), command=command, deadline=deadline
        )
    except BaseException:
        route.close()
        raise
    return channel
