"""Metrics: textbook values, edges, and which one goes with which shape."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgesdk.data.metrics import (
    compare,
    cosine,
    max_abs_error,
    score_outputs,
    sqnr_db,
    wilson_interval,
)
from edgesdk.errors import DataError

LOGITS = np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0], [9.0, 8.0, 7.0]])


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(489, 500, 0.9610, 0.9877), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(hits, count, low, high):
    assert wilson_interval(hits, count) == pytest.approx((low, high), abs=2e-4)


def test_cosine_of_edges():
    zeros, ones = np.zeros(3), np.ones(3)
    assert cosine(ones, ones) == pytest.approx(1.0)
    assert cosine(ones, -ones) == pytest.approx(-1.0)
    assert cosine(zeros, zeros) == 1.0
    assert cosine(zeros, ones) == 0.0
    assert cosine(ones * 1e300, ones * 1e-300) == pytest.approx(1.0)
    assert math.isnan(cosine(ones, np.array([1, np.nan, 1])))
    assert cosine(np.zeros((0,)), np.zeros((0,))) == 1.0


def test_largest_error_sees_infinities_and_nan():
    infinite = np.array([1.0, np.inf])
    assert max_abs_error(infinite, infinite) == 0.0
    assert max_abs_error(infinite, np.array([1.0, 2.0])) == math.inf
    assert math.isnan(max_abs_error(infinite, np.array([np.nan, np.inf])))
    assert max_abs_error(np.array([200], np.uint8), np.array([250], np.uint8)) == 50.0


def test_signal_to_noise_is_in_decibels_of_power():
    signal = np.array([3.0, 4.0])
    assert sqnr_db(signal, np.array([3.3, 4.4])) == pytest.approx(20.0)
    assert sqnr_db(signal, signal) == math.inf
    assert sqnr_db(np.zeros(2), signal) == -math.inf


def test_a_comparison_is_json_even_where_it_is_exact():
    assert compare(LOGITS, LOGITS).to_json() == {
        "cosine": pytest.approx(1.0),
        "max_abs_error": 0.0,
        "sqnr_db": None,
        "elements": 12,
    }


def test_different_shapes_are_not_compared():
    with pytest.raises(DataError, match=r"one is \[4, 3\] and the other \[3, 4\]"):
        compare(LOGITS, LOGITS.T)


def test_class_labels_are_scored_by_top_1_with_an_interval():
    name, score = score_outputs({"logits": LOGITS}, np.array([0, 1, 2, 1]))
    assert (name, score.metric, score.value, score.count) == ("logits", "top-1", 0.75, 4)
    assert (score.low, score.high) == wilson_interval(3, 4)


def test_a_map_of_labels_is_scored_place_by_place():
    output = np.zeros((2, 3, 4, 4))
    output[:, 1] = 1
    labels = np.ones((2, 4, 4), np.uint8)
    labels[0, 0, :2] = 0
    _, score = score_outputs({"map": output}, labels)
    assert (score.metric, score.value, score.low) == ("pixel-top-1", 30 / 32, None)


def test_yes_and_no_are_told_by_probability_or_by_logit():
    labels = np.array([0, 1, 1])
    _, score = score_outputs({"p": np.array([[0.1], [0.6], [0.4]])}, labels)
    assert (score.metric, score.value) == ("binary", pytest.approx(2 / 3))
    _, score = score_outputs({"z": np.array([-2.0, 0.2, 3.0])}, labels)
    assert score.value == 1.0


def test_numbers_are_scored_by_their_mean_error():
    _, score = score_outputs({"y": np.array([[1.0], [2.0]])}, np.array([1.5, 2.5]))
    assert (score.metric, score.value, score.low) == ("mean-abs-error", 0.5, None)


def test_the_first_output_that_fits_is_scored():
    outputs = {"features": np.zeros((4, 2, 7)), "logits": LOGITS}
    assert score_outputs(outputs, np.zeros(4, int))[0] == "logits"


def test_labels_that_are_no_classes_are_refused_with_the_range():
    with pytest.raises(
        DataError, match="labels go from 1 to 3 and the output has 3 classes"
    ) as e:
        score_outputs({"logits": LOGITS}, np.array([1, 2, 3, 1]))
    assert e.value.hint == "labels count from 0"
    with pytest.raises(DataError, match="labels go from -1 to 2"):
        score_outputs({"logits": LOGITS}, np.array([-1, 2, 0, 0]))


def test_labels_that_go_with_no_output_are_refused_with_the_shapes():
    with pytest.raises(DataError, match=r"labels are int64\[5\] and the outputs are 'logits' "):
        score_outputs({"logits": LOGITS}, np.zeros(5, np.int64))


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_classes_that_a_model_gives_itself_are_compared_with_the_labels(shape):
    given = np.array([2, 0, 1, 1]).reshape(shape)
    name, score = score_outputs({"label": given}, np.array([2, 0, 1, 2]))
    assert (name, score.metric, score.value) == ("label", "top-1", 0.75)
