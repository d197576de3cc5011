"""What a device says of itself, cleaned for showing: facts, status, logs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text, clean_value
from edgesdk.errors import ProtocolError

__all__ = ["read_facts", "read_logs", "read_status"]

_STATUS = (
    *("agent", "slots", "probation", "returned", "holder"),
    *("store_bytes", "worker", "serving"),
)


def read_facts(session: Session, *, runtimes: bool | Collection[str] = False) -> dict[str, Any]:
    """Ask what the device is: machine, system, interpreter, accelerators.

    Args:
        session: The device.
        runtimes: Load runtimes there too, to learn their versions: those named, or with True
            all that the agent knows; each takes a device a second or more.

    Raises:
        LinkError: The link broke, or the answer makes no sense.
    """
    timeout_s = 300.0 if runtimes else 30.0
    wanted = runtimes if isinstance(runtimes, bool) else sorted(set(runtimes))
    answer = session.request("facts", {"runtimes": wanted}, timeout_s=timeout_s)
    facts = clean_value(answer.meta.get("facts"))
    if not isinstance(facts, dict):
        raise ProtocolError(f"cannot read the facts of {session.device_name}: it sent none")
    return facts


def read_status(session: Session) -> dict[str, Any]:
    """Ask for the agent, the slots, the probation, who holds the device, and the workers.

    Raises:
        LinkError: The link broke, or the answer makes no sense.
    """
    status = clean_value(session.request("status").meta)
    assert isinstance(status, dict)
    return {key: status.get(key) for key in _STATUS}


def read_logs(session: Session, *, lines: int = 100) -> tuple[str, ...]:
    """Ask for the last lines of the agent's log.

    Raises:
        LinkError: The link broke, or the answer makes no sense.
    """
    got = session.request("logs", {"lines": lines}).meta.get("lines")
    if not isinstance(got, list):
        raise ProtocolError(f"cannot read the logs of {session.device_name}: it sent none")
    return tuple(clean_text(line, limit=2000).replace("\n", " ") for line in got[:lines])
