"""Conv, over one or two dimensions: CONV_2D, or DEPTHWISE_CONV_2D where channels stay apart."""

from __future__ import annotations

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.layouts import channels_last
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Site
from edgesdk.backends.litert.lower.weights import bias_of, kernel_of
from edgesdk.backends.litert.lower.windows import (
    PADDINGS,
    padded,
    read_window,
    why_no_window,
)
from edgesdk.model.values import NodeFacts

__all__: list[str] = []


def _why_not(node: NodeFacts) -> str | None:
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.shape and len(read.shape) not in (3, 4):
        return f"a convolution over {len(read.shape) - 2} dimensions (1 or 2)"
    if len(node.constant_inputs) > 1 and not node.constant_inputs[1]:
        return "its weights are not constant"
    if len(node.constant_inputs) > 2 and node.inputs[2] and not node.constant_inputs[2]:
        return "its bias is not constant"
    return why_no_window(node)


def _is_depthwise(node: NodeFacts) -> bool:
    groups = node.ints.get("group", (1,))[0]
    read = node.input_types[0] if node.input_types else None
    return groups > 1 and read is not None and len(read.shape) > 1 and read.shape[1] == groups


def _into(node: NodeFacts) -> tuple[str, ...]:
    main = "DEPTHWISE_CONV_2D" if _is_depthwise(node) else "CONV_2D"
    return main, "PAD", "TRANSPOSE", "RESHAPE"


@lowers("Conv", into=_into, why_not=_why_not, fuses=True)
def lower_conv(site: Site) -> None:
    """Lower one; of one dimension it is a convolution of images one row high."""
    held = site.held(0)
    rank = len(held.order)
    if rank not in (3, 4):
        raise CannotLower(f"a convolution over {rank - 2} dimensions (1 or 2)")
    kernel = kernel_of(site, 0)
    weights = kernel.weights
    if weights.ndim != rank:
        raise CannotLower(f"its weights have {weights.ndim} dimensions (its input {rank})")
    groups, channels, made = site.number("group", 1), held.shape[1], weights.shape[0]
    if groups < 1 or channels % groups or made % groups:
        raise CannotLower(f"{channels} channels to {made} in {groups} groups")
    if weights.shape[1] != channels // groups:
        raise CannotLower(f"its weights read {weights.shape[1]} of {channels} channels")
    space, out = held.shape[2:], site.out_shape()
    stated = site.numbers("kernel_shape") or weights.shape[2:]
    if stated != weights.shape[2:]:
        raise CannotLower(f"its kernel is stated as {stated}, with weights {weights.shape}")
    window = read_window(site, space, out[2:], weights.shape[2:])
    order = channels_last(rank)
    tensor = padded(site, site.take_on(0, kernel.read, order), window)
    strides, dilations = window.strides, window.dilations
    if rank == 3:
        tensor = site.builder.reshaped(tensor, (tensor.shape[0], 1, *tensor.shape[1:]))
        weights = weights[:, :, None, :]
        strides, dilations = (1, *strides), (1, *dilations)
    fields: dict[str, object] = {
        "padding": PADDINGS[window.padding],
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": ACTIVATIONS[site.activation],
    }
    if groups == channels and groups > 1:
        code, options = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        fields["depthMultiplier"] = made // channels
        packed = kernel.weight_tensor(site, weights.transpose(1, 2, 3, 0), 3)
    else:
        code, options = "CONV_2D", "Conv2DOptions"
        packed = kernel.weight_tensor(site, weights.transpose(0, 2, 3, 1), 0)
    shape = (out[0], *out[2:], out[1])
    result = site.emit(
        code,
        [tensor, packed, bias_of(site, kernel, 2, made)],
        shape if rank == 4 else (shape[0], 1, *shape[1:]),
        grid=kernel.grid,
        options=(options, fields),
    )
    site.give(site.builder.reshaped(result, shape), order)
