"""A budget is kept by the fewest nodes in float, found by few measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.errors import QuantizeError
from edgesdk.quantize.budget import Budget
from edgesdk.quantize.compare import noise_by_output
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.judge import LabelledJudge, ScoreJudge
from edgesdk.quantize.observe import Kept
from edgesdk.quantize.state import State
from edgesdk.quantize.values import BudgetOutcome, Quantized
from tests.unit.quantize.floats import named, reasons, samples, shipped
from tests.unit.quantize.modes import normal

#: One scale for all weights of a layer: one that sticks out ruins the layer.
SCHEME = shipped("onnxruntime-cpu", weights="int8-per-tensor-symmetric")
LAYERS = 12


def deep(*ruined: int, layers: int = LAYERS, outlier: float = 4000.0) -> ir.Model:
    """Give a chain of convolutions, of which some cannot be quantized with one scale.

    What sticks out reads a channel that is always 0, so the float graph never sees it.
    """
    weights: dict[str, np.ndarray] = {}
    lines = []
    before = "x"
    for number in range(layers):
        weight = 0.1 * normal(8, 8, 1, 1, seed=number)
        weight[:, :, 0, 0] += np.eye(8, dtype=np.float32)
        weight[0] = 0.0
        weight[:, 0] = 0.0
        if number in ruined:
            weight[1, 0] = outlier
        weights[f"w{number}"] = weight
        lines.append(f"c{number} = Conv ({before}, w{number}) r{number} = Relu (c{number})")
        before = f"r{number}"
    weights["v"] = normal(4, 8, 1, 1, seed=99)
    text = (
        f"deep (float[1, 8, 6, 6] x) => (float[1, 4] y) {{ {' '.join(lines)}"
        f" p = GlobalAveragePool ({before}) q = Conv (p, v) y = Flatten (q) }}"
    )
    return named(text, weights)


def inputs(count: int = 24, seed: int = 2) -> list[dict[str, np.ndarray]]:
    data = samples(deep(), count, seed=seed)
    for one in data:
        one["x"][:, 0] = 0.0
    return data


def labelled(model: ir.Model, count: int = 200) -> LabelledJudge:
    """Give a judge whose labels are what the float model says."""
    session, data = HostSession(model), inputs(count, seed=5)
    labels = np.concatenate([session.run(one)["y"] for one in data]).argmax(axis=1)
    judge = LabelledJudge(lambda: data, labels, total=count)
    judge.set_reference(model)
    return judge


def kept(done: Quantized) -> set[str]:
    assert done.budget is not None
    return {name for name in done.budget.kept if name.startswith("c") or name == "q"}


def static(model: ir.Model, budget: Budget, **more: Any) -> Quantized:
    return quantize_static(
        model, inputs(), scheme=SCHEME, **{"means": (), "budget": budget, **more}
    )


def outcome(done: Quantized) -> BudgetOutcome:
    assert done.budget is not None
    return done.budget


def test_what_keeps_the_limit_as_it_is_stays_whole() -> None:
    done = static(deep(), Budget(limit=0.2))
    assert outcome(done).kept == ()
    assert outcome(done).evaluations == 1
    assert outcome(done).probes == 0
    assert outcome(done).before == outcome(done).after <= 0.2


@pytest.mark.parametrize("ruined", [(0,), (5,), (11,), (2, 9)])
def test_the_culprits_are_found_by_few_measurements(ruined: tuple[int, ...]) -> None:
    done = static(deep(*ruined), Budget(limit=0.05))
    assert kept(done) == {f"c{number}" for number in ruined}
    assert outcome(done).before > 0.05 >= outcome(done).after
    assert outcome(done).evaluations <= 4 + len(ruined) * 2 < LAYERS
    why = "it loses too much in 8 bits (measured against the float answers)"
    assert {reasons(done)[f"c{number}"] for number in ruined} == {why}
    assert not [one for one in done.findings if one.code == "budget-not-kept"]


def test_labels_decide_where_there_are_some() -> None:
    model = deep(4)
    judge = labelled(model)
    done = static(model, Budget(limit=0.02, judge=judge))
    assert kept(done) == {"c4"}
    found = outcome(done)
    assert (found.metric, found.reference) == ("top-1", 1.0)
    assert found.before > 0.02 >= found.after
    assert judge.drop(HostSession(done.model, optimize="off")) <= 0.03
    assert reasons(done)["c4"] == "it loses too much in 8 bits (measured on labelled data)"


def test_the_record_says_what_it_cost() -> None:
    found = outcome(static(deep(3), Budget(limit=0.05)))
    assert found.bytes_added == 3 * 64  # three more bytes for each of 8 times 8 weights
    # the last layer works on one place, the others on 36
    share = 64 * 36 / (LAYERS * 64 * 36 + 32)
    assert found.float_share == pytest.approx(share, abs=1e-3)
    assert found.expected_time == pytest.approx(1 + share * 1.5, abs=1e-2)


def test_a_score_of_the_callers_is_kept_too() -> None:
    model, data = deep(7), inputs(30, seed=6)
    session = HostSession(model)
    wanted = [session.run(one)["y"] for one in data]

    def score(run: Any) -> float:
        away = [np.abs(run(o)["y"] - w).mean() for o, w in zip(data, wanted, strict=True)]
        return -float(np.mean(away) / np.abs(np.concatenate(wanted)).mean())

    judge = ScoreJudge(score)
    judge.set_reference(model)
    done = static(model, Budget(limit=0.15, judge=judge))
    assert kept(done) == {"c7"}
    assert outcome(done).metric == "score"


def test_a_limit_that_no_mix_keeps_is_an_error_where_it_was_asked_for() -> None:
    with pytest.raises(QuantizeError) as caught:
        static(deep(3, layers=4), Budget(limit=1e-12))
    error = caught.value
    assert str(error).startswith("cannot keep the loss of noise within 1e-12: it is ")
    assert str(error).endswith(" with every node in 8 bits, and no mix of both keeps it")
    assert error.hint == (
        "allow more with --max-drop, give more calibration samples, or build with "
        "--precision fp32"
    )
    assert error.exit_code == 3
    assert error.facts["limit"] == 1e-12


def test_a_limit_of_ours_that_no_mix_keeps_is_a_warning() -> None:
    done = static(deep(3, layers=4), Budget(limit=1e-12, required=False))
    assert outcome(done).kept == ()
    (finding,) = [one for one in done.findings if one.code == "budget-not-kept"]
    assert finding.severity == "warning"
    assert finding.message.startswith("noise drops by ")
    assert "(expected at most 1e-12), and no mix of both precisions" in finding.message


class Counting(ScoreJudge):
    """Compares answers with those of the float graph, and counts how often it was asked."""

    def __init__(self, model: ir.Model) -> None:
        session = HostSession(model)
        self._kept = [Kept(inputs=one, answers=session.run(one)) for one in inputs(8, seed=5)]
        self.asked = 0
        super().__init__(lambda run: 0.0)
        self.reference = 0.0

    def drop(self, session: HostSession) -> float:
        self.asked += 1
        return max(noise_by_output(session, self._kept).values())


def test_a_search_that_was_stopped_measures_nothing_twice(tmp_path: Path) -> None:
    model = deep(2, 9)
    judge = Counting(model)
    first = static(model, Budget(limit=0.05, judge=judge), state=State(tmp_path, "k"))
    before = judge.asked
    again = static(model, Budget(limit=0.05, judge=judge), state=State(tmp_path, "k"))
    assert before > 1
    assert judge.asked == before
    # what was measured earlier counts: a build that was stopped records what a whole one does
    assert outcome(again) == outcome(first)


def test_a_search_that_was_stopped_halfway_measures_the_rest(tmp_path: Path) -> None:
    model = deep(2, 9)
    whole = outcome(static(model, Budget(limit=0.05, judge=Counting(model))))

    class Stops(Exception):
        pass

    class Stopping(State):
        writes = 0

        def write(self, name: str, record: Any) -> None:
            super().write(name, record)
            self.writes += 1
            if self.writes == 4:
                raise Stops

    with pytest.raises(Stops):
        static(model, Budget(limit=0.05, judge=Counting(model)), state=Stopping(tmp_path, "k"))
    judge = Counting(model)
    again = outcome(static(model, Budget(limit=0.05, judge=judge), state=State(tmp_path, "k")))
    assert again == whole
    assert 0 < judge.asked < whole.evaluations


def test_two_searches_give_the_same_graph() -> None:
    graphs = [
        ir.to_proto(static(deep(5), Budget(limit=0.05)).model).SerializeToString(
            deterministic=True
        )
        for _ in range(2)
    ]
    assert graphs[0] == graphs[1]
