"""Whether a quantized bundle is worth it, on a scripted device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bench.contest import MOST_ROUNDS
from edgesdk.bench.precision import PrecisionVerdict, judge_precision
from edgesdk.bench.values import BenchSpec
from edgesdk.data.dataset import Dataset, open_dataset
from edgesdk.devices import Session
from edgesdk.errors import WorkerError
from edgesdk.tensors import TensorInfo
from edgesdk.testing import ScriptedChannel
from edgesdk.wire import codes
from tests.unit.bench.test_bench_contest import Board, always


def judged(board: Board, **options: Any) -> PrecisionVerdict:
    """Ask a board about its bundle ``whole`` beside ``floats``."""
    channel = ScriptedChannel(board.agent)
    session = Session(channel, device_name="bench-3", clock=channel.clock)
    bundles = [
        dataclasses.replace(bundle, manifest={**bundle.manifest, "precision": precision})
        for bundle, precision in zip(board.bundles.values(), ("int8", "fp32"), strict=True)
    ]
    try:
        return judge_precision(session, *bundles, spec=BenchSpec(runs=50), **options)
    finally:
        assert "activate" not in [request.meta["op"] for request in board.agent.requests]


def make(folder: Path, whole: Callable[[int], float], floats: Callable[[int], float]) -> Board:
    return Board(folder, whole=whole, floats=floats)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 4), np.float32), labels=np.arange(50) % 3)
    return open_dataset(
        tmp_path / "d.npz", (TensorInfo(name="x", dtype="float32", shape=(1, 4)),)
    )


def jumpy(number: int) -> float:
    """Be now slower and now faster than 1.05 ms."""
    return 1.0 + 0.1 * ((number + 1) % 2)


def test_one_that_is_faster_passes_after_two_rounds(tmp_path: Path) -> None:
    board = make(tmp_path, always(1.0), always(2.0))
    verdict = judged(board)
    assert verdict.refusal is None
    assert not verdict.complete
    assert len(board.turns) == 4
    assert verdict.quantized.bundle.id == board.bundles["whole"].id
    assert verdict.floats is not None
    assert verdict.floats.bundle.id == board.bundles["floats"].id


def test_one_that_is_clearly_slower_is_refused_with_the_numbers(tmp_path: Path) -> None:
    board = make(tmp_path, always(3.0), always(2.0))
    verdict = judged(board)
    assert board.turns.count("whole") == MOST_ROUNDS
    assert verdict.complete
    assert verdict.refusal is not None
    assert verdict.refusal.exit_code == 1
    assert str(verdict.refusal) == (
        "cannot deploy whole int8 to bench-3: it takes 1.50 times as long (95 % interval 1.50 "
        "to 1.50, 10 rounds) as echo fp32: 3 ms instead of 2 ms; the active release is "
        "unchanged"
    )
    assert "--accept-slower" in verdict.refusal.hint
    contest = verdict.result.contest
    assert (contest.winner, contest.decided_by) == ("echo fp32", "refused")
    assert contest.why.startswith("echo fp32 is the better one, and nothing was switched: ")


def test_one_that_was_slower_once_is_measured_until_it_is_clear(tmp_path: Path) -> None:
    board = make(tmp_path, lambda number: 3.0 if number == 1 else 1.0, always(2.0))
    verdict = judged(board)
    assert verdict.complete
    assert verdict.refusal is None
    assert verdict.result.contest.winner == "echo int8"


def test_no_clear_difference_is_no_reason_to_refuse(tmp_path: Path) -> None:
    verdict = judged(make(tmp_path, jumpy, always(1.05)))
    assert verdict.refusal is None
    contest = verdict.result.contest
    assert (contest.winner, contest.decided_by) == ("echo int8", "order")


@pytest.mark.parametrize(("allowed", "refused"), [(None, True), (0.05, False)])
def test_no_faster_and_less_accurate_is_refused(
    tmp_path: Path, data: Dataset, allowed: float | None, refused: bool
) -> None:
    board = make(tmp_path, jumpy, always(1.05))
    board.right = {"whole": lambda number: number > 1, "floats": lambda number: number >= 0}
    verdict = judged(board, data=data, max_drop=allowed)
    assert (verdict.refusal is not None) == refused
    if refused:
        assert "it is not clearly faster than echo fp32, and it loses 4.00% of top-1" in str(
            verdict.refusal
        )


def test_a_faster_one_may_be_less_accurate(tmp_path: Path, data: Dataset) -> None:
    board = make(tmp_path, always(1.0), always(2.0))
    board.right = {"whole": lambda number: number > 20, "floats": lambda number: number >= 0}
    assert judged(board, data=data).refusal is None


def test_what_the_device_says_of_the_quantized_one_is_said(tmp_path: Path) -> None:
    board = make(tmp_path, always(1.0), always(2.0))
    died = {"code": codes.WORKER_DIED, "detail": "it died"}
    board.refuse = lambda op, name: died if (op, name) == ("bench", "whole") else None
    with pytest.raises(WorkerError, match="it died"):
        judged(board)


def test_a_float_model_that_the_device_refuses_refuses_nothing(tmp_path: Path) -> None:
    board = make(tmp_path, always(1.0), always(2.0))
    full = {"code": codes.NO_SPACE, "detail": "4 bytes are free"}
    board.refuse = lambda op, name: full if (op, name) == ("stage", "floats") else None
    verdict = judged(board)
    assert verdict.refusal is None
    assert verdict.floats is None
