"""Normalizations by their formulas: of layers, instances, groups, batches, neighbours."""

from __future__ import annotations

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.layouts import axis_of
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_FLOATS = ("float32", "float16", "")
_INTO = ("MUL", "ADD", "SUB", "MEAN", "RSQRT", "TRANSPOSE")


def _why_not(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in _FLOATS:
        return f"it computes in {read.dtype}"
    return None


def _why_not_alone(node: NodeFacts) -> str | None:
    if any(node.outputs[1:]):
        return "its further outputs"
    return _why_not(node)


def _normal(maths: Maths, x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    """Give ``(x - mean) / sqrt(variance + epsilon)`` over axes."""
    apart = maths.sub(x, maths.reduce("MEAN", x, axes))
    square = maths.reduce("MEAN", maths.mul(apart, apart), axes)
    return maths.mul(apart, maths.unary("RSQRT", maths.add(square, epsilon)))


def _along(site: Site, position: int, order: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Give an operand that lies along some of ONNX's axes, one entry along the others."""
    held = site.held(position)
    tensor = site.builder.in_float(site.turn(held))
    rank = len(order)
    shape = [1] * rank
    for axis, extent in zip(axes, held.shape, strict=True):
        shape[axis] = extent
    wide = site.builder.reshaped(tensor, shape)
    return site.turn(Held(wide, tuple(range(rank))), order)


@lowers("LayerNormalization", "RMSNormalization", into=_INTO, why_not=_why_not)
def lower_layer_normalization(site: Site) -> None:
    """Lower over the last axes; of the RMS kind without the mean."""
    held = site.held(0)
    rank = len(held.order)
    first = axis_of(site.number("axis", -1), rank)
    x = site.take_float(0, held.order)
    places = [place for place, axis in enumerate(held.order) if axis >= first]
    maths = Maths(site)
    centre = None
    if site.node.op_type == "LayerNormalization":
        centre = maths.reduce("MEAN", x, places)
        x = maths.sub(x, centre)
    square = maths.reduce("MEAN", maths.mul(x, x), places)
    inverse = maths.unary("RSQRT", maths.add(square, site.real("epsilon", 1e-5)))
    result = maths.mul(x, inverse)
    for position, code in ((1, "MUL"), (2, "ADD")):
        if site.has(position):
            count = len(site.shape(position))
            if count > rank:
                raise CannotLower("its scale has more dimensions than its input")
            axes = tuple(range(rank - count, rank))
            result = maths.binary(code, result, _along(site, position, held.order, axes))
    site.give(result, held.order)
    for position, more in ((1, centre), (2, inverse)):
        if position < len(site.node.outputs) and site.node.outputs[position].name:
            assert more is not None
            site.give(more, held.order, position=position)


@lowers("InstanceNormalization", into=_INTO, why_not=_why_not)
def lower_instance_normalization(site: Site) -> None:
    """Lower over the axes of space."""
    held = site.held(0)
    x = site.take_float(0, held.order)
    places = [place for place, axis in enumerate(held.order) if axis > 1]
    maths = Maths(site)
    normal = _normal(maths, x, places, site.real("epsilon", 1e-5))
    scaled = maths.mul(normal, _along(site, 1, held.order, (1,)))
    site.give(maths.add(scaled, _along(site, 2, held.order, (1,))), held.order)


@lowers("GroupNormalization", into=(*_INTO, "RESHAPE"), why_not=_why_not)
def lower_group_normalization(site: Site) -> None:
    """Lower over groups of channels and the axes of space."""
    x = site.take_float(0)
    shape, groups = x.shape, site.number("num_groups", 1)
    if groups < 1 or shape[1] % groups:
        raise CannotLower(f"it normalizes {shape[1]} channels in {groups} groups")
    maths, builder = Maths(site), site.builder
    flat = builder.reshaped(x, (shape[0], groups, x.size // (shape[0] * groups)))
    normal = builder.reshaped(_normal(maths, flat, [2], site.real("epsilon", 1e-5)), shape)
    order = tuple(range(len(shape)))
    count = site.shape(1)[0]
    if count != shape[1]:  # before opset 21 there is one number per group
        raise CannotLower("it scales groups, not channels")
    scaled = maths.mul(normal, _along(site, 1, order, (1,)))
    site.give(maths.add(scaled, _along(site, 2, order, (1,))))


@lowers(
    "LRN",
    into=("LOCAL_RESPONSE_NORMALIZATION", "TRANSPOSE"),
    why_not=_why_not,
)
def lower_lrn(site: Site) -> None:
    """Lower a normalization by neighbouring channels.

    The window of an even size reaches one channel further on one side than TFLite's can.
    """
    size = site.number("size", 1)
    if size % 2 == 0:
        raise CannotLower(f"a window of {size} channels, an even number")
    held = site.held(0)
    rank = len(held.order)
    if rank < 2 or rank > 4:
        raise CannotLower(f"it normalizes {rank} dimensions (2 to 4)")
    order = (*(axis for axis in range(rank) if axis != 1), 1)
    x = site.take_float(0, order)
    wide = (*(1,) * (4 - rank), *x.shape)
    fields: dict[str, object] = {
        "radius": size // 2,
        "bias": site.real("bias", 1.0),
        "alpha": site.real("alpha", 1e-4) / size,
        "beta": site.real("beta", 0.75),
    }
    made = site.emit(
        "LOCAL_RESPONSE_NORMALIZATION",
        [site.builder.reshaped(x, wide)],
        wide,
        options=("LocalResponseNormalizationOptions", fields),
    )
    site.give(site.builder.reshaped(made, x.shape), order)


@lowers(
    "LpNormalization", into=("DIV", "SQRT", "SUM", "MUL", "ABS", "MAXIMUM"), why_not=_why_not
)
def lower_lp_normalization(site: Site) -> None:
    """Lower to a quotient by a norm along an axis; nothing stays nothing."""
    held = site.held(0)
    x = site.take_float(0, held.order)
    place = held.order.index(axis_of(site.number("axis", -1), len(held.order)))
    maths = Maths(site)
    if site.number("p", 2) == 1:
        norm = maths.reduce("SUM", maths.unary("ABS", x), [place])
    else:
        norm = maths.unary("SQRT", maths.reduce("SUM", maths.mul(x, x), [place]))
    site.give(maths.div(x, maths.binary("MAXIMUM", norm, 1e-30)), held.order)


@lowers("MeanVarianceNormalization", into=_INTO, why_not=_why_not)
def lower_mean_variance_normalization(site: Site) -> None:
    """Lower over stated axes."""
    held = site.held(0)
    rank = len(held.order)
    axes = {axis_of(axis, rank) for axis in site.numbers("axes", (0, 2, 3))}
    places = [place for place, axis in enumerate(held.order) if axis in axes]
    x = site.take_float(0, held.order)
    site.give(_normal(Maths(site), x, places, 1e-9), held.order)


@lowers("LogSoftmax", into=("LOG_SOFTMAX", "TRANSPOSE"), why_not=_why_not)
def lower_log_softmax(site: Site) -> None:
    """Lower one, which TFLite has over the last axis."""
    held = site.held(0)
    rank = len(held.order)
    options: Options = ("LogSoftmaxOptions", {})
    if site.walk.opset < 13:
        axis = axis_of(site.number("axis", 1), rank)
        x = site.take_float(0)
        flat = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        rows = site.builder.reshaped(x, flat)
        made = site.emit("LOG_SOFTMAX", [rows], flat, options=options)
        site.give(site.builder.reshaped(made, x.shape))
        return
    axis = axis_of(site.number("axis", -1), rank)
    order = held.order
    if order[-1] != axis:
        order = (*(each for each in order if each != axis), axis)
    x = site.take_float(0, order)
    site.give(site.emit("LOG_SOFTMAX", [x], x.shape, options=options), order)
