"""The session: pairing, deadlines, repetition, versions, and one cause for all that follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.devices.refusals import ERROR_OF_CODE, refusal_error
from edgesdk.devices.session import Session
from edgesdk.devices.text import clean_text, clean_value
from edgesdk.errors import (
    ChannelClosed,
    ChannelTimeout,
    EdgeError,
    ProtocolError,
    RuntimeMissing,
)
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.transport.base import LinkTraits
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

QUICK = LinkTraits(chunk_bytes=64, window_bytes=256, silence_s=10)


def open_session(agent: FakeAgent, **options: Any) -> tuple[Session, ScriptedChannel]:
    channel = ScriptedChannel(agent, **options)
    return Session(channel, device_name="bench-3", clock=channel.clock), channel


def test_every_code_of_the_wire_has_an_exception() -> None:
    assert set(ERROR_OF_CODE) == set(codes.ALL_CODES)


@pytest.mark.parametrize("code", codes.ALL_CODES)
def test_refusal_carries_device_sentence_and_facts(code: str) -> None:
    meta = {"code": code, "detail": "no \x1b[31mroom", "facts": {"free_bytes": 3, "hint": "x"}}
    error = refusal_error("stage", meta, device_name="bench-3")
    assert type(error) is ERROR_OF_CODE[code]
    assert str(error) == "cannot stage the bundle on bench-3: no  [31mroom"
    assert error.facts["free_bytes"] == 3
    assert error.facts["code"] == code


def test_missing_runtime_names_wheel_and_command() -> None:
    facts = {"runtime": "onnxruntime", "python": "3.7.16", "machine": "aarch64"}
    meta = {"code": codes.NO_RUNTIME, "detail": "no module", "facts": facts}
    error = refusal_error("check", meta, device_name="bench-3")
    assert isinstance(error, RuntimeMissing)
    assert error.hint == "on the device: `python3.7 -m pip install onnxruntime==1.14.1`"


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_any_reply_of_a_device_makes_an_error_without_control_characters(value: Any) -> None:
    meta = {"code": value, "detail": value, "facts": value}
    error = refusal_error("check", meta, device_name="bench-3")
    assert isinstance(error, EdgeError)
    assert "\x1b" not in str(error)
    assert "\x1b" not in repr(clean_value(value)).replace("\\x1b", "")


def test_text_of_a_device_is_cleaned_and_bounded() -> None:
    assert clean_text("a\x1b[2Jb\u202ec\r") == "a [2Jb c "
    assert clean_text("x" * 50, limit=10) == "x" * 10 + "..."
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    assert "x" not in repr(clean_value(deep))


def test_hello_goes_first_and_says_both_versions() -> None:
    agent = FakeAgent()
    session, _ = open_session(agent)
    (hello,) = agent.requests
    assert hello.meta["op"] == "hello"
    assert hello.meta["protocol"] == [1, 1]
    assert len(hello.meta["session"]) == 32
    assert session.hello.python == "3.7.0"


@pytest.mark.parametrize(
    ("theirs", "says", "hint"),
    [
        (
            [2, 3],
            "speaks protocol 2-3, edgesdk 0.1.0 speaks 1; this edgesdk is the older",
            "update",
        ),
        (
            [0, 0],
            "speaks protocol 0, edgesdk 0.1.0 speaks 1; the agent is the older",
            "agent install",
        ),
    ],
)
def test_version_mismatch_names_both_and_which_end_is_old(
    theirs: list[int], says: str, hint: str
) -> None:
    facts = {"protocol": theirs, "agent_version": "9.9"}
    refusal = {"ok": False, "code": codes.VERSION, "detail": "no", "facts": facts}
    channel = ScriptedChannel(FakeAgent({"hello": refusal}))
    with pytest.raises(ProtocolError, match=r"its agent 9\.9 speaks") as caught:
        Session(channel, device_name="bench-3", clock=channel.clock)
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert channel.closed


def test_agent_that_picks_a_version_we_never_offered_is_refused() -> None:
    channel = ScriptedChannel(FakeAgent({"hello": {"protocol": 7, "agent_version": "2.0"}}))
    with pytest.raises(ProtocolError, match=r"its agent 2\.0 speaks protocol 7"):
        Session(channel, device_name="bench-3", clock=channel.clock)


def test_answers_to_others_and_events_are_told_apart() -> None:
    def answer(request: Frame) -> Iterable[Frame]:
        yield Frame({"id": 1, "ok": True, "facts": "of an earlier session"})
        yield Frame({"id": request.meta["id"], "event": "progress", "done": 1})
        yield Frame({"id": request.meta["id"], "ok": True, "facts": "ours"})

    session, _ = open_session(FakeAgent({"facts": answer}))
    events: list[Any] = []
    assert session.request("facts", on_event=events.append).meta["facts"] == "ours"
    assert [event["done"] for event in events] == [1]


def test_ids_rise() -> None:
    agent = FakeAgent({"status": {}})
    session, _ = open_session(agent)
    for _ in range(3):
        session.request("status")
    ids = [request.meta["id"] for request in agent.requests]
    assert ids == sorted(set(ids))
    assert ids[0] > 0


def test_signs_of_life_keep_a_long_request_alive_until_its_time_is_up() -> None:
    session, channel = open_session(FakeAgent({"bench": lambda request: []}))
    channel.now_s = 0.0
    beats = 0
    real_read = channel.read

    def read(*, timeout_s: float) -> bytes:
        nonlocal beats
        beats += 1
        channel.now_s += 1.0
        return b"." if timeout_s else real_read(timeout_s=timeout_s)

    channel.read = read  # type: ignore[method-assign]
    with pytest.raises(ChannelTimeout, match="no answer within 100 s"):
        session.request("bench", timeout_s=100)
    assert beats == 100


def test_silence_ends_a_request_early_and_shows_the_noise() -> None:
    session, channel = open_session(FakeAgent())
    channel.say(b"Kernel panic - not syncing\r\n")
    with pytest.raises(ChannelTimeout, match=r"no data for 15 s .*Kernel panic") as caught:
        session.request("bench", timeout_s=1000)
    assert channel.now_s == pytest.approx(15, abs=1)
    assert session.noise_bytes > 20
    assert caught.value.facts["noise_bytes"] == session.noise_bytes


def test_broken_session_repeats_its_first_cause() -> None:
    session, channel = open_session(FakeAgent({"status": {}}))
    channel.end("the agent was ended by signal SIGKILL")
    for _ in range(2):
        with pytest.raises(ChannelClosed, match="ended by signal SIGKILL"):
            session.request("status")
    channel.end("")
    with pytest.raises(ChannelClosed, match="ended by signal SIGKILL"):
        session.request("status")


def test_interrupted_write_breaks_the_session() -> None:
    session, channel = open_session(FakeAgent({"status": {}}))

    def write(data: bytes, *, timeout_s: float) -> None:
        raise KeyboardInterrupt

    channel.write = write  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.request("status")
    with pytest.raises(ProtocolError, match="sending was interrupted"):
        session.request("status")


def test_nothing_is_asked_twice_and_a_dead_link_is_given_up() -> None:
    agent = FakeAgent({"status": {}})
    session, channel = open_session(agent, traits=QUICK, lose=lambda number: number > 0)
    with pytest.raises(ChannelTimeout, match="no data for 10 s"):
        session.request("status", timeout_s=1000)
    assert channel.now_s <= 12
    assert bytes(channel.sent).count(b'"op":"status"') == 1


def test_noise_of_the_link_is_counted_and_shown() -> None:
    channel = ScriptedChannel(lambda _: [])
    channel.noise_bytes, channel.noise_tail = 17, "raspberrypi login:"  # type: ignore[attr-defined]
    with pytest.raises(ChannelTimeout, match=r"17 bytes came.*'raspberrypi login:'"):
        Session(channel, device_name="bench-3", timeout_s=1.0, clock=channel.clock)


def test_request_that_is_too_large_says_so_and_harms_nothing() -> None:
    session, _ = open_session(FakeAgent({"status": {}}))
    with pytest.raises(
        ProtocolError, match="cannot run the model on bench-3: cannot encode frame"
    ):
        session.request("run", {}, bytes((64 << 20) + 1))
    assert session.request("status").meta["ok"]


def test_leaving_the_block_closes_the_channel() -> None:
    session, channel = open_session(FakeAgent())
    with session:
        pass
    assert channel.closed
    with pytest.raises(ProtocolError, match="cannot talk to bench-3: it was closed"):
        session.request("status")


@pytest.mark.parametrize("name", ["problem", "hint", "self"])
def test_device_cannot_make_raising_its_own_refusal_fail(name: str) -> None:
    meta = {"code": codes.BUSY, "detail": "no", "facts": {name: 1, "pid": 7}}
    error = refusal_error("check", meta, device_name="bench-3")
    assert str(error) == "cannot run the check vectors on bench-3: no"
    assert error.facts["pid"] == 7
