"""From what the user typed to a session: settings, inventory, connection."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.cli.output import printable
from edgesdk.cli.progress import clear_bars, progress_bars
from edgesdk.errors import InputError
from edgesdk.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from edgesdk.deploy.releases import Release
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.progress import OnProgress
    from edgesdk.transport.base import OnPassword

__all__ = [
    "device_settings",
    "find_device",
    "find_release",
    "open_session",
    "release_label",
    "short_id",
]


def find_device(settings: Settings, text: str | None) -> Device:
    """Find the device that ``text`` names, or the usual one of the settings.

    Raises:
        InventoryError: No such device, not a device URL, or the inventory cannot be read.
    """
    from edgesdk.devices.inventory import resolve_device

    return resolve_device(text or settings.device, inventory=inventory_file(settings))


def inventory_file(settings: Settings) -> Path | None:
    """Give the inventory to read: None where nobody named one and none is there."""
    if settings.origins["inventory"] == "default" and not settings.inventory.exists():
        return None
    return settings.inventory


@contextmanager
def open_session(settings: Settings, device: Device) -> Iterator[Session]:
    """Hold a conversation with ``device`` while the block runs."""
    from edgesdk.devices.connect import connect

    with progress_bars() as on_progress:
        session = connect(
            device,
            timeout_s=settings.connect_timeout_s,
            on_progress=on_progress,
            on_password=password_asker(settings, on_progress),
        )
    with session:
        for note in session.notes:
            sys.stderr.write(f"note: {printable(note)}\n")
        yield session


def password_asker(settings: Settings, on_progress: OnProgress) -> OnPassword:
    """Give what answers a request for a password: the setting, else the user at a terminal.

    The prompt needs the screen for itself, so bars of ``on_progress`` go first.
    """

    def ask_password(prompt: str) -> str | None:
        if settings.ssh_password is not None:
            return settings.ssh_password
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return None
        clear_bars(on_progress)
        try:
            return getpass.getpass(f"{printable(prompt)}: ", stream=sys.stderr) or None
        except (KeyboardInterrupt, EOFError):
            sys.stderr.write("\n")  # what follows begins a line of its own
            raise KeyboardInterrupt from None

    return ask_password


def find_release(session: Session, wanted: str) -> Release:
    """Find a release on the device by slot, id, or the beginning of an id.

    Raises:
        InputError: None is called that.
    """
    from edgesdk.deploy.releases import list_releases

    listed = list_releases(session)
    for each in listed:
        if wanted in (each.slot, each.bundle):
            return each
    near = [each for each in listed if len(wanted) >= 6 and each.bundle.startswith(wanted)]
    if len(near) == 1:
        return near[0]
    there = ", ".join(f"{each.slot or '-'} {short_id(each.bundle)}" for each in listed)
    raise InputError(
        f"cannot find release {wanted!r} on {session.device_name}: it has {there or 'none'}",
        hint="edgesdk releases lists them; edgesdk deploy puts one there",
        release=wanted,
    )


def device_settings(inventory: Path | None = None) -> Settings:
    """Resolve the settings of a command that only talks to devices."""
    return resolve_settings({"inventory": inventory})


def short_id(bundle: object) -> str:
    """Shorten a bundle id for people."""
    return str(bundle)[:12]


def release_label(slot: object) -> str:
    """Say in a line what a slot holds."""
    if not isinstance(slot, dict):
        return "nothing"
    label = f"{slot.get('name', '?')} {slot.get('precision', '')}".rstrip()
    target = f" for {slot['target']}" if slot.get("target") else ""
    since = f", since {slot['since']}" if slot.get("since") else ""
    verified = "verified" if slot.get("verified") else "not verified"
    return f"{label}{target} ({short_id(slot.get('bundle'))}, {verified}{since})"
