"""Functions of several numbers: comparisons, logic, choices, extremes, powers, remainders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Options, Tensor
from edgesdk.backends.litert.lower.layouts import choose_order, lifted
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.ops.arithmetic import sum_grid
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__ = ["side_by_side"]

_NUMBERS = frozenset({"float32", "float16", "int32", "int64", ""})
_MOST_RANK = 6


def _why_not_of(kinds: frozenset[str], *positions: int) -> Callable[[NodeFacts], str | None]:
    def why_not(node: NodeFacts) -> str | None:
        for place, value in enumerate(node.input_types):
            if positions and place not in positions:
                continue
            if value is not None and value.dtype not in kinds:
                return f"it computes in {value.dtype}"
        if "axis" in node.ints or "broadcast" in node.ints:
            return "it broadcasts as before opset 7"
        made = node.output_types[0] if node.output_types else None
        if made is not None and len(made.shape) > _MOST_RANK:
            return f"its result has {len(made.shape)} dimensions (at most {_MOST_RANK})"
        return None

    return why_not


_why_not_numbers = _why_not_of(_NUMBERS)
_why_not_truths = _why_not_of(frozenset({"bool", ""}))
_why_not_equal = _why_not_of(_NUMBERS | {"bool"})


def side_by_side(
    site: Site, positions: tuple[int, ...], grid: Grid | None = None
) -> tuple[list[Tensor], tuple[int, ...]]:
    """Give operands that broadcast in one order of axes: on one grid, or in float.

    What is no float stays the whole numbers or truths it is.
    """
    rank = len(site.out_shape())
    helds = []
    for position in positions:
        held = site.held(position)
        tensor = held.tensor
        if grid is not None:
            tensor = site.builder.on_grid(tensor, grid)
        else:
            tensor = site.builder.in_float(tensor)
        helds.append(lifted(site, Held(tensor, held.order), rank))
    order = choose_order([h for h in helds if h.shape == site.out_shape()] or helds, rank)
    return [site.turn(held, order) for held in helds], order


def _compare(site: Site, code: str) -> None:
    (x, y), order = side_by_side(site, (0, 1))
    site.give(Maths(site).binary(code, x, y), order)


@lowers("Equal", into="EQUAL", why_not=_why_not_equal)
def lower_equal(site: Site) -> None:
    """Lower a comparison."""
    _compare(site, "EQUAL")


@lowers("Greater", into="GREATER", why_not=_why_not_numbers)
def lower_greater(site: Site) -> None:
    """Lower a comparison."""
    _compare(site, "GREATER")


@lowers("GreaterOrEqual", into="GREATER_EQUAL", why_not=_why_not_numbers)
def lower_greater_or_equal(site: Site) -> None:
    """Lower a comparison."""
    _compare(site, "GREATER_EQUAL")


@lowers("Less", into="LESS", why_not=_why_not_numbers)
def lower_less(site: Site) -> None:
    """Lower a comparison."""
    _compare(site, "LESS")


@lowers("LessOrEqual", into="LESS_EQUAL", why_not=_why_not_numbers)
def lower_less_or_equal(site: Site) -> None:
    """Lower a comparison."""
    _compare(site, "LESS_EQUAL")


@lowers("And", into="LOGICAL_AND", why_not=_why_not_truths)
def lower_and(site: Site) -> None:
    """Lower a conjunction."""
    _compare(site, "LOGICAL_AND")


@lowers("Or", into="LOGICAL_OR", why_not=_why_not_truths)
def lower_or(site: Site) -> None:
    """Lower a disjunction."""
    _compare(site, "LOGICAL_OR")


@lowers("Xor", into="NOT_EQUAL", why_not=_why_not_truths)
def lower_xor(site: Site) -> None:
    """Lower to the question whether two truths differ."""
    _compare(site, "NOT_EQUAL")


@lowers("Not", into="LOGICAL_NOT", why_not=_why_not_truths)
def lower_not(site: Site) -> None:
    """Lower a negation."""
    held = site.held(0)
    site.give(Maths(site).unary("LOGICAL_NOT", held.tensor), held.order)


@lowers(
    "Where", into=("SELECT_V2", "TRANSPOSE"), why_not=_why_not_of(_NUMBERS | {"bool"}, 1, 2)
)
def lower_where(site: Site) -> None:
    """Lower a choice; it only moves numbers, so two of the result's grid stay on it."""
    grid = site.kernel_grid(1, 2)
    rank = len(site.out_shape())
    (x, y), order = side_by_side(site, (1, 2), grid)
    question = site.turn(lifted(site, site.held(0), rank), order)
    site.give(Maths(site).where(question, x, y), order)


def _extreme(site: Site, code: str) -> None:
    """Lower the largest or smallest of several, two by two."""
    positions = tuple(range(len(site.node.inputs)))
    grid = site.kernel_grid(*positions)
    tensors, order = side_by_side(site, positions, grid)
    maths = Maths(site)
    result = tensors[0]
    for each in tensors[1:]:
        if grid is None:
            result = maths.binary(code, result, each)
            continue
        shape = np.broadcast_shapes(result.shape, each.shape)
        if len(shape) > 4 and result.shape != each.shape:
            raise CannotLower("it broadcasts quantized numbers over more than 4 dimensions")
        options: Options = ("MaximumMinimumOptions", {})
        result = site.emit(code, [result, each], shape, grid=grid, options=options)
    site.give(_full(site, result, order), order)


