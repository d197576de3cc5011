"""What picks entries: slices, splits and gathers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.layouts import axis_of
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__ = ["cut", "is_known", "known_integers", "moved", "rank_of"]

#: Dimensions that kernels of slices take.
_MOST_RANK = 5
_INTO_SLICE = ("SLICE", "STRIDED_SLICE", "REVERSE_V2")


def is_known(node: NodeFacts, position: int) -> bool:
    """Say whether an input is left out, or known before the graph runs."""
    given = position < len(node.inputs) and node.inputs[position]
    return not given or node.constant_inputs[position]


def rank_of(node: NodeFacts) -> int:
    """Give how many dimensions the first input has; 0 where that is not known."""
    read = node.input_types[0] if node.input_types else None
    return 0 if read is None else len(read.shape)


def known_integers(site: Site, position: int, what: str) -> tuple[int, ...]:
    """Give whole numbers that an input holds.

    Raises:
        CannotLower: They are not known before the graph runs.
    """
    found = site.constant(position)
    if found is None:
        raise CannotLower(f"its {what} are not known before it runs")
    return tuple(int(each) for each in found.reshape(-1))


def moved(site: Site, held: Held) -> Held:
    """Give a value in a form that moves as it is: on a grid of one scale, or plain."""
    grid = held.tensor.grid
    if grid is not None and grid.axis is not None:
        return Held(site.builder.in_float(held.tensor), held.order)
    return held


# Slices --------------------------------------------------------------------------------------


def _why_not_slice(node: NodeFacts) -> str | None:
    for position, what in ((1, "starts"), (2, "ends"), (3, "axes"), (4, "steps")):
        if not is_known(node, position):
            return f"its {what} are not known before it runs"
    if rank_of(node) > _MOST_RANK:
        return f"it slices {rank_of(node)} dimensions (at most {_MOST_RANK})"
    return None


@lowers("Slice", into=_INTO_SLICE, why_not=_why_not_slice, keeps_grid=True)
def lower_slice(site: Site) -> None:
    """Lower a cut; with steps it is strided, and backwards the axis is turned around after."""
    held = moved(site, site.held(0))
    rank = len(held.order)
    starts = site.numbers("starts") or known_integers(site, 1, "starts")
    ends = site.numbers("ends") or known_integers(site, 2, "ends")
    axes = site.numbers("axes") or (
        known_integers(site, 3, "axes") if site.has(3) else tuple(range(len(starts)))
    )
    steps = known_integers(site, 4, "steps") if site.has(4) else (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise CannotLower("its starts, ends, axes and steps are not as many")
    cuts = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step == 0:
            raise CannotLower("a step of it is 0")
        cuts[axis_of(axis, rank)] = slice(start, end, step)
    ranges = [
        range(*cuts[axis].indices(held.shape[axis]))
        if axis in cuts
        else range(held.shape[axis])
        for axis in held.order
    ]
    site.give(cut(site, held.tensor, ranges), held.order)


def cut(site: Site, tensor: Tensor, ranges: Sequence[range]) -> Tensor:
    """Give the entries of a tensor at ranges, one for each of its axes."""
    builder = site.builder
    backwards = [axis for axis, each in enumerate(ranges) if each.step < 0 and len(each) > 1]
    ahead = [each if each.step > 0 else each[::-1] for each in ranges]
    shape = [len(each) for each in ahead]
    if not all(shape):
        raise CannotLower("it cuts everything off")
    if tensor.data is not None and tensor.grid is None:
        picked = tensor.data[np.ix_(*ranges)] if ranges else tensor.data
        return builder.constant(np.ascontiguousarray(picked), tensor.name)
    begins = [each.start for each in ahead]
    if tuple(shape) != tensor.shape:
        if all(each.step == 1 or len(each) == 1 for each in ahead):
            inputs = [tensor, builder.numbers(begins, "begin"), builder.numbers(shape, "size")]
            options: Options = ("SliceOptions", {})
            code = "SLICE"
        else:
            ends = [each[-1] + 1 for each in ahead]
            steps = [each.step if len(each) > 1 else 1 for each in ahead]
            numbers = (("begin", begins), ("end", ends), ("steps", steps))
            inputs = [tensor, *(builder.numbers(each, name) for name, each in numbers)]
            masks = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")
            options = ("StridedSliceOptions", dict.fromkeys(masks, 0))
            code = "STRIDED_SLICE"
        tensor = site.emit(
            code, inputs, shape, dtype=tensor.dtype, grid=tensor.grid, options=options
        )
    for axis in backwards:
        tensor = site.emit(
            "REVERSE_V2",
            [tensor, builder.numbers([axis], "axis")],
            shape,
            dtype=tensor.dtype,
            grid=tensor.grid,
            options=("ReverseV2Options", {}),
        )
    return tensor


def _why_not_split(node: NodeFacts) -> str | None:
    if not is_known(node, 1):
        return "its sizes are not known before it runs"
    if rank_of(node) > _MOST_RANK:
        return f"it splits {rank_of(node)} dimensions (at most {_MOST_RANK})"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype == "bool":
        return "it splits bool"
    return None


@lowers("Split", into=("SPLIT_V", "SPLIT"), why_not=_why_not_split, keeps_grid=True)
def lower_split(site: Site) -> None:
    """Lower to pieces along an axis, of equal size or not."""
    held = moved(site, site.held(0))
    axis = axis_of(site.number("axis"), len(held.order))
    place = held.order.index(axis)
    outputs = site.node.outputs
    sizes = [site.out_shape(position)[axis] for position in range(len(outputs))]
    if sum(sizes) != held.shape[axis]:
        raise CannotLower(f"it splits {held.shape[axis]} entries into {sizes}")
    pieces = []
    for position, size in enumerate(sizes):
        shape = list(held.tensor.shape)
        shape[place] = size
        name = site.builder.fresh(outputs[position].name or "piece")
        pieces.append(Tensor(name, held.tensor.dtype, tuple(shape), held.tensor.grid))
    builder = site.builder
    where = builder.constant(np.array(place, np.int32), "axis")
    fields: dict[str, object] = {"numSplits": len(sizes)}
    if len(set(sizes)) == 1:
        builder.graph.add("SPLIT", [where, held.tensor], pieces, ("SplitOptions", fields))
    else:
        lengths = builder.numbers(sizes, "sizes")
        inputs = [held.tensor, lengths, where]
        builder.graph.add("SPLIT_V", inputs, pieces, ("SplitVOptions", fields))
    for position, piece in enumerate(pieces):
        if outputs[position].name:
            site.give(piece, held.order, position=position)


# Gathers -------------------------------------------------------------------------------------


def _why_not_gather(node: NodeFacts) -> str | None:
    read = node.input_types[1] if len(node.input_types) > 1 else None
    if read is not None and read.dtype not in ("int32", "int64", ""):
        return f"its indices are {read.dtype}"
    return "it picks batch by batch" if node.ints.get("batch_dims", (0,))[0] else None


def _indices(site: Site, extent: int | np.ndarray) -> Tensor:
    """Give input 1 as indices from the front.

    Args:
        site: The node.
        extent: How many entries there are along the axis, or along the last axis of indices.
    """
    found = site.constant(1)
    if found is not None:
        counted = np.where(found < 0, found + extent, found)
        if np.any(counted < 0) or np.any(counted >= extent):
            raise CannotLower("an index of it lies outside")
        return site.builder.constant(counted.astype(np.int32), "indices")
    tensor = site.take(1)
    limits = site.builder.constant(np.array(extent, tensor.dtype), "extent")
    return Maths(site).binary("FLOOR_MOD", tensor, limits)


@lowers("Gather", into=("GATHER", "FLOOR_MOD"), why_not=_why_not_gather, keeps_grid=True)
def lower_gather(site: Site) -> None:
    """Lower a pick of entries along an axis, counted from the end where they are negative."""
    held = moved(site, site.held(0))
    rank = len(held.order)
    axis = axis_of(site.number("axis"), rank)
    found = site.constant(1)
    many = len(site.shape(1))
    if found is not None and found.size == 1:
        index = int(found.reshape(-1)[0])
        index = index if index >= 0 else index + held.shape[axis]
        if not 0 <= index < held.shape[axis]:
            raise CannotLower("an index of it lies outside")
        if rank <= _MOST_RANK:
            _give_one(site, held, axis, index, many)
            return
    tensor = site.turn(held)
    indices = _indices(site, held.shape[axis])
    shape = (*tensor.shape[:axis], *indices.shape, *tensor.shape[axis + 1 :])
    options: Options = ("GatherOptions", {"axis": axis, "batchDims": 0})
    inputs = [tensor, indices]
    site.give(
        site.emit(
            "GATHER", inputs, shape, dtype=tensor.dtype, grid=tensor.grid, options=options
        )
    )


def _give_one(site: Site, held: Held, axis: int, index: int, many: int) -> None:
    """Give one entry along an axis: a slice, in whatever order of axes."""
    place = held.order.index(axis)
    ranges = [range(extent) for extent in held.tensor.shape]
    ranges[place] = range(index, index + 1)
    tensor = cut(site, held.tensor, ranges)
    rest = [each for each in held.order if each != axis]
    shape = [tensor.shape[held.order.index(each)] for each in rest]
    order = [each if each < axis else each - 1 for each in rest]
    moved = Held(site.builder.reshaped(tensor, shape), tuple(order))
    if not many:
        site.give(moved.tensor, moved.order)
        return
    plain = site.turn(moved)
    site.give(site.builder.reshaped(plain, site.out_shape()))


@lowers("GatherND", into=("GATHER_ND", "FLOOR_MOD"), why_not=_why_not_gather, keeps_grid=True)
def lower_gather_nd(site: Site) -> None:
    """Lower a pick at coordinates."""
    tensor = site.turn(moved(site, site.held(0)))
    coordinates = site.shape(1)
    count = coordinates[-1]
    if not 0 < count <= len(tensor.shape):
        raise CannotLower(f"it has {count} coordinates for {len(tensor.shape)} dimensions")
    indices = _indices(site, np.array(tensor.shape[:count]))
    shape = (*coordinates[:-1], *tensor.shape[count:])
    options: Options = ("GatherNdOptions", {})
    inputs = [tensor, indices]
    site.give(
        site.emit(
            "GATHER_ND", inputs, shape, dtype=tensor.dtype, grid=tensor.grid, options=options
        )
    )


def _why_not_gather_elements(node: NodeFacts) -> str | None:
    if len(node.constant_inputs) > 1 and not node.constant_inputs[1]:
        return "its indices are not known before it runs"
    return None


@lowers("GatherElements", into="GATHER_ND", why_not=_why_not_gather_elements, keeps_grid=True)
def lower_gather_elements(site: Site) -> None:
    """Lower to a pick at coordinates, which are known here."""
    tensor = site.turn(moved(site, site.held(0)))
    rank = len(tensor.shape)
    axis = axis_of(site.number("axis"), rank)
    found = site.constant(1)
    if found is None or found.ndim != rank:
        raise CannotLower("its indices are not known before it runs")
    counted = np.where(found < 0, found + tensor.shape[axis], found)
    grid = np.moveaxis(np.indices(found.shape), 0, -1).copy()
    grid[..., axis] = counted
    if np.any(grid < 0) or np.any(grid >= np.array(tensor.shape)):
        raise CannotLower("an index of it lies outside")
    coordinates = site.builder.constant(grid.astype(np.int32), "coordinates")
    options: Options = ("GatherNdOptions", {})
    inputs = [tensor, coordinates]
    site.give(
        site.emit(
            "GATHER_ND",
            inputs,
            found.shape,
            dtype=tensor.dtype,
            grid=tensor.grid,
            options=options,
        )
    )
