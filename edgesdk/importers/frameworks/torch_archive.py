"""Read the records of a PyTorch archive within bounds, and tell what it holds.

PyTorch's files are zip archives with one folder in them. They are read here with Python's own
zip reader, never handed to PyTorch unread: whoever checks one reading of an archive and loads
another can be told two different stories by one file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgesdk.importers.archives import ZIP_ERRORS
from edgesdk.importers.job import CannotExport

__all__ = ["FOLDER", "WHOLE_HINT", "Archive", "opened_archive"]

#: The folder in archives that are written here.
FOLDER = "model"
_MAX_RECORDS = 200_000
_PIECE_BYTES = 1 << 20
WHOLE_HINT = "was the copy or the download interrupted? save the model again"
#: Code and notes are deflated, weights never are; so this bounds what can be blown up.
_MAX_DEFLATED_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An archive that is open for reading.

    Attributes:
        path: The file.
        records: Each record by its name without the archive's own folder.
    """

    path: Path
    records: dict[str, zipfile.ZipInfo]
    zipped: zipfile.ZipFile

    def read(self, name: str, *, at_most: int = _MAX_DEFLATED_BYTES) -> bytes:
        """Read one record.

        Raises:
            CannotExport: There is none of that name, it is too long or spoilt.
        """
        info = self.records.get(name)
        if info is None:
            raise self._missing(name)
        if info.file_size > at_most:
            raise CannotExport(
                f"cannot read {self.path.name}: record {name} has {info.file_size} bytes "
                f"(at most {at_most} are expected)",
                hint=WHOLE_HINT,
                record=name,
            )
        try:
            return self.zipped.read(info)
        except ZIP_ERRORS as exc:
            raise _spoilt(self.path, f"record {name}: {exc}") from exc

    def copy(self, name: str, out: zipfile.ZipFile) -> None:
        """Write one record into another archive, whose folder is `FOLDER`.

        Raises:
            CannotExport: There is none of that name, or it is spoilt.
        """
        info = self.records.get(name)
        if info is None:
            raise self._missing(name)
        try:
            with (
                self.zipped.open(info) as source,
                out.open(f"{FOLDER}/{name}", "w", force_zip64=True) as target,
            ):
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)
        except ZIP_ERRORS as exc:
            raise _spoilt(self.path, f"record {name}: {exc}") from exc

    def below(self, folder: str) -> list[str]:
        """Name the records of a folder, which ends in a slash."""
        return [name for name in self.records if name.startswith(folder)]

    def _missing(self, name: str) -> CannotExport:
        return CannotExport(
            f"cannot read {self.path.name}: record {name} is missing",
            hint=WHOLE_HINT,
            record=name,
        )


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Open an archive and bound what its records may amount to.

    Raises:
        CannotExport: It is no zip archive, is cut short, or its records claim more bytes than
            they can have.
    """
    try:
        zipped = zipfile.ZipFile(path)
    except ZIP_ERRORS as exc:
        raise _spoilt(path, str(exc)) from exc
    with zipped:
        infos = zipped.infolist()
        _check_bounds(path, infos)
        records = {}
        for info in infos:
            _, _, name = info.filename.partition("/")
            if name and not name.endswith("/"):
                if name in records:
                    raise _spoilt(path, f"record {name[:100]} is there twice")
                records[name] = info
        yield Archive(path=path, records=records, zipped=zipped)


def _check_bounds(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > _MAX_RECORDS:
        raise _spoilt(path, f"it has {len(infos)} records (at most {_MAX_RECORDS})")
    stored = sum(info.file_size for info in infos if info.compress_type == zipfile.ZIP_STORED)
    size = path.stat().st_size
    if stored > size:
        raise _spoilt(path, f"its records claim {stored} bytes and the file has {size}")
    deflated = sum(info.file_size for info in infos if info.compress_type != zipfile.ZIP_STORED)
    if deflated > _MAX_DEFLATED_BYTES:
        raise _spoilt(
            path,
            f"its compressed records unpack to {deflated} bytes "
            f"(at most {_MAX_DEFLATED_BYTES})",
        )


def _spoilt(path: Path, seen: str) -> CannotExport:
    return CannotExport(
        f"cannot read {path.name}: {seen}",
        hint=WHOLE_HINT,
    )
