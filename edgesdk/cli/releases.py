"""``edgesdk releases``: the releases on a device, the slots they are in and their size."""

from __future__ import annotations

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, short_id
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def releases(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """List the releases on a device."""
    from edgesdk.deploy.releases import list_releases

    out = Output("releases", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        rows = list_releases(session)
    out.document({"device": found.name, "releases": rows})
    if rows:
        out.table(
            (
                "slot",
                "bundle",
                "name",
                "precision",
                "target",
                "size",
                "checked",
                "since",
                "state",
            ),
            [
                (
                    each.slot or "-",
                    short_id(each.bundle),
                    each.name,
                    each.precision,
                    each.target,
                    size_text(each.bytes),
                    "yes" if each.checked else "no",
                    each.since,
                    each.state,
                )
                for each in rows
            ],
            right=("size",),
        )
    else:
        out.note(f"{found.name} holds no release; put one there with edgesdk deploy")
