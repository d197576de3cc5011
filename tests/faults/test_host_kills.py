"""kill -9 of the host at random moments of a deployment; nothing but the host knows of it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgesdk.bundle import Bundle
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, read_status, resolve_device
from edgesdk.testing import make_echo_bundle

ROOT = Path(__file__).parents[2]


class Host:
    """The program that deploys and is killed; see `host_program`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.host_program"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def deploy(self, bundle: Bundle, *, kill_after_s: float | None) -> tuple[int, float]:
        """Deploy in a child; give its exit status, negative for a signal, and the seconds."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{bundle.folder}\t{self._url}\n")
        self._program.stdin.flush()
        began = time.monotonic()
        child = int(self._program.stdout.readline())
        if kill_after_s is not None:
            # a descriptor, because the number may be somebody else's by then
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(child)
                try:
                    time.sleep(kill_after_s)
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                finally:
                    os.close(handle)
        status = int(self._program.stdout.readline())
        return status, time.monotonic() - began

    def close(self) -> None:
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait(timeout=30)
        self._program.stdout.close()


@pytest.fixture
def host(tmp_path: Path, home: Path) -> Iterator[Host]:
    program = Host(f"local:?state={tmp_path / 'state'}")
    yield program
    program.close()


def run_kills(count: int, host: Host, folder: Path) -> dict[str, int]:
    dice = random.Random(200)
    device = resolve_device(f"local:?state={folder / 'state'}")

    def bundle(number: int) -> Bundle:
        part = dice.randbytes(dice.randrange(1_000, 2_000_000))
        return make_echo_bundle(folder / f"bundle-{number}", name=f"r-{number}", part=part)

    usual_s = 0.0
    for number in (0, 1):
        old = bundle(number)
        status, usual_s = host.deploy(old, kill_after_s=None)
        assert status == 0
    current = old.id
    seen = {"killed": 0, "old": 0, "new": 0}
    for number in range(2, count + 2):
        new = bundle(number)
        status, _ = host.deploy(new, kill_after_s=dice.uniform(0.0, 1.1) * usual_s)
        assert status in (0, -signal.SIGKILL)
        seen["killed"] += status != 0
        with connect(device) as session:
            found = read_status(session)["slots"]["current"]["bundle"]
            assert found in ({new.id} if status == 0 else {current, new.id})
            seen["new" if found == new.id else "old"] += 1
            checked = session.request("check", {"bundle": found, "force": True}, timeout_s=60)
            assert checked.meta["passed"]
            current = found
            if number % 5 == 0:
                deploy_bundle(new, session, device=device)
                current = read_status(session)["slots"]["current"]["bundle"]
                assert current == new.id
                session.request("gc", {})
    return seen


@pytest.mark.slow
def test_a_few_kills_of_the_host_leave_one_whole_release(host: Host, tmp_path: Path) -> None:
    assert run_kills(5, host, tmp_path)["killed"] >= 2


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_two_hundred_kills_of_the_host_leave_one_whole_release(
    host: Host, tmp_path: Path
) -> None:
    seen = run_kills(200, host, tmp_path)
    print(f"\n200 kills of the host: {seen}")
    assert seen["killed"] >= 120
    assert seen["old"] > 0
    assert seen["new"] > 0
