"""A graph that no single backend should run: cut, compiled, run as a chain, told as it went."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import numpy_helper, parser

from edgesdk import backends
from edgesdk.backends.base import CompiledPart, NodesRefused, PartJob, RuleBackend
from edgesdk.build.pipeline import build_bundle
from edgesdk.build.reference import OnnxOnHost, open_part
from edgesdk.bundle import Bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.errors import CompileError, PlacementError
from edgesdk.model.open import open_model
from edgesdk.plan import BuildPlan, load_recipe, model_facts, plan_build
from edgesdk.profiles.catalog import find_target
from edgesdk.quantize.api import quantize

TARGETS = Path(__file__).parents[3] / "targets"
#: Gelu is newer than what the first backend says it loads; both run all the rest.
GRAPH = """
<ir_version: 8, opset_import: ["" : 20]>
m (float[N, 3, 16, 16] x) => (float[N, 10] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  b = Relu (a)
  c = Gelu (b)
  d = Conv <pads = [1, 1, 1, 1]> (c, w2)
  e = Relu (d)
  f = GlobalAveragePool (e)
  g = Flatten (f)
  y = Gemm (g, w3)
}
"""
SHAPES = {"w1": (8, 3, 3, 3), "w2": (8, 8, 3, 3), "w3": (8, 10)}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random = np.random.default_rng(5)
    proto = parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        weights = random.normal(0, 0.3, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return path


def fast_first(**speed: Any) -> Callable[[dict[str, Any]], None]:
    def change(family: dict[str, Any]) -> None:
        first = family["backends"][0]
        first["accelerator"] = True
        first["speed"] = {
            "gmacs_per_s": {"fp32": 100.0, "int8": 400.0},
            "move_mb_per_s": 100_000.0,
            "launch_us": 0.1,
            **speed,
        }

    return change


def add_target(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a family of one target: an onnxruntime that ends at opset 18, then OpenVINO."""
    targets = folder / "targets"
    shutil.copytree(TARGETS / "schemes", targets / "schemes", dirs_exist_ok=True)
    family = yaml.safe_load((TARGETS / "host.yaml").read_text(encoding="utf-8"))
    by_id = {backend["id"]: backend for backend in family["backends"]}
    family["family"] = "mixed-things"
    family["backends"] = [by_id["ort-cpu"], by_id["openvino-cpu"]]
    for backend in family["backends"]:
        backend.pop("speed", None)
    family["backends"][0].update(runtime_version="1.14.1", max_opset=18, max_ir=8)
    family["variants"] = [{"name": "mixed-thing", "title": "A mixed thing"}]
    change(family)
    ids = {backend["id"] for backend in family["backends"]}
    figures = [
        f"backends.{backend['id']}.{key}"
        for backend in family["backends"]
        for key in ("precisions", "scheme", "runtime_version", "max_opset", "max_ir", "speed")
        if key in backend
    ]
    assert ids
    family["provenance"] = [
        {
            "fields": [*figures, "agent.python", "identify"],
            "kind": "assumed",
            "source": "a test",
            "checked": "2026-11-25",
        }
    ]
    (targets / "mixed.yaml").write_text(yaml.safe_dump(family), encoding="utf-8")
    return targets


def build(
    model: Path, targets: Path, out: Path, precision: str | None = None
) -> tuple[BuildPlan, Bundle]:
    profile = find_target("mixed-thing", extra_dir=targets)
    opened = open_model(model)
    recipe = load_recipe(None, precision=precision).resolve(calibrated=precision == "int8")
    calib = None
    if precision == "int8":
        random = np.random.default_rng(1)
        np.savez(model.parent / "calib.npz", x=random.random((32, 3, 16, 16), np.float32))
        calib = open_dataset(str(model.parent / "calib.npz"), opened.source.inputs)
    plan = plan_build(model_facts(opened, profile), profile, recipe)
    return plan, build_bundle(opened, profile, recipe, plan, calib=calib, out=out)


