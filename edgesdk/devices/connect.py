"""From a device to a session with its agent."""

from __future__ import annotations

import time
from pathlib import Path

from edgesdk.devices.agentpack import pack_agent
from edgesdk.devices.inventory import Device
from edgesdk.devices.proof import read_key_file
from edgesdk.devices.session import Session
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.transport.base import OnPassword
from edgesdk.transport.open import open_channel

__all__ = ["connect"]


def connect(
    device: Device,
    *,
    timeout_s: float = 30.0,
    on_progress: OnProgress = ignore_progress,
    on_password: OnPassword | None = None,
) -> Session:
    """Reach the agent of ``device``, starting it where the link can, and greet it.

    Args:
        device: From `edgesdk.devices.inventory.resolve_device`.
        timeout_s: How long that may take in all.
        on_progress: Told when it begins and when the agent has answered.
        on_password: See `edgesdk.transport.open.open_channel`.

    Raises:
        AuthError: Its line has a key, and we have not the same.
        LinkError: It cannot be reached; the class says at which hurdle.
    """
    deadline = time.monotonic() + timeout_s
    on_progress(Progress(step="connect", done=0, total=1))
    key = None
    if device.url.scheme == "serial" and "key" in device.url.query:
        key = read_key_file(Path(device.url.query["key"]).expanduser())
    package = pack_agent()
    channel = open_channel(
        device.url, agent=package, timeout_s=timeout_s, on_password=on_password
    )
    left_s = max(1.0, deadline - time.monotonic())
    session = Session(channel, device_name=device.name, timeout_s=left_s, key=key)
    if session.hello.agent_sha256 != package.sha256:
        # a daemon that lives there, or the far end of a serial line: nothing replaces those
        session.notes += (
            f"the agent on {device.name} is {session.hello.agent_version} "
            f"({session.hello.agent_sha256[:12] or 'not packed'}), this edgesdk brings "
            f"{package.version} ({package.sha256[:12]}): `edgesdk agent install` or "
            "`edgesdk agent pack` renews it",
        )
    on_progress(Progress(step="connect", done=1, total=1))
    return session
