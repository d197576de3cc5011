"""Estimators of scikit-learn, XGBoost and LightGBM, from their files to answers of a device."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.errors import ModelError, ToolchainError
from edgesdk.importers.importing import ImportChoices, Imported, import_model, open_imported
from edgesdk.importers.toolchain_spec import find_toolchain
from edgesdk.importers.toolchains import Toolchain, Toolchains
from edgesdk.settings import resolve_settings

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parent / "importers" / "sklearn_models.py"
ML = "ai.onnx.ml."
#: By model, which classical operators stay: trees, and probabilities that come out of a loop.
PLAIN = {
    "digits-mlp.skops": (),
    "digits-svm.skops": (),
    "digits-logistic.skops": (),
    "digits-forest.skops": ("TreeEnsembleClassifier",),
    "digits-boosting.skops": ("TreeEnsembleClassifier",),
    "digits-histogram.skops": ("TreeEnsembleClassifier",),
    "digits-neighbours.skops": (),
    "digits-pca.skops": (),
    "wine-columns.skops": (),
    "wine-bayes.skops": (),
    "cancer-svm.skops": ("SVMClassifier",),
    "cancer-linear.skops": (),
    "diabetes-svr.skops": (),
    "diabetes-forest.skops": ("TreeEnsembleRegressor",),
    "diabetes-ridge.skops": (),
    "wine-words.joblib": (),
    "wine-forest-words.joblib": ("TreeEnsembleClassifier",),
    "wine-mlp-words.joblib": (),
    "wine-svm-words.joblib": (),
}
BOOSTED = {
    "digits-xgboost.json": ("TreeEnsembleClassifier",),
    "cancer-xgboost.ubj": ("TreeEnsembleClassifier",),
    "diabetes-xgboost.ubj": ("TreeEnsembleRegressor",),
    "digits-lightgbm.txt": ("TreeEnsembleClassifier",),
    "diabetes-lightgbm.txt": ("TreeEnsembleRegressor",),
    "digits-xgboost-pipeline.skops": ("TreeEnsembleClassifier",),
    "digits-lightgbm-pipeline.skops": ("TreeEnsembleClassifier",),
}


def environment(name: str) -> Toolchain:
    return Toolchains(resolve_settings().toolchains_dir).make(find_toolchain(name))


def made(folder: Path, toolchain: str, *what: str) -> Path:
    command = [str(environment(toolchain).interpreter), str(SCRIPT), str(folder), *what]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("plain"), "sklearn")


@pytest.fixture(scope="module")
def boosted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("boosted"), "boosting", "boosters")


def imported(path: Path, **choices: Any) -> Imported:
    return import_model(
        path,
        toolchains=Toolchains(resolve_settings().toolchains_dir),
        imports=path.parent / "imports",
        choices=ImportChoices(**choices),
    )


def answers(path: Path, rows: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": rows}), strict=True))


def check_import(folder: Path, file: str, stays: tuple[str, ...], tmp_path: Path) -> None:
    """The proof holds, real rows are answered alike, and only what has to stays classical."""
    from edgesdk.model.save import save_model

    found = imported(folder / file, trust=file.endswith(".joblib"))
    assert found.origin.max_rel_error < 1e-4
    assert found.origin.examples == 3
    opened = open_imported(found)
    left = {op.removeprefix(ML) for op in opened.source.op_counts if op.startswith(ML)}
    assert left == set(stays)
    assert [str(each) for each in opened.source.inputs[0].shape[:1]] == ["batch"]
    name = file.partition(".")[0]
    with (
        np.load(folder / f"{name}.test.npz") as test,
        np.load(folder / f"{name}.told.npz") as at,
    ):
        rows, told = test["input"], at["answer"]
    lowered = save_model(opened.ir, tmp_path, "lowered")[0]
    for path in (found.path, lowered):
        given = answers(path, rows)
        if "label" in given:
            # on a threshold's very edge, or where votes are tied, float32 may fall otherwise
            assert (given["label"] == told).mean() > 0.995
            scores = given.get("probabilities", given.get("scores"))
            assert scores is not None
            assert scores.shape[0] == len(rows)
        else:
            apart = np.abs(given["prediction"][:, 0] - told)
            assert np.median(apart) < 1e-4 * np.abs(told).max()
            assert (apart < 1e-4 * np.abs(told).max()).mean() > 0.99


@pytest.mark.parametrize("file", PLAIN)
def test_an_estimator_is_imported_and_answers_alike(
    plain: Path, file: str, tmp_path: Path
) -> None:
    check_import(plain, file, PLAIN[file], tmp_path)


@pytest.mark.parametrize("file", BOOSTED)
def test_a_booster_is_imported_and_answers_alike(
    boosted: Path, file: str, tmp_path: Path
) -> None:
    check_import(boosted, file, BOOSTED[file], tmp_path)


def edgesdk(*arguments: str | Path) -> dict[str, Any]:
    """Run the command line for JSON and give its document."""
    command = [sys.executable, "-m", "edgesdk.cli", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def top1(report: dict[str, Any]) -> float:
    value: float = report["accuracy"]["labelled"]["value"]
    return value


@pytest.mark.parametrize(
    ("file", "target", "precision", "runtime"),
    [
        ("digits-svm.skops", "host", "int8", "onnxruntime"),
        ("digits-mlp.skops", "generic-armv7", "int8", "litert"),
        ("digits-forest.skops", "host", "fp32", "onnxruntime"),
        ("wine-words.joblib", "host", "int8", "onnxruntime"),
    ],
)
def test_an_estimator_runs_on_a_device_as_it_did_at_home(
    plain: Path, file: str, target: str, precision: str, runtime: str, tmp_path: Path
) -> None:
    name = file.partition(".")[0]
    calib, test = plain / f"{name}.calib.npz", plain / f"{name}.test.npz"
    result = edgesdk(
        *("deploy", plain / file, "--target", target, "--data", test, "--precision", precision),
        *(("--calib", calib) if precision == "int8" else ()),
        *("--device", f"local:?state={tmp_path / 'state'}", "--force-target", "--trust"),
        *("--runs", "60", "-o", tmp_path / "run"),
    )
    with np.load(test) as arrays, np.load(plain / f"{name}.told.npz") as at:
        expected = float((at["answer"] == arrays["labels"]).mean())
    assert abs(top1(result["report"]) - expected) <= 0.01
    assert result["bundle"]["precision"] == precision
    assert {part["runtime"] for part in result["report"]["parts"]} == {runtime}


def test_a_plan_says_of_trees_why_an_accelerator_refuses_them(plain: Path) -> None:
    plan = edgesdk("plan", plain / "digits-forest.skops", "--target", "jetson-orin-nano")
    (node,) = [each for each in plan["nodes"] if each["op"] == "TreeEnsembleClassifier"]
    assert node["backend"] == "ort-cpu"
    reasons = {each["backend"]: each["reason"] for each in node["refusals"]}
    assert set(reasons) == {"tensorrt", "ort-cuda"}
    assert all("walks 40 trees" in reason for reason in reasons.values())


def test_a_pickle_is_not_loaded_without_a_word(plain: Path) -> None:
    with pytest.raises(
        ModelError, match=r"it is a pickle.*sklearn\.pipeline\.Pipeline"
    ) as caught:
        imported(plain / "wine-words.joblib")
    assert "--trust" in caught.value.hint


def test_the_same_archive_of_another_version_is_taken_and_said(
    plain: Path, tmp_path: Path
) -> None:
    path = tmp_path / "older.skops"
    with zipfile.ZipFile(plain / "wine-bayes.skops") as old, zipfile.ZipFile(path, "w") as new:
        for each in old.infolist():
            data = old.read(each)
            if each.filename == "schema.json":
                version = metadata_of("sklearn")["scikit-learn"]
                data = data.replace(version.encode(), b"1.2.3")
            new.writestr(each.filename, data)
    found = imported(path)
    assert any("scikit-learn 1.2.3 wrote the file" in note for note in found.origin.notes)


def metadata_of(toolchain: str) -> dict[str, str]:
    return dict(environment(toolchain).versions)


@pytest.mark.parametrize(
    ("file", "keep", "says"),
    [
        ("wine-bayes.skops", 0.6, "cannot"),
        ("digits-xgboost.json", 0.6, "no whole model of XGBoost"),
        ("cancer-xgboost.ubj", 0.5, "no whole model of XGBoost"),
        ("digits-lightgbm.txt", 0.0, "cannot"),
    ],
)
def test_a_file_that_is_cut_short_is_an_error(
    plain: Path, boosted: Path, file: str, keep: float, says: str, tmp_path: Path
) -> None:
    data = next(f / file for f in (plain, boosted) if (f / file).exists()).read_bytes()
    path = tmp_path / file
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises((ModelError, ToolchainError), match=says):
        imported(path)


def test_a_step_without_a_converter_is_named(plain: Path, tmp_path: Path) -> None:
    script = """
import sys, skops.io
from sklearn.datasets import load_wine
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
x, y = load_wine(return_X_y=True)
made = make_pipeline(Nystroem(n_components=9), LogisticRegression()).fit(x, y)
skops.io.dump(made, sys.argv[1])
"""
    path = tmp_path / "kernel.skops"
    python = environment("sklearn").interpreter
    subprocess.run([str(python), "-c", script, str(path)], check=True, capture_output=True)
    with pytest.raises(ModelError, match="Nystroem has no converter") as caught:
        imported(path)
    assert "leave that step out" in caught.value.hint