@pytest.mark.parametrize("precision", [None, "int8"])
def test_a_node_that_one_backend_refuses_makes_three_parts(
    precision: str | None, model: Path, tmp_path: Path
) -> None:
    targets = add_target(tmp_path, fast_first())
    plan, bundle = build(model, targets, tmp_path / "out", precision)
    where = [part["backend"] for part in bundle.manifest["parts"]]
    assert where == ["ort-cpu", "openvino-cpu", "ort-cpu"]
    assert [part.backend for part in plan.parts] == where
    assert [node.op for node in plan.nodes if node.backend == "openvino-cpu"] == ["Gelu"]
    parts = bundle.manifest["parts"]
    assert [value["name"] for value in parts[0]["inputs"]] == ["x"]
    assert [value["name"] for value in parts[2]["outputs"]] == ["y"]
    for before, after in itertools.pairwise(parts):
        assert before["outputs"] == after["inputs"]
    for check in bundle.manifest["checks"]:  # what crosses a boundary is nobody's answer
        assert [spec["name"] for spec in check["expected"]] == ["y"]
    record = bundle.manifest["as_built"]
    assert record["placement"]["moved"] == []
    assert record["against_whole"][0]["beyond"] <= 0.005
    assert not [f for f in record["findings"] if f["code"] == "parts-differ"]
    shares = bundle.manifest["predicted"]["share_by_backend"]
    assert set(shares) == {"ort-cpu", "openvino-cpu"}
    overhead = bundle.manifest["predicted"]["overhead_share"]
    assert sum(shares.values()) + overhead == pytest.approx(1.0, abs=1e-4)


def test_what_crosses_a_boundary_of_an_int8_graph_is_quantized(
    model: Path, tmp_path: Path
) -> None:
    targets = add_target(tmp_path, fast_first())
    _, bundle = build(model, targets, tmp_path / "out", "int8")
    crossing = bundle.manifest["parts"][1]["outputs"] + bundle.manifest["parts"][2]["inputs"]
    # the convolution behind the boundary reads 8-bit numbers
    assert {value["dtype"] for value in crossing} == {"uint8"}


