"""Which program carries an ``ssh://`` URL: the OpenSSH client, or paramiko in this process.

The OpenSSH client is faster, for it encrypts in a process of its own, and it has what the user
has set up for it. It cannot ask for a password. So ``auto`` tries it first, where it is there,
and leaves to paramiko what it is not let in to or what it does not understand; a host key that
it refuses stays refused.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import AuthError, ChannelError
from edgesdk.transport.base import AgentImage, OnPassword
from edgesdk.transport.url import SSH_CLIENTS, DeviceUrl

if TYPE_CHECKING:
    from edgesdk.transport.openssh import OpensshChannel
    from edgesdk.transport.ssh import SshChannel

__all__ = ["open_ssh"]


def open_ssh(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    timeout_s: float = 30.0,
    on_password: OnPassword | None = None,
    start: bool = True,
    known_hosts: Path | None = None,
) -> OpensshChannel | SshChannel:
    """Log in, put the agent there unless it is, and start it.

    Args:
        url: An ``ssh://`` URL; its option ``client`` may name the program.
        agent: What to start.
        timeout_s: How long all that may take, for each program that is tried.
        on_password: Asked for a password or passphrase.
        start: False leaves it at putting the agent there; the channel is then at its end.
        known_hosts: The only file that knows the host's key, for a host of our own making.

    Raises:
        HostKeyError: The host's key, or a jump host's, is unknown or changed.
        AuthError: No key and no password is accepted.
        BootstrapError: Logged in, but the agent cannot be started.
        ChannelError: The host cannot be reached, or there is no such program.
    """
    client = url.query.get("client", SSH_CLIENTS[0])
    if client != "paramiko":
        from edgesdk.transport.openssh import open_openssh
        from edgesdk.transport.openssh_way import UnclearError, find_client

        program = find_client()
        if program is None and client == "openssh":
            raise ChannelError(
                f"cannot reach {url}: there is no ssh program on PATH",
                hint="install the OpenSSH client, or leave out client=openssh",
            )
        if program is not None:
            try:
                return open_openssh(
                    url,
                    agent=agent,
                    program=program,
                    timeout_s=timeout_s,
                    start=start,
                    known_hosts=known_hosts,
                )
            except UnclearError as exc:
                if client == "openssh":
                    raise exc.error from exc
            except AuthError:
                if client == "openssh":
                    raise
    _import_later("invoke")  # a quarter of paramiko's import, for "Match exec" lines alone
    from edgesdk.transport.ssh import open_paramiko

    return open_paramiko(
        url,
        agent=agent,
        timeout_s=timeout_s,
        on_password=on_password,
        start=start,
        known_hosts=known_hosts,
    )


def _import_later(name: str) -> None:
    """Let ``import name`` succeed at once, and load the module when it is first used."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is not None and spec.loader is not None:
        spec.loader = loader = importlib.util.LazyLoader(spec.loader)
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
