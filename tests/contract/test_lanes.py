"""Lanes over a real SSH server, and a push that goes on over another link than it began on."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import deploy_bundle, lanes
from edgesdk.deploy.values import Deployment
from edgesdk.devices import Session, connect, resolve_device
from edgesdk.errors import ChannelError
from edgesdk.progress import Progress
from edgesdk.testing import LocalSshd, PtyPair, make_echo_bundle, serial_agent

pytestmark = pytest.mark.slow

PART_BYTES = 12 << 20


@pytest.fixture
def known(home: Path, sshd: LocalSshd) -> None:
    (home / ".ssh" / "known_hosts").write_text(sshd.host_line())


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let lanes pay at once, and carry nothing before the test says so: one that came first
    would be done before the next is there.
    """
    said = threading.Event()
    begin = lanes.Lanes.__init__

    def begin_held(self: lanes.Lanes, session: Session, offer: Any, carry: Any) -> None:
        def carry_then(lane: Session) -> None:
            said.wait(20)
            carry(lane)

        begin(self, session, offer, carry_then)

    monkeypatch.setattr(lanes.Lanes, "__init__", begin_held)
    monkeypatch.setattr(lanes.Lanes, "_pays", lambda self, rate, left: True)
    monkeypatch.setattr(lanes, "_LEAST_SPAN_S", 0.001)
    monkeypatch.setattr(lanes, "_SMALLEST_PUSH_BYTES", 0)
    return said


class Brake:
    """Holds a push up until so many lanes are there, or for a while."""

    def __init__(
        self, state: Path, count: int, start: threading.Event, *, wait_s: float = 15.0
    ) -> None:
        self.state = state
        self.start = start
        self.count = count
        self.wait_s = wait_s
        self.pids: list[int] = []
        self.looks = 0
        self.over = False

    def __call__(self, progress: Progress) -> None:
        if progress.step != "push" or self.over:
            return
        self.looks += 1
        if self.looks < 5:  # lanes are considered after a look, once two have told a rate
            time.sleep(0.02)
            return
        deadline = time.monotonic() + self.wait_s
        while time.monotonic() < deadline and len(self.lanes()) < self.count:
            time.sleep(0.05)
        self.pids = self.lanes()
        self.start.set()
        self.over = True

    def lanes(self) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"lane" in words and os.fsencode(self.state) in words:
                    found.append(int(folder.name))
        return found


def deploy(server: LocalSshd, folder: Path, brake: Brake) -> Deployment:
    device = resolve_device(server.url(state=brake.state, python=sys.executable))
    bundle = make_echo_bundle(folder / "bundle", part=os.urandom(PART_BYTES))
    with connect(device) as session:
        return deploy_bundle(bundle, session, device=device, on_progress=brake)


@pytest.mark.usefixtures("known")
def test_lanes_are_opened_and_end_with_the_push(
    sshd: LocalSshd, tmp_path: Path, start: threading.Event
) -> None:
    before = sshd.log.read_text().count("Accepted publickey")
    brake = Brake(tmp_path / "state", 3, start)
    receipt = deploy(sshd, tmp_path, brake)
    assert receipt.slot == "current"
    assert len(brake.pids) == 3
    assert PART_BYTES <= receipt.bytes_sent <= PART_BYTES + 1000, "nothing went twice"
    assert sshd.log.read_text().count("Accepted publickey") - before == 4
    deadline = time.monotonic() + 10
    while brake.lanes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert brake.lanes() == []


@pytest.mark.usefixtures("known")
def test_lane_that_is_killed_costs_nothing_but_its_chunks(
    sshd: LocalSshd, tmp_path: Path, start: threading.Event
) -> None:
    brake = Brake(tmp_path / "state", 2, start)

    def kill_one(progress: Progress) -> None:
        had = bool(brake.pids)
        brake(progress)
        if brake.pids and not had:
            os.kill(brake.pids[0], signal.SIGKILL)

    device = resolve_device(sshd.url(state=brake.state, python=sys.executable))
    bundle = make_echo_bundle(tmp_path / "bundle", part=os.urandom(PART_BYTES))
    with connect(device) as session:
        receipt = deploy_bundle(bundle, session, device=device, on_progress=kill_one)
    assert receipt.slot == "current"
    assert brake.pids


def test_server_that_lets_nobody_in_again_gets_everything_over_one_lane(
    home: Path, tmp_path: Path, start: threading.Event
) -> None:
    with LocalSshd(tmp_path / "sshd") as server:
        (home / ".ssh" / "known_hosts").write_text(server.host_line())
        brake = Brake(tmp_path / "state", 1, start, wait_s=1.0)

        def lock_out(progress: Progress) -> None:
            if progress.step == "push":
                (server.folder / "authorized_keys").write_text("")
            brake(progress)

        device = resolve_device(server.url(state=brake.state, python=sys.executable))
        bundle = make_echo_bundle(tmp_path / "bundle", part=os.urandom(PART_BYTES))
        with connect(device) as session:
            receipt = deploy_bundle(bundle, session, device=device, on_progress=lock_out)
    assert receipt.slot == "current"
    assert brake.pids == []


@pytest.mark.usefixtures("known")
def test_push_that_was_cut_on_a_serial_line_goes_on_over_ssh(
    sshd: LocalSshd, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    bundle = make_echo_bundle(tmp_path / "bundle", part=os.urandom(600_000))
    with PtyPair() as line:
        with serial_agent(line.device_path, state):
            device = resolve_device(f"serial://{line.host_path}?baud=921600")

            def cut(progress: Progress) -> None:
                if progress.step == "push" and progress.done > 300_000:
                    os.kill(session.hello.pid, signal.SIGKILL)
                    line.pull_cable()

            session = connect(device)
            session.channel.traits = replace(session.channel.traits, silence_s=1.5)
            with session, pytest.raises(ChannelError):
                deploy_bundle(bundle, session, device=device, on_progress=cut)
    device = resolve_device(sshd.url(state=state, python=sys.executable))
    with connect(device) as session:
        receipt = deploy_bundle(bundle, session, device=device)
    assert receipt.slot == "current"
    assert receipt.bytes_skipped >= 300_000
    assert receipt.bytes_sent + receipt.bytes_skipped <= 600_000 + 1000, "nothing went twice"
