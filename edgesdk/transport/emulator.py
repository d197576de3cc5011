"""The emulator of a virtual machine: its command line, its monitor, and the disk it gets."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgesdk.errors import BootstrapError
from edgesdk.transport.virtual import KERNEL

__all__ = ["BAUD", "DISK_BYTES", "Monitor", "emulator_command", "make_disk"]

#: Of the machine's disk, where nothing else is asked for.
DISK_BYTES = 1 << 30
BAUD = 115_200  # the fastest of a 16550 with its usual clock
_JOURNAL_MIB = 4
_MEMORY_MIB = 512
_MOST_REPLY_BYTES = 1 << 20
_SYSTEM_PATHS = "/usr/sbin:/sbin"


def make_disk(path: Path, size_bytes: int = DISK_BYTES) -> None:
    """Make an empty disk of ext4 with a journal; it takes room only as it fills.

    Raises:
        BootstrapError: It cannot be made.
    """
    found = shutil.which("mke2fs", path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATHS}")
    doing = f"make the machine's disk {path}"
    if found is None:
        hint = "`sudo apt-get install e2fsprogs` installs it"
        raise BootstrapError(f"cannot {doing}: there is no program mke2fs", hint=hint)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.truncate(size_bytes)
        command = [found, "-q", "-F", "-t", "ext4", "-J", f"size={_JOURNAL_MIB}"]
        command += ["-E", "root_owner=0:0,lazy_itable_init=0", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BootstrapError(f"cannot {doing}: {done.stderr.strip()[:300]}")
        partial.replace(path)
    except OSError as exc:
        raise BootstrapError(
            f"cannot {doing}: {exc.strerror}", hint="is there room on the disk?"
        ) from exc
    finally:
        partial.unlink(missing_ok=True)


def emulator_command(
    board: Path,
    *,
    disk: Path,
    writes: Path | None,
    console_log: Path,
    files: Mapping[str, Path],
    mount_options: str,
) -> list[str]:
    """Give the emulator's command line; it is run by the C library it was made for.

    Args:
        board: The board's folder.
        disk: The image of the machine's own disk.
        writes: A file that takes a log of every write to it.
        console_log: A file that takes what the console prints.
        files: What the machine can read, by name.
        mount_options: How its disk is mounted, by ext4's own names.
    """
    emulator, libraries = board / "emulator", board / "emulator" / "lib"
    node = "data-file" if writes is None else "data"
    data = ["-blockdev", f"driver=file,node-name=data-file,filename={_escaped(disk)}"]
    if writes is not None:
        log = f"driver=file,node-name=log-file,filename={_escaped(writes)}"
        logged = "driver=blklogwrites,node-name=data,file=data-file,log=log-file"
        # what was flushed is read from the log: our own disk need not be waited for as well
        data = [
            *data[:1],
            f"{data[1]},cache.no-flush=on",
            "-blockdev",
            f"{log},cache.no-flush=on",
        ]
        data += ["-blockdev", f"{logged},log-sector-size=512"]
    system = f"driver=file,node-name=system,filename={_escaped(board / 'system.img')}"
    given = [
        word
        for name, path in files.items()
        for word in ("-fw_cfg", f"name=opt/edgesdk/{name},file={_escaped(path)}")
    ]
    kernel_words = (
        "console=ttyS1 quiet panic=-1 mitigations=off nokaslr tsc=reliable audit=0 "
        "apparmor=0 selinux=0 ipv6.disable=1 cryptomgr.notests=1 random.trust_cpu=1 "
        f"board.mount={mount_options} board.baud={BAUD} edgesdk.emulated=qemu-system"
    )
    return [
        *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
        *(str(emulator / "qemu-system-x86_64"), "-L", str(emulator / "firmware")),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # a processor without AVX, which is slow to emulate; it has what numpy's wheels want
        *("-machine", "q35", "-accel", "tcg", "-cpu", "Nehalem", "-smp", "1"),
        *("-m", str(_MEMORY_MIB), "-kernel", str(board / KERNEL)),
        *("-initrd", str(board / "initrd"), "-append", kernel_words),
        *("-chardev", "stdio,id=monitor,signal=off", "-mon", "monitor,mode=control"),
        *("-chardev", "pty,id=uart", "-serial", "chardev:uart", "-chardev"),
        f"pty,id=console,logfile={_escaped(console_log)}",
        *("-serial", "chardev:console"),
        *("-blockdev", f"{system},read-only=on", "-device", "virtio-blk-pci,drive=system"),
        *data,
        *("-device", f"virtio-blk-pci,drive={node},write-cache=on", "-netdev"),
        # the machine sees nothing of any network, only its SSH server is reached
        "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22",
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
        *given,
    ]


def _escaped(path: Path) -> str:
    """Write a path as an option's value: QEMU separates options by commas and doubles those."""
    return str(path).replace(",", ",,")


class Monitor:
    """The emulator's machine protocol (QMP) on its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        self._deadline = deadline
        self._pending = b""
        self._read()  # the greeting

    def run(self, command: str, arguments: Mapping[str, str] | None = None) -> Any:
        """Execute one command and give what it returns."""
        asked = {"execute": command, "arguments": dict(arguments or {})}
        os.write(self._in, json.dumps(asked).encode("ascii") + b"\n")
        while True:
            reply = self._read()
            if "return" in reply:
                return reply["return"]
            if "error" in reply:
                raise ValueError(reply["error"])

    def _read(self) -> Any:
        while True:
            while b"\n" not in self._pending:
                self._more()
            line, _, self._pending = self._pending.partition(b"\n")
            if line.startswith(b"{"):  # it also names its ttys there, for people
                return json.loads(line)

    def _more(self) -> None:
        left_s = max(0.0, self._deadline - time.monotonic())
        if not select.select([self._out], [], [], left_s)[0]:
            raise TimeoutError("it does not answer")
        data = os.read(self._out, 65536)
        if not data:
            raise EOFError("it ended")
        self._pending += data
        if len(self._pending) > _MOST_REPLY_BYTES:
            raise ValueError("it says too much")
