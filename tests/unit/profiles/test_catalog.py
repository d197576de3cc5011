"""Finding targets among the shipped ones and a user's own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from edgesdk._resources import resource_dir
from edgesdk.errors import ProfileError
from edgesdk.profiles import default_target, find_target, load_catalog
from edgesdk.profiles.values import Precision

Write = Callable[..., Path]


def test_the_catalog_is_in_the_order_of_names_and_cannot_be_changed() -> None:
    catalog = load_catalog()
    assert list(catalog) == sorted(catalog)
    assert all(name == profile.name for name, profile in catalog.items())
    with pytest.raises(TypeError):
        catalog["x"] = catalog["host"]  # type: ignore[index]


def test_a_new_target_is_one_yaml_file(good_text: str, write: Write, tmp_path: Path) -> None:
    write(good_text, "testboard.yaml")
    (tmp_path / "notes.txt").write_text("not a profile: [", encoding="utf-8")
    profile = find_target("testboard-one", extra_dir=tmp_path)
    assert profile.family == "testboard"
    assert profile.source == tmp_path / "testboard.yaml"
    assert set(load_catalog(tmp_path)) == {*load_catalog(), "testboard-one", "testboard-two"}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("rasberry-pi5", "raspberry-pi-5"),
        ("Raspberry-Pi-5", "raspberry-pi-5"),
        ("pi-4", "raspberry-pi-4"),
        ("orin-nano", "jetson-orin-nano"),
        ("coral-dev", "coral-dev-board"),
    ],
)
def test_an_unknown_target_gets_near_misses(asked: str, meant: str) -> None:
    with pytest.raises(ProfileError) as caught:
        find_target(asked)
    error = caught.value
    assert str(error).startswith(f"cannot find target {asked!r}: no profile has that name")
    assert meant in error.hint
    assert error.hint.endswith("see edgesdk targets list")
    assert meant in error.facts["known"]  # type: ignore[operator]
    assert error.exit_code == 2


def test_the_example_of_the_readme_is_a_target(write: Write, tmp_path: Path) -> None:
    readme = (resource_dir("targets") / "README.md").read_text(encoding="utf-8")
    write(readme.split("```yaml\n")[1].split("```")[0], "acme.yaml")
    profile = find_target("acme-board-2", extra_dir=tmp_path)
    assert profile.ram_bytes == 2 << 30
    assert profile.identify.device_tree_model == ("Acme Board 2*",)
    kinds = {entry.field: entry.kind for entry in profile.provenance}
    assert kinds["identify.machine"] == "assumed"
    assert kinds["identify.device_tree_model"] == "datasheet"


def test_the_readme_names_every_file_quirk_and_precision() -> None:
    folder = resource_dir("targets")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    quirks = {q for p in load_catalog().values() for b in p.backends for q in b.quirks}
    files = {path.name for path in folder.rglob("*.yaml")}
    precisions = set(get_args(Precision))
    for word in files | quirks | precisions:
        assert f"`{word}`" in readme


def test_an_unknown_target_without_near_misses_gets_the_list() -> None:
    with pytest.raises(ProfileError) as caught:
        find_target("q" * 5000)
    assert caught.value.hint.startswith("there are coral-dev-board, ")
    assert len(str(caught.value)) < 250


def test_a_users_profile_cannot_take_a_shipped_name(
    family: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    family["variants"][0]["name"] = "raspberry-pi-5"
    own = write(family)
    with pytest.raises(ProfileError) as caught:
        load_catalog(tmp_path)
    shipped = resource_dir("targets") / "raspberry-pi.yaml"
    assert str(caught.value) == (
        f"cannot use target profile {own}: "
        f"the name raspberry-pi-5 is already taken by {shipped}"
    )
    assert "my-raspberry-pi-5" in caught.value.hint


def test_one_broken_file_is_named_and_not_left_out(
    good_text: str, write: Write, tmp_path: Path
) -> None:
    write(good_text, "a.yaml")
    write("schema: 1\n", "b.yml")
    with pytest.raises(ProfileError, match=r"b\.yml: family is missing"):
        find_target("testboard-one", extra_dir=tmp_path)


def test_a_missing_folder_of_own_profiles_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="no such file or directory") as caught:
        load_catalog(tmp_path / "none")
    assert "setting" in caught.value.hint


def test_the_default_is_the_one_whose_file_says_so() -> None:
    assert default_target().default
    assert [p.name for p in load_catalog().values() if p.default] == [default_target().name]


def test_a_users_own_default_goes_first(
    family: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    family["variants"][1]["default"] = True
    write(family)
    assert default_target(extra_dir=tmp_path).name == "testboard-two"


def test_two_defaults_of_a_user_are_refused(
    family: dict[str, Any], write: Write, tmp_path: Path
) -> None:
    family["variants"][0]["default"] = True
    write(family, "one.yaml")
    for variant in family["variants"]:
        variant["name"] += "-b"
    write(family, "two.yaml")
    with pytest.raises(ProfileError, match=r"both one\.yaml and two\.yaml have the default"):
        default_target(extra_dir=tmp_path)


def test_the_same_file_elsewhere_is_the_same_target(tmp_path: Path) -> None:
    from edgesdk.profiles.family import load_family

    shipped = resource_dir("targets") / "coral.yaml"
    shutil.copy(shipped, tmp_path / "copy.yaml")
    copies = {profile.name: profile.digest for profile in load_family(tmp_path / "copy.yaml")}
    assert copies == {profile.name: profile.digest for profile in load_family(shipped)}


def test_importing_profiles_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgesdk.profiles; "
        "print(sorted({'yaml', 'pydantic', 'numpy', 'onnx'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "[]"
