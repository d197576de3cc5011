"""The push: windowed, resumed, and whole at the end whatever a link loses on the way."""

from __future__ import annotations

import contextlib
import hashlib
import random
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.deploy.push import MissingBlob, push_blobs, read_missing
from edgesdk.devices.session import Session
from edgesdk.errors import (
    BundleError,
    ChannelTimeout,
    DeviceError,
    ProtocolError,
    SpaceError,
)
from edgesdk.progress import Progress
from edgesdk.testing import FakeAgent, ScriptedChannel
from edgesdk.transport.base import LinkTraits
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

CLEAN = LinkTraits(chunk_bytes=100, window_bytes=400)
SLOW = LinkTraits(chunk_bytes=100, window_bytes=400, silence_s=60.0, compress=True)


class Store:
    """A device's store, as the wire describes it."""

    def __init__(self) -> None:
        self.staged: dict[str, bytearray] = {}
        self.blobs: dict[str, bytes] = {}
        self.damage = 0

    def put(self, request: Frame) -> Iterable[Frame]:
        meta, body = request.meta, request.body
        if "raw_bytes" in meta:
            body = zlib.decompress(body)
            assert len(body) == meta["raw_bytes"]
        sha256, echo = meta["sha256"], {"id": meta["id"]}
        if sha256 in self.blobs:
            return [Frame({**echo, "ok": True, "have": meta["bytes"], "done": True})]
        staged = self.staged.setdefault(sha256, bytearray())
        if meta["offset"] > len(staged):
            facts = {"have": len(staged)}
            no = {"ok": False, "code": codes.GAP, "detail": "gap", "facts": facts}
            return [Frame({**echo, **no})]
        staged += body[len(staged) - meta["offset"] :]
        done = len(staged) == meta["bytes"]
        have = len(staged)
        if done:
            del self.staged[sha256]
            if self.damage or hashlib.sha256(staged).hexdigest() != sha256:
                self.damage = max(0, self.damage - 1)
                no = {"ok": False, "code": codes.BAD_HASH, "detail": "other bytes", "facts": {}}
                return [Frame({**echo, **no})]
            self.blobs[sha256] = bytes(staged)
        return [Frame({**echo, "ok": True, "have": have, "done": done})]


class Source:
    """Blobs in a folder."""

    id = "0" * 64

    def __init__(self, folder: Path, *blobs: bytes) -> None:
        self.manifest: dict[str, Any] = {}
        self.folder = folder
        self.data = {hashlib.sha256(blob).hexdigest(): blob for blob in blobs}
        for sha256, blob in self.data.items():
            (folder / sha256).write_bytes(blob)

    def blob_path(self, sha256: str) -> Path:
        return self.folder / sha256

    def missing(self, have: int = 0) -> list[MissingBlob]:
        return [
            MissingBlob(sha256=sha256, bytes=len(blob), have=min(have, len(blob)))
            for sha256, blob in self.data.items()
        ]


