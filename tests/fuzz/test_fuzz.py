"""What comes from others is fuzzed: the corpus and a few hundred inputs in `make test`.

`make faults` follows coverage for `EDGESDK_FUZZ_S` seconds per target (20 by default, 600
before a release). With `EDGESDK_FUZZ_KEEP=1` what reaches new lines is added to the corpus.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.agent.conftest import agent_modules  # noqa: F401 - a fixture
from tests.fuzz.agent_target import agent_target
from tests.fuzz.fuzzing import Outcome, Target, fuzz, saved_inputs
from tests.fuzz.reply_target import reply_target
from tests.fuzz.wire_targets import wire_targets

NAMES = (
    "frames",
    "line-agent",
    "line-host",
    "manifest",
    "statement",
    "tensors",
    "delta",
    "report",
    "history-line",
    "operations",
    "replies",
)


@pytest.fixture(scope="module")
def targets(
    agent_modules: Callable[[str], Any],  # noqa: F811 - the fixture
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Target]:
    agent, device = (tmp_path_factory.mktemp(name) for name in ("agent", "device"))
    found = [*wire_targets(), agent_target(agent_modules, agent), reply_target(device)]
    assert tuple(target.name for target in found) == NAMES
    return {target.name: target for target in found}


def fail_on_findings(outcome: Outcome) -> None:
    for data, exc in outcome.findings[:1]:
        raise AssertionError(f"input {data!r:.600}") from exc


@pytest.mark.parametrize("name", NAMES)
def test_what_was_found_once_and_what_is_near_is_survived(
    name: str, targets: dict[str, Target]
) -> None:
    target = targets[name]
    outcome = fuzz(target, seed=1, tries=target.per_test, follow=False)
    fail_on_findings(outcome)
    assert outcome.tried >= target.per_test + len(saved_inputs(target))


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_new_is_found(name: str, targets: dict[str, Target]) -> None:
    outcome = fuzz(
        targets[name],
        seed=int(os.environ.get("EDGESDK_FUZZ_SEED", "2")),
        seconds=float(os.environ.get("EDGESDK_FUZZ_S", "20")),
        keep=os.environ.get("EDGESDK_FUZZ_KEEP") == "1",
    )
    sys.stdout.write(
        f"\n{name}: {outcome.tried} inputs, {len(outcome.new)} reached new lines\n"
    )
    fail_on_findings(outcome)
