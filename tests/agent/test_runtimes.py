"""Real runtimes in a worker under this test's own interpreter, which has them installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.wire.manifest import part_file_name
from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, deploy, push

pytest.importorskip("onnx", reason="needs onnx to make a model")
MODEL = """
<ir_version: 8, opset_import: ["": 13]>
g (float[1,8] x) => (float[1,8] y, int64[1,1] best) {
    y = Relu(x)
    best = ArgMax<axis = 1, keepdims = 1>(x)
}
"""
X = np.array([[-3, 2, -1, 0, 1, 9, 3, -4]], dtype=np.float32)
Y = np.maximum(X, 0)
BEST = np.array([[5]], dtype=np.int64)


def spec(name: str, array: np.ndarray, offset: int) -> dict[str, Any]:
    shape = list(array.shape)
    found = {"name": name, "dtype": array.dtype.name, "shape": shape}
    return {**found, "offset": offset, "nbytes": array.nbytes}


def onnx_bundle(runtime: str, text: str = MODEL, **options: Any) -> EchoBundle:
    import onnx.parser

    bundle = EchoBundle(runtime=runtime, options=options)
    bundle.blobs.clear()
    model = onnx.parser.parse_model(text).SerializeToString()
    blob = X.tobytes() + Y.tobytes() + BEST.tobytes()
    inputs = [{"name": "x", "dtype": "float32", "shape": [1, 8]}]
    outputs = [
        {"name": "y", "dtype": "float32", "shape": [1, 8]},
        {"name": "best", "dtype": "int64", "shape": [1, 1]},
    ]
    part = bundle.manifest["parts"][0]
    part |= {"format": "onnx", "inputs": inputs, "outputs": outputs}
    part["files"] = [{**bundle._add(model), "role": "model"}]
    bundle.manifest |= {"inputs": inputs, "outputs": outputs}
    bundle.manifest["checks"] = [
        {
            "blob": bundle._add(blob),
            "inputs": [spec("x", X, 0)],
            "expected": [spec("y", Y, X.nbytes), spec("best", BEST, X.nbytes + Y.nbytes)],
            "reference": [],
            "tolerance": [{"output": "y", "abs": 1e-6, "rel": 0.0}],
        }
    ]
    return bundle


@pytest.fixture
def agent(start: Start) -> AgentProcess:
    return start("--python", sys.executable)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_onnx_part_runs_and_is_measured(agent: AgentProcess, runtime: str) -> None:
    module = pytest.importorskip(runtime, reason=f"needs {runtime}")
    bundle = onnx_bundle(runtime, threads=1)
    if runtime == "openvino":
        # it gives indices as int32 or int64, depending on version: only the values count here
        push(agent, bundle)
        reply = agent.ask("check", bundle=bundle.id).meta
        assert reply["vectors"][0]["outputs"][0]["within"] is True
    else:
        deploy(agent, bundle)
        reply = agent.ask("check", bundle=bundle.id).meta
    version = module.__version__.split("-")[0]
    assert (reply["runtimes"][0]["runtime"], reply["runtimes"][0]["version"]) == (
        runtime,
        version,
    )
    assert reply["runtimes"][0]["detail"]["threads"] == 1
    tensors = [spec("x", -X, 0)]
    done = agent.ask("run", (-X).tobytes(), release=bundle.id, tensors=tensors)
    (y, _) = done.meta["tensors"]
    seen = np.frombuffer(done.body[y["offset"] :][: y["nbytes"]], dtype=np.float32)
    np.testing.assert_allclose(seen.reshape(1, 8), np.maximum(-X, 0))
    bench = agent.ask("bench", release=bundle.id, spec={"runs": 20, "warmup_runs": 2}).meta
    assert bench["runs"] == 20
    assert bench["peak_rss_bytes"] > 10 << 20


def test_onnxruntime_says_who_took_the_nodes(agent: AgentProcess) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    deploy(agent, bundle := onnx_bundle("onnxruntime"))
    detail = agent.ask("check", bundle=bundle.id).meta["runtimes"][0]["detail"]
    assert detail["providers"] == ["CPUExecutionProvider"]
    assert detail["assignment"] in (None, {"CPUExecutionProvider": 2})


def test_provider_that_is_not_there_is_named(agent: AgentProcess) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    push(agent, bundle := onnx_bundle("onnxruntime", provider="QNNExecutionProvider"))
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "worker-failed"
    assert "this onnxruntime has no QNNExecutionProvider (it has " in reply["detail"]


def test_model_the_runtime_cannot_load_is_its_own_words(agent: AgentProcess) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    bundle = EchoBundle(b"this is no model", runtime="onnxruntime")
    bundle.manifest["parts"][0]["format"] = "onnx"
    push(agent, bundle)
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["code"] == "worker-failed"
    assert reply["detail"].startswith("onnxruntime cannot load part 0: ")


def test_upgraded_runtime_is_checked_again(agent: AgentProcess, state: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    deploy(agent, bundle := onnx_bundle("onnxruntime"))
    assert agent.ask("check", bundle=bundle.id).meta["reused"] is True
    record = state / "releases" / bundle.id / "passed.json"
    import onnxruntime

    module = onnxruntime.__file__
    record.write_text(record.read_text().replace(module, module + ".elsewhere"))
    assert agent.ask("check", bundle=bundle.id).meta["reused"] is False


def test_external_data_lies_beside_its_model(agent: AgentProcess, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    import onnx
    from onnx import TensorProto, helper

    weights = np.arange(8, dtype=np.float32).reshape(1, 8)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1, 8], weights.tobytes(), raw=True)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [1, 8])],
        [value("y", TensorProto.FLOAT, [1, 8])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    data = part_file_name(0, "data", "onnx")
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=0)
    bundle = onnx_bundle("onnxruntime")
    bundle.manifest["outputs"] = bundle.manifest["outputs"][:1]
    part = bundle.manifest["parts"][0]
    part["outputs"] = part["outputs"][:1]
    part["files"] = [
        {**bundle._add(path.read_bytes()), "role": "model"},
        {**bundle._add((tmp_path / data).read_bytes()), "role": "data"},
    ]
    check = bundle.manifest["checks"][0]
    check["blob"] = bundle._add(X.tobytes() + (X + weights).tobytes())
    check["expected"] = check["expected"][:1]
    deploy(agent, bundle)
