"""Open the channel that a device URL asks for."""

from __future__ import annotations

from edgesdk.transport.base import AgentImage, Channel, OnPassword
from edgesdk.transport.url import DeviceUrl

__all__ = ["open_channel"]


def open_channel(
    url: DeviceUrl,
    *,
    agent: AgentImage,
    timeout_s: float = 30.0,
    on_password: OnPassword | None = None,
) -> Channel:
    """Reach the agent behind ``url``; over all but ``serial:`` it is put there and started.

    Only the library that the scheme needs is imported.

    Args:
        url: Where.
        agent: The agent to start, where this link starts one.
        timeout_s: How long reaching it may take in all.
        on_password: Asked for an SSH password or a key's passphrase, with a prompt; gives None
            to give up. Without it the password is taken from ``EDGESDK_SSH_PASSWORD``.

    Raises:
        LinkError: It cannot be reached; the class says at which hurdle.
    """
    if url.scheme == "local":
        from edgesdk.transport.local import open_local

        return open_local(url, agent=agent)
    if url.scheme == "ssh":
        from edgesdk.transport.ssh_clients import open_ssh

        return open_ssh(url, agent=agent, timeout_s=timeout_s, on_password=on_password)
    if url.scheme == "virtual":
        from edgesdk.transport.virtual import open_virtual

        return open_virtual(url, agent=agent, timeout_s=timeout_s, on_password=on_password)
    from edgesdk.transport.serial import open_serial

    return open_serial(url)
