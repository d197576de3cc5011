"""What arrives: manifests that are being pushed, and blobs on their way to ``blobs/<sha256>``.

A blob is written to ``staging/<sha256>``, hashed as it is written, synced, and renamed only
when its bytes hash to its name. One staging file per blob: an interrupted push resumes it, a
second host pushing the same blob adds to it. Only blobs that a staged manifest names are
taken, and never more bytes than it declares.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.fs import Folder, NotOurs, calls
from edge_agent.landing import Landing, hash_file
from edge_agent.refusals import Refused
from edgesdk.wire import codes
from edgesdk.wire.limits import MAX_AHEAD_BYTES, MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES
from edgesdk.wire.manifest import (
    ManifestError,
    bundle_id,
    deployed_blobs,
    is_sha256,
    load_manifest,
)

__all__ = ["RESERVE_BYTES", "Store"]

#: Room that a push leaves on the disk, for the system and for our own small files.
RESERVE_BYTES = 16 << 20
_MAX_PENDING = 8
#: More blobs than can be begun and not ended while lanes have their full windows under way.
_MAX_LANDINGS = 64
_CLOSE_S = 2.0


class Store:
    """Blobs and staged manifests. One lock: pushes are bound by the link, not by this."""

    def __init__(self, root: Folder, log: Callable[[str], None]) -> None:
        self.root = root
        self.log = log
        self.lock = threading.RLock()
        self.blobs = root.sub("blobs")
        self._staging = root.sub("staging")
        self._pending = root.sub("pending")
        self._landings = collections.OrderedDict()  # type: Any
        self._verified = {}  # type: Dict[str, Tuple[int, int, int]]
        self._copies = {}  # type: Dict[str, Tuple[int, int, int]]
        self._sizes = None  # type: Optional[Dict[str, int]]
        self._used = set()  # type: set
        self._extra = {}  # type: Dict[str, int]
        self._manifest_pieces = collections.OrderedDict()  # type: Any

    # -- manifests ---------------------------------------------------------------------------

    def _pending_names(self) -> Dict[str, str]:
        """Bundle id -> file name; the number in front of a name says which came first."""
        found = {}
        for name in self._pending.names():
            number, _, bundle = name.partition("-")
            if number.isdigit() and is_sha256(bundle):
                found[bundle] = name
        return found

    def pending_ids(self) -> List[str]:
        """Ids of the bundles whose push is under way."""
        with self.lock:
            return sorted(self._pending_names())

    def pending_manifest(self, bundle: str) -> Optional[Dict[str, Any]]:
        """The staged manifest of ``bundle``, or None."""
        with self.lock:
            name = self._pending_names().get(bundle)
            if name is None:
                return None
            try:
                manifest = load_manifest(self._pending.read(name, limit=MAX_MANIFEST_BYTES))
            except (ManifestError, NotOurs):
                manifest = None
            if manifest is None or bundle_id(manifest) != bundle:
                self._pending.remove(name)
                return None
            return manifest

    def collect_manifest(
        self, bundle: str, body: bytes, offset: int, total: int
    ) -> Tuple[Optional[bytes], int]:
        """Take a piece of a manifest; give (all of its bytes or None, how many are here).

        Raises:
            Refused: A piece does not follow the ones before.
        """
        with self.lock:
            pieces = self._manifest_pieces.pop(bundle, bytearray())
            if offset == 0:
                pieces = bytearray()
            try:
                if offset > len(pieces):
                    raise Refused(
                        codes.GAP,
                        "{}: the manifest goes on at byte {}, {} are here".format(
                            bundle[:12], offset, len(pieces)
                        ),
                        have=len(pieces),
                    )
                pieces += body[len(pieces) - offset : total - offset]
            finally:
                if pieces and len(pieces) < total:
                    self._manifest_pieces[bundle] = pieces
                    while len(self._manifest_pieces) > 2:
                        self._manifest_pieces.popitem(last=False)
            return (bytes(pieces) if len(pieces) == total else None), len(pieces)

    def checked_manifest(self, bundle: str, data: bytes) -> Dict[str, Any]:
        """Parse a manifest that came, and prove that it is the bundle it is said to be.

        Raises:
            Refused: It is not a manifest, or another bundle's.
        """
        seen = hashlib.sha256(data).hexdigest()
        if seen != bundle:
            raise Refused(
                codes.BAD_HASH,
                "{}: the manifest that came hashes to {}".format(bundle[:12], seen[:12]),
            )
        try:
            return load_manifest(data)
        except ManifestError as exc:
            raise Refused(
                codes.BAD_REQUEST,
                "{}: the manifest is refused: {}".format(bundle[:12], exc),
            ) from exc

    def stage(self, bundle: str, data: bytes, number: int) -> None:
        """Keep a manifest whose blobs will follow; the oldest of too many is dropped."""
        with self.lock:
            names = self._pending_names()
            if bundle not in names:
                for old in sorted(names.values())[: max(0, len(names) - _MAX_PENDING + 1)]:
                    self._pending.remove(old)
                self._pending.write_whole("{:016d}-{}".format(number, bundle), data)
            self._used.intersection_update(names)
            self._used.add(bundle)
            self._sizes = None
            self._clean_staging()

    def unstage(self, bundle: str) -> None:
        """Forget a staged manifest: it was committed."""
        with self.lock:
            name = self._pending_names().get(bundle)
            if name is not None:
                self._pending.remove(name)
                self._sizes = None

    def _expected_sizes(self) -> Dict[str, int]:
        if self._sizes is None:
            sizes = {}  # type: Dict[str, int]
            for bundle in self._pending_names():
                manifest = self.pending_manifest(bundle)
                if manifest is not None:
                    sizes.update(deployed_blobs(manifest))
            self._sizes = dict(self._extra, **sizes)
        return self._sizes

    def _clean_staging(self) -> None:
        """Drop staging files that no staged manifest asks for, and landed temporary names."""
        wanted = self._expected_sizes()
        for name in self._staging.names():
            if name not in wanted:
                self._drop_landing(name)
                self._staging.remove(name)
        pending = set(self._pending_names().values())
        for name in self._pending.names():
            if name not in pending:
                self._pending.remove(name)

    # -- blobs -------------------------------------------------------------------------------

    def missing(self, manifest: Dict[str, Any]) -> List[Dict[str, Any]]:
        """The blobs that have to be sent, with how much of each is already here."""
        with self.lock:
            found = []
            for sha256, size in dict(deployed_blobs(manifest)).items():
                if self.blobs.size(sha256) == size:
                    continue
                have = self._staging.size(sha256) or 0
                found.append(
                    {"sha256": sha256, "bytes": size, "have": have if have <= size else 0}
                )
            return found

    def check_room(self, missing: List[Dict[str, Any]]) -> Tuple[int, int]:
        """Give (needed, free) bytes.

        Raises:
            Refused: There is not enough room; nothing was written.
        """
        needed = sum(blob["bytes"] - blob["have"] for blob in missing)
        free = self.root.free_bytes()
        if needed and needed + RESERVE_BYTES > free:
            raise Refused(
                codes.NO_SPACE,
                "it needs {} KiB beside the {} KiB that stay free, and {} KiB are free".format(
                    -(-needed >> 10), RESERVE_BYTES >> 10, free >> 10
                ),
                needed_bytes=needed + RESERVE_BYTES,
                free_bytes=free,
            )
        return needed, free

    def _landing(self, sha256: str, size: int) -> Landing:
        landing = self._landings.pop(sha256, None)
        if landing is None:
            landing = Landing(self._staging.open_append(sha256), size)
        self._landings[sha256] = landing
        while len(self._landings) > _MAX_LANDINGS:
            self._drop_landing(next(iter(self._landings)))
        return landing

    def _drop_landing(self, sha256: str) -> None:
        landing = self._landings.pop(sha256, None)
        if landing is not None:
            os.close(landing.fd)

    def _hold(self, landing: Landing, offset: int, data: bytes) -> bool:
        """Keep a chunk that overtook others, if there is room in memory for it."""
        held = sum(other.held_bytes for other in self._landings.values())
        return held + len(data) <= MAX_AHEAD_BYTES and landing.hold(offset, data)

    def put(
        self, sha256: str, size: int, offset: int, data: bytes, *, ahead: bool = False
    ) -> Tuple[int, bool]:
        """Take a chunk of a blob; give how much of it is here, and whether it is complete.

        With ``ahead`` it may come before others that are in front of it: it waits for them, and
        counts as here when they have come.

        Raises:
            Refused: No staged manifest asks for it, a chunk is missing in front of this one, it
                is longer than declared, or its bytes do not hash to its name.
        """
        with self.lock:
            if self.blobs.size(sha256) == size:
                return size, True
            if self._expected_sizes().get(sha256) != size:
                raise Refused(
                    codes.NOT_FOUND,
                    "cannot take blob {}: no staged bundle asks for it in that size; stage "
                    "first".format(sha256[:12]),
                )
            if len(data) > MAX_CHUNK_BYTES or offset + len(data) > size:
                raise Refused(
                    codes.BAD_REQUEST,
                    "cannot take blob {}: a chunk of {} bytes at {} of {}".format(
                        sha256[:12], len(data), offset, size
                    ),
                )
            landing = self._landing(sha256, size)
            if offset > landing.have:
                if ahead and self._hold(landing, offset, data):
                    return landing.have, False
                raise Refused(
                    codes.GAP,
                    "cannot take blob {}: the chunk starts at {}, {} bytes are here".format(
                        sha256[:12], offset, landing.have
                    ),
                    have=landing.have,
                )
            try:
                landing.add(memoryview(data)[landing.have - offset :])
                landing.add_held()
            except OSError:
                self._drop_landing(sha256)  # what reached the disk is hashed again next time
                raise
            if landing.have < size:
                return landing.have, False
            self._finish(sha256, landing)
            return size, True

    def want(self, sha256: str, size: Optional[int]) -> int:
        """Take a blob that no manifest names, or no longer (None); give how much is here."""
        with self.lock:
            self._extra.pop(sha256, None)
            if size is not None:
                self._extra[sha256] = size
            self._sizes = None
            return self._staging.size(sha256) or 0

    def is_wanted(self, sha256: str, size: int) -> bool:
        """Say whether a staged manifest asks for a blob in that size."""
        with self.lock:
            return self._expected_sizes().get(sha256) == size

    def discard(self, sha256: str) -> None:
        """Remove what has come of a blob so far, because it is wrong."""
        with self.lock:
            self._drop_landing(sha256)
            self._staging.remove(sha256)

    def _finish(self, sha256: str, landing: Landing) -> None:
        seen = landing.digest.hexdigest()
        try:
            if seen == sha256:
                calls.chmod(landing.fd, 0o400)
                calls.fsync(landing.fd)
        except OSError:
            # after a failed fsync the next one may succeed although bytes were lost: a file
            # read back from memory would hash to its name and not be on the disk
            self._drop_landing(sha256)
            with contextlib.suppress(OSError):
                self._staging.remove(sha256)
            raise
        self._drop_landing(sha256)
        if seen != sha256:
            self._staging.remove(sha256)
            raise Refused(
                codes.BAD_HASH,
                "cannot take blob {}: what came hashes to {}".format(sha256[:12], seen[:12]),
                sha256=sha256,
            )
        self._staging.move(sha256, self.blobs, sha256)
        identity = self.blobs.identity(sha256)
        if identity is not None:
            self._verified[sha256] = identity

    def has_hashed(self, sha256: str, identity: Tuple[int, int, int]) -> bool:
        """Say whether this process has found that file, a link to a blob or a copy, right."""
        return identity in (self._verified.get(sha256), self._copies.get(sha256))

    def note_hashed(self, sha256: str, identity: Tuple[int, int, int]) -> None:
        """Remember that a file of a release is right."""
        self._copies[sha256] = identity

    def verify(self, sha256: str, size: int) -> bool:
        """Say whether a blob is here with the right bytes; one that is not is removed.

        A blob that this process has hashed, and nobody has touched since, is not read again.
        """
        with self.lock:
            identity = self.blobs.identity(sha256)
            if identity is None or identity[1] != size:
                return False  # one size is right, and a push of that will find the blob here
            if self._verified.get(sha256) == identity:
                return True
            try:
                good = hash_file(self.blobs, sha256) == (sha256, size)
            except (OSError, NotOurs):
                good = False
            if good:
                self._verified[sha256] = identity
            else:
                self.log("blob {} is damaged and was removed".format(sha256[:12]))
                self.blobs.remove(sha256)
            return good

    def prune(self, keep: Dict[str, int]) -> int:
        """Remove blobs neither in ``keep`` nor being pushed, and old pushes; give bytes."""
        freed = 0
        with self.lock:
            for bundle, name in self._pending_names().items():
                if bundle not in self._used:
                    self._pending.remove(name)
            self._sizes = None
            wanted = self._expected_sizes()
            for name in self._staging.names():
                if name not in wanted:
                    freed += self._staging.size(name) or 0
            self._clean_staging()
            for name in self.blobs.names():
                if name not in keep and name not in wanted:
                    freed += self.blobs.size(name) or 0
                    self.blobs.remove(name)
                    self._verified.pop(name, None)
        return freed

    def bytes_held(self) -> int:
        """Bytes of all blobs, complete and on their way."""
        total = 0
        for folder in (self.blobs, self._staging):
            for name in folder.names():
                total += folder.size(name) or 0
        return total

    def close(self) -> None:
        """Close every open file and folder, once a chunk that is being written is through."""
        has_lock = self.lock.acquire(timeout=_CLOSE_S)  # a disk that hangs must not keep us
        for sha256 in list(self._landings):
            self._drop_landing(sha256)
        for folder in (self.blobs, self._staging, self._pending):
            folder.close()
        if has_lock:
            self.lock.release()
