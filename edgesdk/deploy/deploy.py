"""The deployment: identify, stage, send, commit, check, activate; and what else releases need.

Nothing that runs on the device changes before the very last step, which is one rename there. Up
to then any failure, here or there, leaves the active release as it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgesdk.deploy.check import read_self_check, why_not_passed
from edgesdk.deploy.push import BlobSource, MissingBlob, push_blobs, read_missing
from edgesdk.deploy.values import Deployment, SelfCheck
from edgesdk.devices.facts import read_facts
from edgesdk.devices.hints import runtime_hint
from edgesdk.devices.inventory import Device
from edgesdk.devices.session import OnEvent, Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import (
    DeviceError,
    ProtocolError,
    RuntimeMissing,
    SelfCheckError,
    SpaceError,
    TargetMismatch,
)
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire import codes
from edgesdk.wire.manifest import canonical_bytes, deployed_blobs

if TYPE_CHECKING:
    from edgesdk.profiles.values import TargetProfile

__all__ = ["deploy_bundle"]

_CHECK_TIMEOUT_S = 600.0


def deploy_bundle(
    bundle: BlobSource,
    session: Session,
    *,
    device: Device,
    profile: TargetProfile | None = None,
    force_target: bool = False,
    force_check: bool = False,
    check_timeout_s: float = _CHECK_TIMEOUT_S,
    on_progress: OnProgress = ignore_progress,
) -> Deployment:
    """Bring ``bundle`` to the device behind ``session``, prove it there and make it current.

    Args:
        bundle: What to deploy, as `edgesdk.bundle.read_bundle` gives it.
        session: An open session with the device.
        device: How that device is called and reached, for the receipt.
        profile: The target the bundle was built for; the device must be one. None asks nothing.
        force_target: Go on where the device is another; the receipt says so.
        force_check: Run the check vectors although they have passed on this device before.
        check_timeout_s: How long the check vectors may take on the device.
        on_progress: Told of every step.

    Raises:
        TargetMismatch: The device is not what ``profile`` describes; nothing was sent.
        RuntimeMissing: The device lacks a runtime; the hint has the command that installs it.
        SelfCheckError: Check vectors give other numbers there; the release is not active.
        SpaceError: No room.
        LinkError: The link broke; the next deployment goes on where this one ended.
    """
    begun_s, started = time.monotonic(), datetime.now(UTC)
    mismatch = _identify(session, profile, force=force_target, on_progress=on_progress)
    wanted = dict(deployed_blobs(dict(bundle.manifest)))
    missing = _stage(session, bundle, wanted)
    if missing:  # else it was pushed before, and its check is about to tell
        _require_runtimes(session, bundle)
    pushed = push_blobs(session, bundle, missing, on_progress=on_progress)
    damaged = _commit(session, bundle)
    if damaged:  # the device has hashed what it held and thrown this away: once more
        missing = _stage(session, bundle, wanted)
        more = push_blobs(session, bundle, missing, on_progress=on_progress)
        pushed = replace(
            more,
            blobs_sent=pushed.blobs_sent + more.blobs_sent,
            bytes_sent=pushed.bytes_sent + more.bytes_sent,
        )
        session.request("commit", {"bundle": bundle.id})
    check = _check(
        session, bundle, timeout_s=check_timeout_s, force=force_check, on_progress=on_progress
    )
    slots = session.request("activate", {"bundle": bundle.id}).meta.get("slots")
    current, previous = _bundle_in(slots, "current"), _bundle_in(slots, "previous")
    if current != bundle.id:
        raise ProtocolError(
            f"cannot activate the bundle on {session.device_name}: it says that "
            f"{current or 'nothing'} is current (expected {bundle.id})"
        )
    on_progress(Progress(step="activate", done=1, total=1))
    sent = {blob.sha256 for blob in missing}
    there = sum(size for sha256, size in wanted.items() if sha256 not in sent)
    return Deployment(
        bundle_id=bundle.id,
        device=device.name,
        device_url=str(device.url),
        agent_version=session.hello.agent_version,
        agent_sha256=session.hello.agent_sha256,
        path=device.url.scheme,
        target=profile.name if profile is not None else None,
        target_mismatch=mismatch,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun_s, 3),
        blobs_sent=pushed.blobs_sent,
        bytes_sent=pushed.bytes_sent,
        bytes_skipped=pushed.bytes_skipped + there,
        noise_bytes=session.noise_bytes,
        slot="current",
        previous=previous,
        self_check=check,
        notes=session.notes,
    )


def _bundle_in(slots: object, slot: str) -> str | None:
    record = slots.get(slot) if isinstance(slots, dict) else None
    bundle = record.get("bundle") if isinstance(record, dict) else None
    return clean_text(bundle, limit=64) if isinstance(bundle, str) else None


def _identify(
    session: Session,
    profile: TargetProfile | None,
    *,
    force: bool,
    on_progress: OnProgress,
) -> tuple[str, ...]:
    on_progress(Progress(step="identify", done=0, total=1))
    reasons: tuple[str, ...] = ()
    if profile is not None:
        from edgesdk.profiles.identify import why_not_target

        reasons = why_not_target(profile, read_facts(session))
        if reasons and not force:
            raise TargetMismatch(
                f"cannot deploy to {session.device_name}: it is no {profile.name}: "
                + "; ".join(reasons),
                hint="build for the target it is, or pass --force-target",
                device=session.device_name,
                target=profile.name,
                reasons=list(reasons),
            )
    on_progress(Progress(step="identify", done=1, total=1))
    return reasons


def _stage(
    session: Session, bundle: BlobSource, wanted: Mapping[str, int]
) -> tuple[MissingBlob, ...]:
    """Send the manifest and give the missing blobs.

    Where the link likes small pieces, the device is first asked whether it knows the bundle.
    """
    data = canonical_bytes(dict(bundle.manifest))
    piece_bytes = session.chunk_bytes
    meta: Mapping[str, Any]
    if len(data) <= piece_bytes:
        meta = session.request("stage", {"bundle": bundle.id}, data).meta
    else:
        meta = _stage_in_pieces(session, bundle.id, data, piece_bytes)
    missing = read_missing(meta, wanted)
    needed, free = meta.get("needed_bytes"), meta.get("free_bytes")
    if isinstance(needed, int) and isinstance(free, int) and needed > free:
        raise SpaceError(
            f"cannot deploy to {session.device_name}: the bundle needs {needed} bytes more, "
            f"{free} are free",
            hint="`edgesdk gc` removes releases that are not in a slot",
            needed_bytes=needed,
            free_bytes=free,
        )
    return missing


def _stage_in_pieces(
    session: Session, bundle_id: str, data: bytes, piece_bytes: int
) -> Mapping[str, Any]:
    try:
        return session.request("stage", {"bundle": bundle_id}).meta
    except DeviceError as exc:
        if exc.facts.get("code") != codes.NOT_FOUND:
            raise
    meta: Mapping[str, Any] = {}
    for offset in range(0, len(data), piece_bytes):
        asks = {"bundle": bundle_id, "offset": offset, "bytes": len(data)}
        meta = session.request("stage", asks, data[offset : offset + piece_bytes]).meta
    return meta


def _commit(session: Session, bundle: BlobSource) -> bool:
    """Commit; say whether the device refused because blobs that it held turned out damaged."""
    try:
        session.request("commit", {"bundle": bundle.id})
    except DeviceError as exc:
        if exc.facts.get("code") == codes.NOT_FOUND and exc.facts.get("missing"):
            return True
        raise
    return False


def _require_runtimes(session: Session, bundle: BlobSource) -> None:
    """Refuse when the device says outright that it lacks a runtime of the bundle.

    An agent that does not know how to look for the named ones only is left to its check.
    """
    try:
        facts = read_facts(
            session, runtimes={part["runtime"] for part in bundle.manifest["parts"]}
        )
    except ProtocolError as exc:
        if exc.facts.get("code") != codes.BAD_REQUEST:
            raise
        return
    known = facts.get("runtimes")
    for part in bundle.manifest["parts"]:
        probed = known.get(part["runtime"]) if isinstance(known, dict) else None
        if isinstance(probed, dict) and probed.get("version") is None and probed.get("why"):
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


def _relay(on_progress: OnProgress) -> OnEvent:
    """Turn an agent's progress events into ours."""

    def relay(event: Mapping[str, Any]) -> None:
        done, total = event.get("done"), event.get("total")
        if event.get("event") == "progress" and isinstance(done, int):
            on_progress(
                Progress(
                    step=clean_text(event.get("step", "work"), limit=60),
                    done=done,
                    total=total if isinstance(total, int) else None,
                )
            )

    return relay


def _check(
    session: Session,
    bundle: BlobSource,
    *,
    timeout_s: float,
    force: bool,
    on_progress: OnProgress,
) -> SelfCheck:
    on_progress(Progress(step="check", done=0, total=1))
    frame = session.request(
        "check",
        {"bundle": bundle.id, "timeout_s": timeout_s, "force": force},
        timeout_s=timeout_s + session.channel.traits.silence_s,
        on_event=_relay(on_progress),
    )
    check = read_self_check(frame, bundle)
    if not check.passed:
        raise SelfCheckError(
            f"cannot activate the bundle on {session.device_name}: "
            f"{why_not_passed(check)}; the active release is unchanged",
            hint="the device computes this model differently: try another precision or "
            "backend, or a runtime version nearer to the one it was built with",
            device=session.device_name,
            bundle=bundle.id,
            self_check=check.to_json(),
        )
    on_progress(Progress(step="check", done=1, total=1))
    return check
