"""Put a board's system together: unpacked packages, an emulator, and what a kernel would tell.

Programs of another machine start without ``binfmt_misc``, which is the whole computer's and not
ours to change: each is moved away, and in its place stands a script of one line whose
interpreter is the emulator. Debian's qemu, when it is called by a name that ends in
``-binfmt-P``, takes the program's path, the path it was called by, and its arguments, which is
the order in which the kernel hands them to a script's interpreter. So the program sees the path
it was called by as its own, and a child that it starts by that path is emulated as well.
"""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

from edgesdk.errors import BootstrapError
from edgesdk.testing.boards.packages import unpack_file, unpack_package
from edgesdk.testing.boards.spec import EmulatedSpec
from edgesdk.transport.virtual import HOME_THERE

__all__ = ["PACKAGES_THERE", "assemble_system", "is_program_for", "wrap_programs"]

_PROGRAM_FOLDERS = ("bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin")
_EMULATOR_THERE = "usr/libexec/qemu-binfmt/board-binfmt-P"
_MOVED_THERE = "usr/lib/emulated"
#: Where Debian's Python looks for packages that no Debian package brings.
PACKAGES_THERE = "usr/local/lib/python{python}/dist-packages"
#: Left out: nothing that runs reads them.
_LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")
_MADE_UP = {
    "etc/passwd": f"root:x:0:0:root:{HOME_THERE}:/bin/sh\n",
    "etc/group": "root:x:0:\n",
    "etc/hosts": "127.0.0.1 localhost\n",
}
#: Places that are mounted over when the board is entered.
_MOUNTED_FILES = (
    *(f"dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")),
    *(
        f"sys/devices/system/cpu/{name}"
        for name in ("possible", "present", "online", "kernel_max")
    ),
)
_MOUNTED_FOLDERS = ("proc", "dev/pts", "dev/shm", "tmp", "run", HOME_THERE.lstrip("/"))
_ELF_MAGIC = b"\x7fELF"


def is_program_for(path: Path, elf_machine: int) -> bool:
    """Say whether a file is an executable of a machine, by its ELF header."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_mode & stat.S_IXUSR:
        return False
    with path.open("rb") as file:
        head = file.read(20)
    return head[:4] == _ELF_MAGIC and head[18:] == elf_machine.to_bytes(2, "little")


def wrap_programs(root: Path, *, elf_machine: int, emulator: Path) -> list[str]:
    """Put a script in the place of each program of that machine and give their names.

    Args:
        root: The system.
        elf_machine: As in `EmulatedSpec`.
        emulator: A file that is copied into the system.
    """
    there = root / _EMULATOR_THERE
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(emulator, there)
    there.chmod(0o755)
    moved = root / _MOVED_THERE
    wrapped = []
    for folder in _PROGRAM_FOLDERS:
        for path in sorted((root / folder).glob("*")):
            if not is_program_for(path, elf_machine):
                continue
            target = moved / folder.replace("/", "-") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            path.write_text(f"#!/{_EMULATOR_THERE} /{target.relative_to(root)}\n")
            path.chmod(0o755)
            wrapped.append(path.name)
    return wrapped


def assemble_system(
    root: Path,
    spec: EmulatedSpec,
    *,
    packages: list[Path],
    emulator_package: Path,
    scratch: Path,
) -> None:
    """Make the whole system but its Python packages.

    Args:
        root: An empty folder that becomes the system.
        spec: What is made.
        packages: ``.deb`` files for its machine.
        emulator_package: The ``.deb`` file that has the emulator for this computer.
        scratch: An empty folder for what is not kept.

    Raises:
        BootstrapError: A package cannot be unpacked, or lacks what is wanted of it.
    """
    for package in packages:
        unpack_package(package, root)
    emulator = scratch / Path(spec.emulator).name
    unpack_file(emulator_package, spec.emulator, emulator)
    wrapped = wrap_programs(root, elf_machine=spec.elf_machine, emulator=emulator)
    if f"python{spec.python}" not in wrapped:
        raise BootstrapError(
            f"cannot make the virtual board {spec.name}: its packages have no Python "
            f"{spec.python}, only {', '.join(wrapped) or 'no program at all'}",
            hint="please report this",
        )
    for name in _LEFT_OUT:
        shutil.rmtree(root / name, ignore_errors=True)
    _make_up(root, spec)


def _make_up(root: Path, spec: EmulatedSpec) -> None:
    for name in _MOUNTED_FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in _MOUNTED_FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "dev" / "ptmx").symlink_to("pts/ptmx")
    for name, text in _MADE_UP.items():
        (root / name).write_text(text)
    tree = root / "sys" / "firmware" / "devicetree" / "base"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(spec.model.encode("ascii") + b"\0")  # as the kernel ends it
