"""Blobs compiled there are used where their seal speaks for them; none hinders a load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cache(agent_modules: Callable[[str], Any]) -> Any:
    return agent_modules("edge_agent.blobcache")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.fixture
def folder(cache: Any, tmp_path: Path) -> Path:
    """A sealed folder with a blob in it and another one below."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "a.blob").write_bytes(b"whole")
    (tmp_path / "kernels" / "b.cl").write_bytes(b"whole")
    cache.seal(str(tmp_path))
    return tmp_path


def test_what_was_sealed_is_kept_and_counts_as_damaged_until_it_is_sealed_again(
    cache: Any, folder: Path
) -> None:
    assert cache.open_folder(str(folder)) is False
    assert names(folder) == ["a.blob", "b.cl", "kernels"]
    assert cache.open_folder(str(folder)) is True
    assert names(folder) == []
    assert cache.open_folder(str(folder)) is False


@pytest.mark.parametrize("name", ["a.blob", "kernels/b.cl"])
def test_a_file_that_changed_is_removed_wherever_it_lies(
    cache: Any, folder: Path, name: str
) -> None:
    (folder / name).write_bytes(b"other")
    assert cache.open_folder(str(folder)) is True
    assert names(folder) == []


@pytest.mark.parametrize("name", ["c.blob", "kernels/c.cl"])
def test_a_file_that_came_later_is_removed(cache: Any, folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    assert cache.open_folder(str(folder)) is True
    assert names(folder) == []


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_what_is_no_plain_file_is_never_sealed_nor_followed(
    cache: Any, folder: Path, tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    assert cache.open_folder(str(folder)) is False
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "file").write_bytes(b"mine")
    odd = folder / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to(elsewhere / "file" if kind == "file" else elsewhere)
    cache.seal(str(folder))
    assert cache.open_folder(str(folder)) is True
    assert names(folder) == []
    assert (elsewhere / "file").read_bytes() == b"mine"


def test_a_file_that_cannot_be_read_is_damage_and_no_error(
    cache: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: list[str]) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cache, "file_sha256", broken)
    assert cache.open_folder(str(folder)) is True
    assert names(folder) == []


def test_a_folder_in_the_seal_s_place_is_removed(cache: Any, tmp_path: Path) -> None:
    (tmp_path / "seal.json" / "deep").mkdir(parents=True)
    assert cache.open_folder(str(tmp_path)) is False
    cache.seal(str(tmp_path))
    assert (tmp_path / "seal.json").is_file()


def test_a_seal_that_cannot_be_written_is_no_error(
    cache: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.open_folder(str(folder)) is False

    def full(*_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.seal(str(folder))
    assert cache.open_folder(str(folder)) is True
