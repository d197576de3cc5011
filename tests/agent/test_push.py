"""Manifests and blobs on their way to a device: resumed, checked, bounded, never half used."""

from __future__ import annotations

import hashlib
import os
import random
import zlib
from pathlib import Path

import pytest

from edgesdk.wire.limits import MAX_CHUNK_BYTES
from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, deploy, push, put, stage

BIG = random.Random(7).randbytes(300_000)


def model_of(bundle: EchoBundle) -> tuple[str, bytes]:
    sha256 = bundle.manifest["parts"][0]["files"][0]["sha256"]
    return sha256, bundle.blobs[sha256]


def test_second_push_of_the_same_bundle_sends_nothing(agent: AgentProcess) -> None:
    push(agent, bundle := EchoBundle())
    assert stage(agent, bundle) == []
    assert agent.ask("stage", bundle=bundle.id).meta["missing"] == []


def test_unknown_bundle_without_its_manifest_is_not_found(agent: AgentProcess) -> None:
    reply = agent.ask("stage", bundle="ab" * 32).meta
    assert reply["code"] == "not-found"
    assert reply["detail"] == "bundle abababababab is not known here: send its manifest"


def test_bundles_that_share_a_blob_send_it_once(agent: AgentProcess) -> None:
    push(agent, EchoBundle(BIG, name="one"))
    assert stage(agent, EchoBundle(BIG, name="two")) == []


def test_interrupted_push_goes_on_where_it_stopped(start: Start) -> None:
    agent = start()
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    reply = agent.ask("put", data[:100_000], sha256=sha256, bytes=len(data), offset=0).meta
    assert reply == {"have": 100_000, "done": False, "id": reply["id"], "ok": True}
    agent.kill()
    agent = start()
    have = {blob["sha256"]: blob["have"] for blob in stage(agent, bundle)}
    assert have[sha256] == 100_000
    push(agent, bundle)
    assert agent.ask("check", bundle=bundle.id).meta["passed"]


def test_chunk_after_a_gap_says_what_is_here(agent: AgentProcess) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    agent.ask("put", data[:1000], sha256=sha256, bytes=len(data), offset=0)
    reply = agent.ask("put", data[2000:3000], sha256=sha256, bytes=len(data), offset=2000).meta
    assert reply["code"] == "gap"
    assert reply["facts"] == {"have": 1000}
    assert reply["detail"].endswith("the chunk starts at 2000, 1000 bytes are here")


def test_chunk_sent_again_changes_nothing(agent: AgentProcess) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    for start_at, end in ((0, 5000), (0, 5000), (4000, 9000), (100, 200)):
        reply = agent.ask(
            "put", data[start_at:end], sha256=sha256, bytes=len(data), offset=start_at
        ).meta
        assert reply["ok"]
    assert reply["have"] == 9000
    put(agent, sha256, data, have=9000)
    reply = agent.ask("put", data[:10], sha256=sha256, bytes=len(data), offset=0).meta
    assert (reply["have"], reply["done"]) == (len(data), True)


def test_wrong_bytes_are_refused_and_dropped(agent: AgentProcess, state: Path) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    reply = agent.ask("put", wrong, sha256=sha256, bytes=len(data), offset=0).meta
    assert reply["code"] == "bad-hash"
    seen = hashlib.sha256(wrong).hexdigest()
    assert reply["detail"] == f"cannot take blob {sha256[:12]}: what came hashes to {seen[:12]}"
    assert list((state / "staging").iterdir()) == []
    push(agent, bundle)


def test_blob_nobody_asked_for_is_refused(agent: AgentProcess, state: Path) -> None:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    reply = agent.ask("put", b"abc", sha256=sha256, bytes=3, offset=0).meta
    assert reply["code"] == "not-found"
    assert "no staged bundle asks for it in that size; stage first" in reply["detail"]
    assert list((state / "staging").iterdir()) == []


def test_blob_longer_than_declared_is_refused(agent: AgentProcess) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    reply = agent.ask("put", data + b"x", sha256=sha256, bytes=len(data), offset=0).meta
    assert reply["code"] == "bad-request"
    reply = agent.ask("put", data, sha256=sha256, bytes=len(data) + 1, offset=0).meta
    assert reply["code"] == "not-found"
    too_much = bytes(MAX_CHUNK_BYTES + 1)
    reply = agent.ask("put", too_much, sha256=sha256, bytes=len(data), offset=0).meta
    assert reply["code"] == "bad-request"


def test_compressed_chunks_arrive_whole(agent: AgentProcess) -> None:
    bundle = EchoBundle(bytes(200_000))
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    packed = zlib.compress(data)
    meta = {"sha256": sha256, "bytes": len(data), "offset": 0}
    reply = agent.ask("put", packed, raw_bytes=len(data), **meta).meta
    assert reply["done"] is True


