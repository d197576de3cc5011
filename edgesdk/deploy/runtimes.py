"""Does the device have the runtimes that a bundle needs? Asked before anything is sent."""

from __future__ import annotations

from edgesdk.deploy.push import BlobSource
from edgesdk.devices.facts import read_facts
from edgesdk.devices.hints import runtime_hint
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError, RuntimeMissing
from edgesdk.wire import codes

__all__ = ["require_runtimes"]


def require_runtimes(session: Session, bundle: BlobSource) -> None:
    """Refuse when the device says outright that it lacks a runtime, and those of fallbacks.

    An agent that does not know how to look for the named ones only is left to its check.

    Raises:
        RuntimeMissing: It lacks one that nothing can stand in for; the hint says how to get it.
    """
    ways = [
        way for part in bundle.manifest["parts"] for way in (part, *part.get("fallbacks", []))
    ]
    try:
        facts = read_facts(session, runtimes={way["runtime"] for way in ways})
    except ProtocolError as exc:
        if exc.facts.get("code") != codes.BAD_REQUEST:
            raise
        return
    known = facts.get("runtimes")
    for part in bundle.manifest["parts"]:
        probed = known.get(part["runtime"]) if isinstance(known, dict) else None
        others = {way["runtime"] for way in part.get("fallbacks", [])}
        if any(not _is_missing(known, runtime) for runtime in others):
            continue
        if isinstance(probed, dict) and _is_missing(known, part["runtime"]):
            raise RuntimeMissing(
                f"cannot deploy to {session.device_name}: it has no {part['runtime']}: "
                f"{clean_text(probed['why'], limit=500)}",
                hint=runtime_hint(
                    part["runtime"],
                    python=str(facts.get("worker_python_version") or facts.get("python", "")),
                    machine=str(facts.get("machine", "")),
                    executable=str(facts.get("worker_python") or ""),
                ),
                device=session.device_name,
                runtime=part["runtime"],
            )


def _is_missing(known: object, runtime: str) -> bool:
    """Say whether a device has said outright that it lacks a runtime."""
    probed = known.get(runtime) if isinstance(known, dict) else None
    return (
        isinstance(probed, dict) and probed.get("version") is None and bool(probed.get("why"))
    )
