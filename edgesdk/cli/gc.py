"""``edgesdk gc``: remove releases and blobs that no slot of a device needs."""

from __future__ import annotations

from typing import Annotated

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, short_id
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import busy
from edgesdk.cli.quantities import read_size

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def gc(
    device: DeviceArgument = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="2GB",
            help="Keep unused releases, newest first, while all blobs fit into this.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Remove what no slot of a device needs.

    What a release on probation would give way to stays, too.
    """
    from edgesdk.deploy.releases import collect_garbage

    out = Output("gc", fmt)
    budget_bytes = None if budget is None else read_size(budget, option="--budget")
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
