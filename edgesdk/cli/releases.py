"""``edgesdk releases``: the releases on a device, the slots they are in and their size."""

from __future__ import annotations

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, short_id
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, jsonable, size_text

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def releases(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """List the releases on a device."""
    from edgesdk.deploy.deploy import list_releases

    out = Output("releases", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        listed = jsonable(list_releases(session))
    rows = (
        [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    )
    out.document({"device": found.name, "releases": rows})
    out.table(
        ("slot", "bundle", "name", "precision", "target", "size", "checked", "since"),
        [
            (
                each.get("slot") or "-",
                short_id(each.get("bundle")),
                each.get("name"),
                each.get("precision"),
                each.get("target"),
                size_text(each["bytes"]) if isinstance(each.get("bytes"), int) else "",
                "yes" if each.get("checked") else "no",
                each.get("since"),
            )
            for each in rows
        ],
        right=("size",),
    )
    if not rows:
        out.note(f"{found.name} holds no release; put one there with edgesdk deploy")
