"""Probation, with a clock of the test's own: what ends it, and that nothing flaps."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, current, deploy, push

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


class Device:
    """Slots and probation of one state folder, without an agent around them."""

    def __init__(self, agent_modules: Callable[[str], Any], path: Path) -> None:
        self.slots_module = agent_modules("edge_agent.slots")
        self.probation_module = agent_modules("edge_agent.probation")
        self.fs = agent_modules("edge_agent.fs")
        self.path = path
        self.now = 1000.0
        self.damaged: dict[str, str] = {}
        self.lines: list[str] = []
        self.switches: list[str] = []
        self.confirmed: list[str] = []
        self.gone: list[str] = []
        self.start()

    def start(self, *, watched: bool = True) -> None:
        """Start anew from what is on the disk, as after a kill."""
        self.root = self.fs.Folder.open_state(str(self.path))
        self.slots = self.slots_module.Slots(self.root, self.lines.append)
        self.probation = self.probation_module.Probation(
            self.slots,
            self.lines.append,
            why_not=self.damaged.get,
            watched=watched,
            clock=lambda: self.now,
        )
        self.probation.on_switch.append(self.switches.append)
        self.probation.on_confirmed.append(self.confirmed.append)
        self.probation.on_returned.append(self.gone.append)
        self.probation.take_up()

    def activate(self, bundle: str, *, wanted_s: float = 600.0) -> None:
        self.probation.activate(bundle, wanted_s=wanted_s, max_latency_us=None)

    def serve(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            self.now += step
            self.probation.tick()

    def holds(self) -> tuple[str | None, str | None]:
        return self.slots.bundle("current"), self.slots.bundle("previous")


@pytest.fixture
def device(agent_modules: Callable[[str], Any], tmp_path: Path) -> Device:
    return Device(agent_modules, tmp_path / "state")


def test_third_failure_returns_within_a_second_and_nothing_flaps(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    assert device.probation.note_failed(B, "it died") is None
    assert device.probation.note_failed(B, "it died") is None
    assert device.holds() == (B, A)
    began = time.monotonic()
    assert device.probation.note_failed(B, "it died") == A
    assert time.monotonic() - began < 1.0
    assert device.holds() == (A, None), "the one that failed is in no slot"
    assert device.switches == [A, B, A]
    for _ in range(10):  # the other one failing now, or late news of the one that went
        assert device.probation.note_failed(A, "it died") is None
        assert device.probation.note_failed(B, "it died") is None
    device.serve(10_000, step=100.0)
    assert device.holds() == (A, None)
    assert device.switches == [A, B, A]
    device.start()
    assert device.holds() == (A, None)
    (record,) = device.slots.returned()
    assert (record["bundle"], record["to"], record["by"]) == (B, A, "device")
    assert record["why"] == "it failed 3 times on probation, at last: it died"


def test_wrong_numbers_return_at_once(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    assert device.probation.note_failed(B, "output y is off", at_once=True) == A
    assert device.slots.returned()[-1]["why"] == "output y is off"


def test_failures_are_counted_across_restarts(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    for _ in range(2):
        assert device.probation.note_failed(B, "it died") is None
        device.start()
    assert device.probation.note_failed(B, "it died") == A


def test_start_that_never_ended_is_a_failure_and_the_third_returns(device: Device) -> None:
    """A release that takes the whole device down: nobody is left to count, so the start is."""
    device.activate(A)
    device.activate(B)
    for _ in range(3):
        assert device.holds() == (B, A)
        device.probation.note_starting(B)
        device.start()  # power was lost
    assert device.holds() == (A, None)
    assert device.gone == [B], "what was proven of it is void, though nobody was asked"
    assert "went down while the release was being started" in device.slots.returned()[-1]["why"]


def test_agent_that_is_stopped_blames_nobody(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    for _ in range(5):
        device.probation.note_starting(B)
        device.probation.close()
        device.start()
    assert device.probation.state()["failures"] == 0


def test_time_counts_once_the_release_has_answered_and_survives_restarts(
    device: Device,
) -> None:
    device.activate(A)
    device.activate(B, wanted_s=600.0)
    device.serve(500.0)
    assert device.probation.state()["served_s"] == 0.0
    device.probation.note_good(B)
    device.serve(400.0)
    device.start()  # killed: at most 30 s are lost
    assert 370.0 <= device.probation.state()["served_s"] <= 400.0
    device.now -= 900.0  # another boot: the clock begins anew
    device.start()
    device.serve(100.0)
    device.probation.close()
    device.start()
    assert 470.0 <= device.probation.state()["served_s"] <= 500.0
    assert not device.probation.is_served()
    device.serve(130.0)
    assert device.probation.is_served()
    assert device.probation.confirm(device.slots.bundle("current") or "")
    assert device.holds() == (B, A)
    assert device.probation.confirmed() == B
    assert device.confirmed == [A, B]
    assert device.probation.note_failed(B, "it died") is None


def test_wall_clock_takes_no_part(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.activate(A)
    device.activate(B)
    device.probation.note_good(B)
    for year in (0, 4_000_000_000, 1):
        monkeypatch.setattr(time, "time", lambda year=year: float(year))
        monkeypatch.setattr(time, "gmtime", lambda year=year: time.struct_time((1970,) * 9))
        device.serve(10.0)
    assert device.probation.state()["served_s"] == 30.0
    assert device.holds() == (B, A)


def test_no_daemon_no_time(device: Device) -> None:
    device.start(watched=False)
    device.activate(A)
    device.activate(B)
    device.probation.note_good(B)
    device.serve(10_000.0, step=100.0)
    assert device.probation.state()["served_s"] == 0.0
    assert device.probation.state()["watched"] is False
    device.activate(C)  # nobody watched B, so the choice of a person is all there is
    assert device.slots.probation()["return_to"] == B


def test_release_on_probation_is_not_what_another_returns_to(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    device.activate(C)
    assert device.holds() == (C, B)
    assert device.slots.is_needed(A), "gc must keep it"
    for _ in range(3):
        device.probation.note_failed(C, "it died")
    assert device.holds() == (A, B)


def test_first_release_has_nothing_to_return_to(device: Device) -> None:
    device.activate(A)
    assert device.probation.state() is None
    assert device.confirmed == [A]
    for _ in range(5):
        assert device.probation.note_failed(A, "it died") is None
    assert device.holds() == (A, None)


def test_activating_the_current_release_again_changes_no_count(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    device.probation.note_failed(B, "it died")
    device.activate(B)
    assert device.probation.state()["failures"] == 1


def test_going_back_by_hand_ends_the_probation_and_going_forth_begins_one(
    device: Device,
) -> None:
    device.activate(A)
    device.activate(B)
    device.probation.rollback("too many false alarms")
    assert device.holds() == (A, B)
    assert device.probation.state() is None
    record = device.slots.returned()[-1]
    assert (record["by"], record["why"]) == ("host", "too many false alarms")
    device.probation.rollback("an error of mine")
    assert device.holds() == (B, A)
    assert device.probation.state()["return_to"] == A


def test_damaged_release_is_not_returned_to_until_it_is_whole(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    device.damaged[A] = "part-0.bin is missing"
    for _ in range(4):
        assert device.probation.note_failed(B, "it died") is None
    assert device.holds() == (B, A)
    text = "cannot return to aaaaaaaaaaaa: part-0.bin is missing"
    device.serve(60.0)
    assert sum(text in line for line in device.lines) == 1, "said once, not every time"
    device.start()
    del device.damaged[A]
    device.serve(5.0)
    assert device.holds() == (A, None)
    assert device.switches == [A, B, A]


def test_return_that_the_disk_refuses_is_made_when_it_can_be(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remounted read-only, or out of inodes: failures are counted in memory meanwhile."""
    device.activate(A)
    device.activate(B)
    real = device.fs.calls

    class ReadOnly:
        def __getattr__(self, name: str) -> Any:
            if name in {"open", "rename", "unlink", "mkdir"}:
                return self._refuse
            return getattr(real, name)

        def _refuse(self, *_: Any) -> Any:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(device.fs, "calls", ReadOnly())
    for _ in range(3):
        assert device.probation.note_failed(B, "it died") is None
    device.serve(5.0)
    assert device.holds() == (B, A)
    monkeypatch.setattr(device.fs, "calls", real)
    device.serve(5.0)
    assert device.holds() == (A, None)
    device.start()
    assert device.holds() == (A, None)


