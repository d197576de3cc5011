"""What a request takes beside the inference, with a clock and a device made up for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgesdk.bench.link_time import with_link_time
from edgesdk.bench.procedure_values import Around
from edgesdk.testing import make_echo_bundle
from edgesdk.wire.frames import Frame

AROUND = Around(
    runs=30,
    in_ms=0.5,
    calls_ms=2.0,
    between_ms=0.0,
    out_ms=0.25,
    link_ms=None,
    link_runs=0,
    why="nobody asked",
)


class Device:
    """Each request takes what is said, of which the runtime's calls take 2 ms."""

    device_name = "bench-3"

    def __init__(self, *taken_ms: float) -> None:
        self.now = 0.0
        self._taken_ms = list(taken_ms)
        self.bodies: list[bytes] = []

    def request(self, op: str, meta: Any = None, body: bytes = b"", **_: Any) -> Frame:
        assert op == "run"
        self.bodies.append(body)
        self.now += self._taken_ms.pop(0) / 1e3
        return Frame({"ok": True, "run_ms": 2.0})


def test_link_time_is_what_is_left_and_the_first_does_not_count(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle")
    device = Device(900.0, *[6.0] * 8)
    found = with_link_time(device, bundle, AROUND, slow_line=False, clock=lambda: device.now)
    assert found.link_ms is not None
    assert abs(found.link_ms - (6.0 - 2.0 - 0.75)) < 1e-6
    assert found.link_runs == 8
    assert found.why == ""
    assert device.bodies[0] == bytes(range(64))


def test_a_slow_link_is_asked_twice_at_least(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle")
    device = Device(5000.0, 5000.0, 5000.0)
    found = with_link_time(device, bundle, AROUND, slow_line=True, clock=lambda: device.now)
    assert found.link_runs == 1


def test_a_long_input_is_not_sent_over_a_slow_line(tmp_path: Path) -> None:
    bundle = make_echo_bundle(tmp_path / "bundle", vector=bytes(20_000))
    device = Device()
    found = with_link_time(device, bundle, AROUND, slow_line=True, clock=lambda: device.now)
    assert found.link_ms is None
    assert found.why == "an input of 20000 bytes is too long to send for this"
    assert device.bodies == []
