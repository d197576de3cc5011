"""A serial line is filled, and better than by ZMODEM on the same line in the same run.

The goals S1 to S5 in short; the whole table is ``python tests/perf/link_serial.py``.
"""

from __future__ import annotations

import random
import statistics
import sys

import pytest

from tests.perf.link_serial import (
    CALIBRATION,
    calibrate,
    int8_weights,
    ours,
    why_no_peer,
    zmodem,
)

pytestmark = [pytest.mark.perf, pytest.mark.timeout(900)]
ROUNDS = 3


def require_calm(baud: int) -> None:
    off = [calibrate(baud) - 1 for _ in range(3)]
    if min(map(abs, off)) > CALIBRATION:
        pytest.skip(f"the relay is off by {100 * min(off, key=abs):+.1f} % at {baud}: too busy")


def note(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


@pytest.mark.parametrize(
    ("baud", "error_rate", "late_s", "size", "least"),
    [
        (115_200, 0.0, 0.0, 200_000, 0.98),
        (921_600, 0.0, 0.0, 1_000_000, 0.98),
        (921_600, 0.0, 0.016, 1_000_000, 0.97),
        (3_000_000, 0.0, 0.0, 3_000_000, 0.98),
        (921_600, 1e-5, 0.0, 2_000_000, 0.97),
        (921_600, 1e-4, 0.0, 600_000, 0.91),
        (921_600, 1e-3, 0.0, 300_000, 0.70),
    ],
)
def test_stream_fills_the_line(
    baud: int, error_rate: float, late_s: float, size: int, least: float
) -> None:
    require_calm(baud)
    runs = [
        ours(random.Random(seed).randbytes(size), baud, error_rate, late_s=late_s, seed=seed)
        for seed in range(ROUNDS)
    ]
    stream = statistics.median(run.stream_share for run in runs)
    payload = statistics.median(run.share for run in runs)
    note(
        f"{baud} baud, {error_rate:g} errors/byte: stream {100 * stream:.2f} %, "
        f"payload {100 * payload:.2f} %"
    )
    if error_rate:
        assert sum(run.errors for run in runs) > ROUNDS * size * error_rate / 3
    assert stream >= least
    assert payload >= least - 0.015  # the fields of the chunks


@pytest.mark.parametrize(("error_rate", "points"), [(0.0, 1.0), (1e-5, 10.0), (1e-4, 40.0)])
def test_push_beats_zmodem_in_the_same_run(error_rate: float, points: float) -> None:
    if (reason := why_no_peer()) is not None:
        pytest.skip(reason)
    require_calm(921_600)
    mine, theirs = [], []
    for seed in range(ROUNDS):
        payload = random.Random(seed).randbytes(1_000_000)
        mine.append(100 * ours(payload, 921_600, error_rate, seed=seed).share)
        theirs.append(100 * zmodem(payload, 921_600, error_rate, seed=seed).share)
    ahead = statistics.median(a - b for a, b in zip(mine, theirs, strict=True))
    note(
        f"at {error_rate:g}: {statistics.median(mine):.1f} % against sz {theirs}: +{ahead:.1f}"
    )
    assert ahead >= points


def test_compression_pays_on_weights_and_costs_nothing_on_noise() -> None:
    require_calm(921_600)
    weights = ours(int8_weights(1_000_000), 921_600, 0.0)
    note(f"int8 weights: {weights.share:.2f} times the line's rate")
    assert weights.share >= 1.6
    noise = random.Random(1).randbytes(1_000_000)
    run = ours(noise, 921_600, 0.0)
    # framing and fields of chunks included
    assert run.wire_bytes <= 1.022 * len(noise)
