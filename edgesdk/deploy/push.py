"""Send blobs to a device: many chunks under way, resumed from what the device holds.

Chunks of all missing blobs form one stream over the session. A link loses nothing, but a device
may: then it answers that a chunk leaves a gap, and the blob goes back to what it has. A chunk
sent twice does no harm, the device ignores bytes it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgesdk.deploy.lanes import Lanes, ask_for_lanes
from edgesdk.deploy.squeeze import Squeeze
from edgesdk.deploy.underway import InFlight, Lane
from edgesdk.deploy.uploads import MissingBlob, Upload
from edgesdk.deploy.values import PushResult
from edgesdk.devices.refusals import refusal_error
from edgesdk.devices.session import Session
from edgesdk.errors import BundleError, DeviceError, LinkError, ProtocolError
from edgesdk.progress import OnProgress, Progress, RateMeter, ignore_progress
from edgesdk.wire import codes

__all__ = ["BlobSource", "MissingBlob", "push_blobs", "read_missing"]

#: How long a lane without work waits before it looks again.
_LOOK_S = 0.2
#: A blob that goes back so often without one byte more is never going to arrive.
_MAX_STALLS = 500


class BlobSource(Protocol):
    """What is deployed: a bundle, or anything that has its manifest and blobs."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The manifest, see `edgesdk.wire.manifest`."""

    @property
    def id(self) -> str:
        """The SHA-256 of the canonical manifest."""

    def blob_path(self, sha256: str) -> Path:
        """The file with the bytes of a blob."""


def read_missing(meta: Mapping[str, Any], wanted: Mapping[str, int]) -> tuple[MissingBlob, ...]:
    """Read the device's list of missing blobs; ``wanted`` has the size of each in the bundle.

    Raises:
        ProtocolError: The device asks for something that is not in the bundle.
    """
    missing = meta.get("missing")
    found: dict[str, MissingBlob] = {}
    for record in missing if isinstance(missing, list) else [None]:
        sha256 = record.get("sha256") if isinstance(record, dict) else None
        have = record.get("have", 0) if isinstance(record, dict) else None
        if not isinstance(sha256, str) or sha256 not in wanted or type(have) is not int:
            raise ProtocolError(
                "cannot send the bundle: the device's list of missing blobs makes no sense"
            )
        size = wanted[sha256]
        found[sha256] = MissingBlob(sha256=sha256, bytes=size, have=min(max(have, 0), size))
    return tuple(found.values())


