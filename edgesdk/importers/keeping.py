"""Keep what was imported under what decides it, so that each source is imported once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import ModelError, OutputError
from edgesdk.model.values import Origin

__all__ = [
    "Imported",
    "digest_source",
    "exporters_digest",
    "keep",
    "read_kept",
    "scratch_folder",
]

_RECORD = "origin.json"
_PIECE_BYTES = 1 << 20
_MAX_SOURCE_FILES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """An ONNX file that agrees with its source.

    ``path`` has external data beside it where it is large; ``known`` says that it was made
    before and is unchanged.
    """

    path: Path
    origin: Origin
    known: bool = False


def exporters_digest() -> str:
    """Hash our own importers: another version of them may write another file."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def digest_source(path: Path) -> str:
    """Hash a file, or every file of a folder with its name.

    Raises:
        ModelError: It cannot be read, or has too many files.
    """
    digest = hashlib.sha256()
    try:
        if path.is_file():
            _digest_file(path, digest)
            return digest.hexdigest()
        files = sorted(each for each in path.rglob("*") if each.is_file())
        if len(files) > _MAX_SOURCE_FILES:
            raise ModelError(
                f"cannot import {path}: it has {len(files)} files (expected a model's folder)",
                hint="name the folder of the model itself",
                path=str(path),
            )
        for each in files:
            digest.update(os.fsencode(each.relative_to(path)) + b"\0")
            digest.update(f"{each.stat().st_size}\0".encode())
            _digest_file(each, digest)
    except OSError as exc:
        raise ModelError(
            f"cannot read {path}: {exc.strerror}",
            hint="may your user read it, and is its disk well?",
            path=str(path),
        ) from exc
    return digest.hexdigest()


def _digest_file(path: Path, digest: hashlib._Hash) -> None:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)


@contextlib.contextmanager
def scratch_folder(imports: Path) -> Iterator[Path]:
    """Make a folder beside what is kept, so that keeping is a rename.

    Raises:
        OutputError: Nothing can be written there.
    """
    try:
        imports.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=imports))
    except OSError as exc:
        raise OutputError(
            f"cannot write into {imports}: {exc.strerror or exc}",
            hint="the setting 'imports_dir' names another folder",
            path=str(imports),
        ) from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def keep(folder: Path, model: Path, *, name: str, origin: Origin, place: Path) -> Imported:
    """Move the model, its data and its origin to their place, the folder at once.

    Args:
        folder: A folder of `scratch_folder` with the model and what belongs to it.
        model: The ONNX file in it.
        name: What the file is to be called, without its ending.
        origin: What it came from.
        place: Where it is kept.

    Raises:
        OutputError: It cannot be written.
    """
    part, label = folder / "kept", f"{name}.onnx"
    try:
        part.mkdir()
        for each in folder.iterdir():
            # external data has names of the exporter's choosing, beside the model
            if each.is_file() and each.suffix not in (".npz", ".json"):
                shutil.move(each, part / each.name)
        (part / model.name).replace(part / label)
        record = {
            "schema": 1,
            "model": label,
            "files": {each.name: digest_source(each) for each in sorted(part.iterdir())},
            "origin": origin.to_json(),
        }
        (part / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        made = read_kept(place)  # another process was faster
        if made is not None:
            return made
        if place.exists():  # what is there is broken
            shutil.rmtree(place)
        part.replace(place)
    except OSError as exc:
        raise OutputError(
            f"cannot keep the import in {place}: {exc.strerror or exc}",
            hint="is there room? the setting 'imports_dir' names another folder",
            path=str(place),
        ) from exc
    return Imported(path=place / label, origin=origin)


def read_kept(place: Path) -> Imported | None:
    """Give what was kept, if it is whole: every file has the bytes that were proven."""
    try:
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        values = dict(record["origin"])
        values["notes"] = tuple(values["notes"])
        files = dict(record["files"])
        there = {each.name for each in place.iterdir()} - {_RECORD}
        if set(files) != there or any(
            digest_source(place / name) != sha256 for name, sha256 in files.items()
        ):
            return None
        return Imported(path=place / str(record["model"]), origin=Origin(**values), known=True)
    except (OSError, ValueError, KeyError, TypeError, ModelError):
        return None
