"""What is on a device: list, roll back, collect, and run a release once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text, clean_value
from edgesdk.errors import DataError, ProtocolError
from edgesdk.tensors import pack_tensors, unpack_tensors
from edgesdk.wire.limits import MAX_TENSOR_BYTES

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Collected",
    "Release",
    "RunTiming",
    "collect_garbage",
    "list_releases",
    "remove_release",
    "rollback",
    "run_on_device",
]


#: More than any store holds.
_WHATEVER_BYTES = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release on a device.

    ``slot`` is None for one that only takes room. ``state`` is a word or two where there is
    more to say of it: on probation, taken back, or what the device would return to.
    """

    bundle: str
    name: str
    precision: str
    target: str
    slot: str | None
    since: str | None
    bytes: int
    checked: bool
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What garbage collection removed and kept, as bundle ids."""

    removed: tuple[str, ...]
    freed_bytes: int
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTiming:
    """How long one inference took in the runtime, all parts together and each alone."""

    run_ms: float
    parts_ms: tuple[float, ...]


def _text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    return clean_text(value, limit=200) if isinstance(value, str) else None


def list_releases(session: Session) -> tuple[Release, ...]:
    """List every release on the device, in the order it gives.

    Raises:
        LinkError: The link broke, or the answer makes no sense.
    """
    records = session.request("releases").meta.get("releases")
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ProtocolError(
            f"cannot list the releases on {session.device_name}: it sent no list"
        )
    return tuple(
        Release(
            bundle=_text(record, "bundle") or "",
            name=_text(record, "name") or "",
            precision=_text(record, "precision") or "",
            target=_text(record, "target") or "",
            slot=_text(record, "slot"),
            since=_text(record, "since"),
            bytes=record["bytes"] if isinstance(record.get("bytes"), int) else 0,
            checked=record.get("checked") is True,
            state=_text(record, "state") or "",
        )
        for record in records
    )


def rollback(session: Session, *, why: str = "") -> dict[str, Any]:
    """Make the previous release current again; gives the slots after that.

    Args:
        session: The device.
        why: For the device's log, and for who looks at it next.

    Raises:
        DeviceError: There is no previous release.
    """
    asks = {"why": why} if why else {}
    slots = clean_value(session.request("rollback", asks).meta.get("slots"))
    if not isinstance(slots, dict):
        raise ProtocolError(f"cannot roll back {session.device_name}: it sent no slots")
    return slots


def collect_garbage(session: Session, *, budget_bytes: int | None = None) -> Collected:
    """Remove releases that are in no slot, oldest first.

    Args:
        session: The device.
        budget_bytes: Keep as many as fit into this; None removes them all.

    Raises:
        LinkError: The link broke.
    """
    asks = {} if budget_bytes is None else {"budget_bytes": budget_bytes}
    meta = session.request("gc", asks, timeout_s=300.0).meta

    def ids(key: str) -> tuple[str, ...]:
        value = meta.get(key)
        return tuple(clean_text(i, limit=64) for i in value) if isinstance(value, list) else ()

    freed = meta.get("freed_bytes")
    return Collected(
        removed=ids("removed"),
        freed_bytes=freed if isinstance(freed, int) else 0,
        kept=ids("kept"),
    )


def remove_release(session: Session, bundle: str) -> bool:
    """Remove one release that is neither current nor previous; say whether it was there.

    Raises:
        DeviceError: It is in use.
        LinkError: The link broke.
    """
    # an agent that does not know `bundle` keeps to the budget, and so removes nothing
    asks = {"bundle": bundle, "budget_bytes": _WHATEVER_BYTES}
    removed = session.request("gc", asks, timeout_s=300.0).meta.get("removed")
    return isinstance(removed, list) and bundle in removed


def run_on_device(
    session: Session,
    release: str,
    arrays: Mapping[str, np.ndarray],
    *,
    timeout_s: float = 60.0,
) -> tuple[dict[str, np.ndarray], RunTiming]:
    """Run one inference on the device.

    Args:
        session: The device.
        release: A slot (``current``, ``previous``, ``candidate``) or a bundle id.
        arrays: The inputs by name, shaped as the bundle's manifest says.
        timeout_s: How long the inference may take there.

    Raises:
        DataError: The inputs do not fit the model, or are too large to send.
        WorkerError: The runtime failed or the worker died.
    """
    try:
        specs, body = pack_tensors(arrays)
    except TypeError as exc:
        raise DataError(f"cannot run the model on {session.device_name}: {exc}") from exc
    if len(body) > MAX_TENSOR_BYTES:
        raise DataError(
            f"cannot run the model on {session.device_name}: the inputs have {len(body)} bytes "
            f"(at most {MAX_TENSOR_BYTES})"
        )
    frame = session.request(
        "run",
        {"release": release, "tensors": specs, "timeout_s": timeout_s},
        body,
        timeout_s=timeout_s + session.channel.traits.silence_s,
    )
    outputs = unpack_tensors(frame.meta.get("tensors") or [], frame.body)
    parts = frame.meta.get("parts")
    return outputs, RunTiming(
        run_ms=_milliseconds(frame.meta.get("run_ms")),
        parts_ms=tuple(
            _milliseconds(part.get("run_ms"))
            for part in (parts if isinstance(parts, list) else [])
            if isinstance(part, dict)
        ),
    )


def _milliseconds(value: object) -> float:
    return float(value) if isinstance(value, int | float) and value >= 0 else 0.0
