"""Four-bit weights and float activations: the file shrinks most, no data is needed.

The standard form is DequantizeLinear of a blocked INT4 or UINT4 tensor (opset 21) before the
MatMul. onnxruntime, 1.20 and later, fuses the two into its MatMulNBits, which by default
computes with 8-bit activations in blocks; measured with 1.20 and 1.32 on one core with VNNI,
one row of 1024 by 1024 weights takes 0.15 of float's time, of 256 by 256 as much as float, and
64 rows take 1.3 times as long. In a body of control flow the weights lie in that body, because
onnxruntime fails to load a model where they lie outside.

For onnxruntime MatMulNBits is written as such where opset 21 is out of reach, and where it does
not fuse (found by trying): before Relu or Clip (1.32), in two dimensions before Add, which it
makes a Gemm first (1.20), and where several products read the same weights (both).

A table that Gather reads becomes 4-bit blocks along its rows for onnxruntime, whose
GatherBlockQuantized looks rows up; DequantizeLinear before Gather would turn all of the table
to float in every run. For other runtimes a table is int8 with a scale per row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgesdk.errors import CompileError, QuantizeError
from edgesdk.model.convert import fit_opset
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
)
from edgesdk.quantize._int4 import (
    Int4Weight,
    QuantizeRow,
    Rounding,
    as_bytes,
    as_tensors,
    compensating,
    quantize_int4,
)
from edgesdk.quantize._weightnodes import (
    NO_WEIGHTS,
    TableRewriter,
    float_of,
    gemm_bias,
    int_of,
    reads_no_table,
    why_not_matrix,
)
from edgesdk.quantize.values import Converted, LeftFloat

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["QuantizeRow", "Rounding", "compensating", "to_int4_weights"]

#: 4-bit tensors and blocks exist since this operator set and this IR version.
_OPSET, _IR = 21, 10
#: The smallest block that onnxruntime knows.
_SMALLEST_BLOCK = 16
#: onnxruntime's word for 8-bit activations; the fused standard form gets it by default.
_ACCURACY_LEVEL = 4
_NEVER = dict.fromkeys(
    ("Conv", "ConvTranspose", "GRU", "LSTM", "RNN"),
    "4-bit weights are for matrix products and tables",
)
_LOOKED_AT = ("Gather", "Gemm", "MatMul", *_NEVER)


def to_int4_weights(
    model: ir.Model,
    *,
    runtime: str,
    max_opset: int | None,
    max_ir: int | None = None,
    block: int = 32,
    rounding: Rounding | None = None,
    second_moments: Mapping[str, np.ndarray] | None = None,
    keep_float: Collection[str] = (),
    least_weights: int = 1024,
) -> Converted:
    """Store the weights of MatMul and Gemm, and tables, in 4 bits.

    Args:
        model: A simplified float graph of opset 13 or newer; left as it is.
        runtime: What will run it; ``"onnxruntime"`` has operators of its own for this.
        max_opset: The newest opset it loads, None for any; below 21 there are no 4-bit tensors.
        max_ir: The newest IR version it loads, None for any; 4-bit tensors need 10.
        block: How many weights of one output share a scale: a power of two from 16.
        rounding: Rounds each weight in place of nearest and of ``second_moments``; it is given
            the weight ``[K, N]`` and a function from a row's number and values to the nearest
            ones that the row can hold.
        second_moments: By node name, ``E[x x^T]`` of its input, ``[K, K]``: rounding then
            makes up for its errors (`compensating`).
        keep_float: Node names and operator types that stay in float.
        least_weights: Nodes with fewer weights stay in float: they gain nothing.

    Raises:
        QuantizeError: No node can be converted, or ``block`` or a second moment is not usable.
    """
    _refuse_block(block)
    standard, why_not = _at_opset(model, max_opset, max_ir)
    copy = prepared(standard or model)
    work = _Int4(
        copy,
        runtime=runtime,
        block=block,
        least=least_weights,
        why_not_standard=why_not,
        rounding=rounding,
        second_moments=second_moments or {},
    )
    done, left = work.rewrite(kept_nodes(copy, keep_float))
    if not done:
        raise nothing_done(model, "quantize", "quantized", left, otherwise=NO_WEIGHTS)
    tidy(copy)
    return Converted(model=copy, converted_nodes=done, left_float=tuple(left))


def _refuse_block(block: int) -> None:
    if block < _SMALLEST_BLOCK or block & (block - 1):
        raise QuantizeError(
            f"cannot quantize to int4: the block is {block} (expected a power of two from "
            f"{_SMALLEST_BLOCK})",
            hint="32 is a good start; smaller ones are more exact and larger in the file",
            block=block,
        )


def _at_opset(
    model: ir.Model, max_opset: int | None, max_ir: int | None
) -> tuple[ir.Model | None, str]:
    """Bring a model to where 4-bit tensors exist; or None and why that cannot be."""
    if max_opset is not None and max_opset < _OPSET:
        return None, f"4-bit tensors need opset {_OPSET} (at most {max_opset} here)"
    if max_ir is not None and max_ir < _IR:
        return None, f"4-bit tensors need IR version {_IR} (at most {max_ir} here)"
    try:
        return fit_opset(model, lowest=_OPSET, highest=max_opset, max_ir=max_ir), ""
    except CompileError as exc:
        return None, f"4-bit tensors need opset {_OPSET}: {exc}"


class _Int4:
    """Rewrites nodes one by one; each method gives the reason where it does nothing."""

    def __init__(
        self,
        model: ir.Model,
        *,
        runtime: str,
        block: int,
        least: int,
        why_not_standard: str,
        rounding: Rounding | None,
        second_moments: Mapping[str, np.ndarray],
    ) -> None:
        self._model = model
        self._names = Names(model)
        self._own = runtime == "onnxruntime"
        self._block = block
        self._least = least
        self._why_not_standard = why_not_standard
        self._rounding = rounding
        self._second_moments = second_moments
        self._tables = TableRewriter(self._names, least)
        #: Weights that several products read.
        self._shared = {
            value
            for node in model.graph.all_nodes()
            for value in node.inputs[1:2]
            if value is not None
            and node.op_type in ("Gemm", "MatMul")
            and len(value.uses()) > 1
        }
        #: (weights, graph, transposed, multiplied by, rounded for, form) -> constants
        self._weights: dict[tuple[object, ...], list[ir.Value]] = {}

    def rewrite(self, kept: Collection[ir.Node]) -> tuple[int, list[LeftFloat]]:
        """Rewrite what can be; say how many nodes it was, and why others stay."""
        left: list[LeftFloat] = []
        done = 0
        for node in list(self._model.graph.all_nodes()):
            if node.domain or node.op_type not in _LOOKED_AT or reads_no_table(node):
                continue
            reason = KEPT if node in kept else _NEVER.get(node.op_type)
            if reason is None:
                reason = self._table(node) if node.op_type == "Gather" else self._matrix(node)
            if reason is None:
                done += 1
            else:
                left.append(left_float(node, reason))
        return done, left

    def _matrix(self, node: ir.Node) -> str | None:
        """Replace the weights of a MatMul or Gemm, or say why not."""
        reason = why_not_matrix(node, self._least)
        if reason is not None:
            return reason
        tensor = constant_of(node.inputs[1])
        assert tensor is not None
        transposed = node.op_type == "Gemm" and bool(int_of(node, "transB", 0))
        rows, columns = tensor.shape.numpy()[-2:]
        if transposed:
            rows, columns = columns, rows
        block = self._block_of(rows)
        if not self._own:
            if self._why_not_standard:
                return self._why_not_standard
            if block == 0:
                return f"its {rows} rows are no multiple of a block ({_SMALLEST_BLOCK} or more)"
        product = self._product(node, transposed=transposed, block=block, size=(rows, columns))
        bias = (
            gemm_bias(node, product[-1].outputs[0], self._names)
            if node.op_type == "Gemm"
            else []
        )
        nodes = [*product, *bias]
        replace_node(node, nodes, nodes[-1].outputs[0])
        return None

    def _table(self, node: ir.Node) -> str | None:
        """Replace a table that Gather reads, or say why not."""
        reason = self._tables.why_not(node)
        if reason is not None or not self._own or self._why_not_standard:
            return reason or self._tables.rewrite(node)
        table = node.inputs[0]
        tensor = constant_of(table)
        assert table is not None
        assert tensor is not None
        assert table.graph is not None
        key, block = (table,), self._block_of(tensor.shape.numpy()[1])
        if key not in self._weights:
            weight = quantize_int4(tensor.numpy().T, block=block)
            arrays = {name: array.T for name, array in as_tensors(weight).items()}
            self._weights[key] = self._add(table.graph, table.name or "", arrays)
        data, *rest = self._weights[key]
        new = make_node(
            self._names,
            "GatherBlockQuantized",
            [data, node.inputs[1], *rest],
            {"gather_axis": 0, "quantize_axis": 1, "block_size": block},
            domain=CONTRIB,
            name=f"{node.name or table.name}.int4",
        )
        replace_node(node, [new], new.outputs[0])
        return None

    def _block_of(self, rows: int) -> int:
        """Choose the block for so many rows; 0 where a strict runtime has none that fits."""
        block = self._block
        if self._own:
            while block > _SMALLEST_BLOCK and block // 2 >= rows:
                block //= 2
            return block
        while rows % block and block > _SMALLEST_BLOCK:
            block //= 2
        return 0 if rows % block else block

    def _product(
        self, node: ir.Node, *, transposed: bool, block: int, size: tuple[int, int]
    ) -> list[ir.Node]:
        """Make the nodes of a product; the last one has the result."""
        graph, weights, real = node.graph, node.inputs[1], node.inputs[0]
        assert graph is not None
        assert weights is not None
        name = node.name or node.outputs[0].name or node.op_type
        alpha = float_of(node, "alpha", 1.0)
        rounded_for = name if name in self._second_moments else ""
        packed = bool(self._why_not_standard) or (self._own and not self._fuses(node))
        key = (weights, graph, transposed, alpha, rounded_for, packed)
        if key not in self._weights:
            weight = self._quantized(weights, name, block, alpha=alpha, transposed=transposed)
            arrays = as_bytes(weight) if packed else as_tensors(weight)
            self._weights[key] = self._add(graph, weights.name or "", arrays)
        constants = self._weights[key]
        if packed:
            attributes: dict[str, int | float | str] = {
                "K": size[0],
                "N": size[1],
                "bits": 4,
                "block_size": block,
                "accuracy_level": _ACCURACY_LEVEL,
            }
            return [
                make_node(
                    self._names,
                    "MatMulNBits",
                    [real, *constants],
                    attributes,
                    domain=CONTRIB,
                    name=f"{name}.int4",
                )
            ]
        back = make_node(
            self._names,
            "DequantizeLinear",
            constants,
            {"axis": 0, "block_size": block},
            name=f"{name}.weights",
        )
        product = make_node(self._names, "MatMul", [real, back.outputs[0]], name=f"{name}.int4")
        return [back, product]

    def _add(
        self, graph: ir.Graph, name: str, arrays: Mapping[str, np.ndarray]
    ) -> list[ir.Value]:
        return [
            add_constant(graph, self._names, f"{name}.{suffix}", array)
            for suffix, array in arrays.items()
        ]

    def _fuses(self, node: ir.Node) -> bool:
        """Say whether onnxruntime turns the standard form into its kernel here."""
        real, value = node.inputs[0], node.outputs[0]
        if node.inputs[1] in self._shared or (node.op_type == "Gemm" and len(node.inputs) > 2):
            return False
        while len(value.uses()) == 1:
            user = value.consumers()[0]
            if user.domain or user.op_type != "Add":
                return user.op_type not in ("Clip", "Relu")
            if real is None or real.shape is None or real.shape.rank() == 2:
                return False
            value = user.outputs[0]
        return True

    def _quantized(
        self, weights: ir.Value, name: str, block: int, *, alpha: float, transposed: bool
    ) -> Int4Weight:
        import numpy as np

        tensor = constant_of(weights)
        assert tensor is not None
        array = tensor.numpy()
        array = array.reshape(array.shape[-2:])
        array = (array.T if transposed else array).astype(np.float64) * alpha
        moment = self._second_moments.get(name)
        if moment is not None:
            moment = _checked(moment, name, len(array))
        return quantize_int4(array, block=block, second_moment=moment, rounding=self._rounding)


def _checked(moment: np.ndarray, name: str, rows: int) -> np.ndarray:
    """Give second moments as float64 ``[K, K]``; one group may have an axis of its own."""
    import numpy as np

    square = moment[0] if moment.ndim == 3 and len(moment) == 1 else moment
    if square.shape != (rows, rows):
        raise QuantizeError(
            f"cannot round the weights of {name!r}: its second moments have the shape "
            f"{list(moment.shape)} (expected {[rows, rows]})",
            hint="collect them from the same model",
            node=name,
        )
    if not np.isfinite(square).all():
        raise QuantizeError(
            f"cannot round the weights of {name!r}: its second moments hold NaN or infinite "
            "values (expected numbers)",
            hint="look at the samples they were collected from",
            node=name,
        )
    return square.astype(np.float64)
