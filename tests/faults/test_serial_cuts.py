"""A serial line that is cut, prints, and whose device reboots: right bytes or a clear error.

After every cut the device's release is whole, what it had verified is not sent again, and the
next deployment succeeds. No step takes longer than the silence that a session allows.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.bundle import Bundle
from edgesdk.deploy import Deployment, deploy_bundle
from edgesdk.devices import Session, connect, read_status, resolve_device
from edgesdk.errors import ChannelClosed, ChannelTimeout, LinkError
from edgesdk.testing import FaultyLink, LineFaults, make_echo_bundle, serial_agent

#: A push re-sends at most so much of what had arrived: the window of 32 KiB; the rest is what
#: the line carried besides, framing and the patterns that find its speed.
RESENT_BYTES = 48 << 10
BOOT = (
    b"\r\nU-Boot 2024.01 (Jan 01 2026)\r\nHit any key to stop autoboot:  2 \b\b\b 1 \r\n",
    b"[    0.000000] Booting Linux on physical CPU 0x0\r\n" * 8,
    b"\x1b[0;32m  OK  \x1b[0m Reached target Multi-User System.\r\n" * 6,
    b"\r\nDebian GNU/Linux 12 board ttyS0\r\n\r\nboard login: ",
)


def reach(link: FaultyLink, *, silence_s: float, options: str = "") -> Session:
    device = resolve_device(f"serial://{link.host_path}?baud=921600{options}")
    session = connect(device, timeout_s=20.0)
    session.channel.traits = replace(session.channel.traits, silence_s=silence_s)
    return session


def deploy(
    link: FaultyLink, bundle: Bundle, *, silence_s: float, options: str = ""
) -> Deployment:
    with reach(link, silence_s=silence_s, options=options) as session:
        return deploy_bundle(
            bundle, session, device=resolve_device(f"serial://{link.host_path}")
        )


def current(link: FaultyLink) -> str:
    with reach(link, silence_s=10.0) as session:
        return str(read_status(session)["slots"]["current"]["bundle"])


@contextmanager
def mended_after(link: FaultyLink, seconds: float) -> Iterator[None]:
    """Mend the link so long after it was cut."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            if link.is_cut:
                over.wait(seconds)
                link.mend()
                return

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
        link.mend()


def cut_often(folder: Path, *, count: int, seed: int) -> None:
    rng = random.Random(seed)
    silence_s, broken, survived = 1.2, 0, 0
    hints: list[str] = []
    slowest_s = 0.0
    with (
        FaultyLink(seed=seed, to_device=LineFaults.errors(1e-5)) as link,
        serial_agent(link.device_path, folder / "d" / "state") as agent,
    ):
        old = make_echo_bundle(folder / "old", part=rng.randbytes(5000))
        deploy(link, old, silence_s=10.0)
        for turn in range(count):
            size = rng.randrange(40_000, 120_000)
            new = make_echo_bundle(folder / f"b{turn}", part=rng.randbytes(size))
            at = rng.randrange(200, size + 8000)
            # a quarter is mended while the session still hopes
            pause_s = 0.4 if turn % 4 == 0 else 2.5
            link.cut_after(at, way="to_device" if rng.random() < 0.8 else "to_host")
            began = time.monotonic()
            try:
                with mended_after(link, pause_s):
                    deploy(link, new, silence_s=silence_s)
                survived += link.counts("to_device").cut > 0
            except LinkError as exc:
                broken += 1
                hints.append(exc.hint)
                slowest_s = max(slowest_s, time.monotonic() - began)
                assert agent.poll() is None
                assert current(link) in (old.id, new.id)
                receipt = deploy(link, new, silence_s=10.0)
                if at <= size:
                    assert receipt.bytes_sent <= size - at + RESENT_BYTES
            assert current(link) == new.id
            old = new
        overrun = link.counts("to_device").overrun + link.counts("to_host").overrun
    assert broken >= count // 4
    assert all(hints)
    assert slowest_s < 25, "it hung"
    print(f"{count} cuts: {broken} broke a session, {survived} did not; {overrun} overrun")


