"""Read the structure of a TFLite file, and refuse a broken one before any runtime sees it.

TFLite's loader trusts offsets and sizes in the file, so they are all checked here first: that
tables, vectors and buffers lie inside the file, that tensors, operators and subgraphs refer to
ones that exist, and that a constant has the bytes its shape asks for. Nothing of a runtime is
imported.

Field numbers are those of TFLite's schema (version 3).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import ModelError
from edgesdk.model._flatbuffer import FlatbufferError, Table, root_table
from edgesdk.model._sniff import read_model_file, sniff_format
from edgesdk.model._tflite_names import OPERATORS, TENSOR_TYPES
from edgesdk.model.values import NodeFacts, SourceModel, model_name
from edgesdk.tensors import TensorInfo

__all__ = ["OpenedTflite", "open_tflite"]

_SCHEMA_VERSION = 3
_CUSTOM = OPERATORS.index("CUSTOM")
_MOST_ELEMENTS = 1 << 48
_MOST_RANK = 32
#: The code of an operator that fits no byte stands in a second field; the first says this.
_PLACEHOLDER = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTflite:
    """A TFLite file, described. ``ops`` are those of the first subgraph, in order.

    An operator has the name TFLite gives it (``CONV_2D``); a custom one has its own name and
    the domain ``custom``.
    """

    source: SourceModel
    ops: tuple[NodeFacts, ...]


@dataclass(frozen=True, slots=True)
class _Tensor:
    info: TensorInfo
    constant_bytes: int


@dataclass(frozen=True, slots=True)
class _Subgraph:
    tensors: tuple[_Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ops: tuple[NodeFacts, ...]


def open_tflite(path: Path) -> OpenedTflite:
    """Open a TFLite file.

    Raises:
        ModelError: It is something else, cut short, or refers to what is not in it.
    """
    path = Path(path)
    if sniff_format(path) != "tflite":
        raise ModelError(
            f"cannot open {path} as TFLite: it is another kind of file",
            hint="a TFLite file has TFL3 in its bytes 4 to 7",
            path=str(path),
        )
    data = read_model_file(path)
    try:
        return _read(data, path)
    except FlatbufferError as exc:
        raise ModelError(
            f"cannot open {path}: its structure is broken: {exc}",
            hint="copy or convert it again; a runtime might crash on it",
            path=str(path),
        ) from exc


def _read(data: bytes, path: Path) -> OpenedTflite:
    model = root_table(data, b"TFL3")
    version = model.number(0, "I")
    if version != _SCHEMA_VERSION:
        raise FlatbufferError(f"its schema has version {version} (expected {_SCHEMA_VERSION})")
    codes = [_operator_code(code) for code in model.tables(1)]
    buffers = [_buffer_bytes(buffer, len(data)) for buffer in model.tables(4)]
    graphs = [_subgraph(graph, codes, buffers) for graph in model.tables(2)]
    if not graphs:
        raise FlatbufferError("it has no subgraph")
    _check_metadata(model, len(buffers))
    first = graphs[0]
    counts = Counter(
        f"{op.domain}.{op.op}" if op.domain else op.op for graph in graphs for op in graph.ops
    )
    source = SourceModel(
        path=path,
        name=model_name(path),
        format="tflite",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        ir_version=0,
        opset=0,
        opsets={},
        producer=model.text(3)[:200],
        inputs=tuple(first.tensors[index].info for index in first.inputs),
        outputs=tuple(first.tensors[index].info for index in first.outputs),
        op_counts=dict(sorted(counts.items())),
        initializer_bytes=sum(buffers),
        external_data=False,
    )
    return OpenedTflite(source=source, ops=first.ops)


def _operator_code(code: Table) -> tuple[str, str, int]:
    """Give an operator's name, domain and version."""
    number = max(code.number(0, "b"), code.number(3, "i"))
    version = code.number(2, "i", 1)
    if number == _CUSTOM:
        return code.text(1)[:200] or "unnamed", "custom", version
    if not 0 <= number < len(OPERATORS) or number == _PLACEHOLDER:
        raise FlatbufferError(f"it uses operator number {number}, which is unknown here")
    return OPERATORS[number], "", version


