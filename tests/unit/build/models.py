"""A small convolutional classifier, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

CLASSIFIER = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[1, 3, 16, 16] image) => (float[1, 5] scores)
<float[8, 3, 3, 3] w1, float[8] b1, float[8, 1, 3, 3] w2, float[5, 8] w3, float[5] b3>
{
    c1 = Conv <pads = [1, 1, 1, 1]> (image, w1, b1)
    r1 = Relu (c1)
    c2 = Conv <pads = [1, 1, 1, 1], group = 8> (r1, w2)
    r2 = Relu (c2)
    p = GlobalAveragePool (r2)
    f = Flatten (p)
    scores = Gemm <transB = 1> (f, w3, b3)
}
"""


def classifier(path: Path, text: str = CLASSIFIER) -> Path:
    """Write the model with seeded weights in the places that the text declares."""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(7)
    for declared in model.graph.value_info:
        shape = [extent.dim_value for extent in declared.type.tensor_type.shape.dim]
        values = (random.standard_normal(shape) * 0.4).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, declared.name))
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path
