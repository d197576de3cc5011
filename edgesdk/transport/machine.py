"""``virtual:vm``, a whole machine under QEMU: its own kernel, disk, UART and SSH server.

The board's folder holds the emulator, the kernel, the first file system and the system disk,
none of which a run changes. What the machine keeps is one disk image in its home folder. The
processor is emulated in software, so no right and no device of this computer is needed.

A session that opens ``virtual:vm`` starts the machine and powers it off at its end. A machine
that outlives sessions, whose power can be cut, is `edgesdk.testing.VirtualMachine`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from edgesdk.errors import BootstrapError, ChannelError
from edgesdk.transport.base import AgentImage, Channel, OnPassword
from edgesdk.transport.emulator import BAUD, DISK_BYTES, Monitor, emulator_command, make_disk
from edgesdk.transport.local import state_folder
from edgesdk.transport.processes import die_with_parent
from edgesdk.transport.url import DeviceUrl, parse_device_url
from edgesdk.transport.virtual import BoardFolder

__all__ = ["Machine", "MachineChannel", "open_machine"]

_BOOT_S = 300.0  # it takes 8 s of a processor, and may have to share it
_OFF_S = 30.0
_READY = b"board: ready"
_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Life:
    """What there is while the machine runs."""

    process: subprocess.Popen[bytes]
    lock: BinaryIO
    port: int
    uart: str
    console: int  # held open: the emulator reads a tty only while somebody has it


class Machine:
    """One virtual machine and its disk; a context manager that powers it off at the end.

    Call order: `boot`, then the URLs, then `shut_down` or `kill`; then `boot` again.
    """

    def __init__(
        self,
        board: BoardFolder,
        home: Path,
        *,
        agent: bytes,
        disk_bytes: int = DISK_BYTES,
        writes: Path | None = None,
        mount_options: str = "defaults",
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Describe a machine; nothing is started yet.

        Args:
            board: The folder that `edgesdk devices setup virtual:vm` makes.
            home: A folder of this computer for its disk, its console's log and its lock.
            agent: The zipapp that its daemon runs.
            disk_bytes: Size of the disk, where it is made anew.
            writes: A file that takes every write to the disk, for `edgesdk.testing`.
            mount_options: How its disk is mounted, by ext4's own names.
            files: Further files that the machine can read, by name.
        """
        self.board = board
        self.home = home
        self.disk = home / "disk.img"
        self.console_log = home / "console.log"
        self._agent = agent
        self._disk_bytes = disk_bytes
        self._writes = writes
        self._mount_options = mount_options
        self._files = dict(files or {})
        self._life: _Life | None = None

    def __enter__(self) -> Self:
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut_down()

    # -- what can be reached while it runs ----------------------------------------------------

    def _living(self) -> _Life:
        if self._life is None:
            raise ChannelError("cannot reach the virtual machine: it is switched off")
        return self._life

    @property
    def is_running(self) -> bool:
        """Whether it is switched on."""
        return self._life is not None and self._life.process.poll() is None

    @property
    def ssh_url(self) -> str:
        """The device URL of its SSH server; see `host_line`."""
        return str(
            DeviceUrl(
                scheme="ssh",
                user="root",
                host="127.0.0.1",
                port=self._living().port,
                query={"key": str(self.board.path / "key")},
            )
        )

    @property
    def uart_url(self) -> str:
        """The device URL of its UART, on which its agent listens."""
        return f"serial://{self._living().uart}?baud={BAUD}"

    def host_line(self) -> str:
        """Give the line of a known hosts file for its SSH server."""
        kind, blob = (self.board.path / "host_key.pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self._living().port} {kind} {blob}\n"

    def console_text(self) -> str:
        """Give what its kernel and its first program have printed since it was booted."""
        try:
            return self.console_log.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def tell(self, command: str) -> None:
        """Write a line to its first program: ``off`` or ``prove``."""
        os.write(self._living().console, command.encode("ascii") + b"\n")

    # -- power --------------------------------------------------------------------------------

    def boot(self, *, timeout_s: float = _BOOT_S) -> None:
        """Switch it on and wait until its agent and its SSH server are there.

        Raises:
            BootstrapError: It does not start, or another machine uses the disk.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self.home / "machine.lock").open("wb")
        except OSError as exc:
            raise self._failed(f"its folder cannot be used: {exc.strerror}") from exc
        process: subprocess.Popen[bytes] | None = None
        try:
            self._take(lock)
            self._prepare()
            process = self._start(lock)
            self._life = self._ask(process, lock, deadline)
            self.wait_for(_READY, deadline)
        except BaseException:
            self._end()
            if process is not None:
                _collect(process, lock)
            lock.close()
            raise

    def _prepare(self) -> None:
        """Write what the emulator is given."""
        try:
            if not self.disk.exists():
                make_disk(self.disk, self._disk_bytes)
            (self.home / "agent.pyz").write_bytes(self._agent)
            self.console_log.write_bytes(b"")
            if self._writes is not None:
                self._writes.write_bytes(b"")
        except OSError as exc:
            raise self._failed(f"its folder cannot be used: {exc.strerror}") from exc

    def _failed(self, why: str) -> BootstrapError:
        said = self.console_text().strip().splitlines()[-3:]
        return BootstrapError(
            f"cannot start the virtual machine {self.board.name} in {self.home}: {why}",
            hint=f"its console is in {self.console_log}",
            console=said,
        )

    def _take(self, lock: BinaryIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BootstrapError(
                f"cannot start the virtual machine {self.board.name}: one runs already on the "
                f"disk in {self.home}",
                hint="wait for it, or name another folder: virtual:NAME?state=FOLDER",
            ) from None

    def _start(self, lock: BinaryIO) -> subprocess.Popen[bytes]:
        modules = self.board.path / "emulator" / "modules"
        try:
            with (self.home / "emulator.log").open("wb") as words:
                return subprocess.Popen(
                    self._command(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=words,
                    env={**os.environ, "QEMU_MODULE_DIR": str(modules)},
                    pass_fds=(lock.fileno(),),  # held for as long as the emulator lives
                    start_new_session=True,
                    preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
                )
        except OSError as exc:
            raise self._failed(f"the emulator cannot be run: {exc.strerror}") from exc

    def _command(self) -> list[str]:
        here = self.board.path
        given = {"agent": self.home / "agent.pyz", "key": here / "key.pub"}
        return emulator_command(
            here,
            disk=self.disk,
            writes=self._writes,
            console_log=self.console_log,
            files={**given, "host-key": here / "host_key", **self._files},
            mount_options=self._mount_options,
        )

    def _ask(self, process: subprocess.Popen[bytes], lock: BinaryIO, deadline: float) -> _Life:
        """Learn from the emulator which ttys and which port it took."""
        try:
            monitor = Monitor(process, deadline)
            monitor.run("qmp_capabilities")
            ttys = {each["label"]: each["filename"] for each in monitor.run("query-chardev")}
            found = monitor.run("human-monitor-command", {"command-line": "info usernet"})
            port = _FORWARD.search(str(found))
            uart, console = (ttys[name].removeprefix("pty:") for name in ("uart", "console"))
        except (OSError, ValueError, KeyError, TypeError, EOFError) as exc:
            raise self._failed(f"the emulator says {self._emulator_words() or exc!r}") from exc
        if port is None:
            raise self._failed(f"the emulator forwards no port: {str(found)[:200]}")
        return _Life(
            process=process,
            lock=lock,
            port=int(port[1]),
            uart=uart,
            console=os.open(console, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC),
        )

    def _emulator_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.home / "emulator.log").read_text("utf-8", "replace").splitlines()
            return next((line for line in reversed(lines) if line.strip()), "")[:300]
        return ""

    def wait_for(self, words: bytes, deadline: float) -> str:
        """Wait until its console has printed a line that begins so; give the rest of the line.

        Raises:
            BootstrapError: It has not by then, or the machine went off.
        """
        while True:
            gone = not self.is_running
            for line in self.console_log.read_bytes().replace(b"\r", b"").split(b"\n")[:-1]:
                if line.startswith(words):
                    return line[len(words) :].decode("utf-8", "replace").strip()
            if gone:
                raise self._failed(f"it went off: {self._emulator_words() or 'without a word'}")
            if time.monotonic() > deadline:
                raise self._failed(f"it did not say {words.decode()!r} in time")
            time.sleep(0.05)

    def shut_down(self, *, timeout_s: float = _OFF_S) -> None:
        """Let it write what it has and power off; may be repeated. A deaf one is cut off."""
        if self._life is None:
            return
        with contextlib.suppress(OSError):
            self.tell("off")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._life.process.wait(timeout=timeout_s)
        self._end()

    def kill(self) -> None:
        """End the emulator at once. What the disk was given by then stays on the image.

        A real disk may also lose what it was not told to flush: see
        `edgesdk.testing.VirtualMachine.cut_power`.
        """
        self._living()
        self._end()

    def _end(self) -> None:
        life, self._life = self._life, None
        if life is not None:
            os.close(life.console)
            _collect(life.process, life.lock)


def _collect(process: subprocess.Popen[bytes], lock: BinaryIO) -> None:
    """End the emulator if it lives, and let go of everything."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    lock.close()


class MachineChannel:
    """A channel to a machine that was started for it, and is powered off with it."""

    def __init__(self, channel: Channel, machine: Machine, *, name: str) -> None:
        self.name = name
        self.traits = channel.traits
        self.notes = channel.notes
        self._channel = channel
        self._machine = machine

    def read(self, *, timeout_s: float) -> bytes:
        """Give at least one byte; see `edgesdk.transport.base.Channel`."""
        return self._channel.read(timeout_s=timeout_s)

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Hand over all of ``data``; see `edgesdk.transport.base.Channel`."""
        self._channel.write(data, timeout_s=timeout_s)

    def close(self) -> None:
        """End the channel and power the machine off; may be repeated."""
        try:
            self._channel.close()
        finally:
            self._machine.shut_down()


def open_machine(
    url: DeviceUrl,
    board: BoardFolder,
    *,
    agent: AgentImage,
    timeout_s: float,
    on_password: OnPassword | None,
) -> MachineChannel:
    """Start the machine and reach its agent, over SSH or, with ``link=uart``, over its UART.

    Raises:
        BootstrapError: It does not start.
        LinkError: It started and cannot be reached.
    """
    machine = Machine(board, state_folder(url, board.default_home), agent=agent.data)
    machine.boot(timeout_s=max(timeout_s, _BOOT_S))
    try:
        channel: Channel
        if url.query.get("link") == "uart":
            from edgesdk.transport.serial import open_serial

            channel = open_serial(parse_device_url(machine.uart_url))
        else:
            from edgesdk.transport.ssh_clients import open_ssh

            known = machine.home / "known_hosts"
            known.write_text(machine.host_line())
            channel = open_ssh(
                parse_device_url(machine.ssh_url),
                agent=agent,
                timeout_s=max(timeout_s, 60.0),
                on_password=on_password,
                known_hosts=known,
            )
    except BaseException:
        machine.shut_down()
        raise
    return MachineChannel(channel, machine, name=str(url))
