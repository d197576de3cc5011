"""Count the 8-bit kernels that onnxruntime makes of a Q/DQ graph, in the graph that it runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.quantize.host import HostSession
from edgesdk.quantize.layout import Layout

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Kernels", "count_kernels"]

#: Compute operators that still work on floats once the runtime has optimized a graph.
_IN_FLOAT = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """What became of a Q/DQ graph in the runtime.

    Attributes:
        whole: How many compute nodes run in an 8-bit kernel.
        planned: How many were meant to.
        float_nodes: Names of the compute nodes that stayed in float.
        other_float: Names of other nodes with pairs around them that compute in float.
        conversions: QuantizeLinear and DequantizeLinear nodes that are left over.
    """

    whole: int
    planned: int
    float_nodes: tuple[str, ...]
    other_float: tuple[str, ...] = ()
    conversions: int = 0


def count_kernels(model: onnx_ir.Model, layout: Layout) -> Kernels:
    """Load a Q/DQ graph with its fusions on, and count kernels in the graph that results.

    Raises:
        QuantizeError: onnxruntime does not load the graph.
    """
    import onnx

    with tempfile.TemporaryDirectory(prefix="edgesdk-kernels-") as folder:
        path = Path(folder) / "optimized.onnx"
        HostSession(model, optimize="extended", optimized=path, signed=_is_signed(model))
        graph = onnx.load(path, load_external_data=False).graph
    planned = [name for name, unit in layout.units.items() if unit.role == "compute"]
    made_float = {
        name
        for node in graph.node
        if node.op_type == "DequantizeLinear"
        for name in node.output
    }
    reads_float = {
        node.name
        for node in graph.node
        if node.op_type != "QuantizeLinear" and any(name in made_float for name in node.input)
    }
    others = tuple(
        name
        for name, unit in layout.units.items()
        if unit.role != "compute" and name in reads_float
    )
    still = {node.name for node in graph.node if node.op_type in _IN_FLOAT}
    float_nodes = tuple(name for name in planned if name in still)
    conversions = sum(
        node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node
    )
    return Kernels(
        whole=len(planned) - len(float_nodes),
        planned=len(planned),
        float_nodes=float_nodes,
        other_float=others,
        conversions=conversions,
    )


def _is_signed(model: onnx_ir.Model) -> bool:
    """Say whether activations are int8: such graphs are for Arm, and are looked at as there."""
    import onnx_ir as ir

    zeros = (n.inputs[2] for n in model.graph if n.op_type == "QuantizeLinear")
    return any(zero is not None and zero.dtype == ir.DataType.INT8 for zero in zeros)
