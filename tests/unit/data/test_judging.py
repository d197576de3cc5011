"""Which metrics go with what labels and outputs, and what is said where none does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.bench.outputs import Outputs
from edgesdk.data.judging import Judge, Reduction, plan_reduction, read_metric
from edgesdk.errors import DataError

DICE = np.random.default_rng(0)


def given(*, reduced: tuple[str, ...] = (), **arrays: np.ndarray) -> Outputs:
    outputs = Outputs(batch=1, spec="d.npz")
    count = len(next(iter(arrays.values())))
    for index in range(count):
        outputs.add_sample(index, {name: a[index : index + 1] for name, a in arrays.items()})
    outputs.reduced = frozenset(reduced)
    return outputs


def values(labels: np.ndarray, outputs: Outputs, *metrics: str) -> dict[str, float]:
    judge = Judge(labels=labels, metrics=metrics, spec="d.npz")
    return {each.metric: each.value for each in judge.measure(outputs)}


def share_among_best(scores: np.ndarray, labels: np.ndarray, count: int) -> float:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return float((best == labels[:, None]).any(axis=1).mean())


def test_classes_are_judged_by_the_best_and_the_best_five() -> None:
    labels = DICE.integers(0, 20, 200)
    scores = (DICE.normal(size=(200, 20)) + 1.5 * np.eye(20)[labels]).astype(np.float32)
    found = values(labels, given(y=scores))
    assert found == {
        "top-1": pytest.approx(share_among_best(scores, labels, 1)),
        "top-5": pytest.approx(share_among_best(scores, labels, 5)),
    }
    assert list(values(labels % 4, given(y=scores[:, :4]))) == ["top-1"]


def test_of_equal_scores_the_first_class_wins() -> None:
    labels = np.array([0, 3, 4, 5, 6])
    scores = np.zeros((5, 7), np.float32)
    assert values(labels, given(y=scores), "top1", "top5") == {"top-1": 0.2, "top-5": 0.6}


def test_places_give_what_the_scores_give() -> None:
    labels = DICE.integers(0, 12, 300)
    scores = DICE.integers(0, 4, (300, 12)).astype(np.float32)
    places = np.argsort(-scores, axis=1, kind="stable")[:, :5].astype(np.int32)
    whole = values(labels, given(y=scores), "top1", "top5")
    assert values(labels, given(y=places, reduced=("y",)), "top1", "top5") == whole


def test_one_score_is_judged_at_its_threshold_and_by_its_area() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    probability = np.array([0.1, 0.9, 0.4, 0.2, 0.8])
    assert values(labels, given(y=probability)) == {"binary": 0.8, "auc": 1.0}
    assert values(labels, given(y=labels[:, None])) == {"top-1": 1.0}


def test_every_place_of_a_picture_is_judged_and_pictures_are_drawn() -> None:
    labels = DICE.integers(0, 3, (12, 4, 4))
    scores = np.moveaxis(np.eye(3)[labels], -1, 1)
    scores[:2] = 1 - scores[:2]
    judge = Judge(labels=labels)
    (measure,) = judge.measure(given(y=scores))
    assert (measure.metric, measure.count) == ("pixel-top-1", 12)
    assert measure.value == pytest.approx(5 / 6)
    lower, upper = measure.interval().lower, measure.interval().upper
    assert lower is not None
    assert upper is not None
    assert lower < 0.9 < 1.0 == pytest.approx(upper)


def test_errors_are_those_of_each_row() -> None:
    labels = DICE.normal(size=(50, 3))
    output = labels + np.array([1.0, -1.0, 4.0])
    found = values(labels, given(y=output))
    assert found == {
        "mean-abs-error": pytest.approx(2.0),
        "root-mean-square-error": pytest.approx(6**0.5),
    }


def test_only_the_rows_that_were_run_are_judged() -> None:
    labels = np.array([0, 1, 1, 1])
    outputs = given(y=np.eye(2)[[0, 1]])
    assert values(labels, outputs, "top1") == {"top-1": 1.0}


@pytest.mark.parametrize(
    ("labels", "arrays", "metrics", "text"),
    [
        (np.arange(4), {"y": np.zeros((4, 3))}, (), "labels go from 0 to 3 and the output has"),
        (np.arange(1, 4), {"y": np.zeros((3, 3))}, (), "labels go from 1 to 3"),
        (np.arange(3) - 1, {"y": np.zeros((3, 3))}, (), "labels go from -1 to 1"),
        (np.arange(3), {"y": np.zeros((3, 4))}, ("top5",), "the output has 4 classes"),
        (np.zeros(3), {"y": np.zeros((3, 4))}, ("top1",), "labels are float64.3. and the outp"),
        (np.zeros((3, 2)), {"y": np.zeros((3, 4))}, (), "cannot measure mae on d.npz"),
        (np.arange(3), {"y": np.zeros((3, 4))}, ("map",), "no output is called like boxes"),
    ],
)
def test_labels_and_outputs_that_do_not_go_together_are_refused(
    labels: np.ndarray, arrays: dict[str, np.ndarray], metrics: tuple[str, ...], text: str
) -> None:
    with pytest.raises(DataError, match=text):
        values(labels, given(**arrays), *metrics)


@pytest.mark.parametrize(
    ("metric", "bad"), [("top1", np.nan), ("auc", np.nan), ("auc", np.inf), ("mae", np.inf)]
)
def test_rows_that_are_no_numbers_are_counted_and_the_first_is_named(
    metric: str, bad: float
) -> None:
    labels = np.array([0, 1, 0, 1])
    scores = np.zeros((4, 2)) if metric != "mae" else np.zeros(4)
    scores[2:] = bad
    with pytest.raises(DataError, match=r"NaN or infinity in 2 of 4 rows, first in row 2"):
        values(labels, given(y=scores), metric)


def test_infinite_score_is_a_score_like_any_other_for_the_best() -> None:
    scores = np.array([[0.0, -np.inf], [np.inf, 1.0]])
    assert values(np.array([0, 1]), given(y=scores), "top1") == {"top-1": 0.5}


def test_reduced_row_with_a_nan_is_refused_too() -> None:
    places = np.array([[0], [-1]], np.int32)
    with pytest.raises(DataError, match="in 1 of 2 rows, first in row 1"):
        values(np.array([0, 1]), given(y=places, reduced=("y",)), "top1")


# -- what a device needs to send ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("metrics", "shape", "dtype", "expected"),
    [
        ((), [1, 1000], "float32", Reduction(outputs=("y",), top=5)),
        (("top1",), ["N", 1000], "float16", Reduction(outputs=("y",), top=1)),
        (("top1", "top5"), [1, 1000], "float32", Reduction(outputs=("y",), top=5)),
        (("top1", "auc"), [1, 1000], "float32", Reduction()),
        ((), [1, 1000], "int8", Reduction()),
        ((), [1, 6], "float32", Reduction()),
        ((), [1, "classes"], "float32", Reduction()),
        (("mod:fn",), [1, 1000], "float32", Reduction()),
    ],
)
def test_the_best_places_are_enough_where_nothing_else_is_asked(
    metrics: tuple[str, ...], shape: list[Any], dtype: str, expected: Reduction
) -> None:
    outputs = [{"name": "y", "dtype": dtype, "shape": shape}]
    assert plan_reduction(metrics, np.arange(5), outputs) == expected


def test_labels_that_are_no_classes_need_all_of_the_output() -> None:
    outputs = [{"name": "y", "dtype": "float32", "shape": [1, 1000]}]
    assert plan_reduction((), np.zeros((5, 1000)), outputs) == Reduction()
    assert plan_reduction((), np.zeros(5), outputs) == Reduction()


# -- names, and functions of the user's --------------------------------------------------------


def test_names_may_be_written_with_a_hyphen() -> None:
    assert [read_metric(name) for name in ("top-1", "TOP5", "Pixel-top-1", "a.b:c")] == [
        "top1",
        "top5",
        "pixel-top1",
        "a.b:c",
    ]
    with pytest.raises(DataError, match="there is no such metric") as caught:
        read_metric("topp1")
    assert "did you mean top1" in caught.value.hint


MODULE = """
import numpy as np

