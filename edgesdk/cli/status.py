"""``edgesdk status``: what a device holds and what is running there."""

from __future__ import annotations

import typer

from edgesdk.cli.devicelink import device_settings, find_device, open_session, release_label
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.wire.ops import SLOTS

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def status(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say what a device holds and runs."""
    from edgesdk.devices.facts import read_status

    out = Output("status", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        meta = read_status(session)
    slots = meta.get("slots")
    slots = slots if isinstance(slots, dict) else {}
    agent = meta.get("agent")
    worker = meta.get("worker")
    out.document(
        {
            "device": found.name,
            "agent": agent,
            **{slot: slots.get(slot) for slot in SLOTS},
            "store_bytes": meta.get("store_bytes"),
            "worker": worker,
        }
    )
    agent = agent if isinstance(agent, dict) else {}
    mode = "daemon" if agent.get("daemon") else "for this command only"
    rows: list[tuple[str, object]] = [
        ("device", found.name),
        ("agent", f"{agent.get('version')} on Python {agent.get('python')}, {mode}"),
        *((slot, release_label(slots.get(slot))) for slot in SLOTS),
    ]
    store_bytes = meta.get("store_bytes")
    if isinstance(store_bytes, int):
        rows.append(("store", size_text(store_bytes)))
    if isinstance(worker, dict):
        resident = worker.get("rss_bytes")
        size = f", {size_text(resident)}" if isinstance(resident, int) else ""
        rows.append(("worker", f"process {worker.get('pid')}{size}"))
    else:
        rows.append(("worker", "none"))
    out.pairs(rows)
