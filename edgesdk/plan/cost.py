"""How long a node takes on a backend, roughly: a roofline over the profile's figures.

A node takes as long as its multiply-accumulates at the backend's rate, or as long as going
through its tensors, whichever is longer (S. Williams et al., "Roofline: an insightful visual
performance model", CACM 2009). It is good enough to weigh one placement against another, and
no forecast of milliseconds: the report sets what was measured beside it.
"""

from __future__ import annotations

import math

from edgesdk.model.values import NodeFacts
from edgesdk.plan.memory import tensor_bytes
from edgesdk.profiles.values import BackendProfile, Speed
from edgesdk.tensors import TensorInfo

__all__ = ["copy_us", "count_macs", "launch_us", "node_bytes", "node_us", "speed_of"]

#: What is taken of a backend whose profile says nothing, by whether it is an accelerator.
_DEFAULT = {
    False: Speed(
        gmacs_per_s={"fp32": 5.0}, move_mb_per_s=2000, copy_mb_per_s=None, launch_us=20
    ),
    True: Speed(
        gmacs_per_s={"fp32": 200.0}, move_mb_per_s=4000, copy_mb_per_s=400, launch_us=150
    ),
}
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
_NO_WORK = frozenset(
    {"Constant", "Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"}
    | {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE"}
)


def speed_of(backend: BackendProfile) -> Speed:
    """Give the profile's figures, or what is taken where it has none."""
    return _DEFAULT[backend.accelerator] if backend.speed is None else backend.speed


def node_us(node: NodeFacts, backend: BackendProfile, precision: str) -> float:
    """Say how many microseconds a node takes, launching and copying aside."""
    if node.op in _NO_WORK:
        return 0.0
    speed = speed_of(backend)
    rate = speed.gmacs_per_s.get(precision)
    if rate is None:
        rate = min(speed.gmacs_per_s.values())
    computing = count_macs(node) / (rate * 1e3)
    moving = node_bytes(node, precision) / speed.move_mb_per_s
    return max(computing, moving)


def launch_us(backend: BackendProfile) -> float:
    """Say how many microseconds one call of a backend costs however little it does."""
    return speed_of(backend).launch_us


def copy_us(size: int, backend: BackendProfile) -> float:
    """Say how many microseconds a tensor takes between the processor and a backend."""
    rate = speed_of(backend).copy_mb_per_s
    return 0.0 if rate is None else size / rate


def count_macs(node: NodeFacts) -> int:
    """Count the multiply-accumulates of a node; 0 where shapes do not tell or it has none.

    Operators of ONNX and of TFLite are known. An unknown extent counts as 1.
    """
    result, weight = _shape(node.output_types, 0), _shape(node.input_types, 1)
    source = _shape(node.input_types, 0)
    if result is None or not weight or source is None:
        return _recurrent(node)
    if node.op in ("TRANSPOSE_CONV", "ConvTranspose"):
        if node.op == "TRANSPOSE_CONV":  # reads the shape it gives, weights OHWI, the tensor
            source, weight = _shape(node.input_types, 2) or (), (1, *weight[:-1])
        return math.prod(source) * math.prod(weight[1:])
    per_result = {
        "Conv": math.prod(weight[1:]),
        "FusedConv": math.prod(weight[1:]),
        "CONV_2D": math.prod(weight[1:]),
        "DEPTHWISE_CONV_2D": math.prod(weight[1:-1]),
        "FULLY_CONNECTED": weight[-1],
        "MatMul": source[-1] if source else 1,
        "BATCH_MATMUL": source[-1] if source else 1,
        "Gemm": source[0 if node.ints.get("transA", (0,))[0] else -1] if source else 1,
    }
    each = per_result.get(node.op)
    return _recurrent(node) if each is None else math.prod(result) * each


def _recurrent(node: NodeFacts) -> int:
    """Count for ONNX's recurrent layers: both products of every step, in every direction."""
    gates = _RECURRENT.get(node.op)
    inputs, recurrence = _shape(node.input_types, 1), _shape(node.input_types, 2)
    source = _shape(node.input_types, 0)
    if gates is None or inputs is None or recurrence is None or source is None:
        return 0
    steps = math.prod(source[:-1])
    return steps * (math.prod(inputs) + math.prod(recurrence))


def node_bytes(node: NodeFacts, precision: str) -> int:
    """Give the bytes of all tensors a node reads and writes, in the width of ``precision``."""
    pairs = (
        *zip(node.inputs, node.input_types, strict=False),
        *zip(node.outputs, node.output_types, strict=False),
    )
    return sum(
        tensor_bytes(value, precision) for name, value in pairs if name and value is not None
    )


def _shape(types: tuple[TensorInfo | None, ...], position: int) -> tuple[int, ...] | None:
    value = types[position] if position < len(types) else None
    if value is None:
        return None
    return tuple(extent if isinstance(extent, int) else 1 for extent in value.shape)
