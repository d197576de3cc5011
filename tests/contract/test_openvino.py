"""From a model to a report on a computer with an NPU, all by public functions, over `local:`.

The device is this computer, which is forced to pass for one with an NPU; that is played by
`edgesdk.testing.FakeOpenvinoNpu`, whose numbers are those of OpenVINO's plugin for the CPU.
"""

from __future__ import annotations

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
from edgesdk.plan import BuildPlan, Recipe, plan_build
from edgesdk.plan.facts import model_facts
from edgesdk.profiles import find_target
from edgesdk.testing import FakeOpenvinoNpu

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FakeOpenvinoNpu.why_not() is not None, reason=str(FakeOpenvinoNpu.why_not())
    ),
]
TARGET = find_target("intel-npu-core-ultra-2")
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 3, 16, 16] x) => (float[N, 4, 1, 1] y)
{
  [first] c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, w)
  [relu] r = Relu (c)
  [middle] m = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, u)
  [second] d = Conv <kernel_shape = [16, 16]> (m, v)
  [wide] e = Cast <to = 11> (d)
  [root] f = Exp (e)
  [narrow] y = Cast <to = 1> (f)
}
"""
SHAPES = {"w": (32, 3, 3, 3), "u": (32, 32, 3, 3), "v": (4, 32, 16, 16)}


@pytest.fixture(scope="module")
def npu(tmp_path_factory: pytest.TempPathFactory) -> FakeOpenvinoNpu:
    return FakeOpenvinoNpu(tmp_path_factory.mktemp("npu"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildPlan, Bundle]:
    folder = tmp_path_factory.mktemp("built")
    model = onnx.parser.parse_model(MODEL)
    random = np.random.default_rng(7)
    for name, shape in SHAPES.items():
        weights = random.normal(0, 0.05, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    onnx.save(model, folder / "net.onnx")
    opened = open_model(folder / "net.onnx")
    data = random.normal(0, 1, (24, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "calib.npz", x=data)
    wanted = Recipe(precision="int8")
    calib = open_dataset(str(folder / "calib.npz"), opened.source.inputs)
    plan = plan_build(model_facts(opened, TARGET), TARGET, wanted)
    return plan, build_bundle(opened, TARGET, wanted, plan, calib=calib, out=folder / "bundle")


class Bench:
    """One device: this computer."""

    def __init__(self, npu: FakeOpenvinoNpu, state: Path, patch: pytest.MonkeyPatch) -> None:
        self.npu = npu
        self.device = resolve_device(f"local:?state={state}")
        self._patch = patch
        self.change()
        npu.log.unlink(missing_ok=True)

    def change(self, **settings: str) -> None:
        for name, value in self.npu.environment(**settings).items():
            self._patch.setenv(name, value)

    def deploy(self, bundle: Bundle) -> Deployment:
        with connect(self.device) as session:
            return deploy_bundle(
                bundle, session, device=self.device, profile=TARGET, force_target=True
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
def bench(npu: FakeOpenvinoNpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(npu, tmp_path / "state", monkeypatch)


def test_the_plan_gives_the_npu_what_it_takes_and_says_why_not_the_rest(
    built: tuple[BuildPlan, Bundle],
) -> None:
    plan, bundle = built
    where = {node.name: node for node in plan.nodes}
    assert where["first"].backend == where["second"].backend == "openvino-npu"
    (refusal,) = where["root"].refusals
    assert (where["root"].backend, refusal.backend) == ("openvino-cpu", "openvino-npu")
    assert "is float64, which OpenVINO's NPU does not take" in refusal.reason
    assert "backends.openvino-npu.limits" in plan.assumed
    assert plan.fixed_inputs == ("x",)
    first, last = bundle.manifest["parts"]
    assert (first["backend"], last["backend"]) == ("openvino-npu", "openvino-cpu")
    assert first["inputs"][0]["shape"] == [1, 3, 16, 16]
    assert [way["backend"] for way in first["fallbacks"]] == ["openvino-cpu", "ort-cpu"]
    assert [file["role"] for file in first["spare"]["files"]] == ["model"]
    assert "spare" not in last


def test_the_npu_runs_its_part_and_the_report_says_so(
    built: tuple[BuildPlan, Bundle], bench: Bench
) -> None:
    _, bundle = built
    receipt = bench.deploy(bundle)
    assert receipt.self_check.passed
    assert bench.npu.events == ["compiled 1700000000 ok"]
    report = bench.measure(bundle)
    assert report.verdict == "accelerated"
    assert [row.accelerator for row in report.placement.actual] == [True, False]
    assert "loaded 1700000000" in bench.npu.events


@pytest.mark.parametrize("fate", ["refuse", "die"])
def test_a_driver_that_fails_is_told_and_the_processor_serves(
    built: tuple[BuildPlan, Bundle], bench: Bench, fate: str
) -> None:
    _, bundle = built
    bench.change(FAKE_NPU=fate)
    assert bench.deploy(bundle).self_check.passed
    report = bench.measure(bundle)
    assert report.verdict == "fell-back-to-cpu"
    row = report.placement.actual[0]
    assert (row.backend, row.accelerator) == ("openvino-cpu", False)
    assert "fell back from openvino-npu (openvino): " in row.detail


def test_the_same_model_gives_the_same_bundle(
    built: tuple[BuildPlan, Bundle], tmp_path: Path
) -> None:
    plan, bundle = built
    folder = bundle.folder.parent
    opened = open_model(folder / "net.onnx")
    calib = open_dataset(str(folder / "calib.npz"), opened.source.inputs)
    again = build_bundle(
        opened, TARGET, Recipe(precision="int8"), plan, calib=calib, out=tmp_path / "again"
    )
    assert again.id == bundle.id
