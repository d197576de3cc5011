"""What moves numbers and changes none: on whatever grid they lie, they stay there."""

from __future__ import annotations

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.layouts import axis_of, choose_order, regrouped
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []


@lowers(
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    into=("RESHAPE", "TRANSPOSE"),
    keeps_grid=True,
)
def lower_reshape(site: Site) -> None:
    """Give a value another shape; which one follows from the graph's own shapes."""
    moved = regrouped(site.builder, site.held(0), site.out_shape())
    site.give(moved.tensor, moved.order)


@lowers("Transpose", into="TRANSPOSE", keeps_grid=True)
def lower_transpose(site: Site) -> None:
    """Give a value another order of axes: it is only called otherwise until somebody minds."""
    held = site.held(0)
    rank = len(held.order)
    perm = site.numbers("perm") or tuple(reversed(range(rank)))
    if sorted(perm) != list(range(rank)):
        raise CannotLower(f"its perm {perm} is no order of {rank} axes")
    site.give(held.tensor, tuple(perm.index(axis) for axis in held.order))


@lowers("Identity", into=(), keeps_grid=True)
def lower_identity(site: Site) -> None:
    """Give a value another name."""
    held = site.held(0)
    site.give(held.tensor, held.order)


def _why_not_concat(node: NodeFacts) -> str | None:
    return None if len(node.inputs) else "it joins nothing"


@lowers("Concat", into=("CONCATENATION", "QUANTIZE", "TRANSPOSE"), why_not=_why_not_concat)
def lower_concat(site: Site) -> None:
    """Join values along an axis, on the grid of the result if all are quantized."""
    positions = tuple(range(len(site.node.inputs)))
    grid = site.kernel_grid(*positions)
    helds = [site.held(position) for position in positions]
    grids = {held.tensor.grid for held in helds}
    if grid is None and len(grids) == 1:
        (grid,) = grids
        if grid is not None and grid.axis is not None:
            grid = None
    rank = len(site.out_shape())
    axis = axis_of(site.number("axis"), rank)
    order = choose_order(helds, rank)
    tensors = [site.take_on(position, grid, order) for position in positions]
    stated = site.out_shape()
    result = site.emit(
        "CONCATENATION",
        tensors,
        [stated[each] for each in order],
        dtype=tensors[0].dtype,
        grid=grid,
        options=(
            "ConcatenationOptions",
            {"axis": order.index(axis), "fusedActivationFunction": 0},
        ),
    )
    site.give(result, order)
