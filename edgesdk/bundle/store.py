"""Read a bundle folder, and prove that it holds what its manifest says."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgesdk.errors import BundleError
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.wire.limits import MAX_MANIFEST_BYTES
from edgesdk.wire.manifest import ManifestError, blobs_of, bundle_id, load_manifest

__all__ = [
    "BLOBS",
    "MANIFEST",
    "Bundle",
    "is_bundle_folder",
    "read_bundle",
    "read_regular",
    "verify_bundle",
]

MANIFEST = "manifest.json"
BLOBS = "blobs"
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle on disk. ``id`` is the SHA-256 of its canonical manifest."""

    folder: Path
    id: str
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name, for people; the id is what identifies."""
        return str(self.manifest["name"])

    @property
    def precision(self) -> str:
        """The precision it was built for."""
        return str(self.manifest["precision"])

    @property
    def part_bytes(self) -> int:
        """Bytes of the parts: what a runtime loads, without check vectors and attachments."""
        files = {
            record["sha256"]: record["bytes"]
            for part in self.manifest["parts"]
            for record in part["files"]
        }
        return sum(files.values())

    def blob_path(self, sha256: str) -> Path:
        """Where the blob of that name lies."""
        return self.folder / BLOBS / sha256

    def attachment(self, role: str) -> bytes | None:
        """The bytes of the attachment with that role (``"plan"``), or None."""
        for record in self.manifest["attachments"]:
            if record["role"] == role:
                return _read_blob(self, record["sha256"], record["bytes"])
        return None


def is_bundle_folder(path: Path) -> bool:
    """Say whether ``path`` looks like a bundle folder, without reading it."""
    return (path / MANIFEST).is_file() and (path / BLOBS).is_dir()


def read_bundle(folder: Path) -> Bundle:
    """Open a bundle folder; check its manifest, and that every blob is there in full size.

    The bytes of the blobs are not hashed here: `verify_bundle` does, and so does every agent.

    Raises:
        BundleError: Not a bundle folder, or something in it is missing, altered or misplaced.
    """
    if not folder.is_dir():
        seen = "a file, not a folder" if folder.exists() else "no such folder"
        raise BundleError(
            f"cannot read bundle {folder}: {seen}",
            hint="give the folder that `edgesdk build -o` wrote; unpack an archive first",
            path=str(folder),
        )
    try:
        data = read_regular(folder / MANIFEST, MAX_MANIFEST_BYTES)
        manifest = load_manifest(data)
    except FileNotFoundError as exc:
        raise BundleError(
            f"cannot read bundle {folder}: it has no {MANIFEST}",
            hint="give the folder that `edgesdk build -o` wrote",
            path=str(folder),
        ) from exc
    except (OSError, ManifestError) as exc:
        raise BundleError(
            f"cannot read bundle {folder}: {MANIFEST}: {exc}",
            hint="build it again: a bundle is never edited",
            path=str(folder),
        ) from exc
    bundle = Bundle(folder=folder, id=bundle_id(manifest), manifest=manifest)
    for sha256, size in dict(blobs_of(manifest)).items():
        _check_file(bundle, sha256, size)
    return bundle


def verify_bundle(bundle: Bundle, *, on_progress: OnProgress = ignore_progress) -> int:
    """Hash every blob and compare it with its name.

    Returns:
        How many bytes were hashed.

    Raises:
        BundleError: A blob is missing, of another size, or has other bytes.
    """
    blobs = dict(blobs_of(dict(bundle.manifest)))
    total = sum(blobs.values())
    done = 0
    for sha256, size in blobs.items():
        _check_file(bundle, sha256, size)
        digest = hashlib.sha256()
        with bundle.blob_path(sha256).open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
                done += len(piece)
                on_progress(Progress(step="verify", done=done, total=total, unit="B"))
        if digest.hexdigest() != sha256:
            raise BundleError(
                f"cannot trust bundle {bundle.folder}: blob {sha256[:12]} holds bytes with the "
                f"hash {digest.hexdigest()[:12]}",
                hint="build it again, or copy it again from where it was built",
                blob=sha256,
            )
    return total


def read_regular(path: Path, limit: int) -> bytes:
    """Read a file that must be a plain one of at most ``limit`` bytes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a plain file")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"it has more than {limit} bytes")
    return data


def _check_file(bundle: Bundle, sha256: str, size: int) -> None:
    path = bundle.blob_path(sha256)
    try:
        seen = path.lstat()
    except OSError as exc:
        raise BundleError(
            f"cannot read bundle {bundle.folder}: blob {sha256[:12]} is missing",
            hint="copy the whole folder, `blobs/` included, or build it again",
            blob=sha256,
        ) from exc
    if not stat.S_ISREG(seen.st_mode):
        raise BundleError(
            f"cannot read bundle {bundle.folder}: blob {sha256[:12]} is not a plain file",
            hint="a bundle holds no links; build it again",
            blob=sha256,
        )
    if seen.st_size != size:
        raise BundleError(
            f"cannot read bundle {bundle.folder}: blob {sha256[:12]} has {seen.st_size} bytes "
            f"(expected {size})",
            hint="copy the folder again, or build it again",
            blob=sha256,
        )


def _read_blob(bundle: Bundle, sha256: str, size: int) -> bytes:
    try:
        data = read_regular(bundle.blob_path(sha256), size)
    except OSError as exc:
        raise BundleError(
            f"cannot read bundle {bundle.folder}: blob {sha256[:12]}: {exc}", blob=sha256
        ) from exc
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(
            f"cannot trust bundle {bundle.folder}: blob {sha256[:12]} holds other bytes",
            hint="build it again",
            blob=sha256,
        )
    return data
