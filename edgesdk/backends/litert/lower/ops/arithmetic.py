"""Add, Sub, Mul and Div, with broadcasting."""

from __future__ import annotations

from edgesdk.backends.litert.lower.graph import Grid, Tensor
from edgesdk.backends.litert.lower.layouts import choose_order, lifted
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Held, Site
from edgesdk.model.values import NodeFacts

__all__ = ["operands", "sum_grid"]

_MOST_RANK = 6
#: What kernels compute in. Integers of 8 and 16 bits are taken for quantized numbers there.
_TYPES = ("float32", "float16", "int32", "int64", "")


#: Scales of a sum may be so far apart; farther, the kernels' shifts run out and LiteRT aborts.
_MOST_APART = float(1 << 16)


def _why_not(node: NodeFacts) -> str | None:
    made = node.output_types[0] if node.output_types else None
    if made is None:
        return None
    if len(made.shape) > _MOST_RANK:
        return f"its result has {len(made.shape)} dimensions (at most {_MOST_RANK})"
    if made.dtype not in _TYPES or (node.op == "Div" and made.dtype == "int64"):
        return f"it computes in {made.dtype}"
    if "axis" in node.ints or "broadcast" in node.ints:
        return "it broadcasts as before opset 7"
    return None


def operands(
    site: Site, positions: tuple[int, ...], *, whole: bool
) -> tuple[list[Tensor], tuple[int, ...]]:
    """Give operands that broadcast, all in one order of axes, which is given with them.

    Args:
        site: The node.
        positions: Of its inputs.
        whole: On their own grids; else in float.
    """
    rank = len(site.out_shape())
    helds = [lifted(site, site.held(position), rank) for position in positions]
    order = choose_order([h for h in helds if h.shape == site.out_shape()] or helds, rank)
    tensors = []
    for held in helds:
        tensor = held.tensor if whole else site.builder.in_float(held.tensor)
        tensors.append(site.turn(Held(tensor, held.order), order))
    return tensors, order


def sum_grid(site: Site) -> Grid | None:
    """Give the grid on which a sum or difference of two is computed; None for in float."""
    grid = site.kernel_grid(0, 1)
    if grid is None:
        return None
    scales = [grid.scale, *(each.scale for i in (0, 1) if (each := site.grid(i)) is not None)]
    return grid if max(scales) <= min(scales) * _MOST_APART else None


def _lower(site: Site, code: str, grid: Grid | None) -> None:
    tensors, order = operands(site, (0, 1), whole=grid is not None)
    stated = site.out_shape()
    fields: dict[str, object] = {"fusedActivationFunction": ACTIVATIONS[site.activation]}
    if code in ("ADD", "SUB"):
        fields["potScaleInt16"] = False  # the schema's own default is True
    result = site.emit(
        code,
        tensors,
        [stated[axis] for axis in order],
        dtype=site.out_dtype(),
        grid=grid,
        options=(f"{code.title()}Options", fields),
    )
    site.give(result, order)


@lowers("Add", into=("ADD", "TRANSPOSE"), why_not=_why_not, fuses=True)
def lower_add(site: Site) -> None:
    """Lower a sum."""
    _lower(site, "ADD", sum_grid(site))


@lowers("Sub", into=("SUB", "TRANSPOSE"), why_not=_why_not, fuses=True)
def lower_sub(site: Site) -> None:
    """Lower a difference."""
    _lower(site, "SUB", sum_grid(site))


@lowers("Mul", into=("MUL", "TRANSPOSE"), why_not=_why_not, fuses=True)
def lower_mul(site: Site) -> None:
    """Lower a product, entry by entry."""
    _lower(site, "MUL", site.kernel_grid(0, 1))


@lowers("Div", into=("DIV", "TRANSPOSE"), why_not=_why_not, fuses=True)
def lower_div(site: Site) -> None:
    """Lower a quotient, which has no kernel for int8 numbers."""
    _lower(site, "DIV", None)
