"""Send a delta instead of a blob, where the device holds something that is like it.

What it holds is asked for; the bytes of that are looked for on this computer, and where they
are gone the device gives checksums of its blocks. On a link that is known to be slow all of
this is tried. On any other nothing is known of its speed, so a look that takes milliseconds has
to promise something before time is spent, and the search is held to what a push would take. A
delta that is refused, for whatever reason, costs a full push and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import mmap
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgesdk.deploy.delta_bases import SMALLEST_BYTES, Bases
from edgesdk.deploy.delta_blocks import (
    BlockIndex,
    block_likeness,
    match_blocks,
    plan_blocks,
    read_blocks,
)
from edgesdk.deploy.delta_encode import encode_delta
from edgesdk.deploy.delta_match import align
from edgesdk.deploy.delta_pieces import Bytes, Piece, likeness
from edgesdk.deploy.push import BlobSource, MissingBlob, push_blobs
from edgesdk.deploy.values import PushResult, SentDelta
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text
from edgesdk.errors import DeviceError, ProtocolError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire import codes
from edgesdk.wire.delta import read_header
from edgesdk.wire.manifest import is_sha256

__all__ = ["push_with_deltas"]

#: Larger blobs are sent whole: search and device would take long for one mistake.
_LARGEST_BYTES = 4 << 30
_MOST_BASES = 3
_MOST_HELD = 2048
#: Less in common is not worth a search where the link may be fast.
_PROMISING = 0.2
#: A delta has to save this much: it is bytes against certainty.
_WORTH = 0.95
#: Searching may take a small share of a push over a slow link; over one that may be fast, where
#: a look has promised much, what a push at this rate would take.
_SLOW_BYTES_PER_S = 250_000
_SHARE = 0.05
_FAST_BYTES_PER_S = 5_000_000
_ASSEMBLE_TIMEOUT_S = 3600.0
_SAMPLES = 12
_SAMPLE_BYTES = 1 << 14
#: With these the device says that it cannot use a delta; anything else is an error.
_NO_DELTA = (
    codes.BAD_DELTA,
    codes.BAD_HASH,
    codes.BAD_REQUEST,
    codes.NOT_FOUND,
    codes.NO_SPACE,
    codes.UNKNOWN_OP,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """A blob on the device, and a release that has it."""

    sha256: str
    bytes: int
    bundle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """A delta that was made, and what the device sent for it."""

    data: bytes
    index_bytes: int


def push_with_deltas(
    session: Session,
    source: BlobSource,
    missing: Sequence[MissingBlob],
    bases: Bases,
    *,
    on_progress: OnProgress = ignore_progress,
) -> PushResult:
    """Get every missing blob to the device: by deltas where that pays, whole otherwise.

    Args:
        session: The device.
        source: What is deployed; its manifest is staged there.
        missing: What the device lacks.
        bases: Where blobs that it holds are found on this computer.
        on_progress: Told of every blob.

    Raises:
        LinkError: The link broke.
        BundleError: A blob's file is gone, short or altered.
        DeviceError: The device refuses.
    """
    worth = [blob for blob in missing if blob.bytes - blob.have >= SMALLEST_BYTES]
    held = _ask_held(session) if worth else ()
    courier = _Courier(session, source, bases, held, on_progress)
    rest: list[MissingBlob] = []
    sent: list[SentDelta] = []
    for number, blob in enumerate(missing):
        on_progress(Progress(step="compare", done=number, total=len(missing)))
        outcome = courier.deliver(blob) if held and blob in worth else blob
        if isinstance(outcome, MissingBlob):
            rest.append(outcome)
        else:
            sent.append(outcome)
    on_progress(Progress(step="compare", done=len(missing), total=len(missing)))
    pushed = push_blobs(session, source, rest, on_progress=on_progress)
    sent_bytes = sum(delta.sent_bytes for delta in sent)
    return PushResult(
        blobs_sent=pushed.blobs_sent + len(sent),
        bytes_sent=pushed.bytes_sent + sent_bytes,
        bytes_skipped=pushed.bytes_skipped + sum(delta.bytes for delta in sent) - sent_bytes,
        deltas=tuple(sent),
    )


def _ask_held(session: Session) -> tuple[_Held, ...]:
    try:
        releases = session.request("held").meta.get("releases")
    except ProtocolError as exc:
        if exc.facts.get("code") == codes.UNKNOWN_OP:
            return ()
        raise
    found: dict[str, _Held] = {}
    for release in releases if isinstance(releases, list) else []:
        blobs = release.get("blobs") if isinstance(release, dict) else None
        for pair in blobs if isinstance(blobs, list) else []:
            if not isinstance(pair, list) or len(pair) != 2 or len(found) >= _MOST_HELD:
                continue
            sha256, size = pair
            if is_sha256(sha256) and type(size) is int and 0 < size <= _LARGEST_BYTES:
                bundle = clean_text(release.get("bundle", ""), limit=64)
                found.setdefault(sha256, _Held(sha256=sha256, bytes=size, bundle=bundle))
    return tuple(found.values())


def _mapped(path: Path) -> Bytes:
    """Give the bytes of a file without reading those that nobody looks at."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


