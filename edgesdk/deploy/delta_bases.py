"""Blobs that are on this computer because they were deployed or built here.

A delta needs the bytes that are on the device now. They are looked for in a cache of what was
deployed (hard links where the disk allows, so they mostly cost nothing) and in folders of
bundles. All of it is a convenience: whatever is missing, unreadable or wrong here only makes a
push longer, as the device checks what it makes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgesdk.bundle.store import BLOBS
from edgesdk.deploy.push import BlobSource
from edgesdk.wire.manifest import deployed_blobs, is_sha256

__all__ = ["Bases"]

#: Smaller blobs are sent whole in less than it takes to talk about them.
SMALLEST_BYTES = 1024


class Bases:
    """Where blobs that a device may hold are found on this computer.

    Args:
        cache: A folder of blobs by hash, made where it is missing; None keeps nothing.
        budget_bytes: The longest unused blobs leave the cache when it holds more than this.
        folders: Folders with bundles, or with folders of bundles, as `edgesdk deploy` makes.
    """

    def __init__(
        self,
        *,
        cache: Path | None = None,
        budget_bytes: int = 2 << 30,
        folders: Sequence[Path] = (),
    ) -> None:
        self._cache = cache
        self._budget_bytes = budget_bytes
        self._folders = tuple(folders)
        self._stores: list[Path] | None = None

    def find(self, sha256: str, size: int) -> Path | None:
        """Give a file that should have those bytes, or None."""
        if not is_sha256(sha256):
            return None
        for folder in self._places():
            path = folder / sha256
            try:
                seen = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(seen.st_mode) and seen.st_size == size:
                return path
        return None

    def keep(self, source: BlobSource) -> None:
        """Keep the blobs of a bundle that was deployed."""
        if self._cache is None:
            return
        with contextlib.suppress(OSError):
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            for sha256, size in dict(deployed_blobs(dict(source.manifest))).items():
                if SMALLEST_BYTES <= size <= self._budget_bytes:
                    _put(source.blob_path(sha256), self._cache / sha256)
            self._prune(self._cache)

    def drop(self, sha256: str) -> None:
        """Forget a blob that turned out to have other bytes than its name says."""
        if self._cache is not None and is_sha256(sha256):
            with contextlib.suppress(OSError):
                (self._cache / sha256).unlink()

    def _places(self) -> Iterable[Path]:
        if self._cache is not None:
            yield self._cache
        if self._stores is None:
            self._stores = [
                found
                for folder in self._folders
                for pattern in (BLOBS, f"*/{BLOBS}", f"*/*/{BLOBS}", f"*/*/*/{BLOBS}")
                for found in _glob(folder, pattern)
            ]
        yield from self._stores

    def _prune(self, cache: Path) -> None:
        kept = []
        for path in cache.iterdir():
            seen = path.lstat()
            if is_sha256(path.name):
                kept.append((seen.st_atime_ns, seen.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._budget_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _put(source: Path, place: Path) -> None:
    """Give a blob a name in the cache, appearing there whole, as its newest."""
    if not place.exists():
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=".blob-")
        os.close(handle)
        landing = Path(name)
        try:
            landing.unlink()
            try:
                landing.hardlink_to(source)
            except OSError:
                shutil.copyfile(source, landing)
            landing.replace(place)
        finally:
            landing.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # the time of use: the other one belongs to the bundle, whose file this may be
        os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
