"""The faulty link does what it is told, nothing else: figures measured on it rest on that."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Callable

import pytest

from edgesdk.testing import FaultyLink, LineFaults
from edgesdk.testing.faulty_link import Way

DATA = bytes(range(256)) * 40


def set_speed(path: str, baud: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor, termios.TCSANOW)
    settings = termios.tcgetattr(descriptor)
    settings[4] = settings[5] = getattr(termios, f"B{baud}")
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)
    os.close(descriptor)


def settled(link: FaultyLink, way: Way, sent: int) -> bool:
    """Say whether all ``sent`` bytes have come out, or are accounted for."""
    counts = link.counts(way)
    out = counts.delivered + counts.overrun + counts.dropped - counts.duplicated + counts.cut
    return counts.sent == sent == out


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def carried(link: FaultyLink, data: bytes, *, back: bool = False) -> bytes:
    """Send through a link between sockets; gives what comes out of it."""
    ends = (link.device_socket, link.host_socket)
    source, sink = ends if back else ends[::-1]
    way: Way = "to_host" if back else "to_device"
    source.setblocking(False)
    expected = link.counts(way).sent + len(data)
    got, left = b"", data
    while True:
        if left:
            with contextlib.suppress(BlockingIOError):
                left = left[source.send(left[:2048]) :]
        over = not left and settled(link, way, expected)
        if select.select([sink], [], [], 0.005)[0]:
            got += sink.recv(1 << 16)
        elif over:
            return got


def test_line_holds_its_rate_where_the_machine_lets_it() -> None:
    """Loosely: to a hundredth it is asked in ``perf``, before anything is measured on it."""
    seen = []
    for _ in range(5):
        with FaultyLink() as link:
            for path in (link.host_path, link.device_path):
                set_speed(path, 115_200)
            seen.append(link.measure(seconds=0.4))
            eventually(lambda link=link: settled(link, "to_device", 4608))  # type: ignore[misc]
        if abs(seen[-1] - 1) <= 0.1:
            return
    pytest.fail(f"the line ran at {seen} of its rate")


@pytest.mark.parametrize("back", [False, True])
def test_clean_link_between_sockets_changes_nothing(back: bool) -> None:
    with FaultyLink(kind="socket") as link:
        assert carried(link, DATA, back=back) == DATA
        way: Way = "to_host" if back else "to_device"
        assert link.counts(way).delivered == len(DATA)
        assert link.counts(way).errors == 0


def test_latency_and_return_latency_are_kept() -> None:
    with FaultyLink(kind="socket", latency_s=0.05, return_latency_s=0.1) as link:
        began = time.monotonic()
        link.host_socket.send(b"x")
        assert link.device_socket.recv(1) == b"x"
        there_s = time.monotonic() - began
        link.device_socket.send(b"y")
        assert link.host_socket.recv(1) == b"y"
        back_s = time.monotonic() - began - there_s
    assert there_s >= 0.05
    assert back_s >= 0.15


@pytest.mark.parametrize("kind", ["drop", "flip", "duplicate"])
def test_each_fault_happens_as_often_as_told_and_is_counted(kind: str) -> None:
    with FaultyLink(kind="socket", to_device=LineFaults(**{kind: 0.01}), seed=4) as link:
        got = carried(link, DATA)
        counts = link.counts("to_device")
        assert carried(link, DATA, back=True) == DATA
    assert counts.errors == {"drop": counts.dropped, "flip": counts.flipped}.get(
        kind, counts.duplicated
    )
    assert 60 <= counts.errors <= 160
    assert len(got) == len(DATA) - counts.dropped + counts.duplicated
    if kind == "flip":
        wrong = [a ^ b for a, b in zip(got, DATA, strict=True) if a != b]
        assert len(wrong) == counts.flipped
        assert all(bits & (bits - 1) == 0 for bits in wrong)


def test_same_seed_spoils_the_same_bytes() -> None:
    def run(seed: int) -> bytes:
        faults = LineFaults.errors(0.01)
        with FaultyLink(kind="socket", to_device=faults, seed=seed) as link:
            return carried(link, DATA)

    assert run(7) == run(7) != run(8)


def test_bursts_come_together() -> None:
    faults = LineFaults(burst_begins=0.0005, burst_ends=0.02, burst_error=0.5)
    with FaultyLink(kind="socket", to_device=faults) as link:
        carried(link, DATA * 4)
        counts = link.counts("to_device")
    share = counts.errors / counts.sent
    assert 0.003 < share < 0.05


def test_cut_loses_everything_from_the_told_byte_until_mended() -> None:
    with FaultyLink(kind="socket") as link:
        link.cut_after(1000)
        assert carried(link, DATA) == DATA[:1000]
        assert link.is_cut
        assert carried(link, b"gone", back=True) == b""
        assert link.counts("to_device").cut == len(DATA) - 1000
        link.mend()
        assert carried(link, b"back") == b"back"
        link.cut()
        assert carried(link, b"gone") == b""


def test_stall_holds_the_line_and_loses_nothing() -> None:
    faults = LineFaults(stall=1.0, stall_s=0.3)
    with FaultyLink(kind="socket", to_device=faults) as link:
        began = time.monotonic()
        link.host_socket.send(b"x")
        assert link.device_socket.recv(1) == b"x"
        assert time.monotonic() - began >= 0.3
        assert link.counts("to_device").stalled == 1


def test_ends_with_different_speeds_garble_and_equal_ones_do_not() -> None:
    with FaultyLink() as link:
        for path in (link.host_path, link.device_path):
            set_speed(path, 115_200)
        reading = os.open(link.device_path, os.O_RDONLY | os.O_NOCTTY)
        writing = os.open(link.host_path, os.O_WRONLY | os.O_NOCTTY)
        try:
            os.write(writing, b"as it was sent")
            eventually(lambda: settled(link, "to_device", 14))
            assert os.read(reading, 100) == b"as it was sent"
            set_speed(link.device_path, 9600)
            os.write(writing, b"as it was sent")
            eventually(lambda: link.counts("to_device").garbled == 14)
            if select.select([reading], [], [], 0)[0]:
                assert b"as it was" not in os.read(reading, 100)
        finally:
            os.close(reading)
            os.close(writing)


def test_receiver_that_does_not_read_loses_bytes_and_they_are_counted() -> None:
    with FaultyLink(baud=4_000_000) as link:
        for path in (link.host_path, link.device_path):
            set_speed(path, 4_000_000)
        writing = os.open(link.host_path, os.O_WRONLY | os.O_NOCTTY)
        try:
            for _ in range(100):
                os.write(writing, bytes(1024))
            eventually(lambda: settled(link, "to_device", 102_400))
        finally:
            os.close(writing)
        counts = link.counts("to_device")
    assert counts.overrun > 0
    assert counts.sent == counts.delivered + counts.overrun


def test_console_prints_into_the_line() -> None:
    with FaultyLink(kind="socket") as link:
        link.say(b"login: ")
        assert link.host_socket.recv(100) == b"login: "


def test_closing_twice_is_no_error_and_leaves_no_process() -> None:
    link = FaultyLink()
    process = link._process
    link.close()
    link.close()
    assert process is not None
    assert process.returncode == 0