class _Courier:
    def __init__(
        self,
        session: Session,
        source: BlobSource,
        bases: Bases,
        held: Sequence[_Held],
        on_progress: OnProgress,
    ) -> None:
        self._session = session
        self._source = source
        self._bases = bases
        self._on_progress = on_progress
        self._held = held
        self._bundle_of = {each.sha256: each.bundle for each in held}
        self._is_slow = session.channel.traits.compress

    def deliver(self, blob: MissingBlob) -> SentDelta | MissingBlob:
        """Get a blob there by a delta; gives it back where that does not pay or work."""
        begun_s = time.monotonic()
        try:
            target = _mapped(self._source.blob_path(blob.sha256))
        except (OSError, ValueError):
            return blob  # the push will say what is wrong with the file
        if len(target) != blob.bytes or blob.bytes > _LARGEST_BYTES:
            return blob
        made = self._make(blob, target)
        if made is None:
            return blob
        used = [sha256 for sha256, _ in read_header(io.BytesIO(made.data).read).bases]
        try:
            self._assemble(blob, made.data)
        except (DeviceError, ProtocolError) as exc:
            code = exc.facts.get("code")
            if code not in _NO_DELTA:
                raise
            if code != codes.BAD_DELTA:
                return blob
            for sha256 in used:  # one of them may have other bytes here than its name says
                self._bases.drop(sha256)
            return replace(blob, have=0)
        return SentDelta(
            blob=blob.sha256,
            bytes=blob.bytes,
            sent_bytes=len(made.data),
            index_bytes=made.index_bytes,
            against=tuple(sorted({self._bundle_of[sha256] for sha256 in used})),
            seconds=round(time.monotonic() - begun_s, 3),
        )

    def _make(self, blob: MissingBlob, target: Bytes) -> _Made | None:
        most_bytes = _WORTH * self._push_bytes(blob, target)
        near = sorted(
            (each for each in self._held if each.sha256 != blob.sha256),
            key=lambda each: max(each.bytes, blob.bytes) / min(each.bytes, blob.bytes),
        )
        made = self._from_files(blob, target, near)
        if made is None or len(made.data) > most_bytes:
            index = self._from_blocks(blob, target, near)
            if index is not None and (made is None or len(index.data) < len(made.data)):
                made = index
        return made if made is not None and len(made.data) <= most_bytes else None

    def _push_bytes(self, blob: MissingBlob, target: Bytes) -> float:
        """Guess what is left of a full push, as it goes over the link."""
        left = blob.bytes - blob.have
        if not self._is_slow:
            return left
        taken = sent = 0
        for k in range(_SAMPLES):
            start = max(0, (blob.bytes - _SAMPLE_BYTES) * k // (_SAMPLES - 1))
            sample = target[start : start + _SAMPLE_BYTES].tobytes()
            taken += len(sample)
            sent += len(zlib.compress(sample, 6))
        return left * min(1.0, sent / taken)

    def _budget_s(self, blob: MissingBlob) -> float:
        left = blob.bytes - blob.have
        if self._is_slow:
            return max(0.2, _SHARE * left / _SLOW_BYTES_PER_S)
        return left / _FAST_BYTES_PER_S

    def _from_files(
        self, blob: MissingBlob, target: Bytes, near: Sequence[_Held]
    ) -> _Made | None:
        """Make the delta from what of the device's blobs is on this computer."""
        ranked: list[tuple[float, int, str, Bytes]] = []
        for number, each in enumerate(near[: 8 * _MOST_BASES]):
            path = self._bases.find(each.sha256, each.bytes)
            if path is None:
                continue
            try:
                base = _mapped(path)
            except (OSError, ValueError):
                continue
            alike = likeness(target, base)
            if self._is_slow or alike >= _PROMISING:
                ranked.append((-alike, number, each.sha256, base))
        if not ranked:
            return None
        chosen = [(sha256, base) for _, _, sha256, base in sorted(ranked)[:_MOST_BASES]]
        pieces = align(target, [base for _, base in chosen], budget_s=self._budget_s(blob))
        return self._encoded(blob, target, pieces, chosen)

    def _from_blocks(
        self, blob: MissingBlob, target: Bytes, near: Sequence[_Held]
    ) -> _Made | None:
        """Make the delta from checksums of a blob that only the device has."""
        lost = [each for each in near if self._bases.find(each.sha256, each.bytes) is None]
        if not lost or not 1 / 2 <= lost[0].bytes / blob.bytes <= 2:
            return None
        base = lost[0]
        plan = plan_blocks(base.bytes)
        if not self._is_slow:
            probe = self._ask_blocks(base, plan.probe_stride(base.bytes))
            if probe is None or block_likeness(target, probe) < _PROMISING:
                return None
        index = self._ask_blocks(base)
        if index is None:
            return None
        pieces = match_blocks(target, index, budget_s=self._budget_s(blob))
        unseen = np.broadcast_to(np.uint8(0), base.bytes)
        made = self._encoded(blob, target, pieces, [(base.sha256, unseen)])
        entry_bytes = 4 + index.strong_bytes
        return made and replace(made, index_bytes=len(index.strong) * entry_bytes)

    def _ask_blocks(self, base: _Held, stride: int = 1) -> BlockIndex | None:
        plan = plan_blocks(base.bytes)
        asks = {
            "sha256": base.sha256,
            "bytes": base.bytes,
            "block_bytes": plan.block_bytes,
            "strong_bytes": plan.strong_bytes,
            "stride": stride,
        }
        try:
            body = self._session.request("blocks", asks, timeout_s=600.0).body
        except (DeviceError, ProtocolError) as exc:
            if exc.facts.get("code") in (codes.NOT_FOUND, codes.BAD_REQUEST, codes.UNKNOWN_OP):
                return None
            raise
        return read_blocks(
            body,
            size=base.bytes,
            block_bytes=plan.block_bytes,
            strong_bytes=plan.strong_bytes,
            stride=stride,
        )

    def _encoded(
        self,
        blob: MissingBlob,
        target: Bytes,
        pieces: Sequence[Piece],
        bases: Sequence[tuple[str, Bytes]],
    ) -> _Made | None:
        if not pieces:
            return None
        return _Made(data=encode_delta(blob.sha256, target, pieces, bases), index_bytes=0)

    def _assemble(self, blob: MissingBlob, delta: bytes) -> None:
        """Send a delta, in the request where it fits, and have it applied."""
        asks: dict[str, Any] = {"sha256": blob.sha256, "bytes": blob.bytes}
        if len(delta) > self._session.chunk_bytes:
            name = hashlib.sha256(delta).hexdigest()
            asks |= {"delta": name, "delta_bytes": len(delta)}
            meta = self._ask_assemble(asks)
            if meta.get("done") is True:
                return
            have = meta.get("have")
            have = min(max(have, 0), len(delta)) if type(have) is int else 0
            with tempfile.TemporaryDirectory(prefix="edgesdk-delta-") as folder:
                source = _OneBlob(self._source, Path(folder) / name)
                source.path.write_bytes(delta)
                lacks = MissingBlob(sha256=name, bytes=len(delta), have=have)
                push_blobs(self._session, source, [lacks], on_progress=self._on_progress)
            delta = b""
        if self._ask_assemble(asks, delta).get("done") is not True:
            raise ProtocolError(
                f"cannot make a blob from a delta on {self._session.device_name}: it has all "
                "of the delta and does not say that it is done"
            )

    def _ask_assemble(self, asks: Mapping[str, Any], delta: bytes = b"") -> Mapping[str, Any]:
        return self._session.request(
            "assemble", asks, delta, timeout_s=_ASSEMBLE_TIMEOUT_S
        ).meta


class _OneBlob:
    """A delta as something that can be pushed."""

    def __init__(self, source: BlobSource, path: Path) -> None:
        self.manifest = source.manifest
        self.id = source.id
        self.path = path

    def blob_path(self, sha256: str) -> Path:  # noqa: ARG002 - there is only one
        return self.path
