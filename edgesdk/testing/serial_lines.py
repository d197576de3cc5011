"""A serial line made of two pseudo terminals, for use with the real pyserial.

A pseudo terminal has no speed and loses nothing; the relay between the two can be told to spoil
bytes, and the cable can be pulled.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from edgesdk.devices.agentpack import save_agent
from edgesdk.transport.processes import die_with_parent

__all__ = ["PtyPair", "serial_agent", "serve_line"]

Spoil = Callable[[bytes], bytes]


class PtyPair:
    """Two ttys, `host_path` and `device_path`, joined by a relay thread.

    Attributes:
        spoil_to_device: Takes what the host sent and gives what arrives; None changes nothing.
        spoil_to_host: The same for the other direction.
        to_device_bytes: What the host has sent so far.
        to_host_bytes: What the device has sent so far.
    """

    def __init__(self) -> None:
        self.spoil_to_device: Spoil | None = None
        self.spoil_to_host: Spoil | None = None
        self.to_device_bytes = 0
        self.to_host_bytes = 0
        self._pulled = threading.Event()
        self._stop_reading, self._stop_writing = os.pipe()
        self._masters: list[int] = []
        self._slaves: list[int] = []
        for _ in range(2):
            master, slave = os.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self._masters.append(master)
            # kept open: a pty whose last slave was closed gives errors from then on
            self._slaves.append(slave)
        self.host_path, self.device_path = (os.ttyname(slave) for slave in self._slaves)
        self._thread = threading.Thread(target=self._relay, name="pty-relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def pull_cable(self) -> None:
        """Let every byte get lost from now on, in both directions."""
        self._pulled.set()

    def plug_in(self) -> None:
        """Let bytes through again."""
        self._pulled.clear()

    def say_to_host(self, data: bytes) -> None:
        """Print on the line as a device's console would."""
        self._push(self._masters[0], data)

    def close(self) -> None:
        """Stop the relay and give the ttys back; may be repeated."""
        if not self._thread.is_alive() and not self._masters:
            return
        os.write(self._stop_writing, b".")
        self._thread.join(5.0)
        for descriptor in (
            *self._masters,
            *self._slaves,
            self._stop_reading,
            self._stop_writing,
        ):
            os.close(descriptor)
        self._masters, self._slaves = [], []

    def _relay(self) -> None:
        host, device = self._masters
        while True:
            ready, _, _ = select.select([host, device, self._stop_reading], [], [])
            if self._stop_reading in ready:
                return
            if host in ready:
                data = self._pull(host)
                self.to_device_bytes += len(data)
                self._carry(device, data, self.spoil_to_device)
            if device in ready:
                data = self._pull(device)
                self.to_host_bytes += len(data)
                self._carry(host, data, self.spoil_to_host)

    def _carry(self, master: int, data: bytes, spoil: Spoil | None) -> None:
        if not self._pulled.is_set():
            self._push(master, spoil(data) if spoil is not None else data)

    @staticmethod
    def _pull(master: int) -> bytes:
        try:
            return os.read(master, 4096)
        except BlockingIOError:
            return b""

    def _push(self, master: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            writable = select.select([self._stop_reading], [master], [], 5.0)
            if not writable[1]:
                return  # nobody reads over there: a real line would lose it, too
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(master, view) :]


@contextlib.contextmanager
def serial_agent(
    tty_path: str, state: Path, *, baud: int = 921_600, python: str = sys.executable
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the packed agent as a daemon that owns a tty, as it runs on a device.

    Args:
        tty_path: The device's end of the line.
        state: Its state folder; its log goes to ``daemon.log`` beside it.
        baud: The line's speed.
        python: The interpreter, for the agent and its workers.
    """
    pyz = state.parent / "edge-agent.pyz"
    save_agent(pyz)
    command = [python, "-I", "-S", str(pyz), "run", "--state", str(state), "--python", python]
    command += ["--tty", tty_path, "--baud", str(baud)]
    with serve_line(command, state, log=state.parent / "daemon.log") as daemon:
        yield daemon


@contextlib.contextmanager
def serve_line(
    command: list[str], state: Path, *, log: Path, ready_s: float = 10.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command line of an agent's daemon; leaving the block ends it.

    Args:
        command: The daemon.
        state: The state folder whose socket shows that it is ready, as seen from here.
        log: A file that takes what it prints.
        ready_s: How long to wait for that.
    """
    with log.open("ab") as output:
        daemon = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # a daemon that outlived a killed test would answer on a later test's line
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one call that takes no lock
        )
    try:
        deadline = time.monotonic() + ready_s
        while not (state / "agent.sock").exists() and daemon.poll() is None:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        yield daemon
    finally:
        daemon.terminate()
        try:
            daemon.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait(timeout=5.0)
