"""Further lanes: opened only where they pay, and no harm where they cannot be had."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import lanes
from edgesdk.deploy.lanes import LaneOffer, Lanes, ask_for_lanes
from edgesdk.deploy.push import push_blobs
from edgesdk.deploy.uploads import MissingBlob
from edgesdk.devices.session import Session
from edgesdk.errors import ChannelClosed, ChannelError, SpaceError
from edgesdk.progress import RateMeter
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.transport.base import Channel, LinkTraits
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

TRAITS = LinkTraits(chunk_bytes=100, window_bytes=400, lane_bytes=1000)
TOKEN = "ab" * 16


class Store:
    """A device's store that takes chunks in any order, from any thread."""

    def __init__(self, size: int) -> None:
        self.data = random.Random(size).randbytes(size)
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.pieces: dict[int, bytes] = {}
        self.lock = threading.Lock()
        self.forget_once = False
        self.most_ahead = 0

    def have(self) -> int:
        have = 0
        while have in self.pieces:
            have += len(self.pieces[have])
        return have

    def put(self, request: Frame) -> Iterable[Frame]:
        meta = request.meta
        with self.lock:
            if meta["offset"] > self.have() and not meta.get("ahead"):
                facts = {"have": self.have()}
                no = {"ok": False, "code": codes.GAP, "detail": "gap", "facts": facts}
                return [Frame({"id": meta["id"], **no})]
            self.most_ahead = max(self.most_ahead, meta["offset"] - self.have())
            self.pieces[meta["offset"]] = request.body
            have = self.have()
            if self.forget_once and have > len(self.data) // 2:
                self.forget_once = False
                self.pieces = {at: data for at, data in self.pieces.items() if at < 100}
                have = self.have()
        done = have == len(self.data)
        return [Frame({"id": meta["id"], "ok": True, "have": have, "done": done})]

    def whole(self) -> bytes:
        return b"".join(self.pieces[offset] for offset in sorted(self.pieces))


class WideChannel(ScriptedChannel):
    """A channel that opens lanes to the same agent, or refuses them."""

    def __init__(self, agent: FakeAgent, *, lanes: int = 3, **options: Any) -> None:
        super().__init__(agent, **{"traits": TRAITS, **options})
        self.agent = agent
        self.left = lanes
        self.opened: list[ScriptedChannel] = []
        self.lane_end = ""

    def open_lane(self, *, timeout_s: float) -> Channel:
        assert timeout_s > 0
        if not self.left:
            raise ChannelError("cannot open a lane: too many sessions")
        self.left -= 1
        lane = ScriptedChannel(self.agent, traits=TRAITS)
        self.opened.append(lane)
        return lane


def offers(store: Store, **replies: Any) -> FakeAgent:
    said = {"token": TOKEN, "ahead_bytes": 2000}
    return FakeAgent({"put": store.put, "lanes": said, **replies})


def open_session(channel: ScriptedChannel) -> Session:
    return Session(channel, device_name="bench-3", clock=channel.clock)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pushes of this file are small."""
    monkeypatch.setattr(lanes, "_SMALLEST_PUSH_BYTES", 0)


def pays(*, round_trip_s: float, bytes_per_s: float, left_bytes: int) -> bool:
    channel = WideChannel(
        FakeAgent(), traits=LinkTraits(chunk_bytes=1, window_bytes=1, lane_bytes=2 << 20)
    )
    session = open_session(channel)
    opened = threading.Event()
    offer = LaneOffer(TOKEN, 1000, round_trip_s)
    found = Lanes(session, offer, lambda lane: opened.set())
    found.meter = RateMeter(clock=iter((0.0, *[1.0] * 9)).__next__)
    found.consider(sent_bytes=round(bytes_per_s), left_bytes=left_bytes)
    decided = found.opens
    found.close()
    return decided


@pytest.mark.parametrize(
    ("round_trip_s", "bytes_per_s", "left_bytes", "expected"),
    [
        (0.0005, 200e6, 200 << 20, False),  # a desk: the window is never the limit
        (0.004, 200e6, 200 << 20, False),
        (0.020, 11e6, 200 << 20, False),  # 100 Mbit/s: the rate is the limit
        (0.020, 70e6, 200 << 20, True),
        (0.060, 29e6, 200 << 20, True),
        (0.060, 29e6, 30 << 20, False),  # over before the login would be
        (0.200, 8e6, 200 << 20, True),
    ],
)
def test_lanes_pay_where_the_window_is_the_limit_and_much_is_left(
    round_trip_s: float, bytes_per_s: float, left_bytes: int, expected: bool
) -> None:
    found = pays(round_trip_s=round_trip_s, bytes_per_s=bytes_per_s, left_bytes=left_bytes)
    assert found is expected


def test_agent_is_asked_only_where_the_channel_has_lanes_and_much_is_to_send() -> None:
    store = Store(10)
    agent = offers(store)
    assert ask_for_lanes(open_session(ScriptedChannel(agent, traits=TRAITS)), 1 << 30) is None
    narrow = LinkTraits(chunk_bytes=100, window_bytes=400)
    assert ask_for_lanes(open_session(WideChannel(agent, traits=narrow)), 1 << 30) is None
    assert agent.asked("lanes") == []
    found = ask_for_lanes(open_session(WideChannel(agent)), 1 << 30)
    assert found is not None
    assert (found.token, found.ahead_bytes) == (TOKEN, 2000)


@pytest.mark.parametrize(
    "said",
    [
        {"ok": False, "code": "unknown-op", "detail": "no", "facts": {}},
        {"token": 7, "ahead_bytes": 1},
        {"token": TOKEN, "ahead_bytes": 0},
        {"token": TOKEN, "ahead_bytes": True},
        {},
    ],
)
def test_agent_without_lanes_is_pushed_to_over_one(said: dict[str, Any]) -> None:
    session = open_session(WideChannel(offers(Store(10), lanes=said)))
    assert ask_for_lanes(session, 1 << 30) is None


class Source:
    """One blob in a folder."""

    id = "0" * 64

    def __init__(self, folder: Path, store: Store) -> None:
        self.manifest: dict[str, Any] = {}
        self.path = folder / store.sha256
        self.path.write_bytes(store.data)

    def blob_path(self, sha256: str) -> Path:
        assert sha256 == self.path.name
        return self.path


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lanes pay at once."""
    monkeypatch.setattr(Lanes, "_pays", lambda self, rate, left: True)
    monkeypatch.setattr("edgesdk.progress.RateMeter.per_s", lambda self, **least: 1000.0)


