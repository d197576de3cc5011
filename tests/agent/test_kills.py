"""kill -9 at any moment: the old or the new release is current, and the next push works."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from tests.agent.agent_driver import EchoBundle, Start, current, deploy

KILLS = 50


def verify(start: Start, state: Path, allowed: set[str]) -> str | None:
    """What is current after a crash; it is whole, and answers its check vectors."""
    agent = start()
    bundle = current(agent)
    assert bundle in allowed
    reply = agent.ask("check", bundle=bundle, force=True).meta
    assert reply["passed"], reply
    assert len(list((state / "staging").iterdir())) <= 2
    agent.hang_up()
    return bundle


def test_kill_at_any_moment_of_a_deploy_leaves_old_or_new(start: Start, state: Path) -> None:
    rng = random.Random(20)
    agent = start()
    old = EchoBundle(rng.randbytes(60_000), name="release-0")
    began = time.monotonic()
    deploy(agent, old)
    measured_s = time.monotonic() - began
    agent.hang_up()
    outcomes = {"old": 0, "new": 0}
    for number in range(1, KILLS + 1):
        new = EchoBundle(rng.randbytes(60_000), name=f"release-{number}")
        agent = start()
        timer = threading.Timer(rng.uniform(0, 1.1 * measured_s), agent.process.kill)
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
        outcomes["new" if seen == new.id else "old"] += 1
        if seen == new.id:
            old = new
    assert outcomes["old"] >= 5, outcomes
    agent = start()
    deploy(agent, last := EchoBundle(b"the last one"))
    agent.ask("gc")
    assert current(agent) == last.id
    assert len(list((state / "releases").iterdir())) <= 3


def look(start: Start) -> str | None:
    agent = start()
    try:
        return current(agent)
    finally:
        agent.hang_up()
