"""The folder in which one deployment leaves its bundle, receipt and report."""

from __future__ import annotations

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


def _is_ours(path: Path) -> bool:
    from edgesdk.bundle.store import is_bundle_folder

    if path.name in (BUNDLE, BASELINE):
        return is_bundle_folder(path)
    if path.name == CONTEST:
        inside = [each for folder in path.glob("*") for each in _entries(folder)]
        return all(_is_ours(each) for each in inside if not each.name.startswith("."))
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
    settings: Settings, bundle_id: str, folder: Path | None, *, doing: str
) -> Bundle | None:
    """Read the bundle of a release: from ``folder``, else from the runs folder.

    Args:
        settings: Where the runs folder is.
        bundle_id: The release's bundle.
        folder: A bundle's folder, or that of a run which has one; None looks for it.
        doing: What it is wanted for, for messages: ``"measure"``.

    Returns:
        The bundle; None where nobody named a folder and none is found.

    Raises:
        InputError: The folder holds another bundle.
        BundleError: It is no bundle's folder.
    """
    from edgesdk.bundle.store import is_bundle_folder, read_bundle

    if folder is None:
        folder = find_bundle(settings, bundle_id)
        if folder is None:
            return None
    elif not is_bundle_folder(folder) and is_bundle_folder(folder / BUNDLE):
        folder = folder / BUNDLE
    held = read_bundle(folder)
    if held.id != bundle_id:
        raise InputError(
            f"cannot {doing} {bundle_id[:12]} with {folder}: that is bundle {held.id[:12]}",
            hint="edgesdk releases shows which bundles the device holds",
            bundle=bundle_id,
            given=held.id,
        )
    return held
