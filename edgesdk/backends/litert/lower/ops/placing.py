"""What pads, repeats, and moves blocks between space and depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.layouts import axis_of, channels_last, lifted
from edgesdk.backends.litert.lower.ops.indexing import (
    cut,
    is_known,
    known_integers,
    moved,
    rank_of,
)
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

#: Dimensions that kernels of pads take.
_MOST_RANK = 5


def _why_not_pad(node: NodeFacts) -> str | None:
    for position, what in ((1, "pads"), (2, "value"), (3, "axes")):
        if not is_known(node, position):
            return f"its {what} are not known before it runs"
    if node.strings.get("mode", "constant") not in ("constant", "reflect", "edge", "wrap"):
        return f"it pads by mode {node.strings['mode']}"
    if rank_of(node) > _MOST_RANK:
        return f"it pads {rank_of(node)} dimensions (at most {_MOST_RANK})"
    return None


@lowers("Pad", into=("PAD", "PADV2", "MIRROR_PAD", "GATHER", "SLICE"), why_not=_why_not_pad)
def lower_pad(site: Site) -> None:
    """Lower padding with a number or by reflection; what is negative is cut off."""
    held = moved(site, site.held(0))
    rank = len(held.order)
    pads = site.numbers("pads") or known_integers(site, 1, "pads")
    axes = known_integers(site, 3, "axes") if site.has(3) else tuple(range(rank))
    if len(pads) != 2 * len(axes):
        raise CannotLower(f"it has {len(pads)} pads for {len(axes)} dimensions")
    pairs = dict.fromkeys(range(rank), (0, 0))
    for number, axis in enumerate(axes):
        pairs[axis_of(axis, rank)] = (pads[number], pads[len(axes) + number])
    value = site.real("value", 0.0)
    if site.has(2):
        given = site.constant(2)
        if given is None:
            raise CannotLower("its value is not known before it runs")
        value = float(given.reshape(-1)[0]) if given.size else 0.0
    ranges, widths = [], []
    for place, axis in enumerate(held.order):
        before, after = pairs[axis]
        extent = held.tensor.shape[place]
        ranges.append(range(max(-before, 0), extent - max(-after, 0)))
        widths.append((max(before, 0), max(after, 0)))
    tensor = cut(site, held.tensor, ranges)
    mode = site.text("mode", "constant")
    if mode != "constant":
        inside = all(max(pair) < e for e, pair in zip(tensor.shape, widths, strict=True))
        by_kernel = mode == "reflect" and inside
        made = _mirrored(site, tensor, widths) if by_kernel else _picked(site, tensor, widths)
        site.give(made, held.order)
        return
    site.give(_with_number(site, tensor, widths, value), held.order)


def _padded_shape(tensor: Tensor, widths: Sequence[tuple[int, int]]) -> list[int]:
    return [extent + sum(pair) for extent, pair in zip(tensor.shape, widths, strict=True)]


def _mirrored(site: Site, tensor: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    pads = site.builder.constant(np.array(widths, np.int32), "paddings")
    return site.emit(
        "MIRROR_PAD",
        [tensor, pads],
        _padded_shape(tensor, widths),
        dtype=tensor.dtype,
        grid=tensor.grid,
        options=("MirrorPadOptions", {"mode": 0}),
    )


def _picked(site: Site, tensor: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Pad by entries of the tensor itself, axis by axis, at places that are known here."""
    mode = site.text("mode")
    for axis, pair in enumerate(widths):
        if not any(pair):
            continue
        places = np.pad(np.arange(tensor.shape[axis]), pair, mode=mode)  # type: ignore[call-overload] # one of numpy's own
        indices = site.builder.constant(places.astype(np.int32), "indices")
        shape = (*tensor.shape[:axis], len(places), *tensor.shape[axis + 1 :])
        options: Options = ("GatherOptions", {"axis": axis, "batchDims": 0})
        tensor = site.emit(
            "GATHER",
            [tensor, indices],
            shape,
            dtype=tensor.dtype,
            grid=tensor.grid,
            options=options,
        )
    return tensor


def _with_number(
    site: Site, tensor: Tensor, widths: Sequence[tuple[int, int]], value: float
) -> Tensor:
    if not any(map(any, widths)):
        return tensor
    builder = site.builder
    grid = tensor.grid
    if grid is not None and not grid.lowest <= value <= grid.highest:
        tensor, grid = builder.in_float(tensor), None
    pads = builder.constant(np.array(widths, np.int32), "paddings")
    inputs: list[Tensor | None] = [tensor, pads]
    code, options = "PAD", "PadOptions"
    if value or (grid is None and tensor.dtype == "bool"):
        kind = "float32" if grid is not None else tensor.dtype
        number = builder.constant(np.array([value], kind), "padding")
        inputs.append(number if grid is None else builder.on_grid(number, grid))
        code, options = "PADV2", "PadV2Options"
    shape = _padded_shape(tensor, widths)
    return site.emit(code, inputs, shape, dtype=tensor.dtype, grid=grid, options=(options, {}))