@pytest.mark.parametrize(
    "field",
    [
        {"probation": 7},
        {"probation": {"bundle": B, "return_to": "../x"}},
        {"probation": {"bundle": A, "return_to": A}},
        {"probation": {"bundle": B, "return_to": A, "failures": "many"}},
        {"probation": {"bundle": B, "return_to": A, "served_s": float("nan")}},
        {"returned": {}},
        {"returned": [{"bundle": None}]},
    ],
)
def test_damaged_record_is_put_aside(device: Device, field: dict[str, Any]) -> None:
    import json

    device.activate(A)
    device.activate(B)
    file = device.path / "slots.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **field}))
    device.start()
    assert device.holds() == (None, None)
    assert file.with_suffix(".json.damaged").exists()
    device.activate(A)
    assert device.holds() == (A, None)


# -- with an agent ---------------------------------------------------------------------------

INPUT = {"name": "x", "dtype": "int32", "shape": [2], "offset": 0, "nbytes": 8}
GOOD = EchoBundle(b"good", name="good")


def test_release_whose_worker_dies_is_taken_back_and_the_next_host_is_told(
    start: Start, tmp_path: Path
) -> None:
    """It passes its check, then something of the device changes: here its own switch file."""
    agent = start()
    deploy(agent, GOOD)
    bad = EchoBundle(b"bad", name="bad", options={"die_if": str(tmp_path / "broken")})
    deploy(agent, bad)
    assert agent.ask("status").meta["probation"]["return_to"] == GOOD.id
    (tmp_path / "broken").touch()
    for number in range(1, 4):
        reply = agent.ask("run", bytes(8), release="current", tensors=[INPUT]).meta
        assert reply["code"] == "worker-died"
        assert ("returned_to" in reply["facts"]) == (number == 3)
    assert reply["facts"]["returned_to"] == GOOD.id
    assert reply["detail"].endswith(
        f"; it was on probation, and the device returned to {GOOD.id[:12]}"
    )
    assert agent.ask("run", bytes(8), release="current", tensors=[INPUT]).meta["ok"]
    agent.hang_up()
    later = start()
    assert f"release {bad.id[:12]} was taken back by the device itself" in later.hello["notice"]
    status = later.ask("status").meta
    assert status["probation"] is None
    assert status["slots"]["previous"] is None
    assert status["returned"][-1]["bundle"] == bad.id
    deploy(later, EchoBundle(b"third", name="third"))
    later.hang_up()
    assert start().hello["notice"] == ""