def _buffer_bytes(buffer: Table, file_bytes: int) -> int:
    """Give the size of a buffer, which lies in its table or, in large files, behind all."""
    span = buffer.span(0)
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if offset > 1:  # 0 and 1 say that there is none
        if offset + size > file_bytes:
            raise FlatbufferError(
                f"a buffer ends at byte {offset + size} of {file_bytes}",
            )
        return size
    return 0 if span is None else span[1]


def _subgraph(graph: Table, codes: list[tuple[str, str, int]], buffers: list[int]) -> _Subgraph:
    tensors = tuple(_tensor(tensor, buffers) for tensor in graph.tables(0))
    inputs = _indices(graph.numbers(1, "i"), len(tensors), "a subgraph's input")
    outputs = _indices(graph.numbers(2, "i"), len(tensors), "a subgraph's output")
    ops = tuple(
        _operator(index, operator, codes, tensors)
        for index, operator in enumerate(graph.tables(3))
    )
    return _Subgraph(tensors, inputs, outputs, ops)


def _tensor(tensor: Table, buffers: list[int]) -> _Tensor:
    name = tensor.text(3)[:500]
    number = tensor.number(1, "b")
    if number not in TENSOR_TYPES:
        raise FlatbufferError(f"tensor {name!r} has type number {number}")
    dtype, bits = TENSOR_TYPES[number]
    shape = tensor.numbers(0, "i") or ()
    if len(shape) > _MOST_RANK or any(extent < 0 for extent in shape):
        raise FlatbufferError(f"tensor {name!r} has the shape {shape[:8]}")
    elements = math.prod(max(extent, 1) for extent in shape)
    if elements > _MOST_ELEMENTS:
        raise FlatbufferError(
            f"the shape {shape[:8]} of tensor {name!r} multiplies to {elements}"
        )
    index = tensor.number(2, "I")
    if index >= max(len(buffers), 1):
        raise FlatbufferError(f"tensor {name!r} uses buffer {index} of {len(buffers)}")
    held = buffers[index] if buffers else 0
    expected = (math.prod(shape) * bits + 7) // 8
    is_sparse = tensor.table(6) is not None
    if held and bits and not is_sparse and held != expected:
        raise FlatbufferError(f"tensor {name!r} has {held} bytes (expected {expected})")
    signature = tensor.numbers(7, "i")
    stated: tuple[int | None, ...] = shape
    if signature is not None and len(signature) == len(shape):
        stated = tuple(
            None if wanted < 0 else extent
            for extent, wanted in zip(shape, signature, strict=True)
        )
    tensor.table(4)  # quantization: its place must be sound too
    return _Tensor(TensorInfo(name=name, dtype=dtype, shape=stated), held)


def _operator(
    index: int,
    operator: Table,
    codes: list[tuple[str, str, int]],
    tensors: tuple[_Tensor, ...],
) -> NodeFacts:
    code = operator.number(0, "I")
    if code >= len(codes):
        raise FlatbufferError(f"operator {index} has code {code} of {len(codes)}")
    name, domain, version = codes[code]
    inputs = _indices(
        operator.numbers(1, "i"), len(tensors), f"operator {index}", optional=True
    )
    outputs = _indices(
        operator.numbers(2, "i"), len(tensors), f"operator {index}", optional=True
    )
    operator.table(4)  # its options: their place must be sound
    operator.span(5)
    taken = [tensors[one] if one >= 0 else None for one in inputs]
    given = [tensors[one] if one >= 0 else None for one in outputs]
    return NodeFacts(
        index=index,
        name="",
        op=name,
        domain=domain,
        since_version=version,
        inputs=tuple(one.info.name if one else "" for one in taken),
        outputs=tuple(one.info.name if one else "" for one in given),
        input_types=tuple(one.info if one else None for one in taken),
        output_types=tuple(one.info if one else None for one in given),
        constant_inputs=tuple(one is not None and one.constant_bytes > 0 for one in taken),
    )


def _indices(
    indices: tuple[int, ...] | None, count: int, what: str, *, optional: bool = False
) -> tuple[int, ...]:
    """Check references to tensors; -1 says that an optional one is left out."""
    for index in indices or ():
        if not (-1 if optional else 0) <= index < count:
            raise FlatbufferError(f"{what} refers to tensor {index} of {count}")
    return indices or ()


def _check_metadata(model: Table, buffers: int) -> None:
    for entry in model.tables(6):
        entry.text(0)
        if entry.number(1, "I") >= max(buffers, 1):
            raise FlatbufferError("its metadata refers to a buffer that is not there")
