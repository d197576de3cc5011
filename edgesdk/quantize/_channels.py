"""Take whole output channels away from convolutions, and refit what reads them.

A chain is a Conv, what works on each of its channels alone (activations, pools, depthwise
convolutions), and every layer that reads the result. Which channels go is decided by what the
readers lose when they are refitted without them, by least squares over the data (optimal brain
surgeon for blocks: Hassibi and Stork, 1992; Frantar and Alistarh, arXiv:2208.11580).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.model.nodes import is_constant
from edgesdk.quantize._columns import weight_rows
from edgesdk.quantize.moments import Moments, why_no_moments
from edgesdk.quantize.rounding import inverse_root, output_error

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "Chain",
    "Reader",
    "choose_channels",
    "columns_of",
    "find_chain",
    "own_bias",
    "own_weight",
]

#: Each output channel depends on the same input channel and no other.
_EACH_ALONE = frozenset(
    {
        "AveragePool",
        "Clip",
        "Dropout",
        "Elu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "MaxPool",
        "Mish",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Tanh",
    }
)
_ROUNDS = 16


@dataclass(slots=True, kw_only=True)
class Chain:
    """A Conv whose output channels may go, and all that lies behind it up to its readers."""

    producer: ir.Node
    channels: int
    depthwise: list[ir.Node] = field(default_factory=list)
    readers: list[ir.Node] = field(default_factory=list)
    between: list[ir.Value] = field(default_factory=list)


def find_chain(conv: ir.Node, keep: Collection[str]) -> Chain | str:
    """Follow a Conv's channels to their readers, or say what is in the way."""
    rows = own_weight(conv)
    if isinstance(rows, str):
        return rows
    if _groups(conv) != 1:
        return "it has groups"
    if (why := own_bias(conv)) is not None:
        return why
    chain = Chain(producer=conv, channels=int(rows[0]))
    waiting = [(conv.outputs[0], False)]
    while waiting:
        value, flat = waiting.pop()
        chain.between.append(value)
        if value.is_graph_output():
            return f"{value.name!r} is an output of the model"
        for node, position in value.uses():
            found = _follow(chain, node, position, flat=flat, keep=keep)
            if isinstance(found, str):
                return f"{node.op_type} {node.name!r} behind it: {found}"
            waiting += found
    return chain if chain.readers else "nothing reads it"


def own_weight(node: ir.Node) -> tuple[int, ...] | str:
    """Give the shape of weights that are an initializer of this node alone, or say why not."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if weight is None or not weight.is_initializer() or weight.is_graph_input():
        return "its weights are no initializer"
    if len(weight.uses()) != 1 or weight.is_graph_output() or weight.const_value is None:
        return "its weights are shared"
    return tuple(int(extent) for extent in weight.const_value.shape.numpy())


def own_bias(node: ir.Node) -> str | None:
    """Say why a bias may not be changed, or None if it may, or there is none."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return None
    if not bias.is_initializer() or bias.is_graph_input() or len(bias.uses()) != 1:
        return "its bias is shared or not constant"
    return None


_Next = list[tuple["ir.Value", bool]]


def _follow(
    chain: Chain, node: ir.Node, position: int, *, flat: bool, keep: Collection[str]
) -> _Next | str:
    """Extend the chain by one user: give what to follow next, or say why it cannot be.

    ``flat`` says that each row holds the channels one after the other.
    """
    if (kept := node.name in keep or node.op_type in keep) or (
        node.graph is not chain.producer.graph or node.domain not in ("", "ai.onnx")
    ):
        return "it is to be kept" if kept else "nothing is known of its channels"
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        return _follow_layer(chain, node, position, flat=flat)
    if position != 0 or not all(is_constant(value) for value in node.inputs[1:] if value):
        return "it joins channels with others"
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return "it has a second result"
    becomes_flat = _is_flatten(node) or _drops_space(node)
    if becomes_flat or node.op_type in _EACH_ALONE or _is_spatial_mean(node):
        return [(node.outputs[0], flat or becomes_flat)]
    return "it joins channels or changes their order"


def _follow_layer(chain: Chain, node: ir.Node, position: int, *, flat: bool) -> _Next | str:
    if (why := _why_not_layer(chain, node, position, flat=flat)) is not None:
        return why
    if _groups(node) > 1:
        chain.depthwise.append(node)
        return [(node.outputs[0], flat)]
    chain.readers.append(node)
    return []


def _why_not_layer(chain: Chain, node: ir.Node, position: int, *, flat: bool) -> str | None:
    shape = own_weight(node)
    if isinstance(shape, str):
        return shape
    if position != 0 or flat != (node.op_type != "Conv"):
        return "its columns are not these channels"
    if _groups(node) > 1:
        if not _groups(node) == shape[0] == chain.channels or shape[1] != 1:
            return "it has groups of several channels"
        return own_bias(node)
    width = weight_rows(node).shape[1]
    if width % chain.channels or (node.op_type == "Conv" and shape[1] != chain.channels):
        return "its weights do not fit the channels"
    return why_no_moments(node) or (own_bias(node) if node.op_type == "Conv" else None)


def _groups(node: ir.Node) -> int:
    group = node.attributes.get("group")
    return 1 if group is None or node.op_type != "Conv" else int(group.as_int())


def _is_flatten(node: ir.Node) -> bool:
    axis = node.attributes.get("axis")
    return node.op_type == "Flatten" and (axis is None or axis.as_int() == 1)


def _is_spatial_mean(node: ir.Node) -> bool:
    """Say whether it averages over axes behind the channels and keeps these axes."""
    keepdims = node.attributes.get("keepdims")
    if node.op_type != "ReduceMean":
        return False
    return bool(_space(node)) and (keepdims is None or keepdims.as_int() == 1)


