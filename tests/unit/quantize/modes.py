"""What the tests of the modes without calibration share: graphs as text, and running them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from edgesdk.model import fit_opset, open_model, simplify
from edgesdk.model.save import model_bytes

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def graph(text: str, weights: dict[str, np.ndarray] | None = None) -> ir.Model:
    """Read a graph, with its header or without, and infer its types."""
    proto = onnx.parser.parse_model(text if text.lstrip().startswith("<") else HEADER + text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    return ir.serde.deserialize_model(inferred)


def normal(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(model: ir.Model, **inputs: np.ndarray) -> list[np.ndarray]:
    """Check a model by ONNX's checker, and run it."""
    data = model_bytes(model)
    onnx.checker.check_model(data)
    return _session(data).run(None, inputs)


def far(model: ir.Model, other: ir.Model, **inputs: np.ndarray) -> float:
    """Give the largest difference of two models' outputs, as a share of the largest output."""
    most = 0.0
    for a, b in zip(run(model, **inputs), run(other, **inputs), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        scale = max(float(np.abs(a).max(initial=0)), 1e-6)
        most = max(most, float(np.abs(a.astype("f8") - b.astype("f8")).max(initial=0)) / scale)
    return most


def ops(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.all_nodes())


def kernels(model: ir.Model, folder: Path) -> Counter[str]:
    """Count what onnxruntime runs after its optimizations, in bodies too."""
    path = folder / "optimized.onnx"
    _session(model_bytes(model), path)
    # some releases leave weights in memory and write where they were
    optimized = ir.serde.deserialize_model(onnx.load(path, load_external_data=False))
    return ops(optimized)


def size(model: ir.Model) -> int:
    return len(model_bytes(model))


def speech(assets: Path, name: str) -> ir.Model:
    """Open a model of the assets, simplified and at opset 17."""
    path = assets / "speech_digits" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"needs a model file: there is no {path}")
    model = simplify(open_model(path).ir)
    return fit_opset(model, lowest=13, highest=None, max_ir=None)


def speech_accuracy(assets: Path, model: ir.Model) -> float:
    """Give the share of 100 recordings whose digit is heard right."""
    data = np.load(assets / "speech_digits" / "eval.npz")
    features, labels = data["x_test"][::3].astype(np.float32), data["y_test"][::3]
    session = _session(model_bytes(model))
    heard = session.run(None, {session.get_inputs()[0].name: features})[0]
    return float((heard.argmax(axis=1) == labels).mean())


def _session(data: bytes, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
