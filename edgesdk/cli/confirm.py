"""``edgesdk confirm``: the current release has proven itself, its probation is over."""

from __future__ import annotations

from typing import Annotated

import typer

from edgesdk.cli.devicelink import (
    device_settings,
    find_device,
    find_release,
    open_session,
    release_label,
)
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def confirm(
    device: DeviceArgument = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            metavar="ID",
            help="Refuse where another release than this one is current.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """End the probation of a device's current release.

    It stays, whatever happens; 'edgesdk rollback' still goes back.
    """
    from edgesdk.deploy.probation import confirm_release
    from edgesdk.devices.facts import read_status

    out = Output("confirm", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        bundle = None if release is None else find_release(session, release).bundle
        ended = confirm_release(session, bundle)
        slots = read_status(session).get("slots")
    current = slots.get("current") if isinstance(slots, dict) else None
    out.document({"device": found.name, "current": current, "was_on_probation": ended})
    out.pairs(
        [
            ("current", release_label(current)),
            ("probation", "ended by this command" if ended else "there was none"),
        ]
    )
