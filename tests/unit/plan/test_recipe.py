"""Recipes: what may stand in the file, what wins, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgesdk.errors import RecipeError
from edgesdk.plan import Recipe, load_recipe, recipe_schema
from edgesdk.plan.recipe import Precision, parse_share
from edgesdk.plan.recipe_file import Means
from edgesdk.quantize.means import ALL_MEANS, MEANS


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_without_a_file_everything_has_a_default() -> None:
    assert load_recipe() == Recipe()


def test_options_that_were_given_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "precision: int8\nthreads: 2\nprefer: [openvino-cpu]\n")
    recipe = load_recipe(path, precision="fp32", threads=None)
    assert (recipe.precision, recipe.threads, recipe.prefer) == ("fp32", 2, ("openvino-cpu",))


def test_int8_is_the_precision_where_there_is_data_to_calibrate() -> None:
    assert Recipe().resolve(calibrated=True).precision == "int8"
    assert Recipe().resolve(calibrated=False).precision == "fp32"
    assert Recipe(precision="fp32").resolve(calibrated=True).precision == "fp32"
    with pytest.raises(RecipeError, match="there is no calibration data") as caught:
        Recipe(precision="int8").resolve(calibrated=False)
    assert "--calib" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "share"),
    [("1%", 0.01), ("0.01", 0.01), (" 2.5 % ", 0.025), (0, 0.0), ("100%", 1)],
)
def test_a_drop_is_a_share_or_per_cent(given: str | float, share: float) -> None:
    assert parse_share(given) == pytest.approx(share)
    assert load_recipe(max_drop=given).max_drop == pytest.approx(share)


@pytest.mark.parametrize("precision", ["fp16", "int8-dynamic", "int4-weights", "auto"])
def test_some_precisions_need_no_calibration_data(precision: Precision) -> None:
    assert Recipe(precision=precision).resolve(calibrated=False).precision == precision


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_others_do(precision: Precision) -> None:
    with pytest.raises(RecipeError, match=f"to {precision}: there is no calibration data"):
        Recipe(precision=precision).resolve(calibrated=False)


def test_pruning_needs_calibration_data() -> None:
    recipe = load_recipe(prune="2:4", precision="fp32")
    assert recipe.to_json()["prune"] == "2:4"
    with pytest.raises(
        RecipeError, match="prune by 2:4: there is no calibration data"
    ) as caught:
        recipe.resolve(calibrated=False)
    assert "--calib" in caught.value.hint


def test_means_that_a_file_may_name_are_those_there_are(tmp_path: Path) -> None:
    names = ", ".join(MEANS)
    assert load_recipe(write(tmp_path, f"means: [{names}]")).means == MEANS
    assert load_recipe(write(tmp_path, "means: []")).means == ()


def test_a_file_may_name_every_means() -> None:
    assert get_args(Means) == ALL_MEANS


def test_the_digest_follows_the_content() -> None:
    assert Recipe().sha256 == Recipe().sha256
    assert Recipe().sha256 != Recipe(checks=5).sha256


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("precison: int8", "there is no option 'precison'", "did you mean precision"),
        ("zzz: 1", "there is no option 'zzz'", "options are precision"),
        ("precision: int9", "precision: input should be", ""),
        ("checks: 0", "checks: input should be greater", ""),
        ("max_drop: lots", "cannot allow a drop of 'lots': it is no share", "write 1% or 0.01"),
        ("max_drop: 101%", "cannot allow a drop of '101%'", "write 1% or 0.01"),
        ("max_drop: -0.1", "cannot allow a drop of '-0.1'", "write 1% or 0.01"),
        ("max_drop: .nan", "cannot allow a drop of '.nan'", "write 1% or 0.01"),
        ("max_drop: [1]", "max_drop", ""),
        ("means: [luck]", "means", ""),
        ("means: range-mse", "means", ""),
        ("prune: '3:4'", "cannot prune by '3:4': there is no such pattern", "2:4"),
        ("prune: channels", "it does not say how much", "channels:0.5"),
        ("prune: unstructured:1.5", "its share is '1.5'", "unstructured:0.5"),
        ("requantize: perhaps", "requantize", ""),
        ("- a list", "it holds a list", "configs/recipes"),
        ("a: [1", "cannot read recipe", ""),
        ("!!python/object/apply:os.system [id]", "has the tag", ""),
        ("\x00", "cannot read recipe", ""),
        ("[" * 5000, "cannot read recipe", ""),
        ("preprocess: {resize: [8, 8], colour: rgb}", "colour", ""),
    ],
)
def test_a_mistake_is_named_with_its_place(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    with pytest.raises(Exception, match=message) as caught:
        load_recipe(write(tmp_path, text))
    assert getattr(caught.value, "exit_code", None) == 2
    assert hint in getattr(caught.value, "hint", "")


def test_an_absent_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        load_recipe(tmp_path / "absent.yaml")
    huge = tmp_path / "huge.yaml"
    huge.write_bytes(b"#" * (1 << 20) + b"\n\n")
    with pytest.raises(RecipeError, match="larger than"):
        load_recipe(huge)


def test_an_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "# nothing yet\n")) == Recipe()


def test_the_schema_lists_every_option() -> None:
    schema = recipe_schema()
    # who goes first in a contest is for the contest to say
    options = set(Recipe.__dataclass_fields__) - {"contestant"}
    assert set(schema["properties"]) == options
    assert schema["additionalProperties"] is False


def test_limits_of_the_worker_are_read(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("limits: {memory_bytes: 536870912, niceness: 5, run_s: 2}\n")
    limits = load_recipe(file).limits
    assert limits is not None
    assert limits.to_json() == {"memory_bytes": 1 << 29, "niceness": 5, "run_s": 2.0}
    assert "limits" not in load_recipe().to_json()


@pytest.mark.parametrize(
    "text", ["{memory_bytes: 1}", "{niceness: 20}", "{run_s: 0}", "{network: true}", "[]"]
)
def test_limits_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(f"limits: {text}\n")
    with pytest.raises(RecipeError, match="limits"):
        load_recipe(file)