@pytest.mark.slow
def test_cuts_at_random_places_lose_nothing(tmp_path: Path) -> None:
    cut_often(tmp_path, count=2, seed=1)


@pytest.mark.faults
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(4))
def test_two_hundred_cuts_at_random_places_lose_nothing(tmp_path: Path, seed: int) -> None:
    cut_often(tmp_path, count=50, seed=100 + seed)


def during(push: Callable[[], object], act: Callable[[], None], link: FaultyLink) -> object:
    """Run ``push`` and, once a part of it has gone, ``act``; give what it raised, or None."""
    start = link.counts("to_device").delivered
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            push()
            raised.append(None)
        except LinkError as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 60
    while link.counts("to_device").delivered < start + 60_000:
        assert time.monotonic() < deadline, "the push does not get going"
        time.sleep(0.02)
    act()
    thread.join(120)
    assert raised, "the push hangs"
    return raised[0]


def worst_day(folder: Path, *, size: int, cut_s: float, silence_s: float) -> None:
    rng = random.Random(3)
    bundles = [make_echo_bundle(folder / f"b{i}", part=rng.randbytes(size)) for i in range(2)]
    state = folder / "d" / "state"
    fixed = "&max_baud=921600"
    with FaultyLink(to_device=LineFaults.errors(1e-5), seed=3) as link:
        # the host is there first, and sees the board boot
        found: list[Session] = []
        waiting = threading.Thread(
            target=lambda: found.append(reach(link, silence_s=silence_s, options=fixed))
        )
        waiting.start()
        while not link.counts("to_device").sent:  # it throws away what came before it
            time.sleep(0.02)
        for text in BOOT:
            link.say(text)
            time.sleep(0.1)
        with serial_agent(link.device_path, state) as agent:
            waiting.join(20)
            assert found, "no session though the agent runs"
            with found[0] as session:
                assert session.noise_bytes >= len(b"".join(BOOT))

            def push() -> None:
                deploy(link, bundles[0], silence_s=silence_s, options=fixed)

            # the cable comes out for long
            began = time.monotonic()
            cut = during(push, link.cut, link)
            assert isinstance(cut, ChannelTimeout), cut
            assert "no data for" in str(cut)
            assert "what was sent stays there" in cut.hint
            assert time.monotonic() - began < silence_s + 20
            time.sleep(max(0.0, cut_s - silence_s))
            link.mend()
            receipt = deploy(link, bundles[0], silence_s=15.0, options=fixed)
            assert receipt.bytes_skipped > 0
            assert current(link) == bundles[0].id

            # the board resets in the middle
            def reboot() -> None:
                agent.send_signal(signal.SIGKILL)
                agent.wait()
                for text in BOOT:
                    link.say(text)

            def push_more() -> None:
                deploy(link, bundles[1], silence_s=15.0, options=fixed)

            def reboot_and_start() -> None:
                reboot()
                second.append(serial_agent(link.device_path, state))
                second[0].__enter__()

            second: list[object] = []
            began = time.monotonic()
            try:
                lost = during(push_more, reboot_and_start, link)  # type: ignore[arg-type]
                assert isinstance(lost, ChannelClosed), lost
                assert "was started anew" in str(lost)
                assert time.monotonic() - began < 30
                assert current(link) == bundles[0].id
                receipt = deploy(link, bundles[1], silence_s=15.0, options=fixed)
                assert receipt.bytes_skipped > 0
                assert current(link) == bundles[1].id
            finally:
                if second:
                    second[0].__exit__(None, None, None)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_boot_cut_and_reboot_end_in_right_bytes_or_a_clear_error(tmp_path: Path) -> None:
    worst_day(tmp_path, size=150_000, cut_s=3.0, silence_s=1.5)


@pytest.mark.faults
def test_thirty_seconds_without_a_cable_end_in_a_clear_error(tmp_path: Path) -> None:
    worst_day(tmp_path, size=400_000, cut_s=30.0, silence_s=15.0)
