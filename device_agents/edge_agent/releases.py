"""Releases: committed bundles as folders a runtime can load, with the proof that they passed.

``releases/<bundle>/`` holds ``manifest.json``, ``commit.json``, ``part-N.*`` (hard links to
blobs) and, after a passed check, ``passed.json`` and ``passed.bin``. A release appears by one
rename, complete; what it links to was hashed before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any, Callable, Dict, List, Optional, Tuple

from edge_agent.fs import Folder, NotOurs
from edge_agent.landing import hash_file
from edge_agent.refusals import Refused
from edge_agent.slots import Slots, utc_now
from edge_agent.store import Store
from edgesdk.wire import codes
from edgesdk.wire.limits import MAX_BODY_BYTES, MAX_MANIFEST_BYTES
from edgesdk.wire.manifest import (
    ManifestError,
    bundle_id,
    canonical_bytes,
    deployed_blobs,
    is_sha256,
    load_manifest,
    part_file_name,
    part_files,
)
from edgesdk.wire.ops import SLOTS

__all__ = ["Releases"]

_MANIFEST = "manifest.json"
_COMMIT = "commit.json"
_PASSED = "passed.json"
_PASSED_BODY = "passed.bin"
#: A reply lists every release, so what one of them says of its inputs is bounded.
_MAX_TAKES_BYTES = 1 << 16


class Releases:
    """The ``releases`` folder; shares the store's lock."""

    def __init__(
        self, root: Folder, store: Store, slots: Slots, log: Callable[[str], None]
    ) -> None:
        self._store = store
        self._slots = slots
        self._log = log
        self._folder = root.sub("releases")
        for name in self._folder.names():
            if not is_sha256(name):
                try:
                    self._folder.remove(name)  # it never became one, or was going
                except OSError as exc:  # what is whole here can be used all the same
                    log("{} cannot be removed: {}".format(name[:80], exc.strerror))

    def close(self) -> None:
        """Close the folder."""
        self._folder.close()

    def ids(self) -> List[str]:
        """Ids of every release here, sorted."""
        return [name for name in self._folder.names() if is_sha256(name)]

    def manifest(self, bundle: str) -> Optional[Dict[str, Any]]:
        """The manifest of a release, proven to be that bundle's, or None."""
        if not self._folder.has_folder(bundle):
            return None
        release = self._folder.sub(bundle, create=False)
        try:
            manifest = load_manifest(release.read(_MANIFEST, limit=MAX_MANIFEST_BYTES))
            return manifest if bundle_id(manifest) == bundle else None
        except (OSError, ManifestError, NotOurs) as exc:
            self._log("release {} cannot be read: {}".format(bundle[:12], exc))
            return None
        finally:
            release.close()

    def need(self, release: str) -> Tuple[str, Dict[str, Any]]:
        """Find a release by slot name or bundle id; give its id and manifest.

        Raises:
            Refused: There is none, or what is there is damaged.
        """
        if release in SLOTS:
            bundle = self._slots.bundle(release)
            if bundle is None:
                raise Refused(
                    codes.NOT_FOUND,
                    "this device has no {} release".format(release),
                    slot=release,
                )
        elif is_sha256(release):
            bundle = release
        else:
            raise Refused(codes.BAD_REQUEST, "release must be a slot or a bundle id")
        manifest = self.manifest(bundle)
        if manifest is None:
            raise Refused(
                codes.NOT_FOUND,
                "this device has no release {}".format(bundle[:12]),
                bundle=bundle,
            )
        return bundle, manifest

    def why_not(self, bundle: str) -> Optional[str]:
        """Say why a release cannot be run, its bytes proven, or give None."""
        try:
            self.part_paths(*self.need(bundle))
        except Refused as exc:
            return str(exc)
        except (OSError, NotOurs) as exc:
            return "it cannot be read: {}".format(exc)
        return None

    def part_paths(self, bundle: str, manifest: Dict[str, Any]) -> List[List[str]]:
        """Paths of the files of each part, for the worker; their bytes are proven here.

        A file that this process has hashed, and nobody has touched since, is not read again.

        Raises:
            Refused: A file is missing, or its bytes are not those of the bundle.
        """
        release = self._folder.sub(bundle, create=False)
        try:
            for name, sha256, size in part_files(manifest):
                why = self._why_damaged(release, name, sha256, size)
                if why is not None:
                    raise Refused(
                        codes.NOT_FOUND,
                        "release {} is damaged: {} {}; push it again".format(
                            bundle[:12], name, why
                        ),
                        bundle=bundle,
                    )
            return [
                [
                    "{}/{}".format(
                        release.path, part_file_name(index, record["role"], part["format"])
                    )
                    for record in part["files"]
                ]
                for index, part in enumerate(manifest["parts"])
            ]
        finally:
            release.close()

    def _why_damaged(self, release: Folder, name: str, sha256: str, size: int) -> Optional[str]:
        identity = release.identity(name)
        if identity is None:
            return "is missing"
        if identity[1] != size:
            return "has {} bytes (expected {})".format(identity[1], size)
        if not self._store.has_hashed(sha256, identity):
            if hash_file(release, name) != (sha256, size):
                return "does not hash to its name"
            self._store.note_hashed(sha256, identity)
        return None

    # -- commit ------------------------------------------------------------------------------

    def commit(self, bundle: str) -> None:
        """Make a release of a staged bundle whose blobs are all here; it becomes candidate.

        Raises:
            Refused: It was never staged, or blobs are missing or damaged.
        """
        with self._store.lock:
            manifest = self._store.pending_manifest(bundle) or self.manifest(bundle)
            if manifest is None:
                raise Refused(
                    codes.NOT_FOUND,
                    "cannot commit {}: it was not staged".format(bundle[:12]),
                    bundle=bundle,
                )
            bad = [
                sha256
                for sha256, size in dict(deployed_blobs(manifest)).items()
                if not self._store.verify(sha256, size)
            ]
            if bad:
                raise Refused(
                    codes.NOT_FOUND,
                    "cannot commit {}: {} blobs are missing or damaged".format(
                        bundle[:12], len(bad)
                    ),
                    missing=bad[:100],
                )
            if self.manifest(bundle) is None:
                self._create(bundle, manifest)
            else:
                self._repair(bundle, manifest)
            self._slots.make_candidate(bundle)
            self._store.unstage(bundle)

    def _create(self, bundle: str, manifest: Dict[str, Any]) -> None:
        landing = "new-" + bundle
        self._folder.remove(landing)
        self._folder.remove(bundle)  # only a damaged one can be there
        try:
            release = self._folder.sub(landing)
            try:
                for name, sha256, _ in part_files(manifest):
                    self._store.blobs.link(sha256, release, name)
                commit = {"number": self._slots.tick(), "since": utc_now()}
                release.write_whole(_COMMIT, json.dumps(commit).encode("utf-8"))
                # its sync of the folder is that of the links, too
                release.write_whole(_MANIFEST, canonical_bytes(manifest))
            finally:
                release.close()
            self._folder.move(landing, self._folder, bundle)
        except OSError:
            with contextlib.suppress(OSError, NotOurs):
                self._folder.remove(landing)  # where the disk has no links these are copies
            raise

    def _repair(self, bundle: str, manifest: Dict[str, Any]) -> None:
        """Put right, one rename each, files of a release that are no longer their blobs."""
        release = self._folder.sub(bundle, create=False)
        try:
            for name, sha256, size in part_files(manifest):
                seen, blob = release.stat(name), self._store.blobs.stat(sha256)
                if seen is not None and blob is not None and seen.st_ino == blob.st_ino:
                    continue
                if seen is not None and hash_file(release, name) == (sha256, size):
                    continue
                self._log("release {}: {} was put right".format(bundle[:12], name))
                release.remove("fix-" + name)
                self._store.blobs.link(sha256, release, "fix-" + name)
                release.move("fix-" + name, release, name)
        finally:
            release.close()

    # -- passed checks -----------------------------------------------------------------------

    def passed(self, bundle: str) -> Optional[Tuple[Dict[str, Any], bytes]]:
        """The record of a passed check and the outputs it gave, or None."""
        if not self._folder.has_folder(bundle):
            return None
        release = self._folder.sub(bundle, create=False)
        try:
            record = json.loads(release.read(_PASSED, limit=MAX_MANIFEST_BYTES).decode("utf-8"))
            body = release.read(_PASSED_BODY, limit=MAX_BODY_BYTES)
            if hashlib.sha256(body).hexdigest() != record["body_sha256"]:
                return None
            return record, body
        except (OSError, ValueError, KeyError, TypeError, NotOurs):
            return None
        finally:
            release.close()

    def pass_record(self, bundle: str) -> Optional[Dict[str, Any]]:
        """The record of a passed check, without its outputs, or None."""
        if not self._folder.has_folder(bundle):
            return None
        release = self._folder.sub(bundle, create=False)
        try:
            record = json.loads(release.read(_PASSED, limit=MAX_MANIFEST_BYTES).decode("utf-8"))
            return record if isinstance(record, dict) else None
        except (OSError, ValueError, NotOurs):
            return None
        finally:
            release.close()

    def has_passed(self, bundle: str) -> bool:
        """Say whether a check of this release has passed on this device."""
        if not self._folder.has_folder(bundle):
            return False
        release = self._folder.sub(bundle, create=False)
        try:
            return release.size(_PASSED) is not None
        finally:
            release.close()

    def record_pass(self, bundle: str, record: Dict[str, Any], body: bytes) -> None:
        """Keep a passed check with its release; the record comes last and names the outputs."""
        release = self._folder.sub(bundle, create=False)
        try:
            release.write_whole(_PASSED_BODY, body)
            kept = dict(record, body_sha256=hashlib.sha256(body).hexdigest())
            release.write_whole(_PASSED, json.dumps(kept).encode("utf-8"))
        finally:
            release.close()

    def forget_pass(self, bundle: str) -> None:
        """Drop the record: the release no longer passes."""
        release = self._folder.sub(bundle, create=False)
        try:
            release.remove(_PASSED)
            release.sync()
        finally:
            release.close()

    # -- lists and rubbish -------------------------------------------------------------------

    def _number(self, bundle: str) -> int:
        release = self._folder.sub(bundle, create=False)
        try:
            record = json.loads(release.read(_COMMIT, limit=4096).decode("utf-8"))
            return int(record["number"])
        except (OSError, ValueError, KeyError, TypeError, NotOurs):
            return 0
        finally:
            release.close()

    def describe(self, bundle: str) -> Optional[Dict[str, Any]]:
        """What people want to know of a release, or None if it is damaged.

        One that is in a slot also says what it takes: ``inputs`` and ``preprocess``.
        """
        manifest = self.manifest(bundle)
        if manifest is None:
            return None
        slot = self._slots.slot_of(bundle)
        takes = {key: manifest.get(key) for key in ("inputs", "preprocess")}
        if slot is None or len(json.dumps(takes)) > _MAX_TAKES_BYTES:
            takes = {}
        return {
            **takes,
            "bundle": bundle,
            "name": manifest["name"],
            "precision": manifest["precision"],
            "target": str(manifest["target"].get("name", "")),
            "slot": slot,
            "since": None if slot is None else self._slots.since(slot),
            "bytes": sum(size for _, _, size in part_files(manifest)),
            "checked": self.has_passed(bundle),
            "state": self._slots.state_of(bundle),
        }

    def collect(
        self, budget_bytes: Optional[int], only: Optional[str] = None
    ) -> Dict[str, Any]:
        """Remove releases that no slot holds, oldest first, and blobs nobody needs.

        What a device on probation would return to stays.

        With a budget only as many go as it takes for the blobs to fit in it. With ``only`` that
        one goes and no other, from the place of a candidate too.

        Raises:
            Refused: ``only`` is current, previous, or what the device would return to.
        """
        with self._store.lock:
            if only is not None:
                self._slots.withdraw(only)
                if self._slots.is_needed(only):
                    raise Refused(
                        codes.BAD_REQUEST,
                        "cannot remove {}: a slot holds it".format(only[:12]),
                        bundle=only,
                    )
            kept = {}  # type: Dict[str, Dict[str, int]]
            for bundle in self.ids():
                manifest = self.manifest(bundle)
                kept[bundle] = {} if manifest is None else dict(deployed_blobs(manifest))
            removed = []
            for bundle in sorted(kept, key=self._number):
                if self._slots.is_needed(bundle) or only not in (None, bundle):
                    continue
                held = {k: v for blobs in kept.values() for k, v in blobs.items()}
                fits = budget_bytes is not None and sum(held.values()) <= budget_bytes
                if fits and only is None:
                    break
                going = "old-" + bundle
                self._folder.remove(going)
                self._folder.move(bundle, self._folder, going)
                self._folder.remove(going)
                removed.append(bundle)
                del kept[bundle]
            needed = {k: v for blobs in kept.values() for k, v in blobs.items()}
            freed = self._store.prune(needed)
            return {"removed": removed, "freed_bytes": freed, "kept": sorted(kept)}
