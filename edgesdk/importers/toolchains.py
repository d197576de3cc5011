"""Environments of importers: made once by pip, kept in a folder, never half made.

Each is a virtual environment of its own, so that frameworks whose dependencies fight never
meet. It counts only once its last file, the record, is there: that is written after its
modules have been loaded in it. What a kill left behind has no record and is cleared away by
whoever makes it next, under a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import ToolchainError
from edgesdk.importers.pip_run import install_packages
from edgesdk.importers.toolchain_spec import ToolchainSpec
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress

__all__ = ["Toolchain", "Toolchains"]

_RECORD = "toolchain.json"
_DIGEST_CHARS = 12
_OURS = re.compile(r"[a-z][a-z0-9-]*-[0-9a-f]{12}")
_PROVE_S = 600.0
_FIND_S = 20.0
#: Runs in the new environment; what it imports is compiled on the way and stays so.
_PROOF = """
import importlib, importlib.metadata, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """An environment that is there.

    Attributes:
        name: Of the toolchain it was made from.
        digest: Of what decided it; another one means it was made from another list.
        folder: Where it is.
        versions: Version by package, as they were when it was made.
        python: Version of its interpreter.
        size_bytes: Room it takes on the disk.
        seconds: How long making it took.
    """

    name: str
    digest: str
    folder: Path
    versions: Mapping[str, str]
    python: str
    size_bytes: int
    seconds: float

    @property
    def interpreter(self) -> Path:
        """The program that runs in it."""
        return self.folder / "bin" / "python"


class Toolchains:
    """The folder that holds them, one folder each."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def present(self) -> list[Toolchain]:
        """List those that are there and whole, of this edgesdk's lists or of others."""
        found = [_read(folder) for folder in sorted(self._folders())]
        return [one for one in found if one is not None]

    def find(self, spec: ToolchainSpec) -> Toolchain | None:
        """Give the one made from this list, for any interpreter that it takes."""
        for minor in range(spec.oldest, spec.below):
            found = _read(self._folder(spec, minor))
            if found is not None:
                return found
        return None

    def make(
        self,
        spec: ToolchainSpec,
        *,
        again: bool = False,
        wheels: Path | None = None,
        on_progress: OnProgress = ignore_progress,
        on_note: OnNote = ignore_note,
    ) -> Toolchain:
        """Give the environment, making it unless it is there.

        Args:
            spec: What it is made of.
            again: Make it anew even if it is there.
            wheels: A folder with every wheel; the package index is not asked then.
            on_progress: Told how many packages have come.
            on_note: Told that it is made, once, and where.

        Raises:
            ToolchainError: It cannot be made; nothing of it is left behind.
        """
        if not again:
            found = self.find(spec)
            if found is not None:
                return found
        interpreter = _find_interpreter(spec)
        folder = self._folder(spec, interpreter[1])
        try:
            with _alone(self.root, spec.name, on_note):
                found = None if again else _read(folder)
                if found is not None:  # another process made it meanwhile
                    return found
                on_note(f"making the toolchain {spec.name} ({spec.about}) in {folder}, once")
                with _in_place_of(folder):
                    return _make(
                        spec, folder, interpreter, wheels=wheels, on_progress=on_progress
                    )
        except OSError as exc:
            raise ToolchainError(
                f"cannot make the toolchain {spec.name} in {folder}: {exc.strerror or exc}",
                hint="is there room on the disk? the setting 'toolchains_dir' names another "
                "folder",
                folder=str(folder),
            ) from exc

    def remove(self, name: str) -> list[Toolchain]:
        """Remove every environment of that name, whole or not; give those that were whole.

        Raises:
            ToolchainError: It cannot be removed.
        """
        folders = [each for each in self._folders() if each.name.rpartition("-")[0] == name]
        gone: list[Toolchain] = []
        if not folders:
            return gone
        try:
            with _alone(self.root, name, ignore_note):
                for folder in sorted(folders):
                    found = _read(folder)
                    _clear(folder)
                    if found is not None:
                        gone.append(found)
        except OSError as exc:
            raise ToolchainError(
                f"cannot remove the toolchain {name} from {self.root}: {exc.strerror}",
                hint="may your user write there?",
                folder=str(self.root),
            ) from exc
        return gone

    def _folders(self) -> list[Path]:
        """List the folders whose names are of our making, whole or not."""
        try:
            return [each for each in self.root.iterdir() if _OURS.fullmatch(each.name)]
        except OSError:
            return []

    def _folder(self, spec: ToolchainSpec, minor: int) -> Path:
        return self.root / f"{spec.name}-{spec.digest(minor)[:_DIGEST_CHARS]}"


