"""``edgesdk rollback``: make the previous release of a device the current one again."""

from __future__ import annotations

from typing import Annotated

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, release_label
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output
from edgesdk.wire.ops import SLOTS

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def rollback(
    device: DeviceArgument = None,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Why; the device keeps it for who looks next."
        ),
    ] = "",
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Go back to the previous release of a device."""
    from edgesdk.deploy import releases

    out = Output("rollback", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        slots = releases.rollback(session, why=reason)
    out.document({"device": found.name, **{slot: slots.get(slot) for slot in SLOTS}})
    out.pairs([(slot, release_label(slots.get(slot))) for slot in ("current", "previous")])
