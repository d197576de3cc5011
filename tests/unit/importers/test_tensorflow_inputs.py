"""Shapes are made definite or asked for; examples fit what a model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.importers.frameworks.tensorflow_inputs import (
    Taken,
    example_inputs,
    fix_shapes,
    given_examples,
)
from edgesdk.importers.job import CannotExport, Job

IMAGE = Taken(name="image", shape=(None, 32, 32, 3), dtype="float32")
IDS = Taken(name="ids", shape=(None, None), dtype="int32")
MASK = Taken(name="attention_mask", shape=(None, None), dtype="int32")


def job(**choices: Any) -> Job:
    return Job(source=None, kind="keras", name="net", out=Path(), **choices)


def shapes(*inputs: Taken, **choices: Any) -> list[tuple[int | None, ...] | None]:
    return [one.shape for one in fix_shapes(job(**choices), inputs)]


def refusal(*inputs: Taken, **choices: Any) -> CannotExport:
    with pytest.raises(CannotExport) as caught:
        fix_shapes(job(**choices), inputs)
    assert "net" in str(caught.value)
    return caught.value


def test_a_free_batch_becomes_one() -> None:
    assert shapes(IMAGE) == [(1, 32, 32, 3)]


def test_a_batch_asked_to_stay_free_does() -> None:
    assert shapes(IMAGE, dynamic=("image",)) == [(None, 32, 32, 3)]
    assert shapes(IMAGE, dynamic=("",)) == [(None, 32, 32, 3)]


def test_extents_are_taken_from_the_option_by_name_or_for_the_only_input() -> None:
    assert shapes(IDS, shapes={"": (1, 128)}) == [(1, 128)]
    assert shapes(IDS, MASK, shapes={"ids": (1, 8), "attention_mask": (1, 8)}) == [(1, 8)] * 2
    assert shapes(IDS, shapes={"ids": (1, None)}) == [(1, None)]
    assert shapes(IDS, shapes={"ids": (4, 16)}, dynamic=("ids",)) == [(None, 16)]


def test_what_the_model_fixes_stays_fixed() -> None:
    assert shapes(IMAGE, shapes={"image": (2, None, None, 3)}) == [(2, 32, 32, 3)]


def test_examples_tell_the_shape() -> None:
    assert shapes(IDS, examples=(np.zeros((2, 9), np.int32),)) == [(2, 9)]


def test_every_missing_extent_is_asked_for_at_once() -> None:
    said = refusal(IDS, MASK)
    assert "ids (?, ?), attention_mask (?, ?)" in str(said)
    assert "--shape ids=1,128 --shape attention_mask=1,128" in said.hint


@pytest.mark.parametrize(
    ("choices", "problem", "hint"),
    [
        (
            {"shapes": {"img": (1, 2)}},
            "cannot find the input 'img'",
            "takes one of these names",
        ),
        ({"dynamic": ("img",)}, "cannot find the input 'img'", "takes one of these names"),
        ({"shapes": {"": (1, 32, 32)}}, "the shape (1, 32, 32)", "--shape image=1,32,32,3"),
        ({"shapes": {"": (1, 32, 32, 4)}}, "it takes (?, 32, 32, 3)", "image=1,32,32,3"),
        ({"shapes": {"": (0, 32, 32, 3)}}, "the shape (0, 32, 32, 3)", "image=1,32,32,3"),
        ({"examples": (1, 2)}, "cannot fit 2 example inputs", "one array per input"),
    ],
)
def test_what_does_not_fit_is_told(choices: dict[str, Any], problem: str, hint: str) -> None:
    said = refusal(IMAGE, **choices)
    assert problem in str(said)
    assert hint in said.hint


def test_a_fixed_batch_cannot_be_kept_free() -> None:
    fixed = Taken(name="x", shape=(4, 3), dtype="float32")
    assert "cannot keep the batch of x free" in str(refusal(fixed, dynamic=("x",)))


@pytest.mark.parametrize("dtype", ["string", "resource", "variant", "bfloat16"])
def test_an_input_that_is_no_numbers_of_ours_is_refused(dtype: str) -> None:
    odd = Taken(name="words", shape=(None,), dtype=dtype)
    assert f"its input words takes a {dtype}" in str(refusal(odd)).replace(
        "takes bfl", "takes a bfl"
    )


def test_examples_differ_and_come_back_the_same() -> None:
    taken = fix_shapes(job(), [IMAGE])
    sets, again = example_inputs(taken, None), example_inputs(taken, None)
    assert len(sets) == 3
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(sets, again, strict=True))
    assert not np.array_equal(sets[0]["image"], sets[1]["image"])
    assert sets[0]["image"].dtype == np.float32
    assert sets[0]["image"].shape == (1, 32, 32, 3)


def test_a_free_batch_is_tried_with_another_one() -> None:
    taken = fix_shapes(job(dynamic=("image",)), [IMAGE])
    assert {one["image"].shape[0] for one in example_inputs(taken, None)} == {1, 2, 3}


def test_ids_stay_below_the_table_and_masks_are_zero_or_one() -> None:
    taken = fix_shapes(job(shapes={"ids": (1, 64), "attention_mask": (1, 64)}), [IDS, MASK])
    for one in example_inputs(taken, 7):
        assert one["ids"].min() >= 0
        assert 2 <= one["ids"].max() < 7
        assert set(np.unique(one["attention_mask"])) == {0, 1}
    for one in example_inputs(taken, None):
        assert set(np.unique(one["ids"])) == {0, 1}


def test_a_users_examples_come_first_and_their_numbers_stay() -> None:
    own = np.array([[3, 1, 4, 1, 5]], np.int64)
    taken = fix_shapes(job(examples=(own,)), [IDS])
    sets = given_examples(job(examples=(own,)), taken)
    assert np.array_equal(sets[0]["ids"], own)
    assert sets[0]["ids"].dtype == np.int32
    for other in sets[1:]:
        assert sorted(other["ids"].ravel()) == [1, 1, 3, 4, 5]
