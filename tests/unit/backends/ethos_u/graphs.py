"""Graphs of one operator as data: its tensors and options, and the TFLite file of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["TYPES", "Case", "Spec", "T", "const", "tflite_bytes"]

TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "bool": schema.TensorType.BOOL,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}


@dataclass(frozen=True)
class T:
    """A tensor: its grid is ``scales`` and ``zeros``; a constant has ``values``."""

    shape: tuple[int, ...]
    dtype: str = "int8"
    values: Any = None
    scales: tuple[float, ...] = (0.05,)
    zeros: tuple[int, ...] = (0,)
    axis: int = 0
    signature: tuple[int, ...] | None = None
    is_variable: bool = False


@dataclass(frozen=True)
class Spec:
    """One operator with its tensors."""

    op: str
    inputs: tuple[T | None, ...]
    outputs: tuple[T, ...]
    kind: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    between: tuple[T, ...] = ()

    def with_input(self, position: int, **changes: Any) -> Spec:
        """Give the same operator with one input changed."""
        inputs = list(self.inputs)
        taken = inputs[position]
        assert taken is not None
        inputs[position] = replace(taken, **changes)
        return replace(self, inputs=tuple(inputs))

    def with_outputs(self, **changes: Any) -> Spec:
        """Give the same operator with all its results changed."""
        return replace(self, outputs=tuple(replace(one, **changes) for one in self.outputs))

    def with_maps(self, **changes: Any) -> Spec:
        """Give the same operator with all changed that is computed when it runs."""
        inputs = tuple(
            replace(one, **changes) if one is not None and one.values is None else one
            for one in self.inputs
        )
        return replace(self, inputs=inputs).with_outputs(**changes)

    def with_options(self, **changes: Any) -> Spec:
        """Give the same operator with other options."""
        return replace(self, options={**self.options, **changes})


@dataclass(frozen=True)
class Case:
    """A graph by name."""

    name: str
    spec: Spec


def const(values: Any, dtype: str = "int32", **grid: Any) -> T:
    """A tensor that the file fixes; numbers that steer have no grid."""
    array = np.asarray(values, dtype)
    if dtype in ("int32", "int64") and "scales" not in grid:
        grid["scales"] = ()
    return T(shape=array.shape, dtype=dtype, values=array, **grid)


def tflite_bytes(spec: Spec) -> bytes:
    """Write a graph of one operator."""
    tensors, buffers, inputs = [], [schema.BufferT()], []

    def add(one: T, name: str) -> int:
        made = schema.TensorT()
        made.name = name.encode()
        made.shape, made.type = list(one.shape), TYPES[one.dtype]
        made.isVariable = one.is_variable
        made.hasRank = True
        if one.signature is not None:
            made.shapeSignature = list(one.signature)
        if one.scales:
            grid = schema.QuantizationParametersT()
            grid.scale = list(one.scales)
            grid.zeroPoint = list(
                one.zeros if len(one.zeros) > 1 else one.zeros * len(one.scales)
            )
            grid.quantizedDimension = one.axis
            made.quantization = grid
        if one.values is not None:
            buffer = schema.BufferT()
            data = np.asarray(one.values).astype(np.dtype(one.dtype)).tobytes()
            buffer.data = np.frombuffer(data, np.uint8)
            buffers.append(buffer)
            made.buffer = len(buffers) - 1
        tensors.append(made)
        return len(tensors) - 1

    operator = schema.OperatorT()
    operator.inputs = []
    for position, one in enumerate(spec.inputs):
        if one is None:
            operator.inputs.append(-1)
            continue
        index = add(one, f"in{position}")
        operator.inputs.append(index)
        if one.values is None and not one.is_variable:
            inputs.append(index)
    operator.outputs = [add(one, f"out{position}") for position, one in enumerate(spec.outputs)]
    operator.intermediates = [
        add(one, f"between{position}") for position, one in enumerate(spec.between)
    ]
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, spec.op)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    if spec.kind:
        kind = getattr(schema.BuiltinOptions, spec.kind)
        operator.builtinOptionsType = kind
        operator.builtinOptions = getattr(schema, f"{spec.kind}T")()
        for key, value in spec.options.items():
            setattr(operator.builtinOptions, key, value)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = tensors, [operator]
    graph.inputs, graph.outputs = inputs, list(operator.outputs)
    model = schema.ModelT()
    model.version, model.subgraphs, model.buffers = 3, [graph], buffers
    model.operatorCodes = [code]
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