def worst(outputs, labels):
    return np.abs(outputs["y"] - labels).max()
worst.smaller_is_better = True

def recall(outputs, labels):
    ones = labels == 1
    if not ones.any():
        raise ZeroDivisionError("no ones")
    return (outputs["y"][ones] > 0.5).mean()

def broken(outputs, labels):
    return outputs["z"]

def text(outputs, labels):
    return "good"

def nothing(outputs, labels):
    return float("nan")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"metrics_of_{abs(hash(tmp_path)) % 10**12}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_function_of_the_users_is_a_metric_with_an_interval(module: str) -> None:
    labels = np.array([0.0, 1.0, 0.0, 1.0] * 20)
    outputs = given(y=labels * 0.8)
    judge = Judge(labels=labels, metrics=(f"{module}:worst", f"{module}:recall"))
    worst, recall = judge.measure(outputs)
    assert (worst.better, worst.value) == ("smaller", pytest.approx(0.2))
    assert (recall.better, recall.value, recall.count) == ("larger", 1.0, 80)
    assert "no variance seen" in recall.interval().method
    delta = worst.minus(judge.measure(given(y=labels * 0.9))[0])
    assert delta.value == pytest.approx(0.1)


def test_draw_that_a_function_cannot_take_does_not_count(module: str) -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    (measure,) = Judge(labels=labels, metrics=(f"{module}:recall",)).measure(
        given(y=np.array([0.0] * 7 + [1.0] * 3))
    )
    assert measure.value == 0.75
    assert measure.interval().upper == 1.0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken", "cannot measure .*:broken: KeyError: 'z'"),
        ("text", "it gave 'good' .expected a number"),
        ("nothing", "it gave nan"),
        ("absent", "has no function 'absent'"),
    ],
)
def test_function_that_goes_wrong_says_how(module: str, name: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        values(np.arange(4), given(y=np.zeros(4)), f"{module}:{name}")


def test_module_that_is_not_there_says_where_it_was_looked_for() -> None:
    with pytest.raises(DataError, match="cannot measure no_such_module_x:f") as caught:
        values(np.arange(4), given(y=np.zeros(4)), "no_such_module_x:f")
    assert "current folder" in caught.value.hint
