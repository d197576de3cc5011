"""``edgesdk devices``: list devices, reach them, ask what they are, read their log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import typer

from edgesdk.cli.devicelink import device_settings, find_device, inventory_file, open_session
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import busy
from edgesdk.cli.targets import profile_folder
from edgesdk.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List devices, reach them, ask what they are.",
)


@app.command("list")
def list_devices(inventory: InventoryOption = None, fmt: FormatOption = Format.TEXT) -> None:
    """List the devices of the inventory."""
    from edgesdk.devices.inventory import load_inventory

    out = Output("devices-list", fmt)
    settings = device_settings(inventory)
    path = inventory_file(settings)
    devices = [] if path is None else list(load_inventory(path).values())
    out.document(
        {
            "inventory": path,
            "devices": [
                {"name": each.name, "url": str(each.url), "target": each.target}
                for each in devices
            ],
        }
    )
    if devices:
        out.table(
            ("device", "address", "target"),
            [(each.name, str(each.url), each.target or "") for each in devices],
        )
    else:
        where = settings.inventory if path is None else path
        out.note(f"no devices in {where}; a device URL such as local: works without it")


@app.command()
def ping(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Reach a device, start its agent and say how long that took."""
    from edgesdk.devices.facts import read_status

    out = Output("devices-ping", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    started_s = time.perf_counter()
    with open_session(settings, found) as session:
        reached_s = time.perf_counter()
        read_status(session)
        answered_s = time.perf_counter()
        hello = session.hello
    connect_ms = 1000 * (reached_s - started_s)
    round_trip_ms = 1000 * (answered_s - reached_s)
    out.document(
        {
            "device": found.name,
            "connect_ms": connect_ms,
            "round_trip_ms": round_trip_ms,
            "agent": hello,
        }
    )
    out.line(
        f"{found.name} answers: connected in {connect_ms:.0f} ms, "
        f"round trip {round_trip_ms:.1f} ms, agent {hello.agent_version} "
        f"on Python {hello.python} ({hello.machine})"
    )


@app.command()
def facts(
    device: DeviceArgument = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Ask a device what it is and which runtimes it has."""
    from edgesdk.devices.facts import read_facts

    out = Output("devices-facts", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session, busy("look for runtimes"):
        known = read_facts(session, runtimes=True)
    out.document({"device": found.name, "facts": known, "targets": _matching(known, settings)})
    runtimes = known.get("runtimes")
    shown: list[tuple[str, object]] = [
        (name.removesuffix("_bytes").replace("_", " "), _fact_text(name, value))
        for name, value in sorted(known.items())
        if name not in ("runtimes", "cpu_flags") and value not in (None, [], "")
    ]
    matching = ", ".join(_matching(known, settings)) or "none that is known"
    out.pairs([*shown, ("is target", matching)])
    if isinstance(runtimes, dict) and runtimes:
        out.line()
        out.table(
            ("runtime", "version", "why not"),
            [
                (name, each.get("version") or "-", each.get("why") or "")
                for name, each in sorted(runtimes.items())
                if isinstance(each, dict)
            ],
        )


@app.command()
def logs(
    device: DeviceArgument = None,
    lines: Annotated[
        int,
        typer.Option(
            "--lines", "-n", min=1, max=10_000, metavar="N", help="How many, from the end."
        ),
    ] = 50,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Show the last lines of a device's agent log."""
    from edgesdk.devices.facts import read_logs

    out = Output("devices-logs", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session:
        shown = read_logs(session, lines=lines)
    out.document({"device": found.name, "lines": shown})
    for line in shown:
        out.line(line)


def _fact_text(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return size_text(value)
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _matching(known: Mapping[str, object], settings: Settings) -> list[str]:
    """Name the targets that a device with these facts is."""
    from edgesdk.profiles.catalog import load_catalog
    from edgesdk.profiles.identify import why_not_target

    catalog = load_catalog(profile_folder(settings))
    return [name for name, profile in catalog.items() if not why_not_target(profile, known)]
