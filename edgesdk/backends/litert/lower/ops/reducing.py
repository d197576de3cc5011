"""What makes one number of many: sums, means, extremes, norms, and where extremes lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Options, Tensor
from edgesdk.backends.litert.lower.layouts import axis_of
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.pairs import constant_of
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_FLOATS = ("float32", "float16", "")
_NUMBERS = (*_FLOATS, "int32", "int64")
#: TFLite's reductions by ONNX's.
_PLAIN = {"ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}
_NORMS = ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")


def _why_not_in(*kinds: str) -> Callable[[NodeFacts], str | None]:
    def why_not(node: NodeFacts) -> str | None:
        read = node.input_types[0] if node.input_types else None
        if read is not None and read.dtype not in kinds:
            return f"it computes in {read.dtype}"
        given = len(node.inputs) > 1 and node.inputs[1]
        if given and not node.constant_inputs[1]:
            return "its axes are not known before it runs"
        return None

    return why_not


def _axes(site: Site, rank: int) -> tuple[int, ...]:
    """Give the axes, of the attribute or of the input; all of them where none are named."""
    named: tuple[int, ...] | None = None
    if "axes" in site.facts.ints:
        named = site.numbers("axes")
    elif site.has(1):
        # not by site.constant(): here a constant that nothing is in names all axes
        found = constant_of(site.node.inputs[1])
        if found is None:
            raise CannotLower("its axes are not known before it runs")
        named = tuple(int(axis) for axis in found.reshape(-1))
    if not named:
        return () if site.number("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted({axis_of(axis, rank) for axis in named}))


def _give(site: Site, tensor: Tensor, order: tuple[int, ...], axes: tuple[int, ...]) -> None:
    """Give a result whose reduced axes are there with one entry; drop them if asked to."""
    if site.number("keepdims", 1):
        site.give(tensor, order)
        return
    kept = [axis for axis in order if axis not in axes]
    left = sorted(kept)
    shape = [tensor.shape[order.index(axis)] for axis in kept]
    site.give(site.builder.reshaped(tensor, shape), [left.index(axis) for axis in kept])


def _read(site: Site, grid: Grid | None) -> tuple[Tensor, Held]:
    held = site.held(0)
    return site.take_on(0, grid, held.order), held


@lowers("ReduceMean", into=("MEAN", "TRANSPOSE", "RESHAPE"), why_not=_why_not_in(*_FLOATS))
def lower_mean(site: Site) -> None:
    """Lower a mean; it has kernels for int8 and int16."""
    grid = site.kernel_grid(0)
    _reduce(site, "MEAN", None if grid is None else site.grid(0), grid)


@lowers("ReduceSum", into=("SUM", "RESHAPE"), why_not=_why_not_in(*_NUMBERS))
def lower_sum(site: Site) -> None:
    """Lower a sum, on grids of int8 if both ends are."""
    grid = site.kernel_grid(0)
    if grid is not None and grid.dtype != "int8":
        grid = None
    _reduce(site, "SUM", None if grid is None else site.grid(0), grid)


@lowers("ReduceMax", into=("REDUCE_MAX", "RESHAPE"), why_not=_why_not_in(*_NUMBERS))
def lower_max(site: Site) -> None:
    """Lower to the largest number, which lies on the grid it lay on."""
    _reduce_moving(site, "REDUCE_MAX")


@lowers("ReduceMin", into=("REDUCE_MIN", "RESHAPE"), why_not=_why_not_in(*_NUMBERS))
def lower_min(site: Site) -> None:
    """Lower to the smallest number, which lies on the grid it lay on."""
    _reduce_moving(site, "REDUCE_MIN")


@lowers("ReduceProd", into=("REDUCE_PROD", "RESHAPE"), why_not=_why_not_in(*_NUMBERS))
def lower_prod(site: Site) -> None:
    """Lower a product."""
    _reduce(site, "REDUCE_PROD", None, None)


def _reduce(site: Site, code: str, read: Grid | None, grid: Grid | None) -> None:
    tensor, held = _read(site, read)
    axes = _axes(site, len(held.order))
    places = [place for place, axis in enumerate(held.order) if axis in axes]
    if not places:
        site.give(tensor, held.order)
        return
    shape = [1 if place in places else extent for place, extent in enumerate(tensor.shape)]
    inputs = [tensor, site.builder.numbers(places, "axes")]
    options: Options = ("ReducerOptions", {"keepDims": True})
    made = site.emit(code, inputs, shape, dtype=tensor.dtype, grid=grid, options=options)
    _give(site, made, held.order, axes)


def _reduce_moving(site: Site, code: str) -> None:
    held = site.held(0)
    grid = held.tensor.grid
    whole = grid is not None and grid.axis is None and grid.dtype in ("int8", "int16")
    tensor = held.tensor if whole else site.builder.in_float(held.tensor)
    axes = _axes(site, len(held.order))
    places = [place for place, axis in enumerate(held.order) if axis in axes]
    _give(site, Maths(site).reduce(code, tensor, places), held.order, axes)


@lowers("GlobalMaxPool", into=("REDUCE_MAX",), why_not=_why_not_in(*_FLOATS), keeps_grid=True)
def lower_global_max_pool(site: Site) -> None:
    """Lower to the largest over all axes of space."""
    held = site.held(0)
    places = [place for place, axis in enumerate(held.order) if axis > 1]
    site.give(Maths(site).reduce("REDUCE_MAX", held.tensor, places), held.order)


@lowers(
    *_NORMS, into=("SUM", "MUL", "ABS", "SQRT", "LOG", "EXP"), why_not=_why_not_in(*_FLOATS)
)
def lower_norm(site: Site) -> None:
    """Lower norms and logarithms of sums by their formulas."""
    op, maths = site.node.op_type, Maths(site)
    x, held = _read(site, None)
    axes = _axes(site, len(held.order))
    places = [place for place, axis in enumerate(held.order) if axis in axes]
    if op == "ReduceLogSumExp":
        most = maths.reduce("REDUCE_MAX", x, places)
        total = maths.reduce("SUM", maths.unary("EXP", maths.sub(x, most)), places)
        result = maths.add(maths.unary("LOG", total), most)
    else:
        if op == "ReduceL1":
            x = maths.unary("ABS", x)
        elif op != "ReduceLogSum":
            x = maths.mul(x, x)
        result = maths.reduce("SUM", x, places)
        if op in ("ReduceL2", "ReduceLogSum"):
            result = maths.unary("SQRT" if op == "ReduceL2" else "LOG", result)
    _give(site, result, held.order, axes)


def _why_not_arg(node: NodeFacts) -> str | None:
    if node.ints.get("select_last_index", (0,))[0]:
        return "of several it takes the last"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in (*_FLOATS, "int32"):
        return f"it compares {read.dtype}"
    return None


def _lower_arg(site: Site, code: str, options: str) -> None:
    """Lower to where an extreme lies; steps of a grid are ordered as what they stand for."""
    held = site.held(0)
    grid = held.tensor.grid
    tensor = held.tensor
    if grid is not None and (grid.axis is not None or grid.dtype != "int8"):
        tensor = site.builder.in_float(tensor)
    axis = axis_of(site.number("axis"), len(held.order))
    place = held.order.index(axis)
    shape = [extent for each, extent in enumerate(tensor.shape) if each != place]
    inputs = [tensor, site.builder.constant(np.array(place, np.int32), "axis")]
    int64 = 4  # TFLite's number of the type
    made = site.emit(
        code, inputs, shape, dtype="int64", options=(options, {"outputType": int64})
    )
    wide = [1 if each == place else extent for each, extent in enumerate(tensor.shape)]
    _give(site, site.builder.reshaped(made, wide), held.order, (axis,))


@lowers("ArgMax", into=("ARG_MAX", "RESHAPE"), why_not=_why_not_arg)
def lower_arg_max(site: Site) -> None:
    """Lower to the place of the largest, the first of several."""
    _lower_arg(site, "ARG_MAX", "ArgMaxOptions")


@lowers("ArgMin", into=("ARG_MIN", "RESHAPE"), why_not=_why_not_arg)
def lower_arg_min(site: Site) -> None:
    """Lower to the place of the smallest, the first of several."""
    _lower_arg(site, "ARG_MIN", "ArgMinOptions")


def _why_not_running(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in (*_FLOATS, "int32", "int64"):
        return f"it computes in {read.dtype}"
    if len(node.constant_inputs) > 1 and not node.constant_inputs[1]:
        return "its axis is not known before it runs"
    return None


@lowers("CumSum", into="CUMSUM", why_not=_why_not_running)
def lower_cumsum(site: Site) -> None:
    """Lower running sums."""
    tensor, held = _read(site, None)
    named = site.constant(1)
    if named is None:
        raise CannotLower("its axis is not known before it runs")
    axis = axis_of(int(named.reshape(())), len(held.order))
    place = site.builder.constant(np.array(held.order.index(axis), np.int32), "axis")
    fields = {
        "exclusive": bool(site.number("exclusive")),
        "reverse": bool(site.number("reverse")),
    }
    options: Options = ("CumsumOptions", fields)
    made = site.emit(
        "CUMSUM", [tensor, place], tensor.shape, dtype=tensor.dtype, options=options
    )
    site.give(made, held.order)


def _why_not_top_k(node: NodeFacts) -> str | None:
    if not node.ints.get("largest", (1,))[0]:
        return "it takes the smallest"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in (*_FLOATS, "int32", "int64"):
        return f"it compares {read.dtype}"
    if node.since_version and node.since_version < 10 and "k" not in node.ints:
        return "it has no k"
    if len(node.constant_inputs) > 1 and not node.constant_inputs[1]:
        return "its k is not known before it runs"
    return None


@lowers("TopK", into=("TOPK_V2", "CAST", "TRANSPOSE"), why_not=_why_not_top_k)
def lower_top_k(site: Site) -> None:
    """Lower to the largest along an axis, sorted, and where they lie."""
    held = site.held(0)
    rank = len(held.order)
    axis = axis_of(site.number("axis", -1), rank)
    order = (*(each for each in held.order if each != axis), axis)
    tensor = site.take_float(0, order)
    known = site.constant(1) if site.has(1) else np.array(site.number("k"))
    if known is None:
        raise CannotLower("its k is not known before it runs")
    count = int(known.reshape(-1)[0])
    if not 0 < count <= tensor.shape[-1]:
        raise CannotLower(f"it takes {count} of {tensor.shape[-1]} numbers")
    shape = (*tensor.shape[:-1], count)
    name = site.node.outputs[0].name or "top"
    values = Tensor(site.builder.fresh(name), tensor.dtype, shape)
    places = Tensor(site.builder.fresh(f"{name}.places"), "int32", shape)
    wanted = site.builder.constant(np.array(count, np.int32), "k")
    options: Options = ("TopKV2Options", {})
    site.builder.graph.add("TOPK_V2", [tensor, wanted], [values, places], options)
    if site.node.outputs[0].name:
        site.give(values, order)
    if len(site.node.outputs) > 1 and site.node.outputs[1].name:
        site.give(site.builder.cast(places, "int64"), order, position=1)
