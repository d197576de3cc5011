"""All that a TFLite file says, as values: tensors with their grids, operators with options.

Read on top of the checked walk of `_flatbuffer`, so a `TfliteGraph` that exists is sound:
indices refer to what is there, constants have the bytes their shape asks for, and grids have
as many scales as their axis has entries.

Field numbers are those of TFLite's schema (version 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.model._flatbuffer import FlatbufferError, Table, root_table
from edgesdk.model._tflite_names import OPERATORS, TENSOR_TYPES
from edgesdk.model._tflite_options import OptionValue, read_options

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TfliteGraph", "TfliteOp", "TfliteSignature", "TfliteTensor", "read_tflite_graphs"]

_SCHEMA_VERSION = 3
_CUSTOM = OPERATORS.index("CUSTOM")
_MOST_ELEMENTS = 1 << 48
_MOST_RANK = 32
#: The code of an operator that fits no byte stands in a second field; the first says this.
_PLACEHOLDER = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteTensor:
    """One tensor of a graph.

    Attributes:
        index: Its position, by which operators refer to it.
        name: What the file calls it; may be missing or repeat.
        dtype: Numpy's name of its type, or TFLite's own where numpy has none.
        shape: As the file fixes it; empty for a scalar.
        shape_signature: The shape with -1 where an extent may vary; ``shape`` if none may.
        scales: Of its grid, one or one per entry of ``axis``; empty if it is not quantized.
        zero_points: Beside ``scales``.
        axis: The axis that has one scale per entry; None where one scale is for all.
        is_variable: It keeps its content from one run to the next.
        is_sparse: Its constant is stored without some of its zeros.
        constant: Where the file holds its content, as start and length; None if it does not.
        is_behind: Its content lies behind all tables, where older readers find nothing.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...]
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int | None = None
    is_variable: bool = False
    is_sparse: bool = False
    constant: tuple[int, int] | None = None
    is_behind: bool = False

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """What it takes stored densely; 0 where its type has no fixed size."""
        bits = next(bits for name, bits in TENSOR_TYPES.values() if name == self.dtype)
        return (self.elements * bits + 7) // 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteOp:
    """One operator of a graph.

    Attributes:
        index: Position in the order of execution.
        name: As TFLite's schema has it (``CONV_2D``), or the name of a custom operator.
        is_custom: It is none of TFLite's own.
        version: Of the operator, as the file states it.
        inputs: Indices of tensors; -1 where an optional one is left out.
        outputs: Indices of tensors.
        options: By name (`_tflite_options` lists them), as plain values.
        custom_options: Where the file holds a custom operator's options, as start and length.
    """

    index: int
    name: str
    is_custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    custom_options: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteSignature:
    """A way to call the model by names: name of an argument or result -> tensor index."""

    key: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteGraph:
    """One subgraph of a TFLite file.

    Attributes:
        tensors: By index.
        ops: In the order of execution.
        inputs: Indices of the tensors that are given.
        outputs: Indices of the tensors that are asked for.
        subgraphs: How many subgraphs the file has; further ones are bodies of control flow or
            other signatures.
        signatures: Of the whole file.
        metadata: Names of the file's metadata entries.
        data: The file.
    """

    tensors: tuple[TfliteTensor, ...]
    ops: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    subgraphs: int = 1
    signatures: tuple[TfliteSignature, ...] = ()
    metadata: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False, compare=False)

    def constant(self, index: int) -> bytes | None:
        """Give the content of tensor ``index``; None if the file does not fix it."""
        place = self.tensors[index].constant
        return None if place is None else self.data[place[0] : place[0] + place[1]]

    def array(self, index: int) -> np.ndarray | None:
        """Give the content of tensor ``index`` in its shape, read-only.

        None if the file does not fix it, or numpy has no type for it, or it is sparse.
        """
        import numpy as np

        tensor, content = self.tensors[index], self.constant(index)
        try:
            dtype = np.dtype(tensor.dtype)
        except TypeError:
            return None
        if content is None or tensor.is_sparse or dtype.hasobject or not dtype.itemsize:
            return None
        return np.frombuffer(content, dtype.newbyteorder("<")).reshape(tensor.shape)

    def custom_options(self, op: TfliteOp) -> bytes:
        """Give a custom operator's options as the file holds them."""
        start, size = op.custom_options or (0, 0)
        return self.data[start : start + size]

    def producers(self) -> dict[int, int]:
        """Give, by tensor, the operator that makes it."""
        return {index: op.index for op in self.ops for index in op.outputs if index >= 0}


