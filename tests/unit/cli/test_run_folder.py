"""The folder of a run: what may be in it for another run to take its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgesdk.cli.runfolder import prepare_run_folder
from edgesdk.errors import OutputError
from edgesdk.testing import make_echo_bundle


@pytest.mark.parametrize("place", ["litert/int8/bundle", "ort-cpu/bundle", "litert/.new"])
def test_what_a_contest_left_is_ours(place: str, tmp_path: Path) -> None:
    made = make_echo_bundle(tmp_path / "made")
    shutil.copytree(made.folder, tmp_path / "run" / "contest" / place)
    prepare_run_folder(tmp_path / "run")


@pytest.mark.parametrize("place", ["contest/litert/int8/bundle", "contest/litert", "contest"])
def test_what_somebody_put_there_is_not(place: str, tmp_path: Path) -> None:
    (tmp_path / "run" / place).mkdir(parents=True)
    (tmp_path / "run" / place / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="it holds contest, which edgesdk did not write"):
        prepare_run_folder(tmp_path / "run")
