"""Lower ONNX to TFLite: Q/DQ and float graphs to a flatbuffer, without TensorFlow.

``walk`` goes through the graph, ``ops`` has what is made of each operator, ``site`` what such
a lowering is given, ``builder`` what turns and requantizes, ``write`` the file. How an operator
is added is in the README of the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["lower_graph"]


def lower_graph(model: ir.Model, versions: Mapping[str, int] | None = None) -> bytes:
    """Give the ``.tflite`` file of a graph of fixed shapes.

    Its inputs and outputs have the names, types and layouts of the model's. Where a kernel's
    input and output go through Q/DQ pairs it computes in integers on exactly these grids,
    unsigned ones moved to signed ones; elsewhere it computes in float32.

    Args:
        model: Its graph, with the shapes of its values known.
        versions: By operator of TFLite, the last version that whoever reads the file knows;
            none later is written, and none that is not listed. None where any will do.

    Raises:
        NodesRefused: Nodes that have no form in TFLite, by name of their first output.
        CompileError: The file cannot be written.
    """
    from edgesdk.backends.litert.lower.walk import lower_to_graph
    from edgesdk.backends.litert.lower.write import write_graph

    return write_graph(lower_to_graph(model, versions))
