"""What makes a virtual machine's folder: its emulator, first file system and system disk.

Nothing is mounted and no right is needed: file systems are written by Python and ``mke2fs -d``.
The emulator comes with the C library it was made for and is run by that, so this computer's own
packages do not matter.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgesdk.devices.agentpack import pack_agent
from edgesdk.errors import BootstrapError
from edgesdk.testing.boards.commands import run_program
from edgesdk.testing.boards.packages import fetch_packages, unpack_package
from edgesdk.testing.boards.spec import MachineSpec
from edgesdk.testing.boards.system import PACKAGES_THERE
from edgesdk.testing.boards.wheels import fetch_wheels
from edgesdk.transport.machine import Machine
from edgesdk.transport.virtual import KERNEL, BoardFolder

__all__ = ["MADE_OF", "make_machine", "pack_initrd"]

HERE = Path(__file__).parent
START, INIT = HERE / "vm_start.sh", HERE / "vm_init.sh"
#: What decides, beside its spec, what a machine becomes.
MADE_OF = (Path(__file__), START, INIT)
_SLACK_MIB = 16
_PROVE_S = 180.0
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_FIRMWARE = (
    *("usr/share/seabios/bios-256k.bin", "usr/share/qemu/linuxboot_dma.bin"),
    "usr/share/qemu/kvmvapic.bin",
)
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "root", "var/empty", "var/log")
_MADE_UP = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost vm\n",
    "etc/ssh/sshd_config": "Subsystem sftp /usr/lib/openssh/sftp-server\nAcceptEnv LANG LC_*\n",
}
#: Runs in the new machine.
PROOF = """
import json, platform, numpy, onnxruntime
print(json.dumps({
    "machine": platform.machine(),
    "kernel": platform.release(),
    "python": platform.python_version(),
    "numpy": numpy.__version__,
    "onnxruntime": onnxruntime.__version__,
}))
"""


def make_machine(
    spec: MachineSpec,
    part: BoardFolder,
    *,
    cache: Path,
    scratch: Path,
    step: Callable[[int], None],
) -> dict[str, str]:
    """Make the machine in ``part``, boot it once, and give the versions it says it has.

    Args:
        spec: What is made.
        part: Its folder, which is empty.
        cache: Where packages are kept.
        scratch: An empty folder for what is not kept.
        step: Told 1 to 4 as it goes on.

    Raises:
        BootstrapError: A package, the network, or the machine itself fails.
    """
    root, tools = scratch / "root", scratch / "emulator"
    for folder, names in ((root, spec.packages), (tools, spec.emulator_packages)):
        folder.mkdir()
        files = fetch_packages(
            cache / "debian",
            suite=spec.suite,
            architecture=spec.architecture,
            native=spec.architecture,
            packages=names,
        )
        for file in files:
            if file.name.partition("_")[0] not in spec.unused_packages:
                unpack_package(file, folder)
    step(1)
    _keep_emulator(tools, part.path / "emulator")
    _keep_kernel(root, spec, part.path)
    step(2)
    fetch_wheels(
        root / PACKAGES_THERE.format(python=spec.python),
        spec.requirements,
        python=spec.python,
        platforms=spec.wheel_platforms,
    )
    step(3)
    _make_up(root)
    _compile(root, spec.python)
    _write_disk(root, part.path / "system.img")
    _make_keys(part.path)
    versions = _prove(part, scratch)
    step(4)
    return versions


def _one(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if not found:
        raise BootstrapError(
            f"cannot make the virtual machine: its packages have no {pattern}",
            hint="please report this",
        )
    return found[0]


def _keep_emulator(tools: Path, folder: Path) -> None:
    """Keep of the emulator's packages what is run: it, its libraries, and firmware."""
    libraries = folder / "lib"
    libraries.mkdir(parents=True)
    for place in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
        for path in sorted((tools / place).glob("*.so*")):
            # a link is kept as what it leads to inside the packages
            target = Path(os.readlink(path)) if path.is_symlink() else path  # noqa: PTH115 - as written
            real = path.parent / target.name if path.is_symlink() else path
            if real.is_file() and not (libraries / path.name).exists():
                shutil.copyfile(real, libraries / path.name)
    (libraries / "ld-linux-x86-64.so.2").chmod(0o755)
    shutil.copyfile(_one(tools, "usr/bin/qemu-system-x86_64"), folder / "qemu-system-x86_64")
    modules, firmware = folder / "modules", folder / "firmware"
    for each in (modules, firmware):
        each.mkdir()
    for path in (tools / "usr/lib/x86_64-linux-gnu/qemu").glob("accel-*.so"):
        shutil.copyfile(path, modules / path.name)
    for name in _FIRMWARE:
        path = _one(tools, name)
        shutil.copyfile(path, firmware / path.name)