def test_parts_give_what_the_whole_graph_gives(model: Path, tmp_path: Path) -> None:
    targets = add_target(tmp_path, fast_first())
    _, bundle = build(model, targets, tmp_path / "out")
    whole = OnnxOnHost(model)
    for check in bundle.manifest["checks"]:
        blob = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
        arrays = {
            group: {
                spec["name"]: np.frombuffer(
                    blob[spec["offset"] : spec["offset"] + spec["nbytes"]], spec["dtype"]
                ).reshape(spec["shape"])
                for spec in check[group]
            }
            for group in ("inputs", "expected")
        }
        wanted = whole.run(arrays["inputs"])["y"]
        assert np.abs(arrays["expected"]["y"] - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_an_island_that_costs_more_than_it_saves_is_given_up(
    model: Path, tmp_path: Path
) -> None:
    targets = add_target(tmp_path, fast_first(launch_us=5000.0, copy_mb_per_s=10.0))
    plan, bundle = build(model, targets, tmp_path / "out")
    assert [part["backend"] for part in bundle.manifest["parts"]] == ["openvino-cpu"]
    assert {each.backend for each in plan.given_up} == {"ort-cpu"}
    assert all(each.costs_us > each.saves_us for each in plan.given_up)
    refusal = plan.nodes[0].refusals[0]
    assert refusal.backend == "ort-cpu"
    assert "costs" in refusal.reason


def test_the_plan_is_json(model: Path, tmp_path: Path) -> None:
    targets = add_target(tmp_path, fast_first(launch_us=5000.0))
    profile = find_target("mixed-thing", extra_dir=targets)
    plan = plan_build(model_facts(open_model(model)), profile, load_recipe(None))
    again = json.loads(json.dumps(plan.to_json()))
    assert again["parts"][0]["reads"] == ["x"]
    assert again["given_up"][0]["backend"] == "ort-cpu"


def compiler_that(act: Callable[[PartJob], CompiledPart]) -> Any:
    """Put a compiler into the first backend that is asked for."""
    plain = backends.backend_for

    def backend_for(profile: Any, facts: Any) -> Any:
        found = plain(profile, facts)
        if profile.id != "ort-cpu":
            return found
        return RuleBackend(profile=profile, format="onnx", rules=found.rules, compiler=act)

    return backend_for


@pytest.fixture
def first_compiler(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def use(act: Callable[[PartJob], CompiledPart]) -> None:
        fake = compiler_that(act)
        monkeypatch.setattr("edgesdk.build.chain.backend_for", fake)

    return use


def save_onnx(job: PartJob) -> CompiledPart:
    from edgesdk.model.save import save_model

    assert job.model is not None
    files = save_model(job.model, job.folder, "compiled")
    return CompiledPart(files={"model": files[0]}, format="onnx", inside={"made": "here"})


def test_what_a_compiler_turns_down_goes_elsewhere_with_its_reason(
    model: Path, tmp_path: Path, first_compiler: Callable[[Any], None]
) -> None:
    def act(job: PartJob) -> CompiledPart:
        assert job.model is not None
        for node in job.model.graph:
            if node.op_type == "GlobalAveragePool":
                raise NodesRefused({node.outputs[0].name or "": "its pool is too wide"})
        return save_onnx(job)

    first_compiler(act)
    targets = add_target(tmp_path, fast_first())
    _, bundle = build(model, targets, tmp_path / "out")
    placement = bundle.manifest["as_built"]["placement"]
    moved = [(each["op"], each["built"], each["reason"]) for each in placement["moved"]]
    assert ("GlobalAveragePool", "openvino-cpu", "its pool is too wide") in moved
    assert placement["parts"][0]["inside"] == {"made": "here"}
    assert bundle.manifest["parts"][-1]["outputs"][0]["name"] == "y"


def test_a_compiler_that_turns_down_something_unknown_ends_the_build(
    model: Path, tmp_path: Path, first_compiler: Callable[[Any], None]
) -> None:
    def act(job: PartJob) -> CompiledPart:
        raise NodesRefused({"what": "never heard of"})

    first_compiler(act)
    with pytest.raises(CompileError, match="what: never heard of"):
        build(model, add_target(tmp_path, fast_first()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_node_that_nobody_is_left_for_is_named(
    model: Path, tmp_path: Path, first_compiler: Callable[[Any], None]
) -> None:
    def act(job: PartJob) -> CompiledPart:
        raise NodesRefused({job.model.graph[0].outputs[0].name or "": "no"})  # type: ignore[union-attr]  # parts of a graph have one

    first_compiler(act)

    def only_first(family: dict[str, Any]) -> None:
        family["backends"] = family["backends"][:1]

    text = GRAPH.replace("c = Gelu (b)", "c = Tanh (b)")
    proto = onnx.load(model)
    plain = parser.parse_model(text)
    plain.graph.initializer.extend(proto.graph.initializer)
    onnx.save(plain, model)
    with pytest.raises(PlacementError, match="ort-cpu: no"):
        build(model, add_target(tmp_path, only_first), tmp_path / "out")


def test_a_graph_for_another_runtime_gives_its_own_numbers_here(tmp_path: Path) -> None:
    """TensorRT's rules leave biases in float, and newer onnxruntimes would quantize those."""
    demo = Path(__file__).parents[3] / "configs" / "demo"
    graph = tmp_path / "for-tensorrt.onnx"
    scheme = "jetson-xavier-nx/tensorrt"
    quantize(demo / "digits_cnn.onnx", str(demo / "calib.npz"), scheme=scheme).save(graph)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    exact = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    here = open_part(graph, "tensorrt")
    images = np.load(demo / "calib.npz")["image"].astype(np.float32)
    for image in images[:8, None]:
        (wanted,) = exact.run(None, {"image": image})
        (given,) = here.run({"image": image}).values()
        np.testing.assert_allclose(given, wanted, atol=1e-4 * np.abs(wanted).max())


def test_a_part_for_another_runtime_is_compared_with_the_graph_as_written(
    tmp_path: Path,
) -> None:
    demo = Path(__file__).parents[3] / "configs" / "demo"
    profile, opened = find_target("jetson-xavier-nx"), open_model(demo / "digits_cnn.onnx")
    calib = open_dataset(str(demo / "calib.npz"), opened.source.inputs)
    recipe = load_recipe(None).resolve(calibrated=True)
    plan = plan_build(model_facts(opened, profile), profile, recipe)
    bundle = build_bundle(opened, profile, recipe, plan, calib=calib, out=tmp_path / "out")
    record = bundle.manifest["as_built"]
    assert bundle.manifest["parts"][0]["backend"] == "tensorrt"
    assert record["against_whole"][0]["beyond"] == 0.0
    assert "parts-differ" not in [finding["code"] for finding in record["findings"]]


def test_the_graph_of_a_part_is_cut_out_the_same_way_each_time(
    model: Path, tmp_path: Path
) -> None:
    targets = add_target(tmp_path, fast_first())
    ids = {build(model, targets, tmp_path / f"out-{number}")[1].id for number in range(3)}
    assert len(ids) == 1