def read_tflite_graphs(data: bytes) -> tuple[tuple[TfliteGraph, ...], str, int]:
    """Read every subgraph, the file's description, and the bytes of all its constants.

    Raises:
        FlatbufferError: The structure is broken, or refers to what is not there.
    """
    model = root_table(data, b"TFL3")
    version = model.number(0, "I")
    if version != _SCHEMA_VERSION:
        raise FlatbufferError(f"its schema has version {version} (expected {_SCHEMA_VERSION})")
    codes = [_operator_code(code) for code in model.tables(1)]
    buffers = [_buffer(buffer, len(data)) for buffer in model.tables(4)]
    bodies = [_subgraph(graph, codes, buffers, len(data)) for graph in model.tables(2)]
    if not bodies:
        raise FlatbufferError("it has no subgraph")
    _check_bodies(bodies)
    metadata = _metadata(model, len(buffers))
    signatures = tuple(_signature(entry, bodies) for entry in model.tables(7))
    graphs = tuple(
        TfliteGraph(
            tensors=tensors,
            ops=ops,
            inputs=inputs,
            outputs=outputs,
            subgraphs=len(bodies),
            signatures=signatures,
            metadata=metadata,
            data=data,
        )
        for tensors, ops, inputs, outputs in bodies
    )
    return graphs, model.text(3)[:200], sum(size for _, size, _ in buffers)


#: Where a buffer starts, how long it is, and whether it lies behind all tables.
_Buffer = tuple[int, int, bool]
_Body = tuple[tuple[TfliteTensor, ...], tuple[TfliteOp, ...], tuple[int, ...], tuple[int, ...]]


def _operator_code(code: Table) -> tuple[str, bool, int]:
    """Give an operator's name, whether it is a custom one, and its version."""
    number = max(code.number(0, "b"), code.number(3, "i"))
    version = code.number(2, "i", 1)
    if number == _CUSTOM:
        return code.text(1)[:200] or "unnamed", True, version
    if not 0 <= number < len(OPERATORS) or number == _PLACEHOLDER:
        raise FlatbufferError(f"it uses operator number {number}, which is unknown here")
    return OPERATORS[number], False, version


def _buffer(buffer: Table, file_bytes: int) -> _Buffer:
    """Give where a buffer lies: in its table or, in large files, behind all tables."""
    span = buffer.span(0)
    offset, size = buffer.number(1, "Q"), buffer.number(2, "Q")
    if offset > 1:  # 0 and 1 say that there is none
        return (*_behind(offset, size, file_bytes, "a buffer"), True)
    return (0, 0, False) if span is None else (*span, False)


def _behind(offset: int, size: int, file_bytes: int, what: str) -> tuple[int, int]:
    if offset + size > file_bytes:
        raise FlatbufferError(f"{what} ends at byte {offset + size} of {file_bytes}")
    return offset, size


def _subgraph(
    graph: Table,
    codes: list[tuple[str, bool, int]],
    buffers: list[_Buffer],
    file_bytes: int,
) -> _Body:
    tensors = tuple(
        _tensor(index, tensor, buffers) for index, tensor in enumerate(graph.tables(0))
    )
    inputs = _indices(graph.numbers(1, "i"), len(tensors), "a subgraph's input")
    outputs = _indices(graph.numbers(2, "i"), len(tensors), "a subgraph's output")
    ops = tuple(
        _operator(index, operator, codes, len(tensors), file_bytes)
        for index, operator in enumerate(graph.tables(3))
    )
    return tensors, ops, inputs, outputs


def _tensor(index: int, tensor: Table, buffers: list[_Buffer]) -> TfliteTensor:
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
    buffer = tensor.number(2, "I")
    if buffer >= max(len(buffers), 1):
        raise FlatbufferError(f"tensor {name!r} uses buffer {buffer} of {len(buffers)}")
    start, held, behind = buffers[buffer] if buffers else (0, 0, False)
    expected = (math.prod(shape) * bits + 7) // 8
    is_sparse = tensor.table(6) is not None
    if held and bits and not is_sparse and held != expected:
        raise FlatbufferError(f"tensor {name!r} has {held} bytes (expected {expected})")
    signature = tensor.numbers(7, "i")
    scales, zero_points, axis = _grid(tensor.table(4), shape, name)
    return TfliteTensor(
        index=index,
        name=name,
        dtype=dtype,
        shape=shape,
        shape_signature=(
            signature if signature is not None and len(signature) == len(shape) else shape
        ),
        scales=scales,
        zero_points=zero_points,
        axis=axis,
        is_variable=bool(tensor.number(5, "B")),
        is_sparse=is_sparse,
        constant=(start, held) if held else None,
        is_behind=behind,
    )


