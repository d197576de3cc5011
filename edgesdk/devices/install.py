"""Make the agent stay: put it at a fixed place on a device and let systemd keep it running.

The daemon that runs then owns the state folder; sessions over SSH are relayed to it. Nothing is
installed system-wide: it is a unit of the user who logs in, and needs no root.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from edgesdk._resources import resource_dir
from edgesdk.devices.agentpack import pack_agent
from edgesdk.devices.connect import connect
from edgesdk.devices.inventory import Device
from edgesdk.devices.text import clean_text
from edgesdk.errors import BootstrapError, InventoryError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.transport.base import OnPassword
from edgesdk.transport.bootstrap import Placed
from edgesdk.transport.installing import install_command, install_header, read_outcome

__all__ = [
    "Installed",
    "console_unit_text",
    "install_agent",
    "install_over_console",
    "unit_text",
]

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
        if self.unit is None and self.running:
            return "; ".join((f"it is {self.agent}", *self.notes))
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
        "[Unit]\nDescription=edgesdk agent\n"
        "StartLimitIntervalSec=600\nStartLimitBurst=10\n\n"
        "[Service]\nType=notify\nNotifyAccess=main\n"
        f"ExecStart={' '.join(quoted(word) for word in words)}\n"
        "WatchdogSec=60\nRestart=on-failure\nRestartSec=5\n"
        "RestartPreventExitStatus=2 70\nTimeoutStartSec=90\nTimeoutStopSec=10\n"
        "LimitCORE=0\nUMask=0077\nNoNewPrivileges=yes\n\n"
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

    Over a serial line that has only a login see `install_over_console`.

    Args:
        device: Reached over SSH, or ``local:`` for this computer.
        timeout_s: How long it may take in all.
        on_progress: Told when it begins and ends.
        on_password: See `edgesdk.transport.open.open_channel`.

    Raises:
        InventoryError: The device is on a serial line, or a virtual board.
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
        from edgesdk.transport.ssh_clients import open_ssh

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
    elif device.url.scheme == "virtual":
        raise InventoryError(
            f"cannot install the agent on {device.name}: a virtual board has no services",
            hint="nothing has to be installed there: every command starts the agent in it",
        )
    else:
        raise InventoryError(
            f"cannot install the agent on {device.name}: a serial line installs nothing",
            hint="--console installs it through the login that is on that line; or copy the "
            "file there that `edgesdk agent pack` writes",
        )
    on_progress(Progress(step="install", done=1, total=1))
    return done


def console_unit_text(*, baud: int, rtscts: bool) -> str:
    """Give the unit for a console, with ``@PYTHON@`` and its like for what the device fills in.

    It runs as the one who installs it, root, and is else the file that comes with edgesdk.
    """
    text = (resource_dir("device_agents") / "service" / "edge-agent-console.service").read_text(
        encoding="utf-8"
    )
    words = f"@PYTHON@ -I -S @AGENT@ run --tty /dev/%I --baud {baud}"
    words += f"{' --rtscts' if rtscts else ''} --console --state @STATE@ --python @PYTHON@"
    kept = [line for line in text.splitlines() if not line.startswith("#")]
    return (
        "\n".join(
            f"ExecStart={words}" if line.startswith("ExecStart=") else line for line in kept
        ).strip()
        + "\n"
    )


def install_over_console(
    device: Device,
    *,
    service: bool = False,
    timeout_s: float = 60.0,
    on_progress: OnProgress = ignore_progress,
    on_password: OnPassword | None = None,
) -> Installed:
    """Install the agent through the login on a device's serial console, and start it there.

    It logs in as a person would, sends the agent through the shell, and starts it in the
    shell's place: from then on the line is the agent's, until the device starts anew.

    Args:
        device: On a serial line, with the user in its URL: ``serial://root@/dev/ttyUSB0``.
        service: Install a systemd unit too, so that the agent is there after every boot, and
            people log in beside it; needs root there.
        timeout_s: How long it may take to get a prompt. The transfer has no limit but that of
            silence.
        on_progress: Told how much is sent.
        on_password: Asked for the password, if the device asks for one.

    Raises:
        InventoryError: The device is not on a serial line.
        AuthError: It does not let us in.
        LinkError: It cannot be done; the class and text say at which hurdle.
    """
    url = device.url
    if url.scheme != "serial":
        raise InventoryError(
            f"cannot install the agent over a console on {device.name}: it is no serial line",
            hint="`edgesdk agent install` without --console does it over SSH",
        )
    from edgesdk.transport.console_login import log_in
    from edgesdk.transport.console_push import ConsoleWishes, push_through_shell
    from edgesdk.transport.console_screen import Screen
    from edgesdk.transport.serial import DEFAULT_BAUD, open_console

    package = pack_agent()
    baud, rtscts = int(url.query.get("baud", DEFAULT_BAUD)), url.query.get("rtscts") == "1"
    unit = console_unit_text(baud=baud, rtscts=rtscts) if service else None
    on_progress(Progress(step="log in", done=0, total=1))
    with open_console(url) as line:
        screen = Screen(line)
        log_in(screen, user=url.user, on_password=on_password, timeout_s=timeout_s)
        on_progress(Progress(step="log in", done=1, total=1))
        wishes = ConsoleWishes(
            python=url.query.get("python", "python3"),
            state=url.query.get("state"),
            baud=baud,
            rtscts=rtscts,
            unit=unit,
        )
        placed = push_through_shell(screen, package, wishes, on_progress)
    with connect(device, timeout_s=timeout_s, on_progress=on_progress) as session:
        found = session.hello.agent_sha256
    notes = []
    if found != package.sha256:
        notes.append(f"the agent that answers is another one ({found[:12]})")
    if not service:
        notes.append(f"it runs on {clean_text(placed.tty)} until the device restarts")
    name = "edge-agent-console@.service"
    return Installed(
        device=device.name,
        agent=clean_text(placed.path),
        sha256=package.sha256,
        state=clean_text(placed.state),
        python=clean_text(placed.python),
        unit=f"/etc/systemd/system/{name}" if service else None,
        running=True,
        notes=tuple(notes),
    )


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
