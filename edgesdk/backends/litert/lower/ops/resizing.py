"""Resize and Upsample: TFLite's two kernels where their places agree, else picks and sums.

TFLite resizes two dimensions, by nearest or by two neighbours, with three ways of saying which
place of the input a place of the output stands for. Other ways are known at build time, so they
become a GATHER (nearest) or a product with a matrix of weights (linear, cubic) along each axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Tensor
from edgesdk.backends.litert.lower.layouts import channels_last
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.ops.indexing import is_known, moved
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_Curve = Callable[[np.ndarray], np.ndarray]
_WAYS = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
)
#: By mode, what a Resize becomes: a kernel of images, or else what picks or mixes entries.
_INTO = {
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", "GATHER", "TRANSPOSE"),
    "linear": ("RESIZE_BILINEAR", "FULLY_CONNECTED", "TRANSPOSE"),
    "cubic": ("FULLY_CONNECTED", "TRANSPOSE"),
}
_INTO["bilinear"] = _INTO["linear"]


def _into(node: NodeFacts) -> tuple[str, ...]:
    return _INTO.get(node.strings.get("mode", "nearest"), _INTO["nearest"])


def _why_not(node: NodeFacts) -> str | None:
    for position in range(1, len(node.inputs)):
        if not is_known(node, position):
            return "its sizes are not known before it runs"
    way = node.strings.get("coordinate_transformation_mode", "half_pixel")
    if way not in _WAYS:
        return f"its places follow {way}"
    if node.strings.get("mode", "nearest") not in ("nearest", "linear", "cubic", "bilinear"):
        return f"it resizes by mode {node.strings['mode']}"
    if node.ints.get("antialias", (0,))[0]:
        return "it smooths before it shrinks"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", "int8", ""):
        return f"it resizes {read.dtype}"
    return None


class _Axis:
    """How one axis is resized: from ``extent`` to ``out``, by ``scale``."""

    def __init__(self, site: Site, extent: int, out: int, scale: float) -> None:
        self.extent, self.out, self.scale = extent, out, scale
        is_old = site.walk.opset < 11 or site.node.op_type == "Upsample"
        default = "asymmetric" if is_old else "half_pixel"
        self.way = site.text("coordinate_transformation_mode", default)
        rounding = "floor" if is_old else "round_prefer_floor"
        self.rounding = site.text("nearest_mode", rounding)
        if self.way == "align_corners" and abs(extent * scale - out) > 1e-4:
            raise CannotLower(f"its corners: {extent} entries times {scale:g} are not {out}")

    def places(self) -> np.ndarray:
        """Give for each place of the output the one of the input, as a real number."""
        x = np.arange(self.out, dtype=np.float64)
        if self.way == "align_corners":
            return x * (self.extent - 1) / (self.out - 1) if self.out > 1 else x * 0
        if self.way == "asymmetric":
            return x / self.scale
        if self.way == "pytorch_half_pixel" and self.out == 1:
            return x * 0
        if self.way == "half_pixel_symmetric":
            exact = self.extent * self.scale
            adjusted = self.out / exact
            centre = self.extent / 2
            return centre * (1 - adjusted) + (x + 0.5) / self.scale - 0.5
        return (x + 0.5) / self.scale - 0.5

    def nearest(self) -> np.ndarray:
        """Give for each place of the output the nearest entry of the input."""
        places = self.places()
        ways: dict[str, _Curve] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda x: np.ceil(x - 0.5),
            "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        }
        return np.clip(ways[self.rounding](places), 0, self.extent - 1).astype(np.int32)

    def weights(self, curve: _Curve, reach: int, *, cut: bool) -> np.ndarray:
        """Give the matrix (out, extent) of weights by distance; beyond the ends the ends count.

        Args:
            curve: From distance to weight.
            reach: How many neighbours on each side have a weight.
            cut: Neighbours beyond the ends have none, and the others add up to 1.
        """
        matrix = np.zeros((self.out, self.extent))
        for row, place in enumerate(self.places()):
            first = math.floor(place) - reach + 1
            neighbours = np.arange(first, first + 2 * reach)
            shares = curve(np.abs(place - neighbours))
            if cut:
                shares = np.where((neighbours >= 0) & (neighbours < self.extent), shares, 0)
                shares = shares / shares.sum()
            np.add.at(matrix[row], np.clip(neighbours, 0, self.extent - 1), shares)
        return matrix.astype(np.float32)


def _cubic(a: float) -> _Curve:
    """Give the curve of cubic convolution (R. Keys, 1981)."""

    def curve(d: np.ndarray) -> np.ndarray:
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))

    return curve


def _triangle(d: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(1 - d, 0))


@lowers("Resize", "Upsample", into=_into, why_not=_why_not)
def lower_resize(site: Site) -> None:
    """Lower one, axis by axis where TFLite's kernels of images do not do."""
    held = moved(site, site.held(0))
    shape, out = held.shape, site.out_shape()
    rank = len(shape)
    scales = _scales(site, shape, out)
    axes = {
        axis: _Axis(site, shape[axis], out[axis], scales[axis])
        for axis in range(rank)
        if (shape[axis], scales[axis]) != (out[axis], 1.0)
    }
    mode = site.text("mode", "nearest")
    image = rank == 4 and set(axes) <= {2, 3}
    flags = _kernel_flags(mode, axes) if image and axes else None
    if flags is not None:
        _by_kernel(site, mode, flags)
        return
    if mode == "nearest":
        tensor = held.tensor
        for axis, each in axes.items():
            tensor = _picked(site, tensor, held.order.index(axis), each.nearest())
        site.give(tensor, held.order)
        return
    curve: _Curve = _triangle
    reach = 1
    if mode == "cubic":
        curve, reach = _cubic(site.real("cubic_coeff_a", -0.75)), 2
    tensor = site.builder.in_float(held.tensor)
    order = held.order
    for axis, each in axes.items():
        matrix = each.weights(curve, reach, cut=bool(site.number("exclude_outside")))
        last = (*(one for one in order if one != axis), axis)
        turned = site.builder.permuted(tensor, [order.index(one) for one in last])
        tensor, order = Maths(site).dense(turned, Maths(site).array(matrix)), last
    site.give(tensor, order)


