"""BatchNormalization that no convolution took in: one product and one sum per channel.

In integers that is a depthwise convolution of one place: a weight for each channel on a scale
of its own is exact, and there is one rounding, as in the graph. TFLite's MUL and ADD would
round twice, on a grid in between that the graph does not have.
"""

from __future__ import annotations

import numpy as np

from edgesdk.backends.litert.lower.graph import Grid
from edgesdk.backends.litert.lower.layouts import channels_last
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Site
from edgesdk.backends.litert.lower.windows import PADDINGS
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

_FLOATS = ("float32", "float16", "")
_RANKS = (2, 3, 4)
_WEIGHT = 127
#: Sums stay below this, and products above its inverse, in steps of the output.
_ROOM = 1 << 30


def _why_not(node: NodeFacts) -> str | None:
    if node.ints.get("training_mode", (0,))[0]:
        return "it trains"
    if any(node.outputs[1:]):
        return "its further outputs"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in _FLOATS:
        return f"it computes in {read.dtype}"
    known = all(node.constant_inputs[position] for position in range(1, len(node.inputs)))
    return None if known else "its numbers are not constant"


def _into(node: NodeFacts) -> tuple[str, ...]:
    read = node.input_types[0] if node.input_types else None
    if read is not None and len(read.shape) in _RANKS:
        return "DEPTHWISE_CONV_2D", "MUL", "ADD", "TRANSPOSE", "RESHAPE"
    return "MUL", "ADD"


@lowers("BatchNormalization", into=_into, why_not=_why_not, fuses=True)
def lower_batch_normalization(site: Site) -> None:
    """Lower to a depthwise convolution in integers, to a product and a sum in float."""
    found = [site.constant(position) for position in range(1, 5)]
    gain, bias, mean, variance = (
        np.asarray(each, np.float64) for each in found if each is not None
    )
    factor = gain / np.sqrt(variance + site.real("epsilon", 1e-5))
    offset = bias - mean * factor
    read, grid = site.grid(0), site.kernel_grid(0)
    held = site.held(0)
    rank = len(held.order)
    whole = grid is not None and grid.dtype == "int8" and rank in _RANKS
    if whole and read is not None and grid is not None and np.isfinite([factor, offset]).all():
        _in_integers(site, factor, offset, read, grid)
        return
    shape = [1] * rank
    if rank > 1:
        shape[held.order.index(1)] = -1
    maths = Maths(site)
    factors = maths.array(factor.astype(np.float32).reshape(shape))
    offsets = maths.array(offset.astype(np.float32).reshape(shape))
    product = maths.mul(site.take_float(0, held.order), factors)
    tail = ACTIVATIONS[site.activation]
    site.give(maths.binary("ADD", product, offsets, activation=tail), held.order)


def _in_integers(
    site: Site, factor: np.ndarray, offset: np.ndarray, read: Grid, grid: Grid
) -> None:
    order = channels_last(len(site.held(0).order))
    tensor = site.take_on(0, read, order)
    shape = tensor.shape
    full = (shape[0], *(1,) * (4 - len(shape)), *shape[1:])
    # a channel that is hardly there gets a scale that its sum and the kernel's shifts fit
    least = np.maximum(np.abs(offset), grid.scale) / (read.scale * _ROOM)
    scales = np.maximum(np.abs(factor) / _WEIGHT, least).astype(np.float32)
    wide = scales.astype(np.float64)
    steps = np.clip(np.rint(factor / wide), -_WEIGHT, _WEIGHT).astype(np.int8)
    sums = (wide * read.scale).astype(np.float32)
    added = np.rint(offset / sums.astype(np.float64)).astype(np.int32)
    zeros, many = (0,) * steps.size, steps.size > 1
    weights = site.builder.constant(
        steps.reshape(1, 1, 1, -1),
        "gains",
        grid=Grid("int8", tuple(map(float, scales)), zeros, 3 if many else None),
    )
    biases = site.builder.constant(
        added,
        "offsets",
        grid=Grid("int32", tuple(map(float, sums)), zeros, 0 if many else None),
    )
    fields: dict[str, object] = {
        "padding": PADDINGS["VALID"],
        "strideH": 1,
        "strideW": 1,
        "dilationHFactor": 1,
        "dilationWFactor": 1,
        "depthMultiplier": 1,
        "fusedActivationFunction": ACTIVATIONS[site.activation],
    }
    result = site.emit(
        "DEPTHWISE_CONV_2D",
        [site.builder.reshaped(tensor, full), weights, biases],
        full,
        grid=grid,
        options=("DepthwiseConv2DOptions", fields),
    )
    site.give(site.builder.reshaped(result, shape), order)
