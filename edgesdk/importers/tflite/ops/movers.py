"""Operators that put numbers in other places: shapes, axes, joining, cutting, padding."""

from __future__ import annotations

import math

import numpy as np

from edgesdk.importers.tflite.held import CannotConvert, Held
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import CHANNELS_FIRST, Site

__all__: list[str] = []

#: An end in front of the first entry, for a slice that runs backwards through it.
_BEFORE_ALL = -(1 << 31)


@converts("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def _reshape(site: Site) -> None:
    """Take the shape that the file states for the result."""
    held, shape = site.held(0), site.out_shape()
    if math.prod(held.shape) != math.prod(shape):
        raise CannotConvert(
            f"it makes {shape} of {held.shape}, which hold different counts of numbers",
            hint="convert to TFLite again with fixed shapes",
        )
    site.pass_on(site.builder.reshaped(held, shape))


@converts("TRANSPOSE")
def _transpose(site: Site) -> None:
    """Say that the axes have other places; a node is there only where somebody minds."""
    held = site.held(0)
    perm = [site.axis(each, held.rank) for each in site.numbers(1, "order of axes")]
    if sorted(perm) != list(range(held.rank)):
        raise CannotConvert(f"its order of axes is {perm}")
    shape = tuple(held.shape[axis] for axis in perm)
    if held.data is not None and (held.grid is None or held.grid.axis is None):
        data = held.data.transpose(perm)
        site.pass_on(Held(shape, tuple(range(len(shape))), held.grid, data=data))
        return
    site.builder.real(held, held.order)  # made once, for all who turn it again
    order = tuple(perm.index(axis) for axis in held.order)
    site.pass_on(Held(shape, order, held.grid, whole=held.whole, real=held.real))


@converts("CONCATENATION")
def _concatenation(site: Site) -> None:
    positions = range(len(site.op.inputs))
    order = site.common_order(*positions)
    axis = site.axis(site.number("axis"), len(order))
    values = [site.take(position, order) for position in positions]
    value = site.emit("Concat", values, {"axis": order.index(axis)})
    site.give(site.activated(value), order)


@converts("PACK")
def _pack(site: Site) -> None:
    out = site.out_shape()
    axis = site.axis(site.number("axis"), len(out))
    shape = (*out[:axis], 1, *out[axis + 1 :])
    pieces = [
        site.builder.real(site.builder.reshaped(site.held(position), shape))
        for position in range(len(site.op.inputs))
    ]
    site.give(site.emit("Concat", pieces, {"axis": axis}))


@converts("UNPACK")
def _unpack(site: Site) -> None:
    held = site.held(0)
    axis = site.axis(site.number("axis"), held.rank)
    count = len(site.op.outputs)
    if held.shape[axis] != count:
        raise CannotConvert(f"it makes {count} tensors of {held.shape} along axis {axis}")
    ones = site.builder.numbers(*(1 for _ in range(count)))
    pieces = site.builder.emit("Split", [site.take(0), ones], {"axis": axis}, outputs=count)
    for position, piece in enumerate(pieces):
        where = site.builder.numbers(axis)
        site.give(site.emit("Squeeze", [piece, where]), position=position)


@converts("SPLIT", "SPLIT_V")
def _split(site: Site) -> None:
    source, place = (1, 0) if site.op.name == "SPLIT" else (0, 2)
    held, count = site.held(source), len(site.op.outputs)
    axis = site.axis(site.numbers(place, "axis")[0], held.rank)
    sizes = [site.out_shape(position)[axis] for position in range(count)]
    if sum(sizes) != held.shape[axis]:
        raise CannotConvert(f"its pieces have {sizes} of {held.shape[axis]} entries")
    inputs = [site.take(source, held.order), site.builder.numbers(*sizes)]
    where = {"axis": held.order.index(axis)}
    pieces = site.builder.emit("Split", inputs, where, outputs=count)
    for position, piece in enumerate(pieces):
        site.give(piece, held.order, position=position)


@converts("PAD", "PADV2")
def _pad(site: Site) -> None:
    held = site.held(0)
    before, after = _widths(site)
    widths = [each[axis] for each in (before, after) for axis in held.order]
    inputs = [site.take(0, held.order), site.builder.numbers(*widths)]
    if site.op.name == "PADV2":
        inputs.append(site.builder.real(site.builder.reshaped(site.held(2), ())))
    site.give(site.emit("Pad", inputs), held.order)


@converts("MIRROR_PAD")
def _mirror_pad(site: Site) -> None:
    held = site.held(0)
    before, after = _widths(site)
    value = site.take(0, held.order)
    if site.text("mode") == "REFLECT":
        widths = [each[axis] for each in (before, after) for axis in held.order]
        value = site.emit("Pad", [value, site.builder.numbers(*widths)], {"mode": "reflect"})
        site.give(value, held.order)
        return
    for axis, extent in enumerate(held.shape):
        if before[axis] or after[axis]:
            # ONNX's mirrors do not repeat the border
            site.countable(site.out_shape()[axis])
            places = np.pad(np.arange(extent), (before[axis], after[axis]), mode="symmetric")
            where = site.builder.constant(places.astype(np.int64))
            value = site.emit("Gather", [value, where], {"axis": held.order.index(axis)})
    site.give(value, held.order)


def _widths(site: Site) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Give how much is added in front of and behind every axis, in TFLite's order.

    Raises:
        CannotConvert: It is not known, or does not lead to the shape that the file states.
    """
    shape, out = site.shape(0), site.out_shape()
    pairs = np.array(site.numbers(1, "paddings")).reshape(-1, 2)
    wanted = [extent + int(pair.sum()) for extent, pair in zip(shape, pairs, strict=True)]
    if tuple(wanted) != out or pairs.min(initial=0) < 0:
        raise CannotConvert(f"it pads {shape} to {tuple(wanted)} (the file states {out})")
    return tuple(map(int, pairs[:, 0])), tuple(map(int, pairs[:, 1]))


@converts("TILE")
def _tile(site: Site) -> None:
    held, counts = site.held(0), site.numbers(1, "counts")
    repeats = site.builder.numbers(*(counts[axis] for axis in held.order))
    site.give(site.emit("Tile", [site.take(0, held.order), repeats]), held.order)


@converts("BROADCAST_TO")
def _broadcast_to(site: Site) -> None:
    shape = site.out_shape()
    source = site.broadcastable(site.held(0), range(len(shape)))
    site.give(site.emit("Expand", [source, site.builder.numbers(*shape)]))


@converts("DEPTH_TO_SPACE", "SPACE_TO_DEPTH")
def _depth_and_space(site: Site) -> None:
    op = "DepthToSpace" if site.op.name == "DEPTH_TO_SPACE" else "SpaceToDepth"
    size = {"blocksize": site.number("block_size")}
    site.give(site.emit(op, [site.take(0, CHANNELS_FIRST)], size), CHANNELS_FIRST)


@converts("SPACE_TO_BATCH_ND")
def _space_to_batch(site: Site) -> None:
    """Pad, cut every axis into blocks, and bring the places in a block to the batch."""
    blocks, shape = site.numbers(1, "blocks"), list(site.shape(0))
    pairs = np.array(site.numbers(2, "paddings")).reshape(len(blocks), 2)
    rest = [0] * (len(shape) - 1 - len(blocks))
    widths = [0, *pairs[:, 0], *rest, 0, *pairs[:, 1], *rest]
    value = site.take(0)
    if any(widths):
        value = site.emit("Pad", [value, site.builder.numbers(*map(int, widths))])
    cut = [shape[0]]
    for block, extent, pair in zip(blocks, shape[1:], pairs, strict=False):
        cut += [(extent + int(pair.sum())) // block, block]
    count = len(blocks)
    cut += shape[1 + count :]
    value = site.emit("Reshape", [value, site.builder.numbers(*cut)])
    inner = [2 + 2 * axis for axis in range(count)]
    outer = [1 + 2 * axis for axis in range(count)]
    perm = (*inner, 0, *outer, *range(1 + 2 * count, len(cut)))
    value = site.emit("Transpose", [value], {"perm": perm})
    site.give(site.emit("Reshape", [value, site.builder.numbers(*site.out_shape())]))


@converts("BATCH_TO_SPACE_ND")
def _batch_to_space(site: Site) -> None:
    """Bring the places in a block back from the batch, and cut off what padded them."""
    blocks, shape = site.numbers(1, "blocks"), list(site.shape(0))
    crops = np.array(site.numbers(2, "crops")).reshape(len(blocks), 2)
    count, batch = len(blocks), site.out_shape()[0]
    first = site.builder.numbers(*blocks, batch, *shape[1:])
    value = site.emit("Reshape", [site.take(0), first])
    perm = [count]
    for axis in range(count):
        perm += [count + 1 + axis, axis]
    perm += range(2 * count + 1, count + len(shape))
    value = site.emit("Transpose", [value], {"perm": tuple(perm)})
    whole = [extent * block for extent, block in zip(shape[1:], blocks, strict=False)]
    joined = site.builder.numbers(batch, *whole, *shape[1 + count :])
    value = site.emit("Reshape", [value, joined])
    if crops.any():
        ends = [extent - int(crop) for extent, crop in zip(whole, crops[:, 1], strict=True)]
        value = site.emit(
            "Slice",
            [
                value,
                site.builder.numbers(*map(int, crops[:, 0])),
                site.builder.numbers(*ends),
                site.builder.numbers(*range(1, 1 + count)),
            ],
        )
    site.give(value)


@converts("REVERSE_V2")
def _reverse(site: Site) -> None:
    held = site.held(0)
    axes = [held.order.index(axis) for axis in site.axes(1, held.rank)]
    ends = [-1] * len(axes), [_BEFORE_ALL] * len(axes), axes, [-1] * len(axes)
    limits = [site.builder.numbers(*each) for each in ends]
    site.give(site.emit("Slice", [site.take(0, held.order), *limits]), held.order)
