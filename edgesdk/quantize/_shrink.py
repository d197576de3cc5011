"""Make a chain of layers smaller: fewer channels in the constants of all its nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgesdk.quantize._channels import Chain, Reader, choose_channels, columns_of
from edgesdk.quantize._columns import weight_rows
from edgesdk.quantize.edit import give_constant
from edgesdk.quantize.moments import Moments

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["add_to_bias", "shrink_chain"]

#: The refit itself needs less than the choice, which inverts the moments of all channels.
_REFIT_DAMP = 1e-4


def shrink_chain(
    chain: Chain, stay: int, moments: Mapping[str, Moments], damp: float
) -> tuple[float, float]:
    """Leave ``stay`` channels of the chain and refit its readers; change the graph in place.

    Returns:
        The share of the readers' output energy that is lost, summed: where the smallest
        channels go and nothing is refitted, and as it is now.
    """
    import numpy as np

    readers = [
        Reader.of(node, weight_rows(node), moments[node.name or ""]) for node in chain.readers
    ]
    kept = choose_channels(readers, chain.channels, stay, damp)
    sizes = np.abs(weight_rows(chain.producer)).sum(axis=1)
    largest = np.sort(np.argsort(-sizes, kind="stable")[:stay])
    before = after = 0.0
    for node, reader in zip(chain.readers, readers, strict=True):
        per = reader.rows.shape[1] // chain.channels
        columns = columns_of(kept, per)
        rows, gain = reader.refit(columns, _REFIT_DAMP)
        before += reader.lost(columns_of(largest, per))
        after += reader.lost(columns, rows)
        _set_reader(node, rows, gain)
    for node in (chain.producer, *chain.depthwise):
        _take_outputs(node, kept)
    for value in chain.between:
        _shorten(value, chain.channels, stay)
    return before, after


def _take_outputs(node: ir.Node, kept: np.ndarray) -> None:
    """Leave the output channels ``kept`` of a Conv, depthwise or not."""
    import onnx_ir as ir

    for value in node.inputs[1:3]:
        if value is not None and value.const_value is not None:
            _set(value, value.const_value.numpy()[kept])
    group = node.attributes.get("group")
    if group is not None and group.as_int() != 1:
        node.attributes["group"] = ir.AttrInt64("group", len(kept))


def _set_reader(node: ir.Node, rows: np.ndarray, gain: np.ndarray) -> None:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    old = weight.const_value.numpy()
    if node.op_type == "Conv":
        kernel = old.shape[2:]
        _set(weight, rows.reshape(len(rows), -1, *kernel).astype(old.dtype))
        add_to_bias(node, gain.astype(old.dtype))
        return
    turned = node.attributes.get("transB")
    is_turned = turned is not None and turned.as_int() != 0
    _set(weight, (rows if is_turned else rows.T).astype(old.dtype))


def add_to_bias(node: ir.Node, gain: np.ndarray) -> None:
    """Add one number per output channel to a Conv's bias; it gets one where it has none."""
    import onnx_ir as ir

    bias = node.inputs[2] if len(node.inputs) > 2 else None
    before = 0.0 if bias is None or bias.const_value is None else bias.const_value.numpy()
    assert isinstance(node.graph, ir.Graph)
    give_constant(node.graph, node, 2, (before + gain).astype(gain.dtype))


def _set(value: ir.Value, array: np.ndarray) -> None:
    import numpy as np
    import onnx_ir as ir

    value.const_value = ir.Tensor(np.ascontiguousarray(array), name=value.name)
    value.shape = ir.Shape(array.shape)


def _shorten(value: ir.Value, channels: int, stay: int) -> None:
    """Bring the channels in a value's shape up to date; a flat one has several per channel."""
    import onnx_ir as ir

    if value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return
    extents = list(value.shape)
    extents[1] = int(value.shape[1]) // channels * stay
    value.shape = ir.Shape(extents)
