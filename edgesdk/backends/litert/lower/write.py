"""Write a graph as a ``.tflite`` file, with the schema that LiteRT's own package ships."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgesdk.backends.litert.lower.graph import Graph, Grid, Op, Tensor
from edgesdk.backends.litert.lower.versions import oldest_runtime, version_of
from edgesdk.errors import CompileError

__all__ = ["MOST_BYTES", "write_graph"]

#: Offsets of a flatbuffer are 32 bits with a sign.
MOST_BYTES = (1 << 31) - (1 << 20)
_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
#: What the schema asks of the content of a tensor, for kernels that read it in vectors.
_ALIGNMENT = 16
_TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "uint16": "UINT16",
    "int32": "INT32",
    "uint32": "UINT32",
    "int64": "INT64",
    "bool": "BOOL",
}
_SIGNATURE = "serving_default"


def write_graph(graph: Graph, *, description: str = "") -> bytes:
    """Serialise a graph.

    Equal contents of constants are stored once. The signature ``serving_default`` has the names
    of the graph's inputs and outputs.

    Raises:
        CompileError: The schema's package is not installed, or the file gets too large.
    """
    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as exc:
        raise CompileError(
            "cannot write a TFLite file: ai-edge-litert, with its schema, is not installed",
            hint="install it: python3 -m pip install 'edgesdk[litert]'",
        ) from exc
    file = _File(schema, graph, description)
    size = sum(len(each) for each in file.contents)
    if size > MOST_BYTES:
        raise CompileError(
            f"cannot write a TFLite file: its constants have {size:,} bytes (a file holds at "
            f"most {MOST_BYTES:,})",
            hint="quantize the model to int8, or choose a backend that reads ONNX",
        )
    builder = flatbuffers.Builder(size + (1 << 16) + 512 * len(file.model.subgraphs[0].tensors))
    builder.Finish(file.model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


class _File:
    """The objects of the schema that stand for a graph."""

    def __init__(self, schema: Any, graph: Graph, description: str) -> None:
        self.schema = schema
        self.contents: list[bytes] = [b""]
        self._known: dict[bytes, int] = {b"": 0}
        self._codes: dict[tuple[str, int], int] = {}
        tensors = graph.tensors()
        self._index = {id(tensor): number for number, tensor in enumerate(tensors)}
        body = schema.SubGraphT(
            tensors=[self._tensor(tensor) for tensor in tensors],
            inputs=self._numbers(graph.inputs),
            outputs=self._numbers(graph.outputs),
            operators=[self._operator(op) for op in graph.ops],
            name=graph.name.encode(),
        )
        runtime = oldest_runtime(self._codes).encode().ljust(16, b"\0")
        signature = schema.SignatureDefT(
            inputs=self._named(graph.inputs),
            outputs=self._named(graph.outputs),
            signatureKey=_SIGNATURE.encode(),
            subgraphIndex=0,
        )
        entry = schema.MetadataT(name=b"min_runtime_version", buffer=self._buffer(runtime))
        self.model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=[self._code(*key) for key in self._codes],
            subgraphs=[body],
            description=description.encode(),
            buffers=[_aligned(schema, each) for each in self.contents],
            metadata=[entry],
            signatureDefs=[signature],
        )

    def _numbers(self, tensors: list[Tensor]) -> np.ndarray:
        return np.array([self._index[id(tensor)] for tensor in tensors], np.int32)

    def _named(self, tensors: list[Tensor]) -> list[Any]:
        return [
            self.schema.TensorMapT(
                name=tensor.name.encode(), tensorIndex=self._index[id(tensor)]
            )
            for tensor in tensors
        ]

    def _buffer(self, content: bytes) -> int:
        if content not in self._known:
            self._known[content] = len(self.contents)
            self.contents.append(content)
        return self._known[content]

    def _tensor(self, tensor: Tensor) -> Any:
        if tensor.data is None:
            buffer = 0
        else:
            data = np.ascontiguousarray(tensor.data, np.dtype(tensor.dtype).newbyteorder("<"))
            buffer = self._buffer(data.tobytes())
        return self.schema.TensorT(
            shape=np.array(tensor.shape, np.int32),
            type=getattr(self.schema.TensorType, _TYPES[tensor.dtype]),
            buffer=buffer,
            name=tensor.name.encode(),
            quantization=None if tensor.grid is None else self._grid(tensor.grid),
            hasRank=True,
        )

    def _grid(self, grid: Grid) -> Any:
        return self.schema.QuantizationParametersT(
            scale=np.array(grid.scales, np.float32),
            zeroPoint=np.array(grid.zero_points, np.int64),
            quantizedDimension=0 if grid.axis is None else grid.axis,
        )

    def _operator(self, op: Op) -> Any:
        key = op.code, version_of(op)
        number = self._codes.setdefault(key, len(self._codes))
        made = self.schema.OperatorT(
            opcodeIndex=number,
            inputs=np.array(
                [-1 if each is None else self._index[id(each)] for each in op.inputs], np.int32
            ),
            outputs=self._numbers(list(op.outputs)),
        )
        if op.intermediates:
            made.intermediates = self._numbers(list(op.intermediates))
        if op.options is not None:
            kind, fields = op.options
            options = getattr(self.schema, f"{kind}T")(**fields)
            first = getattr(self.schema.BuiltinOptions, kind, None)
            if first is not None:
                made.builtinOptionsType, made.builtinOptions = first, options
            else:
                made.builtinOptions2Type = getattr(self.schema.BuiltinOptions2, kind)
                made.builtinOptions2 = options
        return made

    def _code(self, code: str, version: int) -> Any:
        number = getattr(self.schema.BuiltinOperator, code)
        return self.schema.OperatorCodeT(
            # the field that old readers know holds a byte
            deprecatedBuiltinCode=min(number, 127),
            builtinCode=number,
            version=version,
        )


def _aligned(schema: Any, content: bytes) -> Any:
    """Make a buffer whose content begins at a multiple of 16, which the object API forgets."""

    class Buffer(schema.BufferT):  # type: ignore[misc] # the schema has no types
        def Pack(self, builder: Any) -> Any:  # noqa: N802 -- the object API's name
            start = None
            if content:
                builder.StartVector(1, len(content), _ALIGNMENT)
                builder.head -= len(content)
                builder.Bytes[builder.head : builder.head + len(content)] = content
                start = builder.EndVector()
            schema.BufferStart(builder)
            if start is not None:
                schema.BufferAddData(builder, start)
            return schema.BufferEnd(builder)

    return Buffer()
