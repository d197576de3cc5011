"""Send blobs to a device: many chunks under way, resumed from what the device holds.

Chunks of all missing blobs form one stream over the session. Answers come in order, and a link
never reorders, so an answer to a later chunk proves that an earlier one without answer was
lost: its blob goes back to what the device says it has. What was under way behind it goes
again, so a link that loses chunks gets smaller ones, and fewer at a time, until they arrive. A
chunk sent twice does no harm, the device ignores bytes it holds. On a link that loses nothing
the same code never goes back.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from edgesdk.deploy.values import PushResult
from edgesdk.devices.refusals import refusal_error
from edgesdk.devices.session import Session
from edgesdk.errors import BundleError, DeviceError, ProtocolError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire import codes

__all__ = ["BlobSource", "MissingBlob", "push_blobs", "read_missing"]

_ZLIB_LEVEL = 6
_HASH_PIECE_BYTES = 1 << 20
#: Below this the fields of a chunk weigh more than its bytes.
_SMALLEST_CHUNK_BYTES = 512
_FEWEST_CHUNKS = 4
#: So many chunks in a row must arrive before they grow again.
_GROW_AFTER = 48
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingBlob:
    """A blob that the device lacks, and how many of its bytes it has from an earlier push."""

    sha256: str
    bytes: int
    have: int


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


class _Upload:
    """One blob on its way. ``epoch`` rises each time it goes back, to know older refusals."""

    def __init__(self, blob: MissingBlob, path: Path) -> None:
        self.blob = blob
        self.path = path
        self.have = blob.have
        self.next = blob.have
        self.epoch = 0
        self.done = False
        self.restarted = False
        self.stalls = 0
        self.touched = False
        self._ended = False  # whether the last chunk of this epoch is out
        self._file: BinaryIO | None = None

    def has_chunk(self) -> bool:
        return not self.done and not self._ended

    def take(self, limit: int) -> tuple[int, bytes]:
        """Give the next chunk and its offset."""
        offset = self.next
        try:
            if self._file is None:
                self._file = self.path.open("rb")
            self._file.seek(offset)
            chunk = self._file.read(min(limit, self.blob.bytes - offset))
        except OSError as exc:
            raise BundleError(
                f"cannot read blob {self.blob.sha256}: {exc.strerror}", path=str(self.path)
            ) from exc
        if not chunk and offset < self.blob.bytes:
            raise BundleError(
                f"cannot send blob {self.blob.sha256}: its file has {offset} bytes "
                f"(expected {self.blob.bytes})",
                hint="build the bundle again, or fetch a good copy of it",
                path=str(self.path),
            )
        self.next += len(chunk)
        self._ended = self.next >= self.blob.bytes
        self.touched = True
        return offset, chunk

    def go_back(self, have: int) -> None:
        self.have = self.next = have
        self.epoch += 1
        self._ended = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def intact(self) -> bool:
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while piece := file.read(_HASH_PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest() == self.blob.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class _InFlight:
    upload: _Upload
    end: int
    size: int
    epoch: int


class _Pace:
    """How large the next chunk is, and how many bytes may be under way."""

    def __init__(self, *, chunk_bytes: int, window_bytes: int) -> None:
        self._full_bytes = chunk_bytes
        self._window_bytes = window_bytes
        self._good = 0
        self.chunk_bytes = chunk_bytes

    @property
    def window_bytes(self) -> int:
        """The window shrinks with the chunks, to no fewer than a few of them."""
        if self.chunk_bytes == self._full_bytes:
            return self._window_bytes
        scaled = self._window_bytes * self.chunk_bytes // self._full_bytes
        return max(_FEWEST_CHUNKS * self.chunk_bytes, scaled // 2)

    def arrived(self) -> None:
        """Note a chunk that came through."""
        self._good += 1
        if self._good >= _GROW_AFTER:
            self._good = 0
            self.chunk_bytes = min(self._full_bytes, 2 * self.chunk_bytes)

    def lost(self) -> None:
        """Note that something got lost."""
        self._good = 0
        if self.chunk_bytes > _SMALLEST_CHUNK_BYTES:
            self.chunk_bytes = max(_SMALLEST_CHUNK_BYTES, self.chunk_bytes // 2)


class _Push:
    def __init__(
        self, session: Session, uploads: Sequence[_Upload], on_progress: OnProgress
    ) -> None:
        self._session = session
        self._uploads = uploads
        self._on_progress = on_progress
        self._in_flight: dict[int, _InFlight] = {}
        self._in_flight_bytes = 0
        self._total = sum(upload.blob.bytes - upload.blob.have for upload in uploads)
        self._first = 0
        self._pace = _Pace(
            chunk_bytes=session.chunk_bytes, window_bytes=session.channel.traits.window_bytes
        )
        self.bytes_sent = 0

    def run(self) -> None:
        self._report()
        self._session.start_waiting()
        try:
            while not self._finished():
                if self._send_one():
                    self._take_replies(wait_s=0.0)
                elif self._in_flight:
                    self._take_replies(wait_s=self._patience_s())
                else:
                    raise ProtocolError(
                        f"cannot send the bundle to {self._session.device_name}: it has every "
                        "byte of a blob and does not say that it is done"
                    )
        finally:
            for upload in self._uploads:
                upload.close()

    def _finished(self) -> bool:
        while self._first < len(self._uploads) and self._uploads[self._first].done:
            self._uploads[self._first].close()
            self._first += 1
        return self._first == len(self._uploads)

    def _patience_s(self) -> float:
        traits = self._session.channel.traits
        return traits.repeat_s if traits.lossy else traits.silence_s

    def _send_one(self) -> bool:
        """Send the next chunk if the window has room for it; say whether it went."""
        upload = next((u for u in self._uploads[self._first :] if u.has_chunk()), None)
        if upload is None:
            return False
        traits = self._session.channel.traits
        chunk_bytes = self._pace.chunk_bytes
        if self._in_flight and self._in_flight_bytes + chunk_bytes > self._pace.window_bytes:
            return False
        offset, chunk = upload.take(chunk_bytes)
        meta = {"sha256": upload.blob.sha256, "bytes": upload.blob.bytes, "offset": offset}
        body = chunk
        if traits.compress:
            packed = zlib.compress(chunk, _ZLIB_LEVEL)
            if len(packed) < len(chunk):
                meta["raw_bytes"] = len(chunk)
                body = packed
        request_id = self._session.post("put", meta, body)
        self._in_flight[request_id] = _InFlight(
            upload=upload, end=upload.next, size=len(chunk), epoch=upload.epoch
        )
        self._in_flight_bytes += len(chunk)
        self.bytes_sent += len(chunk)
        return True

    def _take_replies(self, *, wait_s: float) -> None:
        """Take every answer that is there; wait for the first at most ``wait_s``."""
        frame = self._session.next_reply(timeout_s=wait_s)
        if frame is None and wait_s > 0:
            self._session.give_up_on_silence("put")
            if self._session.channel.traits.lossy and self._session.silent_s() >= wait_s:
                self._lose(list(self._in_flight))
        while frame is not None:
            self._take(frame.meta)
            frame = self._session.next_reply(timeout_s=0.0)

    def _take(self, meta: Mapping[str, Any]) -> None:
        request_id = meta.get("id")
        if not isinstance(request_id, int) or request_id not in self._in_flight:
            return  # late: that chunk was given up and sent again
        flight = self._forget(request_id)
        earlier = [known for known in self._in_flight if known < request_id]
        upload = flight.upload
        if meta.get("ok") is True:
            have = meta.get("have")
            if type(have) is not int or not 0 <= have <= upload.blob.bytes:
                raise ProtocolError(
                    f"cannot send a blob to {self._session.device_name}: it says it has "
                    f"{have!r} of {upload.blob.bytes} bytes"[:300]
                )
            if have > upload.have:
                upload.have, upload.stalls = have, 0
            self._pace.arrived()
            upload.done = upload.done or meta.get("done") is True
            self._lose(earlier)
            self._report()
            return
        self._lose(earlier)
        facts = meta.get("facts")
        have = facts.get("have") if isinstance(facts, dict) else None
        if meta.get("code") == codes.GAP and type(have) is int:
            if flight.epoch == upload.epoch and not upload.done:
                self._go_back(upload, min(max(have, 0), upload.blob.bytes))
            return
        if meta.get("code") == codes.BAD_HASH:
            self._start_over(upload)
            return
        raise refusal_error("put", meta, device_name=self._session.device_name)

    def _start_over(self, upload: _Upload) -> None:
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
        upload.go_back(0)

    def _forget(self, request_id: int) -> _InFlight:
        flight = self._in_flight.pop(request_id)
        self._in_flight_bytes -= flight.size
        return flight

    def _lose(self, request_ids: Iterable[int]) -> None:
        """Take chunks, or the answers to them, as lost on the way."""
        for request_id in request_ids:
            flight = self._forget(request_id)
            upload = flight.upload
            # where `have` covers it only an answer was lost; but the last one says whether it
            # is done
            missed = flight.end > upload.have or flight.end == upload.blob.bytes
            if missed and flight.epoch == upload.epoch and not upload.done:
                self._go_back(upload, upload.have)

    def _go_back(self, upload: _Upload, have: int) -> None:
        upload.stalls += 1
        if upload.stalls > _MAX_STALLS:
            raise ProtocolError(
                f"cannot send a blob to {self._session.device_name}: it was sent "
                f"{_MAX_STALLS} times from byte {have}, and not one more was taken",
                hint="is the line far too noisy, or the agent broken?",
                device=self._session.device_name,
            )
        upload.go_back(have)
        if self._session.channel.traits.lossy:
            self._pace.lost()

    def _report(self) -> None:
        got = sum(max(0, upload.have - upload.blob.have) for upload in self._uploads)
        self._on_progress(Progress(step="push", done=got, total=self._total, unit="B"))


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
    uploads = [_Upload(blob, source.blob_path(blob.sha256)) for blob in missing]
    push = _Push(session, uploads, on_progress)
    if uploads:
        push.run()
    return PushResult(
        blobs_sent=sum(upload.touched for upload in uploads),
        bytes_sent=push.bytes_sent,
        bytes_skipped=sum(blob.have for blob in missing),
    )
