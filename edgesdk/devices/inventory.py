"""Which devices there are: a YAML file of names, and device URLs given directly.

::

    devices:
      bench-3:
        url: ssh://pi@10.0.0.7
        target: raspberry-pi-5      # optional: what it must prove to be
        python: /usr/bin/python3.9  # optional: the interpreter that has the runtime
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import InventoryError
from edgesdk.near import near_misses, suggest
from edgesdk.transport.url import SCHEMES, DeviceUrl, parse_device_url
from edgesdk.yaml_file import read_yaml

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["Device", "load_inventory", "resolve_device"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_OPTIONS = ("key", "state", "python", "client", "baud", "rtscts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One unit with an address; ``target`` is the profile it is meant to be, if any."""

    name: str
    url: DeviceUrl
    target: str | None = None
    notes: str = ""


def _problem(path: Path, exc: ValidationError) -> InventoryError:
    # a misspelt key also leaves the right one missing: the misspelling explains both
    found = exc.errors(include_url=False)
    first = min(found, key=lambda error: error["type"] != "extra_forbidden")
    place = [str(step) for step in first["loc"]]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        allowed = (
            (*_OPTIONS, "url", "target", "notes") if len(place) > 1 else ("devices", "schema")
        )
        hint = suggest(place[-1], allowed) or f"known keys: {', '.join(allowed)}"
        seen = f"unknown key {where}"
    else:
        seen, hint = f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}", ""
    return InventoryError(f"cannot use inventory {path}: {seen}", hint=hint, path=str(path))


def load_inventory(path: Path) -> dict[str, Device]:
    """Read an inventory file: devices by name, sorted.

    Raises:
        InventoryError: It cannot be read, has an unknown key, or a device in it has no usable
        URL.
    """
    from pydantic import BaseModel, ConfigDict, Field, ValidationError

    class Entry(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        url: str
        target: str | None = None
        notes: str = ""
        key: str | None = None
        state: str | None = None
        python: str | None = None
        client: str | None = None
        baud: int | None = None
        rtscts: bool | None = None

    class Document(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        file_schema: int = Field(default=1, alias="schema", ge=1, le=1)
        devices: dict[str, Entry]

    document = read_yaml(
        path,
        what="inventory",
        error=InventoryError,
        hint="name another with --inventory, or give a device URL such as local:",
        expected="`devices:` at the top",
    )
    try:
        read = Document.model_validate(document)
    except ValidationError as exc:
        raise _problem(path, exc) from exc
    return {
        name: _device(path, name, read.devices[name].model_dump(exclude_none=True))
        for name in sorted(read.devices)
    }


def _device(path: Path, name: str, entry: Mapping[str, object]) -> Device:
    if not _NAME.match(name) or name.lower() in SCHEMES:
        raise InventoryError(
            f"cannot use inventory {path}: {name!r} is no device name",
            hint="use letters, digits, dots and dashes; a scheme such as local is no name",
            path=str(path),
        )
    try:
        url = parse_device_url(str(entry["url"]))
        extra = {
            key: str(int(value) if isinstance(value, bool) else value)
            for key in _OPTIONS
            if (value := entry.get(key)) is not None
        }
        if extra:
            query = {**url.query, **extra}
            # parsed again, so that one place decides which options are sound
            url = parse_device_url(str(replace(url, query=query)))
    except InventoryError as exc:
        raise InventoryError(
            f"cannot use inventory {path}: device {name}: {exc}", hint=exc.hint, **exc.facts
        ) from exc
    target, notes = entry.get("target"), entry.get("notes")
    return Device(
        name=name,
        url=url,
        target=str(target) if target is not None else None,
        notes=str(notes or ""),
    )


def resolve_device(text: str, *, inventory: Path | None = None) -> Device:
    """Give the device that ``text`` stands for: a URL, or a name from the inventory.

    Args:
        text: What the user typed.
        inventory: The inventory file; None when there is none.

    Raises:
        InventoryError: Neither a usable URL nor a known name; near misses are suggested.
    """
    if ":" in text:
        url = parse_device_url(text)
        return Device(name=str(url), url=url)
    known = load_inventory(inventory) if inventory is not None else {}
    if text in known:
        return known[text]
    if inventory is None:
        hint = "there is no inventory file; give a URL such as local: or ssh://user@host"
        if text in SCHEMES:
            hint = f"did you mean {text}:{'' if text == 'local' else '//...'}?"
    else:
        near = near_misses(text, list(known))
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"{inventory} has {', '.join(known) or 'none'}"
        )
    raise InventoryError(
        f"cannot find device {text!r}: it is neither a device URL nor a name in the inventory",
        hint=hint,
        device=text,
    )
