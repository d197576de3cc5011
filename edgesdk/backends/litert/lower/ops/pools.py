"""Pools over one or two dimensions, and the mean over all of space."""

from __future__ import annotations

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Tensor
from edgesdk.backends.litert.lower.layouts import channels_last
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Site
from edgesdk.backends.litert.lower.windows import (
    PADDINGS,
    Window,
    padded,
    read_window,
    why_no_window,
)
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

#: Steps that differ by less are the same, rounded differently.
_AS_WIDE = 0.999


def _why_not(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.shape and len(read.shape) not in (3, 4):
        return f"a pool over {len(read.shape) - 2} dimensions (1 or 2)"
    if any(step != 1 for step in node.ints.get("dilations", ())):
        return "a dilated window"
    if len(node.outputs) > 1 and node.outputs[1]:
        return "its second output, the indices"
    return why_no_window(node)


def _why_not_global(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.shape and not 3 <= len(read.shape) <= 5:
        return f"a mean over {len(read.shape) - 2} dimensions (1 to 3)"
    return None


@lowers(
    "MaxPool",
    into=("MAX_POOL_2D", "PADV2", "TRANSPOSE", "RESHAPE"),
    why_not=_why_not,
    keeps_grid=True,
)
def lower_max_pool(site: Site) -> None:
    """Lower one; what is padded is lower than all numbers."""
    window = _window(site)
    for axis, extent in enumerate(site.shape(0)[2:]):
        first = np.arange(site.out_shape()[2 + axis]) * window.strides[axis]
        first -= window.stated[axis][0]
        if first.max() >= extent or first.min() + window.kernel[axis] <= 0:
            raise CannotLower("a window of it reads nothing but padding")
    tensor = padded(site, site.take(0, channels_last(len(site.shape(0)))), window, lowest=True)
    _pool(site, "MAX_POOL_2D", tensor, window)


@lowers(
    "AveragePool",
    into=("AVERAGE_POOL_2D", "PAD", "MUL", "TRANSPOSE", "RESHAPE"),
    why_not=_why_not,
)
def lower_average_pool(site: Site) -> None:
    """Lower one.

    TFLite's own padding is never counted. Zeros of a PAD are, so where the graph does not count
    them a product puts the means at the edges right.
    """
    window = _window(site)
    counted = bool(site.number("count_include_pad"))
    order = channels_last(len(site.shape(0)))
    if window.padding == "SAME" and counted and any(map(any, window.stated)):
        space, out = site.shape(0)[2:], site.out_shape()[2:]
        window = _explicit(window, space, out)
    factors = _factors(site, window, counted=counted) if window.is_padded else None
    if factors is not None and np.all(factors == 1):
        factors = None
    whole = factors is None and _keeps_its_grid(site)
    tensor = padded(site, site.take(0, order) if whole else site.take_float(0, order), window)
    _pool(site, "AVERAGE_POOL_2D", tensor, window, factors)


def _keeps_its_grid(site: Site) -> bool:
    """Say whether means may be rounded to the grid of what they are of, as the kernel does.

    They may where the graph rounds them to the same steps or wider ones.
    """
    read, grid = site.grid(0), site.kernel_grid(0)
    return read is not None and grid is not None and grid.scale >= read.scale * _AS_WIDE


@lowers("GlobalAveragePool", into=("MEAN", "TRANSPOSE"), why_not=_why_not_global)
def lower_global_average_pool(site: Site) -> None:
    """Lower one to a mean over the axes of space, wherever they lie."""
    held = site.held(0)
    rank = len(held.order)
    if rank < 3:
        raise CannotLower(f"a mean over {rank - 2} dimensions")
    order = held.order if held.order[0] == 0 and rank > 4 else channels_last(rank)
    grid = site.kernel_grid(0)
    tensor = site.take_on(0, None if grid is None else site.grid(0), order)
    axes = [place for place, axis in enumerate(order) if axis > 1]
    shape = [1 if place in axes else extent for place, extent in enumerate(tensor.shape)]
    result = site.emit(
        "MEAN",
        [tensor, site.builder.numbers(axes, "axes")],
        shape,
        grid=grid,
        options=("ReducerOptions", {"keepDims": True}),
    )
    site.give(result, order)


def _window(site: Site) -> Window:
    space, out = site.shape(0)[2:], site.out_shape()[2:]
    if not space:
        raise CannotLower("a pool over no dimension")
    return read_window(site, space, out, site.numbers("kernel_shape"))


def _pool(
    site: Site, code: str, tensor: Tensor, window: Window, factors: np.ndarray | None = None
) -> None:
    out = site.out_shape()
    order = channels_last(len(out))
    shape = (out[0], *out[2:], out[1])
    kernel, strides = window.kernel, window.strides
    full = shape
    if len(out) == 3:
        tensor = site.builder.reshaped(tensor, (tensor.shape[0], 1, *tensor.shape[1:]))
        kernel, strides, full = (1, *kernel), (1, *strides), (shape[0], 1, *shape[1:])
    result = site.emit(
        code,
        [tensor],
        full,
        dtype=tensor.dtype,
        grid=tensor.grid,
        options=(
            "Pool2DOptions",
            {
                "padding": PADDINGS[window.padding],
                "strideH": strides[0],
                "strideW": strides[1],
                "filterHeight": kernel[0],
                "filterWidth": kernel[1],
                # an accelerator may take pools without one only (the Edge TPU's table says so)
                "fusedActivationFunction": ACTIVATIONS["NONE"],
            },
        ),
    )
    result = site.builder.reshaped(result, shape)
    if factors is not None:
        numbers = site.builder.constant(factors[None, ..., None], "counts")
        options = ("MulOptions", {"fusedActivationFunction": ACTIVATIONS["NONE"]})
        result = site.emit("MUL", [result, numbers], shape, options=options)
    site.give(result, order)


def _explicit(window: Window, space: tuple[int, ...], out: tuple[int, ...]) -> Window:
    """Give a window that TFLite would pad by itself as one that a PAD is put before."""
    rank = len(space)
    before = tuple(pair[0] for pair in window.stated)
    after = tuple(
        max((out[i] - 1) * window.strides[i] + window.kernel[i] - space[i] - before[i], 0)
        for i in range(rank)
    )
    return Window(
        kernel=window.kernel,
        strides=window.strides,
        dilations=window.dilations,
        padding="VALID",
        before=before,
        after=after,
        stated=window.stated,
    )


def _factors(site: Site, window: Window, *, counted: bool) -> np.ndarray:
    """Say, for every place of the output, by what the mean with all zeros has to be multiplied.

    With ``counted`` the graph's own padding counts, and what a window reads beyond it does not.
    """
    space, out = site.shape(0)[2:], site.out_shape()[2:]
    factors = np.ones((), np.float32)
    for axis, extent in enumerate(space):
        first, last = window.stated[axis]
        starts = np.arange(out[axis]) * window.strides[axis] - first
        ends = starts + window.kernel[axis]
        low, high = (-first, extent + last) if counted else (0, extent)
        count = np.minimum(ends, high) - np.maximum(starts, low)
        if count.min(initial=1) < 1:
            raise CannotLower("a window of it reads nothing but padding")
        along = (window.kernel[axis] / count).astype(np.float32)
        factors = factors[..., None] * along
    return factors
