"""Blobs made here out of blobs that are here: ``held``, ``blocks`` and ``assemble``.

A delta comes as an ordinary blob (or with the request, where it is small) and is applied piece
by piece into the staging file of its result. From there on that is a blob like any other: it
counts once its bytes hash to its name. A base is not hashed in front of that, since what
matters of it shows in the result; where that is wrong the bases are hashed to name the bad one.
"""

from __future__ import annotations

import collections
import hashlib
import io
import os
import struct
import zlib
from typing import Any, Dict

from edge_agent import asking
from edge_agent.fs import NotOurs
from edge_agent.refusals import Cancelled, Refused
from edgesdk.wire import codes
from edgesdk.wire.delta import DeltaError, DeltaHeader, apply_delta, read_header
from edgesdk.wire.frames import Frame
from edgesdk.wire.limits import MAX_BODY_BYTES
from edgesdk.wire.manifest import deployed_blobs
from edgesdk.wire.ops import SLOTS

__all__ = ["Deltas", "assemble", "blocks", "held"]

_MAX_BYTES = 1 << 40
_MAX_HELD_RELEASES = 8
_MAX_HELD_BLOBS = 256
_MAX_BLOCKS_BYTES = 8 << 20
_MAX_DELTAS = 16


class Deltas:
    """The deltas that a host is about to put, which no manifest names."""

    def __init__(self, store: Any, releases: Any) -> None:
        self._store = store
        self._releases = releases
        self._expected = collections.OrderedDict()  # type: Any

    def expect(self, delta: str, delta_bytes: int, result: str, result_bytes: int) -> int:
        """Take the blob ``delta`` to make ``result`` of it; give how much of it is here.

        Raises:
            Refused: No staged manifest asks for the result, there is no room for both, or what
                has that name here is something else.
        """
        if self._store.blobs.size(delta) is not None:
            raise Refused(
                codes.BAD_REQUEST,
                "cannot take delta {}: there is a blob of that name and another size".format(
                    delta[:12]
                ),
            )
        if not self._store.is_wanted(result, result_bytes):
            raise Refused(
                codes.NOT_FOUND,
                "cannot make blob {}: no staged bundle asks for it in that size; stage "
                "first".format(result[:12]),
            )
        self._store.check_room([{"bytes": delta_bytes + result_bytes, "have": 0}])
        self._expected[delta] = True
        self._expected.move_to_end(delta)
        while len(self._expected) > _MAX_DELTAS:
            self.forget(next(iter(self._expected)))
        have = self._store.want(delta, delta_bytes)  # type: int
        return have if have <= delta_bytes else 0

    def forget(self, delta: str) -> None:
        """Remove a delta, complete or not: it was used, or is good for nothing."""
        if self._expected.pop(delta, None) is None:
            return
        size = self._store.blobs.size(delta)
        self._store.want(delta, None)
        if size is None:
            self._store.discard(delta)
        elif not self._store.is_wanted(delta, size) and not self._is_released(delta):
            self._store.blobs.remove(delta)

    def _is_released(self, sha256: str) -> bool:
        """Say whether a release has that blob, which came under the name of a delta too."""
        for bundle in self._releases.ids():
            manifest = self._releases.manifest(bundle)
            if manifest is not None and sha256 in dict(deployed_blobs(manifest)):
                return True
        return False


