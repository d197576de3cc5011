"""Range checks: what each finding needs to appear, and that sound data has none."""

from __future__ import annotations

import numpy as np
import pytest

from edgesdk.data import Preprocess, lint_range, lint_ranges, measure_ranges, open_dataset
from edgesdk.data.values import InputRange
from edgesdk.tensors import TensorInfo

IMAGE = TensorInfo(name="image", dtype="float32", shape=("N", 1, 8, 8))
RNG = np.random.default_rng(9)
GOOD = RNG.random((20, 1, 1, 8, 8), dtype=np.float32)


def codes(values: np.ndarray, **options: object) -> list[str]:
    ranges = measure_ranges({"image": each} for each in values.astype(np.float32))
    return [finding.code for finding in lint_ranges(ranges, [IMAGE], **options)]


def test_sound_data_has_no_finding():
    assert codes(GOOD) == []
    assert codes(RNG.normal(size=GOOD.shape)) == []


def test_ranges_are_measured_over_all_samples():
    seen = measure_ranges({"image": each} for each in GOOD)["image"]
    assert (seen.low, seen.high) == (GOOD.min(), GOOD.max())
    assert seen.mean == pytest.approx(GOOD.mean())
    assert (seen.whole, seen.infinite, seen.samples) == (False, 0, 20)


def test_pixels_nobody_scaled_are_recognised():
    pixels = np.rint(GOOD * 255)
    ranges = measure_ranges({"image": each} for each in pixels)
    (finding,) = lint_ranges(ranges, [IMAGE])
    assert finding.code == "raw-pixels"
    assert "whole numbers from 0 to 25" in finding.message
    assert finding.hint.startswith("divide by 255")


def test_raw_pixels_are_fine_where_the_preprocess_block_makes_them():
    assert codes(np.rint(GOOD * 255), preprocess=Preprocess(scale=1.0)) == []


def test_arrays_that_the_preprocess_block_could_not_have_made_are_said():
    ranges = measure_ranges({"image": each} for each in np.rint(GOOD * 255))
    (finding,) = lint_ranges(ranges, [IMAGE], preprocess=Preprocess(color="gray"))
    assert finding.code == "not-preprocessed"
    assert "and the preprocess block makes 0 to 1" in finding.message
    assert codes(GOOD, preprocess=Preprocess(color="gray")) == []


def test_values_scaled_twice_are_recognised():
    assert codes(GOOD / 255) == ["scaled-twice"]


def test_flat_inputs_are_not_taken_for_pictures():
    table = TensorInfo(name="image", dtype="float32", shape=("N", 13))
    ranges = measure_ranges({"image": np.full((1, 13), each)} for each in range(20, 60))
    assert lint_ranges(ranges, [table]) == ()


def test_token_ids_are_left_alone():
    ids = TensorInfo(name="ids", dtype="int64", shape=("N", 16))
    ranges = measure_ranges({"ids": np.zeros((1, 16), np.int64)} for _ in range(20))
    assert lint_ranges(ranges, [ids]) == ()


def test_values_that_never_change_are_said():
    assert codes(np.zeros_like(GOOD)) == ["constant-values"]


def test_infinite_values_are_said():
    values = GOOD.copy()
    values[3, 0, 0, 0, 0] = np.inf
    assert codes(values) == ["infinite-values"]


def test_few_samples_are_said_for_calibration_only():
    assert codes(GOOD[:5]) == ["few-samples"]
    assert codes(GOOD[:5], reference=measure_ranges({"image": each} for each in GOOD)) == []


@pytest.mark.parametrize("other", [GOOD * 255, GOOD / 100, GOOD + 2])
def test_another_range_than_at_calibration_is_said(other):
    before = measure_ranges({"image": each} for each in GOOD)
    assert codes(other, reference=before) == ["other-range"]


def test_a_darker_picture_is_not_another_range():
    before = measure_ranges({"image": each} for each in GOOD)
    assert codes(GOOD / 3, reference=before) == []


def test_a_dataset_is_looked_at_directly(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.rint(GOOD[:, 0] * 255).astype(np.float32))
    data = open_dataset(tmp_path / "a.npz", [IMAGE])
    assert [finding.code for finding in lint_range(data)] == ["raw-pixels"]
    assert lint_range(data)[0].to_json()["severity"] == "warning"


def test_rows_are_counted_where_the_model_takes_several_at_a_time(tmp_path):
    np.savez(tmp_path / "a.npz", image=GOOD[:, 0])
    fixed = TensorInfo(name="image", dtype="float32", shape=(10, 1, 8, 8))
    assert lint_range(open_dataset(tmp_path / "a.npz", [fixed])) == ()


def test_a_range_survives_being_written_and_read():
    seen = measure_ranges({"image": each} for each in GOOD)["image"]
    assert InputRange.from_json(seen.to_json()) == seen


@pytest.mark.parametrize("record", [None, [], {}, {"low": "0"}, {"low": True, "high": 1}])
def test_what_is_no_range_is_read_as_none(record: object):
    assert InputRange.from_json(record) is None
