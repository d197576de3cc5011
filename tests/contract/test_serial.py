"""What only a serial line has: a port that may be busy, and bytes that get lost."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.errors import ChannelError, ChannelTimeout
from edgesdk.testing import PtyPair, make_echo_bundle, serial_agent


class Spoiler:
    """Flips or drops bytes with a given probability, the same ones on each run."""

    def __init__(self, probability: float) -> None:
        self.spoilt = 0
        self._random = random.Random(7)
        self._probability = probability

    def __call__(self, data: bytes) -> bytes:
        kept = bytearray()
        for byte in data:
            if self._random.random() < self._probability:
                self.spoilt += 1
                if self._random.random() < 0.5:
                    continue
                kept.append(byte ^ 1 << self._random.randrange(8))
            else:
                kept.append(byte)
        return bytes(kept)


def test_line_that_spoils_bytes_delivers_the_bundle_whole(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b", part=os.urandom(200_000))
    with PtyPair() as line, serial_agent(line.device_path, tmp_path / "d" / "state") as _:
        device = resolve_device(f"serial://{line.host_path}?baud=921600")
        with connect(device) as session:
            line.spoil_to_device, line.spoil_to_host = Spoiler(1e-4), Spoiler(1e-4)
            receipt = deploy_bundle(bundle, session, device=device)
        assert line.spoil_to_device.spoilt > 0, "a line without errors proves nothing here"
    assert receipt.self_check.passed
    blob = (tmp_path / "d" / "state").rglob(bundle.manifest["parts"][0]["files"][0]["sha256"])
    assert (
        next(blob).read_bytes() == next((tmp_path / "b").rglob(next_name(bundle))).read_bytes()
    )


def next_name(bundle: object) -> str:
    return str(bundle.manifest["parts"][0]["files"][0]["sha256"])


def test_noise_is_counted_in_the_receipt(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "b")
    boot = b"[    0.000000] Booting Linux\r\nlogin: "
    with PtyPair() as line, serial_agent(line.device_path, tmp_path / "d" / "state"):
        device = resolve_device(f"serial://{line.host_path}?baud=921600")
        with connect(device) as session:
            line.say_to_host(boot)
            receipt = deploy_bundle(bundle, session, device=device)
    assert receipt.noise_bytes == len(boot)


def test_line_without_an_agent_times_out_and_shows_what_came_instead(tmp_path: Path) -> None:
    with PtyPair() as line:
        device = resolve_device(f"serial://{line.host_path}?baud=921600")
        line.spoil_to_device = lambda data: line.say_to_host(b"raspberrypi login: ") or b""
        with pytest.raises(
            ChannelTimeout, match=r"no answer within \d.*raspberrypi logi"
        ) as hit:
            connect(device, timeout_s=1.0)
    assert "is the agent running" in hit.value.hint
    assert hit.value.exit_code == 4


def test_absent_port_is_named() -> None:
    with pytest.raises(ChannelError, match="cannot open /dev/ttyNOPE9: there is no such port"):
        connect(resolve_device("serial:///dev/ttyNOPE9"))


def test_file_that_is_no_port_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no tty")
    with pytest.raises(ChannelError, match="it is no serial port"):
        connect(resolve_device(f"serial://{tmp_path}/file"))


def test_busy_port_is_refused_and_the_holder_keeps_it(tmp_path: Path) -> None:
    with PtyPair() as line, serial_agent(line.device_path, tmp_path / "d" / "state"):
        device = resolve_device(f"serial://{line.host_path}")
        with connect(device) as session:
            with pytest.raises(ChannelError, match="another program holds it") as caught:
                connect(device)
            assert "fuser" in caught.value.hint
            assert session.request("status").meta["ok"]


def test_host_that_died_in_the_middle_of_a_frame_does_not_block_the_next(
    tmp_path: Path,
) -> None:
    from edgesdk.wire.frames import Frame, encode_frame

    half = encode_frame(Frame({"op": "put", "id": 3}, bytes(4000)))[:700]
    with PtyPair() as line, serial_agent(line.device_path, tmp_path / "d" / "state"):
        descriptor = os.open(line.host_path, os.O_RDWR | os.O_NOCTTY)
        os.write(descriptor, half)
        os.close(descriptor)
        with connect(resolve_device(f"serial://{line.host_path}?baud=921600")) as session:
            assert session.hello.protocol == 1
