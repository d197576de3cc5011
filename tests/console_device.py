"""A device that has nothing but a console: a real getty and login on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "ALICE",
    "PASSWORD",
    "ConsoleDevice",
    "console_device",
    "open_folder",
    "sandbox",
    "why_no_console",
]

PASSWORD = "let me in"
#: Her user id.
ALICE = 4242
#: Of `PASSWORD`, by `openssl passwd -6`.
_HASH = (
    "$6$edgesdk$WK3kLHAkBhZcSj6xrsk7/aGclGfgTIWpiPd3jGmqOnA2OEWh92sHTCGnNXlhXf."
    "TSogbFQbcS4T8c.GJoS94S."
)
Spoil = Callable[[bytes], bytes]


def why_no_console() -> str | None:
    """Say what this computer lacks for `console_device`, or None."""
    if os.geteuid() != 0:
        return "only root can run login"
    for name in ("agetty", "login", "unshare", "mount", "setsid"):
        if shutil.which(name, path=os.environ["PATH"] + ":/sbin:/usr/sbin:/bin") is None:
            return f"there is no {name} here"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return None if done.returncode == 0 else "no mount namespace can be made here"


class ConsoleDevice:
    """The line's two ends, joined by a relay that outlives a hangup of the device's end.

    Attributes:
        host_path: The port that the host opens.
        to_host, to_device: Change what goes by; None changes nothing.
        seen: All that went to the host.
    """

    def __init__(self) -> None:
        self.to_host: Spoil | None = None
        self.to_device: Spoil | None = None
        self.seen = b""
        self._host, self._host_slave = os.openpty()
        self._device, self.device_slave = os.openpty()
        tty.setraw(self._host_slave)
        self.host_path = os.ttyname(self._host_slave)
        self.device_path = os.ttyname(self.device_slave)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def say(self, data: bytes) -> None:
        """Print on the line, as the kernel does."""
        self.seen += data
        os.write(self._host, data)

    def type(self, data: bytes) -> None:
        """Type on the line, as a person with a terminal program does."""
        os.write(self._device, data)

    def hang_up(self) -> None:
        """End what runs at the device's end, as a reset does; a new login prompt comes."""
        raw = fcntl.ioctl(self._device, termios.TIOCGPGRP, bytes(4))
        (group,) = struct.unpack("i", raw)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)

    def close(self) -> None:
        """End the relay."""
        self._over.set()
        self._thread.join(5)
        for fd in (self._host, self._host_slave, self._device, self.device_slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def _relay(self) -> None:
        while not self._over.is_set():
            ready, _, _ = select.select([self._host, self._device], [], [], 0.05)
            if self._host in ready:
                data = os.read(self._host, 4096)
                self._push(self._device, self.to_device(data) if self.to_device else data)
            if self._device in ready:
                try:
                    data = os.read(self._device, 4096)
                except OSError:
                    time.sleep(0.02)  # login hangs the terminal up before it opens it anew
                    continue
                data = self.to_host(data) if self.to_host else data
                self.seen += data
                self._push(self._host, data)

    def _push(self, fd: int, data: bytes) -> None:
        while data and not self._over.is_set():
            if select.select([], [fd], [], 0.05)[1]:
                data = data[os.write(fd, data) :]


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that every user may enter; pytest closes its own to all but one."""
    with tempfile.TemporaryDirectory(prefix="edge-console-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


#: Writes down what it is asked; "restart" gives the line to the unit, as the conflict does.
_SYSTEMCTL = """#!/bin/bash
echo "$*" >> {folder}/asked
[ "$1" = restart ] || exit 0
touch {folder}/no-getty
unit=${{@: -1}}; tty=${{unit#*@}}; tty=${{tty%.service}}
unit=$(sed "s|%I|${{tty//-//}}|g" "/etc/systemd/system/edge-agent-console@.service")
eval "set -- $(sed -n 's/^ExecStart=//p' <<< "$unit")"
sleep 1
setsid "$@" < /dev/null > {folder}/agent.log 2>&1 &
"""


def sandbox(
    folder: Path, *, shell: str, bin_sh: str | None = None, with_systemd: bool = False
) -> list[str]:
    """Give a command line that runs another with accounts of its own and no other process.

    There are `alice`, with a password, and `root`, without one.

    Args:
        folder: For its files and homes; see `open_folder`.
        shell: Of both.
        bin_sh: What is to be ``/bin/sh`` there; None for this system's own.
        with_systemd: Whether it looks as if systemd ran there.
    """
    home = folder / "alice"
    home.mkdir()
    os.chown(home, ALICE, ALICE)
    system = [
        line
        for line in Path("/etc/passwd").read_text().splitlines()
        if not line.startswith(("root:", "alice:"))
    ]
    accounts = [
        f"root:x:0:0:root:{folder}:{shell}",
        f"alice:x:{ALICE}:{ALICE}::{home}:{shell}",
    ]
    (folder / "passwd").write_text("\n".join([*accounts, *system]) + "\n")
    (folder / "shadow").write_text(
        f"root::19000:0:99999:7:::\nalice:{_HASH}:19000:0:99999:7:::\n"
    )
    (folder / "shadow").chmod(0o600)
    script = (
        f"mount --bind {folder}/passwd /etc/passwd && "
        f"mount --bind {folder}/shadow /etc/shadow && "
    )
    if bin_sh is not None:
        script += f"mount --bind {bin_sh} /usr/bin/dash && "
    if with_systemd:
        (folder / "units").mkdir()
        (folder / "systemctl").write_text(_SYSTEMCTL.format(folder=folder))
        (folder / "systemctl").chmod(0o755)
        script += (
            "mount -t tmpfs none /run && mkdir -p /run/systemd/system && "
            f"mount --bind {folder}/units /etc/systemd/system && "
            f"mount --bind {folder}/systemctl /usr/bin/systemctl && "
        )
    script += 'exec "$@"'
    return [
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--propagation=private", "sh", "-c", script, "sh"),
    ]


@contextlib.contextmanager
def console_device(
    folder: Path,
    *,
    shell: str = "/bin/bash",
    bin_sh: str | None = None,
    with_systemd: bool = False,
) -> Iterator[ConsoleDevice]:
    """Run a getty on a line; see `sandbox`."""
    device = ConsoleDevice()
    port = device.device_path.removeprefix("/dev/")
    respawn = (
        f"while :; do if [ -e {folder}/no-getty ]; then sleep 1; "
        f"else setsid -w agetty -8 -L 115200 {port} vt220; sleep 0.2; fi; done"
    )
    there = sandbox(folder, shell=shell, bin_sh=bin_sh, with_systemd=with_systemd)
    getty = subprocess.Popen(
        [*there, "bash", "-c", respawn],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},  # a login keeps what getty was given
    )
    try:
        yield device
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(getty.pid, signal.SIGKILL)
        getty.wait()
        device.close()
