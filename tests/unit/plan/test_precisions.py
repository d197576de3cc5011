"""Which precisions compete for a model, in which order, and within which loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgesdk.errors import RecipeError
from edgesdk.plan import Contender, Recipe
from edgesdk.plan.precisions import NOISE_LIMIT, ONE_POINT, plan_precisions
from edgesdk.profiles import TargetProfile, find_target
from tests.unit.plan.test_contest import opened

WANTED = Recipe(precision="auto")


@pytest.fixture
def profile() -> TargetProfile:
    """This computer's profile with a contest between onnxruntime and OpenVINO."""
    return replace(find_target("host"), contest=("ort-cpu", "openvino-cpu"))


def planned(
    folder: Path, profile: TargetProfile, recipe: Recipe = WANTED, **options: bool
) -> tuple[Contender, ...]:
    options = {"calibrated": True, "labelled": False, "backends": False, **options}
    return plan_precisions(opened(folder), profile, recipe, **options)


def test_the_most_exact_comes_first(tmp_path: Path, profile: TargetProfile) -> None:
    found = planned(tmp_path, profile)
    assert [(each.backend, each.precision) for each in found] == [
        ("ort-cpu", "fp32"),
        ("ort-cpu", "fp16"),
        ("ort-cpu", "int8"),
    ]
    assert [each.recipe.precision for each in found] == ["fp32", "fp16", "int8"]
    assert [each.plan.precision for each in found if each.plan] == ["fp32", "fp16", "int8"]


def test_backends_compete_in_each_of_them(tmp_path: Path, profile: TargetProfile) -> None:
    found = planned(tmp_path, profile, backends=True)
    assert [(each.backend, each.precision) for each in found if each.plan] == [
        ("ort-cpu", "fp32"),
        ("openvino-cpu", "fp32"),
        ("ort-cpu", "fp16"),
        ("ort-cpu", "int8"),
        ("openvino-cpu", "int8"),
    ]
    out = [(each.backend, each.precision) for each in found if not each.plan]
    assert out == [("openvino-cpu", "fp16")]


def test_without_calibration_data_scales_are_taken_as_it_goes(
    tmp_path: Path, profile: TargetProfile
) -> None:
    found = planned(tmp_path, profile, calibrated=False)
    assert [each.precision for each in found] == ["fp32", "fp16", "int8-dynamic"]


def test_what_the_target_does_not_have_does_not_compete(tmp_path: Path) -> None:
    plain = find_target("host")
    first = replace(plain.backends[0], precisions=("fp32", "int8"))
    found = planned(tmp_path, replace(plain, backends=(first,), contest=()))
    assert [each.precision for each in found] == ["fp32", "int8"]


@pytest.mark.parametrize(
    ("recipe", "labelled", "limit"),
    [
        (WANTED, False, NOISE_LIMIT),
        (WANTED, True, ONE_POINT),
        (replace(WANTED, max_drop=0.03), True, 0.03),
    ],
)
def test_all_but_float_have_to_keep_a_limit(
    tmp_path: Path, profile: TargetProfile, recipe: Recipe, labelled: bool, limit: float
) -> None:
    found = planned(tmp_path, profile, recipe, labelled=labelled)
    assert [each.recipe.max_drop for each in found] == [None, limit, limit]


def test_a_mistake_in_the_recipe_is_raised(tmp_path: Path, profile: TargetProfile) -> None:
    with pytest.raises(RecipeError, match="no-such"):
        planned(tmp_path, profile, replace(WANTED, avoid=("no-such",)))
