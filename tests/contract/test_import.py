"""A framework's model through the command line: imported, deployed, reported, refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.contract.typed import Typed
from tests.unit.importers.conftest import take_told_sources

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    take_told_sources(monkeypatch)
    monkeypatch.setenv("EDGESDK_IMPORTS_DIR", str(tmp_path / "imports"))
    monkeypatch.setenv("EDGESDK_TOOLCHAINS_DIR", str(tmp_path / "toolchains"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "line.told"
    path.write_text("fine")
    return path


def test_import_writes_the_file_and_says_how_well_it_agrees(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    said = typed.ok("import", source, "-o", tmp_path / "new" / "out.onnx", "--trust")
    assert said["schema"] == "edgesdk.import/1"
    assert said["files"] == [str(tmp_path / "new" / "out.onnx")]
    assert said["origin"]["format"] == "skops"
    assert said["origin"]["examples"] == 2
    assert said["origin"]["max_rel_error"] == 0
    text = typed.text("import", source, "-o", tmp_path / "new" / "out.onnx", "--trust")
    assert "from       skops (told 1.0)" in text
    assert "proof      2 examples, largest difference 0, 0 of the largest value" in text
    assert "trusted    its code was let run" in text
    inspected = typed.ok("inspect", tmp_path / "new" / "out.onnx")
    assert inspected["model"]["op_counts"] == {"Add": 1, "Mul": 1}


def test_deploy_imports_first_and_the_report_says_from_what(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    device = f"local:?state={tmp_path / 'state'}"
    done = typed.ok(
        "deploy", source, "-d", device, "--trust", "--runs", "5", "--warmup", "1",
        "-o", tmp_path / "run",
    )  # fmt: skip
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["model"]["name"] == "line"
    assert report["model"]["origin"]["versions"] == {"told": "1.0"}
    assert report["model"]["origin"]["max_rel_error"] == 0
    manifest = json.loads((tmp_path / "run" / "bundle" / "manifest.json").read_text())
    assert manifest["model"]["origin"]["toolchain"] == "told 000000000000"
    shown = typed.text("report", tmp_path / "run", "--all")
    assert "imported" in shown
    assert "skops (told 1.0); within 0 of the largest value on 2 examples" in shown
    page = (tmp_path / "run" / "report.html").read_text()
    assert "imported from" in page
    again = typed.ok("deploy", source, "-d", device, "--trust", "--no-bench")
    assert again["bundle"]["id"] == done["bundle"]["id"]
    assert "imported from" in page
    text = typed.text("deploy", source, "-d", device, "--trust", "--no-bench")
    assert "imported  from skops (told 1.0); within 0 of the largest value" in text


def test_evaluate_takes_the_source_that_was_deployed(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    device = f"local:?state={tmp_path / 'state'}"
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, labels=2 * x + 1)
    typed.ok("deploy", source, "-d", device, "--trust", "--no-bench", "-o", tmp_path / "run")
    given: list[str | Path] = [
        "evaluate", device, "--data", "data.npz", "--bundle", tmp_path / "run" / "bundle",
        "--model", source,
    ]  # fmt: skip
    # another opset makes another ONNX file of the same source
    said = typed.ok(*given, "--trust", "--opset", "18", "-o", tmp_path / "judged")
    (reference, _) = said["evaluation"]["reference"]
    assert (reference["metric"], reference["rows"]) == ("mean-abs-error", 12)
    assert reference["value"] < 1e-6
    source.write_text("fine too")
    error = typed.refused(*given, "--trust", "-o", tmp_path / "other", code=2)
    assert "the release was built from another model" in error["problem"]
    error = typed.refused(
        "evaluate", device, "--data", "data.npz", "--trust", "-o", tmp_path / "none", code=2
    )
    assert "cannot use --trust without --model" in error["problem"]


def test_build_plan_and_inspect_take_it_too(typed: Typed, source: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", x=np.random.default_rng(0).normal(size=(8, 3)))
    assert typed.ok("plan", source, "--trust", "--precision", "fp32")["model"] == "line"
    assert typed.ok("inspect", source, "--trust")["model"]["format"] == "onnx"
    built = typed.ok("build", source, "--trust", "-o", tmp_path / "built")
    assert built["bundle"]["name"] == "line"


@pytest.mark.parametrize(
    "option", [["--opset", "15"], ["--dynamic", "x"], ["--trust"]], ids=lambda words: words[0]
)
def test_options_of_an_import_are_refused_for_a_file_that_needs_none(
    typed: Typed, source: Path, tmp_path: Path, option: list[str]
) -> None:
    typed.ok("import", source, "-o", tmp_path / "out.onnx", "--trust")
    error = typed.refused("inspect", tmp_path / "out.onnx", *option, code=2)
    assert f"cannot use {option[0]}" in error["problem"]
    assert "no model that an importer takes" in error["problem"]


def test_import_of_what_needs_none_is_refused(
    typed: Typed, source: Path, tmp_path: Path
) -> None:
    typed.ok("import", source, "-o", tmp_path / "out.onnx", "--trust")
    error = typed.refused("import", tmp_path / "out.onnx", "-o", tmp_path / "2.onnx", code=2)
    assert "no importer takes it" in error["problem"]


def test_wrong_numbers_end_the_deployment(typed: Typed, source: Path, tmp_path: Path) -> None:
    source.write_text("wrong")
    device = f"local:?state={tmp_path / 'state'}"
    error = typed.refused("deploy", source, "-d", device, "--trust", code=3)
    assert "the first layer that differs is 'scale'" in error["problem"]


def test_toolchains_are_listed_and_removed(typed: Typed, source: Path) -> None:
    said = typed.ok("toolchains", "list")
    names = {each["name"] for each in said["toolchains"]}
    assert {"torch", "tensorflow", "sklearn"} <= names
    assert all(each["made"] is None for each in said["toolchains"])
    assert "not made" in typed.text("toolchains", "list")
    assert typed.ok("toolchains", "remove", "torch")["removed"] == []
    error = typed.refused("toolchains", "remove", "torhc", code=2)
    assert "cannot find toolchain 'torhc'" in error["problem"]
    error = typed.refused("toolchains", "make", "torch", "--wheels", "/nowhere", code=2)
    assert "it is no folder" in error["problem"]
