"""Metrics know how sure they are: intervals that hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgesdk.data.auc import auc_of_rows, measure_auc
from edgesdk.data.measures import (
    HitMeasure,
    ResampledMeasure,
    mcnemar_p,
    paired_interval,
)
from edgesdk.data.metrics import wilson_interval
from edgesdk.errors import DataError


def bits(count: int, hits: int) -> np.ndarray:
    return np.arange(count) < hits


def test_hits_have_wilsons_interval() -> None:
    measure = HitMeasure("top-1", bits(200, 190))
    interval = measure.interval()
    assert measure.value == 0.95
    assert (interval.lower, interval.upper) == wilson_interval(190, 200)


def test_the_same_hits_differ_by_nothing() -> None:
    measure = HitMeasure("top-1", bits(500, 480))
    delta = measure.minus(HitMeasure("top-1", bits(500, 480)))
    assert (delta.value, delta.p_value, delta.only) == (0.0, 1.0, (0, 0))
    assert delta.interval.lower is not None
    assert delta.interval.lower < 0 < (delta.interval.upper or 0)


def test_rows_that_one_alone_has_right_are_counted() -> None:
    ours = np.array([1, 1, 1, 0, 0, 1], bool)
    theirs = np.array([1, 0, 0, 1, 0, 1], bool)
    delta = HitMeasure("top-1", ours).minus(HitMeasure("top-1", theirs))
    assert delta.only == (2, 1)
    assert delta.value == pytest.approx(1 / 6)


def test_paired_interval_of_a_table_done_by_hand() -> None:
    # 48 and 38 of 50; phi = (36*0 - 12*2) / sqrt(48*2*38*12)
    low, high = paired_interval(36, 12, 2, 0)
    assert (low, high) == pytest.approx((0.05693, 0.34043), abs=5e-6)
    assert paired_interval(36, 2, 12, 0) == pytest.approx((-high, -low))


def test_paired_interval_is_narrower_than_that_of_other_rows() -> None:
    low, high = paired_interval(9500, 20, 30, 450)
    one, two = wilson_interval(9520, 10_000), wilson_interval(9530, 10_000)
    assert high - low < 0.5 * math.hypot(one[1] - one[0], two[1] - two[0])
    assert low < -0.001 < high


@pytest.mark.parametrize(("rate", "agree"), [(0.9, 0.95), (0.6, 0.8), (0.98, 0.99)])
def test_paired_interval_holds_the_truth_as_often_as_it_says(rate: float, agree: float) -> None:
    dice = np.random.default_rng(5)
    held, tries, rows = 0, 2000, 300
    flip = 1 - agree
    truth = -flip * rate + flip * (1 - rate)
    for _ in range(tries):
        theirs = dice.random(rows) < rate
        ours = theirs ^ (dice.random(rows) < flip)
        both, only = int((ours & theirs).sum()), int((ours & ~theirs).sum())
        other = int((~ours & theirs).sum())
        low, high = paired_interval(both, only, other, rows - both - only - other)
        held += low <= truth <= high
    assert held / tries >= 0.935


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(12, 2) == pytest.approx(2 * (1 + 14 + 91) / 2**14)
    assert mcnemar_p(2, 12) == mcnemar_p(12, 2)
    # above the bound it is the normal test, and both agree there
    assert mcnemar_p(2600, 2401) == pytest.approx(mcnemar_p(2599, 2401), rel=0.05)


def test_measures_of_other_rows_are_not_compared() -> None:
    with pytest.raises(DataError, match="not measured on the same rows"):
        HitMeasure("top-1", bits(5, 3)).minus(HitMeasure("top-1", bits(6, 3)))
    resampled = ResampledMeasure("mae", "smaller", lambda w: float(w.mean()), 5)
    with pytest.raises(DataError, match="not measured on the same rows"):
        HitMeasure("top-1", bits(5, 3)).minus(resampled)


# -- resampling --------------------------------------------------------------------------------


def mean_of(values: np.ndarray) -> ResampledMeasure:
    count = len(values)
    return ResampledMeasure("mae", "smaller", lambda w: float(w @ values) / count, count)


def test_bootstrap_of_a_mean_is_its_normal_interval() -> None:
    values = np.random.default_rng(1).exponential(size=2000)
    interval = mean_of(values).interval()
    error = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.lower == pytest.approx(values.mean() - error, abs=0.15 * error)
    assert interval.upper == pytest.approx(values.mean() + error, abs=0.15 * error)
    assert interval == mean_of(values).interval(), "the draws are seeded"


def test_what_moves_both_does_not_count_in_a_difference() -> None:
    dice = np.random.default_rng(2)
    hard = dice.exponential(size=1000)
    ours, theirs = mean_of(hard + dice.normal(0.01, 1e-4, 1000)), mean_of(hard)
    interval = ours.minus(theirs).interval
    assert interval.lower == pytest.approx(0.01, rel=2e-3)
    assert interval.upper == pytest.approx(0.01, rel=2e-3)


@pytest.mark.parametrize(
    ("count", "held"), [(1, False), (2, False), (3, False), (9, False), (10, True)]
)
def test_few_rows_have_no_interval(*, count: int, held: bool) -> None:
    dice = np.random.default_rng(9)
    ours, theirs = mean_of(dice.random(count)), mean_of(dice.random(count))
    for interval in (ours.interval(), ours.minus(theirs).interval):
        assert (interval.lower is not None, interval.upper is not None) == (held, held)
        assert ("fewer than 10 rows" in interval.method) is not held


def test_rows_that_are_all_alike_have_no_interval() -> None:
    ours, theirs = mean_of(np.full(50, 0.1)), mean_of(np.arange(50.0))
    for interval in (ours.interval(), theirs.minus(theirs).interval):
        assert (interval.lower, interval.upper) == (None, None)
        assert "no variance seen" in interval.method


def test_draws_without_a_value_leave_no_interval_when_they_are_many() -> None:
    measure = ResampledMeasure(
        "m", "larger", lambda w: 1.0 if w[0] == 1 else math.nan, 10, draws=200
    )
    assert measure.interval().lower is None


# -- the area under the curve ------------------------------------------------------------------


def slow_delong(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The area and its variance, pair by pair as the paper writes it."""
    ours, others = scores[positive], scores[~positive]
    psi = (ours[:, None] > others[None, :]) + 0.5 * (ours[:, None] == others[None, :])
    area = float(psi.mean())
    by_ours = psi.mean(axis=1) - area
    by_others = psi.mean(axis=0) - area
    variance = (by_ours @ by_ours) / (len(ours) * (len(ours) - 1))
    variance += (by_others @ by_others) / (len(others) * (len(others) - 1))
    return area, float(variance)


