"""Nodes with constant weights: which may have integers, and what both modes do alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.quantize._graph import (
    Names,
    add_constant,
    constant_of,
    make_node,
    replace_node,
    why_not_weights,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "LARGEST",
    "LARGEST_OF_7_BITS",
    "NO_WEIGHTS",
    "TableRewriter",
    "float_of",
    "gemm_bias",
    "int_of",
    "reads_no_table",
    "symmetric_int8",
    "why_not_matrix",
]

LARGEST, LARGEST_OF_7_BITS = 127, 63
NO_WEIGHTS = "none is a matrix product, a recurrent layer or a look-up"
_SMALLEST_SCALE = 2.0**-126
#: A row of a table gets a scale of its own, which has to be small beside it.
_NARROWEST_TABLE = 8


class TableRewriter:
    """Stores tables that Gather reads as int8, a scale per row, in standard operators."""

    def __init__(self, names: Names, least: int, largest: int = LARGEST) -> None:
        self._names = names
        self._least = least
        self._largest = largest
        self._tables: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def rewrite(self, node: ir.Node) -> str | None:
        """Replace a look-up, or say why not."""
        import onnx_ir as ir

        table, places = node.inputs[0], node.inputs[1]
        reason = self.why_not(node)
        if reason is not None or table is None or table.graph is None:
            return reason
        if table not in self._tables:
            tensor = constant_of(table)
            assert tensor is not None
            integers, scale = symmetric_int8(tensor.numpy(), 1, self._largest)
            self._tables[table] = (
                add_constant(table.graph, self._names, f"{table.name}.int8", integers),
                add_constant(
                    table.graph, self._names, f"{table.name}.scale", scale.astype("f4")[:, None]
                ),
            )
        integers_value, scales = self._tables[table]
        name = node.name or node.outputs[0].name or "Gather"
        rows = make_node(
            self._names,
            "Gather",
            [integers_value, places],
            name=f"{name}.int8",
            dtype=ir.DataType.INT8,
        )
        cast = make_node(
            self._names,
            "Cast",
            [rows.outputs[0]],
            {"to": int(ir.DataType.FLOAT)},
            name=f"{name}.cast",
        )
        scale_of = make_node(self._names, "Gather", [scales, places], name=f"{name}.scales")
        result = make_node(
            self._names, "Mul", [cast.outputs[0], scale_of.outputs[0]], name=f"{name}.real"
        )
        replace_node(node, [rows, cast, scale_of, result], result.outputs[0])
        return None

    def why_not(self, node: ir.Node) -> str | None:
        """Say why a look-up stays as it is, or None."""
        table = node.inputs[0]
        reason = why_not_weights(table, self._least)
        tensor = constant_of(table)
        if reason is not None or table is None or tensor is None:
            return reason
        if tensor.shape.rank() != 2 or int_of(node, "axis", 0) != 0:
            return "it does not pick rows of a table"
        if tensor.shape.numpy()[1] < _NARROWEST_TABLE:
            return f"the rows of its table are shorter than {_NARROWEST_TABLE}"
        others = [user.op_type for user, at in table.uses() if at or user.op_type != "Gather"]
        if others or any(int_of(user, "axis", 0) for user, _ in table.uses()):
            return f"its table is read by {(others or ['another Gather'])[0]} too"
        return None


def reads_no_table(node: ir.Node) -> bool:
    """Say whether a node is a look-up in something else than constant float numbers."""
    if node.op_type != "Gather":
        return False
    tensor = constant_of(node.inputs[0])
    return tensor is None or tensor.dtype.name != "FLOAT"


def why_not_matrix(node: ir.Node, least: int) -> str | None:
    """Say why a MatMul or Gemm cannot have quantized weights, or None."""
    left, right = node.inputs[0], node.inputs[1]
    if constant_of(right) is None:
        known = constant_of(left) is not None
        return "its weights are its first input" if known else "both its inputs are computed"
    if left is None or left.dtype is None or left.dtype.name != "FLOAT":
        return "it does not work on float32"
    if node.op_type == "Gemm" and int_of(node, "transA", 0):
        return "its first input is transposed"
    return why_not_weights(right, least) or _why_not_its_shape(left, right)


def _why_not_its_shape(left: ir.Value, right: ir.Value | None) -> str | None:
    """Say why the weights are no matrix that each row of the input is multiplied by."""
    tensor = constant_of(right)
    assert tensor is not None
    extents = tensor.shape.numpy()
    if len(extents) < 2:
        return "its weights are a vector"
    if any(extent != 1 for extent in extents[:-2]):
        return "its weights are a batch of matrices"
    if left.shape is None and len(extents) > 2:
        return "the shape of its input is not known"
    if left.shape is not None and left.shape.rank() < len(extents):
        return "its input has fewer dimensions than its weights"
    return None


def gemm_bias(node: ir.Node, product: ir.Value, names: Names) -> list[ir.Node]:
    """Make the nodes that add a Gemm's ``beta * C`` to its product; the last has the result.

    A constant bias becomes a vector, the only form that onnxruntime's kernels take in.
    """
    import numpy as np

    bias = node.inputs[2] if len(node.inputs) > 2 else None
    beta = float_of(node, "beta", 1.0)
    if bias is None or beta == 0.0 or node.graph is None:
        return []
    name = node.name or node.outputs[0].name or "Gemm"
    tensor = constant_of(bias)
    if tensor is not None:
        array = (tensor.numpy() * np.float32(beta)).astype(np.float32)
        weights, transposed = constant_of(node.inputs[1]), int_of(node, "transB", 0)
        assert weights is not None
        width = weights.shape.numpy()[0 if transposed else 1]
        if array.size == 1 or (array.size == width and array.shape[-1] == width):
            array = np.broadcast_to(array.reshape(-1), (width,))
        bias = add_constant(node.graph, names, f"{name}.bias", array)
        return [make_node(names, "Add", [product, bias], name=f"{name}.add")]
    nodes = []
    if beta != 1.0:
        factor = add_constant(node.graph, names, f"{name}.beta", np.array(beta, np.float32))
        nodes.append(make_node(names, "Mul", [bias, factor], name=f"{name}.scaled"))
        bias = nodes[-1].outputs[0]
    return [*nodes, make_node(names, "Add", [product, bias], name=f"{name}.add")]


def symmetric_int8(array: np.ndarray, axis: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize with one scale per slice along all axes but ``axis``.

    Returns:
        int8 of the array's shape, and float64 scales of its shape without ``axis``.
    """
    import numpy as np

    real = array.astype(np.float64)
    scale = np.maximum(np.abs(real).max(axis=axis) / largest, _SMALLEST_SCALE)
    integers = np.rint(real / np.expand_dims(scale, axis))
    return np.clip(integers, -largest, largest).astype(np.int8), scale


def int_of(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def float_of(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.as_float() if attribute is not None else default
