"""Parts that are finished on the device, between commit and check: what came of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgesdk.deploy.push import BlobSource
from edgesdk.deploy.values import FinishedPart, SelfCheck
from edgesdk.devices.refusals import refusal_error
from edgesdk.devices.session import OnEvent, Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import DeviceError, ProtocolError
from edgesdk.wire import codes
from edgesdk.wire.ops import FINISHED_RUNTIMES

__all__ = ["FINISH_TIMEOUT_S", "finish_parts", "finished_notes", "with_serving"]

#: Building an engine of a large model takes many minutes on a small device.
FINISH_TIMEOUT_S = 1800.0
_OUTCOMES = ("built", "cached", "failed")


def finish_parts(
    session: Session, bundle: BlobSource, *, timeout_s: float, on_event: OnEvent
) -> tuple[FinishedPart, ...]:
    """Have the device finish the parts that need it.

    What serves on the device goes on serving meanwhile. A part that cannot be finished and has
    fallbacks is an outcome; an older agent's parts are left to their fallbacks too.

    Raises:
        DeviceError: A part without fallbacks cannot be finished.
        ProtocolError: The answer makes no sense.
    """
    wanted = {
        index: part
        for index, part in enumerate(bundle.manifest["parts"])
        if part["runtime"] in FINISHED_RUNTIMES
    }
    if not wanted:
        return ()
    try:
        meta = session.request(
            "finish",
            {"bundle": bundle.id, "timeout_s": timeout_s},
            timeout_s=timeout_s + session.channel.traits.silence_s,
            on_event=on_event,
        ).meta
    except (DeviceError, ProtocolError) as exc:
        if exc.facts.get("code") != codes.UNKNOWN_OP:
            raise
        why = (
            "the agent there is older than this operation; `edgesdk agent install` replaces it"
        )
        return tuple(
            FinishedPart(part=index, backend=part["backend"], outcome="unknown", why=why)
            for index, part in wanted.items()
        )
    found = _read(meta.get("parts"), wanted)
    for part, record in found:
        if part.outcome == "failed" and not wanted[part.part].get("fallbacks"):
            detail = f"part {part.part} for {part.backend}: {part.why}"
            meta = {"code": record.get("code"), "detail": detail, "facts": {}}
            raise refusal_error("finish", meta, device_name=session.device_name)
    return tuple(part for part, _ in found)


def _read(
    records: object, wanted: Mapping[int, Mapping[str, Any]]
) -> list[tuple[FinishedPart, Mapping[str, Any]]]:
    found: list[tuple[FinishedPart, Mapping[str, Any]]] = []
    for record in records if isinstance(records, list) else []:
        if not isinstance(record, dict) or record.get("outcome") not in _OUTCOMES:
            continue
        index = record.get("part")
        if type(index) is not int or index not in wanted:
            continue
        fingerprint, builder = record.get("fingerprint"), record.get("builder")
        part = FinishedPart(
            part=index,
            backend=wanted[index]["backend"],
            outcome=record["outcome"],
            fingerprint=_text(fingerprint, 100) or None,
            seconds=_seconds(record.get("seconds")),
            builder=_text(builder, 100) or None,
            instead_of=_text(record.get("instead_of"), 500),
            why=_text(record.get("why"), 800),
        )
        found.append((part, record))
    if sorted(part.part for part, _ in found) != sorted(wanted):
        raise ProtocolError(
            f"cannot read what came of finishing parts: {len(found)} of {len(wanted)} were "
            "answered",
            hint="replace the agent there with `edgesdk agent install` and deploy again",
        )
    return found


def _text(value: object, limit: int) -> str:
    return clean_text(value, limit=limit) if isinstance(value, str) else ""


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def with_serving(
    finished: Sequence[FinishedPart], check: SelfCheck
) -> tuple[FinishedPart, ...]:
    """Add which backend ran each part in the self-check."""
    served = {used.part: used.backend for used in check.runtimes}
    return tuple(replace(part, served_by=served.get(part.part)) for part in finished)


def finished_notes(finished: Sequence[FinishedPart]) -> tuple[str, ...]:
    """Say in a line each what a person should know."""
    notes = []
    for part in finished:
        serving = part.served_by or "a fallback"
        if part.outcome in ("failed", "unknown"):
            notes.append(
                f"part {part.part} is not finished for {part.backend}, {serving} serves it: "
                f"{part.why}"
            )
        elif part.served_by is not None and part.served_by != part.backend:
            notes.append(
                f"part {part.part} was finished for {part.backend}, and {serving} serves it"
            )
        elif part.outcome == "built":
            took = "" if part.seconds is None else f" in {part.seconds:.1f} s"
            note = f"part {part.part} was finished on the device{took}"
            note += f" by {part.builder}" if part.builder else ""
            notes.append(note + (f" ({part.instead_of})" if part.instead_of else ""))
    return tuple(notes)
