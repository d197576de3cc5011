"""What a LiteRT delegate took and what XNNPACK did, told by LiteRT itself, over ``local:``.

The delegate is a stand-in under the Edge TPU's library name; loading it, dividing the graph and
running both sides is LiteRT's own work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.backends.litert.lower import lower_graph
from edgesdk.bench import BenchSpec, run_benchmark
from edgesdk.bench.gate import check_cpu_time
from edgesdk.build.reference import TfliteOnHost
from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.errors import FindingsError
from edgesdk.profiles import find_target
from edgesdk.testing import FakeDelegate
from edgesdk.wire.manifest import MANIFEST_SCHEMA
from tests.unit.backends.litert import graphs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FakeDelegate.why_not() is not None, reason=str(FakeDelegate.why_not())),
]
TARGET = find_target("coral-dev-board")
SHAPE = (1, 8, 64, 64)
GRAPH = """
g (float[1,8,64,64] x) => (float[1,8,64,64] y)
{ a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Sigmoid(a)  c = Tanh(b)  y = Conv(c, v) }
"""
#: The first convolution was planned for the delegate, which does not take it.
PLANNED = {"a": "edgetpu", "b": "edgetpu", "c": "edgetpu", "y": "litert-cpu"}


def value(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": list(SHAPE)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("made")
    random = np.random.default_rng(2)
    weights = {
        "w": random.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32),
        "v": random.normal(0, 0.2, (8, 8, 1, 1)).astype(np.float32),
    }
    path = folder / "m.tflite"
    path.write_bytes(lower_graph(graphs.build(GRAPH, weights)))
    x = random.normal(0, 1, SHAPE).astype(np.float32)
    y = TfliteOnHost(path).run({"x": x})["y"]
    nodes = [
        {"index": i, "name": "", "op": "Op", "backend": backend, "gives": [name], "reads": []}
        for i, (name, backend) in enumerate(PLANNED.items())
    ]
    with BundleWriter(folder / "bundle") as writer:
        part = {
            "backend": "edgetpu",
            "runtime": "litert",
            "format": "tflite",
            "precision": "fp32",
            "files": [{"role": "model", **writer.add_file(path)}],
            "inputs": [value("x")],
            "outputs": [value("y")],
            "options": {"delegate": "edgetpu"},
        }
        check = {
            "blob": writer.add_bytes(x.tobytes() + y.tobytes()),
            "inputs": [{**value("x"), "offset": 0, "nbytes": x.nbytes}],
            "expected": [{**value("y"), "offset": x.nbytes, "nbytes": y.nbytes}],
            "reference": [],
            "tolerance": [{"output": "y", "abs": 1e-4, "rel": 0.0}],
        }
        plan = json.dumps({"nodes": nodes}).encode()
        return writer.finish(
            {
                "schema": MANIFEST_SCHEMA,
                "name": "delegated",
                "precision": "fp32",
                "target": {"name": TARGET.name},
                "model": {},
                "inputs": [value("x")],
                "outputs": [value("y")],
                "parts": [part],
                "checks": [check],
                "attachments": [{"role": "plan", **writer.add_bytes(plan)}],
                "predicted": {"nodes_by_backend": {"edgetpu": 3, "litert-cpu": 1}},
            }
        )


def test_delegate_and_processor_share_the_time_as_litert_divides_the_graph(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delegate = FakeDelegate(tmp_path / "lib", library="libedgetpu.so.1")
    for name, text in delegate.environment().items():
        monkeypatch.setenv(name, text)
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    with connect(device) as session:
        deploy_bundle(bundle, session, device=device, profile=TARGET, force_target=True)
        report = run_benchmark(
            session,
            bundle,
            device=device,
            spec=BenchSpec(runs=30, warmup_runs=3),
            profile=TARGET,
        )
    offload = report.offload
    assert offload is not None
    ran = {op.nodes[0]: op for op in offload.ops if op.nodes}
    assert {name: (op.backend, op.where) for name, op in ran.items()} == {
        "a": ("litert-cpu", "XNNPACK"),
        "b": ("edgetpu", "EDGETPU"),
        "c": ("edgetpu", "EDGETPU"),
        "y": ("litert-cpu", "XNNPACK"),
    }
    assert all(op.derived for op in offload.ops)
    assert [op.nodes[0] for op in offload.ops if op.agrees is False] == ["a"]
    assert offload.disagreements[0].startswith(
        "a was planned for edgetpu and ran on the CPU in XNNPACK: "
    )
    assert offload.accelerator_share is not None
    assert 0 < offload.accelerator_share < 1
    assert report.verdict in ("partly-fell-back", "accelerated")  # by how long `a` took
    check_cpu_time(offload, 1.0 - offload.accelerator_share + 1e-9)
    with pytest.raises(FindingsError, match="XNNPACK"):
        check_cpu_time(offload, 0.0)
