"""Graphs with classical operators: what is arithmetic is built for all, trees stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgesdk.backends import backend_for
from edgesdk.bundle import verify_bundle
from edgesdk.errors import BuildError
from edgesdk.model.open import open_model
from edgesdk.plan import Recipe, model_facts, plan_build
from edgesdk.profiles.catalog import load_catalog
from tests.unit.build.test_build import build, session_of

ML = "ai.onnx.ml"
F = 8


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scaler before two layers of a perceptron and before two stumps."""
    draw = np.random.default_rng(0)

    def ml(op: str, x: str, y: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node(op, [x], [y], y, domain=ML, **attributes)

    def dense(x: str, y: str, taken: int, given: int) -> onnx.NodeProto:
        return ml(
            "LinearRegressor",
            x,
            y,
            coefficients=(draw.standard_normal(taken * given) * 0.4).tolist(),
            intercepts=draw.standard_normal(given).tolist(),
            targets=given,
        )

    trees = ml(
        "TreeEnsembleRegressor",
        "scaled",
        "steps",
        n_targets=1,
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2, 0, 1, 2],
        nodes_featureids=[2, 0, 0, 5, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_values=[0.1, 0, 0, -0.3, 0, 0],
        nodes_truenodeids=[1, 0, 0, 1, 0, 0],
        nodes_falsenodeids=[2, 0, 0, 2, 0, 0],
        target_treeids=[0, 0, 1, 1],
        target_nodeids=[1, 2, 1, 2],
        target_ids=[0] * 4,
        target_weights=[1.0, -2.0, 0.5, 4.0],
    )
    graph = helper.make_graph(
        [
            ml(
                "Scaler",
                "x",
                "scaled",
                offset=[3.0] * F,
                scale=draw.uniform(0.2, 0.8, F).tolist(),
            ),
            dense("scaled", "hidden", F, 32),
            helper.make_node("Relu", ["hidden"], ["active"], "active"),
            dense("active", "prediction", 32, 3),
            trees,
        ],
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", F])],
        [
            helper.make_tensor_value_info("prediction", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("steps", TensorProto.FLOAT, ["batch", 1]),
        ],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 3)]
    path = tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def rows(count: int = 64) -> np.ndarray:
    return np.random.default_rng(1).normal(3, 2, (count, F)).astype(np.float32)


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    path = tmp_path / "calib.npz"
    np.savez(path, x=rows())
    return path


def test_an_int8_build_quantizes_the_layers_and_leaves_trees_in_float(
    mixed: Path, calib: Path, tmp_path: Path
) -> None:
    bundle = build(mixed, tmp_path / "out", calib)
    assert bundle.precision == "int8"
    assert verify_bundle(bundle) > 0
    as_built = bundle.manifest["as_built"]
    assert as_built["quantized_weights"] == 2
    reasons = {each["name"]: each["reason"] for each in as_built["left_float"]}
    assert reasons["steps"] == (
        "TreeEnsembleRegressor walks 2 trees of 6 nodes by comparing one feature at a time, "
        "which is no arithmetic and has no 8-bit form"
    )
    got = dict(
        zip(["prediction", "steps"], session_of(bundle).run(None, {"x": rows()}), strict=True)
    )
    want = onnxruntime.InferenceSession(str(mixed)).run(None, {"x": rows()})
    np.testing.assert_allclose(got["prediction"], want[0], atol=0.05 * np.abs(want[0]).max())
    # a value next to a threshold may be rounded over it
    assert (got["steps"] == want[1]).mean() > 0.9


def test_a_float_build_of_trees_answers_to_the_bit(mixed: Path, tmp_path: Path) -> None:
    bundle = build(mixed, tmp_path / "out")
    got = session_of(bundle).run(None, {"x": rows()})
    want = onnxruntime.InferenceSession(str(mixed)).run(None, {"x": rows()})
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize(
    ("target", "backend", "says"),
    [
        ("raspberry-pi-5", "litert-cpu", "and LiteRT has no kernel for it"),
        ("jetson-orin-nano", "tensorrt", "'s ONNX parser has no importer for it"),
        ("host", "openvino-cpu", "and OpenVINO's ONNX frontend does not translate it"),
        ("jetson-orin-nano", "ort-cuda", "and onnxruntime has kernels of it for CPUs only"),
        ("coral-usb", "edgetpu", "and LiteRT has no kernel for it"),
    ],
)
def test_a_backend_says_why_it_refuses_trees_and_takes_the_rest(
    mixed: Path, target: str, backend: str, says: str
) -> None:
    profile = load_catalog()[target]
    facts = model_facts(open_model(mixed))
    (chosen,) = [each for each in profile.backends if each.id == backend]
    refused = backend_for(chosen, facts).refusals(facts)
    by_op = {facts.nodes[index].op: reason for index, reason in refused.items()}
    assert by_op["TreeEnsembleRegressor"].startswith(
        "TreeEnsembleRegressor walks 2 trees of 6 nodes by comparing one feature at a time"
    )
    assert by_op["TreeEnsembleRegressor"].endswith(says)
    assert backend == "edgetpu" or len(refused) == 1


def test_a_target_without_a_runtime_for_trees_says_so(mixed: Path) -> None:
    profile = load_catalog()["generic-armv7"]
    facts = model_facts(open_model(mixed))
    recipe = Recipe(precision="fp32").resolve(calibrated=False)
    with pytest.raises(BuildError, match="walks 2 trees of 6 nodes") as caught:
        plan_build(facts, profile, recipe)
    assert caught.value.exit_code == 3