@pytest.mark.parametrize("ties", [False, True])
def test_area_and_variance_are_those_of_the_paper(ties: bool) -> None:
    dice = np.random.default_rng(3)
    positive = dice.random(300) < 0.3
    scores = dice.normal(size=300) + positive
    scores = scores.round(0) if ties else scores
    area, influence = auc_of_rows(scores, positive)
    wanted, variance = slow_delong(scores, positive)
    assert area == pytest.approx(wanted, abs=1e-12)
    assert float(influence @ influence) == pytest.approx(variance, rel=1e-9)


def test_areas_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    dice = np.random.default_rng(4)
    labels = dice.integers(0, 4, 500)
    logits = dice.normal(size=(500, 4)) + 2 * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wanted = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    for output in (logits, probabilities):
        assert measure_auc(output, labels).value == pytest.approx(wanted, abs=1e-12)
    binary = labels > 1
    score = logits[:, 3]
    wanted = roc_auc_score(binary, score)
    for output in (score, score[:, None], np.stack([-score, score], axis=1)):
        measure = measure_auc(output, binary.astype(np.uint8))
        assert measure.value == pytest.approx(wanted, abs=1e-12)


def test_interval_of_the_area_holds_the_truth_as_often_as_it_says() -> None:
    dice = np.random.default_rng(6)
    truth = 0.5 * math.erfc(-1.0 / 2.0)  # two normal scores one deviation apart
    held, narrow, tries = 0, 0, 600
    for _ in range(tries):
        labels = (dice.random(200) < 0.4).astype(int)
        noise = dice.normal(size=200)
        measure = measure_auc(noise + labels, labels)
        interval = measure.interval()
        assert interval.lower is not None
        assert interval.upper is not None
        held += interval.lower <= truth <= interval.upper
        other = measure_auc(noise + labels + 0.05 * dice.normal(size=200), labels)
        delta = measure.minus(other).interval
        assert delta.lower is not None
        assert delta.upper is not None
        narrow += (delta.upper - delta.lower) < 0.3 * (interval.upper - interval.lower)
    assert 0.92 <= held / tries <= 0.985
    assert narrow == tries


def test_perfect_area_has_no_interval_to_state() -> None:
    labels = np.array([0, 0, 1, 1])
    interval = measure_auc(np.array([0.1, 0.2, 0.8, 0.9]), labels).interval()
    assert (interval.lower, interval.upper) == (None, None)
    assert "no variance seen" in interval.method


def test_two_perfect_areas_differ_by_nothing_that_has_an_interval() -> None:
    labels = np.array([0, 0, 1, 1] * 10)
    ours, theirs = (measure_auc(labels * scale, labels) for scale in (1.0, 2.0))
    delta = ours.minus(theirs)
    assert (delta.value, delta.interval.lower, delta.interval.upper) == (0.0, None, None)
    assert delta.interval.method == "DeLong, paired: no variance seen"
    assert delta.p_value is None


@pytest.mark.parametrize(("ones", "held"), [(1, False), (2, True)])
def test_one_row_of_a_class_supports_no_interval_of_the_area(*, ones: int, held: bool) -> None:
    dice = np.random.default_rng(10)
    labels = (np.arange(1000) < ones).astype(int)
    scores = dice.normal(size=1000) + 2 * labels
    binary = measure_auc(scores, labels)
    classes = np.where(labels == 1, 2, np.arange(1000) % 2)
    several = measure_auc(dice.normal(size=(1000, 3)) + np.eye(3)[classes], classes)
    for measure in (binary, several):
        other = measure_auc(scores + dice.normal(size=1000), labels)
        ends = [
            measure.interval().lower,
            measure.interval().upper,
            other.minus(measure).p_value,
        ]
        assert [end is not None for end in ends] == [held] * 3
        assert ("a class has one row" in measure.interval().method) is not held


@pytest.mark.parametrize(
    ("output", "labels", "text"),
    [
        (np.zeros(4), np.zeros(4, int), "all 4 labels are 0"),
        (np.zeros((4, 3)), np.ones(4, int), "all 4 labels are 1"),
        (
            np.zeros((4, 3)),
            np.array([0, 1, 2, 3]),
            "labels go from 0 to 3 and the output has 3",
        ),
        (np.zeros(4), np.array([-1, 0, 1, 1]), "labels go from -1 to 1"),
    ],
)
def test_labels_without_an_area_are_refused(
    output: np.ndarray, labels: np.ndarray, text: str
) -> None:
    with pytest.raises(DataError, match=text):
        measure_auc(output, labels)


def test_classes_that_do_not_occur_are_named() -> None:
    dice = np.random.default_rng(8)
    labels = dice.integers(0, 2, 50)
    measure = measure_auc(dice.normal(size=(50, 5)), labels)
    assert measure.note == "of softmax of the output; over the 2 classes that occur"
