"""``edgesdk status``: what a device holds and what is running there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edgesdk.cli.devicelink import (
    device_settings,
    find_device,
    open_session,
    probation_text,
    release_label,
    short_id,
)
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.wire.ops import SLOTS

if TYPE_CHECKING:
    from edgesdk.deploy.values import Returned

__all__ = ["app", "serving_text"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def status(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say what a device holds and runs."""
    from edgesdk.deploy.probation import read_probation, read_returns
    from edgesdk.devices.facts import read_status

    out = Output("status", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        meta = read_status(session)
    slots = meta.get("slots")
    slots = slots if isinstance(slots, dict) else {}
    probation = read_probation(meta)
    gone = read_returns(meta)
    holder = meta.get("holder")
    agent = meta.get("agent")
    worker = meta.get("worker")
    out.document(
        {
            "device": found.name,
            "agent": agent,
            **{slot: slots.get(slot) for slot in SLOTS},
            "probation": probation,
            "returned": gone,
            "holder": holder,
            "store_bytes": meta.get("store_bytes"),
            "worker": worker,
            "serving": meta.get("serving"),
        }
    )
    agent = agent if isinstance(agent, dict) else {}
    mode = "daemon" if agent.get("daemon") else "for this command only"
    rows: list[tuple[str, object]] = [
        ("device", found.name),
        ("agent", f"{agent.get('version')} on Python {agent.get('python')}, {mode}"),
        *((slot, release_label(slots.get(slot))) for slot in SLOTS),
    ]
    if probation is not None:
        rows.append(("probation", probation_text(probation, found.name)))
    if gone:
        rows.append(("taken back", _returned_text(gone[-1])))
    if isinstance(holder, dict):
        rows.append(("held by", _holder_text(holder)))
    store_bytes = meta.get("store_bytes")
    if isinstance(store_bytes, int):
        rows.append(("store", size_text(store_bytes)))
    if isinstance(worker, dict):
        resident = worker.get("rss_bytes")
        size = f", {size_text(resident)}" if isinstance(resident, int) else ""
        rows.append(("worker", f"process {worker.get('pid')}{size}"))
    else:
        rows.append(("worker", "none"))
    serving = meta.get("serving")
    if isinstance(serving, dict):
        rows.append(("serving", serving_text(serving)))
    out.pairs(rows)


def serving_text(serving: dict[str, object]) -> str:
    """Say in a line what answers applications, and how that went."""
    bundle = serving.get("bundle")
    text = "no release is loaded" if bundle is None else f"release {short_id(str(bundle))}"
    answered, failed, waiting = (
        serving.get(key, 0) for key in ("answered", "failed", "waiting")
    )
    counts = (
        f"{answered} answered and {failed} refused since the agent started, {waiting} waiting"
    )
    why_not = serving.get("why_not")
    return f"{text}, {counts}" + (f"; the last start failed: {why_not}" if why_not else "")


def _returned_text(gone: Returned) -> str:
    by = "by the device itself" if gone.by == "device" else "as a host asked"
    return f"{short_id(gone.bundle)} for {short_id(gone.to)}, {by}, {gone.since}: {gone.why}"


def _holder_text(holder: dict[str, object]) -> str:
    seconds = holder.get("for_s")
    since = f", for {seconds:.0f} s" if isinstance(seconds, int | float) else ""
    who = holder.get("who") or "a host that gave no name"
    return f"{who} ({holder.get('doing') or 'at work'}{since})"
