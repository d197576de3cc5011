"""A line with a key: who has it is let in and heard, everybody else is not.

Both ends are the real ones, host session and agent gate, with an attacker in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from edgesdk.devices.session import Session
from edgesdk.errors import AuthError, ChannelTimeout
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.wire.auth import Keys, Sealer, new_nonce
from edgesdk.wire.frames import Frame, FrameReader, encode_frame
from tests.agent.agent_driver import HELLO

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


class Line:
    """An agent behind its gate, and whoever has the wire.

    ``tamper`` sees each frame on its way, as bytes, and gives what arrives instead.
    """

    def __init__(self, module: Any, key: bytes | None = KEY) -> None:
        self.key = key
        self.log: list[str] = []
        self.done: list[str] = []
        self.fake = FakeAgent({"status": {"slots": {}}, "gc": {"removed": []}})
        self.gate = module.LineGate(lambda: self.key, self._greet, self.log.append)
        self.to_agent: Callable[[bytes], Iterable[bytes]] = lambda data: [data]
        self.to_host: Callable[[bytes], Iterable[bytes]] = lambda data: [data]
        self.heard: list[bytes] = []
        self.channel = ScriptedChannel(self._answers)
        self.sessions: list[Any] = []
        self.who = ""

    def _greet(self, frame: Frame) -> Frame:
        (reply,) = self.fake(frame)
        assert isinstance(reply, Frame)
        return reply

    def connect(self, key: bytes | None = KEY) -> Session:
        return Session(
            self.channel, device_name="bench-3", key=key, clock=lambda: self.channel.now_s
        )

    def agent_takes(self, data: bytes) -> list[bytes]:
        """What the agent answers to bytes on its line."""
        answers = []
        for frame in FrameReader().feed(data):
            passed = self.gate.take(frame)
            if passed.begins:
                self.sessions.append(passed.session)
                self.who = passed.who
            if passed.reply is not None:
                answers.append(passed.reply)
            if passed.frame is not None:
                self.done.append(str(passed.frame.meta["op"]))
                for reply in self.fake(passed.frame):
                    assert isinstance(reply, Frame)
                    answers.append(self.gate.encode(reply))
        return answers

    def _answers(self, request: Frame) -> Iterator[Frame | bytes]:
        sent = encode_frame(Frame(request.meta, request.body))
        self.heard.append(sent)
        for data in self.to_agent(sent):
            for answer in self.agent_takes(data):
                yield from self.to_host(answer)


@pytest.fixture
def line(agent_modules: Callable[[str], Any]) -> Line:
    return Line(agent_modules("edge_agent.line_gate"))


def plain(op: str, number: int = 77, **meta: Any) -> bytes:
    return encode_frame(Frame({"op": op, "id": number, **meta}))


def test_host_with_the_key_is_heard(line: Line) -> None:
    session = line.connect()
    assert session.request("status").meta["ok"]
    assert session.request("gc").meta["ok"]
    assert line.done == ["status", "gc"]
    assert len(line.sessions) == 1
    assert "@" in line.who, "whom others are told of, where this host holds the device"


def test_line_without_a_key_is_as_before(line: Line) -> None:
    line.key = None
    assert line.connect(key=None).request("status").meta["ok"]
    assert line.done == ["hello", "status"]


def test_key_is_nowhere_on_the_wire_or_in_texts(line: Line) -> None:
    session = line.connect()
    session.request("status")
    seen = b"".join(line.heard) + bytes(line.channel.sent) + repr(session.__dict__).encode()
    for text in (KEY, KEY.hex().encode(), "".join(line.log).encode()):
        assert not text or text not in seen


def test_host_without_the_key_is_told_what_is_missing(line: Line) -> None:
    with pytest.raises(AuthError, match="bench-3: it asks for the key of its line") as caught:
        line.connect(key=None)
    assert "serial://...?key=FILE" in caught.value.hint
    assert line.done == []


def test_host_with_another_key_is_refused(line: Line) -> None:
    with pytest.raises(AuthError, match="that is not the key of this line"):
        line.connect(key=OTHER)
    assert (line.done, line.sessions) == ([], [])
    assert not line.gate.is_proven


@pytest.mark.parametrize("op", ["status", "shutdown", "run", "trust", "auth", "nonsense"])
def test_nothing_is_done_before_the_proof(line: Line, op: str) -> None:
    (answer,) = line.agent_takes(plain(op))
    (frame,) = FrameReader().feed(answer)
    assert frame.meta["code"] == "not-authenticated"
    assert line.done == []


@pytest.mark.parametrize("nonce", [None, "", "00", "G" * 32, 5, ["0" * 32]])
def test_greeting_without_a_nonce_is_refused(line: Line, nonce: object) -> None:
    (answer,) = line.agent_takes(plain("hello", protocol=[1, 1], nonce=nonce))
    (frame,) = FrameReader().feed(answer)
    assert frame.meta["code"] == "not-authenticated"


def test_device_that_asks_for_no_key_is_not_taken_for_ours(line: Line) -> None:
    line.key = None  # or somebody answers in its place
    with pytest.raises(AuthError, match="it asks for no key, although there is one for it"):
        line.connect()


def test_device_that_has_not_the_key_is_not_taken_for_ours(line: Line) -> None:
    def forge(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        if "proof" in frame.meta:
            yield encode_frame(Frame({**frame.meta, "proof": "0" * 64}))
        else:
            yield data

    line.to_host = forge
    with pytest.raises(AuthError, match="it cannot prove that it holds the key"):
        line.connect()


def test_own_proof_sent_back_proves_nothing(line: Line) -> None:
    seen: list[Any] = []

    def listen(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        seen.append(frame.meta.get("proof"))
        yield data

    def reflect(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        yield encode_frame(Frame({**frame.meta, "proof": seen[-1]}) if seen[-1] else frame)

    line.to_agent, line.to_host = listen, reflect
    with pytest.raises(AuthError, match="cannot prove"):
        line.connect()


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": 1, "agent_version": "9.9.9"},
        {"limits": {"max_chunk_bytes": 1}},
        {"signatures": "ignored"},
        {"nonce": "0" * 32},
    ],
)
def test_greeting_changed_on_the_way_to_the_host(line: Line, change: dict[str, Any]) -> None:
    def tamper(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        hello = "agent_version" in frame.meta
        yield encode_frame(Frame({**frame.meta, **change})) if hello else data

    line.to_host = tamper
    with pytest.raises(AuthError, match="not the key of this line"):
        line.connect()
    assert line.sessions == []


@pytest.mark.parametrize(
    "change", [{"protocol": [0, 1]}, {"host_version": "0.0.1"}, {"nonce": "0" * 32}]
)
def test_greeting_changed_on_the_way_to_the_device(line: Line, change: dict[str, Any]) -> None:
    def tamper(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        hello = frame.meta["op"] == "hello"
        yield encode_frame(Frame({**frame.meta, **change})) if hello else data

    line.to_agent = tamper
    with pytest.raises(AuthError, match="not the key of this line"):
        line.connect()
    assert line.sessions == []


def test_nonce_stripped_from_the_answer_is_no_way_around(line: Line) -> None:
    def strip(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        frame.meta.pop("nonce", None)
        yield encode_frame(Frame(frame.meta))

    line.to_host = strip
    with pytest.raises(AuthError, match="asks for no key"):
        line.connect()


def test_recorded_session_played_again_does_nothing(line: Line) -> None:
    line.connect().request("gc")
    record, line.done, line.sessions = list(line.heard), [], []
    for data in record:
        line.agent_takes(data)
    assert (line.done, line.sessions) == ([], [])
    assert line.gate.is_proven, "nor does it end the session"


def test_recorded_session_played_to_the_next_start_does_nothing(
    line: Line, agent_modules: Callable[[str], Any]
) -> None:
    line.connect().request("gc")
    later = Line(agent_modules("edge_agent.line_gate"))
    for data in line.heard:
        later.agent_takes(data)
    assert (later.done, later.sessions) == ([], [])


def test_frames_played_again_or_in_another_order_are_refused(line: Line) -> None:
    session = line.connect()
    held: list[bytes] = []

    def hold(data: bytes) -> Iterator[bytes]:
        held.append(data)
        yield from ()

    line.to_agent = hold
    session.post("status", {})
    session.post("gc", {})
    status, gc = held
    assert len(line.agent_takes(gc)) == 1
    assert line.agent_takes(status) == [], "overtaken"
    assert line.agent_takes(gc) == [], "played again"
    assert line.done == ["gc"]


def test_injected_requests_are_not_done_and_do_not_disturb(line: Line) -> None:
    session = line.connect()
    for data in (
        plain("shutdown"),
        plain("gc") * 3,
        Sealer(OTHER).encode(Frame({"op": "shutdown", "id": 5})),
        plain("hello", protocol=[1, 1], session="ab" * 16),
        plain("hello", protocol=[1, 1], session="ab" * 16, nonce="0" * 32),
        plain("auth", proof="0" * 64),
        plain("auth"),
    ):
        line.agent_takes(data)
    assert line.done == []
    assert len(line.sessions) == 1
    assert session.request("status").meta["ok"]
    assert any("frames without proof were refused" in text for text in line.log)


def test_agents_own_frames_sent_back_are_refused(line: Line) -> None:
    session = line.connect()
    answers: list[bytes] = []

    def keep(data: bytes) -> Iterator[bytes]:
        answers.append(data)
        yield data

    line.to_host = keep
    session.request("status")
    line.done = []
    for data in answers:
        assert line.agent_takes(data) == []
    assert line.done == []


def test_forged_answers_do_not_reach_the_caller(line: Line) -> None:
    session = line.connect()

    def forge(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        yield encode_frame(Frame({**frame.meta, "slots": {"current": "theirs"}}))
        yield Sealer(OTHER).encode(Frame({"id": frame.meta["id"], "ok": True}))
        yield data

    line.to_host = forge
    assert session.request("status").meta["slots"] == {}


def test_answers_that_are_all_forged_are_a_timeout_that_says_so(line: Line) -> None:
    session = line.connect()

    def forge(data: bytes) -> Iterator[bytes]:
        (frame,) = FrameReader().feed(data)
        yield encode_frame(Frame({"id": frame.meta["id"], "ok": True}))

    line.to_host = forge
    with pytest.raises(ChannelTimeout, match="1 frames came without the seal of this session"):
        session.request("status")


def test_next_host_takes_over_with_a_proof_of_its_own(line: Line) -> None:
    first = line.connect()
    first.request("status")
    second = line.connect()
    assert second.request("status").meta["ok"]
    assert len(set(line.sessions)) == 2
    with pytest.raises(ChannelTimeout):
        first.request("gc")
    assert "gc" not in line.done


def test_key_changed_on_the_device_holds_at_once(line: Line) -> None:
    session = line.connect()
    line.key = OTHER
    with pytest.raises(ChannelTimeout, match="did the agent restart"):
        session.request("gc", timeout_s=5)  # which has no use for a refusal without a seal
    assert line.done == []
    assert line.connect(key=OTHER).request("gc").meta["ok"]


def test_key_enrolled_during_an_open_session_holds_at_once(line: Line) -> None:
    line.key = None
    session = line.connect(key=None)
    line.key = KEY
    with pytest.raises(AuthError, match="prove first that you hold the key"):
        session.request("gc")
    assert "gc" not in line.done


def test_name_of_a_proven_host_is_a_line_of_text(line: Line) -> None:
    who = "\x1b[2Jeve\n" + "x" * 5000
    hello = {**HELLO, "op": "hello", "id": 1, "who": who, "nonce": new_nonce()}
    asked = encode_frame(Frame(hello))
    (greeted,) = line.agent_takes(asked)
    raw = [FrameReader().feed(data)[0].raw_meta or b"" for data in (asked, greeted)]
    proof = Keys(KEY, *raw).host_proof
    line.agent_takes(encode_frame(Frame({"op": "auth", "id": 2, "proof": proof})))
    assert line.who.startswith("[2Jeve xxx")
    assert line.who.isprintable()
    assert len(line.who) == 128
