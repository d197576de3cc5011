"""Examples of inputs: always the same, unlike each other, of the shape that was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.importers.frameworks.torch_inputs import (
    InputSpec,
    asked_shapes,
    check_names,
    example_arrays,
)
from edgesdk.importers.job import CannotExport, Job

IMAGE = InputSpec(name="image", shape=(None, 3, 4))
WORDS = InputSpec(name="words", shape=(2, 5), dtype="int64", high=7)


def job(**more: Any) -> Job:
    return Job(source=Path("m.pt"), kind="torchscript", name="m", out=Path("."), **more)


def test_examples_are_the_same_every_time_and_unlike_each_other() -> None:
    one, two = example_arrays((IMAGE, WORDS)), example_arrays((IMAGE, WORDS))
    for left, right in zip(one, two, strict=True):
        for ours, theirs in zip(left, right, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert [each[0].shape[0] for each in one] == [3, 1, 2]
    assert len({each[1].tobytes() for each in one}) == 3


def test_examples_have_the_type_and_range_of_the_input() -> None:
    flags = InputSpec(name="flags", shape=(4,), dtype="bool")
    half = InputSpec(name="half", shape=(4,), dtype="bfloat16")
    for image, words, flag, low in example_arrays((IMAGE, WORDS, flags, half)):
        assert (image.dtype, words.dtype, flag.dtype) == (np.float32, np.int64, np.bool_)
        assert low.dtype == np.float32  # NumPy has no bfloat16
        assert words.min() >= 0
        assert words.max() < 7


def test_a_source_that_relates_its_extents_says_the_shape() -> None:
    spec = InputSpec(name="x", shape=(None, None), sized=lambda batch: (batch, 2 * batch))
    assert [each[0].shape for each in example_arrays((spec,))] == [(3, 6), (1, 2), (2, 4)]


def test_the_only_input_needs_no_name() -> None:
    assert asked_shapes(job(shapes={"": (1, 3)}), ["x"]) == {"x": (1, 3)}
    assert asked_shapes(job(shapes={"": (1, 3)}, dynamic=("",)), ["x"]) == {"x": (None, 3)}
    assert asked_shapes(job(shapes={"y": (1, 3)}, dynamic=("y",)), ["x", "y"]) == {
        "y": (None, 3)
    }


@pytest.mark.parametrize(
    ("choices", "names", "seen"),
    [
        ({"shapes": {"": (1,)}}, ["x", "y"], "--input-shape for 'an input without a name'"),
        ({"shapes": {"z": (1,)}}, ["x", "y"], "m has 'x', 'y'"),
        ({"dynamic": ("z",)}, ["x"], "--dynamic for 'z'"),
        ({"dynamic": ("z",)}, [], "m has no inputs"),
    ],
)
def test_an_unknown_input_is_refused(
    choices: dict[str, Any], names: list[str], seen: str
) -> None:
    with pytest.raises(CannotExport, match=seen):
        check_names(job(**choices), names)
