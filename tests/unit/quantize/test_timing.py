"""Which of two graphs is slower, on a computer that has other things to do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.quantize import timing
from edgesdk.quantize.timing import PairedTimes, time_pair
from tests.unit.quantize.floats import named

MODEL = """
<ir_version: 10, opset_import: ["" : 21]>
tiny (float[1, 4] x) => (float[1, 4] y) { y = Relu (x) }
"""
INPUT = {"x": np.zeros((1, 4), np.float32)}


class Clock:
    """A session whose visits take what a list says; the list is of float, other, other, ..."""

    def __init__(self, times: Iterator[tuple[float, float]]) -> None:
        self.times = times
        self.models: list[ir.Model] = []
        self.pair = (0.0, 0.0)

    def open(self, model: ir.Model, *, threads: int) -> ir.Model:
        assert threads == 1
        self.models.append(model)
        return model

    def visit(self, session: ir.Model, inputs: object) -> list[float]:
        if len(self.models) % 2:
            self.pair = next(self.times)
        value = self.pair[session.graph.name == "other"]
        return [value, value + 5.0, value + 1.0]  # the fastest run is what counts


def timed(monkeypatch: pytest.MonkeyPatch, times: Iterator[tuple[float, float]]) -> PairedTimes:
    one, other = named(MODEL, {}), named(MODEL.replace("tiny", "other"), {})
    clock = Clock(times)
    monkeypatch.setattr(timing, "HostSession", clock.open)
    monkeypatch.setattr(timing, "_visit", clock.visit)
    found = time_pair(one, other, INPUT)
    firsts = [model.graph.name for model in clock.models[::2]]
    assert firsts == (["tiny", "other"] * 6)[: found.pairs]  # each is first in turn
    return found


@pytest.mark.parametrize(
    ("ratios", "slower", "pairs", "is_slower"),
    [
        ([1.2] * 7, 7, 7, True),
        ([1.02, 1.02], 0, 2, False),
        ([2.0, 1.0, 2.0, 1.0], 2, 4, False),
        ([0.9] + [1.2] * 11, 11, 12, True),
        ([1.2] * 6 + [0.9] + [1.2] * 4 + [0.9], 10, 12, False),
    ],
    ids=["all", "not-by-enough", "noise", "all-but-one", "one-more"],
)
def test_a_sign_test_says_which_is_slower(
    ratios: list[float],
    slower: int,
    pairs: int,
    is_slower: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = timed(monkeypatch, ((10.0, 10.0 * ratio) for ratio in ratios))
    assert (found.slower, found.pairs, found.is_slower) == (slower, pairs, is_slower)


def test_what_a_call_costs_makes_no_graph_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, iter([(0.01, 0.018)] * 2)).slower == 0
    assert timed(monkeypatch, iter([(0.01, 0.03)] * 7)).is_slower


def test_noise_alone_does_not_make_a_graph_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(7)

    def noise() -> Iterator[tuple[float, float]]:
        while True:  # every visit may take half as long again
            one, other = 10.0 * (1.0 + 0.5 * dice.random(2))
            yield one, other

    called = sum(timed(monkeypatch, noise()).is_slower for _ in range(200))
    assert called <= 4  # chance allows 1 in 100


def test_the_same_graph_is_timed() -> None:
    model = named(MODEL, {})
    found = time_pair(model, model, INPUT)
    assert 2 <= found.pairs <= 12
    assert found.before_ms > 0
    assert found.after_ms > 0
