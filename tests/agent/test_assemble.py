"""Blobs made on the device: right, or refused by name with nothing of them left."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from edgesdk.wire.delta import COPY, INSERT, DeltaHeader, encode_header, put_varint, zigzag
from tests.agent.agent_driver import (
    ONE,
    AgentProcess,
    EchoBundle,
    Start,
    deploy,
    push,
    put,
    stage,
)

BASE = random.Random(5).randbytes(300_000)
NEW = BASE[:100_000] + b"something new" + BASE[120_000:]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def numbers(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        put_varint(out, value)
    return bytes(out)


def delta(
    *, target: bytes = NEW, base: bytes = BASE, base_bytes: int | None = None, at: int = 120_000
) -> bytes:
    """The delta from BASE to NEW, or one with something wrong in it."""
    listed = [(sha(base), len(base) if base_bytes is None else base_bytes)]
    steps = numbers(COPY, 0, 0, 100_000) + numbers(INSERT, 13)
    steps += numbers(COPY, 0, zigzag(at - 100_000), 180_000)
    streams = numbers(len(steps), len(steps)) + steps + numbers(0, 0)
    streams += numbers(13, 13) + b"something new"
    return encode_header(DeltaHeader(sha(target), len(target), listed)) + streams


def assemble(agent: AgentProcess, body: bytes, **meta: Any) -> dict[str, Any]:
    return agent.ask("assemble", body, **{"sha256": sha(NEW), "bytes": len(NEW), **meta}).meta


@pytest.fixture
def ready(agent: AgentProcess) -> AgentProcess:
    """An agent that runs a release with BASE and has been asked for one with NEW."""
    deploy(agent, EchoBundle(BASE))
    stage(agent, EchoBundle(NEW))
    return agent


def files(state: Path) -> set[str]:
    return {p.name for folder in ("blobs", "staging") for p in (state / folder).iterdir()}


def test_blob_is_made_from_a_delta_and_runs(ready: AgentProcess, state: Path) -> None:
    assert assemble(ready, delta())["done"] is True
    assert (state / "blobs" / sha(NEW)).read_bytes() == NEW
    assert (state / "blobs" / sha(NEW)).stat().st_mode & 0o777 == 0o400
    deploy(ready, EchoBundle(NEW))


def test_a_large_delta_is_put_like_a_blob_and_is_gone_afterwards(
    ready: AgentProcess, state: Path
) -> None:
    data = delta()
    before = files(state)
    told = assemble(ready, b"", delta=sha(data), delta_bytes=len(data))
    assert (told["done"], told["have"]) == (False, 0)
    put(ready, sha(data), data, chunk=40)
    assert assemble(ready, b"", delta=sha(data), delta_bytes=len(data))["done"] is True
    assert files(state) == before | {sha(NEW)}


def test_an_interrupted_delta_goes_on_while_the_agent_lives(ready: AgentProcess) -> None:
    data = delta()
    asks = {"delta": sha(data), "delta_bytes": len(data)}
    assemble(ready, b"", **asks)
    ready.ask("put", data[:50], sha256=sha(data), bytes=len(data), offset=0)
    stage(ready, EchoBundle(NEW))
    assert assemble(ready, b"", **asks)["have"] == 50


def test_a_push_that_was_cut_is_finished_by_a_delta(ready: AgentProcess) -> None:
    reply = ready.ask("put", NEW[:70_000], sha256=sha(NEW), bytes=len(NEW), offset=0).meta
    assert reply["have"] == 70_000
    assert assemble(ready, delta())["done"] is True


WRONG = {
    "no delta": (b"junk that is long enough to be one", "it is no delta of a kind"),
    "another result": (delta(target=BASE), "not this one of"),
    "base that is not here": (delta(base=b"?" * 300_000), "its base: blob "),
    "base of another size": (delta(base_bytes=300_001), "has 300000 bytes here, not 300001"),
    "copy past the end": (delta(at=130_000), "past the end of a base of 300000 bytes"),
    "copy before the start": (delta(at=-1), "a step reads at -1 of a base"),
    "wrong bytes": (delta(at=119_999), "hashes to another name, and its bases are right"),
    "cut": (delta()[:-1], "it ends within its data"),
}


def test_wrong_deltas_are_refused_by_name(ready: AgentProcess, state: Path) -> None:
    before = files(state)
    for kind, (body, why) in WRONG.items():
        reply = assemble(ready, body)
        assert (reply["ok"], reply["code"]) == (False, "bad-delta"), kind
        assert why in reply["detail"], kind
        assert reply["detail"].startswith(f"cannot make blob {sha(NEW)[:12]} from a delta: ")
        assert files(state) == before, kind
    assert ready.ask("check", bundle=EchoBundle(BASE).id).meta["passed"]
    assert assemble(ready, delta())["done"] is True  # the next one works


def test_what_follows_a_whole_delta_is_refused_too(ready: AgentProcess) -> None:
    reply = assemble(ready, delta() + b"\0")
    assert reply["code"] == "bad-delta"
    assert reply["detail"].endswith("something follows its last section")


def test_wrong_delta_that_was_put_is_removed(ready: AgentProcess, state: Path) -> None:
    data, before = delta(at=119_999), files(state)
    asks = {"delta": sha(data), "delta_bytes": len(data)}
    assemble(ready, b"", **asks)
    put(ready, sha(data), data)
    assert assemble(ready, b"", **asks)["code"] == "bad-delta"
    assert files(state) == before


def test_damaged_base_is_named(start: Start, state: Path) -> None:
    agent = start()
    push(agent, EchoBundle(BASE))
    agent.kill()
    path = state / "blobs" / sha(BASE)
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[200_000] ^= 1
    path.write_bytes(data)
    agent = start()
    stage(agent, EchoBundle(NEW))
    reply = assemble(agent, delta())
    assert reply["code"] == "bad-delta"
    assert f"its base {sha(BASE)[:12]} is damaged here" in reply["detail"]


def test_nothing_is_made_that_no_bundle_asks_for(agent: AgentProcess, state: Path) -> None:
    deploy(agent, EchoBundle(BASE))
    before = files(state)
    assert assemble(agent, delta())["code"] == "not-found"
    asks = {"delta": sha(delta()), "delta_bytes": len(delta())}
    reply = assemble(agent, b"", **asks)
    assert reply["code"] == "not-found"
    assert reply["detail"].endswith("no staged bundle asks for it in that size; stage first")
    assert files(state) == before


def test_a_base_is_named_by_a_hash_and_never_by_a_path(ready: AgentProcess) -> None:
    for bad in ("../" * 20 + "etc/passwd", "x", "A" * 64, 5, None):
        assert assemble(ready, b"", delta=bad, delta_bytes=5)["code"] == "bad-request"
        asked = ready.ask("blocks", sha256=bad, bytes=5, block_bytes=4096, strong_bytes=3)
        assert asked.meta["code"] == "bad-request"


def test_a_delta_has_a_size_that_can_be(ready: AgentProcess) -> None:
    for size in (0, -1, 1 << 41, "7", None, True, len(NEW) + 1):
        reply = assemble(ready, b"", delta=sha(delta()), delta_bytes=size)
        assert reply["code"] == "bad-request", size


def test_the_number_of_expected_deltas_is_bounded(ready: AgentProcess, state: Path) -> None:
    before = files(state)
    for number in range(40):
        data = b"%d" % number * 10
        told = assemble(ready, b"", delta=sha(data), delta_bytes=len(data))
        assert told["done"] is False
        ready.ask("put", data[:5], sha256=sha(data), bytes=len(data), offset=0)
    assert len(files(state) - before) <= 16


def test_a_blob_of_a_release_is_never_removed_as_a_delta(
    ready: AgentProcess, state: Path
) -> None:
    before = files(state)
    reply = assemble(ready, b"", delta=sha(BASE), delta_bytes=1000)
    assert reply["code"] == "bad-request"
    assert "there is a blob of that name and another size" in reply["detail"]
    vector = ONE + ONE  # a blob of the release that is no delta
    reply = assemble(ready, b"", delta=sha(vector), delta_bytes=len(vector))
    assert reply["code"] == "bad-delta"
    assert files(state) == before
    # one that is announced as a delta and then comes as a part of a release
    data = delta()
    assemble(ready, b"", delta=sha(data), delta_bytes=len(data))
    deploy(ready, EchoBundle(data))
    stage(ready, EchoBundle(NEW))
    assert assemble(ready, b"", delta=sha(data), delta_bytes=len(data))["done"] is True
    assert (state / "blobs" / sha(data)).read_bytes() == data


def test_blobs_of_what_is_current_come_first(agent: AgentProcess) -> None:
    for data in (b"first", b"second", b"third"):
        deploy(agent, EchoBundle(data))
    releases = agent.ask("held").meta["releases"]
    ids = [EchoBundle(data).id for data in (b"third", b"second", b"first")]
    assert [each["bundle"] for each in releases] == ids
    assert [sha(b"third"), 5] in releases[0]["blobs"]
    listed = [blob for each in releases for blob, _ in each["blobs"]]
    assert len(listed) == len(set(listed))


def test_blocks_have_the_checksums_they_should(ready: AgentProcess) -> None:
    asks = {"sha256": sha(BASE), "bytes": len(BASE), "block_bytes": 4096, "strong_bytes": 5}
    for stride in (1, 3):
        frame = ready.ask("blocks", **asks, stride=stride)
        wanted = b""
        for at in range(0, len(BASE), 4096 * stride):
            piece = BASE[at : at + 4096]
            wanted += struct.pack(">I", zlib.adler32(piece))
            wanted += hashlib.sha256(piece).digest()[:5]
        assert frame.meta["ok"]
        assert frame.body == wanted
        assert frame.meta["blocks"] == len(wanted) // 9


def test_an_index_is_refused_that_would_be_too_long(ready: AgentProcess) -> None:
    asks = {"sha256": sha(BASE), "bytes": 1 << 40, "block_bytes": 512, "strong_bytes": 32}
    reply = ready.ask("blocks", **asks).meta
    assert reply["code"] == "bad-request"
    assert reply["detail"].endswith("make too long an index: ask for larger ones")


def test_a_killed_agent_leaves_what_the_next_push_needs(start: Start, state: Path) -> None:
    agent = start()
    deploy(agent, EchoBundle(BASE))
    stage(agent, EchoBundle(NEW))
    agent.talk.send("assemble", delta(), sha256=sha(NEW), bytes=len(NEW))
    agent.kill()
    agent = start()
    push(agent, EchoBundle(NEW))
    assert (state / "blobs" / sha(NEW)).read_bytes() == NEW
    assert os.listdir(state / "staging") == []
