"""Eight-bit weights, and activations that are quantized as they come: no data is needed.

A matrix product becomes DynamicQuantizeLinear, MatMulInteger, Cast and Mul, all ONNX's own,
in the order that onnxruntime fuses into one kernel (DynamicQuantizeMatMul, or
MatMulIntegerToFloat where several products read one activation). Measured with onnxruntime
1.20 and 1.32 on one core with VNNI, against float: 0.14 of the time for one row of 1024 by
1024 weights, 0.24 for 64 rows of 256 by 1024, but 0.8 to 1.1 for one row of 256 by 256 and 1.2
to 1.3 for 61 rows of 64 by 128. So it pays with weights of some 100,000 elements; the file
shrinks to a quarter either way.

Conv stays in float: onnxruntime 1.32 takes 1.0 to 1.3 times as long for ConvInteger as for the
float convolution, 2.9 times where it is depthwise, and that with one scale for all channels of
an unsigned weight; signed ones take 5 to 18 times as long, and 1.20 does not load them.
Calibrated 8-bit convolutions (``int8``) are the better choice there.

An LSTM has no standard integer form; onnxruntime has one of its own (0.16 of float's time at
512 units, 0.4 at 256, 1.5 at 48). GRU and RNN have none.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from edgesdk.quantize._graph import (
    CONTRIB,
    KEPT,
    Names,
    add_constant,
    constant_of,
    kept_nodes,
    left_float,
    make_node,
    nothing_done,
    prepared,
    replace_node,
    tidy,
    why_not_weights,
)
from edgesdk.quantize._weightnodes import (
    LARGEST,
    LARGEST_OF_7_BITS,
    NO_WEIGHTS,
    TableRewriter,
    float_of,
    gemm_bias,
    int_of,
    reads_no_table,
    symmetric_int8,
    why_not_matrix,
)
from edgesdk.quantize.values import Converted, LeftFloat

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DYNAMIC_OPS", "to_dynamic_int8"]

#: What may be converted. Conv and GRU are looked at only to say why they are not.
DYNAMIC_OPS = ("Gather", "Gemm", "LSTM", "MatMul")
_NEVER = {
    "Conv": "integer convolutions without calibration are slower than float ones",
    "ConvTranspose": "there is no integer operator for it that needs no calibration",
    "GRU": "there is no integer operator for it that needs no calibration",
    "RNN": "there is no integer operator for it that needs no calibration",
}


def to_dynamic_int8(
    model: ir.Model,
    *,
    runtime: str,
    ops: Collection[str] = DYNAMIC_OPS,
    keep_float: Collection[str] = (),
    least_weights: int = 1024,
    reduce_range: bool = False,
) -> Converted:
    """Quantize weights to int8 now and activations to uint8 when the model runs.

    Weights are symmetric, with a scale per output channel (per gate and unit of an LSTM, per
    row of a table). MatMul and Gemm with constant weights are converted in bodies of control
    flow too, and read one quantized activation where they share it. A table that Gather reads
    is stored as int8 and becomes float after the look-up.

    Args:
        model: A simplified float graph of opset 13 or newer; left as it is.
        runtime: What will run it; ``"onnxruntime"`` has an integer LSTM.
        ops: The operators to convert, of `DYNAMIC_OPS`.
        keep_float: Node names and operator types that stay in float.
        least_weights: Nodes with fewer weights stay in float: they gain nothing.
        reduce_range: Keep weights to 7 bits, for processors whose 8-bit sums saturate.

    Raises:
        QuantizeError: No node can be converted.
    """
    copy = prepared(model)
    work = _Dynamic(
        copy, runtime, least_weights, LARGEST_OF_7_BITS if reduce_range else LARGEST
    )
    kept = kept_nodes(copy, keep_float)
    left: list[LeftFloat] = []
    done = 0
    for node in list(copy.graph.all_nodes()):
        if node.domain or node.op_type not in (*DYNAMIC_OPS, *_NEVER) or reads_no_table(node):
            continue
        reason = KEPT if node in kept else _NEVER.get(node.op_type)
        if reason is None and node.op_type not in ops:
            reason = f"{node.op_type} is not among the operators to convert"
        reason = reason or work.rewriters[node.op_type](node)
        if reason is None:
            done += 1
        else:
            left.append(left_float(node, reason))
    if not done:
        raise nothing_done(model, "quantize", "quantized", left, otherwise=NO_WEIGHTS)
    tidy(copy)
    return Converted(model=copy, converted_nodes=done, left_float=tuple(left))


class _Dynamic:
    """Rewrites nodes one by one; each rewriter gives the reason where it does nothing."""

    def __init__(self, model: ir.Model, runtime: str, least: int, largest: int) -> None:
        self._names = Names(model)
        self._runtime = runtime
        self._least = least
        self._largest = largest
        #: (activation, graph) -> its uint8 form, its scale, its zero point
        self._activations: dict[
            tuple[ir.Value, ir.Graph], tuple[ir.Value, ir.Value, ir.Value]
        ] = {}
        #: (weights, graph, transposed, multiplied by) -> int8 weights, scales
        self._weights: dict[
            tuple[ir.Value, ir.Graph, bool, float], tuple[ir.Value, ir.Value]
        ] = {}
        table = TableRewriter(self._names, least, largest)
        self.rewriters: dict[str, Callable[[ir.Node], str | None]] = {
            "Gather": table.rewrite,
            "Gemm": self._gemm,
            "LSTM": self._lstm,
            "MatMul": self._matmul,
        }

    def _matmul(self, node: ir.Node) -> str | None:
        reason = why_not_matrix(node, self._least)
        if reason is None:
            nodes = self._product(node, transposed=False, alpha=1.0)
            replace_node(node, nodes, nodes[-1].outputs[0])
        return reason

    def _gemm(self, node: ir.Node) -> str | None:
        reason = why_not_matrix(node, self._least)
        if reason is None:
            transposed = bool(int_of(node, "transB", 0))
            alpha = float_of(node, "alpha", 1.0)
            nodes = self._product(node, transposed=transposed, alpha=alpha)
            nodes += gemm_bias(node, nodes[-1].outputs[0], self._names)
            replace_node(node, nodes, nodes[-1].outputs[0])
        return reason

    def _product(self, node: ir.Node, *, transposed: bool, alpha: float) -> list[ir.Node]:
        """Make the nodes of a matrix product, which is the last one's result."""
        import onnx_ir as ir

        real, weights = node.inputs[0], node.inputs[1]
        assert real is not None
        assert weights is not None
        name = node.name or node.outputs[0].name or node.op_type
        quantized, scale, zero = self._activation(real, node)
        integers, scales = self._weight(weights, node, transposed=transposed, alpha=alpha)
        product = make_node(
            self._names,
            "MatMulInteger",
            [quantized, integers, zero],
            name=f"{name}.int",
            dtype=ir.DataType.INT32,
        )
        cast = make_node(
            self._names,
            "Cast",
            [product.outputs[0]],
            {"to": int(ir.DataType.FLOAT)},
            name=f"{name}.cast",
            dtype=ir.DataType.FLOAT,
        )
        both = make_node(self._names, "Mul", [scale, scales], name=f"{name}.scales")
        result = make_node(
            self._names, "Mul", [cast.outputs[0], both.outputs[0]], name=f"{name}.real"
        )
        return [product, cast, both, result]

    def _activation(
        self, real: ir.Value, reader: ir.Node
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        graph = reader.graph
        assert graph is not None
        key = (real, graph)
        if key not in self._activations:
            step = make_node(
                self._names,
                "DynamicQuantizeLinear",
                [real],
                name=f"{real.name}.uint8",
                outputs=3,
            )
            # nodes are visited in order, so the first reader is the one that comes first
            graph.insert_before(reader, [step])
            self._activations[key] = (step.outputs[0], step.outputs[1], step.outputs[2])
        return self._activations[key]

    def _weight(
        self, weights: ir.Value, reader: ir.Node, *, transposed: bool, alpha: float
    ) -> tuple[ir.Value, ir.Value]:
        """Give int8 ``[K, N]`` and float32 scales ``[N]``, in the reader's own graph."""
        graph, tensor = reader.graph, constant_of(weights)
        assert graph is not None
        assert tensor is not None
        key = (weights, graph, transposed, alpha)
        if key not in self._weights:
            array = tensor.numpy()
            array = array.reshape(array.shape[-2:])
            integers, scale = symmetric_int8(array.T if transposed else array, 0, self._largest)
            self._weights[key] = (
                add_constant(graph, self._names, f"{weights.name}.int8", integers),
                add_constant(
                    graph, self._names, f"{weights.name}.scale", (scale * alpha).astype("f4")
                ),
            )
        return self._weights[key]

    def _lstm(self, node: ir.Node) -> str | None:
        """Replace an LSTM by onnxruntime's, of weights ``[directions, inputs, 4 units]``."""
        import onnx_ir as ir

        if self._runtime != "onnxruntime":
            return "ONNX has no integer operator for it (onnxruntime has one of its own)"
        if int_of(node, "layout", 0):
            return "its batch comes first, which the integer operator does not know"
        if node.inputs[0] is not None and node.inputs[0].dtype != ir.DataType.FLOAT:
            return "it does not work on float32"
        if (reason := _why_not_both(node, self._least)) is not None:
            return reason
        name, graph = node.name or "LSTM", node.graph
        assert graph is not None
        inputs: list[ir.Value | None] = list(node.inputs) + [None] * (8 - len(node.inputs))
        for position, letter in ((1, "W"), (2, "R")):
            tensor = constant_of(node.inputs[position])
            assert tensor is not None
            integers, scale = symmetric_int8(
                tensor.numpy().transpose(0, 2, 1), 1, self._largest
            )
            inputs[position] = add_constant(graph, self._names, f"{name}.{letter}", integers)
            inputs.append(
                add_constant(graph, self._names, f"{name}.{letter}.scale", scale.astype("f4"))
            )
            inputs.append(
                add_constant(
                    graph, self._names, f"{name}.{letter}.zero", (scale * 0).astype("i1")
                )
            )
        new = ir.node(
            "DynamicQuantizeLSTM",
            inputs,
            {key: value for key, value in node.attributes.items() if key != "layout"},
            domain=CONTRIB,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        replace_node(node, [new], dict(enumerate(new.outputs)))
        return None


def _why_not_both(node: ir.Node, least: int) -> str | None:
    return why_not_weights(node.inputs[1], least) or why_not_weights(node.inputs[2], least)
