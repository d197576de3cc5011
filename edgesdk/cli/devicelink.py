"""From what the user typed to a session: settings, inventory, connection."""

from __future__ import annotations

import getpass
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.cli.output import printable
from edgesdk.cli.progress import clear_bars, progress_bars
from edgesdk.errors import DeviceError, InputError
from edgesdk.settings import Settings, resolve_settings
from edgesdk.wire import codes

if TYPE_CHECKING:
    from edgesdk.deploy.releases import Release
    from edgesdk.deploy.values import Probation
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.progress import OnProgress
    from edgesdk.testing.boards import VirtualBoard
    from edgesdk.transport.base import OnPassword

__all__ = [
    "device_settings",
    "find_device",
    "find_release",
    "note_wait",
    "open_session",
    "probation_text",
    "release_label",
    "set_up",
    "short_id",
]


_BUSY_POLL_S = 1.0


def find_device(settings: Settings, text: str | None) -> Device:
    """Find the device that ``text`` names, or the usual one of the settings.

    Raises:
        InventoryError: No such device, not a device URL, or the inventory cannot be read.
    """
    from edgesdk.devices.inventory import resolve_device

    device = resolve_device(text or settings.device, inventory=inventory_file(settings))
    url = device.url
    if url.scheme != "ssh" or "client" in url.query or settings.ssh_client == "auto":
        return device
    query = {**url.query, "client": settings.ssh_client}
    return replace(device, url=replace(url, query=query))


def inventory_file(settings: Settings) -> Path | None:
    """Give the inventory to read: None where nobody named one and none is there."""
    if settings.origins["inventory"] == "default" and not settings.inventory.exists():
        return None
    return settings.inventory


@contextmanager
def open_session(
    settings: Settings, device: Device, *, wait_s: float = 0.0
) -> Iterator[Session]:
    """Hold a conversation with ``device`` while the block runs.

    Where no daemon runs there, a device talks to one host at a time; ``wait_s`` is how long to
    wait for another one to be done.
    """
    with progress_bars() as on_progress:
        if device.url.scheme == "virtual":
            set_up(device, on_progress=on_progress)
        session = _connect(settings, device, on_progress, wait_s=wait_s)
    with session:
        for note in session.notes:
            sys.stderr.write(f"note: {printable(note)}\n")
        yield session


def _connect(
    settings: Settings, device: Device, on_progress: OnProgress, *, wait_s: float
) -> Session:
    from edgesdk.devices.connect import connect

    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            return connect(
                device,
                timeout_s=settings.connect_timeout_s,
                on_progress=on_progress,
                on_password=password_asker(settings, on_progress),
            )
        except DeviceError as exc:
            if exc.facts.get("code") != codes.BUSY or time.monotonic() >= deadline:
                raise
            if not told:
                note_wait(str(exc))
            told = True
        time.sleep(_BUSY_POLL_S)


def note_wait(why: str) -> None:
    """Say on stderr for whom a command waits."""
    sys.stderr.write(f"note: waiting: {printable(why)}\n")


def set_up(device: Device, *, on_progress: OnProgress, again: bool = False) -> VirtualBoard:
    """Make the virtual board that ``device`` is, unless it is there, saying so on stderr.

    Raises:
        BootstrapError: It cannot be made.
    """
    from edgesdk.testing.boards import set_up_board

    def note(text: str) -> None:
        sys.stderr.write(f"note: {printable(text)}\n")

    return set_up_board(device.url.path, again=again, on_progress=on_progress, on_note=note)


def password_asker(
    settings: Settings, on_progress: OnProgress, *, console: bool = False
) -> OnPassword:
    """Give what answers a request for a password: the setting, else the user at a terminal.

    The prompt needs the screen for itself, so bars of ``on_progress`` go first. A console's
    setting is given once: the same again would lock an account.
    """
    given = [settings.console_password if console else settings.ssh_password]

    def ask_password(prompt: str) -> str | None:
        secret = given[0]
        if secret is not None:
            if console:
                given[0] = None
            return secret
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


def probation_text(state: Probation | None, device: str) -> str | None:
    """Say in a line how a probation stands; None where there is none."""
    if state is None:
        return None
    back = f"{short_id(state.return_to)} is current again"
    failed = f"; {state.failures} of {state.max_failures} failures"
    failed += f", at last: {state.last_failure}" if state.last_failure else ""
    if not state.watched:
        return (
            f"no daemon watches; after {state.max_failures} failed uses {back}"
            f"{failed if state.failures else ''}; "
            f"`edgesdk confirm {shlex.quote(device)}` ends it"
        )
    return (
        f"served {_minutes(state.served_s)} of {_minutes(state.wanted_s)}; should it fail, "
        f"{back}{failed if state.failures else ''}"
    )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def release_label(slot: object) -> str:
    """Say in a line what a slot holds."""
    if not isinstance(slot, dict):
        return "nothing"
    label = f"{slot.get('name', '?')} {slot.get('precision', '')}".rstrip()
    target = f" for {slot['target']}" if slot.get("target") else ""
    since = f", since {slot['since']}" if slot.get("since") else ""
    verified = "verified" if slot.get("verified") else "not verified"
    return f"{label}{target} ({short_id(slot.get('bundle'))}, {verified}{since})"
