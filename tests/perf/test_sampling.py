"""Looking at the conditions disturbs no measurement, and costs little: an A/A run says so.

Blocks of one release on one agent, with the conditions sampled and without, in random order; a
third arm, without, says how far two equal arms are apart. For the table alone::

    pytest -m perf -s tests/perf/test_sampling.py
"""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.deploy import deploy_bundle
from edgesdk.devices import Session, connect, resolve_device
from tests.perf.test_bare_loops import build, interval

pytestmark = pytest.mark.perf

BLOCKS = 60
#: Long enough for several looks.
BLOCK_S = 1.1
MOST = 1.01
MOST_SHARE = 0.005


def block(session: Session, *, sampled: bool) -> tuple[float, Any]:
    spec = {"warmup_runs": 3, "runs": 0, "duration_s": BLOCK_S, "sample_conditions": sampled}
    reply = session.request("bench", {"release": "current", "spec": spec}, timeout_s=60)
    samples = np.frombuffer(reply.body, dtype="<u8")
    return float(np.median(samples)), reply.meta["conditions"].get("cpu_share")


@pytest.mark.timeout(900)
def test_sampling_the_conditions_does_not_disturb(tmp_path: Path) -> None:
    bundle = build(tmp_path / "bundle", "int8")
    device = resolve_device(f"local:?state={tmp_path / 'state'}", inventory=None)
    arms = {"sampled": True, "plain": False, "other plain": False}
    medians: dict[str, list[float]] = {name: [] for name in arms}
    shares = []
    dice = random.Random(1)
    with connect(device, timeout_s=30) as session:
        deploy_bundle(bundle, session, device=device, profile=None)
        for _ in range(BLOCKS):
            for name in dice.sample(list(arms), len(arms)):
                median, share = block(session, sampled=arms[name])
                medians[name].append(median)
                if share is not None:
                    shares.append(share)
    ratios = {
        name: [a / b for a, b in zip(medians[name], medians["plain"], strict=True)]
        for name in ("sampled", "other plain")
    }
    ratio, low, high = interval(ratios["sampled"])
    same, same_low, same_high = interval(ratios["other plain"])
    sys.stdout.write(
        f"\n{BLOCKS} blocks of {BLOCK_S:g} s: "
        f"sampled/plain {ratio:.4f} [{low:.4f}, {high:.4f}], "
        f"plain/plain {same:.4f} [{same_low:.4f}, {same_high:.4f}], "
        f"{statistics.median(shares):.4%} of a core, {max(shares):.4%} at most\n"
    )
    assert len(shares) == BLOCKS
    assert statistics.median(shares) < MOST_SHARE
    if abs(same - 1) > 0.01:
        pytest.skip(f"void: two plain arms differ by {abs(same - 1):.1%}")
    assert low <= MOST
