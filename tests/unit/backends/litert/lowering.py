"""What tests of the lowering share: lower a graph, run the file, say how far off it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime

from edgesdk.backends.base import NodesRefused
from edgesdk.backends.litert.lower import lower_graph
from edgesdk.backends.litert.rules import why_not_lowered
from edgesdk.errors import ModelError
from edgesdk.model.kernels import kernel_graph
from edgesdk.model.save import model_bytes
from edgesdk.model.shapes import with_shapes

__all__ = [
    "Arrays",
    "LiteRT",
    "beyond_steps",
    "far",
    "in_onnxruntime",
    "lower",
    "refusals",
    "steps_of",
]

Arrays = dict[str, np.ndarray]


def refusals(model: ir.Model) -> dict[str, str]:
    """Ask the rules about every operator of a graph: name of its first output to the reason."""
    found = {}
    for node in kernel_graph(model).nodes.values():
        reason = why_not_lowered(node)
        if reason is not None:
            found[node.outputs[0]] = reason
    return found


def lower(model: ir.Model) -> bytes | dict[str, str]:
    """Lower a graph as the build does: by the rules, then by the compiler.

    Returns:
        The file, or why not, by name of the first output of what is refused.
    """
    if found := refusals(model):
        return found
    try:
        model = with_shapes(model)
    except ModelError as exc:
        return {model.graph.node(0).outputs[0].name or "": str(exc)}
    if found := refusals(model):
        return found
    try:
        return lower_graph(model)
    except NodesRefused as exc:
        return exc.reasons


class LiteRT:
    """A file in LiteRT, ``plain`` without XNNPACK."""

    def __init__(self, blob: bytes, *, plain: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.AUTO
        if plain:
            kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter: Any = Interpreter(
            model_content=blob, num_threads=1, experimental_op_resolver_type=kernels
        )
        self._interpreter.allocate_tensors()

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Give every output by name; inputs that the file does not have are left out."""
        run = self._interpreter
        for detail in run.get_input_details():
            run.set_tensor(detail["index"], inputs[detail["name"]])
        run.invoke()
        return {
            detail["name"]: run.get_tensor(detail["index"]).copy()
            for detail in run.get_output_details()
        }


def in_onnxruntime(model: ir.Model, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Run a graph in onnxruntime as it is written, Q/DQ pairs in float."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model_bytes(model), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def far(given: np.ndarray, wanted: np.ndarray) -> float:
    """Give the largest difference as a share of the largest finite value that is wanted.

    Numbers that are not finite have to be the same; integers and truth values too: one that
    differs is infinitely far. So is another shape or another type.
    """
    if given.shape != wanted.shape or given.dtype != wanted.dtype:
        return np.inf
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(given, wanted) else np.inf
    finite = np.isfinite(wanted)
    if not np.array_equal(given[~finite], wanted[~finite], equal_nan=True):
        return np.inf
    apart = np.abs(given[finite].astype("f8") - wanted[finite].astype("f8"))
    largest = np.abs(wanted[finite].astype("f8")).max(initial=0.0)
    most = float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
    return most / float(largest) if largest else most


def beyond_steps(given: np.ndarray, wanted: np.ndarray, step: float) -> float:
    """Give the share of elements that are more than a quantization step off."""
    assert given.shape == wanted.shape
    assert given.dtype == wanted.dtype
    if not wanted.size:
        return 0.0
    apart = np.abs(given.astype("f8") - wanted.astype("f8"))
    # a step of 16 bits is near what float32 tells apart in the largest numbers
    return float(np.mean(~(apart <= step * 1.01)))


def steps_of(model: ir.Model) -> dict[str, float]:
    """Give the quantization step of each output that a dequantizer gives."""
    found = {}
    for value in model.graph.outputs:
        maker = value.producer()
        if maker is not None and maker.op_type == "DequantizeLinear":
            scale = ir.convenience.get_const_tensor(maker.inputs[1])
            assert scale is not None
            found[value.name or ""] = float(np.max(scale.numpy()))
    return found