@pytest.mark.parametrize(
    "body",
    [
        zlib.compress(bytes(1 << 26)),
        zlib.compress(b"ab"),
        zlib.compress(b"abc")[:-2],
        b"no zlib",
    ],
    ids=["bomb", "short", "cut", "garbage"],
)
def test_chunk_that_does_not_inflate_to_its_length_is_refused(
    agent: AgentProcess, body: bytes
) -> None:
    bundle = EchoBundle(b"abc")
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    meta = {"sha256": sha256, "bytes": len(data), "offset": 0, "raw_bytes": len(data)}
    reply = agent.ask("put", body, **meta).meta
    assert reply["code"] == "bad-request"
    assert reply["detail"].startswith("cannot inflate a chunk: ")


def test_empty_blob_can_be_pushed(agent: AgentProcess) -> None:
    deploy(agent, EchoBundle(b""))


def test_manifest_may_come_in_pieces(agent: AgentProcess) -> None:
    bundle = EchoBundle()
    data = bundle.data
    half = len(data) // 2
    meta = {"bundle": bundle.id, "bytes": len(data)}
    assert agent.ask("stage", data[:half], offset=0, **meta).meta["have"] == half
    reply = agent.ask("stage", data[half + 5 :], offset=half + 5, **meta).meta
    assert (reply["code"], reply["facts"]) == ("gap", {"have": half})
    reply = agent.ask("stage", data[half:], offset=half, **meta).meta
    assert len(reply["missing"]) == 2


def test_manifest_of_another_bundle_is_refused(agent: AgentProcess) -> None:
    reply = agent.ask("stage", EchoBundle().data, bundle="ab" * 32).meta
    assert reply["code"] == "bad-hash"
    assert "the manifest that came hashes to" in reply["detail"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 50_000, b'{"schema": 1}', b"\xff\xfe"])
def test_manifest_that_is_none_is_refused(agent: AgentProcess, data: bytes) -> None:
    name = hashlib.sha256(data).hexdigest()
    reply = agent.ask("stage", data, bundle=name).meta
    assert reply["code"] == ("bad-request" if data else "not-found")
    assert agent.ask("status").meta["ok"]


def test_push_that_cannot_fit_is_refused_before_it_starts(
    agent: AgentProcess, state: Path
) -> None:
    bundle = EchoBundle()
    bundle.manifest["parts"][0]["files"][0]["bytes"] = 1 << 40
    reply = agent.ask("stage", bundle.data, bundle=bundle.id).meta
    assert reply["code"] == "no-space"
    assert reply["facts"]["needed_bytes"] > reply["facts"]["free_bytes"] > 0
    assert list((state / "pending").iterdir()) == []


def test_half_uploaded_bundle_cannot_be_committed(agent: AgentProcess) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    agent.ask("put", data[:-1], sha256=sha256, bytes=len(data), offset=0)
    reply = agent.ask("commit", bundle=bundle.id).meta
    assert reply["code"] == "not-found"
    assert reply["detail"].endswith("2 blobs are missing or damaged")
    for op in ("check", "activate"):
        assert agent.ask(op, bundle=bundle.id).meta["code"] == "not-found"


def test_damaged_blob_is_noticed_and_sent_again(start: Start, state: Path) -> None:
    agent = start()
    bundle = EchoBundle(BIG)
    push(agent, bundle)
    assert agent.hang_up() == 0
    blob = state / "blobs" / model_of(bundle)[0]
    blob.chmod(0o600)
    with blob.open("r+b") as stream:
        stream.write(b"damage")
    agent = start()
    assert agent.ask("commit", bundle=bundle.id).meta["code"] == "not-found"
    deploy(agent, bundle)
    part = state / "releases" / bundle.id / "part-0.bin"
    assert part.read_bytes() == blob.read_bytes() == BIG


def test_stale_staging_files_are_cleaned_by_the_next_push(start: Start, state: Path) -> None:
    start().hang_up()
    for number in range(10_000):
        (state / "staging" / hashlib.sha256(str(number).encode()).hexdigest()).touch()
    agent = start()
    deploy(agent, EchoBundle())
    assert list((state / "staging").iterdir()) == []


def test_many_abandoned_pushes_stay_bounded(agent: AgentProcess, state: Path) -> None:
    for number in range(20):
        stage(agent, EchoBundle(str(number).encode()))
    assert len(list((state / "pending").iterdir())) == 8
    push(agent, EchoBundle(b"19"))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_staging_name_that_is_not_a_file_is_not_written_through(
    agent: AgentProcess, state: Path, tmp_path: Path, kind: str
) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    sha256, data = model_of(bundle)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    place = state / "staging" / sha256
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    reply = agent.ask("put", data, sha256=sha256, bytes=len(data), offset=0).meta
    assert reply["ok"] is False
    assert victim.read_text() == "mine"
    assert agent.ask("status").meta["ok"]
    place.rmdir() if kind == "folder" else place.unlink()
    push(agent, bundle)


def test_folder_swapped_for_a_link_during_a_push_changes_nothing_outside(
    agent: AgentProcess, state: Path, tmp_path: Path
) -> None:
    bundle = EchoBundle(BIG)
    stage(agent, bundle)
    outside = tmp_path / "outside"
    outside.mkdir()
    (state / "blobs").rename(state / "moved")
    (state / "blobs").symlink_to(outside)
    sha256, data = model_of(bundle)
    put(agent, sha256, data)
    assert list(outside.iterdir()) == []
    assert (state / "moved" / sha256).read_bytes() == data
