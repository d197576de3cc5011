"""What a line with a spoilt byte in a thousand can smuggle past the check of a frame: nothing.

Only frames that errors hit can be taken wrongly, so the bytes between errors are counted, not
carried: 10^9 bytes of line cost half a minute. What a frame's CRC-32 would miss, one in 2^32 of
the spoilt ones, the SHA-256 of the blob catches.
"""

from __future__ import annotations

import random

import pytest

from edgesdk.wire.arq_frames import open_frame, seal_frame
from edgesdk.wire.arq_send import pack_data
from tests.unit.wire.line_sim import Sim

KEY = 0x5EED1234
ERROR_RATE = 1e-3
FRAMES = 3


def relay(total_bytes: int, seed: int) -> tuple[int, int, int]:
    """Give bytes relayed, frames spoilt, and frames taken that nobody sent."""
    rng = random.Random(seed)
    kinds = ["random", "zeros", "ones"]
    relayed = spoilt = wrong = 0
    while relayed < total_bytes:
        # skip to the next error; around it are three frames, as they stand on the line
        relayed += int(rng.expovariate(ERROR_RATE))
        size, kind = rng.choice((48, 100, 104, 300)), rng.choice(kinds)
        fill = {"zeros": bytes(size), "ones": b"\xff" * size}.get(kind) or rng.randbytes(size)
        sent = {
            pack_data(rng.randrange(2048), rng.randrange(1 << 20), fill) for _ in range(FRAMES)
        }
        line = bytearray(b"\0" + b"\0".join(seal_frame(body, KEY) for body in sent) + b"\0")
        at = rng.randrange(len(line))
        while at < len(line):
            if rng.random() < 0.5:
                del line[at]
            else:
                line[at] ^= 1 << rng.randrange(8)
            at += 1 + int(rng.expovariate(ERROR_RATE))
        for chunk in bytes(line).split(b"\0"):
            body = open_frame(chunk, KEY) if chunk else None
            if body is None:
                spoilt += bool(chunk)
            elif body not in sent:
                wrong += 1
        relayed += len(line)
    return relayed, spoilt, wrong


def test_no_spoilt_frame_is_taken_in_ten_million_bytes() -> None:
    relayed, spoilt, wrong = relay(10**7, 1)
    assert relayed >= 10**7
    assert spoilt > 5000
    assert wrong == 0


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_no_spoilt_frame_is_taken_in_a_billion_bytes() -> None:
    relayed, spoilt, wrong = relay(10**9, 2)
    print(f"{relayed} bytes relayed at {ERROR_RATE:g}, {spoilt} frames spoilt, {wrong} wrong")
    assert wrong == 0


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_over_such_a_line_is_whole(seed: int) -> None:
    sim = Sim(error_rate=ERROR_RATE, seed=seed)
    sim.host.arq.connect(sim.now)
    assert sim.run(lambda: sim.host.arq.is_open, 10)
    sim.host.to_send = data = random.Random(seed).randbytes(10_000_000)
    assert sim.run(lambda: len(sim.agent.got) >= len(data), 1000)
    assert bytes(sim.agent.got) == data
