"""Ways in which a model changes between two releases, as bytes of ONNX files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["EDITS", "convolution_net", "edited"]

SEED = 20


def _weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Tensors with trained values, the largest first; other constants are left alone."""
    tensors = [
        node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    ]
    tensors += model.graph.initializer
    floats = [t for t in tensors if t.data_type == onnx.TensorProto.FLOAT and t.raw_data]
    return sorted(floats, key=lambda t: -len(t.raw_data))


def _set(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.raw_data = values.astype("<f4").tobytes()


def _moved(tensor: onnx.TensorProto, rng: np.random.Generator, amount: float) -> None:
    values = numpy_helper.to_array(tensor)
    _set(tensor, values + amount * values.std() * rng.standard_normal(values.shape))


def identical(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del model, rng


def metadata(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del rng
    model.doc_string = "retrained on the second of March, see the log of run 4711 " + "x" * 7


def renamed(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    del rng
    for number, node in enumerate(model.graph.node):
        node.name = f"released/{node.op_type}_{number}"


def one_tensor(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One of the larger tensors trained on: every value of it moves by a tenth."""
    weights = _weights(model)
    _moved(weights[min(2, len(weights) - 1)], rng, 0.1)


def one_tensor_new(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A new head: nothing of the old values is left."""
    weights = _weights(model)
    tensor = weights[min(2, len(weights) - 1)]
    values = numpy_helper.to_array(tensor)
    _set(tensor, values.std() * rng.standard_normal(values.shape))


def scattered(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """One weight in a thousand moves."""
    for tensor in _weights(model):
        values = numpy_helper.to_array(tensor).copy()
        flat = values.reshape(-1)
        spots = np.flatnonzero(rng.random(flat.size) < 0.001)
        flat[spots] += 0.1 * values.std() * rng.standard_normal(len(spots))
        _set(tensor, values)


def every_weight(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Training went on: every weight moves by a hundredth."""
    for tensor in _weights(model):
        _moved(tensor, rng, 0.01)


def everything(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Trained anew: no value is left."""
    for tensor in _weights(model):
        values = numpy_helper.to_array(tensor)
        _set(tensor, (values.std() + 1e-6) * rng.standard_normal(values.shape))


EDITS: dict[str, Callable[[onnx.ModelProto, np.random.Generator], None]] = {
    "identical": identical,
    "metadata": metadata,
    "renamed": renamed,
    "one tensor": one_tensor,
    "one tensor new": one_tensor_new,
    "scattered": scattered,
    "every weight": every_weight,
    "everything": everything,
}


def edited(model: bytes, edit: str) -> bytes:
    """Give the model with one of `EDITS`; always the same bytes."""
    proto = onnx.load_from_string(model)
    EDITS[edit](proto, np.random.default_rng(SEED))
    return proto.SerializeToString(deterministic=True)


def convolution_net(channels: int = 256, layers: int = 4) -> bytes:
    """Make a float model of about ``layers * channels^2 * 36`` bytes."""
    rng = np.random.default_rng(SEED)
    nodes, initializers = [], []
    for number in range(layers):
        weights = rng.laplace(0, 0.05, (channels, channels, 3, 3)).astype(np.float32)
        bias = rng.normal(0, 0.1, channels).astype(np.float32)
        names = [f"layer{number}.weight", f"layer{number}.bias"]
        initializers += [
            numpy_helper.from_array(weights, names[0]),
            numpy_helper.from_array(bias, names[1]),
        ]
        nodes += [
            onnx.helper.make_node(
                "Conv",
                [f"x{number}", *names],
                [f"c{number}"],
                name=f"/layer{number}/Conv",
                pads=[1, 1, 1, 1],
            ),
            onnx.helper.make_node(
                "Relu", [f"c{number}"], [f"x{number + 1}"], name=f"/layer{number}/Relu"
            ),
        ]
    shape = [1, channels, 8, 8]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "net",
        [value("x0", onnx.TensorProto.FLOAT, shape)],
        [value(f"x{layers}", onnx.TensorProto.FLOAT, shape)],
        initializers,
    )
    return onnx.helper.make_model(graph, producer_name="edgesdk-tests").SerializeToString()
