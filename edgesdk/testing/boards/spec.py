"""What each virtual board is made of: facts, on which the other modules of this package act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import InventoryError
from edgesdk.near import suggest

__all__ = ["SPECS", "BoardSpec", "EmulatedSpec", "MachineSpec", "find_spec"]

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardSpec:
    """A virtual board.

    Attributes:
        name: As in ``virtual:NAME``.
        machine: What ``uname -m`` says in it.
        suite: The Debian release it is made of.
        architecture: Its name for that machine.
        packages: Debian packages to install, without those that they depend on.
        python: Version of the interpreter in that suite.
        wheel_platforms: Platform tags of wheels that fit the suite's C library, newest first.
        contents: What is fetched, in words for people.
    """

    name: str
    machine: str
    suite: str
    architecture: str
    packages: tuple[str, ...]
    python: str
    wheel_platforms: tuple[str, ...]
    contents: str

    @property
    def requirements(self) -> Path:
        """The file that pins the wheels by version and hash."""
        return _HERE / f"{self.name}.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedSpec(BoardSpec):
    """Another machine's system whose programs are emulated one by one, on our own kernel.

    Attributes:
        elf_machine: The number of that machine in ELF headers (``EM_...`` in ``elf.h``).
        emulator_package: The package of the emulator, for this computer's own architecture.
        emulator: Path of the emulator in that package.
        cpu: The processor that the emulator plays, by its own name for it.
        cpuinfo: What Linux says in ``/proc/cpuinfo`` of each core of such a processor.
        model: What the board calls itself in its device tree.
    """

    elf_machine: int
    emulator_package: str
    emulator: str
    cpu: str
    cpuinfo: str
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec(BoardSpec):
    """A whole machine with a kernel of its own.

    Attributes:
        emulator_packages: The packages of the emulator, for this computer's own architecture.
        unused_packages: Packages that others depend on and nothing here uses.
        drivers: The kernel's modules that it needs to see its disks and its network.
    """

    emulator_packages: tuple[str, ...]
    unused_packages: frozenset[str]
    drivers: tuple[str, ...]


# Cortex-A76 because quantized kernels then find the dot product instructions that newer boards
# have; its part number and features as Linux prints them (arch/arm64/include/asm/cputype.h,
# arch/arm64/kernel/cpuinfo.c).
_CORTEX_A76 = """\
BogoMIPS\t: 100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1
"""  # noqa: E501 - one line in the file, too

SPECS: Mapping[str, BoardSpec] = {
    "arm64": EmulatedSpec(
        name="arm64",
        machine="aarch64",
        elf_machine=183,
        suite="bookworm",
        architecture="arm64",
        packages=("base-files", "dash", "libstdc++6", "python3"),
        emulator_package="qemu-user-static",
        emulator="usr/bin/qemu-aarch64-static",
        cpu="cortex-a76",
        cpuinfo=_CORTEX_A76,
        model="edgesdk virtual arm64 board (emulated by qemu-user)",
        python="3.11",
        wheel_platforms=(
            "manylinux_2_28_aarch64",
            "manylinux_2_27_aarch64",
            "manylinux2014_aarch64",
        ),
        contents="packages for arm64, an emulator and wheels, 450 MB in all",
    ),
    "vm": MachineSpec(
        name="vm",
        machine="x86_64",
        suite="bookworm",
        architecture="amd64",
        packages=(
            *("base-files", "dash", "coreutils", "busybox-static", "libstdc++6", "python3"),
            *("openssh-server", "openssh-sftp-server", "linux-image-cloud-amd64"),
        ),
        emulator_packages=("qemu-system-x86", "seabios"),
        unused_packages=frozenset(
            (
                *(
                    "adduser",
                    "cpio",
                    "debconf",
                    "dpkg",
                    "init-system-helpers",
                    "initramfs-tools",
                ),
                *("initramfs-tools-core", "iso-codes", "klibc-utils", "kmod", "libklibc"),
                *("libfile-find-rule-perl", "libnumber-compare-perl", "libperl5.36"),
                *(
                    "libtext-glob-perl",
                    "linux-base",
                    "logsave",
                    "lsb-base",
                    "perl",
                    "perl-base",
                ),
                *("perl-modules-5.36", "sensible-utils", "tar", "ucf", "udev", "usrmerge"),
            )
        ),
        drivers=("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "qemu_fw_cfg"),
        python="3.11",
        wheel_platforms=(
            "manylinux_2_28_x86_64",
            "manylinux_2_27_x86_64",
            "manylinux2014_x86_64",
        ),
        contents="packages for a kernel, a system and an emulator, and wheels, 300 MB in all",
    ),
}


def find_spec(name: str) -> BoardSpec:
    """Give the board that is called ``name``.

    Raises:
        InventoryError: There is none.
    """
    if name not in SPECS:
        raise InventoryError(
            f"cannot find the virtual board {name!r}: there is none (only {', '.join(SPECS)})",
            hint=suggest(name, tuple(SPECS)) or f"write virtual:{next(iter(SPECS))}",
        )
    return SPECS[name]