def _scales(site: Site, shape: Sequence[int], out: Sequence[int]) -> list[float]:
    """Give by how much each axis grows: as stated, or by the sizes."""
    rank = len(shape)
    axes = [axis % rank for axis in site.numbers("axes")] or list(range(rank))
    found = [new / old for new, old in zip(out, shape, strict=True)]
    policy = site.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        sizes = site.constant(3) if site.has(3) else None
        if sizes is None or sizes.size != len(axes):
            raise CannotLower(f"it has no sizes to keep its aspect by ({policy})")
        ratios = [
            float(size) / shape[axis]
            for size, axis in zip(sizes.reshape(-1), axes, strict=True)
        ]
        kept = min(ratios) if policy == "not_larger" else max(ratios)
        for axis in axes:
            found[axis] = kept
        return found
    stated: np.ndarray | None = None
    if site.facts.floats.get("scales"):
        stated = np.array(site.facts.floats["scales"])
    else:
        position = 2 if site.node.op_type == "Resize" and site.walk.opset > 10 else 1
        stated = site.constant(position) if site.has(position) else None
    if stated is None or not stated.size:
        return found
    if stated.size != len(axes):
        raise CannotLower(f"it has {stated.size} scales for {len(axes)} dimensions")
    for axis, scale in zip(axes, stated.reshape(-1), strict=True):
        found[axis] = float(scale)
    return found


def _kernel_flags(mode: str, axes: dict[int, _Axis]) -> dict[str, object] | None:
    """Say with which of their ways TFLite's kernels pick the same places; None for none."""
    for corners, centres in ((False, True), (True, False), (False, False)):
        if all(_agrees(mode, each, corners=corners, centres=centres) for each in axes.values()):
            return {"alignCorners": corners, "halfPixelCenters": centres}
    return None


def _agrees(mode: str, axis: _Axis, *, corners: bool, centres: bool) -> bool:
    """Compare the places of a kernel with those of the graph, for one axis."""
    scale = axis.extent / axis.out
    if corners and axis.out > 1:
        scale = (axis.extent - 1) / (axis.out - 1)
    x = np.arange(axis.out, dtype=np.float64)
    if mode in ("linear", "bilinear"):
        places = (x + 0.5) * scale - 0.5 if centres else x * scale
        limits = (0, axis.extent - 1)
        return bool(
            np.allclose(np.clip(places, *limits), np.clip(axis.places(), *limits), atol=1e-5)
        )
    if mode != "nearest":
        return False
    raw = (x + 0.5) * scale if centres else x * scale
    picked = np.floor(raw + 0.5) if corners else np.floor(raw)
    # where rounding decides, the kernel's float32 may fall on the other side
    edge = np.abs((raw + 0.5 if corners else raw) % 1.0)
    clear = bool(np.all(np.minimum(edge, 1 - edge) > 1e-4) or float(scale * 1024).is_integer())
    return clear and np.array_equal(np.clip(picked, 0, axis.extent - 1), axis.nearest())


def _by_kernel(site: Site, mode: str, flags: dict[str, object]) -> None:
    order = channels_last(4)
    out = site.out_shape()
    tensor = site.turn(moved(site, site.held(0)), order)
    grid = tensor.grid
    linear = mode != "nearest"
    if grid is not None and grid.dtype != "int8":
        tensor, grid = site.builder.in_float(tensor), None
    size = site.builder.numbers(out[2:], "size")
    code = "RESIZE_BILINEAR" if linear else "RESIZE_NEAREST_NEIGHBOR"
    options = "ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions"
    shape = (out[0], out[2], out[3], out[1])
    made = site.emit(
        code, [tensor, size], shape, dtype=tensor.dtype, grid=grid, options=(options, flags)
    )
    site.give(made, order)


def _picked(site: Site, tensor: Tensor, place: int, entries: np.ndarray) -> Tensor:
    shape = (*tensor.shape[:place], len(entries), *tensor.shape[place + 1 :])
    return site.emit(
        "GATHER",
        [tensor, site.builder.constant(entries, "places")],
        shape,
        dtype=tensor.dtype,
        grid=tensor.grid,
        options=("GatherOptions", {"axis": place, "batchDims": 0}),
    )
