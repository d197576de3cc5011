"""A bundle for LiteRT made from ONNX: one file, or a chain where something is not lowered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesdk.build.pipeline import build_bundle
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.model.open import open_model
from edgesdk.model.tflite_graph import TfliteGraph, read_tflite_graphs
from edgesdk.plan import load_recipe, model_facts, plan_build
from edgesdk.profiles.catalog import find_target
from edgesdk.profiles.values import Speed, TargetProfile
from tests.unit.build.models import CLASSIFIER, classifier

pytestmark = pytest.mark.slow

#: Hardmax has no lowering.
MIXED = """
<ir_version: 8, opset_import: ["" : 17]>
mixed (float[1, 3, 16, 16] image) => (float[1, 5] scores)
<float[8, 3, 3, 3] w1, float[8] b1, float[8, 8, 3, 3] w2, float[5, 8] w3, float[5] b3>
{
    c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    h = Hardmax <axis = 1> (c1)
    c2 = Conv <pads = [1, 1, 1, 1]> (h, w2)
    r2 = Relu (c2)
    p = GlobalAveragePool (r2)
    f = Flatten (p)
    scores = Gemm <transB = 1> (f, w3, b3)
}
"""


def swift(profile: TargetProfile) -> TargetProfile:
    """Let LiteRT be so fast that no boundary is too dear."""
    speed = Speed(
        gmacs_per_s={"fp32": 100.0, "int8": 400.0},
        move_mb_per_s=100_000.0,
        copy_mb_per_s=None,
        launch_us=0.1,
    )
    backends = tuple(
        replace(each, speed=speed) if each.kind == "litert" else each
        for each in profile.backends
    )
    return replace(profile, backends=backends)


def build(
    folder: Path,
    precision: str,
    text: str = CLASSIFIER,
    change: Callable[[TargetProfile], TargetProfile] = lambda profile: profile,
) -> Bundle:
    opened = open_model(classifier(folder / "model.onnx", text))
    profile = change(find_target("raspberry-pi-5"))
    calib = None
    if precision in ("int8", "int16x8"):
        random = np.random.default_rng(1)
        np.savez(folder / "calib.npz", image=random.random((32, 3, 16, 16), np.float32))
        calib = open_dataset(str(folder / "calib.npz"), opened.source.inputs)
    chosen = load_recipe(None, precision=precision, prefer=("litert-cpu",))
    plan = plan_build(model_facts(opened, profile), profile, chosen)
    return build_bundle(opened, profile, chosen, plan, calib=calib, out=folder / "out")


def graph_of(bundle: Bundle, part: int = 0) -> TfliteGraph:
    (record,) = bundle.manifest["parts"][part]["files"]
    return read_tflite_graphs(bundle.blob_path(record["sha256"]).read_bytes())[0][0]


@pytest.mark.parametrize(
    ("precision", "read", "weights"),
    [
        ("fp32", "float32", "float32"),
        ("fp16", "float32", "float32"),
        ("int8", "int8", "int8"),
        ("int16x8", "int16", "int8"),
    ],
)
def test_a_graph_becomes_one_file(
    precision: str, read: str, weights: str, tmp_path: Path
) -> None:
    bundle = build(tmp_path, precision)
    (part,) = bundle.manifest["parts"]
    assert (part["backend"], part["format"]) == ("litert-cpu", "tflite")
    assert [value["dtype"] for value in (*part["inputs"], *part["outputs"])] == ["float32"] * 2
    assert part["inputs"][0]["shape"] == [1, 3, 16, 16]
    graph = graph_of(bundle)
    convs = [op for op in graph.ops if "CONV" in op.name]
    assert [op.name for op in convs] == ["CONV_2D", "DEPTHWISE_CONV_2D"]
    for op in convs:
        assert graph.tensors[op.inputs[0]].dtype == read
        assert graph.tensors[op.inputs[1]].dtype == weights
    halves = any(t.dtype == "float16" and t.constant is not None for t in graph.tensors)
    assert halves == (precision == "fp16")
    record = bundle.manifest["as_built"]
    assert record["placement"]["parts"][0]["inside"]["operators"]["CONV_2D"] == 1
    assert not [f for f in record["findings"] if f["code"] == "parts-differ"]
    assert bundle.manifest["checks"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_not_lowered_is_another_part_of_a_chain(precision: str, tmp_path: Path) -> None:
    bundle = build(tmp_path, precision, MIXED, swift)
    parts = bundle.manifest["parts"]
    assert [part["backend"] for part in parts] == ["litert-cpu", "ort-cpu", "litert-cpu"]
    assert parts[0]["outputs"] == parts[1]["inputs"]
    assert parts[1]["outputs"] == parts[2]["inputs"]
    record = bundle.manifest["as_built"]
    assert record["against_whole"][0]["beyond"] <= 0.005
    assert not [f for f in record["findings"] if f["code"] == "parts-differ"]


def test_the_target_takes_onnxruntime_as_long_as_nobody_asks(tmp_path: Path) -> None:
    opened = open_model(classifier(tmp_path / "model.onnx"))
    profile = find_target("raspberry-pi-5")
    plan = plan_build(model_facts(opened, profile), profile, load_recipe(None))
    assert plan.nodes_by_backend == {"ort-cpu": 7}
