"""Virtual boards: made by one call, kept in the user's cache, made anew when they are broken.

A board is built in a folder beside its place and renamed when it has proven that both runtimes
load in it, so that a half-made one is never entered; a lock keeps two processes from building
at once. Its listing says what has to be there, and a fingerprint of what makes it is kept with
it: a board of an older edgesdk is made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edgesdk.devices.agentpack import pack_agent
from edgesdk.errors import BootstrapError
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress
from edgesdk.testing.boards.commands import run_program
from edgesdk.testing.boards.host import NATIVE, why_not_here
from edgesdk.testing.boards.packages import fetch_packages
from edgesdk.testing.boards.spec import BoardSpec, EmulatedSpec, MachineSpec, find_spec
from edgesdk.testing.boards.system import PACKAGES_THERE, assemble_system
from edgesdk.testing.boards.vm import MADE_OF, make_machine
from edgesdk.testing.boards.wheels import fetch_wheels
from edgesdk.transport.virtual import (
    HOME_THERE,
    LISTING,
    PYTHON_THERE,
    BoardFolder,
    board_cache,
)

__all__ = ["VirtualBoard", "set_up_board", "why_no_board", "why_stale"]

_RECORD = "board.json"
_ENTER = Path(__file__).parent / "enter.sh"
_PROVE_S = 300.0
_STEPS = 5
#: Runs in the new board. What it imports is compiled on the way, and the board keeps that.
_PROOF = """
import json, platform, sys
import argparse, ctypes, inspect, logging, subprocess, tempfile, zipimport
import numpy, onnxruntime
import ai_edge_litert, ai_edge_litert.interpreter
print(json.dumps({
    "machine": platform.machine(),
    "python": platform.python_version(),
    "numpy": numpy.__version__,
    "onnxruntime": onnxruntime.__version__,
    "ai_edge_litert": ai_edge_litert.__version__,
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualBoard:
    """A board that can be entered.

    Attributes:
        folder: Where it is.
        versions: Machine, interpreter and runtimes, as they answered when it was made.
        made: Whether this call made it.
        seconds: How long that took; 0 if it was there.
        size_bytes: Room it takes on the disk.
    """

    folder: BoardFolder
    versions: Mapping[str, str]
    made: bool
    seconds: float
    size_bytes: int

    @property
    def name(self) -> str:
        """As in ``virtual:NAME``."""
        return self.folder.name


def _fingerprint(spec: BoardSpec) -> str:
    """Hash all that decides what a board becomes, but for what Debian's mirror has that day."""
    parts = [json.dumps(asdict(spec), sort_keys=True, default=sorted).encode("utf-8")]
    here = Path(__file__).parent
    made_of = MADE_OF if isinstance(spec, MachineSpec) else (_ENTER, here / "system.py")
    parts += [path.read_bytes() for path in (spec.requirements, *made_of)]
    parts.append(_PROOF.encode("utf-8"))
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _read_record(folder: BoardFolder) -> dict[str, object]:
    try:
        record = json.loads((folder.path / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def why_stale(name: str) -> str | None:
    """Say why a board has to be made, or made anew, or None if it is as it should be.

    Raises:
        InventoryError: There is no such board.
    """
    spec, folder = find_spec(name), BoardFolder.of(name)
    problem = folder.why_unusable()
    if problem is None and _read_record(folder).get("fingerprint") != _fingerprint(spec):
        problem = "it was made by another version of edgesdk"
    return problem


def why_no_board(name: str = "arm64") -> str | None:
    """Say why a board cannot be had on this computer, and what to do, or None.

    Raises:
        InventoryError: There is no such board.
    """
    refused = why_not_here(find_spec(name), board_cache())
    return None if refused is None else "; ".join(refused)


def _described(folder: BoardFolder, *, made: bool, seconds: float) -> VirtualBoard:
    record = _read_record(folder)
    versions, size_bytes = record.get("versions"), record.get("size_bytes")
    return VirtualBoard(
        folder=folder,
        versions={str(k): str(v) for k, v in versions.items()}
        if isinstance(versions, dict)
        else {},
        made=made,
        seconds=seconds,
        size_bytes=size_bytes if isinstance(size_bytes, int) else 0,
    )


@contextlib.contextmanager
def _alone(folder: BoardFolder, on_note: OnNote) -> Iterator[None]:
    """Hold the lock under which boards are made."""
    folder.path.parent.mkdir(parents=True, exist_ok=True)
    with (folder.path.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_note(f"another process makes the virtual board {folder.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def set_up_board(
    name: str = "arm64",
    *,
    again: bool = False,
    on_progress: OnProgress = ignore_progress,
    on_note: OnNote = ignore_note,
) -> VirtualBoard:
    """Give a virtual board, making it unless it is there, whole, and of this edgesdk.

    Packages come from Debian's mirror and wheels from the package index; both stay in the
    cache. What the board keeps of its own, its releases, is not touched.

    Args:
        name: Which.
        again: Make it anew even if nothing is wrong with it.
        on_progress: Told of each step.
        on_note: Told why it is made, once, if it is made.

    Raises:
        InventoryError: There is no such board.
        BootstrapError: It cannot be made here; the text names what is missing or forbidden.
    """
    spec, folder = find_spec(name), BoardFolder.of(name)
    if not again and why_stale(name) is None:
        return _described(folder, made=False, seconds=0.0)
    try:
        with _alone(folder, on_note):
            problem = why_stale(name)
            if problem is None and not again:  # another process made it meanwhile
                return _described(folder, made=False, seconds=0.0)
            refused = why_not_here(spec, folder.path.parent)
            if refused is not None:
                raise BootstrapError(
                    f"cannot make the virtual board {name}: {refused[0]}", hint=refused[1]
                )
            on_note(
                f"making the virtual board {name} in {folder.path}, because "
                f"{problem or 'it was asked for'}: of Debian {spec.suite} {spec.contents}; it "
                "takes a minute"
            )
            began = time.monotonic()
            _make(spec, folder, on_progress)
            return _described(folder, made=True, seconds=time.monotonic() - began)
    except OSError as exc:
        raise BootstrapError(
            f"cannot make the virtual board {name} in {folder.path}: {exc.strerror or exc}",
            hint="is there room on the disk? XDG_CACHE_HOME names another folder",
            folder=str(folder.path),
        ) from exc


def _make(spec: BoardSpec, folder: BoardFolder, on_progress: OnProgress) -> None:
    """Make the board beside its place and move it there."""
    cache = folder.path.parent

    def step(number: int) -> None:
        on_progress(Progress(step=f"make board {spec.name}", done=number, total=_STEPS))

    step(0)
    for left in cache.glob(f".{spec.name}.*.partial"):  # of a run that was killed
        shutil.rmtree(left)
    partial = cache / f".{spec.name}.{os.getpid()}.partial"
    # the folder's name is the host's name, and the script finds its files beside it
    part = BoardFolder(name=spec.name, path=partial / spec.name)
    scratch = partial / "scratch"
    for each in (part.path, scratch):
        each.mkdir(parents=True)
    try:
        if isinstance(spec, MachineSpec):
            versions = make_machine(spec, part, cache=cache, scratch=scratch, step=step)
        else:
            assert isinstance(spec, EmulatedSpec)
            versions = _make_emulated(spec, part, cache=cache, scratch=scratch, step=step)
        _write_record(spec, part, versions)
        _put_in_place(part.path, folder.path, scratch)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    step(_STEPS)


def _make_emulated(
    spec: EmulatedSpec,
    part: BoardFolder,
    *,
    cache: Path,
    scratch: Path,
    step: Callable[[int], None],
) -> dict[str, str]:
    """Make a board whose programs are emulated one by one, and give the versions it says."""
    root, native = part.path / "root", NATIVE[platform.machine()]
    root.mkdir()
    files = fetch_packages(
        cache / "debian",
        suite=spec.suite,
        architecture=spec.architecture,
        native=native,
        packages=(*spec.packages, f"{spec.emulator_package}:{native}"),
    )
    step(1)
    emulators = [f for f in files if f.name.startswith(f"{spec.emulator_package}_")]
    assemble_system(
        root,
        spec,
        packages=[file for file in files if file not in emulators],
        emulator_package=emulators[0],
        scratch=scratch,
    )
    step(2)
    fetch_wheels(
        root / PACKAGES_THERE.format(python=spec.python),
        spec.requirements,
        python=spec.python,
        platforms=spec.wheel_platforms,
    )
    step(3)
    (part.path / "enter").write_bytes(_ENTER.read_bytes())
    (part.path / "cpuinfo").write_text(spec.cpuinfo)
    (part.path / "cpu").write_text(spec.cpu)
    versions = _prove(spec, part, scratch)
    step(4)
    return versions


def _prove(spec: BoardSpec, part: BoardFolder, scratch: Path) -> dict[str, str]:
    """Load both runtimes and the agent in the new board and give the versions.

    Raises:
        BootstrapError: They do not load, or the board is of another machine.
    """
    doing = f"use the virtual board {spec.name} that was made"
    hint = "please report this"
    home = scratch / "home"
    home.mkdir()
    agent = home / "agent.pyz"
    agent.write_bytes(pack_agent().data)

    def run(*command: str) -> str:
        return run_program(
            part.enter_command(home, [PYTHON_THERE, *command], writable=True),
            doing=doing,
            timeout_s=_PROVE_S,
            hint=hint,
        )

    said = run("-c", _PROOF).strip().splitlines()
    run("-I", "-S", f"{HOME_THERE}/{agent.name}", "facts", "--python", PYTHON_THERE)
    try:
        versions = json.loads(said[-1])
        machine = versions["machine"]
    except (IndexError, ValueError, TypeError, KeyError):
        machine = versions = None
    if machine != spec.machine:
        seen = said[-1:] or "nothing"
        raise BootstrapError(f"cannot {doing}: it said {seen}", hint=hint)
    return {str(key): str(value) for key, value in versions.items()}


def _write_record(spec: BoardSpec, part: BoardFolder, versions: Mapping[str, str]) -> None:
    lines, size_bytes = [], 0
    for folder, _, names in os.walk(part.path):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - thousands of files
            size = os.lstat(path).st_size
            size_bytes += size
            lines.append(f"{size}\t{os.path.relpath(path, part.path)}\n")
    record = {
        "schema": 1,
        "name": spec.name,
        "fingerprint": _fingerprint(spec),
        "versions": dict(versions),
        "size_bytes": size_bytes,
    }
    (part.path / _RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    (part.path / LISTING).write_text("".join(sorted(lines)), encoding="utf-8")


def _put_in_place(made: Path, place: Path, scratch: Path) -> None:
    """Rename the new board to its place; what was there goes away with the scratch folder."""
    if place.is_dir() and not place.is_symlink():
        place.rename(scratch / "old")
    else:
        place.unlink(missing_ok=True)
    made.rename(place)