class _Push:
    """The state of one push. Lanes work on it from threads of their own, under `_changed`."""

    def __init__(
        self, session: Session, uploads: Sequence[Upload], on_progress: OnProgress
    ) -> None:
        self._session = session
        self._uploads = uploads
        self._on_progress = on_progress
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._total = sum(upload.blob.bytes - upload.blob.have for upload in uploads)
        self._first = 0
        self._got = 0
        self._squeeze = Squeeze(always=session.channel.traits.compress)
        self._meter, self._wire_meter = RateMeter(), RateMeter(span_s=2.0)
        self._wire_bytes = 0
        self._lanes: Lanes | None = None
        self._ahead_bytes = 0  # more than 0 once there is a second lane
        self.bytes_sent = 0

    def run(self) -> None:
        self._report()
        offer = ask_for_lanes(self._session, self._total)
        if offer is not None:

            def carry(session: Session) -> None:
                self._carry_beside(session, offer.ahead_bytes)

            self._lanes = Lanes(self._session, offer, carry)
        try:
            self._session.start_waiting()
            self._carry(Lane(self._session))
            self._report()
        finally:
            with self._changed:
                self._failure = self._failure or ProtocolError("the push is over")
            if self._lanes is not None:
                self._lanes.close()
            for upload in self._uploads:
                upload.close()

    # one lane

    def _carry(self, lane: Lane) -> None:
        """Send chunks and take answers until every blob is there."""
        while True:
            with self._changed:
                if self._failure is not None:
                    raise self._failure
                if self._finished():
                    return
                taken = self._take_chunk(lane)
            if taken is not None:
                self._send(lane, *taken)
                self._take_replies(lane, wait_s=0.0)
            elif lane.in_flight:
                self._take_replies(lane, wait_s=lane.patience_s)
            else:
                self._wait_for_others(lane)

    def _carry_beside(self, session: Session, ahead_bytes: int) -> None:
        """Carry on a further lane; what is under way when it breaks goes over the others."""
        lane = Lane(session)
        with self._changed:
            self._ahead_bytes = ahead_bytes
        try:
            self._carry(lane)
        except LinkError:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised by the thread that pushes
            with self._changed:
                self._failure = self._failure or exc
        finally:
            with self._changed:
                for request_id in list(lane.in_flight):
                    flight = lane.forget(request_id)
                    if flight.epoch == flight.upload.epoch and not flight.upload.done:
                        flight.upload.send_again(flight.start, flight.end)
                self._changed.notify_all()

    def _wait_for_others(self, lane: Lane) -> None:
        """Let the other lanes go on; alone, find out what the device has not."""
        with self._changed:
            if any(upload.flying for upload in self._uploads[self._first :]):
                self._changed.wait(_LOOK_S)
                lane.session.start_waiting()
                return
            if self._finished():
                return
            upload = self._uploads[self._first]
            if upload.have < upload.blob.bytes:
                self._go_back(upload, upload.have)
                upload.in_doubt = True
                return
        raise ProtocolError(
            f"cannot send the bundle to {self._session.device_name}: it has every "
            "byte of a blob and does not say that it is done"
        )

    def _finished(self) -> bool:
        while self._first < len(self._uploads) and self._uploads[self._first].done:
            if not self._uploads[self._first].flying:  # else another lane may be reading it
                self._uploads[self._first].close()
            self._first += 1
        return self._first == len(self._uploads)

    def _take_chunk(self, lane: Lane) -> tuple[Upload, int, int, int] | None:
        """Choose what goes next; None when nothing does, or the window is full."""
        if not lane.has_room():
            return None
        open_uploads = self._uploads[self._first :]
        limit = lane.chunk_bytes
        upload = next((u for u in open_uploads if u.has_old_chunk()), None)
        if upload is None:
            upload = next((u for u in open_uploads if u.has_chunk()), None)
            if upload is None or (self._ahead_bytes and not self._may_run_ahead(limit)):
                return None
        offset, size = upload.take(limit)
        upload.flying += 1
        self.bytes_sent += size
        return upload, upload.epoch, offset, size

    def _may_run_ahead(self, more_bytes: int) -> bool:
        ahead = 0
        for upload in self._uploads[self._first :]:
            if not upload.touched:
                break
            ahead += upload.ahead_bytes
        return ahead + more_bytes <= self._ahead_bytes

    def _send(self, lane: Lane, upload: Upload, epoch: int, offset: int, size: int) -> None:
        meta = {"sha256": upload.blob.sha256, "bytes": upload.blob.bytes, "offset": offset}
        if self._ahead_bytes and not upload.in_doubt:
            meta["ahead"] = True
        upload.in_doubt = False
        end = offset + size
        try:
            request_id, wire_bytes = self._post(lane.session, upload, meta, offset, size)
        except BaseException:
            with self._changed:  # it goes over another lane, if there is one
                upload.flying -= 1
                if epoch == upload.epoch and not upload.done:
                    upload.send_again(offset, end)
            raise
        with self._changed:
            lane.note(
                request_id,
                InFlight(
                    upload=upload, start=offset, end=end, wire_bytes=wire_bytes, epoch=epoch
                ),
            )

    def _post(
        self, session: Session, upload: Upload, meta: dict[str, Any], offset: int, size: int
    ) -> tuple[int, int]:
        """Send a chunk in the way that costs least; gives its request's id and wire bytes."""
        rate = self._wire_meter.per_s()
        chunk = None
        if self._squeeze.considers(rate):
            chunk = upload.read(offset, size)
            packed = self._squeeze.pack(chunk, rate)
            if packed is not None:
                meta["raw_bytes"] = size
                return session.post("put", meta, packed), len(packed)
        if not session.takes_files:
            return session.post("put", meta, chunk or upload.read(offset, size)), size
        descriptor = upload.descriptor(offset, size)
        try:
            return session.post_file("put", meta, descriptor, offset, size), size
        except OSError as exc:
            raise upload.unreadable(exc) from exc

    def _take_replies(self, lane: Lane, *, wait_s: float) -> None:
        """Take every answer that is there; wait for the first at most ``wait_s``."""
        frame = lane.session.next_reply(timeout_s=wait_s)
        if frame is None and wait_s > 0:
            lane.session.give_up_on_silence("put")
        while frame is not None:
            with self._changed:
                self._take(lane, frame.meta)
                self._changed.notify_all()
            if lane.session is self._session:
                self._report()
                self._consider_lanes()
            frame = lane.session.next_reply(timeout_s=0.0)

    def _consider_lanes(self) -> None:
        if self._lanes is not None:
            self._lanes.consider(
                sent_bytes=self._wire_bytes, left_bytes=self._total - self._got
            )

    def _take(self, lane: Lane, meta: Mapping[str, Any]) -> None:
        request_id = meta.get("id")
        if not isinstance(request_id, int) or request_id not in lane.in_flight:
            return  # answers something else
        flight = lane.forget(request_id)
        upload = flight.upload
        if meta.get("ok") is True:
            have = meta.get("have")
            if type(have) is not int or not 0 <= have <= upload.blob.bytes:
                raise ProtocolError(
                    f"cannot send a blob to {self._session.device_name}: it says it has "
                    f"{have!r} of {upload.blob.bytes} bytes"[:300]
                )
            if have > upload.have:
                self._got += have - upload.have
                upload.have, upload.stalls = have, 0
            self._wire_bytes += flight.wire_bytes
            self._wire_meter.note(self._wire_bytes)
            upload.done = upload.done or meta.get("done") is True
            return
        facts = meta.get("facts")
        have = facts.get("have") if isinstance(facts, dict) else None
        if meta.get("code") == codes.GAP and type(have) is int:
            if flight.epoch == upload.epoch and not upload.done:
                self._go_back(upload, min(max(have, 0), upload.blob.bytes))
            return
        if meta.get("code") == codes.BAD_HASH:
            if flight.epoch == upload.epoch:
                self._start_over(upload)
            return
        raise refusal_error("put", meta, device_name=self._session.device_name)

    def _start_over(self, upload: Upload) -> None:
        """Send a blob from its beginning, once: an earlier push may have left damage."""
        if not upload.intact():
            raise BundleError(
                f"cannot send blob {upload.blob.sha256}: its file does not hash to its name",
                hint="build the bundle again, or fetch a good copy of it",
                path=str(upload.path),
            )
        if upload.restarted:
            raise DeviceError(
                f"cannot send blob {upload.blob.sha256} to {self._session.device_name}: it "
                "arrives damaged, twice (the file here is intact)",
                hint="the storage or the memory of the device is bad",
                device=self._session.device_name,
            )
        upload.restarted = True
        self._got -= upload.have
        upload.go_back(0)

    def _go_back(self, upload: Upload, have: int) -> None:
        upload.stalls += 1
        if upload.stalls > _MAX_STALLS:
            raise ProtocolError(
                f"cannot send a blob to {self._session.device_name}: it was sent "
                f"{_MAX_STALLS} times from byte {have}, and not one more was taken",
                hint="is the agent broken? replace it with `edgesdk agent install`",
                device=self._session.device_name,
            )
        self._got += have - upload.have
        upload.go_back(have)

    def _report(self) -> None:
        got = min(max(0, self._got), self._total)
        self._meter.note(got)
        self._on_progress(
            Progress(
                step="push",
                done=got,
                total=self._total,
                unit="B",
                rate_per_s=self._meter.per_s(),
            )
        )


def push_blobs(
    session: Session,
    source: BlobSource,
    missing: Sequence[MissingBlob],
    *,
    on_progress: OnProgress = ignore_progress,
) -> PushResult:
    """Send every missing blob over one stream; returns when the device has checked them all.

    Interrupted at any point, the device keeps what it has and the next push goes on from there.

    Raises:
        LinkError: The link broke.
        BundleError: A blob's file is gone, short or altered.
        DeviceError: The device refuses, for want of room for instance.
    """
    uploads = [Upload(blob, source.blob_path(blob.sha256)) for blob in missing]
    push = _Push(session, uploads, on_progress)
    if uploads:
        push.run()
    return PushResult(
        blobs_sent=sum(upload.touched for upload in uploads),
        bytes_sent=push.bytes_sent,
        bytes_skipped=sum(blob.have for blob in missing),
    )
