"""Write a bundle folder: blobs first, manifest last, visible at once or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgesdk.bundle.store import BLOBS, MANIFEST, Bundle, is_bundle_folder, read_bundle
from edgesdk.errors import OutputError
from edgesdk.wire.manifest import canonical_bytes

__all__ = ["BundleWriter", "move_bundle"]

_PIECE_BYTES = 1 << 20


class BundleWriter:
    """Collects blobs in a hidden folder beside ``out``; `finish` renames it into place.

    Use it in a ``with`` block: what was not finished is removed.

    Raises:
        OutputError: ``out`` exists and is not a bundle, or nothing may be written there.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        if out.exists() and not is_bundle_folder(out) and not _is_empty_folder(out):
            raise OutputError(
                f"cannot write bundle to {out}: it exists and is not a bundle",
                hint="name a folder that does not exist yet",
                path=str(out),
            )
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self.folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            (self.folder / BLOBS).mkdir()
        except OSError as exc:
            raise _not_written(out, exc) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_bytes(self, data: bytes) -> dict[str, Any]:
        """Store ``data`` as a blob and give its record (``sha256``, ``bytes``).

        Raises:
            OutputError: It cannot be written.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / BLOBS / sha256
        with self._telling():
            if not path.exists():
                path.write_bytes(data)
        return {"sha256": sha256, "bytes": len(data)}

    def add_file(self, source: Path) -> dict[str, Any]:
        """Store a copy of the file ``source`` as a blob and give its record.

        Raises:
            OutputError: It cannot be written.
            OSError: ``source`` cannot be opened.
        """
        digest = hashlib.sha256()
        size = 0
        landing = self.folder / BLOBS / ".landing"
        with source.open("rb") as stream, self._telling():
            with landing.open("wb") as copy:
                while piece := stream.read(_PIECE_BYTES):
                    digest.update(piece)
                    copy.write(piece)
                    size += len(piece)
            landing.rename(self.folder / BLOBS / digest.hexdigest())
        return {"sha256": digest.hexdigest(), "bytes": size}

    def blob_path(self, sha256: str) -> Path:
        """Where a blob that was added lies until `finish`."""
        return self.folder / BLOBS / sha256

    def finish(self, manifest: dict[str, Any]) -> Bundle:
        """Write the manifest, check the whole, and put the bundle in its place.

        A bundle that was there before is replaced as a whole.

        Raises:
            OutputError: It cannot be written.
            BundleError: The manifest contradicts itself or the blobs.
        """
        with self._telling():
            (self.folder / MANIFEST).write_bytes(canonical_bytes(manifest))
            read_bundle(self.folder)
            self.folder.chmod(0o755)
        return _put(self.folder, self.out)

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say of a disk that refuses which bundle could not be written."""
        try:
            yield
        except OSError as exc:
            raise _not_written(self.out, exc) from exc


def move_bundle(bundle: Bundle, out: Path) -> Bundle:
    """Move a bundle to another folder of the same disk; one that is there goes.

    Raises:
        OutputError: ``out`` cannot be written, or holds something that is not a bundle.
    """
    if out.exists() and not is_bundle_folder(out):
        raise OutputError(
            f"cannot move bundle to {out}: it exists and is not a bundle", path=str(out)
        )
    return _put(bundle.folder, out)


def _put(folder: Path, out: Path) -> Bundle:
    """Give a whole bundle folder its place; what was there goes after that."""
    try:
        if out.exists():
            retired = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            out.rename(retired / "old")
            folder.rename(out)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            folder.rename(out)
    except OSError as exc:
        raise _not_written(out, exc) from exc
    return read_bundle(out)


def _not_written(out: Path, exc: OSError) -> OutputError:
    return OutputError(
        f"cannot write bundle to {out}: {exc.strerror or exc}",
        hint="is there room, and may you write there?",
        path=str(out),
    )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
