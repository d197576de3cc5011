"""Files of a target's companions, found by name: the shipped ones and those of the user."""

from __future__ import annotations

from pathlib import Path

from edgesdk._resources import resource_dir
from edgesdk.errors import ProfileError
from edgesdk.near import near_misses

__all__ = ["find_named", "named_files"]

#: Of a file, what tells a changed one from the one that was read.
FileState = tuple[int, ...]


def named_files(kind: str, folder: Path | None = None) -> dict[str, Path]:
    """List the files there are, by name; one of the user's own goes before a shipped one.

    Args:
        kind: The folder they lie in, below that of the family files that name them.
        folder: A folder of the user's own; it need not be there.
    """
    folders = [resource_dir("targets") / kind] + ([] if folder is None else [folder])
    return {
        path.stem: path
        for each in folders
        for suffix in (".yml", ".yaml")
        for path in sorted(each.glob(f"*{suffix}"))
    }


def find_named(name: str, files: dict[str, Path], *, what: str) -> tuple[Path, FileState]:
    """Give the file called ``name``, and what changes when it does.

    Args:
        name: Without suffix.
        files: What `named_files` gave.
        what: What they are, for the error.

    Raises:
        ProfileError: There is none of that name, or it cannot be read.
    """
    if name not in files:
        known = sorted(files)
        near = near_misses(name, known)
        raise ProfileError(
            f"cannot find {what} {name[:100]!r}: no file has that name "
            f"(expected one of {', '.join(known)})",
            hint=f"did you mean {' or '.join(near)}?" if near else "",
            name=name[:100],
            near=list(near),
            known=known,
        )
    path = files[name]
    try:
        seen = path.stat()
    except OSError as exc:
        raise ProfileError(
            f"cannot read {what} {path}: {(exc.strerror or str(exc)).lower()}", path=str(path)
        ) from exc
    return path, (seen.st_ino, seen.st_size, seen.st_mtime_ns)