def held(agent: Any, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """List the blobs of the releases here, those in a slot first, as bases for deltas."""
    ids = [agent.slots.bundle(slot) for slot in SLOTS] + agent.releases.ids()
    found = []
    seen = set()  # type: set
    for bundle in ids:
        if bundle is None or bundle in seen or len(found) >= _MAX_HELD_RELEASES:
            continue
        seen.add(bundle)
        manifest = agent.releases.manifest(bundle)
        if manifest is None:
            continue
        blobs = []
        for sha256, size in dict(deployed_blobs(manifest)).items():
            if sha256 not in seen and agent.store.blobs.size(sha256) == size:
                seen.add(sha256)
                blobs.append([sha256, size])
        room = _MAX_HELD_BLOBS - sum(len(each["blobs"]) for each in found)
        found.append({"bundle": bundle, "blobs": blobs[:room]})
    return Frame({"releases": found})


def _open_blob(agent: Any, sha256: str, size: int) -> int:
    """Open a blob that is here in that size.

    Raises:
        Refused: It is not.
    """
    try:
        fd = agent.store.blobs.open_read(sha256)  # type: int
    except FileNotFoundError:
        raise Refused(codes.NOT_FOUND, "blob {} is not here".format(sha256[:12])) from None
    seen = os.fstat(fd).st_size
    if seen != size:
        os.close(fd)
        raise Refused(
            codes.NOT_FOUND,
            "blob {} has {} bytes here, not {}".format(sha256[:12], seen, size),
        )
    return fd


def _read_fully(fd: int, offset: int, count: int) -> bytes:
    pieces = []
    while count:
        piece = os.pread(fd, count, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        count -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def blocks(agent: Any, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Give a checksum and the beginning of a hash of every ``stride``-th block of a blob.

    The last block is as short as the blob makes it.
    """
    sha256 = asking.sha256(meta, "sha256")
    size = asking.whole(meta, "bytes", 0, _MAX_BYTES)
    block = asking.whole(meta, "block_bytes", 512, 1 << 20)
    strong = asking.whole(meta, "strong_bytes", 2, 32)
    stride = asking.whole(meta, "stride", 1, 1 << 30, default=1)
    count = -(-size // (block * stride))
    if count * (4 + strong) > min(_MAX_BLOCKS_BYTES, MAX_BODY_BYTES):
        raise Refused(
            codes.BAD_REQUEST,
            "{} blocks of {} bytes make too long an index: ask for larger ones".format(
                count, block
            ),
        )
    out = bytearray()
    fd = _open_blob(agent, sha256, size)
    try:
        for number in range(0, count * stride, stride):
            if ctx.is_cancelled():
                raise Cancelled
            piece = _read_fully(fd, number * block, block)
            out += struct.pack(">I", zlib.adler32(piece) & 0xFFFFFFFF)
            out += hashlib.sha256(piece).digest()[:strong]
    finally:
        os.close(fd)
    return Frame({"blocks": count}, bytes(out))


def assemble(agent: Any, ctx: Any, meta: Dict[str, Any], body: bytes) -> Frame:
    """Make a blob that a staged manifest asks for, as a delta says.

    The delta is the body, or a blob that was pushed; where it is neither it is expected from
    now on, and ``done`` is false.
    """
    sha256 = asking.sha256(meta, "sha256")
    size = asking.whole(meta, "bytes", 0, _MAX_BYTES)
    if not body:
        delta = asking.sha256(meta, "delta")
        delta_bytes = asking.whole(meta, "delta_bytes", 1, size)
        if agent.store.blobs.size(delta) != delta_bytes:
            have = agent.deltas.expect(delta, delta_bytes, sha256, size)
            return Frame({"done": False, "have": have})
        fd = _open_blob(agent, delta, delta_bytes)
        stream = os.fdopen(fd, "rb")  # type: Any
    else:
        delta = None
        stream = io.BytesIO(body)
    try:
        with stream:
            _make(agent, ctx, stream, sha256, size)
    except (DeltaError, NotOurs) as exc:
        agent.store.discard(sha256)
        if delta is not None:
            agent.deltas.forget(delta)
        raise Refused(
            codes.BAD_DELTA,
            "cannot make blob {} from a delta: {}".format(sha256[:12], exc),
        ) from exc
    if delta is not None:
        agent.deltas.forget(delta)
    return Frame({"done": True})


def _make(agent: Any, ctx: Any, stream: Any, sha256: str, size: int) -> None:
    header = read_header(stream.read)
    if (header.sha256, header.size) != (sha256, size):
        raise DeltaError(
            "it makes blob {} of {} bytes, not this one of {}".format(
                header.sha256[:12], header.size, size
            )
        )
    fds = []
    at = [0]

    def write(data: bytes) -> None:
        if ctx.is_cancelled():
            raise Cancelled
        agent.store.put(sha256, size, at[0], data)
        at[0] += len(data)

    try:
        for base, base_bytes in header.bases:
            try:
                fds.append(_open_blob(agent, base, base_bytes))
            except Refused as exc:
                raise DeltaError("its base: {}".format(exc)) from exc
        apply_delta(
            header,
            stream.read,
            lambda base, offset, count: _read_fully(fds[base], offset, count),
            write,
        )
        if size == 0:
            agent.store.put(sha256, 0, 0, b"")
    except Refused as exc:
        if exc.code != codes.BAD_HASH:
            raise
        raise DeltaError(_why_wrong(agent, header)) from exc
    finally:
        for fd in fds:
            os.close(fd)


def _why_wrong(agent: Any, header: DeltaHeader) -> str:
    """Say why the result hashes to another name: a damaged base, or else the delta itself."""
    bad = [base for base, size in header.bases if not agent.store.verify(base, size)]
    if not bad:
        return "its result hashes to another name, and its bases are right"
    return "its base {} is damaged here".format(", ".join(base[:12] for base in bad))