def _clear(folder: Path) -> None:
    """Remove a folder; its record first, so that no half of it counts if we are killed."""
    (folder / _RECORD).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def _in_place_of(folder: Path) -> Iterator[None]:
    """Make a folder anew; where that fails nothing is left of it, and a whole old one is back.

    An environment works only where it was made, so the old one has to make room.
    """
    aside = folder.with_name(f".{folder.name}.aside")
    if aside.exists():  # of a run that was killed
        shutil.rmtree(aside)
    if _read(folder) is not None:
        folder.rename(aside)
    _clear(folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if aside.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _read(folder: Path) -> Toolchain | None:
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        made = Toolchain(
            name=str(record["name"]),
            digest=str(record["digest"]),
            folder=folder,
            versions={str(k): str(v) for k, v in record["versions"].items()},
            python=str(record["python"]),
            size_bytes=int(record["size_bytes"]),
            seconds=float(record["seconds"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    # the interpreter is a link: it is gone where the Python it was made from was removed
    return made if os.access(made.interpreter, os.X_OK) else None


@contextlib.contextmanager
def _alone(root: Path, name: str, on_note: OnNote) -> Iterator[None]:
    """Hold the lock under which a toolchain is made."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_note(f"another process makes the toolchain {name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _find_interpreter(spec: ToolchainSpec) -> tuple[str, int]:
    """Find a Python that the packages have wheels for: ours if it will do, else on PATH.

    Raises:
        ToolchainError: There is none.
    """
    if spec.takes(sys.version_info.minor):
        return sys.executable, sys.version_info.minor
    for minor in range(spec.below - 1, spec.oldest - 1, -1):
        program = shutil.which(f"python3.{minor}")
        if program is not None and _runs(program, minor):
            return program, minor
    wanted = f"Python 3.{spec.oldest} to 3.{spec.below - 1}"
    raise ToolchainError(
        f"cannot make the toolchain {spec.name}: its packages are there for {wanted}, this is "
        f"Python 3.{sys.version_info.minor}, and no other is on PATH",
        hint=f"install one of {wanted} beside yours; edgesdk finds it as python3.{spec.oldest} "
        "and the like",
        name=spec.name,
    )


def _runs(program: str, minor: int) -> bool:
    code = "import ensurepip, sys; print(sys.version_info[1])"
    try:
        done = subprocess.run(
            [program, "-I", "-c", code],
            capture_output=True,
            text=True,
            timeout=_FIND_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and done.stdout.strip() == str(minor)


def _make(
    spec: ToolchainSpec,
    folder: Path,
    interpreter: tuple[str, int],
    *,
    wheels: Path | None,
    on_progress: OnProgress,
) -> Toolchain:
    program, minor = interpreter
    step, total = f"make toolchain {spec.name}", len(spec.packages) + 2
    began = time.monotonic()

    def count(done: int) -> None:
        on_progress(Progress(step=step, done=min(done, total), total=total, unit="steps"))

    count(0)
    # with the pip of this process there is no need to unpack another
    shared = program == sys.executable and importlib.util.find_spec("pip") is not None
    options = ["--without-pip"] if shared else []
    _run(spec, [program, "-I", "-m", "venv", *options, str(folder)], "make its folder")
    count(1)
    inside = str(folder / "bin" / "python")
    pip = (
        [sys.executable, "-I", "-m", "pip", "--python", inside]
        if shared
        else [inside, "-I", "-m", "pip"]
    )
    install_packages(spec, pip, wheels=wheels, on_package=lambda seen: count(1 + seen))
    said = _run(spec, [inside, "-I", "-c", _PROOF, *spec.imports], "load its modules")
    record = {
        "schema": 1,
        "name": spec.name,
        "digest": spec.digest(minor)[:_DIGEST_CHARS],
        "versions": json.loads(said.strip().splitlines()[-1]),
        "python": f"3.{minor}",
        "size_bytes": _size(folder),
        "seconds": round(time.monotonic() - began, 1),
    }
    partial = folder / f"{_RECORD}.partial"
    partial.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(folder / _RECORD)
    count(total)
    made = _read(folder)
    assert made is not None
    return made


def _run(spec: ToolchainSpec, command: list[str], doing: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROVE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as exc:
        raise ToolchainError(
            f"cannot make the toolchain {spec.name}: to {doing} took over {_PROVE_S:g} s"
        ) from exc
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = lines[-1].strip()[:300] if lines else f"it ended with status {done.returncode}"
        raise ToolchainError(
            f"cannot make the toolchain {spec.name}: cannot {doing}: {last}",
            hint="on Debian and Ubuntu, apt-get install python3-venv"
            if "ensurepip" in done.stderr + done.stdout
            else "please report this, with what `edgesdk settings` prints",
            name=spec.name,
            stderr=done.stderr[-4000:],
        )
    return done.stdout


def _size(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
    return total
