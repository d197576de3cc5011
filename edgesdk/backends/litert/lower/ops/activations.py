"""Relu, Clip, Sigmoid, Tanh and Softmax."""

from __future__ import annotations

import math

import numpy as np

from edgesdk.backends.litert.lower.builder import quantized
from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Grid, Tensor
from edgesdk.backends.litert.lower.layouts import axis_of
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site, bounds_of, fused_name
from edgesdk.model.values import NodeFacts

__all__ = ["fixed_grid"]

#: What LiteRT's kernels of these give in integers, whatever is asked for.
_FIXED = {
    ("LOGISTIC", "int8"): Grid("int8", (1 / 256,), (-128,)),
    ("SOFTMAX", "int8"): Grid("int8", (1 / 256,), (-128,)),
    ("TANH", "int8"): Grid("int8", (1 / 128,), (0,)),
    ("LOGISTIC", "int16"): Grid("int16", (1 / 32768,), (0,)),
    ("SOFTMAX", "int16"): Grid("int16", (1 / 32768,), (0,)),
    ("TANH", "int16"): Grid("int16", (1 / 32768,), (0,)),
}
#: Activations with kernels of integers, from a grid to the same.
_WHOLE = ("RELU", "RELU6")
#: A grid that is finer than a kernel's by more would show the kernel's rounding.
_FINER = 0.9


def fixed_grid(site: Site, code: str) -> Grid | None:
    """Give the grid of a kernel whose output's grid is fixed; None if it computes in float.

    It does where it is not quantized, and where the graph wants finer steps than the kernel's.
    """
    wanted = site.kernel_grid(0)
    if wanted is None:
        return None
    fixed = _FIXED[code, wanted.dtype]
    return fixed if wanted.scale >= fixed.scale * _FINER else None


def _why_not_clip(node: NodeFacts) -> str | None:
    for position, name in ((1, "min"), (2, "max")):
        given = position < len(node.inputs) and node.inputs[position]
        known = position < len(node.constant_inputs) and node.constant_inputs[position]
        if given and not known:
            return f"its {name} is not one known number"
    return _why_not_float(node)


def _why_not_float(node: NodeFacts) -> str | None:
    made = node.output_types[0] if node.output_types else None
    if made is not None and made.dtype not in ("float32", "float16", ""):
        return f"it computes in {made.dtype}"
    return None


@lowers(
    "Relu",
    "Clip",
    into=("RELU", "RELU6", "RELU_N1_TO_1", "MINIMUM", "MAXIMUM"),
    why_not=_why_not_clip,
    keeps_grid=True,
)
def lower_clip(site: Site) -> None:
    """Cut numbers to an interval.

    On a grid that ends where the interval does, nothing is left to do.
    """
    bounds = bounds_of(site.node)
    assert bounds is not None
    low, high = bounds
    held = site.held(0)
    tensor, grid = held.tensor, held.tensor.grid
    if tensor.data is not None or (grid is not None and grid.axis is not None):
        tensor, grid = site.builder.in_float(tensor), None
    if grid is None:
        tensor = site.builder.in_float(tensor)
    elif low <= grid.lowest and grid.highest <= high:
        site.give(tensor, held.order)
        return
    name = fused_name(low, high)
    if name is not None and (grid is None or name in _WHOLE):
        site.give(site.emit(name, [tensor], tensor.shape, grid=grid), held.order)
        return
    for code, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if math.isfinite(bound) and abs(bound) < 3.4e38:
            limit = _number(site, bound, grid)
            tensor = site.emit(
                code,
                [tensor, limit],
                tensor.shape,
                grid=grid,
                options=("MaximumMinimumOptions", {}),
            )
    site.give(tensor, held.order)


def _number(site: Site, value: float, grid: Grid | None) -> Tensor:
    data = np.array(value, np.float32)
    if grid is None:
        return site.builder.constant(data, "bound")
    return site.builder.constant(quantized(data, grid), "bound", grid=grid)


def _elementwise(site: Site, code: str) -> None:
    grid = fixed_grid(site, code)
    held = site.held(0)
    tensor = site.take_on(0, None if grid is None else site.grid(0), held.order)
    site.give(site.emit(code, [tensor], tensor.shape, grid=grid), held.order)


@lowers("Sigmoid", into="LOGISTIC", why_not=_why_not_float)
def lower_sigmoid(site: Site) -> None:
    """Lower the logistic function."""
    _elementwise(site, "LOGISTIC")


@lowers("Tanh", into="TANH", why_not=_why_not_float)
def lower_tanh(site: Site) -> None:
    """Lower the hyperbolic tangent."""
    _elementwise(site, "TANH")


@lowers("Softmax", into=("SOFTMAX", "TRANSPOSE", "RESHAPE"), why_not=_why_not_float)
def lower_softmax(site: Site) -> None:
    """Lower a softmax, which TFLite has over the last axis only."""
    held = site.held(0)
    rank = len(held.order)
    if not rank:
        raise CannotLower("a softmax of a single number")
    grid = fixed_grid(site, "SOFTMAX")
    read = None if grid is None else site.grid(0)
    options = ("SoftmaxOptions", {"beta": 1.0})
    if site.walk.opset < 13:
        axis = axis_of(site.number("axis", 1), rank)
        tensor = site.take_on(0, read)
        shape = (math.prod(tensor.shape[:axis]), math.prod(tensor.shape[axis:]))
        flat = site.builder.reshaped(tensor, shape)
        result = site.emit("SOFTMAX", [flat], shape, grid=grid, options=options)
        site.give(site.builder.reshaped(result, tensor.shape))
        return
    axis = axis_of(site.number("axis", -1), rank)
    order = held.order
    if order[-1] != axis:
        order = (*(each for each in order if each != axis), axis)
    tensor = site.take_on(0, read, order)
    site.give(site.emit("SOFTMAX", [tensor], tensor.shape, grid=grid, options=options), order)
