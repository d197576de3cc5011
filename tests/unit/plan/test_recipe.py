"""Recipes: what may stand in the file, what wins, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.errors import RecipeError
from edgesdk.plan import Recipe, load_recipe, recipe_schema


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
    assert set(schema["properties"]) == set(Recipe.__dataclass_fields__)
    assert schema["additionalProperties"] is False
