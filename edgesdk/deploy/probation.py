"""What a device says of a release on probation, and waiting for how that ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgesdk.deploy.values import Probation, Returned
from edgesdk.devices.facts import read_status
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError, RolledBackError
from edgesdk.progress import OnProgress, Progress, ignore_progress

__all__ = [
    "confirm_release",
    "read_probation",
    "read_returns",
    "require_current",
    "watch_probation",
]

_POLL_S = 2.0


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if math.isfinite(value) and value >= 0 else 0.0


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def read_probation(meta: Mapping[str, Any]) -> Probation | None:
    """Read the ``probation`` of an answer; None where the current release is on none."""
    record = meta.get("probation")
    if not isinstance(record, dict):
        return None
    return Probation(
        bundle=clean_text(record.get("bundle"), limit=64),
        return_to=clean_text(record.get("return_to"), limit=64),
        served_s=_seconds(record.get("served_s")),
        wanted_s=_seconds(record.get("wanted_s")),
        failures=_count(record.get("failures")),
        max_failures=_count(record.get("max_failures")),
        last_failure=clean_text(record.get("last_failure", ""), limit=500),
        watched=record.get("watched") is True,
    )


def read_returns(meta: Mapping[str, Any]) -> tuple[Returned, ...]:
    """Read the releases that were taken back, the last one last."""
    records = meta.get("returned")
    return tuple(
        Returned(
            bundle=clean_text(record.get("bundle"), limit=64),
            to=clean_text(record.get("to"), limit=64),
            why=clean_text(record.get("why", ""), limit=500),
            by=clean_text(record.get("by", ""), limit=20),
            since=clean_text(record.get("since", ""), limit=40),
        )
        for record in (records[-32:] if isinstance(records, list) else [])
        if isinstance(record, dict)
    )


def confirm_release(session: Session, bundle: str | None = None) -> bool:
    """End the probation of the current release well; say whether there was one.

    Args:
        session: The device.
        bundle: Refuse where something else is current.

    Raises:
        DeviceError: Nothing is current, or another release is.
    """
    asks = {} if bundle is None else {"bundle": bundle}
    return session.request("confirm", asks).meta.get("ended") is True


def require_current(session: Session, bundle: str) -> Probation | None:
    """See that ``bundle`` is current; give its probation, if that is under way.

    Raises:
        RolledBackError: The device has taken it back by itself.
        DeviceError: Something else is current.
    """
    meta = read_status(session)
    slots = meta.get("slots")
    record = slots.get("current") if isinstance(slots, dict) else None
    current = record.get("bundle") if isinstance(record, dict) else None
    if current == bundle:
        return read_probation(meta)
    for gone in reversed(read_returns(meta)):
        if gone.bundle == bundle and gone.by == "device":
            raise RolledBackError(
                f"cannot keep release {bundle[:12]} on {session.device_name}: the device went "
                f"back to {gone.to[:12]} by itself: {gone.why}",
                hint="it is not tried again by itself; `edgesdk devices logs` shows what "
                "happened",
                device=session.device_name,
                bundle=bundle,
                returned_to=gone.to,
                why=gone.why,
            )
    raise ProtocolError(
        f"cannot keep release {bundle[:12]} on {session.device_name}: "
        f"{str(current)[:12] if current else 'nothing'} is current",
        hint="somebody else has deployed meanwhile: edgesdk status shows what",
        device=session.device_name,
        bundle=bundle,
    )


def watch_probation(
    session: Session,
    bundle: str,
    *,
    on_progress: OnProgress = ignore_progress,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stay until the probation of ``bundle`` has ended well.

    Raises:
        RolledBackError: It ended badly.
        DeviceError: Nobody watches there, so it would not end, or something else is current.
        LinkError: The link broke; the device goes on by itself.
    """
    while True:
        state = require_current(session, bundle)
        if state is None:
            return
        if not state.watched:
            raise ProtocolError(
                f"cannot watch the probation on {session.device_name}: no daemon runs there, "
                "so nobody counts the time",
                hint="`edgesdk confirm` ends it; `edgesdk agent install` sets up a daemon",
                device=session.device_name,
            )
        on_progress(
            Progress(
                step="probation", done=int(state.served_s), total=max(1, int(state.wanted_s))
            )
        )
        left_s = state.wanted_s - state.served_s
        sleep(min(_POLL_S, max(0.2, left_s)))
