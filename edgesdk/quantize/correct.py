"""Bias correction: take back what rounding shifts the mean of each output channel by.

After Nagel et al., Data-Free Quantization, 2019 (arXiv:1906.04721), with the inputs' means
taken from calibration, and with what rounding and clipping the inputs shifts them by included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgesdk.quantize.edit import group_of, is_transposed, set_bias
from edgesdk.quantize.layout import Layout
from edgesdk.quantize.operands import constant_array

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from edgesdk.quantize.grid import Grid, Step
    from edgesdk.quantize.observers import TensorStats
    from edgesdk.quantize.weights import WholeWeight

__all__ = ["correct_biases"]


def correct_biases(
    model: onnx_ir.Model,
    layout: Layout,
    *,
    stats: Mapping[str, TensorStats],
    grid: Grid,
    steps: Mapping[int, Step],
    weights: Mapping[tuple[str, int], WholeWeight],
) -> int:
    """Change the biases of ``model`` in place; say how many.

    Convolutions and Gemms only; one without a bias gets one. Borders are taken to see what the
    inside sees.
    """
    import numpy as np

    nodes = {node.name or "": node for node in model.graph}
    count = 0
    for unit in layout.compute:
        name, op = unit.node.name or "", unit.node.op_type
        source = unit.node.inputs[0]
        if op not in ("Conv", "Gemm") or source is None or (name, 1) not in weights:
            continue
        known = stats.get(source.name or "")
        node = nodes[name]
        weight = constant_array(node.inputs[1])
        if known is None or known.axis is None or weight is None or not len(known.rows):
            continue
        step = steps[layout.tensors[source.name or ""]]
        rows = known.rows
        whole = grid.quantize(rows, step).astype(np.float64)
        seen = (whole - step.zero_point) * step.scale
        mean = known.channel_mean
        if mean is None or mean.shape != rows.shape[1:] or mean.size != _width(node, weight):
            continue
        # the mean is exact; what rounding and clipping do to it is told by the sampled places
        moved = mean + seen.mean(axis=0) - rows.mean(axis=0, dtype=np.float64)
        shift = _through(node, weights[name, 1].numbers(), moved)
        shift -= _through(node, weight.astype(np.float64), mean)
        bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        before = np.zeros(shift.shape) if bias is None else bias.reshape(-1).astype(np.float64)
        if not np.isfinite(shift).all():
            continue
        set_bias(model.graph, node, before - shift)
        count += 1
    return count


def _width(node: onnx_ir.Node, weight: np.ndarray) -> int:
    """Give how many channels a layer reads."""
    if node.op_type == "Gemm":
        return int(weight.shape[1 if is_transposed(node) else 0])
    return int(weight.shape[1]) * group_of(node)


def _through(node: onnx_ir.Node, weight: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Give what constant inputs of ``means`` per channel make of each output channel."""
    if node.op_type == "Gemm":
        columns: np.ndarray = (weight if is_transposed(node) else weight.T) @ means
        return columns
    groups = group_of(node)
    summed = weight.reshape(weight.shape[0], weight.shape[1], -1).sum(axis=2)
    by_group = summed.reshape(groups, -1, weight.shape[1])
    result: np.ndarray = (by_group @ means.reshape(groups, -1, 1)).reshape(-1)
    return result
