"""Where shipped files are found, in a checkout and in an installation."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk._resources import resource_dir
from edgesdk.errors import EdgeError


def test_a_checkout_finds_its_own_files() -> None:
    assert (resource_dir("targets") / "host.yaml").is_file()
    assert resource_dir("device_agents").is_dir()


def test_an_installation_finds_the_files_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "edgesdk"
    (package / "_data" / "targets").mkdir(parents=True)
    (tmp_path / "site-packages" / "targets").mkdir()
    assert resource_dir("targets", package=package) == package / "_data" / "targets"


def test_a_folder_of_that_name_beside_an_installation_is_not_ours(tmp_path: Path) -> None:
    package = tmp_path / "edgesdk"
    package.mkdir()
    (tmp_path / "targets").mkdir()
    with pytest.raises(EdgeError, match="cannot find the targets files of edgesdk") as caught:
        resource_dir("targets", package=package)
    assert caught.value.hint == "the installation is incomplete; install edgesdk again"


def test_a_checkout_is_known_by_its_project_file(tmp_path: Path) -> None:
    package = tmp_path / "edgesdk"
    package.mkdir()
    (tmp_path / "targets").mkdir()
    (tmp_path / "pyproject.toml").touch()
    assert resource_dir("targets", package=package) == tmp_path / "targets"
