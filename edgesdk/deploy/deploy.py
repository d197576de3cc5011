"""The deployment: identify, stage, send, commit, finish, check, activate.

Nothing that runs on the device changes before the very last step, which is one rename there. Up
to then any failure, here or there, leaves the active release as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgesdk.deploy.activate import Proven, Standing, activate_bundle
from edgesdk.deploy.check import read_self_check, why_not_passed
from edgesdk.deploy.finish import FINISH_TIMEOUT_S, finish_parts, with_serving
from edgesdk.deploy.hold import hold_device
from edgesdk.deploy.push import BlobSource, MissingBlob, push_blobs, read_missing
from edgesdk.deploy.runtimes import require_runtimes
from edgesdk.deploy.trust import vouch_for_bundle
from edgesdk.deploy.values import Deployment, SelfCheck
from edgesdk.devices.facts import read_facts
from edgesdk.devices.inventory import Device
from edgesdk.devices.session import OnEvent, Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import (
    DeviceError,
    SelfCheckError,
    SpaceError,
    TargetMismatch,
)
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire import codes
from edgesdk.wire.manifest import canonical_bytes, deployed_blobs

if TYPE_CHECKING:
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.profiles.values import TargetProfile

__all__ = ["deploy_bundle", "prove_bundle"]

_CHECK_TIMEOUT_S = 600.0
#: Longer manifests are sent only to a device that does not know the bundle.
_ASK_FIRST_BYTES = 1024


def deploy_bundle(
    bundle: BlobSource,
    session: Session,
    *,
    device: Device,
    profile: TargetProfile | None = None,
    force_target: bool = False,
    force_check: bool = False,
    check_timeout_s: float = _CHECK_TIMEOUT_S,
    finish_timeout_s: float = FINISH_TIMEOUT_S,
    bases: Bases | None = None,
    standing: Standing | None = None,
    approve: Callable[[], None] | None = None,
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
        finish_timeout_s: How long parts may take that are finished there, such as engines.
        bases: Blobs on this computer, so that a delta is sent against what the device holds
            where that is shorter; the bundle's are kept there. None sends blobs whole.
        standing: What it has to keep to, before it is current and on probation.
        approve: Called once the check has passed and before the bundle becomes current; what
            it raises ends the deployment, and the active release stays as it was.
        on_progress: Told of every step.

    Raises:
        ProfileError: No agent runs on what ``profile`` describes; nothing was asked or sent.
        TargetMismatch: The device is not what ``profile`` describes; nothing was sent.
        RuntimeMissing: The device lacks a runtime; the hint has the command that installs it.
        SelfCheckError: Check vectors give other numbers there; the release is not active.
        TrustError: The device demands a signature, and there is none that counts.
        FindingsError: An inference takes too long there; the release is not active.
        SpaceError: No room.
        DeviceError: Another host holds the device.
        LinkError: The link broke; the next deployment goes on where this one ended.
    """
    with hold_device(session, doing="deploy"):
        proven = prove_bundle(
            bundle,
            session,
            profile=profile,
            force_target=force_target,
            force_check=force_check,
            check_timeout_s=check_timeout_s,
            finish_timeout_s=finish_timeout_s,
            bases=bases,
            standing=standing,
            on_progress=on_progress,
        )
        if approve is not None:
            approve()
        return activate_bundle(
            session, proven, device=device, standing=standing, on_progress=on_progress
        )


def prove_bundle(
    bundle: BlobSource,
    session: Session,
    *,
    profile: TargetProfile | None = None,
    force_target: bool = False,
    force_check: bool = False,
    check_timeout_s: float = _CHECK_TIMEOUT_S,
    finish_timeout_s: float = FINISH_TIMEOUT_S,
    bases: Bases | None = None,
    standing: Standing | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Proven:
    """Do all of a deployment but its last step: the release that was active stays so.

    Arguments and errors are those of `deploy_bundle`. Several bundles may be proven one after
    the other, and any of them made active with `activate_bundle`.
    """
    if profile is not None:
        from edgesdk.profiles.identify import require_agent

        require_agent(profile)
    begun_s, started = time.monotonic(), datetime.now(UTC)
    mismatch = _identify(session, profile, force=force_target, on_progress=on_progress)
    vouched = vouch_for_bundle(session, bundle)
    wanted = dict(deployed_blobs(dict(bundle.manifest)))
    missing = _stage(session, bundle, wanted)
    if missing:  # else it was pushed before, and its check is about to tell
        require_runtimes(session, bundle)
    if bases is None or not missing:
        pushed = push_blobs(session, bundle, missing, on_progress=on_progress)
    else:
        from edgesdk.deploy.delta import push_with_deltas

        pushed = push_with_deltas(session, bundle, missing, bases, on_progress=on_progress)
    sent = {blob.sha256 for blob in missing}
    damaged = _commit(session, bundle)
    if damaged:  # the device has hashed what it held and thrown this away: once more
        missing = _stage(session, bundle, wanted)
        more = push_blobs(session, bundle, missing, on_progress=on_progress)
        pushed = replace(
            pushed,
            blobs_sent=pushed.blobs_sent + more.blobs_sent,
            bytes_sent=pushed.bytes_sent + more.bytes_sent,
            bytes_skipped=pushed.bytes_skipped + more.bytes_skipped,
        )
        sent |= {blob.sha256 for blob in missing}
        session.request("commit", {"bundle": bundle.id})
    if bases is not None:
        bases.keep(bundle)
    finished = finish_parts(
        session, bundle, timeout_s=finish_timeout_s, on_event=_relay(on_progress)
    )
    check = _check(
        session,
        bundle,
        standing=standing or Standing(),
        timeout_s=check_timeout_s,
        force=force_check,
        on_progress=on_progress,
    )
    there = sum(size for sha256, size in wanted.items() if sha256 not in sent)
    return Proven(
        bundle=bundle,
        target=profile.name if profile is not None else None,
        mismatch=mismatch,
        started=started.isoformat(timespec="seconds"),
        seconds=time.monotonic() - begun_s,
        pushed=replace(pushed, bytes_skipped=pushed.bytes_skipped + there),
        self_check=check,
        finished=with_serving(finished, check),
        vouched=vouched,
    )


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

    Unless the manifest is small, the device is first asked whether it knows the bundle.
    """
    data = canonical_bytes(dict(bundle.manifest))
    piece_bytes = session.chunk_bytes
    meta: Mapping[str, Any]
    if len(data) <= min(piece_bytes, _ASK_FIRST_BYTES):
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
    standing: Standing,
    timeout_s: float,
    force: bool,
    on_progress: OnProgress,
) -> SelfCheck:
    on_progress(Progress(step="check", done=0, total=1))
    asks = {key: us for key, us in standing.asks().items() if key == "max_latency_us"}
    frame = session.request(
        "check",
        {**asks, "bundle": bundle.id, "timeout_s": timeout_s, "force": force},
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
