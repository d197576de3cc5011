"""Keep LiteRT from writing over a tensor that is still to be read.

LiteRT's memory planner lets a few kernels write their result over their first operand, and a
RESHAPE share its input's memory. Whether somebody still reads that memory it asks of the tensor
it was first made for only: where such a kernel gave a value, a RESHAPE of it goes into another
such kernel, and the value itself is read later, that kernel overwrites it. So it does in LiteRT
2.3 without XNNPACK. A copy in front of the RESHAPE has memory of its own.
"""

from __future__ import annotations

from edgesdk.backends.litert.lower.builder import Builder
from edgesdk.backends.litert.lower.graph import Op, Tensor

__all__ = ["keep_apart"]

#: Kernels that write over an operand.
_IN_PLACE = frozenset({"ADD", "DIV", "MUL", "SOFTMAX", "SUB"})


def keep_apart(builder: Builder) -> None:
    """Put a copy in front of every RESHAPE behind which its input would be overwritten."""
    ops = builder.graph.ops
    readers: dict[int, list[Op]] = {}
    for op in ops:
        for tensor in op.inputs:
            if tensor is not None:
                readers.setdefault(id(tensor), []).append(op)
    builder.graph.ops = []
    for op in ops:
        source = op.inputs[0] if op.code == "RESHAPE" else None
        if source is not None and _is_overwritten(op, source, readers):
            op.inputs = (_copy(builder, source), *op.inputs[1:])
        builder.graph.ops.append(op)


def _is_overwritten(op: Op, source: Tensor, readers: dict[int, list[Op]]) -> bool:
    maker = source.maker
    if maker is None or maker.code not in _IN_PLACE or len(readers[id(source)]) < 2:
        return False
    return any(each.code in _IN_PLACE for each in readers.get(id(op.outputs[0]), ()))


def _copy(builder: Builder, source: Tensor) -> Tensor:
    inputs = [
        source,
        builder.numbers([0] * len(source.shape), "begin"),
        builder.numbers(source.shape, "size"),
    ]
    return builder.emit(
        "SLICE",
        inputs,
        source.shape,
        dtype=source.dtype,
        grid=source.grid,
        options=("SliceOptions", {}),
        name=f"{source.name}.kept",
    )
