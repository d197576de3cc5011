"""The reliable line, both its ends, over a simulated wire: time is computed, not waited for."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.wire.arq import Arq
from edgesdk.wire.arq_open import pack_rst, pack_syn, pack_syn_ack
from edgesdk.wire.arq_session import DEAD_S
from tests.unit.wire.line_sim import Sim

FAST = (230_400, 460_800, 921_600, 1_500_000, 3_000_000)


def noise(size: int, seed: int = 5) -> bytes:
    return random.Random(seed).randbytes(size)


def opened(**options: object) -> Sim:
    sim = Sim(**options)  # type: ignore[arg-type]
    sim.host.arq.connect(sim.now)
    assert sim.run(lambda: sim.host.arq.is_open and sim.agent.arq.is_open, 5)
    return sim


def deliver(sim: Sim, data: bytes, limit_s: float = 400) -> float:
    """Send ``data`` down; gives the share of the line that was payload."""
    began, before = sim.now, len(sim.agent.got)
    sim.host.to_send += data
    assert sim.run(lambda: len(sim.agent.got) >= before + len(data), limit_s)
    assert bytes(sim.agent.got[before:]) == data
    return len(data) * 10 / sim.baud / (sim.now - began)


# -- efficiency, in computed time


@pytest.mark.parametrize("back_latency_s", [0.001, 0.016])
@pytest.mark.parametrize(
    ("baud", "size", "least"),
    [(115_200, 250_000, 0.98), (921_600, 1_000_000, 0.99), (3_000_000, 2_000_000, 0.99)],
)
def test_clean_line_is_filled(
    baud: int, size: int, least: float, back_latency_s: float
) -> None:
    sim = opened(baud=baud, back_latency_s=back_latency_s)
    deliver(sim, noise(4096))
    assert deliver(sim, noise(size)) >= least
    assert sim.host.arq.sender.frames_lost == 0


@pytest.mark.parametrize(
    ("error_rate", "size", "least"),
    [(1e-5, 3_000_000, 0.97), (1e-4, 1_000_000, 0.91), (1e-3, 400_000, 0.75)],
)
def test_line_with_errors_loses_little_more_than_it_must(
    error_rate: float, size: int, least: float
) -> None:
    sim = opened(error_rate=error_rate, back_latency_s=0.016)
    deliver(sim, noise(30_000))
    assert deliver(sim, noise(size)) >= least
    assert sim.down.errors * 2 > size * error_rate > 10


@pytest.mark.parametrize("payload", [bytes(300_000), b"\xff" * 300_000, b"\x11\x13" * 150_000])
def test_no_payload_is_slower_than_another(payload: bytes) -> None:
    assert deliver(opened(), payload) >= 0.98


def test_frames_shrink_with_errors_and_grow_again() -> None:
    sim = opened(error_rate=1e-3)
    deliver(sim, noise(200_000))
    small = sim.host.arq.sender.frame_bytes
    assert 50 <= small <= 200
    sim.down.error_rate = sim.up.error_rate = 0.0
    sim.down._next_error = sim.up._next_error = 1 << 60
    deliver(sim, noise(3_000_000))
    assert sim.host.arq.sender.frame_bytes >= 2048


# -- whole, whatever happens


@pytest.mark.parametrize("error_rate", [0.0, 1e-4, 3e-3])
def test_both_directions_at_once(error_rate: float) -> None:
    sim = opened(error_rate=error_rate)
    sim.agent.to_send = up = noise(60_000, 6)
    deliver(sim, noise(60_000))
    assert sim.run(lambda: len(sim.host.got) >= len(up), 60)
    assert bytes(sim.host.got) == up


@pytest.mark.parametrize("seed", range(6))
def test_short_cuts_and_a_console_that_prints_lose_nothing(seed: int) -> None:
    sim = opened(error_rate=1e-4, seed=seed)
    rng = random.Random(seed)
    data = noise(600_000)
    sim.host.to_send = data
    for _ in range(100):
        if sim.run(lambda: len(sim.agent.got) >= len(data), rng.uniform(0.5, 1.5)):
            break
        sim.down.cut = rng.random() < 0.7
        sim.up.cut = rng.random() < 0.7
        sim.run(lambda: False, rng.uniform(0.0, 2.5))
        sim.down.cut = sim.up.cut = False
        sim.host.arq.feed(b"\r\n[   12.34] usb 1-1: reset\r\n", sim.now)
        sim.agent.arq.feed(b"root\r\nls\0\r\n", sim.now)
    assert bytes(sim.agent.got) == data
    assert sim.agent.arq.sessions == 1


def test_last_frame_that_is_lost_is_found_out() -> None:
    sim = opened()
    sim.run(lambda: False, 1.5)
    sim.down.cut = True
    sim.host.to_send = b"the last words"
    sim.run(lambda: False, 0.002)
    sim.down.cut = False
    began = sim.now
    assert sim.run(lambda: bytes(sim.agent.got) == b"the last words", 5)
    assert sim.now - began < 0.5


def test_reader_that_does_not_read_stops_the_sender_and_bounds_the_memory() -> None:
    sim = opened()
    agent = sim.agent.arq
    agent.get = lambda: b""  # type: ignore[method-assign]
    sim.host.to_send = data = noise(500_000)
    sim.run(lambda: False, 8)
    assert 60_000 < agent.receiver.ready_bytes <= 128 << 10
    assert sim.host.arq.is_open
    del agent.get
    assert sim.run(lambda: len(sim.agent.got) >= len(data), 20)
    assert bytes(sim.agent.got) == data


# -- sessions


def test_agent_that_was_restarted_says_so_within_a_second() -> None:
    sim = opened()
    sim.host.to_send = noise(200_000)
    sim.run(lambda: len(sim.agent.got) > 50_000, 10)
    sim.restart_agent()
    began = sim.now
    assert sim.run(lambda: sim.host.arq.is_idle, 10)
    assert "started anew" in sim.host.arq.why_ended
    assert sim.now - began < 1.5
    assert bytes(sim.text) == b"", "a login was fed with frames"


def test_host_that_was_killed_leaves_the_line_to_the_next() -> None:
    sim = opened(rates=FAST, baud=115_200)
    sim.host.to_send = noise(100_000)
    sim.run(lambda: sim.agent.baud > 115_200 and len(sim.agent.got) > 20_000, 20)
    sim.host.arq = sim.make(is_host=True)
    sim.host.to_send, sim.host.baud = b"", 115_200
    sim.host.arq.connect(sim.now)
    began = sim.now
    assert sim.run(lambda: sim.host.arq.is_open, 10)
    assert sim.now - began < 4
    assert sim.agent.arq.sessions == 2
    sim.agent.got.clear()
    deliver(sim, noise(50_000, 9))


def test_agent_gives_up_a_host_that_is_silent() -> None:
    sim = opened()
    sim.host.alive = False
    assert sim.run(lambda: sim.agent.arq.is_idle, DEAD_S + 1)
    assert "nothing was heard for 12 s" in sim.agent.arq.why_ended


def test_cut_longer_than_the_agent_waits_is_told_when_the_cable_is_back() -> None:
    sim = opened()
    sim.host.to_send = noise(2_000_000)
    sim.run(lambda: len(sim.agent.got) > 50_000, 10)
    sim.down.cut = sim.up.cut = True
    sim.run(lambda: False, 30)
    assert sim.agent.arq.is_idle
    sim.down.cut = sim.up.cut = False
    assert sim.run(lambda: sim.host.arq.is_idle, 4)
    assert "gave this session up" in sim.host.arq.why_ended


def test_farewell_ends_both_ends_though_some_of_it_is_lost() -> None:
    sim = opened(error_rate=5e-3)
    sim.host.arq.hang_up(sim.now)
    assert sim.run(lambda: sim.host.arq.is_idle and sim.agent.arq.is_idle, DEAD_S + 1)
    assert sim.agent.arq.why_ended


def test_idle_session_is_kept_and_costs_next_to_nothing() -> None:
    sim = opened()
    before = sim.down.bytes + sim.up.bytes
    sim.run(lambda: False, 60)
    assert sim.host.arq.is_open
    assert sim.agent.arq.is_open
    assert sim.down.bytes + sim.up.bytes - before < 60 * 70


def test_echo_of_a_shell_opens_nothing() -> None:
    host = Arq(is_host=True, baud=9600, new_token=random.Random(1).randbytes)
    host.connect(1.0)
    for step in range(40):
        now = 1.0 + step * 0.1
        host.feed(host.take(now), now)
        host.tick(now)
    assert not host.is_open
    assert not host.is_idle
    assert host.noise_bytes > 0


def test_agent_of_another_version_is_named() -> None:
    sim = Sim()
    sim.host.arq.connect(sim.now)
    said = bytearray(pack_syn_ack(b"", b"12345678", ()))
    from edgesdk.wire.arq_frames import OPENING, seal_frame

    other = seal_frame(OPENING + b"A\x07" + b"whatever it says", None)
    assert other != bytes(said)
    sim.host.arq.feed(b"\0" + other + b"\0", sim.now)
    assert sim.host.arq.is_idle
    assert "version 7 of the line, this end 1" in sim.host.arq.why_ended


# -- text


def test_text_goes_to_the_console_at_once_and_frames_do_not() -> None:
    sim = Sim()
    agent = sim.agent.arq
    for typed in (b"r", b"oot\r", "pässwörd\r".encode(), b"\x03", b"\x1b[A"):
        agent.feed(typed, sim.now)
    assert bytes(sim.text) == "root\rpässwörd\r\x03\x1b[A".encode()
    sim.text.clear()
    syn = b"\0" + pack_syn(b"12345678", FAST) + b"\0"
    for at in range(len(syn)):
        agent.feed(syn[at : at + 1], sim.now)
    assert agent.is_open
    assert bytes(sim.text) == b""


@pytest.mark.parametrize(
    "stray", [b"\0\xf0\x9f" + noise(40) + b"\0", noise(300), b"\0" + pack_rst(bytes(8)) + b"\0"]
)
def test_what_no_person_types_is_kept_from_the_console(stray: bytes) -> None:
    sim = Sim()
    sim.agent.arq.feed(stray, sim.now)
    sim.agent.arq.feed(b"tail of it", sim.now + 0.1)
    assert bytes(sim.text) == b""
    sim.agent.arq.feed(b"later\r", sim.now + 1.0)
    assert bytes(sim.text) == b"later\r"


# -- speeds


def test_fastest_speed_that_both_take_is_found_and_left_again() -> None:
    sim = opened(baud=115_200, rates=FAST)
    deliver(sim, noise(300_000))
    assert sim.host.baud == sim.agent.baud == 3_000_000
    assert sim.host.arq.noise_bytes == sim.agent.arq.noise_bytes == 0
    sim.host.arq.hang_up(sim.now)
    assert sim.run(lambda: sim.agent.arq.is_idle and sim.host.arq.is_idle, 2)
    assert sim.run(lambda: sim.agent.baud == sim.host.baud == 115_200, 1)


def test_little_talk_changes_no_speed() -> None:
    sim = opened(baud=115_200, rates=FAST)
    deliver(sim, noise(3000))
    assert sim.host.baud == sim.agent.baud == 115_200


@pytest.mark.parametrize("holds", [2_000_000, 921_600, 250_000, 115_200])
def test_speed_that_the_cable_does_not_hold_is_passed_over(holds: int) -> None:
    sim = opened(baud=115_200, rates=FAST)
    for wire in (sim.down, sim.up):
        send = wire.send

        def limited(data: bytes, baud: int, now: float, send=send) -> None:  # type: ignore[no-untyped-def]
            send(data if baud <= holds else random.Random(3).randbytes(len(data)), baud, now)

        wire.send = limited  # type: ignore[method-assign]
    deliver(sim, noise(300_000))
    assert (
        sim.host.baud == sim.agent.baud == max((r for r in FAST if r <= holds), default=115_200)
    )


def test_cut_at_a_fast_speed_is_survived_at_the_base_speed() -> None:
    sim = opened(baud=115_200, rates=FAST)
    sim.host.to_send = data = noise(900_000)
    sim.run(lambda: sim.agent.baud == 3_000_000 and len(sim.agent.got) > 100_000, 20)
    sim.down.cut = sim.up.cut = True
    sim.run(lambda: False, 6)
    assert sim.host.baud == sim.agent.baud == 115_200
    sim.down.cut = sim.up.cut = False
    assert sim.run(lambda: len(sim.agent.got) >= len(data), 200)
    assert bytes(sim.agent.got) == data


def test_speed_whose_errors_rise_is_left() -> None:
    sim = opened(baud=115_200, rates=FAST)
    sim.host.to_send = data = noise(600_000)
    sim.run(lambda: sim.agent.baud == 3_000_000 and len(sim.agent.got) > 100_000, 20)
    sim.down.error_rate, sim.down._next_error = 2e-2, 0
    assert sim.run(lambda: sim.host.baud == sim.agent.baud == 115_200, 30)
    sim.down.error_rate, sim.down._next_error = 0.0, 1 << 60
    assert sim.run(lambda: len(sim.agent.got) >= len(data), 200)
    assert bytes(sim.agent.got) == data


def test_agent_that_refuses_every_speed_is_left_at_its_own() -> None:
    from edgesdk.wire.arq_rate import AGREE, REFUSE, HostRate

    rate = HostRate(115_200, 115_200)
    rate.start(FAST, 1.0)
    now = 1.0
    for _ in range(100):
        now += 0.05
        rate.tick(now, is_quiet=True)
        for body in rate.take(now):
            rate.heard(bytes([REFUSE, body[1]]), now)
            rate.heard(bytes([AGREE, 255]), now)
    assert rate.at_rest
    assert rate.baud == 115_200
    rate.baud = 921_600
    rate.leave(now)
    rate.tick(now, is_quiet=True)
    (body,) = rate.take(now)
    assert not rate.heard(bytes([REFUSE, body[1]]), now)
    assert rate.at_rest


# -- bad input


@given(data=st.lists(st.binary(max_size=200), max_size=20), is_host=st.booleans())
def test_no_bytes_break_either_end(data: list[bytes], is_host: bool) -> None:
    sim = Sim(rates=FAST)
    sim.host.arq.connect(sim.now)
    end = sim.host if is_host else sim.agent
    for piece in data:
        end.arq.feed(piece, sim.now)
        end.arq.feed(b"\0", sim.now)
        sim.run(lambda: False, 0.01)
    assert sim.run(lambda: sim.host.arq.is_open, 10)


@settings(max_examples=60)
@given(
    bodies=st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=40),
            st.builds(
                bytes.__add__,
                st.sampled_from([b"\x80", b"\x81", b"\x90", b"\x91", b"\x93", b"\x94", b"\0"]),
                st.binary(max_size=20),
            ),
        ),
        max_size=30,
    ),
    to_host=st.booleans(),
)
def test_no_sealed_frame_breaks_either_end(bodies: list[bytes], to_host: bool) -> None:
    from edgesdk.wire.arq_frames import seal_frame

    sim = opened(rates=FAST)
    sim.host.to_send, sim.agent.to_send = noise(3000), noise(3000)
    victim, peer = (sim.host, sim.agent) if to_host else (sim.agent, sim.host)
    assert peer.arq._session is not None
    key = peer.arq._session._send_key
    for body in bodies:
        victim.arq.feed(b"\0" + seal_frame(body, key) + b"\0", sim.now)
        sim.run(lambda: False, 0.01)
    sim.run(lambda: False, 1.0)
    assert victim.arq.receiver.ready_bytes <= 128 << 10


def test_endless_bytes_without_a_delimiter_take_no_memory() -> None:
    sim = opened()
    for _ in range(300):
        sim.agent.arq.feed(b"x" * 4096, sim.now)
    assert len(sim.agent.arq._cutter._buffer) < 10_000
    assert sim.agent.arq.noise_bytes > 300 * 4096 - 10_000
    deliver(sim, noise(5000))
