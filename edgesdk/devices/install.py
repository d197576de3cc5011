"""Make the agent stay: put it at a fixed place on a device and let systemd keep it running.

The daemon that runs then owns the state folder; sessions over SSH are relayed to it. Nothing is
installed system-wide: it is a unit of the user who logs in, and needs no root.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from edgesdk.devices.agentpack import pack_agent
from edgesdk.devices.inventory import Device
from edgesdk.devices.text import clean_text
from edgesdk.errors import BootstrapError, InventoryError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.transport.base import OnPassword
from edgesdk.transport.bootstrap import Placed
from edgesdk.transport.installing import install_command, install_header, read_outcome

__all__ = ["Installed", "install_agent", "unit_text"]

_STABLE_NAME = "edge-agent.pyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Where the agent now is, and whether it runs.

    Attributes:
        device: The device's name.
        agent: A path there that stays the same when newer agents are installed.
        sha256: Which agent it is.
        state: Its state folder.
        python: The interpreter it runs on.
        unit: The systemd unit's file, or None where no systemd takes one.
        running: Whether systemd says that the daemon runs.
        notes: What was left undone and why.
    """

    device: str
    agent: str
    sha256: str
    state: str
    python: str
    unit: str | None
    running: bool
    notes: tuple[str, ...]

    def __str__(self) -> str:
        if self.unit is None:
            start = f"start it with `{self.python} {self.agent} run --state {self.state}`"
            return "; ".join((f"it is {self.agent}", *self.notes, start))
        state = "it runs" if self.running else "it does not run yet"
        return "; ".join((f"it is {self.agent}", f"unit {self.unit}", state, *self.notes))


def unit_text(*, python: str, agent: str, state: str) -> str:
    """Give the systemd user unit that keeps the agent running."""

    def quoted(word: str) -> str:
        escaped = word.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + escaped.replace("%", "%%").replace("$", "$$") + '"'

    words = [python, "-I", "-S", agent, "run", "--state", state, "--python", python]
    return (
        "[Unit]\nDescription=edgesdk agent\n\n[Service]\n"
        f"ExecStart={' '.join(quoted(word) for word in words)}\n"
        "Restart=on-failure\nRestartSec=2\nNoNewPrivileges=yes\n\n"
        "[Install]\nWantedBy=default.target\n"
    )


#: Runs a command there with something on its standard input, gives its standard output.
_Runner = Callable[[str, bytes], bytes]


def _run_here(command: str, data: bytes) -> bytes:
    done = subprocess.run(
        ["/bin/sh", "-c", command], input=data, capture_output=True, timeout=120, check=False
    )
    return done.stdout


def install_agent(
    device: Device,
    *,
    timeout_s: float = 60.0,
    on_progress: OnProgress = ignore_progress,
    on_password: OnPassword | None = None,
) -> Installed:
    """Put the agent on ``device`` to stay.

    Args:
        device: Reached over SSH, or ``local:`` for this computer.
        timeout_s: How long it may take in all.
        on_progress: Told when it begins and ends.
        on_password: See `edgesdk.transport.open.open_channel`.

    Raises:
        InventoryError: The device is on a serial line, over which nothing can be installed.
        LinkError: It cannot be reached, or its state folder cannot be written.
    """
    on_progress(Progress(step="install", done=0, total=1))
    package = pack_agent()
    if device.url.scheme == "local":
        from edgesdk.transport.local import place_agent

        done = _install(
            device, place_agent(device.url, agent=package), package.sha256, _run_here
        )
    elif device.url.scheme == "ssh":
        from edgesdk.transport.ssh import open_ssh

        channel = open_ssh(
            device.url, agent=package, timeout_s=timeout_s, on_password=on_password, start=False
        )
        try:
            assert channel.placed is not None

            def run_there(command: str, data: bytes) -> bytes:
                return channel.run(command, data, timeout_s=timeout_s)

            done = _install(device, channel.placed, package.sha256, run_there)
        finally:
            channel.close()
    else:
        raise InventoryError(
            f"cannot install the agent on {device.name}: a serial line installs nothing",
            hint="`edgesdk agent pack` writes the file; copy it there and run "
            "`python3 edge-agent.pyz run --tty /dev/ttyS0`",
        )
    on_progress(Progress(step="install", done=1, total=1))
    return done


def _install(device: Device, placed: Placed, sha256: str, run: _Runner) -> Installed:
    token = secrets.token_hex(16)
    stable = f"{placed.state}/{_STABLE_NAME}"
    header = install_header(
        token=token,
        placed=placed,
        stable=stable,
        unit_text=unit_text(python=placed.python, agent=stable, state=placed.state),
    )
    try:
        output = run(install_command(placed.python), header)
    except subprocess.TimeoutExpired as exc:
        raise BootstrapError(
            f"cannot install the agent on {device.name}: no answer for {exc.timeout:g} s"
        ) from exc
    outcome = read_outcome(output, token=token, name=device.name)
    return Installed(
        device=device.name,
        agent=clean_text(stable),
        sha256=sha256,
        state=clean_text(placed.state),
        python=clean_text(placed.python),
        unit=clean_text(outcome.unit) if outcome.unit else None,
        running=outcome.running,
        notes=tuple(clean_text(note, limit=400) for note in outcome.notes),
    )
