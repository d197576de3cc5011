"""Graphs in ONNX text form, written as files; and a bare runtime to compare numbers with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

WriteModel = Callable[..., Path]
RunModel = Callable[..., list[Any]]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Write a graph given as text; ``weights`` become initializers."""

    def write(
        text: str,
        *,
        opset: int = 17,
        ir_version: int = 8,
        weights: dict[str, np.ndarray] | None = None,
        name: str = "model.onnx",
    ) -> Path:
        head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>'
        model = onnx.parser.parse_model(f"{head}\n{text}")
        for key, array in (weights or {}).items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, key))
        path = tmp_path / name
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture
def run_model() -> RunModel:
    """Run a model's bytes on inputs drawn from a fixed seed."""
    import onnxruntime as ort

    def run(data: bytes, feeds: dict[str, np.ndarray] | None = None) -> list[Any]:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        if feeds is None:
            draw = np.random.default_rng(0)
            feeds = {}
            for value in session.get_inputs():
                shape = [
                    extent if isinstance(extent, int) and extent > 0 else (1, 3, 64, 96)[axis]
                    for axis, extent in enumerate(value.shape)
                ]
                feeds[value.name] = draw.standard_normal(shape).astype(np.float32)
        return list(session.run(None, feeds))

    return run
