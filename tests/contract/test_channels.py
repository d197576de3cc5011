"""One file of promises, kept by every way to an agent: child process, serial line, SSH."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgesdk.deploy import (
    collect_garbage,
    confirm_release,
    deploy_bundle,
    list_releases,
    rollback,
    run_on_device,
)
from edgesdk.deploy.deploy import _stage
from edgesdk.devices import Session, read_facts, read_logs, read_status
from edgesdk.errors import (
    ChannelClosed,
    ChannelError,
    ChannelTimeout,
    DeviceError,
    ProtocolError,
    SelfCheckError,
    WorkerError,
)
from edgesdk.progress import Progress
from edgesdk.testing import make_echo_bundle
from edgesdk.transport.base import Channel
from edgesdk.wire.manifest import deployed_blobs

if TYPE_CHECKING:
    from conftest import Way

EVERY_VALUE = bytes(range(256)) * 64
PART_BYTES = 150_000


class Interrupted(Exception):
    """Stands for Ctrl-C at a chosen moment."""


def current(session: Session) -> str | None:
    slot = read_status(session)["slots"]["current"]
    return None if slot is None else slot["bundle"]


@pytest.mark.parametrize(
    "body",
    [
        EVERY_VALUE,
        b"\x11\x13" * 4000,
        b"\0" * 8000,
        b"\xff" * 8000,
        b"EDG1" * 2000,
        b"\r\n\x03",
    ],
    ids=["every value", "xon xoff", "zeros", "ones", "magics", "line ends"],
)
def test_bytes_of_every_value_survive(way: Way, tmp_path: Path, body: bytes) -> None:
    bundle = make_echo_bundle(tmp_path / "b", vector=body)
    with way.connect() as session:
        deploy_bundle(bundle, session, device=way.device)
        outputs, timing = run_on_device(
            session, "current", {"x": np.frombuffer(body, dtype=np.uint8)}
        )
    assert outputs["y"].tobytes() == body
    assert timing.run_ms > 0


def test_console_noise_costs_nothing(channel: Channel) -> None:
    channel.write(b"[  1.2] usb 1-1: EDG1 new device\r\nlogin: \x1b[31m\x11\x13", timeout_s=5)
    with Session(channel, device_name="bench-3") as session:
        assert read_facts(session)["machine"]


def test_silence_is_a_timeout_that_says_how_long(channel: Channel) -> None:
    with pytest.raises(ChannelTimeout, match=r"no data for 0\.05 s"):
        channel.read(timeout_s=0.05)


def test_closed_channel_says_so_and_may_be_closed_again(channel: Channel) -> None:
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed, match="closed on this side"):
        channel.read(timeout_s=1)
    with pytest.raises(ChannelClosed, match="closed on this side"):
        channel.write(b"x", timeout_s=1)


def test_agent_tells_what_it_is(session: Session) -> None:
    assert session.hello.protocol == 1
    assert session.hello.python.startswith("3.")
    assert read_status(session)["agent"]["version"] == session.hello.agent_version
    assert isinstance(read_logs(session, lines=5), tuple)


def test_refused_request_leaves_the_session_usable(session: Session) -> None:
    with pytest.raises(ProtocolError, match="cannot do make-coffee on bench-3: ") as caught:
        session.request("make-coffee")
    assert "older than this edgesdk" in caught.value.hint
    with pytest.raises(DeviceError, match="cannot roll back bench-3: "):
        rollback(session)
    assert read_facts(session)["machine"]


def test_deployed_bundle_is_current_and_checked(way: Way, tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(PART_BYTES))
    steps: list[Progress] = []
    with way.connect() as session:
        receipt = deploy_bundle(bundle, session, device=way.device, on_progress=steps.append)
        assert current(session) == bundle.id
        (release,) = list_releases(session)
    assert release.bundle == bundle.id
    assert release.slot == "current"
    assert release.checked
    assert receipt.bundle_id == bundle.id
    assert receipt.slot == "current"
    assert receipt.previous is None
    assert receipt.blobs_sent == 2
    assert receipt.bytes_sent >= PART_BYTES
    assert receipt.path == way.device.url.scheme
    assert receipt.self_check.passed
    assert not receipt.self_check.reused
    (output,) = receipt.self_check.vectors[0].outputs
    assert output.within
    assert output.reference_cosine == 1.0
    pushed = [step for step in steps if step.step == "push"]
    assert pushed[0].done == 0
    assert (
        pushed[-1].done
        == pushed[-1].total
        == sum(dict(deployed_blobs(bundle.manifest)).values())
    )


def test_second_deploy_sends_nothing_and_reuses_the_check(way: Way, tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(PART_BYTES))
    with way.connect() as session:
        first = deploy_bundle(bundle, session, device=way.device)
    with way.connect() as session:
        second = deploy_bundle(bundle, session, device=way.device)
    assert (second.blobs_sent, second.bytes_sent) == (0, 0)
    assert second.bytes_skipped == PART_BYTES + 128
    assert second.self_check.reused
    assert second.self_check.vectors == first.self_check.vectors
    assert second.previous is None


def test_blob_that_rotted_on_the_device_is_found_and_sent_again(
    way: Way, tmp_path: Path
) -> None:
    part = os.urandom(PART_BYTES)
    bundle = make_echo_bundle(tmp_path / "b", part=part)
    other = make_echo_bundle(tmp_path / "o", name="other", part=part, vector=b"\1\2")
    sha256 = bundle.manifest["parts"][0]["files"][0]["sha256"]
    with way.connect() as session:
        deploy_bundle(bundle, session, device=way.device)
    blob = way.state / "blobs" / sha256
    blob.chmod(0o600)
    blob.write_bytes(b"\0" * 9 + part[9:])
    with way.connect() as session:
        receipt = deploy_bundle(other, session, device=way.device)
        assert current(session) == other.id
    assert receipt.blobs_sent == 2
    assert (receipt.bytes_sent, receipt.bytes_skipped) == (PART_BYTES + 4, 0)
    assert blob.read_bytes() == part


def test_rollback_gives_the_earlier_bundle_back(way: Way, tmp_path: Path) -> None:
    old = make_echo_bundle(tmp_path / "old", name="old")
    new = make_echo_bundle(tmp_path / "new", name="new", part=b"newer")
    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
        receipt = deploy_bundle(new, session, device=way.device)
        assert receipt.previous == old.id
        slots = rollback(session)
        assert slots["current"]["bundle"] == old.id
        assert current(session) == old.id


def test_garbage_is_what_no_slot_holds(way: Way, tmp_path: Path) -> None:
    bundles = [make_echo_bundle(tmp_path / f"b{i}", part=bytes([i]) * 1000) for i in range(3)]
    with way.connect() as session:
        for bundle in bundles:
            deploy_bundle(bundle, session, device=way.device)
            confirm_release(session)  # else the first is where the device would return to
        collected = collect_garbage(session)
        assert collected.removed == (bundles[0].id,)
        assert collected.freed_bytes >= 1000
        assert {release.bundle for release in list_releases(session)} == {
            bundles[1].id,
            bundles[2].id,
        }


def test_failed_self_check_leaves_the_active_release_alone(way: Way, tmp_path: Path) -> None:
    good = make_echo_bundle(tmp_path / "good")
    bad = make_echo_bundle(tmp_path / "bad", vector=b"\x01\x02", expected=b"\x01\x05")
    with way.connect() as session:
        deploy_bundle(good, session, device=way.device)
        with pytest.raises(
            SelfCheckError,
            match=r"cannot activate the bundle on bench-3: check vector 0: output y is off by "
            r"3 \(allowed 0; 1 of 2 elements\); the active release is unchanged",
        ) as caught:
            deploy_bundle(bad, session, device=way.device)
        assert caught.value.exit_code == 5
        assert current(session) == good.id
        with pytest.raises(SelfCheckError, match="has not passed its check vectors"):
            session.request("activate", {"bundle": bad.id})
        assert current(session) == good.id


def test_dying_worker_is_named_and_leaves_the_active_release_alone(
    way: Way, tmp_path: Path
) -> None:
    good = make_echo_bundle(tmp_path / "good")
    bad = make_echo_bundle(tmp_path / "bad", options={"die": "SIGSEGV"})
    with way.connect() as session:
        deploy_bundle(good, session, device=way.device)
        with pytest.raises(WorkerError, match=r"run the check vectors on bench-3: .*SIGSEGV"):
            deploy_bundle(bad, session, device=way.device)
        assert current(session) == good.id


def test_half_sent_bundle_cannot_be_activated(way: Way, tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(PART_BYTES))
    with way.connect() as session:
        assert len(_stage(session, bundle, dict(deployed_blobs(bundle.manifest)))) == 2
        with pytest.raises(DeviceError, match="cannot commit the bundle on bench-3: "):
            session.request("commit", {"bundle": bundle.id})
        with pytest.raises(DeviceError, match="cannot activate the bundle on bench-3: "):
            session.request("activate", {"bundle": bundle.id})
        assert current(session) is None


def test_interrupted_push_goes_on_where_it_ended(way: Way, tmp_path: Path) -> None:
    old = make_echo_bundle(tmp_path / "old")
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(4 * PART_BYTES))

    def interrupt(progress: Progress) -> None:
        if progress.step == "push" and progress.total and 2 * progress.done > progress.total:
            raise Interrupted

    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
        with pytest.raises(Interrupted):
            deploy_bundle(bundle, session, device=way.device, on_progress=interrupt)
    with way.connect() as session:
        assert current(session) == old.id
        receipt = deploy_bundle(bundle, session, device=way.device)
        assert current(session) == bundle.id
    assert receipt.bytes_skipped >= 2 * PART_BYTES
    assert receipt.bytes_sent <= 2 * PART_BYTES + way.window_bytes()


def test_link_cut_in_the_middle_of_a_push_loses_nothing(way: Way, tmp_path: Path) -> None:
    old = make_echo_bundle(tmp_path / "old")
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(4 * PART_BYTES))
    with way.connect() as session:
        deploy_bundle(old, session, device=way.device)
    with way.connect() as session:

        def cut(progress: Progress) -> None:
            if (
                progress.step == "push"
                and progress.total
                and 2 * progress.done > progress.total
            ):
                # short only from here: an agent may take longer to start, or to answer
                session.channel.traits = replace(session.channel.traits, silence_s=1.5)
                way.cut(session)

        with pytest.raises(ChannelError) as caught:
            deploy_bundle(bundle, session, device=way.device, on_progress=cut)
        with pytest.raises(type(caught.value)) as again:
            read_facts(session)
        assert str(again.value) == str(caught.value), "a broken session repeats the first cause"
    way.mend()
    with way.connect() as session:
        assert current(session) == old.id
        receipt = deploy_bundle(bundle, session, device=way.device)
        assert current(session) == bundle.id
    assert receipt.bytes_skipped > 0