def test_confirmed_release_stays_whatever_happens(agent: AgentProcess, tmp_path: Path) -> None:
    deploy(agent, GOOD)
    bad = EchoBundle(b"bad", name="bad", options={"die_if": str(tmp_path / "broken")})
    deploy(agent, bad)
    other = agent.ask("confirm", bundle=GOOD.id).meta
    assert other["code"] == "not-found"
    assert other["detail"] == f"release {GOOD.id[:12]} is not current, {bad.id[:12]} is"
    assert agent.ask("confirm", bundle=bad.id).meta["ended"] is True
    assert agent.ask("confirm").meta["ended"] is False
    (tmp_path / "broken").touch()
    for _ in range(4):
        agent.ask("run", bytes(8), release="current", tensors=[INPUT])
    assert current(agent) == bad.id


def test_inputs_that_do_not_fit_are_no_failure_of_the_release(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    deploy(agent, EchoBundle(b"other", name="other"))
    for _ in range(5):
        assert agent.ask("run", b"", release="current", tensors=[]).meta["code"] == "bad-data"
        agent.ask("run", bytes(8), release="current", tensors=[INPUT], timeout_s=0.001)
    assert agent.ask("status").meta["probation"]["failures"] == 0


def test_release_that_got_slower_than_the_current_one_stays_out(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    slow = EchoBundle(b"slow", name="good", options={"delay_ms": 20})
    push(agent, slow)
    check = agent.ask("check", bundle=slow.id).meta
    assert check["passed"] is True
    assert check["latency"]["median_us"] > 20_000
    reply = agent.ask("activate", bundle=slow.id).meta
    assert reply["code"] == "too-slow"
    assert "2 times what the current release takes" in reply["detail"]
    assert current(agent) == GOOD.id
    assert agent.ask("activate", bundle=slow.id, max_latency_us=1e6).meta["ok"]
    reply = agent.ask("activate", bundle=GOOD.id, max_latency_us=0.001).meta
    assert reply["code"] == "too-slow"
    assert "as this deployment asks" in reply["detail"]


def test_another_model_may_be_slower(agent: AgentProcess) -> None:
    deploy(agent, GOOD)
    deploy(agent, EchoBundle(b"slow", name="larger", options={"delay_ms": 5}))


def test_end_of_one_probation_is_not_that_of_another(device: Device) -> None:
    device.activate(A)
    device.activate(B)
    device.activate(C)
    device.confirmed.clear()
    assert not device.probation.confirm(B), "another release came meanwhile"
    assert device.confirmed == []
    assert device.probation.of(C) is not None


def test_release_that_fails_during_its_switch_is_not_told_as_confirmed(device: Device) -> None:
    device.activate(A)
    device.confirmed.clear()
    device.probation.on_switch.insert(
        0, lambda bundle: device.probation.note_failed(bundle, "at once", at_once=True)
    )
    device.activate(B)
    assert device.holds()[0] == A
    assert device.confirmed == [], "what is outdated must not rise with a release that failed"
