"""What a runtime compiled on this very device, kept true and small. Worker only.

Below the folder there is one folder for each key, and the key holds all that a compiled blob
rests on: driver, versions, device, model. What another driver or version left is never looked
at, and removed; beyond a bound, what was used longest ago goes first.

A blob is code for a driver, so a damaged one is not shown to it: what a folder holds is sealed
with its hashes when it is complete, and what the seal does not speak for is removed and made
anew. An attempt that took the process with it leaves its mark and counts as damage too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any, Dict, List, Optional

__all__ = ["MAX_CACHE_BYTES", "cache_folder", "file_sha256", "open_folder", "seal", "tidy"]

MAX_CACHE_BYTES = 512 << 20
_PIECE_BYTES = 1 << 20
_SEAL = "seal.json"
_MOST_SEAL_BYTES = 1 << 20


def file_sha256(paths: List[str]) -> str:
    """Hash files, one after the other, with their sizes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update("{}\n".format(os.path.getsize(path)).encode("ascii"))
        with open(path, "rb") as stream:
            piece = stream.read(_PIECE_BYTES)
            while piece:
                digest.update(piece)
                piece = stream.read(_PIECE_BYTES)
    return digest.hexdigest()


def cache_folder(root: str, made_by: Dict[str, Any], model: str) -> str:
    """Make, or find again, the folder for one model on one state of the device.

    Args:
        root: The runtime's folder.
        made_by: Driver, versions, device: what a blob is good for. Plain data.
        model: Hash of the model and of all options it is compiled with.

    Raises:
        OSError: It cannot be made.
    """
    state = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode("utf-8")).hexdigest()[:24]
    folder = os.path.join(root, "{}-{}".format(state, model[:40]))
    os.makedirs(root, mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    os.utime(folder)
    return folder


def open_folder(folder: str) -> bool:
    """Make sure that a folder holds only what was sealed, and break the seal.

    Until `seal` is called, what is there counts as damaged.

    Returns:
        Whether something was removed.
    """
    path = os.path.join(folder, _SEAL)
    try:
        with open(path, "rb") as stream:
            told = json.loads(stream.read(_MOST_SEAL_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        told = None
    _remove(path)
    names = sorted(os.listdir(folder))
    if told is not None and told == _hashes(folder):
        return False
    for name in names:
        _remove(os.path.join(folder, name))
    return bool(names)


def seal(folder: str) -> None:
    """Note what a folder holds, now that it is complete; one with links in it stays unsealed.

    Where the note cannot be written, a full disk say, it is made anew the next time.
    """
    found = _hashes(folder)
    path = os.path.join(folder, _SEAL)
    with contextlib.suppress(OSError):
        with open(path + ".new", "w", encoding="utf-8") as stream:
            json.dump(found, stream)
        os.replace(path + ".new", path)


def _hashes(folder: str) -> Optional[Dict[str, str]]:
    """Give the hash of every file by its path in the folder.

    None where one cannot be read, or is no plain file: no seal speaks for that.
    """
    found = {}
    try:
        for inner, folders, names in os.walk(folder, onerror=_raise):
            paths = [os.path.join(inner, name) for name in folders + names]
            if any(os.path.islink(path) for path in paths):
                return None
            for path in paths[len(folders) :]:
                if not os.path.isfile(path):
                    return None
                found[os.path.relpath(path, folder)] = file_sha256([path])
    except OSError:
        return None
    return found


def _raise(exc: OSError) -> None:
    raise exc


def tidy(root: str, keep: str, *, limit_bytes: int = MAX_CACHE_BYTES) -> List[str]:
    """Remove what another state of the device left, then the oldest beyond the bound.

    Args:
        root: The runtime's folder.
        keep: The folder in use, which stays.
        limit_bytes: What all folders may hold together.

    Returns:
        The names of what was removed.
    """
    state = os.path.basename(keep).partition("-")[0]
    removed = []
    kept = []  # type: List[Tuple[float, str, int]]
    for name in sorted(os.listdir(root)):
        path = os.path.join(root, name)
        if path == keep:
            continue
        if name.partition("-")[0] != state:
            _remove(path)
            removed.append(name)
            continue
        with contextlib.suppress(OSError):
            kept.append((os.stat(path).st_mtime, path, _bytes_of(path)))
    total = _bytes_of(keep) + sum(size for _, _, size in kept)
    for _, path, size in sorted(kept):
        if total <= limit_bytes:
            break
        _remove(path)
        removed.append(os.path.basename(path))
        total -= size
    return removed


def _bytes_of(path: str) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


def _remove(path: str) -> None:
    """Remove a file or a whole folder; links are removed, never followed."""
    if os.path.islink(path) or not os.path.isdir(path):
        with contextlib.suppress(OSError):
            os.unlink(path)
        return
    for folder, folders, names in os.walk(path, topdown=False):
        for name in names + folders:
            inner = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                if os.path.isdir(inner) and not os.path.islink(inner):
                    os.rmdir(inner)
                else:
                    os.unlink(inner)
    with contextlib.suppress(OSError):
        os.rmdir(path)
