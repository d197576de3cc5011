"""Products of matrices: FULLY_CONNECTED, BATCH_MATMUL, lookups in a table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgesdk.importers.tflite.held import CannotConvert, Held
from edgesdk.importers.tflite.ops.windows import bias_of, note_hybrid
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import Site

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []


@converts("FULLY_CONNECTED")
def _fully_connected(site: Site) -> None:
    """Make a Gemm; what has more than two axes is brought to two, and back."""
    if site.text("weights_format", "DEFAULT") != "DEFAULT":
        raise CannotConvert(f"its weights are stored as {site.text('weights_format')}")
    held, weights = site.held(0), site.shape(1)
    if len(weights) != 2 or not weights[1] or math.prod(held.shape) % weights[1]:
        raise CannotConvert(f"its input is {held.shape}, its weights are {weights}")
    note_hybrid(site)
    rows = math.prod(held.shape) // weights[1]
    flat = site.builder.reshaped(held, (rows, weights[1]))
    inputs = [site.builder.real(flat), site.take(1), bias_of(site, 2, 0)]
    if inputs[2] is None:
        inputs.pop()
    value = site.activated(site.emit("Gemm", inputs, {"transB": 1}))
    out = site.out_shape()
    if out == (rows, weights[0]):
        site.give(value)
        return
    if math.prod(out) != rows * weights[0]:
        raise CannotConvert(f"it gives {rows} rows of {weights[0]} (the file states {out})")
    grid = site.out_grid()
    made = site.builder.moved(Held((), (), grid), value, (rows, weights[0]), (0, 1))
    site.pass_on(site.builder.reshaped(made, out))


@converts("BATCH_MATMUL")
def _batch_matmul(site: Site) -> None:
    note_hybrid(site)
    sides = [
        _matrix(site, position, turn=bool(site.number(name)))
        for position, name in enumerate(("adj_x", "adj_y"))
    ]
    site.give(site.emit("MatMul", sides))


def _matrix(site: Site, position: int, *, turn: bool) -> ir.Value:
    """Give a stack of matrices, each transposed if it has to be."""
    rank = len(site.shape(position))
    if rank < 2:
        raise CannotConvert(f"its input {position} has {rank} dimensions")
    order = list(range(rank))
    if turn:
        order[-2:] = order[-1], order[-2]
    return site.take(position, order)


@converts("EMBEDDING_LOOKUP")
def _embedding_lookup(site: Site) -> None:
    site.give(site.emit("Gather", [site.take(1), site.take(0)], {"axis": 0}))
