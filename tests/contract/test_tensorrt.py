"""From a model to a report on a device with TensorRT, all by public functions, over `local:`.

The device is this computer, which is forced to pass for a Jetson, with NVIDIA's side played by
`edgesdk.testing.FakeTensorrt`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.bench import BenchSpec, run_benchmark
from edgesdk.build import build_bundle
from edgesdk.bundle import Bundle
from edgesdk.data import open_dataset
from edgesdk.deploy import Deployment, deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.model import open_model
from edgesdk.plan import Recipe, plan_build
from edgesdk.plan.facts import model_facts
from edgesdk.profiles import find_target
from edgesdk.testing import FakeTensorrt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FakeTensorrt.why_not() is not None, reason=str(FakeTensorrt.why_not())),
]
TARGET = find_target("jetson-orin-nx")
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, 8, 8] x) => (float[1, 4, 1, 1] y)
{
  c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
  r = Relu(c)
  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
  d = Conv <kernel_shape = [4, 4]> (p, v)
  y = Sigmoid(d)
}
"""


@pytest.fixture(scope="module")
def nvidia(tmp_path_factory: pytest.TempPathFactory) -> FakeTensorrt:
    return FakeTensorrt(tmp_path_factory.mktemp("nvidia"))


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = onnx.parser.parse_model(MODEL)
    random = np.random.default_rng(7)
    for name, shape in (("w", (8, 3, 3, 3)), ("v", (4, 8, 4, 4))):
        weights = random.normal(0, 0.2, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    path = tmp_path_factory.mktemp("model") / "net.onnx"
    onnx.save(model, path)
    return path


Build = Callable[..., Bundle]


@pytest.fixture(scope="module")
def build(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    made: dict[Any, Bundle] = {}

    def built(precision: str = "int8", **recipe: Any) -> Bundle:
        key = (precision, *recipe.items())
        if key in made:
            return made[key]
        folder = tmp_path_factory.mktemp("built")
        opened = open_model(model_path)
        data = np.random.default_rng(3).normal(0, 1, (16, 3, 8, 8)).astype(np.float32)
        np.savez(folder / "calib.npz", x=data)
        wanted = Recipe(precision=precision, **recipe)  # type: ignore[arg-type]  # a test's text
        calib = open_dataset(str(folder / "calib.npz"), opened.source.inputs)
        plan = plan_build(model_facts(opened), TARGET, wanted)
        made[key] = build_bundle(
            opened, TARGET, wanted, plan, calib=calib, out=folder / "bundle"
        )
        return made[key]

    return built


class Bench:
    """One device: this computer."""

    def __init__(self, nvidia: FakeTensorrt, state: Path, patch: pytest.MonkeyPatch) -> None:
        self.nvidia = nvidia
        self.device = resolve_device(f"local:?state={state}")
        self._patch = patch
        self.change()
        nvidia.log.unlink(missing_ok=True)

    def change(self, **settings: str) -> None:
        path = os.environ["PATH"]
        for name, value in self.nvidia.environment(path, **settings).items():
            self._patch.setenv(name, value)

    def deploy(self, bundle: Bundle, **options: Any) -> Deployment:
        with connect(self.device) as session:
            return deploy_bundle(
                bundle,
                session,
                device=self.device,
                profile=TARGET,
                force_target=True,
                **options,
            )

    def measure(self, bundle: Bundle) -> Any:
        with connect(self.device) as session:
            return run_benchmark(
                session,
                bundle,
                device=self.device,
                spec=BenchSpec(runs=5, warmup_runs=1),
                profile=TARGET,
            )


@pytest.fixture
def bench(nvidia: FakeTensorrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(nvidia, tmp_path / "state", monkeypatch)


@pytest.mark.parametrize("precision", ["int8", "fp16", "fp32"])
def test_a_model_is_built_finished_and_accelerated(
    build: Build, bench: Bench, precision: str
) -> None:
    bundle = build(precision)
    (part,) = bundle.manifest["parts"]
    assert (part["backend"], part["options"]["precision"]) == ("tensorrt", precision)
    assert [way["backend"] for way in part["fallbacks"]] == ["ort-cuda", "ort-cpu"]
    first = bench.deploy(bundle)
    assert first.target_mismatch
    assert first.finished[0].outcome == "built"
    assert first.finished[0].served_by == "tensorrt"
    again = bench.deploy(bundle)
    assert again.finished[0].outcome == "cached"
    assert again.self_check.reused
    assert len(bench.nvidia.builds) == 1
    report = bench.measure(bundle)
    assert report.verdict == "accelerated"
    assert report.placement.actual[0].backend == "tensorrt"
    offload = report.offload
    assert {(op.backend, op.where) for op in offload.ops} == {("tensorrt", "GPU")}
    assert {op.agrees for op in offload.ops if op.nodes} == {True}
    assert {"c", "r", "d", "y"} <= {node for op in offload.ops for node in op.nodes}
    assert 0 < offload.accelerator_share <= 1
    assert offload.cpu_share == offload.unknown_share == 0
    # copies to the GPU and back are no work of it
    assert offload.off_accelerator_share == pytest.approx(offload.between_share)
    assert offload.disagreements == ()


def test_another_driver_gets_another_engine(build: Build, bench: Bench) -> None:
    bundle = build()
    bench.deploy(bundle)
    bench.change(FAKE_CUDA_DRIVER="12090")
    again = bench.deploy(bundle)
    assert again.finished[0].outcome == "built"
    assert "driver 12060 (here 12090)" in again.finished[0].instead_of
    assert "driver 12060 (here 12090)" in again.notes[0]
    assert not again.self_check.reused
    assert len(bench.nvidia.builds) == 2


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"FAKE_TRTEXEC": "fail"}, {}, "Could not find any implementation"),
        ({"FAKE_TRTEXEC": "hang"}, {"finish_timeout_s": 3.0}, "trtexec was stopped"),
        ({"FAKE_TRTEXEC": "crash"}, {}, "trtexec ended with signal 11"),
        ({"FAKE_TRTEXEC": "rubbish"}, {}, "left no engine"),
        ({"FAKE_GPU_NAME": "none"}, {}, "no CUDA-capable device"),
    ],
)
def test_what_cannot_be_finished_is_served_by_the_processor_and_said(
    build: Build,
    bench: Bench,
    settings: dict[str, str],
    options: dict[str, float],
    said: str,
) -> None:
    bundle = build()
    bench.change(**settings)
    receipt = bench.deploy(bundle, **options)
    (part,) = receipt.finished
    assert (part.outcome, part.served_by) == ("failed", "ort-cpu")
    assert said in part.why
    assert said in receipt.notes[0]
    report = bench.measure(bundle)
    assert report.verdict == "fell-back-to-cpu"
    (row,) = report.placement.actual
    assert row.backend == "ort-cpu"
    assert "fell back from tensorrt (tensorrt): " in row.detail
    assert "planned for tensorrt" in report.verdict_reasons[0]
    offload = report.offload
    assert offload.accelerator_share == 0
    assert {op.backend for op in offload.ops} == {"ort-cpu"}
    assert {op.predicted for op in offload.ops} <= {"tensorrt", None}
    assert (
        "was planned for tensorrt and ran on the CPU in CPUExecutionProvider"
        in (offload.disagreements[0])
    )
    assert offload.disagreements[0] in report.verdict_reasons


