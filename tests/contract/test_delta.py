"""A deployment sends what changed, over every transport, and everything where that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgesdk.bundle import Bundle
from edgesdk.deploy import Bases, Deployment, deploy_bundle
from edgesdk.errors import SpaceError
from edgesdk.testing import make_echo_bundle
from edgesdk.wire import codes
from tests.contract.conftest import Way, child_way

OLD = os.urandom(60_000)
NEW = OLD[:20_000] + b"a new head" + OLD[20_100:]


def bundles(folder: Path, new: bytes = NEW) -> tuple[Bundle, Bundle]:
    return (
        make_echo_bundle(folder / "runs" / "old", part=OLD, name="old"),
        make_echo_bundle(folder / "runs" / "new", part=new, name="new"),
    )


def test_a_second_release_is_sent_as_a_delta(way: Way, tmp_path: Path) -> None:
    old, new = bundles(tmp_path)
    bases = Bases(folders=[tmp_path / "runs"])
    with way.connect() as session:
        first = deploy_bundle(old, session, device=way.device, bases=bases)
        second = deploy_bundle(new, session, device=way.device, bases=bases)
    assert first.deltas == ()
    (delta,) = second.deltas
    assert delta.bytes == len(NEW)
    assert delta.sent_bytes <= 200
    assert delta.index_bytes == 0
    assert delta.against == (old.id,)
    assert second.bytes_sent == delta.sent_bytes
    assert second.self_check.passed
    assert second.previous == old.id
    assert Deployment.from_json(second.to_json()) == second


def test_a_delta_of_many_chunks_arrives(way: Way, tmp_path: Path) -> None:
    changed = os.urandom(20_000) + OLD[20_000:]
    old, new = bundles(tmp_path, changed)
    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
        receipt = deploy_bundle(
            new, session, device=way.device, bases=Bases(folders=[tmp_path / "runs"])
        )
        held = list((way.state / "blobs").iterdir())
    (delta,) = receipt.deltas
    assert 20_000 < delta.sent_bytes < 20_500
    assert {path.stat().st_size for path in held} == {60_000, 128}


def test_blocks_stand_in_for_a_base_that_is_lost(way: Way, tmp_path: Path) -> None:
    old, new = bundles(tmp_path)
    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
        receipt = deploy_bundle(new, session, device=way.device, bases=Bases())
    (delta,) = receipt.deltas
    assert 0 < delta.index_bytes < 1000
    assert delta.sent_bytes < 3000


def test_nothing_in_common_is_sent_whole(way: Way, tmp_path: Path) -> None:
    old, new = bundles(tmp_path, os.urandom(60_000))
    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
        receipt = deploy_bundle(
            new, session, device=way.device, bases=Bases(folders=[tmp_path / "runs"])
        )
    assert receipt.deltas == ()
    assert receipt.bytes_sent == 60_000


@pytest.fixture
def child(tmp_path: Path, home: Path) -> Iterator[Way]:
    with child_way(tmp_path) as found:
        yield found


def test_a_base_that_was_altered_here_costs_a_full_push_once(
    child: Way, tmp_path: Path
) -> None:
    old, new = bundles(tmp_path)
    cache = Bases(cache=tmp_path / "cache")
    with child.connect() as session:
        deploy_bundle(old, session, device=child.device, bases=cache)
        (part,) = old.manifest["parts"][0]["files"]
        kept = tmp_path / "cache" / part["sha256"]
        kept.unlink()
        kept.write_bytes(b"y" + OLD[1:])
        receipt = deploy_bundle(new, session, device=child.device, bases=cache)
    assert receipt.deltas == ()
    assert receipt.bytes_sent == len(NEW)
    assert receipt.self_check.passed
    assert not kept.exists()


def test_an_agent_that_knows_no_deltas_gets_everything(child: Way, tmp_path: Path) -> None:
    old, new = bundles(tmp_path)
    with child.connect() as session:
        deploy_bundle(old, session, device=child.device)
        asked = session.request

        def request(op: str, *rest: Any, **options: Any) -> Any:
            return asked("make-coffee" if op == "held" else op, *rest, **options)

        session.request = request  # type: ignore[method-assign]  # stands in for an older agent
        bases = Bases(folders=[tmp_path / "runs"])
        receipt = deploy_bundle(new, session, device=child.device, bases=bases)
    assert receipt.deltas == ()
    assert receipt.bytes_sent == len(NEW)


def test_a_delta_for_which_there_is_no_room_is_no_reason_to_give_up(
    child: Way, tmp_path: Path
) -> None:
    old, new = bundles(tmp_path)
    with child.connect() as session:
        deploy_bundle(old, session, device=child.device)
        asked = session.request

        def request(op: str, *rest: Any, **options: Any) -> Any:
            if op == "assemble":
                raise SpaceError("no room", code=codes.NO_SPACE)
            return asked(op, *rest, **options)

        session.request = request  # type: ignore[method-assign]  # stands in for a full disk
        bases = Bases(folders=[tmp_path / "runs"])
        receipt = deploy_bundle(new, session, device=child.device, bases=bases)
    assert receipt.bytes_sent == len(NEW)


@pytest.mark.slow
def test_the_command_says_what_it_saved_and_can_be_told_not_to(
    home: Path, tmp_path: Path
) -> None:
    old, new = bundles(tmp_path)
    third = make_echo_bundle(tmp_path / "third", part=NEW + b"!", name="third")

    def deploy(bundle: Bundle, *options: str) -> str:
        command = [sys.executable, "-m", "edgesdk.cli", "deploy", str(bundle.folder)]
        device = f"local:?state={tmp_path / 'state'}"
        done = subprocess.run(
            [*command, "--device", device, "--no-bench", *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert "delta" not in deploy(old)
    old.blob_path(old.manifest["parts"][0]["files"][0]["sha256"]).unlink()  # now in the cache
    said = deploy(new)
    assert f"B instead of 58.5 KiB, against release {old.id[:12]}" in said
    assert "delta" not in deploy(third, "--no-delta")
