"""``edgesdk gc``: remove releases and blobs that no slot of a device needs."""

from __future__ import annotations

from typing import Annotated

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, short_id
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import busy

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gc(
    device: DeviceArgument = None,
    budget_bytes: Annotated[
        int | None,
        typer.Option(
            "--budget-bytes",
            min=0,
            metavar="BYTES",
            help="Keep unused releases, newest first, while the store is within this.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Remove what no slot of a device needs."""
    from edgesdk.deploy.releases import collect_garbage

    out = Output("gc", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session, busy("remove"):
        done = collect_garbage(session, budget_bytes=budget_bytes)
    out.document(
        {
            "device": found.name,
            "removed": done.removed,
            "freed_bytes": done.freed_bytes,
            "kept": done.kept,
        }
    )
    names = ", ".join(short_id(each) for each in done.removed) or "nothing"
    out.line(f"removed from {found.name}: {names}; {size_text(done.freed_bytes)} freed")
