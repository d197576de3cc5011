"""Padding of windows that slide: ONNX's numbers as TFLite's SAME, VALID, or a PAD before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Tensor
from edgesdk.backends.litert.lower.site import ACTIVATIONS, Site
from edgesdk.model.values import NodeFacts

__all__ = ["PADDINGS", "Window", "padded", "read_window", "why_no_window"]

#: Numbers of TFLite's ways to pad, by name.
PADDINGS = {"SAME": 0, "VALID": 1}
_MOST = 1 << 20
#: Operators that give nothing below zero, and that give nothing below it if they get nothing.
_POSITIVE = frozenset({"LOGISTIC", "RELU", "RELU6", "SOFTMAX"})
_KEEP_SIGN = frozenset({"MAX_POOL_2D", "AVERAGE_POOL_2D", "QUANTIZE", "RESHAPE", "TRANSPOSE"})
_MOST_STEPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """How a window slides, per axis of space.

    Attributes:
        kernel: Its extents.
        strides: How far it moves.
        dilations: How far apart its entries are.
        padding: ``SAME`` or ``VALID``.
        before: What has to be padded in front, beyond what ``padding`` does.
        after: Likewise behind.
        stated: What the graph pads in all, in front and behind, per axis.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    stated: tuple[tuple[int, int], ...]

    @property
    def is_padded(self) -> bool:
        """Whether a PAD is needed."""
        return any(self.before) or any(self.after)


def why_no_window(node: NodeFacts) -> str | None:
    """Say from the facts what no window of TFLite can do."""
    if any(pad < 0 for pad in node.ints.get("pads", ())):
        return "negative padding"
    for name in ("kernel_shape", "strides", "dilations"):
        if any(not 0 < each <= _MOST for each in node.ints.get(name, ())):
            return f"its {name} are {list(node.ints[name])}"
    if any(pad > _MOST for pad in node.ints.get("pads", ())):
        return f"its pads are {list(node.ints['pads'])}"
    way = node.strings.get("auto_pad", "NOTSET")
    if way not in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        return f"auto_pad is {way}"
    return None


def read_window(
    site: Site, space: Sequence[int], out: Sequence[int], kernel: Sequence[int]
) -> Window:
    """Give the window of a convolution or pool.

    Args:
        site: The node.
        space: Extents of its input's axes of space.
        out: Extents of its output's.
        kernel: Extents of the window.

    Raises:
        CannotLower: The attributes contradict each other or the shapes.
    """
    rank = len(space)
    strides = site.numbers("strides") or (1,) * rank
    dilations = site.numbers("dilations") or (1,) * rank
    pads = site.numbers("pads") or (0,) * (2 * rank)
    if not len(kernel) == len(strides) == len(dilations) == len(out) == rank:
        raise CannotLower("its window has another number of dimensions than its input")
    if len(pads) != 2 * rank:
        raise CannotLower(f"it has {len(pads)} pads for {rank} dimensions")
    way = site.text("auto_pad", "NOTSET")
    wide = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    same = [_same(*each) for each in zip(space, strides, wide, strict=True)]
    if way == "VALID":
        pads = (0,) * (2 * rank)
    elif way.startswith("SAME"):
        total = [extent for _, extent in same]
        first = [t // 2 if way == "SAME_UPPER" else t - t // 2 for t in total]
        pads = (*first, *(t - f for t, f in zip(total, first, strict=True)))
    # how much is read behind the input's end; what is padded beyond nobody reads
    behind = [(out[i] - 1) * strides[i] + wide[i] - space[i] - pads[i] for i in range(rank)]
    stated = tuple((pads[i], pads[rank + i]) for i in range(rank))
    for i in range(rank):
        room = space[i] + sum(stated[i]) - wide[i]
        if room < 0 or not room // strides[i] < out[i] <= -(-room // strides[i]) + 1:
            raise CannotLower(f"its output is stated to have {tuple(out)} places")
    padding, before, after = "VALID", list(pads[:rank]), [max(each, 0) for each in behind]
    if any(before) or any(after):
        is_same = all(out[i] == same[i][0] and pads[i] == same[i][1] // 2 for i in range(rank))
        if is_same:
            padding, before, after = "SAME", [0] * rank, [0] * rank
    return Window(
        kernel=tuple(kernel),
        strides=strides,
        dilations=dilations,
        padding=padding,
        before=tuple(before),
        after=tuple(after),
        stated=stated,
    )


def padded(site: Site, tensor: Tensor, window: Window, *, lowest: bool = False) -> Tensor:
    """Pad a channels-last tensor with zeros, or with the lowest number there is.

    Where no number is below zero, as behind a Relu, zeros do for the lowest: then an operator
    that accelerators know does it.
    """
    if not window.is_padded:
        return tensor
    pairs = [(0, 0), *zip(window.before, window.after, strict=True), (0, 0)]
    shape = [extent + sum(pair) for extent, pair in zip(tensor.shape, pairs, strict=True)]
    widths = site.builder.constant(np.array(pairs, np.int32), "paddings")
    inputs: list[Tensor | None] = [tensor, widths]
    code, options = "PAD", "PadOptions"
    if lowest and not _is_positive(tensor):
        limits = np.finfo("float32") if tensor.grid is None else np.iinfo(tensor.dtype)
        value = np.array([limits.min], tensor.dtype)
        inputs.append(site.builder.constant(value, "lowest", grid=tensor.grid))
        code, options = "PADV2", "PadV2Options"
    return site.emit(
        code, inputs, shape, dtype=tensor.dtype, grid=tensor.grid, options=(options, {})
    )


def _is_positive(tensor: Tensor) -> bool:
    """Say whether it is known that no number of a tensor is below zero."""
    for _ in range(_MOST_STEPS):
        grid, maker = tensor.grid, tensor.maker
        if grid is not None and grid.axis is None and grid.lowest >= 0:
            return True
        if maker is None:
            return False
        fields = {} if maker.options is None else maker.options[1]
        fused = fields.get("fusedActivationFunction")
        if fused in (ACTIVATIONS["RELU"], ACTIVATIONS["RELU6"]) or maker.code in _POSITIVE:
            return True
        source = maker.inputs[0] if maker.inputs else None
        if maker.code not in _KEEP_SIGN or source is None:
            return False
        tensor = source
    return False


def _same(extent: int, stride: int, wide: int) -> tuple[int, int]:
    """Give the output's extent and all the padding of TFLite's SAME."""
    out = -(-extent // stride)
    return out, max((out - 1) * stride + wide - extent, 0)
