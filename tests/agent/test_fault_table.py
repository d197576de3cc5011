"""Every (state x fault) of a deployment: all in `make faults`, a part in `make test`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent.agent_driver import AgentProcess, EchoBundle, current, deploy, push
from tests.agent.fault_table import STATES, Table, cells
from tests.agent.inside import load_modules


@pytest.fixture
def table(
    agent_modules: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Table:
    modules = load_modules(agent_modules)
    users = [modules[name] for name in ("fs", "landing", "store", "logs")]

    def use(calls: Any) -> None:
        for module in users:
            if hasattr(module, "calls"):
                monkeypatch.setattr(module, "calls", calls)

    return Table(modules, tmp_path, use)


@pytest.mark.parametrize("state", STATES)
def test_a_part_of_the_table(table: Table, state: str) -> None:
    for cell in cells(table, state, step=12):
        table.run(cell)
    assert table.cells >= 2


@pytest.mark.faults
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("state", STATES)
def test_all_of_the_table(table: Table, state: str) -> None:
    for cell in cells(table, state, step=1):
        table.run(cell)
    sys.stdout.write(f"\n{state}: {table.cells} cells\n")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"fail": "no"}, "worker-failed"),
        ({"load_fail": "no"}, "worker-failed"),
        ({"die": "SIGKILL"}, "worker-died"),
        ({"load_die": "SIGSEGV"}, "worker-died"),
        ({"delay_ms": 60_000}, "worker-timeout"),
        ({"load_delay_ms": 60_000}, "worker-timeout"),
    ],
    ids=["error", "error loading", "kill", "kill loading", "hang", "hang loading"],
)
def test_worker_that_breaks_during_the_check_changes_nothing(
    agent: AgentProcess, state: Path, options: dict[str, Any], code: str
) -> None:
    old = EchoBundle(b"old", name="old")
    deploy(agent, old)
    bad = EchoBundle(b"bad", name="bad", options=options)
    push(agent, bad)
    reply = agent.ask("check", bundle=bad.id, timeout_s=0.8).meta
    assert reply["code"] == code
    assert agent.ask("activate", bundle=bad.id).meta["code"] == "check-failed"
    assert current(agent) == old.id
    status = agent.ask("status").meta
    assert status["probation"] is None, "a candidate is not on probation"
    deploy(agent, EchoBundle(b"next", name="next"))
    assert agent.ask("gc").meta["removed"] == [bad.id]
    assert len(list((state / "releases").iterdir())) == 2
