"""Whether this computer can make a virtual board, and what to do where it cannot."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from edgesdk.testing.boards.packages import KEYRING
from edgesdk.testing.boards.spec import BoardSpec, MachineSpec
from edgesdk.transport.virtual import why_not_enter

__all__ = ["MACHINE_PROGRAMS", "NATIVE", "PROGRAMS", "why_not_here"]

#: Machines that Debian has an emulator for, and Debian's names for them.
NATIVE: Mapping[str, str] = {"x86_64": "amd64"}
_DEBIAN = "a virtual board is made of Debian packages: use Debian, Ubuntu or one of their kin"
_INSTALL = "`sudo apt-get install {}` installs it"
#: Programs that are needed, and how to get each.
PROGRAMS: Mapping[str, str] = {
    "apt-get": _DEBIAN,
    "dpkg-deb": _DEBIAN,
    "unshare": _INSTALL.format("util-linux"),
    "mount": _INSTALL.format("mount"),
    "chroot": _INSTALL.format("coreutils"),
}
#: The same for a whole machine, which mounts nothing here.
MACHINE_PROGRAMS: Mapping[str, str] = {
    "apt-get": _DEBIAN,
    "dpkg-deb": _DEBIAN,
    "mke2fs": _INSTALL.format("e2fsprogs"),
}
_MINIMUM_FREE_BYTES = 1 << 30

#: What is wrong, and what to do.
Problem = tuple[str, str]


def why_not_here(spec: BoardSpec, cache: Path) -> Problem | None:
    """Say why a board cannot be made on this computer by this user, and what to do, or None.

    Args:
        spec: The board.
        cache: The folder it would be made in, or one that it would be made under.
    """
    is_machine = isinstance(spec, MachineSpec)
    checks: tuple[Callable[[], Problem | None], ...] = (
        lambda: _no_emulator() if is_machine else _wrong_machine(spec),
        lambda: _missing_program(MACHINE_PROGRAMS if is_machine else PROGRAMS),
        _missing_key,
        _missing_pip,
        (lambda: None) if is_machine else why_not_enter,
        lambda: _no_room(cache),
    )
    return next((found for check in checks if (found := check()) is not None), None)


def _wrong_machine(spec: BoardSpec) -> Problem | None:
    machine = platform.machine()
    if machine == spec.machine:
        return f"this computer is {machine} itself", "local: runs on it without emulation"
    return _no_emulator()


def _no_emulator() -> Problem | None:
    system, machine = platform.system(), platform.machine()
    if system == "Linux" and machine in NATIVE:
        return None
    seen = f"this computer is {system} on {machine} (only Linux on {', '.join(NATIVE)})"
    return seen, "use another computer, or a real board"


def _missing_program(programs: Mapping[str, str]) -> Problem | None:
    # a user's PATH may lack the folders of programs that are root's by custom
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if not missing:
        return None
    hints = dict.fromkeys(programs[name] for name in missing)
    return f"there is no program {', '.join(missing)}", "; ".join(hints)


def _missing_key() -> Problem | None:
    if KEYRING.is_file():
        return None
    seen = f"there is no {KEYRING}, by which packages are checked"
    return seen, _INSTALL.format("debian-archive-keyring")


def _missing_pip() -> Problem | None:
    if importlib.util.find_spec("pip") is not None:
        return None
    return f"{sys.executable} has no pip", f"`{sys.executable} -m ensurepip` puts it there"


def _no_room(cache: Path) -> Problem | None:
    there = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free >= _MINIMUM_FREE_BYTES:
        return None
    seen = f"{there} has {free >> 20} MiB left (at least {_MINIMUM_FREE_BYTES >> 20} MiB)"
    return seen, "make room, or name another folder with XDG_CACHE_HOME"
