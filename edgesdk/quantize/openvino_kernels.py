"""Count the 8-bit kernels that OpenVINO makes of a Q/DQ graph, in its runtime model.

The runtime model names for every primitive the layers it was made of and the precision it
computes in (https://docs.openvino.ai/2026/openvino-workflow/running-inference.html).
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.model.openvino_layers import layers_of
from edgesdk.model.save import save_model
from edgesdk.quantize.host import one_line
from edgesdk.quantize.kernels import Kernels
from edgesdk.quantize.layout import Layout

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["KernelsUnknown", "count_openvino_kernels", "has_openvino"]

_COMPUTE = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm"})
_WHOLE = frozenset({"u8", "i8"})


class KernelsUnknown(Exception):
    """OpenVINO does not take a graph as a whole."""


def has_openvino() -> bool:
    """Say whether OpenVINO is installed here."""
    return importlib.util.find_spec("openvino") is not None


def count_openvino_kernels(model: onnx_ir.Model, layout: Layout) -> Kernels:
    """Compile a Q/DQ graph for the processor, and look up what each compute node became.

    Raises:
        KernelsUnknown: OpenVINO does not compile the graph; the text says why.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="edgesdk-kernels-") as folder:
        path = save_model(model, Path(folder), "model")[0]
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU")
            nodes = compiled.get_runtime_model().get_ordered_ops()
        except RuntimeError as exc:
            raise KernelsUnknown(one_line(exc)) from exc
        whole = _layers_of_whole_primitives(nodes)
    planned = [name for name, unit in layout.units.items() if unit.role == "compute"]
    stuck = tuple(name for name in planned if name not in whole)
    return Kernels(
        whole=len(planned) - len(stuck),
        planned=len(planned),
        float_nodes=stuck,
        conversions=sum(_of(node, "layerType") == "FakeQuantize" for node in nodes),
    )


def _layers_of_whole_primitives(nodes: list[Any]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if _of(node, "layerType") in _COMPUTE and _of(node, "runtimePrecision") in _WHOLE:
            names |= layers_of(_of(node, "originalLayersNames"))
    return names


def _of(node: Any, key: str) -> str:
    info = node.get_rt_info()
    return str(info[key].value) if key in info else ""
