"""Every precision from the command line: bundles that verify and say what was decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgesdk.bundle import Bundle, read_bundle, verify_bundle
from edgesdk.cli.app import run
from tests.unit.build.models import classifier

pytestmark = pytest.mark.slow

PRECISIONS = ["fp16", "int8", "int16x8", "int8-dynamic", "int4-weights", "auto"]
DENSE = """
<ir_version: 8, opset_import: ["" : 17]>
dense (float[1, 3, 16, 16] image) => (float[1, 20] scores)
<float[32, 3, 3, 3] w1, float[32] b1, float[64, 32] w2, float[64] b2, float[64, 20] w3>
{
    c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    r1 = Relu (c1)
    p = GlobalAveragePool (r1)
    f = Flatten (p)
    g = Gemm <transB = 1> (f, w2, b2)
    r2 = Relu (g)
    scores = MatMul (r2, w3)
}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, calibration data and labelled data."""
    folder = tmp_path_factory.mktemp("precisions")
    model = classifier(folder / "dense.onnx", DENSE)
    random = np.random.default_rng(3)
    colours = 2 * random.standard_normal((32, 3, 1, 1))
    images = (colours + random.standard_normal((32, 3, 16, 16))).astype(np.float32)
    np.savez(folder / "calib.npz", image=images)
    session = onnxruntime.InferenceSession(str(model))
    answers = [session.run(None, {"image": one[np.newaxis]})[0] for one in images]
    labels = np.concatenate(answers).argmax(axis=1)
    assert len(set(labels.tolist())) > 4
    np.savez(folder / "data.npz", image=images, labels=labels)
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(home: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


def build(out: Path, *options: str, code: int = 0) -> Bundle | None:
    args = ["build", "dense.onnx", "-o", str(out), "--calib", "calib.npz", *options]
    assert run(args) == code
    return read_bundle(out) if code == 0 else None


def built(out: Path, *options: str) -> Bundle:
    bundle = build(out, *options)
    assert bundle is not None
    return bundle


def as_built(bundle: Bundle) -> dict[str, Any]:
    record: dict[str, Any] = bundle.manifest["as_built"]
    return record


def codes(bundle: Bundle) -> set[str]:
    return {finding["code"] for finding in as_built(bundle)["findings"]}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_each_precision_gives_a_bundle_that_verifies(precision: str, tmp_path: Path) -> None:
    options = ["--precision", precision]
    if precision == "auto":
        options += ["--max-drop", "20%"]
    bundle = built(tmp_path / "out", *options)
    assert verify_bundle(bundle) > 0
    record = as_built(bundle)
    if precision != "auto":
        assert bundle.precision == precision
    assert record["precision"] == bundle.precision == bundle.manifest["parts"][0]["precision"]
    if bundle.precision != "fp32":
        assert record["quantized_nodes"] > 0
        # the others take their scales from the weights, or as values come
        calibrated = bundle.precision in ("int8", "int16x8", "int4-weights")
        assert (record["calibration_samples"] > 0) == calibrated


def test_the_record_holds_what_measuring_decided(tmp_path: Path) -> None:
    bundle = built(tmp_path / "out", "--max-drop", "5%")
    record = as_built(bundle)
    names = [mean["name"] for mean in record["means"]]
    assert names[0] == "bias-correction"
    assert all(set(mean) == {"name", "on", "before_db", "after_db"} for mean in record["means"])
    assert set(record["sqnr_db"]) == {"scores"}
    assert record["int8_kernels"]["found"] == record["int8_kernels"]["planned"] > 0
    budget = record["budget"]
    assert (budget["metric"], budget["limit"]) == ("noise", 0.05)
    assert 0 <= budget["after"] <= 0.05
    assert record["ranges"] in ("min-max", "mse", "percentile")


def test_labels_measure_the_budget(tmp_path: Path) -> None:
    bundle = built(tmp_path / "out", "--data", "data.npz", "--max-drop", "0.1")
    budget = as_built(bundle)["budget"]
    assert (budget["metric"], budget["reference"], budget["limit"]) == ("top-1", 1.0, 0.1)
    assert budget["after"] <= 0.1


def test_labels_alone_bound_the_loss_to_a_point(tmp_path: Path) -> None:
    budget = as_built(built(tmp_path / "out", "--data", "data.npz"))["budget"]
    assert budget["limit"] == 0.01


def test_a_limit_that_cannot_be_kept_stops_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tmp_path / "out", "--max-drop", "1e-14", code=3)
    told = capsys.readouterr().err
    assert "error: cannot keep the loss of noise within 1e-14" in told
    assert "--max-drop" in told
    assert not (tmp_path / "out").exists()


def test_auto_falls_back_to_float_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = built(tmp_path / "out", "--precision", "auto", "--max-drop", "1e-16")
    assert bundle.precision == "fp32"
    assert "precision-passed-over" in codes(bundle)
    assert "info: not taken: int8: cannot keep the loss" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["2:4", "unstructured:0.5", "channels:0.3"])
def test_a_recipe_prunes_before_it_quantizes(pattern: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(f"prune: '{pattern}'\nmax_drop: 100%\n")
    bundle = built(
        tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml"), "--data", "data.npz"
    )
    assert verify_bundle(bundle) > 0
    pruned = as_built(bundle)["pruned"]
    assert pruned["pattern"] == pattern
    assert pruned["bytes_after"] < pruned["bytes_before"]
    assert pruned["drop"] <= 1.0
    assert bundle.manifest["recipe"]["prune"] == pattern


def test_pruning_beyond_the_limit_stops_the_build(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("prune: unstructured:0.95\nmax_drop: 0\n")
    options = ("--recipe", str(tmp_path / "recipe.yaml"), "--data", "data.npz")
    build(tmp_path / "out", *options, code=3)
    assert "cannot prune by unstructured:0.95: top-1 drops by " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_drop: lots", "cannot allow a drop of 'lots'"),
        ("means: [luck]", "means"),
        ("prune: '3:4'", "cannot prune by '3:4'"),
        ("precision: int9", "precision"),
    ],
)
def test_bad_recipes_are_refused_by_name(
    text: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    build(tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml"), code=2)
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["int8-dynamic", "int4-weights", "fp16"])
def test_a_backend_without_a_precision_refuses_it(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("prefer: [openvino-cpu]\n")
    options = ("--recipe", str(tmp_path / "recipe.yaml"), "--precision", precision)
    build(tmp_path / "out", *options, code=2)
    told = capsys.readouterr().err
    assert f"cannot build {precision} for openvino-cpu: it runs int8, fp32" in told


@pytest.mark.parametrize("options", [(), ("--max-drop", "40%", "--data", "data.npz")])
@pytest.mark.parametrize("precision", ["int8", "int4-weights"])
def test_two_builds_are_one_bundle(
    precision: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    one, other = (
        built(tmp_path / name, "--precision", precision, *options) for name in ("a", "b")
    )
    assert one.id == other.id


def test_a_finished_build_leaves_nothing_to_go_on_from(tmp_path: Path, work: Path) -> None:
    before = set(work.rglob("unfinished/*"))
    built(tmp_path / "out", "--max-drop", "3%")
    assert set(work.rglob("unfinished/*")) <= before


def test_people_are_told_what_was_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(tmp_path / "out", "--max-drop", "5%")
    shown = capsys.readouterr().out
    assert "nodes in int8 with 32 samples" in shown
    assert "compute nodes in 8-bit kernels" in shown
    assert "signal over noise against float: scores " in shown
    assert "bias-correction " in shown
    assert "(limit 0.05)" in shown


def test_a_plan_says_what_stays_in_float(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "dense.onnx", "--precision", "int8-dynamic"]) == 0
    shown = capsys.readouterr().out
    assert "in float because" in shown
    assert "Conv is not converted in int8-dynamic" in shown
    assert run(["plan", "dense.onnx", "--precision", "int8-dynamic", "--format", "json"]) == 0
    nodes = json.loads(capsys.readouterr().out)["nodes"]
    reasons = {node["op"]: node["why_float"] for node in nodes}
    assert reasons["Conv"] == "Conv is not converted in int8-dynamic"
    assert reasons["MatMul"] is None