def push(store: Store, channel: WideChannel, folder: Path) -> int:
    missing = [MissingBlob(sha256=store.sha256, bytes=len(store.data), have=0)]
    with open_session(channel) as session:
        return push_blobs(session, Source(folder, store), missing).bytes_sent


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("count", [0, 1, 3])
def test_lanes_that_can_be_had_carry_a_blob_together(tmp_path: Path, count: int) -> None:
    store = Store(50_000)
    channel = WideChannel(offers(store), lanes=count)
    push(store, channel, tmp_path)
    assert store.whole() == store.data
    assert len(channel.opened) <= count
    assert store.most_ahead <= 2000
    for lane in channel.opened:
        assert lane.closed


@pytest.mark.usefixtures("always")
def test_what_a_lane_had_under_way_when_it_broke_goes_over_another(tmp_path: Path) -> None:
    store = Store(50_000)

    class Breaking(WideChannel):
        def open_lane(self, *, timeout_s: float) -> Channel:
            lane = super().open_lane(timeout_s=timeout_s)
            assert isinstance(lane, ScriptedChannel)
            lane.lose = lambda number: number > 0  # its chunks never arrive
            write = lane.write

            def write_or_break(data: bytes, *, timeout_s: float) -> None:
                write(data, timeout_s=timeout_s)
                if len(lane.sent) > 1000:
                    lane.end("the cable was cut")

            lane.write = write_or_break  # type: ignore[method-assign]  # this one breaks
            return lane

    channel = Breaking(offers(store))
    push(store, channel, tmp_path)
    assert store.whole() == store.data


@pytest.mark.usefixtures("always")
def test_agent_that_forgot_chunks_it_kept_gets_them_again(tmp_path: Path) -> None:
    store = Store(20_000)
    store.forget_once = True
    assert push(store, WideChannel(offers(store)), tmp_path) > 20_000
    assert store.whole() == store.data


@pytest.mark.usefixtures("always")
def test_refusal_on_a_lane_ends_the_push_with_its_reason(tmp_path: Path) -> None:
    store = Store(50_000)

    def full(request: Frame) -> Iterable[Frame]:
        if request.meta["offset"] < 20_000:
            return store.put(request)
        no = {"ok": False, "code": codes.NO_SPACE, "detail": "full", "facts": {}}
        return [Frame({"id": request.meta["id"], **no})]

    channel = WideChannel(offers(store, put=full))
    with pytest.raises(SpaceError, match="full"):
        push(store, channel, tmp_path)
    # one that was being opened when the push ended is closed once it is open
    deadline = time.monotonic() + 10
    while not all(lane.closed for lane in channel.opened) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert all(lane.closed for lane in channel.opened)


@pytest.mark.usefixtures("always")
def test_broken_session_ends_the_push_however_many_lanes_there_are(tmp_path: Path) -> None:
    store = Store(50_000)
    channel = WideChannel(offers(store))

    def put(request: Frame) -> Iterable[Frame]:
        if request.meta["offset"] > 10_000:
            channel.end("the cable was cut")
        return store.put(request)

    channel.agent.replies["put"] = put
    with pytest.raises(ChannelClosed, match="the cable was cut"):
        push(store, channel, tmp_path)
