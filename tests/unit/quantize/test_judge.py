"""What a candidate lost: by labels, by a score of the caller's, by distance to float."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.errors import QuantizeError
from edgesdk.progress import Progress
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.judge import LabelledJudge, NoiseJudge, ScoreJudge
from edgesdk.quantize.observe import Kept
from tests.unit.quantize.modes import graph, normal

TEXT = "pick (float[N, 4] x) => (float[N, 3] y) { y = MatMul (x, w) }"
WEIGHT = normal(4, 3)
SAMPLES = [{"x": normal(1, 4, seed=seed)} for seed in range(40)]
ANSWERS = np.concatenate([sample["x"] @ WEIGHT for sample in SAMPLES])
LABELS = ANSWERS.argmax(axis=1)


def session(weight: np.ndarray = WEIGHT, text: str = TEXT) -> HostSession:
    return HostSession(graph(text, {"w": weight}))


def model(text: str = TEXT) -> ir.Model:
    return graph(text, {"w": WEIGHT})


def test_labels_of_classes_are_counted() -> None:
    judge = LabelledJudge(lambda: SAMPLES, LABELS, total=40)
    judge.set_reference(model())
    assert (judge.metric, judge.reference) == ("top-1", 1.0)
    assert judge.drop(session()) == 0.0
    wrong = WEIGHT.copy()
    wrong[:, 0] = -10
    share = (np.concatenate([s["x"] for s in SAMPLES]) @ wrong).argmax(axis=1) == LABELS
    assert judge.drop(session(wrong)) == pytest.approx(1 - share.mean())


def test_an_error_drops_by_its_share() -> None:
    labels = ANSWERS + 0.5
    judge = LabelledJudge(lambda: SAMPLES, labels)
    judge.set_reference(model())
    assert judge.metric == "mean-abs-error"
    assert judge.reference == pytest.approx(0.5, rel=1e-4)
    error = float(np.abs(ANSWERS * 1.1 - labels).mean())
    wanted = (error - 0.5) / 0.5
    assert judge.drop(session(WEIGHT * np.float32(1.1))) == pytest.approx(wanted, rel=1e-3)


def test_rows_of_a_fixed_batch_are_counted_one_by_one() -> None:
    pairs = [
        {"x": np.concatenate([SAMPLES[at]["x"], SAMPLES[at + 1]["x"]])}
        for at in range(0, 40, 2)
    ]
    judge = LabelledJudge(lambda: pairs, LABELS, batch=2)
    judge.set_reference(model(TEXT.replace("[N,", "[2,")))
    assert judge.reference == 1.0


def test_an_output_without_a_batch_axis_is_a_row_for_each_sample() -> None:
    text = "pick (float[1, 4] x) => (float[3] y) { p = MatMul (x, w) y = Squeeze (p) }"
    judge = LabelledJudge(lambda: SAMPLES, LABELS)
    judge.set_reference(model(text))
    assert judge.reference == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_candidate_that_gives_no_numbers_lost_everything(bad: float) -> None:
    judge = LabelledJudge(lambda: SAMPLES, LABELS)
    judge.set_reference(model())
    broken = WEIGHT.copy()
    broken[0, 0] = bad
    assert judge.drop(session(broken)) == math.inf


def test_a_float_model_that_gives_no_numbers_cannot_be_a_reference() -> None:
    judge = LabelledJudge(lambda: SAMPLES, LABELS)
    with pytest.raises(QuantizeError) as caught:
        judge.set_reference(graph(TEXT, {"w": np.full((4, 3), np.nan, np.float32)}))
    assert str(caught.value) == (
        "cannot measure the float model on the labelled data: its outputs hold NaN or infinity"
    )


def test_labels_that_fit_no_output_are_named_with_the_outputs() -> None:
    judge = LabelledJudge(lambda: SAMPLES, np.zeros((40, 7)))
    with pytest.raises(QuantizeError) as caught:
        judge.set_reference(model())
    assert str(caught.value) == (
        "cannot measure the model on the labelled data: cannot score outputs: labels are "
        "float64[40, 7] and the outputs are 'y' [40, 3]"
    )
    assert "labels are class numbers" in caught.value.hint
    assert caught.value.exit_code == 3


def test_no_samples_are_an_error() -> None:
    judge = LabelledJudge(list, np.zeros(0))
    with pytest.raises(QuantizeError, match="labelled data: there are no samples"):
        judge.set_reference(model())


def test_a_metric_of_the_callers_is_given_rows_and_labels() -> None:
    shapes = []

    def metric(outputs: dict[str, np.ndarray], labels: np.ndarray) -> float:
        shapes.append((outputs["y"].shape, labels.shape))
        return float(outputs["y"].mean())

    judge = LabelledJudge(lambda: SAMPLES, LABELS, metric=metric)
    judge.set_reference(model())
    assert shapes == [((40, 3), (40,))]
    assert judge.metric == "metric"
    wanted = float(ANSWERS.mean()) / 2
    assert judge.drop(session(WEIGHT / 2)) == pytest.approx(wanted, rel=1e-4)


def test_a_score_of_the_callers_runs_what_it_likes() -> None:
    judge = ScoreJudge(lambda run: float(-np.abs(run(SAMPLES[0])["y"] - ANSWERS[:1]).sum()))
    judge.set_reference(model())
    assert judge.reference == pytest.approx(0.0, abs=1e-5)
    wanted = float(np.abs(ANSWERS[0]).sum())
    assert judge.drop(session(WEIGHT * 2)) == pytest.approx(wanted, rel=1e-4)
    broken = np.full_like(WEIGHT, np.nan)
    assert judge.drop(session(broken)) == math.inf


def test_a_score_that_is_no_number_cannot_be_a_reference() -> None:
    with pytest.raises(QuantizeError) as caught:
        ScoreJudge(lambda _run: math.nan).set_reference(model())
    assert str(caught.value) == "cannot measure the float model: its score is nan"


def test_without_labels_the_distance_to_float_counts_at_the_worst_output() -> None:
    text = (
        "two (float[1, 4] x) => (float[1, 3] y, float[1, 3] z)"
        "{ y = MatMul (x, w) z = MatMul (x, v) }"
    )
    weights = {"w": WEIGHT, "v": normal(4, 3, seed=9)}
    before = HostSession(graph(text, weights))
    judge = NoiseJudge(kept=[Kept(inputs=s, answers=before.run(s)) for s in SAMPLES])
    judge.set_reference(graph(text, weights))
    assert (judge.metric, judge.reference) == ("noise", 0.0)
    assert judge.drop(before) == 0.0
    after = graph(text, {"w": WEIGHT * np.float32(1.1), "v": weights["v"] * np.float32(0.7)})
    assert judge.drop(HostSession(after)) == pytest.approx(0.09, rel=1e-3)
    nothing = graph(text, {"w": WEIGHT, "v": np.full((4, 3), np.nan, np.float32)})
    assert judge.drop(HostSession(nothing)) == math.inf


def test_each_candidate_is_a_step_of_its_own() -> None:
    steps: list[Progress] = []
    judge = LabelledJudge(lambda: SAMPLES, LABELS, total=40, on_progress=steps.append)
    judge.set_reference(model())
    judge.drop(session())
    names = list(dict.fromkeys(one.step for one in steps))
    assert names == ["measure the float model", "measure candidate 1"]
    assert (steps[-1].done, steps[-1].total) == (40, 40)
