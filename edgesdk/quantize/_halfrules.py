"""Which nodes compute in half precision, and why the others do not.

The schema of an operator says, input by input, where it takes float16 instead of float32. On
top of it stand rules about numbers: half precision has 11 bits and ends at 65504.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgesdk.model.nodes import bodies_of
from edgesdk.quantize._graph import KEPT, constant_of, kept_nodes

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnx_ir as ir

__all__ = ["HalfRules", "as_half", "is_float32", "type_attribute"]

_STAYS = {
    "BitCast": "it reads the bits of its numbers",
    "CumSum": "its running sum needs more digits than half precision has",
    "EyeLike": "onnxruntime has no half-precision kernel for it",
    "MeanVarianceNormalization": "onnxruntime writes it out with float32 constants",
    "DynamicQuantizeLinear": "steps of quantization stay in float32",
    "DequantizeLinear": "steps of quantization stay in float32",
    "QuantizeLinear": "steps of quantization stay in float32",
    "LpPool": "its powers leave the range of half precision",
    "GlobalLpPool": "its powers leave the range of half precision",
    "Range": "half precision cannot count beyond 2048",
    "ReduceL2": "its squares leave the range of half precision",
    "ReduceProd": "its products leave the range of half precision",
    "ReduceSumSquare": "its squares leave the range of half precision",
    "MaxRoiPool": "coordinates need more digits than half precision has",
    "RoiAlign": "coordinates need more digits than half precision has",
}
#: Type variables that hold coordinates.
_COORDINATES = {("GridSample", "T2"), ("Resize", "T2"), ("AffineGrid", "T1")}
#: They read a shape, whatever the type.
_ANY_TYPE = ("Shape", "Size")
#: Attributes that name the type of a result.
_TYPE_ATTRIBUTES = {
    "Bernoulli": "dtype",
    "Cast": "to",
    "ConstantOfShape": "value",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
}
_SAME_AS_INPUT = ("Bernoulli", "RandomNormalLike", "RandomUniformLike")
#: Inputs that are bounds: infinity says the same where the range of half precision ends.
_BOUNDS = {"Clip": (1, 2), "Max": (0, 1, 2, 3), "Min": (0, 1, 2, 3)}
#: They hand a very small (or its inverse, a very large) number on ...
_HAND_ON = ("Pow", "Reciprocal", "Sqrt")
#: ... and after one of these it has an ordinary size.
_END_OF_SMALL = ("Div", "Log", "Mul")
#: Arithmetic that leads to sizes and indices, or to angles.
_WALKED = frozenset(
    {"Abs", "Add", "Cast", "Ceil", "Concat", "Div", "Expand", "Floor", "Gather", "Max", "Min"}
    | {"Mul", "Neg", "Pow", "Reciprocal", "ReduceMax", "ReduceMin", "Reshape", "Round", "Slice"}
    | {"Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
_WHOLE = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
_SMALL_CONSTANT = 1024


class HalfRules:
    """Decides about every node of a model once, before anything is changed."""

    def __init__(self, model: ir.Model, keep_float: Collection[str]) -> None:
        self._opsets = dict(model.graph.opset_imports)
        self._reasons: dict[ir.Node, str] = {}
        self._inputs: dict[ir.Node, frozenset[int]] = {}
        self._outputs: dict[ir.Node, frozenset[int]] = {}
        for node in model.graph.all_nodes():
            _fill_types(node, self._opsets)
        nodes = [node for node in model.graph.all_nodes() if _touches_float32(node)]
        kept = kept_nodes(model, keep_float)
        for node in nodes:
            if node in kept:
                self._reasons[node] = KEPT
            elif (reason := self._why_not(node)) is not None:
                self._reasons[node] = reason
        for node in nodes:
            self._keep_sources(node)
        for node in nodes:
            self._look_at_constants(node)
        #: How many nodes will compute in half precision.
        self.counted = sum(1 for n in nodes if self.half_inputs(n) or self.half_outputs(n))

    def why_float(self, node: ir.Node) -> str | None:
        """Say why a node stays in float32; None if it does not, or works on other types."""
        return self._reasons.get(node)

    def half_inputs(self, node: ir.Node) -> frozenset[int]:
        """Give the positions at which a node will take float16 for float32."""
        return frozenset() if node in self._reasons else self._inputs.get(node, frozenset())

    def half_outputs(self, node: ir.Node) -> frozenset[int]:
        """Give the positions at which a node will make float16 instead of float32."""
        return frozenset() if node in self._reasons else self._outputs.get(node, frozenset())

    def takes_any(self, node: ir.Node) -> bool:
        """Say whether a node only looks at shapes, so that no Cast is needed for it."""
        return node.op_type in _ANY_TYPE and not node.domain

    def _why_not(self, node: ir.Node) -> str | None:
        if any(True for _ in _bodies(node)) or self.takes_any(node):
            return None  # what is inside is looked at node by node
        schema = _schema(node, self._opsets)
        reason = _why_not_at_all(node)
        if reason is not None or schema is None:
            domain = f"its operator is of the domain {node.domain!r}, whose types are not known"
            return reason or domain
        half = _half_variables(node, schema)
        fixed = _fixed_result(node, schema, half)
        if fixed is not None:
            return fixed
        self._inputs[node] = frozenset(
            position
            for position, value in enumerate(node.inputs)
            if is_float32(value) and _variable(schema.inputs, position) in half
        )
        self._outputs[node] = frozenset(
            position
            for position, value in enumerate(node.outputs)
            if is_float32(value) and _variable(schema.outputs, position) in half
        )
        if not self._inputs[node] and not self._outputs[node]:
            return "ONNX knows no half precision for it"
        return None

    def _look_at_constants(self, node: ir.Node) -> None:
        """Keep a node in float32 whose constants have no equal in half precision."""
        import numpy as np

        for position in sorted(self.half_inputs(node)):
            value = node.inputs[position]
            tensor = constant_of(value)
            if tensor is None or value is None:
                continue
            real = tensor.numpy()
            half, lost = as_half(real)
            if position not in _BOUNDS.get(node.op_type, ()) and _overflows(real, half):
                largest = float(np.abs(real[np.isfinite(real)]).max())
                self._reasons[node] = (
                    f"its constant {value.name!r} holds {largest:.3g}, more than half "
                    "precision has (65504)"
                )
                return
            if lost and not half.any():
                self._reasons[node] = (
                    f"its constant {value.name!r} is {float(np.abs(real).max()):.3g}, which is "
                    "0 in half precision"
                )
                self._keep_small(node)
                return

    def _keep_small(self, node: ir.Node) -> None:
        """Keep what a very small number goes through until it has an ordinary size."""
        for value in node.outputs:
            for user, _ in value.uses():
                if user in self._reasons or user.domain:
                    continue
                if user.op_type in (*_HAND_ON, *_END_OF_SMALL):
                    self._reasons[user] = "it reads a number that may be 0 in half precision"
                if user.op_type in _HAND_ON:
                    self._keep_small(user)

    def _keep_sources(self, node: ir.Node) -> None:
        """Keep the arithmetic that makes sizes, indices and angles."""
        if node.domain or node in self._reasons:
            return
        to = node.attributes["to"].as_int() if node.op_type == "Cast" else 0
        if node.op_type == "Cast" and is_float32(node.inputs[0]) and _is_whole(to):
            why = "its numbers become whole numbers: sizes or indices"
            self._keep_upwards(node, why, lambda one: _is_flat(one.outputs[0]))
        elif node.op_type in ("Resize", "Upsample") and len(node.inputs) > 1:
            scales = node.inputs[2 if node.op_type == "Resize" else 1 :][:1]
            for value in scales:
                maker = value.producer() if value is not None else None
                if maker is not None:
                    why = "its numbers are the scales of a picture"
                    self._keep_upwards(maker, why, lambda one: _is_flat(one.outputs[0]))
        elif node.op_type in ("Cos", "Sin", "Tan"):
            why = "its numbers are angles, which need more digits than half precision has"
            self._keep_upwards(node, why, _has_small_constants)

    def _keep_upwards(
        self, node: ir.Node, why: str, belongs: Callable[[ir.Node], bool]
    ) -> None:
        if node in self._reasons or not (belongs(node) or node.op_type == "Cast"):
            return
        if not _touches_float32(node):
            return
        self._reasons[node] = why
        for value in node.inputs:
            maker = value.producer() if value is not None else None
            walked = maker is not None and (
                maker.op_type in _WALKED or maker.op_type in ("Einsum", "MatMul")
            )
            if maker is not None and walked and is_float32(value) and belongs(maker):
                self._keep_upwards(maker, why, belongs)


def _why_not_at_all(node: ir.Node) -> str | None:
    for value in (*node.inputs, *node.outputs):
        if value is not None and _untyped(value):
            return f"the type of {value.name!r} is not known, or no tensor"
    if node.domain:
        return None
    reduction = node.attributes.get("reduction")
    scatters = node.op_type in ("ScatterElements", "ScatterND")
    if scatters and reduction is not None and reduction.as_string() != "none":
        return "onnxruntime reduces no half-precision numbers while it scatters"
    return _STAYS.get(node.op_type)


def as_half(real: np.ndarray) -> tuple[np.ndarray, int]:
    """Round to float16; say how many numbers that are not 0 became 0."""
    import numpy as np

    with np.errstate(all="ignore"):
        half = real.astype(np.float16)
    return half, int(np.count_nonzero((half == 0) & (real != 0)))


def is_float32(value: ir.Value | None) -> bool:
    """Say whether a value is a float32 tensor."""
    import onnx_ir as ir

    return (
        value is not None
        and isinstance(value.type, ir.TensorType)
        and value.type.dtype == ir.DataType.FLOAT
    )


def type_attribute(node: ir.Node) -> str | None:
    """Give the attribute by which a node names the type of its result, if it does."""
    name = None if node.domain else _TYPE_ATTRIBUTES.get(node.op_type)
    if node.op_type in _SAME_AS_INPUT and name not in node.attributes:
        return None
    return name


def _overflows(real: np.ndarray, half: np.ndarray) -> bool:
    import numpy as np

    return bool((np.isinf(half) & np.isfinite(real)).any())


def _half_variables(node: ir.Node, schema: onnx.defs.OpSchema) -> set[str]:
    """Give the type variables of an operator that can be float16."""
    return {
        one.type_param_str
        for one in schema.type_constraints
        if "tensor(float16)" in one.allowed_type_strs
        and (node.op_type, one.type_param_str) not in _COORDINATES
    }


def _fixed_result(node: ir.Node, schema: onnx.defs.OpSchema, half: set[str]) -> str | None:
    """Say why a node's results cannot follow, or None."""
    name = type_attribute(node)
    if name == "value" and "value" in node.attributes:
        real = node.attributes["value"].as_tensor().numpy()
        if _overflows(real, as_half(real)[0]):
            return f"it makes {float(real.flat[0]):.3g}, more than half precision has (65504)"
        if as_half(real)[1]:
            return f"it makes {float(real.flat[0]):.3g}, which is 0 in half precision"
    if name is not None:
        return None
    bound = {
        _variable(schema.inputs, position)
        for position, value in enumerate(node.inputs)
        if is_float32(value)
    }
    if node.op_type in _SAME_AS_INPUT:
        return None
    for position, value in enumerate(node.outputs):
        variable = _variable(schema.outputs, position)
        if is_float32(value) and variable in half and variable not in bound:
            return "the type of its result does not follow from its inputs"
    return None


