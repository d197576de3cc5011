"""What the host makes of a device's words on probation; waiting for its end."""

from __future__ import annotations

from typing import Any

import pytest

from edgesdk.deploy.probation import (
    confirm_release,
    read_probation,
    read_returns,
    require_current,
    watch_probation,
)
from edgesdk.devices import Session
from edgesdk.errors import EdgeError, ProtocolError, RolledBackError
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.wire.frames import Frame

NEW, OLD = "a" * 64, "b" * 64
STATE = {
    "bundle": NEW,
    "return_to": OLD,
    "served_s": 10.0,
    "wanted_s": 600.0,
    "failures": 1,
    "max_failures": 3,
    "last_failure": "the worker died",
    "watched": True,
}
GONE = {"bundle": NEW, "to": OLD, "why": "it died", "by": "device", "since": "2026-01-01"}


def status(current: str, probation: Any = None, returned: Any = ()) -> dict[str, Any]:
    slots = {"current": {"bundle": current}}
    return {"slots": slots, "probation": probation, "returned": list(returned)}


def session(replies: dict[str, Any]) -> Session:
    channel = ScriptedChannel(FakeAgent(replies))
    return Session(channel, device_name="bench-3", clock=channel.clock)


@pytest.mark.parametrize(
    "record",
    [None, 7, [], {}, {"served_s": "x", "failures": True, "bundle": None, "watched": 1}],
)
def test_odd_words_of_a_device_raise_nothing(record: Any) -> None:
    state = read_probation({"probation": record})
    assert state is None or (state.served_s, state.failures, state.watched) == (0.0, 0, False)
    assert read_returns({"returned": record}) in {(), None} or record == {}


def test_endless_list_of_returns_is_cut() -> None:
    assert len(read_returns({"returned": [GONE] * 1000})) == 32


def test_release_that_was_taken_back_is_an_error_of_its_own() -> None:
    with pytest.raises(RolledBackError) as caught:
        require_current(session({"status": status(OLD, returned=[GONE])}), NEW)
    assert str(caught.value) == (
        f"cannot keep release {NEW[:12]} on bench-3: the device went back to {OLD[:12]} by "
        "itself: it died"
    )
    assert caught.value.exit_code == 6
    assert caught.value.facts["returned_to"] == OLD


def test_release_that_somebody_replaced_is_another_matter() -> None:
    by_hand = {**GONE, "by": "host"}
    with pytest.raises(ProtocolError, match="bbbbbbbbbbbb is current"):
        require_current(session({"status": status(OLD, returned=[by_hand])}), NEW)


@pytest.mark.parametrize("ends_well", [True, False])
def test_watching_lasts_until_the_probation_is_over(ends_well: bool) -> None:
    served = iter([10.0, 300.0, 599.9])
    slept: list[float] = []

    def answer(request: Frame) -> list[Frame]:
        now = next(served, None)
        if now is not None:
            said = status(NEW, {**STATE, "served_s": now})
        else:
            said = status(NEW) if ends_well else status(OLD, returned=[GONE])
        return [Frame({**said, "id": request.meta["id"], "ok": True})]

    def watch() -> None:
        watch_probation(session({"status": answer}), NEW, sleep=slept.append)

    if ends_well:
        watch()
    else:
        with pytest.raises(RolledBackError):
            watch()
    assert slept == [2.0, 2.0, 0.2]


def test_nobody_waits_where_nobody_counts() -> None:
    unwatched = {**STATE, "watched": False}
    with pytest.raises(EdgeError, match="no daemon runs there") as caught:
        watch_probation(session({"status": status(NEW, unwatched)}), NEW)
    assert "edgesdk confirm" in caught.value.hint


def test_confirming_says_whether_there_was_anything_to_confirm() -> None:
    assert confirm_release(session({"confirm": {"ended": True}}), NEW)
    assert not confirm_release(session({"confirm": {"ended": False}}))


def test_use_that_ended_a_probation_is_a_rollback_whatever_its_code() -> None:
    def died(request: Frame) -> list[Frame]:
        facts = {"returned_to": OLD, "signal": "SIGSEGV"}
        no = {"ok": False, "code": "worker-died", "detail": "it died", "facts": facts}
        return [Frame({**no, "id": request.meta["id"]})]

    with pytest.raises(RolledBackError, match="cannot run the model on bench-3: it died"):
        session({"run": died}).request("run")