def session_with(
    put: Callable[[Frame], Iterable[Frame | bytes]], **options: Any
) -> tuple[Session, FakeAgent, ScriptedChannel]:
    agent = FakeAgent({"put": put})
    channel = ScriptedChannel(agent, **{"traits": CLEAN, **options})
    return Session(channel, device_name="bench-3", clock=channel.clock), agent, channel


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("sizes", [(0,), (1,), (100,), (101, 0, 399), (1000, 50)])
def test_blobs_arrive_whole(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    source, store = Source(tmp_path, *(noise(size, size) for size in sizes)), Store()
    session, agent, _ = session_with(store.put)
    steps: list[Progress] = []
    result = push_blobs(session, source, source.missing(), on_progress=steps.append)
    assert store.blobs == source.data
    assert result.blobs_sent == len(sizes)
    assert result.bytes_sent == sum(sizes)
    assert steps[-1].done == steps[-1].total == sum(sizes)
    assert max(len(request.body) for request in agent.asked("put")) <= 100


def test_nothing_missing_sends_nothing(tmp_path: Path) -> None:
    session, agent, _ = session_with(Store().put)
    result = push_blobs(session, Source(tmp_path), [])
    assert (result.blobs_sent, result.bytes_sent, agent.asked("put")) == (0, 0, [])


def test_push_resumes_from_what_the_device_has(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(1000)), Store()
    ((sha256, blob),) = source.data.items()
    store.staged[sha256] = bytearray(blob[:730])
    session, agent, _ = session_with(store.put)
    result = push_blobs(session, source, source.missing(have=730))
    assert store.blobs == source.data
    assert (result.bytes_sent, result.bytes_skipped) == (270, 730)
    assert agent.asked("put")[0].meta["offset"] == 730


def test_device_that_has_every_byte_but_did_not_finish_is_asked_to(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(300)), Store()
    ((sha256, blob),) = source.data.items()
    store.staged[sha256] = bytearray(blob)
    session, _, _ = session_with(store.put)
    assert push_blobs(session, source, source.missing(have=300)).bytes_sent == 0
    assert store.blobs == source.data


def test_gap_goes_back_once_to_what_the_device_holds(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(1000)), Store()
    session, agent, _ = session_with(store.put)
    result = push_blobs(session, source, source.missing(have=500))  # it has nothing in truth
    assert store.blobs == source.data
    assert result.bytes_sent <= 400 + 1000
    assert agent.asked("put")[0].meta["offset"] == 500


def test_window_bounds_what_is_under_way(tmp_path: Path) -> None:
    source, store, waiting = Source(tmp_path, noise(2000)), Store(), [0, 0]

    def put(request: Frame) -> Iterable[Frame]:
        waiting[0] += len(request.body)
        waiting[1] = max(waiting)
        if waiting[0] < 400 and request.meta["offset"] + len(request.body) < 2000:
            held.append(request)
            return []
        waiting[0] = 0
        batch = [*held, request]
        held.clear()
        return [frame for one in batch for frame in store.put(one)]

    held: list[Frame] = []
    session, _, _ = session_with(put)
    push_blobs(session, source, source.missing())
    assert store.blobs == source.data
    assert waiting[1] <= 400


def test_chunks_that_shrink_travel_compressed_on_a_slow_link(tmp_path: Path) -> None:
    source, store = Source(tmp_path, bytes(1000), noise(300)), Store()
    session, agent, _ = session_with(store.put, traits=SLOW)
    push_blobs(session, source, source.missing())
    assert store.blobs == source.data
    packed = ["raw_bytes" in request.meta for request in agent.asked("put")]
    assert packed == [True] * 10 + [False] * 3


def test_blob_that_arrives_damaged_is_sent_again_once(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(300)), Store()
    store.damage = 1
    session, _, _ = session_with(store.put)
    assert push_blobs(session, source, source.missing()).bytes_sent == 600
    assert store.blobs == source.data
    (tmp_path / "again").mkdir()
    other = Source(tmp_path / "again", noise(301, 2))
    store.damage = 2
    with pytest.raises(
        DeviceError, match=r"it arrives damaged, twice \(the file here is intact\)"
    ):
        push_blobs(session, other, other.missing())


def test_altered_file_is_named_as_such(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(300)), Store()
    ((sha256, blob),) = source.data.items()
    (tmp_path / sha256).write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    session, _, _ = session_with(store.put)
    with pytest.raises(BundleError, match="its file does not hash to its name"):
        push_blobs(session, source, source.missing())


def test_short_and_missing_files_are_named(tmp_path: Path) -> None:
    source = Source(tmp_path, noise(300))
    ((sha256, blob),) = source.data.items()
    (tmp_path / sha256).write_bytes(blob[:120])
    session, _, _ = session_with(Store().put)
    with pytest.raises(BundleError, match=r"its file has 120 bytes \(expected 300\)"):
        push_blobs(session, source, source.missing())
    (tmp_path / sha256).unlink()
    session, _, _ = session_with(Store().put)
    with pytest.raises(BundleError, match=r"cannot read blob .*: No such file"):
        push_blobs(session, source, source.missing())


def test_refusal_of_the_device_ends_the_push(tmp_path: Path) -> None:
    def full(request: Frame) -> Iterable[Frame]:
        no = {"ok": False, "code": codes.NO_SPACE, "detail": "4 bytes are free", "facts": {}}
        return [Frame({"id": request.meta["id"], **no})]

    source = Source(tmp_path, noise(300))
    session, _, _ = session_with(full)
    with pytest.raises(SpaceError, match="cannot send a blob to bench-3: 4 bytes are free"):
        push_blobs(session, source, source.missing())


def test_device_that_never_says_done_is_found_out(tmp_path: Path) -> None:
    def put(request: Frame) -> Iterable[Frame]:
        return [Frame({"id": request.meta["id"], "ok": True, "have": 300, "done": False})]

    source = Source(tmp_path, noise(300))
    session, _, _ = session_with(put)
    with pytest.raises(ProtocolError, match="does not say that it is done"):
        push_blobs(session, source, source.missing())


def test_silent_device_is_given_up_with_the_time_it_was_silent(tmp_path: Path) -> None:
    source = Source(tmp_path, noise(300))
    session, _, _ = session_with(lambda request: [])
    with pytest.raises(ChannelTimeout, match="cannot send a blob to bench-3: no data for 15 s"):
        push_blobs(session, source, source.missing())


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_any_list_of_missing_blobs_is_read_or_refused(value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        assert read_missing({"missing": value}, {}) == ()


def test_device_cannot_ask_for_what_is_not_in_the_bundle() -> None:
    record = {"sha256": "0" * 64, "bytes": 5, "have": 0}
    with pytest.raises(ProtocolError, match="makes no sense"):
        read_missing({"missing": [record]}, {"1" * 64: 5})
    (blob,) = read_missing({"missing": [{**record, "have": 99}]}, {"0" * 64: 5})
    assert (blob.bytes, blob.have) == (5, 5)


def test_chunks_follow_the_speed_of_the_link(tmp_path: Path) -> None:
    """A serial line finds its speed while the push is under way."""
    source, store = Source(tmp_path, noise(2000)), Store()

    def put(request: Frame) -> Iterable[Frame]:
        channel.traits = LinkTraits(chunk_bytes=300, window_bytes=600)
        return store.put(request)

    session, agent, channel = session_with(put)
    push_blobs(session, source, source.missing())
    assert store.blobs == source.data
    sizes = [len(request.body) for request in agent.asked("put")]
    assert sizes[0] == 100
    assert set(sizes[1:-1]) == {300}


def test_chunk_that_is_never_answered_ends_in_silence_not_in_a_hang(tmp_path: Path) -> None:
    source, store = Source(tmp_path, noise(2000)), Store()

    def put(request: Frame) -> Iterable[Frame]:
        return [] if request.meta["offset"] == 500 else store.put(request)

    session, _, channel = session_with(put, traits=SLOW)
    with pytest.raises(ChannelTimeout, match="no data for 60 s"):
        push_blobs(session, source, source.missing())
    assert channel.now_s < 130


def test_device_that_never_takes_a_byte_is_given_up(tmp_path: Path) -> None:
    def put(request: Frame) -> Iterable[Frame]:
        no = {"ok": False, "code": codes.GAP, "detail": "gap", "facts": {"have": 0}}
        return [Frame({"id": request.meta["id"], **no})]

    session, _, _ = session_with(put)
    source = Source(tmp_path, noise(300))
    with pytest.raises(ProtocolError, match="it was sent 500 times from byte 0, and not one"):
        push_blobs(session, source, source.missing())
