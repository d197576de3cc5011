"""kill -9 at any moment: the old or the new release is current, and the next push works."""

from __future__ import annotations

import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import EchoBundle, Start, current, deploy

#: Pushes that the agent keeps to be taken up again (its store says so).
MOST_PENDING = 8


def verify(start: Start, state: Path, allowed: set[str]) -> str | None:
    """What is current after a crash; it is whole, and answers its check vectors."""
    with start() as agent:
        bundle = current(agent)
        assert bundle in allowed
        reply = agent.ask("check", bundle=bundle, force=True).meta
        assert reply["passed"], reply
        agent.hang_up()
    check_pending(state)
    return bundle


def check_pending(state: Path) -> None:
    """Pushes that were cut off are kept to a limit, and nothing but what they staged."""
    pending = [path for path in (state / "pending").iterdir() if path.suffix != ".tmp"]
    assert len(pending) <= MOST_PENDING
    wanted = {blob for path in pending for blob in blobs_of(json.loads(path.read_bytes()))}
    # a kill right after the oldest push was dropped leaves its file to the next push
    assert len({path.name for path in (state / "staging").iterdir()} - wanted) <= 1


def blobs_of(manifest: dict[str, Any]) -> list[str]:
    blobs = [file for part in manifest["parts"] for file in part["files"]]
    blobs += [check["blob"] for check in manifest["checks"]]
    return [blob["sha256"] for blob in blobs]


def run_kills(start: Start, state: Path, kills: int, *, seed: int) -> dict[str, int]:
    """Kill the agent at random moments of so many deployments; count what was left."""
    rng = random.Random(seed)
    window_s = 0.0
    for number in range(3):
        with start() as agent:
            old = EchoBundle(rng.randbytes(60_000), name=f"rehearsal-{number}")
            began = time.monotonic()
            deploy(agent, old)
            window_s = max(window_s, 1.1 * (time.monotonic() - began))
            agent.hang_up()
    outcomes = {"old": 0, "new": 0, "told": 0}
    for number in range(1, kills + 1):
        new = EchoBundle(rng.randbytes(60_000), name=f"release-{number}")
        with start() as agent:
            timer = threading.Timer(rng.uniform(0, window_s), agent.process.kill)
            timer.start()
            told_active = False
            try:
                deploy(agent, new)
                told_active = True
            except (EOFError, BrokenPipeError):
                pass
            timer.cancel()
            agent.kill()
        seen = verify(start, state, {old.id, new.id}) if number % 5 == 0 else look(start)
        assert seen in {old.id, new.id}
        assert seen == new.id or not told_active, "told active, but it is not"
        outcomes["told"] += told_active
        # other work slows deployments down: let one in ten or so end before its kill
        window_s *= 0.95 if told_active else 1.005
        outcomes["new" if seen == new.id else "old"] += 1
        if seen == new.id:
            old = new
    with start() as agent:
        deploy(agent, last := EchoBundle(b"the last one"))
        agent.ask("gc")
        assert current(agent) == last.id
        agent.hang_up()
    assert len(list((state / "releases").iterdir())) <= 3
    assert not list((state / "staging").iterdir()), "gc drops what no push will ask for again"
    return outcomes


@pytest.mark.slow
def test_kill_at_any_moment_of_a_deploy_leaves_old_or_new(start: Start, state: Path) -> None:
    outcomes = run_kills(start, state, 50, seed=20)
    assert outcomes["old"] >= 5, outcomes


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_thousand_kills_of_the_agent_leave_old_or_new(start: Start, state: Path) -> None:
    outcomes = run_kills(start, state, 1000, seed=1000)
    print(f"\n1000 kills of the agent: {outcomes}")
    assert outcomes["old"] >= 100
    assert outcomes["new"] >= 100


def look(start: Start) -> str | None:
    with start() as agent:
        found = current(agent)
        agent.hang_up()
    return found
