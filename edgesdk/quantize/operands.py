"""What the constants of a node are, and why some make 8 bits impossible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.nodes import is_constant, tensor_info
from edgesdk.quantize.edit import is_transposed
from edgesdk.quantize.scope import WEIGHT_INPUT, data_inputs

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["constant_array", "why_not_operands"]


def constant_array(value: onnx_ir.Value | None) -> np.ndarray | None:
    """Give the numbers of a constant, or None where the value is known only at run time."""
    if value is None or not is_constant(value):
        return None
    tensor = value.const_value
    return None if tensor is None else tensor.numpy()


def why_not_operands(node: onnx_ir.Node) -> str | None:
    """Say why the numbers or ranks of a node's operands keep it in float, or None."""
    import numpy as np

    positions = data_inputs(node.op_type, len(node.inputs))
    reason = _why_not_types(node, positions)
    if reason is not None:
        return reason
    if node.op_type in ("MatMul", "Conv", "ConvTranspose", "Gemm"):
        reasons = [_why_not_operand(value) for value in node.inputs[:2]]
        reasons.append(_why_not_bias(node))
        reason = next((one for one in reasons if one is not None), None)
        if reason is not None:
            return reason
    if node.op_type == "Pad" and len(node.inputs) > 2:
        filler = constant_array(node.inputs[2])
        if filler is not None and filler.size and float(filler.reshape(-1)[0]):
            return "it pads with another value than 0"
    for position in positions:
        array = constant_array(node.inputs[position])
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            return "a constant of it holds NaN or infinite values"
    return None


def _why_not_types(node: onnx_ir.Node, positions: tuple[int, ...]) -> str | None:
    """Look at types that are known where ranks are not, and at results that are no numbers."""
    if node.op_type in WEIGHT_INPUT:
        positions = (0, 1, 2)
    read = [node.inputs[position] for position in positions if position < len(node.inputs)]
    for verb, values in (("works on", read), ("gives", node.outputs)):
        for value in values:
            dtype = "" if value is None or not value.name else tensor_info(value).dtype
            if dtype not in ("float32", ""):
                return f"it {verb} {dtype}"
    return None


def _why_not_operand(value: onnx_ir.Value | None) -> str | None:
    import numpy as np

    array = constant_array(value)
    rank = array.ndim if array is not None else None
    if array is None and value is not None and value.shape is not None:
        rank = len(value.shape)
    if rank is not None and rank < 2:
        return "it has an operand of one dimension"
    if array is not None and not array.size:
        return "its weights are empty"
    if array is not None and not np.isfinite(array).all():
        return "its weights hold NaN or infinite values"
    return None


def _why_not_bias(node: onnx_ir.Node) -> str | None:
    import numpy as np

    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None
    bias, weight = constant_array(value), constant_array(node.inputs[1])
    if bias is not None and not np.isfinite(bias).all():
        return "its bias holds NaN or infinite values"
    if node.op_type != "Gemm" or weight is None:
        return None if bias is not None else "its bias is not a constant"
    wide = weight.shape[0 if is_transposed(node) else 1]
    # [N, 1] has as many numbers as there are columns, and one for each row
    if bias is None or bias.size != wide or bias.shape[-1:] not in ((), (wide,)):
        return "its third input is not one constant for each column"
    return None