def _grid(
    table: Table | None, shape: tuple[int, ...], name: str
) -> tuple[tuple[float, ...], tuple[int, ...], int | None]:
    """Read a grid. One that only states a range, or is of another kind, reads as none."""
    if table is None:
        return (), (), None
    table.table(5)  # details of other kinds of grid: their place must be sound
    scales = table.floats(2) or ()
    zero_points = table.numbers(3, "q") or ()
    if not scales:
        return (), (), None
    if not zero_points:
        zero_points = (0,) * len(scales)
    if len(zero_points) != len(scales):
        raise FlatbufferError(
            f"tensor {name!r} has {len(scales)} scales and {len(zero_points)} zero points"
        )
    if len(scales) == 1:
        return scales, zero_points, None
    axis = table.number(6, "i")
    if not 0 <= axis < len(shape) or shape[axis] != len(scales):
        raise FlatbufferError(
            f"tensor {name!r} of shape {shape[:8]} has {len(scales)} scales on axis {axis}"
        )
    return scales, zero_points, axis


def _operator(
    index: int,
    operator: Table,
    codes: list[tuple[str, bool, int]],
    tensors: int,
    file_bytes: int,
) -> TfliteOp:
    code = operator.number(0, "I")
    if code >= len(codes):
        raise FlatbufferError(f"operator {index} has code {code} of {len(codes)}")
    name, is_custom, version = codes[code]
    what = f"operator {index}"
    operator.table(12)  # options of the second kind: their place must be sound
    custom = operator.span(5)
    large = operator.number(9, "Q")
    if large > 1:  # 0 and 1 say that there is none
        custom = _behind(large, operator.number(10, "Q"), file_bytes, f"{what}'s options")
    return TfliteOp(
        index=index,
        name=name,
        is_custom=is_custom,
        version=version,
        inputs=_indices(operator.numbers(1, "i"), tensors, what, optional=True),
        outputs=_indices(operator.numbers(2, "i"), tensors, what, optional=True),
        options=read_options(operator.number(3, "B"), operator.table(4)),
        custom_options=custom,
    )


def _indices(
    indices: tuple[int, ...] | None, count: int, what: str, *, optional: bool = False
) -> tuple[int, ...]:
    """Check references to tensors; -1 says that an optional one is left out."""
    for index in indices or ():
        if not (-1 if optional else 0) <= index < count:
            raise FlatbufferError(f"{what} refers to tensor {index} of {count}")
    return indices or ()


def _check_bodies(bodies: list[_Body]) -> None:
    """Check that control flow names subgraphs that exist."""
    for _, ops, _, _ in bodies:
        for op in ops:
            for key, value in op.options.items():
                if not key.endswith("subgraph") or not isinstance(value, int):
                    continue
                if not 0 <= value < len(bodies):
                    raise FlatbufferError(
                        f"operator {op.index} ({op.name}) calls subgraph {value} of "
                        f"{len(bodies)}"
                    )


def _metadata(model: Table, buffers: int) -> tuple[str, ...]:
    names = []
    for entry in model.tables(6):
        names.append(entry.text(0)[:200])
        if entry.number(1, "I") >= max(buffers, 1):
            raise FlatbufferError("its metadata refers to a buffer that is not there")
    return tuple(names)


def _signature(entry: Table, bodies: list[_Body]) -> TfliteSignature:
    key = entry.text(2)[:200]
    subgraph = entry.number(4, "I")
    if subgraph >= len(bodies):
        raise FlatbufferError(f"signature {key!r} calls subgraph {subgraph} of {len(bodies)}")
    tensors = len(bodies[subgraph][0])
    sides = []
    for number in (0, 1):
        side = {}
        for pair in entry.tables(number):
            (place,) = _indices((pair.number(1, "I"),), tensors, f"signature {key!r}")
            side[pair.text(0)[:500]] = place
        sides.append(side)
    return TfliteSignature(key=key, subgraph=subgraph, inputs=sides[0], outputs=sides[1])