def test_a_dla_gets_scales_from_the_pairs(build: Build, bench: Bench) -> None:
    bundle = build(prefer=("tensorrt-dla",), avoid=("tensorrt",))
    part = bundle.manifest["parts"][0]
    assert part["backend"] == "tensorrt-dla"
    assert part["options"] == {"dla": 0, "precision": "int8"}
    assert [entry["role"] for entry in part["files"]] == ["model", "calibration"]
    lines = bundle.blob_path(part["files"][1]["sha256"]).read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    assert any(line.startswith("x: ") for line in lines)
    codes = [finding["code"] for finding in bundle.manifest["as_built"]["findings"]]
    assert "implicit-quantization" in codes
    bench.change(FAKE_TENSORRT_VERSION="10.7.0")
    receipt = bench.deploy(bundle)
    assert (receipt.finished[0].outcome, receipt.finished[0].served_by) == (
        "built",
        "tensorrt-dla",
    )
    assert "--useDLACore=0" in bench.nvidia.builds[0]
    report = bench.measure(bundle)
    assert report.verdict == "accelerated"
    assert "on DLA0" in report.placement.actual[0].detail
    bench.change(FAKE_TRTEXEC="fail", FAKE_CUDA_DRIVER="12070")
    assert bench.deploy(bundle).finished[0].served_by == "ort-cpu"