def _drops_space(node: ir.Node) -> bool:
    """Say whether all axes behind the channels go, averaged or with one position each."""
    source, keepdims = node.inputs[0], node.attributes.get("keepdims")
    if source is None or source.shape is None:
        return False
    if node.op_type == "ReduceMean" and (keepdims is None or keepdims.as_int() == 1):
        return False
    return len(_space(node)) == len(source.shape) - 2 > 0


def _space(node: ir.Node) -> set[int]:
    """Give the axes that a ReduceMean or Squeeze names, if all lie behind the channels."""
    source = node.inputs[0]
    if node.op_type not in ("ReduceMean", "Squeeze") or source is None or source.shape is None:
        return set()
    attribute = node.attributes.get("axes")
    axes: list[int] = [] if attribute is None else [int(axis) for axis in attribute.as_ints()]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is not None and given.const_value is not None:
        axes = [int(axis) for axis in given.const_value.numpy().reshape(-1)]
    found = {axis % len(source.shape) for axis in axes}
    return found if all(axis >= 2 for axis in found) else set()


@dataclass(slots=True, kw_only=True)
class Reader:
    """One layer that reads the channels: its rows ``[N, K]`` and moments ``[1, K, K]``.

    ``mean`` is E[x] where a bias can take it up (``second`` is centred then), else None.
    """

    rows: np.ndarray
    second: np.ndarray
    mean: np.ndarray | None

    @staticmethod
    def of(node: ir.Node, rows: np.ndarray, moments: Moments) -> Reader:
        """Describe a node with the rows that it has by now."""
        if node.op_type == "Conv":  # a bias may be added where there is none
            return Reader(rows=rows, second=moments.centred, mean=moments.mean[0])
        return Reader(rows=rows, second=moments.second, mean=None)

    def refit(self, kept: np.ndarray, damp: float) -> tuple[np.ndarray, np.ndarray]:
        """Give rows over the ``kept`` columns, and what a bias gains; ``[N, K']``, ``[N]``."""
        import numpy as np

        second = self.second[0]
        gone = np.setdiff1d(np.arange(len(second)), kept)
        inner = second[np.ix_(kept, kept)]
        index = np.arange(len(kept))
        floor = damp * float(np.diagonal(inner).mean()) + 1e-30
        inner[index, index] += floor
        moved = np.linalg.solve(inner, second[np.ix_(kept, gone)] @ self.rows[:, gone].T).T
        rows = self.rows[:, kept] + moved
        change = self.rows.copy()
        change[:, kept] -= rows
        gain = np.zeros(len(rows)) if self.mean is None else change @ self.mean
        return rows, gain

    def lost(self, kept: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Give the share of the output's energy that is lost; ``rows`` None: no refit."""
        change = self.rows.copy()
        change[:, kept] -= self.rows[:, kept] if rows is None else rows
        energy = float(output_error(self.rows, self.second).sum())
        return float(output_error(change, self.second).sum()) / max(energy, 1e-300)


def columns_of(channels: np.ndarray, per_channel: int) -> np.ndarray:
    """Give the columns that belong to channels; each has ``per_channel`` in a row."""
    import numpy as np

    columns: np.ndarray = channels[:, None] * per_channel + np.arange(per_channel)
    return columns.reshape(-1)


def choose_channels(readers: list[Reader], channels: int, keep: int, damp: float) -> np.ndarray:
    """Choose ``keep`` of ``channels``, in order, so that refitted readers lose least.

    Some go at a time; after each round the inverse moments and the weights are brought up to
    date, so that of two channels that say the same only one goes.
    """
    import numpy as np

    states = [_State.of(reader, channels, damp) for reader in readers]
    left = np.arange(channels)
    while len(left) > keep:
        count = min(max((channels - keep) // _ROUNDS, 1), len(left) - keep)
        scores = sum(state.scores() for state in states)
        worst = np.argsort(scores, kind="stable")[:count]
        for state in states:
            state.drop(worst)
        left = np.delete(left, worst)
    return left


@dataclass(slots=True)
class _State:
    rows: np.ndarray
    inverse: np.ndarray
    per_channel: int

    @staticmethod
    def of(reader: Reader, channels: int, damp: float) -> _State:
        import numpy as np

        width = reader.second.shape[-1]
        root = inverse_root(reader.second[0], damp)
        energy = max(float(output_error(reader.rows, reader.second).sum()), 1e-300)
        inverse = np.eye(width) if root is None else root.T @ root
        return _State(reader.rows / math.sqrt(energy), inverse, width // channels)

    def scores(self) -> np.ndarray:
        """Give what each channel's loss would cost, ``tr(W_c [H^-1]_cc^-1 W_c^T)``."""
        import numpy as np

        per = self.per_channel
        count = len(self.inverse) // per
        index = np.arange(count)
        blocks = self.inverse.reshape(count, per, count, per)[index, :, index, :]
        rows = self.rows.reshape(-1, count, per).transpose(1, 2, 0)
        scores: np.ndarray = (rows * np.linalg.solve(blocks, rows)).sum(axis=(1, 2))
        return scores

    def drop(self, channels: np.ndarray) -> None:
        """Take channels out and let the others make up for them."""
        import numpy as np

        gone = columns_of(np.sort(channels), self.per_channel)
        kept = np.setdiff1d(np.arange(len(self.inverse)), gone)
        pulls = np.linalg.solve(
            self.inverse[np.ix_(gone, gone)], self.inverse[np.ix_(gone, kept)]
        )
        self.rows = self.rows[:, kept] - self.rows[:, gone] @ pulls
        self.inverse = (
            self.inverse[np.ix_(kept, kept)] - self.inverse[np.ix_(kept, gone)] @ pulls
        )
