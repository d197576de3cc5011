"""The daemon's looks at a release on probation, one step at a time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import EchoBundle
from tests.agent.inside import Inside, load_modules

GOOD = EchoBundle(b"good", name="good")
INPUT = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}


class Daemon(Inside):
    """An agent that watches, at the pace of the test."""

    def deploy(self, bundle: EchoBundle) -> dict[str, Any] | None:
        refused = self.push(bundle)
        assert refused is None
        assert self.ask("check", bundle=bundle.id).meta["passed"]
        reply = self.ask("activate", bundle=bundle.id).meta
        return None if reply["ok"] else reply

    def look(self) -> None:
        """Have the next look now."""
        self.agent.watch._due = 0.0
        self.agent.watch.step()

    def returned(self) -> str:
        (record,) = self.agent.slots.returned()
        assert record["by"] == "device"
        return str(record["why"])


@pytest.fixture
def daemon(
    agent_modules: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    modules = load_modules(agent_modules)
    monkeypatch.setattr(modules["watch"], "_QUIET_S", 0.0)
    inside = Daemon(modules, tmp_path / "state", python=sys.executable, daemon=True)
    yield inside
    inside.agent.close()


def go_bad(daemon: Daemon, path: Path, how: str) -> EchoBundle:
    """Deploy a release that is good, and goes bad as soon as ``path`` is there."""
    bundle = EchoBundle(b"bad", name="bad", options={how: str(path)})
    assert daemon.deploy(GOOD) is None
    assert daemon.deploy(bundle) is None
    daemon.look()
    assert daemon.agent.probation.of(bundle.id)["answered"] is True
    path.touch()
    return bundle


def test_release_that_crashes_is_taken_back_at_the_third_look(
    daemon: Daemon, tmp_path: Path
) -> None:
    bad = go_bad(daemon, tmp_path / "broken", "die_if")
    for _ in range(2):
        daemon.look()
        assert daemon.current() == bad.id
    daemon.look()
    assert daemon.current() == GOOD.id
    assert "the worker ended by SIGKILL" in daemon.returned()
    for _ in range(3):
        daemon.look()
    assert daemon.current() == GOOD.id
    again = daemon.ask("activate", bundle=bad.id).meta
    assert again["code"] == "check-failed", "what was proven of it is void"


def test_release_that_computes_other_numbers_is_taken_back_at_once(
    daemon: Daemon, tmp_path: Path
) -> None:
    go_bad(daemon, tmp_path / "broken", "wrong_if")
    daemon.look()
    assert daemon.current() == GOOD.id
    assert daemon.returned() == "check vector 0: output y is off by 2 (allowed 0.0)"


def test_release_that_got_slow_is_taken_back_once_that_is_sure(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.modules["probe"], "_DURATION_S", 0.01)
    bad = go_bad(daemon, tmp_path / "broken", "slow_if")
    daemon.look()
    daemon.look()
    assert daemon.current() == bad.id
    (tmp_path / "broken").unlink()
    daemon.look()  # other load it was, and it has passed
    (tmp_path / "broken").touch()
    for _ in range(2):
        daemon.look()
        assert daemon.current() == bad.id
    daemon.look()
    assert daemon.current() == GOOD.id
    assert "3 times what it took before" in daemon.returned()


def test_release_that_hangs_is_taken_back(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon.modules["watch"], "_LOOK_S", 0.6)
    monkeypatch.setattr(daemon.modules["watch"], "_TIMES", 0.0)
    monkeypatch.setattr(daemon.modules["probation"], "_FAIR_S", 0.1)
    go_bad(daemon, tmp_path / "broken", "hang_if")
    for _ in range(3):
        daemon.look()
    assert daemon.current() == GOOD.id
    assert "took longer than" in daemon.returned()


def test_release_that_serves_its_time_is_confirmed_after_a_last_look(
    daemon: Daemon, tmp_path: Path
) -> None:
    now = [time.monotonic()]
    daemon.agent.probation._clock = lambda: now[0]
    daemon.agent.probation._last = now[0]
    assert daemon.deploy(GOOD) is None
    other = EchoBundle(b"other", name="other")
    assert daemon.deploy(other) is None
    daemon.look()
    for _ in range(59):
        now[0] += 10.0
        daemon.agent.watch.step()
    assert daemon.agent.probation.state()["served_s"] == 590.0
    daemon.look()
    assert daemon.agent.probation.state() is not None, "its time is not over"
    now[0] += 10.0
    daemon.look()
    assert daemon.agent.probation.state() is None
    assert daemon.agent.probation.confirmed() == other.id


def test_host_that_wants_the_worker_comes_before_a_look(daemon: Daemon, tmp_path: Path) -> None:
    bad = go_bad(daemon, tmp_path / "broken", "hang_if")
    looking = threading.Thread(target=daemon.look)
    looking.start()
    deadline = time.monotonic() + 10
    while daemon.agent.watch._look is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    reply = daemon.ask("run", bytes(8), release="previous", tensors=[INPUT]).meta
    assert reply["ok"], reply
    looking.join(10)
    assert not looking.is_alive()
    assert daemon.agent.probation.of(bad.id)["failures"] == 0
    assert daemon.agent.probation.of(bad.id)["starting"] is False


def test_look_waits_while_hosts_are_at_work(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = go_bad(daemon, tmp_path / "broken", "die_if")
    monkeypatch.setattr(daemon.modules["watch"], "_QUIET_S", 60.0)
    daemon.agent.watch._due = time.monotonic()
    daemon.agent.watch.step()
    assert daemon.agent.probation.of(bad.id)["failures"] == 0
    daemon.look()  # due for so long that it looks all the same
    assert daemon.agent.probation.of(bad.id)["failures"] == 1


def test_bytes_of_what_it_would_return_to_are_proven_beforehand(
    daemon: Daemon, tmp_path: Path
) -> None:
    go_bad(daemon, tmp_path / "unused", "die_if")
    (tmp_path / "unused").unlink()
    (part,) = (tmp_path / "state" / "releases" / GOOD.id).glob("part-0.*")
    part.unlink()
    daemon.look()
    text = (
        f"release {GOOD.id[:12]} is what the device would return to: release {GOOD.id[:12]} is"
    )
    assert any(line.startswith(text) for line in daemon.lines)


def test_damaged_file_of_a_release_on_probation_is_a_failure(
    daemon: Daemon, tmp_path: Path
) -> None:
    bad = go_bad(daemon, tmp_path / "unused", "die_if")
    (part,) = (tmp_path / "state" / "releases" / bad.id).glob("part-0.*")
    part.unlink()
    for _ in range(3):
        daemon.look()
    assert daemon.current() == GOOD.id
    assert "is missing" in daemon.returned()
