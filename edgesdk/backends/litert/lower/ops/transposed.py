"""ConvTranspose: TRANSPOSE_CONV, with what ONNX pads cut off the result."""

from __future__ import annotations

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options, Tensor
from edgesdk.backends.litert.lower.layouts import channels_last
from edgesdk.backends.litert.lower.maths import Maths
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Site
from edgesdk.backends.litert.lower.weights import Kernel, bias_of, kernel_of
from edgesdk.backends.litert.lower.windows import PADDINGS, why_no_window
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

#: Zeros that may be added behind the weights, in each direction.
_MOST_ADDED = 64
_INTO = ("TRANSPOSE_CONV", "SLICE", "SPLIT", "CONCATENATION", "ADD", "TRANSPOSE")


def _why_not(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.shape and len(read.shape) not in (3, 4):
        return f"a transposed convolution over {len(read.shape) - 2} dimensions (1 or 2)"
    if len(node.constant_inputs) > 1 and not node.constant_inputs[1]:
        return "its weights are not constant"
    if len(node.constant_inputs) > 2 and node.inputs[2] and not node.constant_inputs[2]:
        return "its bias is not constant"
    if any(step != 1 for step in node.ints.get("dilations", ())):
        return "a dilated window"
    return why_no_window(node)


@lowers("ConvTranspose", into=_INTO, why_not=_why_not, fuses=True)
def lower_conv_transpose(site: Site) -> None:
    """Lower one without padding, then cut to what the graph wants.

    Groups become convolutions of their own, over parts of the channels.
    """
    held = site.held(0)
    rank = len(held.order)
    if rank not in (3, 4):
        raise CannotLower(f"a transposed convolution over {rank - 2} dimensions (1 or 2)")
    groups = site.number("group", 1)
    kernel = kernel_of(site, 1)
    if groups > 1 and len(kernel.scales) > 1:
        # a scale per output channel of a group is shared by all groups: no such thing in TFLite
        numbers = site.constant(1)
        assert numbers is not None
        kernel = Kernel(grid=None, weights=numbers.astype(np.float32, copy=False))
    weights, out = kernel.weights, site.out_shape()
    channels = held.shape[1]
    if weights.ndim != rank or weights.shape[0] != channels or channels % groups:
        raise CannotLower(f"its weights {weights.shape} do not fit {channels} channels")
    order = channels_last(rank)
    tensor = site.take_on(0, kernel.read, order)
    strides = site.numbers("strides") or (1,) * (rank - 2)
    if len(strides) != rank - 2:
        raise CannotLower(f"it has {len(strides)} strides for {rank - 2} dimensions")
    if rank == 3:
        tensor = site.builder.reshaped(tensor, (tensor.shape[0], 1, *tensor.shape[1:]))
        weights, strides = weights[:, :, None, :], (1, *strides)
    before = _before(site, out, held.shape, strides, weights.shape[2:])
    wanted = (out[0], 1, out[2], out[1]) if rank == 3 else (out[0], *out[2:], out[1])
    weights = _reaching(
        weights,
        tensor.shape,
        strides,
        [b + w for b, w in zip(before, wanted[1:3], strict=True)],
    )
    full = _unpadded(site, kernel, tensor, weights=weights, strides=strides, groups=groups)
    result = _fitted(site, full, before, wanted)
    if site.activation != "NONE":
        if result.grid is None or site.activation != "RELU":
            result = site.builder.in_float(result)
        if result.grid is None:
            result = Maths(site).unary(site.activation, result)
        else:
            result = site.emit("RELU", [result], result.shape, grid=result.grid)
    site.give(site.builder.reshaped(result, (out[0], *out[2:], out[1])), order)


def _before(
    site: Site,
    out: tuple[int, ...],
    read: tuple[int, ...],
    strides: tuple[int, ...],
    kernel: tuple[int, ...],
) -> tuple[int, int]:
    """Say how much in front of the unpadded result is cut off, for both axes of space."""
    rank = len(out) - 2
    pads = site.numbers("pads") or (0,) * (2 * rank)
    way = site.text("auto_pad", "NOTSET")
    sizes = site.numbers("output_shape")
    extra = site.numbers("output_padding") or (0,) * rank
    first = list(pads[:rank])
    if way.startswith("SAME") or sizes:
        for axis in range(rank):
            stride, wide = strides[axis - rank], kernel[axis - rank]
            total = stride * (read[2 + axis] - 1) + extra[axis] + wide - out[2 + axis]
            # the standard's own: the larger half lies in front unless it says SAME_UPPER
            half = total // 2
            first[axis] = half if way == "SAME_UPPER" else total - half
    return (0, first[0]) if rank == 1 else (first[0], first[1])


def _reaching(
    weights: np.ndarray, read: tuple[int, ...], strides: tuple[int, ...], ends: list[int]
) -> np.ndarray:
    """Add zeros behind the weights where the result goes on further than they reach."""
    widths = [(0, 0), (0, 0)]
    for axis, end in enumerate(ends):
        reach = (read[1 + axis] - 1) * strides[axis] + weights.shape[2 + axis]
        widths.append((0, max(end - reach, 0)))
    if max(after for _, after in widths) > _MOST_ADDED:
        raise CannotLower("its result is far larger than what its windows reach")
    return np.pad(weights, widths)


def _unpadded(
    site: Site,
    kernel: Kernel,
    tensor: Tensor,
    *,
    weights: np.ndarray,
    strides: tuple[int, ...],
    groups: int,
) -> Tensor:
    """Give the result of all groups before anything is cut off, channels last."""
    batch, rows, columns, channels = tensor.shape
    high, wide = weights.shape[2:]
    each_out, each_in = weights.shape[1], channels // groups
    space = ((rows - 1) * strides[0] + high, (columns - 1) * strides[1] + wide)
    bias = bias_of(site, kernel, 2, each_out * groups)
    maths, results = Maths(site), []
    fields: dict[str, object] = {
        "padding": PADDINGS["VALID"],
        "strideH": strides[0],
        "strideW": strides[1],
        "fusedActivationFunction": ACTIVATIONS["NONE"],
    }
    for group in range(groups):
        part = maths.part(tensor, 3, group * each_in, each_in)
        packed = weights[group * each_in : (group + 1) * each_in].transpose(1, 2, 3, 0)
        shape = (batch, *space, each_out)
        inputs = [
            site.builder.numbers(shape, "shape"),
            kernel.weight_tensor(site, packed, 0),
            part,
            _bias_part(site, bias, group, each_out, groups),
        ]
        options: Options = ("TransposeConvOptions", fields)
        results.append(
            site.emit("TRANSPOSE_CONV", inputs, shape, grid=kernel.grid, options=options)
        )
    return maths.joined(results, 3)


def _bias_part(site: Site, bias: Tensor, group: int, count: int, groups: int) -> Tensor:
    if groups == 1:
        return bias
    assert bias.data is not None
    data = bias.data[group * count : (group + 1) * count]
    return site.builder.constant(data, bias.name, grid=bias.grid)


def _fitted(
    site: Site, full: Tensor, before: tuple[int, int], wanted: tuple[int, ...]
) -> Tensor:
    """Cut the unpadded result to its place."""
    tensor, maths = full, Maths(site)
    for axis, start in zip((1, 2), before, strict=True):
        if start < 0:
            raise CannotLower("its result begins before its first window")
        tensor = maths.part(tensor, axis, start, wanted[axis])
    return tensor
