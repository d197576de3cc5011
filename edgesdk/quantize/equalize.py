"""Even out the channels of an activation, moving scales between the operators around it.

Between two linear operators a channel may be multiplied by any positive number if the weights
that read it are divided by it: the graph computes the same. A tensor whose channels all use
the whole of one 8-bit range loses far less to rounding. Where only depthwise convolutions with
a scale per channel read it, this costs nothing (Nagel et al., Data-Free Quantization, 2019,
arXiv:1906.04721); where weights pay for it, the balance is that of Xiao et al., SmoothQuant,
2022 (arXiv:2211.10438), with the exponent that gives the least noise in closed form. An
activation that clips, such as ReLU6, keeps its ceiling: channels that never reach it are raised
towards it, so what exceeds everything calibration saw saturates there, as it does in any
quantized tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.quantize.chains import Chain, rank_of, second_input
from edgesdk.quantize.edit import give_constant, group_of, is_transposed
from edgesdk.quantize.grid import Grid
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.operands import constant_array

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["equalize"]

#: How far channels are evened out: 1 would leave no channel room for what calibration did not
#: see, and then loses more on new data than it saves (measured on EfficientNet-lite0 with few
#: calibration pictures: 22.7 dB without, 12.2 dB with 1, 20.5 dB with 0.3 on other pictures).
_FREE, _CLIPPED = 0.5, 0.3
#: Where the readers' weights pay, the best of these by predicted noise.
_EXPONENTS = (0.25, 0.5)
_MOST = 1e4


def equalize(
    model: onnx_ir.Model,
    chains: list[Chain],
    stats: dict[str, TensorStats],
    activation: Grid,
    weight: Grid,
) -> tuple[onnx_ir.Model, dict[str, TensorStats]]:
    """Give a copy of the graph with even channels, and its statistics.

    Args:
        model: A float graph.
        chains: From `find_chains` on this graph.
        stats: Of the tensors in the chains, followed by channel.
        activation: The integers of activations.
        weight: The integers of weights.
    """
    copy = model.clone()
    nodes = {node.name or "": node for node in copy.graph}
    changed = dict(stats)
    makers = {value.name: node for node in copy.graph for value in node.outputs}
    for chain in chains:
        maker = makers.get(chain.tensors[0])
        if chain.ceiling is not None and (maker is None or maker.op_type != "Clip"):
            continue  # how far its channels are from the ceiling is not known
        factors = _factors(chain, nodes, changed, activation, weight)
        if factors is None:
            continue
        for name, positions in chain.writers:
            _scale_writer(copy.graph, nodes[name], positions, factors, chain.axis)
        for name in chain.readers:
            _scale_reader(copy.graph, nodes[name], 1.0 / factors)
        for name in chain.tensors:
            if name in changed:
                moved = changed[name].copy()
                moved.scale_channels(factors, chain.ceiling)
                changed[name] = moved
    return copy, changed


def _factors(
    chain: Chain,
    nodes: dict[str, onnx_ir.Node],
    stats: dict[str, TensorStats],
    activation: Grid,
    weight: Grid,
) -> np.ndarray | None:
    """Choose the factor of each channel; None where nothing is gained."""
    import numpy as np

    known = stats.get(chain.tensors[0])
    if known is None or not known.by_channel or known.channel_low is None:
        return None
    assert known.channel_high is not None
    reach = np.maximum(np.abs(known.channel_low), np.abs(known.channel_high)).astype(np.float64)
    readers = [_columns(nodes[name], len(reach)) for name in chain.readers]
    if len(reach) < 2 or any(one is None for one in readers) or not reach.max() > 0:
        return None
    columns = [one for one in readers if one is not None]
    alive = reach > reach.max() * 1e-6
    power = (known.rows.astype(np.float64) ** 2).mean(axis=0)
    noise = _Noise(known, columns, power, activation, weight, free=chain.free)
    ones = np.ones_like(reach)
    best, least = ones, noise.of(ones)
    tops = [np.abs(one).max(axis=(0, 2)) for one in columns]
    top = np.maximum.reduce(tops)
    for exponent in (_FREE,) if chain.free else _EXPONENTS:
        wanted = np.where(alive, reach, 1.0) ** -exponent
        if exponent < 1.0 and not chain.free:
            wanted = wanted * np.where(top > 0, top, 1.0) ** (1.0 - exponent)
        factors = _bounded(np.where(alive, wanted, 1.0), reach, alive, chain.ceiling)
        value = noise.of(factors)
        if value < least * 0.98:
            best, least = factors, value
    return None if best is ones else best


def _bounded(
    wanted: np.ndarray, reach: np.ndarray, alive: np.ndarray, ceiling: float | None
) -> np.ndarray:
    """Scale the factors so that the largest channel stays as large as it was, within bounds."""
    import numpy as np

    goal = float(reach.max())
    if ceiling is not None:
        goal = min(ceiling, max(goal, 0.0)) if goal >= 0.5 * ceiling else goal
    factors = wanted * (goal / float((wanted * reach)[alive].max()))
    factors = np.where(alive, factors, 1.0)
    if ceiling is not None:
        room = np.maximum(1.0, ceiling / np.maximum(reach, 1e-30)) ** _CLIPPED
        factors = np.clip(factors, 1.0, room)
    # powers of two would be exact; these are float32 numbers with an exact enough inverse
    return np.clip(factors, 1.0 / _MOST, _MOST).astype(np.float32).astype(np.float64)


class _Noise:
    """The noise that rounding adds to the readers' results, in closed form.

    Rounding errors are taken as independent, uniform over a step.
    """

    def __init__(
        self,
        known: TensorStats,
        columns: list[np.ndarray],
        power: np.ndarray,
        activation: Grid,
        weight: Grid,
        *,
        free: bool,
    ) -> None:
        import numpy as np

        assert known.channel_low is not None
        assert known.channel_high is not None
        self._low = np.minimum(known.channel_low.astype(np.float64), 0.0)
        self._high = np.maximum(known.channel_high.astype(np.float64), 0.0)
        self._columns, self._power = columns, power
        self._energy = [(one**2).sum(axis=(0, 2)) for one in columns]
        self._tops = [np.abs(one).max(axis=2) for one in columns]
        self._places = [one.shape[2] for one in columns]
        self._activation, self._weight, self._free = activation, weight, free

    def of(self, factors: np.ndarray) -> float:
        """Give the sum of the squared error over the readers' results."""
        low, high = float((self._low * factors).min()), float((self._high * factors).max())
        width = 2 * max(-low, high) if self._activation.symmetric else high - low
        step = width / self._activation.steps
        total = 0.0
        for energy, top, places in zip(self._energy, self._tops, self._places, strict=True):
            total += step**2 / 12 * float((energy / factors**2).sum())
            if not self._free:
                weight_step = (top / factors).max(axis=1) / self._weight.high
                noise = float((weight_step**2).sum()) / 12
                total += noise * places * float((self._power * factors**2).sum())
        return total


