"""Whatever a device answers about deltas, the blobs get there or the push says why not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.deploy import Bases
from edgesdk.deploy.delta import push_with_deltas
from edgesdk.deploy.push import MissingBlob
from edgesdk.deploy.values import PushResult
from edgesdk.devices import Session
from edgesdk.errors import DeviceError
from edgesdk.testing import FakeAgent, ScriptedChannel, make_echo_bundle
from edgesdk.wire import codes
from edgesdk.wire.frames import Frame

PART = os.urandom(5000)
OTHER = "ab" * 32


def taken(request: Frame) -> Iterable[Frame]:
    """Take a chunk of a blob as a device would."""
    end = request.meta["offset"] + len(request.body)
    done = end == request.meta["bytes"]
    yield Frame({"id": request.meta["id"], "ok": True, "have": end, "done": done})


def refusing(code: str) -> Any:
    def refuse(request: Frame) -> Iterable[Frame]:
        yield Frame({"id": request.meta["id"], "ok": False, "code": code, "detail": "no"})

    return refuse


def push(folder: Path, **replies: Any) -> tuple[PushResult, FakeAgent]:
    bundle = make_echo_bundle(folder / "b", part=PART)
    record = bundle.manifest["parts"][0]["files"][0]
    agent = FakeAgent({"put": taken, **replies})
    channel = ScriptedChannel(agent)
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    missing = [MissingBlob(sha256=record["sha256"], bytes=record["bytes"], have=0)]
    return push_with_deltas(session, bundle, missing, Bases(folders=[folder])), agent


JUNK: list[Any] = [
    None,
    7,
    "releases",
    [None, 7, "x", []],
    [
        {
            "bundle": 5,
            "blobs": [[OTHER, 5000], [OTHER], "x", [1, 2], [OTHER, "5"], [OTHER, True]],
        }
    ],
    [{"bundle": "b", "blobs": [["../" * 21 + "x", 5000], [OTHER, -1], [OTHER, 1 << 60]]}],
    [{"blobs": {"a": 1}}, {"bundle": "b"}],
]


@pytest.mark.parametrize("releases", JUNK)
def test_junk_instead_of_a_list_of_blobs_does_no_harm(tmp_path: Path, releases: Any) -> None:
    result, agent = push(
        tmp_path, held={"releases": releases}, blocks={"blocks": "x"}, assemble={"done": 7}
    )
    assert result.bytes_sent == len(PART)
    assert result.deltas == ()
    assert not agent.asked("assemble")


def held_copy(folder: Path) -> dict[str, Any]:
    """Say that the device has something which lies in the folder and is nearly the part."""
    near = make_echo_bundle(folder / "near", part=PART[:2000] + b"!" + PART[2001:])
    record = near.manifest["parts"][0]["files"][0]
    blobs = [[record["sha256"], record["bytes"]]]
    return {"releases": [{"bundle": near.id, "blobs": blobs}]}


@pytest.mark.parametrize(
    "code", [codes.BAD_DELTA, codes.NO_SPACE, codes.NOT_FOUND, codes.UNKNOWN_OP]
)
def test_a_refused_delta_is_followed_by_the_blob(tmp_path: Path, code: str) -> None:
    result, agent = push(tmp_path, held=held_copy(tmp_path), assemble=refusing(code))
    assert len(agent.asked("assemble")) == 1
    assert result.bytes_sent == len(PART)
    assert result.deltas == ()


def test_a_failing_device_is_not_taken_for_one_that_refuses(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot make a blob from a delta on bench-3: no"):
        push(tmp_path, held=held_copy(tmp_path), assemble=refusing(codes.DISK_ERROR))


def test_a_delta_that_is_taken_replaces_the_blob(tmp_path: Path) -> None:
    result, agent = push(tmp_path, held=held_copy(tmp_path), assemble={"done": True})
    (delta,) = result.deltas
    assert not agent.asked("put")
    assert result.bytes_sent == delta.sent_bytes < 200
    assert result.bytes_skipped == len(PART) - delta.sent_bytes
    assert len(agent.asked("assemble")[0].body) == delta.sent_bytes
