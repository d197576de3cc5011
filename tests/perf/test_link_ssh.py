"""Pushes over SSH keep their goals against scp and SFTP: the short form of ``link_ssh.py``.

A goal that is missed fails; a run in which two equal arms disagree is void, and skipped with
what was seen. The whole table is printed by ``python tests/perf/link_ssh.py``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from edgesdk.testing import LocalSshd, SlowNetwork
from tests.perf.link_ssh import MIB, Rounds, control, cuts, fleet, loopback, memory, slow

pytestmark = pytest.mark.perf

if (reason := LocalSshd.why_not()) is not None:
    pytest.skip(f"needs an SSH server: {reason}", allow_module_level=True)

needs_network = pytest.mark.skipif(
    SlowNetwork.why_not() is not None, reason=f"needs a slow network: {SlowNetwork.why_not()}"
)


@pytest.fixture
def memory_folder(tmp_path: Path) -> Path:
    """A folder in memory where there is one: the goals were set without a disk in the way."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > 4 << 30
    return shared if has_room else tmp_path


def say(text: str) -> None:
    sys.stdout.write(f"\n{text}")


def void_unless_equal(found: Rounds, one: str, other: str) -> None:
    if (why := found.why_void(one, other)) is not None:
        pytest.skip(f"void: {why}")


def test_push_over_loopback_against_scp_and_sftp(memory_folder: Path) -> None:
    found = loopback(memory_folder, payload_bytes=200 * MIB, rounds=3)
    ratios = {peer: found.ratio("edgesdk", peer) for peer in ("scp gcm", "scp", "sftp.put")}
    say(", ".join(f"{peer}: {ratio:.2f}" for peer, ratio in ratios.items()))
    void_unless_equal(found, "scp gcm", "scp gcm again")
    # one machine plays both ends here, so all processors share the work of both
    assert ratios["scp gcm"] >= 0.6
    assert ratios["scp"] >= 0.7
    assert ratios["sftp.put"] >= 1.3


@needs_network
@pytest.mark.parametrize(("milliseconds", "goal"), [(20, 1.0), (60, 1.4)])
def test_long_round_trip_is_filled_by_lanes(
    memory_folder: Path, milliseconds: int, goal: float
) -> None:
    found = slow(
        memory_folder, round_trip_s=milliseconds / 1000, payload_bytes=200 * MIB, rounds=3
    )
    ratio = found.ratio("edgesdk", "scp gcm")
    say(f"{milliseconds} ms: {ratio:.2f} times scp")
    void_unless_equal(found, "scp gcm", "scp gcm again")
    assert ratio >= goal


@needs_network
@pytest.mark.parametrize("loss", [0.0, 0.001])
def test_rate_of_a_slow_link_is_used_up(memory_folder: Path, loss: float) -> None:
    found = slow(
        memory_folder,
        round_trip_s=0.02,
        bits_per_s=100e6,
        loss=loss,
        payload_bytes=50 * MIB,
        rounds=2,
    )
    used = 50 * MIB * 8 / found.pushing_s / 100e6
    say(f"loss {loss:g}: {100 * used:.0f} % of the bit rate")
    void_unless_equal(found, "scp gcm", "scp gcm again")
    assert used >= 0.88
    assert found.ratio("edgesdk", "scp gcm") >= 0.9, "in all, with imports and login"


def test_control_requests_have_no_step_of_forty_milliseconds(memory_folder: Path) -> None:
    found = control(memory_folder, requests=30)
    say(", ".join(f"{size} B: {1e3 * high:.1f} ms" for size, (_, high) in found.items()))
    for size, (middle, _) in found.items():
        assert middle <= 0.020, f"{size} bytes"


def test_memory_is_bounded_across_a_rekey(memory_folder: Path) -> None:
    last = memory(memory_folder, payload_bytes=600 * MIB)
    say(f"host {last['host_kib'] >> 10} MiB, agent {last['agent_kib'] >> 10} MiB")
    assert last["sent"] > 600 * MIB
    assert last["host_kib"] <= 64 << 10
    assert last["agent_kib"] <= 32 << 10


def test_cut_push_sends_at_most_one_window_twice(memory_folder: Path) -> None:
    twice = cuts(memory_folder, payload_bytes=50 * MIB, count=4)
    say(f"sent twice: {max(twice) / MIB:.2f} MiB at most")
    assert 0 <= max(twice) <= 2 * MIB + 1000


def test_eight_devices_at_once_are_as_fast_as_one(memory_folder: Path) -> None:
    found = fleet(memory_folder, devices=8, payload_bytes=20 * MIB, rounds=2)
    ratio = found.ratio("at once", "one by one")
    say(f"8 at once: {ratio:.2f} times the rate of one by one")
    void_unless_equal(found, "at once", "at once again")
    assert ratio >= 0.8