def _full(site: Site, tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Give a tensor all the entries of the result: one operand is given as it is."""
    shape = tuple(site.out_shape()[axis] for axis in order)
    if tensor.shape == shape:
        return tensor
    raise CannotLower(f"it gives {tensor.shape} (the graph states {shape})")


@lowers("Max", into="MAXIMUM", why_not=_why_not_numbers)
def lower_max(site: Site) -> None:
    """Lower the largest of several, on the result's grid where all are quantized."""
    _extreme(site, "MAXIMUM")


@lowers("Min", into="MINIMUM", why_not=_why_not_numbers)
def lower_min(site: Site) -> None:
    """Lower the smallest of several, on the result's grid where all are quantized."""
    _extreme(site, "MINIMUM")


def _total(site: Site) -> tuple[Tensor, tuple[int, ...]]:
    tensors, order = side_by_side(site, tuple(range(len(site.node.inputs))))
    result = tensors[0]
    for each in tensors[1:]:
        result = Maths(site).add(result, each)
    return _full(site, result, order), order


@lowers("Sum", into="ADD", why_not=_why_not_of(frozenset({"float32", "float16", ""})))
def lower_sum(site: Site) -> None:
    """Lower a sum of several; of two that are quantized it is ADD's own."""
    grid = sum_grid(site) if len(site.node.inputs) == 2 else None
    if grid is None:
        site.give(*_total(site))
        return
    rank = len(site.out_shape())
    helds = [lifted(site, site.held(position), rank) for position in (0, 1)]
    order = choose_order(helds, rank)
    tensors = [site.turn(held, order) for held in helds]
    shape = [site.out_shape()[axis] for axis in order]
    options: Options = ("AddOptions", {"fusedActivationFunction": 0})
    site.give(site.emit("ADD", tensors, shape, grid=grid, options=options), order)


@lowers("Mean", into=("ADD", "MUL"), why_not=_why_not_of(frozenset({"float32", "float16", ""})))
def lower_mean(site: Site) -> None:
    """Lower the mean of several operands."""
    total, order = _total(site)
    site.give(Maths(site).mul(total, 1 / len(site.node.inputs)), order)


def _why_not_pow(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", ""):
        return f"it computes in {read.dtype}"
    return _why_not_numbers(node)


@lowers("Pow", into=("POW", "MUL", "SQRT", "RSQRT", "CAST"), why_not=_why_not_pow)
def lower_pow(site: Site) -> None:
    """Lower a power; squares and roots have kernels of their own."""
    maths = Maths(site)
    known = site.constant(1)
    if known is not None and known.size == 1 and not len(site.shape(1)):
        power = float(known.reshape(()))
        held = site.held(0)
        x = site.take_float(0, held.order)
        if power == 2.0:
            site.give(maths.mul(x, x), held.order)
            return
        if power == 0.5:
            site.give(maths.unary("SQRT", x), held.order)
            return
    (x, y), order = side_by_side(site, (0, 1))
    site.give(maths.binary("POW", x, site.builder.cast(y, "float32")), order)


def _why_not_mod(node: NodeFacts) -> str | None:
    if node.ints.get("fmod", (0,))[0]:
        return "its remainder has the sign of the dividend"
    return _why_not_of(frozenset({"int32", "int64", ""}))(node)


@lowers("Mod", into="FLOOR_MOD", why_not=_why_not_mod)
def lower_mod(site: Site) -> None:
    """Lower a remainder of whole numbers, whose sign is the divisor's."""
    _compare(site, "FLOOR_MOD")


def _why_not_prelu(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", ""):
        return f"it computes in {read.dtype}"
    return _why_not_numbers(node)


@lowers("PRelu", into=("PRELU", "TRANSPOSE"), why_not=_why_not_prelu)
def lower_prelu(site: Site) -> None:
    """Lower one; its kernel for int8 takes slopes on any grid."""
    grid = site.kernel_grid(0, 1)
    if grid is not None and grid.dtype != "int8":
        grid = None
    rank = len(site.out_shape())
    helds = []
    for position in (0, 1):
        held = site.held(position)
        tensor = held.tensor if grid is not None else site.builder.in_float(held.tensor)
        helds.append(lifted(site, Held(tensor, held.order), rank))
    order = helds[0].order
    x, slope = (site.turn(held, order) for held in helds)
    if slope.shape == (1,) * rank or (rank > 4 and slope.shape != x.shape):
        grid = None
        x, slope = site.builder.in_float(x), site.builder.in_float(slope)
        site.give(_by_parts(site, x, slope), order)
        return
    site.give(site.emit("PRELU", [x, slope], x.shape, grid=grid), order)


def _by_parts(site: Site, x: Tensor, slope: Tensor) -> Tensor:
    """Give ``max(x, 0) + slope * min(x, 0)``."""
    maths = Maths(site)
    below = maths.mul(maths.binary("MINIMUM", x, 0.0), slope)
    return maths.add(maths.unary("RELU", x), below)
