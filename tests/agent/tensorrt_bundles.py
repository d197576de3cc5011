"""Bundles of one TensorRT part, whose model is small and real."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime

from tests.agent.agent_driver import EchoBundle

FALLBACKS = [
    {
        "backend": "ort-cuda",
        "runtime": "onnxruntime",
        "options": {"provider": "CUDAExecutionProvider"},
    },
    {"backend": "ort-cpu", "runtime": "onnxruntime", "options": {}},
]
PLAIN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y) { t = Relu(x)  y = Add(t, x) }
"""
QUANTIZED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y)
<float s = {0.05}, int8 z = {0}>
{ q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Relu(d) }
"""
HALF = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y)
{ h = Cast <to = 10> (x)  r = Relu(h)  y = Cast <to = 1> (r) }
"""


class TensorrtBundle(EchoBundle):
    """One part for TensorRT, with what onnxruntime answers as what is expected."""

    def __init__(
        self,
        text: str = PLAIN,
        *,
        precision: str = "fp32",
        dla: int | None = None,
        fallbacks: list[dict[str, Any]] = FALLBACKS,
        calibration: bytes | None = None,
        model: bytes | None = None,
        name: str = "small",
    ) -> None:
        super().__init__(name=name)
        self.blobs.clear()
        graph = onnx.parser.parse_model(text)
        data = graph.SerializeToString() if model is None else model
        x = np.array([[-1.0, 0.0, 0.5, 2.0]], np.float32)
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        y = session.run(None, {"x": x})[0]
        taken = {"name": "x", "dtype": "float32", "shape": [1, 4]}
        given = {"name": "y", "dtype": "float32", "shape": [1, 4]}
        files = [{**self._add(data), "role": "model"}]
        if calibration is not None:
            files.append({**self._add(calibration), "role": "calibration"})
        options: dict[str, Any] = {"precision": precision}
        if dla is not None:
            options["dla"] = dla
        self.manifest.update(
            inputs=[taken],
            outputs=[given],
            parts=[
                {
                    "backend": "tensorrt",
                    "runtime": "tensorrt",
                    "format": "onnx",
                    "precision": precision,
                    "files": files,
                    "inputs": [taken],
                    "outputs": [given],
                    "options": options,
                    "fallbacks": fallbacks,
                }
            ],
            checks=[
                {
                    "blob": self._add(x.tobytes() + y.tobytes()),
                    "inputs": [{**taken, "offset": 0, "nbytes": 16}],
                    "expected": [{**given, "offset": 16, "nbytes": 16}],
                    "reference": [],
                    "tolerance": [{"output": "y", "abs": 1e-6, "rel": 0.0}],
                }
            ],
        )