def _why_not_expand(node: NodeFacts) -> str | None:
    return None if is_known(node, 1) else "its shape is not known before it runs"


@lowers("Expand", into=("BROADCAST_TO", "RESHAPE"), why_not=_why_not_expand, keeps_grid=True)
def lower_expand(site: Site) -> None:
    """Lower a repetition along axes of one entry."""
    out = site.out_shape()
    held = lifted(site, moved(site, site.held(0)), len(out))
    _give_repeated(site, held, [out[axis] // held.shape[axis] for axis in range(len(out))])


def _why_not_tile(node: NodeFacts) -> str | None:
    return None if is_known(node, 1) else "its repeats are not known before it runs"


@lowers("Tile", into="TILE", why_not=_why_not_tile, keeps_grid=True)
def lower_tile(site: Site) -> None:
    """Lower a repetition."""
    held = moved(site, site.held(0))
    repeats = known_integers(site, 1, "repeats")
    if len(repeats) != len(held.order):
        raise CannotLower(f"it repeats {len(repeats)} of {len(held.order)} dimensions")
    _give_repeated(site, held, repeats)


def _give_repeated(site: Site, held: Held, repeats: Sequence[int]) -> None:
    tensor = held.tensor
    wanted = [repeats[axis] for axis in held.order]
    if min(wanted, default=1) < 1:
        raise CannotLower("it repeats something less than once")
    if all(each == 1 for each in wanted):
        site.give(tensor, held.order)
        return
    shape = [e * n for e, n in zip(tensor.shape, wanted, strict=True)]
    if tensor.data is not None and tensor.grid is None:
        site.give(site.builder.constant(np.tile(tensor.data, wanted), tensor.name), held.order)
        return
    inputs = [tensor, site.builder.numbers(wanted, "repeats")]
    made = site.emit(
        "TILE", inputs, shape, dtype=tensor.dtype, grid=tensor.grid, options=("TileOptions", {})
    )
    site.give(made, held.order)


# Space and depth -----------------------------------------------------------------------------


def _why_not_blocks(node: NodeFacts) -> str | None:
    if rank_of(node) not in (0, 4):
        return f"it moves blocks of {rank_of(node)} dimensions (4)"
    return None


@lowers(
    "DepthToSpace",
    into=("DEPTH_TO_SPACE", "TRANSPOSE", "RESHAPE"),
    why_not=_why_not_blocks,
    keeps_grid=True,
)
def lower_depth_to_space(site: Site) -> None:
    """Lower one; TFLite has the order depth, column, row, the other one turns the channels."""
    held = moved(site, site.held(0))
    size = site.number("blocksize")
    batch, channels, rows, columns = held.shape
    if size < 1 or channels % (size * size):
        raise CannotLower(f"it moves {channels} channels into blocks of {size}")
    order = channels_last(4)
    tensor = site.turn(held, order)
    if site.text("mode", "DCR") == "CRD":
        left = channels // (size * size)
        wide = site.builder.reshaped(tensor, (batch, rows, columns, left, size * size))
        turned = site.builder.permuted(wide, (0, 1, 2, 4, 3))
        tensor = site.builder.reshaped(turned, (batch, rows, columns, channels))
    shape = (batch, rows * size, columns * size, channels // (size * size))
    options: Options = ("DepthToSpaceOptions", {"blockSize": size})
    made = _blocks(site, "DEPTH_TO_SPACE", tensor, shape, options)
    site.give(made, channels_last(4))


@lowers(
    "SpaceToDepth",
    into=("SPACE_TO_DEPTH", "TRANSPOSE"),
    why_not=_why_not_blocks,
    keeps_grid=True,
)
def lower_space_to_depth(site: Site) -> None:
    """Lower one."""
    held = moved(site, site.held(0))
    size = site.number("blocksize")
    batch, channels, rows, columns = held.shape
    if size < 1 or rows % size or columns % size:
        raise CannotLower(f"it moves blocks of {size} of {rows} x {columns}")
    tensor = site.turn(held, channels_last(4))
    shape = (batch, rows // size, columns // size, channels * size * size)
    options: Options = ("SpaceToDepthOptions", {"blockSize": size})
    made = _blocks(site, "SPACE_TO_DEPTH", tensor, shape, options)
    if site.text("mode", "DCR") == "CRD":
        wide = site.builder.reshaped(made, (*shape[:3], size * size, channels))
        made = site.builder.reshaped(site.builder.permuted(wide, (0, 1, 2, 4, 3)), shape)
    site.give(made, channels_last(4))


def _blocks(
    site: Site,
    code: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    options: Options,
) -> Tensor:
    return site.emit(
        code, [tensor], shape, dtype=tensor.dtype, grid=tensor.grid, options=options
    )