def _variable(formals: Sequence[Any], position: int) -> str:
    """Give the name of the type of a formal parameter; the last may stand for many."""
    formal = formals[min(position, len(formals) - 1)]
    if position >= len(formals) - 1 and not formal.is_homogeneous:
        return ""
    return str(formal.type_str)


def _schema(node: ir.Node, opsets: dict[str, int]) -> onnx.defs.OpSchema | None:
    import onnx

    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return onnx.defs.get_schema(node.op_type, opsets.get(domain, 0), domain)
    except onnx.defs.SchemaError:
        return None


def _fill_types(node: ir.Node, opsets: dict[str, int]) -> None:
    """Give results their types where the schema says that an input has the same, or names it.

    Nodes that an opset conversion put in have none.
    """
    import onnx_ir as ir

    missing = [value for value in node.outputs if value.name and value.type is None]
    schema = _schema(node, opsets) if missing else None
    if schema is None:
        return
    types = {
        _variable(schema.inputs, position): value.type
        for position, value in enumerate(node.inputs)
        if value is not None and value.type is not None
    }
    for position, value in enumerate(node.outputs):
        variable = _variable(schema.outputs, position)
        if value in missing and variable in types:
            value.type = types[variable]
        elif value in missing and set(schema.outputs[0].types) == {"tensor(int64)"}:
            value.type = ir.TensorType(ir.DataType.INT64)


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        yield from bodies_of(attribute)


def _touches_float32(node: ir.Node) -> bool:
    return any(is_float32(value) for value in (*node.inputs, *node.outputs))


def _untyped(value: ir.Value) -> bool:
    import onnx_ir as ir

    return bool(value.name) and not isinstance(value.type, ir.TensorType)


def _is_whole(dtype: int) -> bool:
    import onnx_ir as ir

    return ir.DataType(dtype).name in _WHOLE


def _is_flat(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.rank() <= 1


def _has_small_constants(node: ir.Node) -> bool:
    tensors = [constant_of(value) for value in node.inputs]
    return all(tensor is None or tensor.size <= _SMALL_CONSTANT for tensor in tensors)
