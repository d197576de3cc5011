"""Power cuts of a virtual machine in the middle of changes; see `power_cuts`."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.testing import VirtualBoard, set_up_board, why_no_board
from tests.agent.inside import import_agent
from tests.faults.power_cuts import Campaign, Totals

ROOT = Path(__file__).parents[2]


@pytest.fixture
def machine_board(home: Path, monkeypatch: pytest.MonkeyPatch) -> VirtualBoard:
    """The virtual machine's files, made by the first test that wants them and kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(ROOT / ".cache"))
    if (reason := why_no_board("vm")) is not None:
        pytest.skip(f"needs a virtual machine: {reason}")
    return set_up_board("vm", on_note=print)


def run(board: VirtualBoard, folder: Path, *, cuts: int, states: int, seed: int) -> Totals:
    totals = Campaign(board, folder, import_agent(), seed=seed).run(cuts, states=states)
    print(f"\n{totals}")
    assert totals.cuts == cuts
    assert totals.states == cuts * states
    return totals


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_few_power_cuts_leave_one_whole_release(
    machine_board: VirtualBoard, tmp_path: Path
) -> None:
    totals = run(machine_board, tmp_path, cuts=3, states=12, seed=5)
    assert totals.in_time >= 1


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_fifty_power_cuts_leave_one_whole_release(
    machine_board: VirtualBoard, tmp_path: Path
) -> None:
    totals = run(machine_board, tmp_path, cuts=50, states=20, seed=2026)
    assert totals.in_time >= 30
    assert totals.kept_old > 0
    assert totals.became_new > 0
    assert totals.lost_writes > 0
    assert totals.states_old > 0
    assert totals.states_new > 0
