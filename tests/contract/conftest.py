"""The ways to an agent, so that one promise is tested over every one of them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.devices import Device, Session, pack_agent, resolve_device
from edgesdk.testing import LocalSshd, PtyPair, serial_agent
from edgesdk.transport.base import Channel
from edgesdk.transport.open import open_channel
from tests.contract.typed import Typed


class Way:
    """One way to one agent, whose state outlives each channel."""

    def __init__(self, url: str, state: Path, line: PtyPair | None = None) -> None:
        self.device: Device = resolve_device(url)
        self.state = state
        self.line = line

    def open(self) -> Channel:
        return open_channel(self.device.url, agent=pack_agent())

    def connect(self) -> Session:
        return Session(self.open(), device_name="bench-3", timeout_s=20.0)

    def window_bytes(self) -> int:
        """What may be under way, and so be lost, when a push is interrupted."""
        with contextlib.closing(self.open()) as channel:
            return channel.traits.window_bytes

    def cut(self, session: Session) -> None:
        """Break the link the hard way: the cable, or the process at the other end."""
        if self.line is not None:
            self.line.pull_cable()
        else:
            with contextlib.suppress(ProcessLookupError):  # cut before, and gone by now
                os.kill(session.hello.pid, signal.SIGKILL)

    def mend(self) -> None:
        if self.line is not None:
            self.line.plug_in()


@contextlib.contextmanager
def child_way(folder: Path) -> Iterator[Way]:
    yield Way(f"local:?state={folder}/state", folder / "state")


@contextlib.contextmanager
def pty_way(folder: Path) -> Iterator[Way]:
    with PtyPair() as line, serial_agent(line.device_path, folder / "state"):
        yield Way(f"serial://{line.host_path}?baud=921600", folder / "state", line)


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSshd]:
    """A real SSH server on loopback."""
    if (reason := LocalSshd.why_not()) is not None:
        pytest.skip(f"needs an SSH server: {reason}")
    with LocalSshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(params=["child", "pty", "ssh", "ssh-paramiko"])
def way(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Iterator[Way]:
    folder = tmp_path / "device"
    folder.mkdir()
    if request.param.startswith("ssh"):
        server: LocalSshd = request.getfixturevalue("sshd")
        (home / ".ssh" / "known_hosts").write_text(server.host_line())
        options = {"state": folder / "state", "python": sys.executable}
        client = "paramiko" if request.param == "ssh-paramiko" else "openssh"
        yield Way(server.url(**options, client=client), folder / "state")
        return
    with {"child": child_way, "pty": pty_way}[request.param](folder) as opened:
        yield opened


@pytest.fixture
def channel(way: Way) -> Iterator[Channel]:
    opened = way.open()
    yield opened
    opened.close()


@pytest.fixture
def session(way: Way) -> Iterator[Session]:
    with way.connect() as opened:
        yield opened


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Typed:
    monkeypatch.chdir(tmp_path)
    return Typed(capsys)
