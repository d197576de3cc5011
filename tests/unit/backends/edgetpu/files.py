"""Write small TFLite files, to be read by our reader and judged by our rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32,
    "int64": schema.TensorType.INT64,
}


@dataclass
class Network:
    """A network in the making; methods give tensor indices."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    codes: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(self, shape: Sequence[int], dtype: str = "int8", zero_point: int = 0) -> int:
        """Add a tensor that is known when it runs."""
        made = schema.TensorT()
        made.name = f"t{len(self.tensors)}".encode()
        made.shape, made.type = list(shape), _TYPES[dtype]
        if dtype in ("int8", "uint8", "int16"):
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [0.05], [zero_point]
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, values: Any, dtype: str = "int32", zero_point: int = 0) -> int:
        """Add a tensor that the file fixes."""
        array = np.asarray(values, dtype)
        index = self.tensor(array.shape, dtype, zero_point)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.buffers.append(buffer)
        self.tensors[index].buffer = len(self.buffers) - 1
        return index

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        *outputs: int,
        version: int = 1,
        custom: bool = False,
        **options: Any,
    ) -> int:
        """Add an operator with the options of its kind; gives its first output."""
        code = schema.OperatorCodeT()
        number = 32 if custom else getattr(schema.BuiltinOperator, name)
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.version = version
        if custom:
            code.customCode = name.encode()
        self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.codes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if kind := options.pop("kind", ""):
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)
        return outputs[0]

    def conv(self, taken: int, channels: int, **extra: Any) -> int:
        """Add a 1 x 1 convolution."""
        shape = list(self.tensors[taken].shape)
        kernel = self.constant(np.ones((channels, 1, 1, shape[-1])), "int8")
        bias = self.constant(np.zeros(channels), "int32")
        given = self.tensor([*shape[:-1], channels])
        options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
        return self.op(
            "CONV_2D",
            [taken, kernel, bias],
            given,
            kind="Conv2DOptions",
            **{**options, **extra},
        )

    def save(self, path: Path, inputs: Sequence[int], outputs: Sequence[int]) -> Path:
        """Write the file."""
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.subgraphs, model.buffers = 3, [graph], self.buffers
        model.operatorCodes = self.codes
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path
