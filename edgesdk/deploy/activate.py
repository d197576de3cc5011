"""The last step of a deployment: a proven bundle becomes current, on probation."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgesdk.deploy.finish import finished_notes
from edgesdk.deploy.probation import read_probation
from edgesdk.deploy.push import BlobSource
from edgesdk.deploy.trust import Vouched
from edgesdk.deploy.values import Deployment, FinishedPart, PushResult, SelfCheck
from edgesdk.devices.inventory import Device
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import ProtocolError
from edgesdk.progress import OnProgress, Progress, ignore_progress

__all__ = ["Proven", "Standing", "activate_bundle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a release has to keep to.

    Attributes:
        max_latency_s: What an inference may take on the device, in its latency probe: before
            the release becomes current, and on probation. None lets the device hold it to what
            the current release of the same model and precision takes.
        probation_s: How long it must serve before the device stops being ready to return from
            it; 0 for no probation, None for the device's own default.
    """

    max_latency_s: float | None = None
    probation_s: float | None = None

    def asks(self) -> dict[str, float]:
        """Give the fields of a request that say so."""
        asked: dict[str, float] = {}
        if self.max_latency_s is not None:
            asked["max_latency_us"] = self.max_latency_s * 1e6
        if self.probation_s is not None:
            asked["probation_s"] = self.probation_s
        return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A bundle that a device holds and whose check vectors passed there, not yet active.

    ``mismatch`` is as in the receipt; ``seconds`` is what it took so far.
    """

    bundle: BlobSource
    target: str | None
    mismatch: tuple[str, ...]
    started: str
    seconds: float
    pushed: PushResult
    self_check: SelfCheck
    finished: tuple[FinishedPart, ...]
    vouched: Vouched | None = None


def activate_bundle(
    session: Session,
    proven: Proven,
    *,
    device: Device,
    standing: Standing | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Deployment:
    """Make a proven bundle current; what was current becomes previous.

    Raises:
        DeviceError: The device refuses, or no longer holds the bundle.
        FindingsError: Its latency probe took too long.
        ProtocolError: It made something else current.
        LinkError: The link broke; the device has the old release or this one, whole.
    """
    begun_s = time.monotonic()
    bundle = proven.bundle
    asks = {"bundle": bundle.id, **(standing or Standing()).asks()}
    meta = session.request("activate", asks).meta
    slots = meta.get("slots")
    current, previous = _bundle_in(slots, "current"), _bundle_in(slots, "previous")
    if current != bundle.id:
        raise ProtocolError(
            f"cannot activate the bundle on {session.device_name}: it says that "
            f"{current or 'nothing'} is current (expected {bundle.id})"
        )
    probation = read_probation(meta)
    on_progress(Progress(step="activate", done=1, total=1))
    return Deployment(
        bundle_id=bundle.id,
        device=device.name,
        device_url=str(device.url),
        agent_version=session.hello.agent_version,
        agent_sha256=session.hello.agent_sha256,
        path=device.url.scheme,
        target=proven.target,
        target_mismatch=proven.mismatch,
        started=proven.started,
        seconds=round(proven.seconds + time.monotonic() - begun_s, 3),
        blobs_sent=proven.pushed.blobs_sent,
        bytes_sent=proven.pushed.bytes_sent,
        bytes_skipped=proven.pushed.bytes_skipped,
        noise_bytes=session.noise_bytes,
        slot="current",
        previous=previous,
        self_check=proven.self_check,
        finished=proven.finished,
        outcome="active" if probation is None else "on-probation",
        probation=probation,
        deltas=proven.pushed.deltas,
        signer=None if proven.vouched is None else proven.vouched.signer,
        notes=(*session.notes, *finished_notes(proven.finished)),
    )


def _bundle_in(slots: object, slot: str) -> str | None:
    record = slots.get(slot) if isinstance(slots, dict) else None
    bundle = record.get("bundle") if isinstance(record, dict) else None
    return clean_text(bundle, limit=64) if isinstance(bundle, str) else None