def _keep_kernel(root: Path, spec: MachineSpec, folder: Path) -> None:
    """Take kernel and drivers out of the system; only they need what they bring along."""
    shutil.copyfile(_one(root, "boot/vmlinuz-*"), folder / KERNEL)
    modules = {
        path.stem.replace("-", "_"): path for path in _one(root, "lib/modules/*").rglob("*.ko")
    }
    order: list[str] = []

    def want(name: str) -> None:
        if name in order:
            return
        if name not in modules:
            raise BootstrapError(
                f"cannot make the virtual machine: its kernel has no driver {name}",
                hint="please report this",
            )
        match = _DEPENDS.search(b"\0" + modules[name].read_bytes())
        for needed in match[1].decode("ascii").split(",") if match else []:
            if needed:
                want(needed.replace("-", "_"))
        order.append(name)

    for name in spec.drivers:
        want(name)
    members = {
        "init": START.read_bytes(),
        "bin/busybox": _one(root, "bin/busybox").read_bytes(),
        "modules/order": ("\n".join(order) + "\n").encode("ascii"),
    }
    members |= {f"modules/{name}.ko": modules[name].read_bytes() for name in order}
    folders = ("bin", "dev", "modules", "proc", "sys", "system")
    (folder / "initrd").write_bytes(gzip.compress(pack_initrd(folders, members), 1, mtime=0))
    shutil.rmtree(root / "boot")
    shutil.rmtree(root / "lib" / "modules")


def pack_initrd(folders: Sequence[str], members: dict[str, bytes]) -> bytes:
    """Pack a first file system as the kernel takes it: cpio in the ``newc`` format.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
    """
    return b"".join(_cpio_records(folders, members))


def _cpio_records(folders: Sequence[str], members: dict[str, bytes]) -> Iterator[bytes]:
    entries = [(name, 0o40755, b"") for name in folders]
    entries += [(name, 0o100755, data) for name, data in members.items()]
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        path = name.encode("ascii") + b"\0"
        numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
        for piece in (head, data):
            yield piece + b"\0" * (-len(piece) % 4)


def _make_up(root: Path) -> None:
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/perl"):
        shutil.rmtree(root / name, ignore_errors=True)
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _MADE_UP.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    init = root / "sbin" / "board-init"
    init.write_bytes(INIT.read_bytes())
    init.chmod(0o755)


def _compile(root: Path, python: str) -> None:
    """Compile the system's Python files: its disk is read-only, so the machine never could."""
    libraries = [str(root / place / "x86_64-linux-gnu") for place in ("lib", "usr/lib")]
    folders = [
        root / "usr/lib" / f"python{python}",
        root / PACKAGES_THERE.format(python=python),
    ]
    run_program(
        [
            str(root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"),
            *("--library-path", ":".join(libraries), str(root / f"usr/bin/python{python}")),
            *("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
            *("-s", str(root), "-p", "/", "-x", "/(lib2to3|test|tests)/"),
            *(str(folder) for folder in folders),
        ],
        doing="compile the system's Python files",
        timeout_s=_PROVE_S,
        hint="please report this",
        environment={"PYTHONHOME": str(root / "usr"), "PYTHONDONTWRITEBYTECODE": ""},
    )


def _write_disk(root: Path, image: Path) -> None:
    size = sum(
        -(-os.lstat(os.path.join(folder, name)).st_size // 4096) * 4096 + 512  # noqa: PTH118 - thousands of files
        for folder, _, names in os.walk(root)
        for name in names
    )
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    run_program(
        [
            *(shutil.which("mke2fs", path=path) or "mke2fs", "-q", "-F", "-t", "ext4"),
            # a disk that is only read needs no journal
            *("-O", "^has_journal", "-m", "0", "-E", "root_owner=0:0", "-d", str(root)),
            *(str(image), f"{size * 11 // 10 // (1 << 20) + _SLACK_MIB}M"),
        ],
        doing="write the system's disk",
        timeout_s=_PROVE_S,
        hint="is there room on the disk?",
    )


def _make_keys(folder: Path) -> None:
    """Make the key that the machine lets in, and the key by which it is known."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for name in ("key", "host_key"):
        made = Ed25519PrivateKey.generate()
        private = made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = made.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public + b" edgesdk-vm\n")


def _prove(part: BoardFolder, scratch: Path) -> dict[str, str]:
    """Boot the new machine and give the versions of what is in it.

    Raises:
        BootstrapError: It does not boot, or its runtime does not load.
    """
    proof = scratch / "proof.py"
    proof.write_text(PROOF)
    machine = Machine(part, scratch / "home", agent=pack_agent().data, files={"proof": proof})
    with machine:
        machine.tell("prove")
        said = machine.wait_for(b"board: proof", time.monotonic() + _PROVE_S)
    try:
        versions = json.loads(said)
        return {str(key): str(value) for key, value in versions.items()}
    except (ValueError, AttributeError) as exc:
        raise BootstrapError(
            f"cannot use the virtual machine that was made: it said {said[:300]!r}",
            hint="please report this",
        ) from exc
