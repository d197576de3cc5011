"""The folder in which one deployment leaves its bundle, receipt and report."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import InputError, OutputError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.bundle.store import Bundle

__all__ = [
    "BASELINE",
    "BUNDLE",
    "CONTEST",
    "find_bundle",
    "held_bundle",
    "prepare_run_folder",
    "run_folder",
]

BUNDLE = "bundle"
BASELINE = "baseline"
#: Bundles of a contest's backends, in a folder for each; the winner's moves to its place.
CONTEST = "contest"
RECEIPT = "deployment.json"
_REPORTS = ("report.json", "report.html", "evaluation.json")
_OWN = frozenset({BUNDLE, BASELINE, CONTEST, RECEIPT, *_REPORTS})
_REPORT_START_BYTES = 4096


def run_folder(settings: Settings, *, model: str, target: str) -> Path:
    """Name a folder for one run: ``<model>-<target>-<UTC time>`` under the runs folder."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{model}-{target}-{stamp}"
    path = settings.runs_dir / name
    number = 1
    while path.exists():  # two runs within a second
        number += 1
        path = settings.runs_dir / f"{name}-{number}"
    return path


def prepare_run_folder(path: Path) -> None:
    """Make sure that ``path`` is new, empty, or a run folder of ours that may be replaced.

    Raises:
        OutputError: It holds something else, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        entries = sorted(entry.name for entry in path.iterdir())
    except OSError as exc:
        raise OutputError(
            f"cannot write to {path}: {exc.strerror or exc}",
            hint="name another folder with --output",
            path=str(path),
        ) from exc
    foreign = [name for name in entries if name not in _OWN or not _is_ours(path / name)]
    if foreign:
        raise OutputError(
            f"cannot write to {path}: it holds {foreign[0]}, which edgesdk did not write",
            hint="name a new or empty folder with --output",
            path=str(path),
            foreign=foreign[:20],
        )


def _entries(folder: Path) -> list[Path]:
    """List a folder; what is none counts as its own entry."""
    return list(folder.iterdir()) if folder.is_dir() else [folder]


def _is_contestant(path: Path) -> bool:
    """Say whether it is a bundle of a contest, or folders by backend and precision of such."""
    if path.name.startswith("."):
        return True
    if path.name in (BUNDLE, BASELINE) or not path.is_dir():
        return _is_ours(path)
    return all(_is_contestant(each) for each in path.iterdir())


def _is_ours(path: Path) -> bool:
    from edgesdk.bundle.store import is_bundle_folder

    if path.name in (BUNDLE, BASELINE):
        return is_bundle_folder(path)
    if path.name == CONTEST:
        return all(_is_contestant(each) for each in _entries(path))
    if path.name == "report.html":
        return (path.parent / "report.json").is_file()
    try:
        with path.open("rb") as stream:
            start = stream.read(_REPORT_START_BYTES)
    except OSError:
        return False
    return b'"edgesdk.' in start


def write_receipt(path: Path, content: dict[str, object]) -> None:
    """Write the receipt of a deployment into its run folder.

    Raises:
        OutputError: It cannot be written.
    """
    text = json.dumps({"schema": "edgesdk.deployment/1", **content}, indent=2) + "\n"
    try:
        (path / RECEIPT).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise OutputError(
            f"cannot write {path / RECEIPT}: {exc.strerror or exc}",
            hint="the device has the release; is there room here, and may you write there?",
            path=str(path),
        ) from exc


def find_bundle(settings: Settings, bundle_id: str) -> Path | None:
    """Look under the runs folder for the bundle with that id."""
    from edgesdk.bundle.store import MANIFEST, read_bundle
    from edgesdk.errors import BundleError

    for manifest in sorted(settings.runs_dir.glob(f"*/*/{MANIFEST}"), reverse=True):
        try:
            if read_bundle(manifest.parent).id == bundle_id:
                return manifest.parent
        except BundleError:
            continue
    return None


def held_bundle(
    settings: Settings,
    bundle_id: str,
    folder: Path | None,
    *,
    doing: str = "measure",
    option: str = "--bundle",
    needed: bool = True,
) -> Bundle | None:
    """Read the bundle with that id from ``folder``, the runs folder, or where it was measured.

    Args:
        settings: Where the runs folder and the history are.
        bundle_id: Its id.
        folder: What the user named: a bundle's folder, or that of a deployment.
        doing: What it is wanted for, for messages.
        option: With which option a user names it.
        needed: Whether it is an error if it is not found; else None is given.

    Raises:
        InputError: It is not there, or the folder holds another.
    """
    from edgesdk.bundle.store import is_bundle_folder, read_bundle

    if folder is None:
        folder = find_bundle(settings, bundle_id) or _where_it_was(settings, bundle_id)
        if folder is None:
            if not needed:
                return None
            raise InputError(
                f"cannot {doing} {bundle_id[:12]}: its bundle is neither under "
                f"{settings.runs_dir} nor where it was measured before",
                hint=f"name the bundle's folder with {option}",
                bundle=bundle_id,
            )
    elif not is_bundle_folder(folder) and is_bundle_folder(folder / BUNDLE):
        folder = folder / BUNDLE
    held = read_bundle(folder)
    if held.id != bundle_id:
        raise InputError(
            f"cannot {doing} {bundle_id[:12]} with {folder}: that is bundle {held.id[:12]}",
            hint="edgesdk releases shows which bundles a device holds",
            bundle=bundle_id,
            given=held.id,
        )
    return held


def _where_it_was(settings: Settings, bundle_id: str) -> Path | None:
    """Look where the history says that the bundle lay."""
    from edgesdk.bench.history import History
    from edgesdk.bundle.store import read_bundle
    from edgesdk.errors import BundleError, HistoryError

    folders: tuple[str, ...] = ()
    with contextlib.suppress(HistoryError), History(settings.history, make=False) as history:
        folders = history.folders(bundle_id)
    for folder in folders:
        # a folder may be gone, or be named as no folder can be
        with contextlib.suppress(BundleError, ValueError):
            if read_bundle(Path(folder)).id == bundle_id:
                return Path(folder)
    return None