def _columns(node: onnx_ir.Node, channels: int) -> np.ndarray | None:
    """Give a reader's weight as ``[results, channels, places]``."""
    import numpy as np

    weight = constant_array(second_input(node))
    if weight is None:
        return None
    weight = weight.astype(np.float64)
    if node.op_type == "Conv":
        if group_of(node) == 1:
            shaped = weight.reshape(weight.shape[0], weight.shape[1], -1)
        else:
            # a depthwise weight reads one channel each
            shaped = weight.reshape(group_of(node), -1)[np.newaxis]
    else:
        shaped = (weight if is_transposed(node) else weight.T)[:, :, np.newaxis]
    return shaped if shaped.shape[1] == channels else None


def _scale_writer(
    graph: onnx_ir.Graph,
    node: onnx_ir.Node,
    positions: tuple[int, ...],
    factors: np.ndarray,
    channel_axis: int,
) -> None:
    import numpy as np

    for position in positions:
        array = constant_array(node.inputs[position])
        assert array is not None
        if node.op_type in ("Add", "Mul"):
            rank = rank_of(node)
            shape = [1] * rank
            full = (1,) * (rank - array.ndim) + array.shape
            shape[channel_axis % rank] = -1
            new = array.reshape(full) * factors.reshape(shape)
        elif array.ndim == 1 or (node.op_type == "Gemm" and position == 2):
            new = np.broadcast_to(array.reshape(-1), factors.shape) * factors
        else:
            shape = [1] * array.ndim
            axis = {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, 1)
            if node.op_type == "Gemm" and is_transposed(node):
                axis = 0
            shape[axis] = -1
            new = array * factors.reshape(shape)
        give_constant(graph, node, position, new.astype(np.float32))


def _scale_reader(graph: onnx_ir.Graph, node: onnx_ir.Node, factors: np.ndarray) -> None:
    import numpy as np

    weight = constant_array(node.inputs[1])
    assert weight is not None
    shape = [1] * weight.ndim
    if node.op_type == "Conv" and group_of(node) != 1:
        each = np.repeat(factors, weight.shape[0] // group_of(node))
        shape[0] = -1
        new = weight * each.reshape(shape)
    else:
        axis = 1 if node.op_type == "Conv" or is_transposed(node) else 0
        shape[axis] = -1
        new = weight * factors.reshape(shape)
    give_constant(graph, node, 1, new.astype(np.float32))
