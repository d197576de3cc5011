"""How far a Q/DQ graph may be from its float graph, by its own scales.

An acceptance criterion of the quantizer. Each quantized activation may be off by one step of
its scale more than what made it (half for rounding, half for a zero point that is rounded too;
ranges cover the samples, so clipping only takes back), each weight by half a step, each bias by
half a step of its own. Through the float graph such errors grow by no more than the absolute
values of what they are multiplied with; the functions here follow them, element by element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from edgesdk.model.save import model_bytes

Arrays = dict[str, np.ndarray]

#: Sums in float32 and in other orders: a share of the numbers that are summed.
_SLACK = 1e-5
#: They carry errors through as they carry numbers.
_CARRIES = frozenset(
    {"AveragePool", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Reshape", "Transpose"}
)


def every_value(model: ir.Model, sample: Mapping[str, np.ndarray]) -> Arrays:
    """Run a float graph and give all its values by name."""
    copy = model.clone()
    given = {value.name for value in copy.graph.outputs}
    for node in copy.graph:
        copy.graph.outputs.extend(one for one in node.outputs if one.name not in given)
    names = [value.name or "" for value in copy.graph.outputs]
    session = _session(model_bytes(copy))
    values = dict(zip(names, session.run(names, dict(sample)), strict=True))
    for name, value in model.graph.initializers.items():
        assert value.const_value is not None
        values[name] = value.const_value.numpy()
    return values | dict(sample)


def allowed_error(
    whole: ir.Model, model: ir.Model, sample: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Give the largest error that each output of ``whole`` may have, for one sample.

    Args:
        whole: The Q/DQ graph.
        model: The float graph that it was made of, with the same names of nodes.
        sample: One that its ranges cover.
    """
    walk = _Walk(model, every_value(model, sample))
    for node in whole.graph:
        walk.follow(node)
    return {name: walk.error[name] for name in (v.name or "" for v in whole.graph.outputs)}


class _Walk:
    def __init__(self, model: ir.Model, values: Arrays) -> None:
        self._nodes = {node.name: node for node in model.graph}
        self._values = values
        self.error = {value.name or "": _zeros(values, value) for value in model.graph.inputs}
        #: What a value of the Q/DQ graph is in the float graph.
        self._true = {
            value.name or "": values[value.name or ""] for value in model.graph.inputs
        }

    def follow(self, node: ir.Node) -> None:
        """Bound the errors of what a node of the Q/DQ graph gives."""
        result = node.outputs[0].name or ""
        source = node.inputs[0]
        assert source is not None
        if node.op_type == "DequantizeLinear" and source.const_value is not None:
            return  # a constant: its readers look at it
        if node.op_type == "QuantizeLinear":
            step = float(_constant(node.inputs[1]))
            self.error[result] = self.error[source.name or ""] + step
            self._true[result] = self._true[source.name or ""]
        elif node.op_type == "DequantizeLinear":
            self.error[result] = self.error[source.name or ""]
            self._true[result] = self._true[source.name or ""]
        else:
            float_node = self._nodes[node.name]
            read = [self._operand(node, float_node, p) for p in range(len(node.inputs))]
            true = self._values[float_node.outputs[0].name or ""]
            error = _through(node, true, read)
            assert error.shape == true.shape
            self.error[result] = error + _SLACK * (1e-3 + np.abs(true).max(initial=0))
            self._true[result] = true

    def _operand(
        self, node: ir.Node, float_node: ir.Node, position: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give an input's true numbers and their errors."""
        value, float_value = node.inputs[position], float_node.inputs[position]
        assert value is not None
        assert float_value is not None
        if (value.name or "") in self.error:
            return self._true[value.name or ""], self.error[value.name or ""]
        true = self._values[float_value.name or ""]
        maker = value.producer()
        if maker is None:
            return true, np.zeros(true.shape)
        return true, _stored_error(maker, true, is_weight=node.op_type in _COMPUTE)


_COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _stored_error(maker: ir.Node, true: np.ndarray, *, is_weight: bool) -> np.ndarray:
    """Give half a step for a stored weight, a whole one where its zero point is rounded."""
    assert maker.op_type == "DequantizeLinear"
    scale = _constant(maker.inputs[1]).astype(np.float64)
    whole = _constant(maker.inputs[0])
    shape = [1] * whole.ndim
    if scale.ndim:
        shape[maker.attributes["axis"].as_int()] = -1
        scale = scale.reshape(shape)
    exact = is_weight and not _constant(maker.inputs[2]).any()
    steps = 0.5 if exact else 1.0
    return np.broadcast_to(scale * steps * (1 + 1e-6), true.shape)


def _through(
    node: ir.Node, true: np.ndarray, read: list[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    op, (first, error) = node.op_type, read[0]
    result: np.ndarray
    if op in ("Conv", "Gemm", "MatMul", "Mul"):
        other, its_error = read[1]
        result = _apply(node, np.abs(first) + error, its_error)
        result = result + _apply(node, error, np.abs(other))
        if len(read) > 2:
            bias_error = read[2][1]
            shape = (1, -1, *(1,) * (true.ndim - 2)) if op == "Conv" else bias_error.shape
            result = result + bias_error.reshape(shape)
    elif op == "Add":
        result = error + read[1][1]
    elif op in ("Relu", "Clip"):
        result = error
    elif op == "Sigmoid":
        result = np.minimum(error / 4, 1.0)
    elif op == "Softmax":
        axis = node.attributes["axis"].as_int()
        grown = np.expm1(np.minimum(2 * error.max(axis=axis, keepdims=True), 50.0))
        result = np.minimum(true * grown, 1.0)
    elif op == "Concat":
        result = _apply(node, *(one[1] for one in read))
    else:
        assert op in _CARRIES, op
        result = _apply(node, error, *(one[0] for one in read[1:]))
    return result


def _apply(node: ir.Node, *arrays: np.ndarray) -> np.ndarray:
    """Run one operator on other numbers."""
    result: np.ndarray
    if node.op_type == "Mul":
        result = arrays[0] * arrays[1]
    elif node.op_type == "MatMul":
        result = arrays[0] @ arrays[1]
    elif node.op_type == "Concat":
        result = np.concatenate(arrays, axis=node.attributes["axis"].as_int())
    else:
        result = _run_alone(node, arrays)
    return result


def _run_alone(node: ir.Node, arrays: Sequence[np.ndarray]) -> np.ndarray:
    inputs = [
        array if array.dtype == np.int64 else array.astype(np.float32) for array in arrays
    ]
    names = [f"i{index}" for index in range(len(inputs))]
    proto = onnx.helper.make_node(node.op_type, names, ["o"])
    proto.attribute.extend(
        ir.serde.serialize_attribute(attribute) for attribute in node.attributes.values()
    )
    kinds = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in inputs]
    ends = [
        onnx.helper.make_tensor_value_info(name, kind, array.shape)
        for name, kind, array in zip(names, kinds, inputs, strict=True)
    ]
    out = onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([proto], "one", ends, [out])
    opsets = [onnx.helper.make_opsetid("", 17)]
    one = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
    session = _session(one.SerializeToString())
    result: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
    return result.astype(np.float64)


def _zeros(values: Arrays, value: ir.Value) -> np.ndarray:
    return np.zeros(values[value.name or ""].shape)


def _constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def _session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
