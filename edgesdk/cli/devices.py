"""``edgesdk devices``: list devices, make virtual ones, reach and question them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import typer

from edgesdk.cli.devicelink import (
    device_settings,
    find_device,
    inventory_file,
    open_session,
    set_up,
)
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import busy, progress_bars
from edgesdk.cli.targets import profile_folder
from edgesdk.errors import InputError
from edgesdk.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List devices, make virtual ones, reach and question them.",
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


@app.command("setup")
def set_up_device(
    device: DeviceArgument = None,
    again: Annotated[
        bool, typer.Option("--again", help="Make it anew even if nothing is wrong with it.")
    ] = False,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Make a virtual board, virtual:arm64 or virtual:vm, ready for use.

    It takes Debian packages and wheels from the network, checks them by their hashes, and
    keeps the board in the cache. The first command that uses a virtual board does the same.
    """
    out = Output("devices-setup", fmt)
    settings = device_settings(inventory)
    found = find_device(settings, device)
    if found.url.scheme != "virtual":
        raise InputError(
            f"cannot set up {found.name!r}: it is no virtual board",
            hint="`edgesdk devices setup virtual:arm64` makes one; other devices need nothing "
            "but an agent (`edgesdk agent install`)",
            device=found.name,
        )
    with progress_bars() as on_progress:
        board = set_up(found, on_progress=on_progress, again=again)
    out.document(
        {
            "device": found.name,
            "made": board.made,
            "seconds": board.seconds,
            "folder": board.folder.path,
            "home": board.folder.default_home,
            "size_bytes": board.size_bytes,
            "versions": board.versions,
        }
    )
    took = f"made in {board.seconds:.0f} s" if board.made else "was ready"
    out.line(f"{found.name} {took}: {size_text(board.size_bytes)} in {board.folder.path}")
    out.pairs(sorted(board.versions.items()))


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
