"""The input columns of a layer as a linear map sees them, a few positions at a time.

A Conv's column is the patch under its kernel, cut out by index; the whole im2col matrix is
never made. A Gemm's or MatMul's column is a row of its left side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.nodes import is_constant

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["Layer", "Window", "layer_of", "rows_to_weight", "weight_rows"]

_STEP_SEED = 7919


@dataclass(frozen=True, slots=True)
class Window:
    """What a convolution slides over its input, a number per spatial axis; pads as in ONNX."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str

    def begins(self, axis: int, extent: int) -> tuple[int, int]:
        """Give the padding before an axis of ``extent``, and how many positions it has."""
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        stride = self.strides[axis]
        if self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            count = -(-extent // stride)
            both = max((count - 1) * stride + reach - extent, 0)
            return (both + (self.auto_pad == "SAME_LOWER")) // 2, count
        before, after = self.pads[axis], self.pads[axis + len(self.kernel)]
        if self.auto_pad == "VALID":
            before = after = 0
        return before, max((extent + before + after - reach) // stride + 1, 0)


@dataclass(frozen=True, slots=True)
class Layer:
    """What of a node decides its columns; equal layers have equal moments.

    ``source`` is the tensor that columns are cut from, ``width`` the elements of a column in
    each of ``groups``, ``window`` None for the rows of a matrix.
    """

    source: str
    groups: int
    width: int
    window: Window | None

    def columns(self, array: np.ndarray, *, most: int, start: int) -> np.ndarray:
        """Cut at most ``most`` columns out of one input, ``[groups, positions, width]``.

        Positions are walked with a stride that has no factor in common with their number and
        is near the golden section of it, so that few of them cover the whole map; ``start``
        moves them from sample to sample.
        """
        import numpy as np

        if self.window is None:
            rows = array.reshape(-1, self.width)
            return rows[None, _positions(len(rows), most, start)]
        each = max(most // max(len(array), 1), 1)
        cut = [self._patches(image, each, start + at) for at, image in enumerate(array)]
        empty = np.zeros((self.groups, 0, self.width), np.float32)
        return np.concatenate(cut, axis=1) if cut else empty

    def _patches(self, image: np.ndarray, most: int, start: int) -> np.ndarray:
        """Cut patches out of ``[channels, *spatial]``."""
        import numpy as np

        window = self.window
        assert window is not None
        spatial = image.shape[1:]
        begins = [window.begins(axis, extent) for axis, extent in enumerate(spatial)]
        counts = [count for _, count in begins]
        chosen = np.unravel_index(_positions(math.prod(counts), most, start), counts)
        flat = np.zeros((len(chosen[0]), 1), np.int64)
        inside = np.ones((len(chosen[0]), 1), np.bool_)
        for axis, extent in enumerate(spatial):
            first = chosen[axis] * window.strides[axis] - begins[axis][0]
            steps = np.arange(window.kernel[axis]) * window.dilations[axis]
            at = first[:, None] + steps[None, :]
            valid = (at >= 0) & (at < extent)
            flat = flat[:, :, None] * extent + at.clip(0, extent - 1)[:, None, :]
            inside = inside[:, :, None] & valid[:, None, :]
            flat, inside = (one.reshape(len(first), -1) for one in (flat, inside))
        taken = np.take(image.reshape(len(image), -1), flat.reshape(-1), axis=1)
        if not inside.all():
            taken[:, ~inside.reshape(-1)] = 0
        split = taken.reshape(self.groups, -1, *flat.shape)
        return split.transpose(0, 2, 1, 3).reshape(self.groups, len(flat), self.width)


def _positions(count: int, most: int, start: int) -> np.ndarray:
    import numpy as np

    if count <= most:
        return np.arange(count)
    stride = max(round(count * 0.618), 1)
    while math.gcd(stride, count) != 1:
        stride += 1
    return (start * _STEP_SEED + np.arange(most, dtype=np.int64) * stride) % count


def layer_of(node: ir.Node) -> Layer | str:
    """Describe a node's columns, or say why it has none."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return f"{node.op_type} has no matrix of columns here"
    source, weight = node.inputs[0], node.inputs[1]
    if source is None or is_constant(source) or not source.name:
        return "its left side is constant"
    if not is_constant(weight) or weight is None or weight.const_value is None:
        return "its weights are not constant"
    shape = tuple(int(extent) for extent in weight.const_value.shape.numpy())
    if node.op_type == "Conv":
        return _conv(node, source.name, shape)
    return _matrix(node, source.name, shape)


def _matrix(node: ir.Node, source: str, shape: tuple[int, ...]) -> Layer | str:
    if len(shape) != 2 or not math.prod(shape):
        return f"its weights have the shape {shape} (expected two dimensions)"
    if node.op_type == "Gemm" and _int(node, "transA", 0):
        return "its left side is transposed"
    return Layer(source, 1, shape[1 if _int(node, "transB", 0) else 0], None)


def _conv(node: ir.Node, source: str, shape: tuple[int, ...]) -> Layer | str:
    rank = len(shape) - 2
    groups = _int(node, "group", 1)
    if rank < 1 or groups < 1 or shape[0] % groups or not math.prod(shape):
        return f"its weights have the shape {shape} in {groups} groups"
    auto = node.attributes.get("auto_pad")
    window = Window(
        kernel=shape[2:],
        strides=_ints(node, "strides", (1,) * rank),
        dilations=_ints(node, "dilations", (1,) * rank),
        pads=_ints(node, "pads", (0,) * rank * 2),
        auto_pad="NOTSET" if auto is None else str(auto.as_string()),
    )
    return Layer(source, groups, math.prod(shape[1:]), window)


def weight_rows(node: ir.Node) -> np.ndarray:
    """Give the weights of a node that `layer_of` takes as float64 ``[N, K]``.

    Rows are output channels, group by group; columns are in the order of `Layer.columns`.
    """
    import numpy as np

    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    array = np.asarray(weight.const_value.numpy(), dtype=np.float64)
    if node.op_type == "Conv":
        return array.reshape(len(array), -1)
    return array if _int(node, "transB", 0) else np.ascontiguousarray(array.T)


def rows_to_weight(node: ir.Node, rows: np.ndarray) -> np.ndarray:
    """Bring ``[N, K]`` back into the layout of the node's weights; the dtype stays."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    if node.op_type == "Conv":
        kernel = tuple(int(extent) for extent in weight.const_value.shape.numpy()[1:])
        return rows.reshape(len(rows), *kernel)
    return rows if _int(node, "transB", 0) else rows.T.copy()


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else int(attribute.as_int())


def _ints(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return default if attribute is None else tuple(int(one) for one in attribute.as_ints())
