"""``edgesdk agent``: pack the agent into one file, or install it on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgesdk.cli.devicelink import device_settings, find_device, password_asker
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import progress_bars

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Pack the agent, or install it on a device.",
)


@app.command()
def pack(
    out_file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")
    ] = Path("edge-agent.pyz"),
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Write the agent as one file that any Python from 3.7 on runs."""
    from edgesdk.devices.agentpack import save_agent

    out = Output("agent-pack", fmt)
    package = save_agent(out_file)
    out.document(
        {
            "file": out_file,
            "bytes": len(package.data),
            "sha256": package.sha256,
            "version": package.version,
        }
    )
    out.line(
        f"wrote {out_file}: agent {package.version}, {size_text(len(package.data))}, "
        f"sha256 {package.sha256}"
    )


@app.command()
def install(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    console: Annotated[
        bool,
        typer.Option(
            "--console",
            help="The device has only a login prompt on its serial console: log in there, send "
            "the agent through the shell, and start it on that line.",
        ),
    ] = False,
    service: Annotated[
        bool,
        typer.Option(
            "--service",
            help="With --console: install a systemd unit too, which serves the line from every "
            "boot on and lets people log in on it. Needs root there.",
        ),
    ] = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Install the agent on a device as a service that starts at boot."""
    from edgesdk.devices.install import install_agent, install_over_console
    from edgesdk.errors import InputError

    out = Output("agent-install", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    if service and not console:
        raise InputError(
            "cannot install a service for the console without --console",
            hint="add --console; without it the agent becomes a service of the user anyway",
        )
    with progress_bars() as on_progress:
        if console:
            done = install_over_console(
                found,
                service=service,
                timeout_s=max(60.0, settings.connect_timeout_s),
                on_progress=on_progress,
                on_password=password_asker(settings, on_progress, console=True),
            )
        else:
            done = install_agent(
                found,
                timeout_s=settings.connect_timeout_s,
                on_progress=on_progress,
                on_password=password_asker(settings, on_progress),
            )
    out.document({"device": found.name, "installed": done})
    out.line(f"installed the agent on {found.name}: {done}")
