"""From what was observed to a Q/DQ graph, by one choice of accuracy means."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgesdk.profiles.values import QuantScheme
from edgesdk.quantize.chains import Chain, find_chains, watched_chains
from edgesdk.quantize.correct import correct_biases
from edgesdk.quantize.edit import channel_axis_of_input
from edgesdk.quantize.equalize import equalize
from edgesdk.quantize.grid import Step, activation_grid
from edgesdk.quantize.guard import guard_float
from edgesdk.quantize.insert import Numbers, insert_qdq
from edgesdk.quantize.layout import Layout, Unit, constant_biases, lay_out
from edgesdk.quantize.moments import Moments
from edgesdk.quantize.observe import Observed, Watch
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.operands import constant_array
from edgesdk.quantize.ranges import RangeMethod
from edgesdk.quantize.reconstruct import layer_moments, rounded_weight
from edgesdk.quantize.weights import WholeWeight, bias_floor, quantize_weight, weight_grid

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Choice", "OnSettled", "Settled", "Trial", "watch_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which means are on.

    Attributes:
        equalize: Even out channels between linear operators, smoothing included.
        ranges: How ranges of activations are chosen.
        correct: Correct biases.
        least_error: Choose weight scales for the least squared error.
        rounding: Round weights so that errors make up for each other.
        kept: Nodes that stay in float by what measuring said, with the reason.
    """

    equalize: bool = False
    ranges: RangeMethod = "min-max"
    correct: bool = False
    least_error: bool = False
    rounding: bool = False
    kept: tuple[tuple[str, str], ...] = ()

    def keeping(self, more: Mapping[str, str]) -> Choice:
        """Give the same choice with more nodes in float."""
        return replace(self, kept=tuple({**dict(self.kept), **more}.items()))


def watch_for(model: onnx_ir.Model, layout: Layout) -> tuple[dict[str, Watch], list[Chain]]:
    """Say what to follow of each tensor that gets a pair, and where to even channels out."""
    chains = find_chains(model, layout)
    axes = dict(watched_chains(chains))
    watched: dict[str, Watch] = {}
    for unit in layout.compute:
        source = unit.node.inputs[0]
        if source is None or source.name not in layout.tensors:
            continue
        axis = channel_axis_of_input(unit.node.op_type)
        if axis == -1 and source.shape is not None:
            axis = len(source.shape) - 1
        before = watched.get(source.name)
        if before is not None and before.axis != axis:
            axis = None  # its readers do not agree on what a channel is
        watched[source.name] = Watch(axis=axis)
    for name in layout.tensors:
        watched.setdefault(name, Watch())
        if name in axes:
            watched[name] = Watch(axis=axes[name], by_channel=True)
    return watched, chains


@dataclass(slots=True, kw_only=True)
class Trial:
    """Makes Q/DQ graphs from one float graph and what one pass observed of it.

    Attributes:
        model: The prepared float graph.
        scheme: The numbers to use.
        keep_float: Node names and operators that the recipe keeps in float.
        observed: Statistics of every tensor that the first layout quantizes.
        chains: Where channels can be evened out.
    """

    model: onnx_ir.Model
    scheme: QuantScheme
    keep_float: tuple[str, ...]
    observed: Observed
    chains: list[Chain]
    #: Whether the samples that candidates are compared on count for ranges too.
    final: bool = False
    _even: tuple[onnx_ir.Model, dict[str, TensorStats]] | None = field(default=None)
    _moments: dict[bool, dict[str, Moments]] = field(default_factory=dict)
    _nearest: dict[object, WholeWeight] = field(default_factory=dict)
    _layouts: dict[tuple[tuple[str, str], ...], Layout] = field(default_factory=dict)

    def finished(self) -> Trial:
        """Give the same with every sample counted: for the graph that is shipped.

        What it is made from is given up: the statistics of both kinds of samples are joined.
        """
        if self.final:
            return self
        joined = replace(self.observed, stats=self.observed.whole)
        return replace(self, observed=joined, final=True, _even=None, _moments={}, _nearest={})

    @property
    def stats(self) -> dict[str, TensorStats]:
        """Statistics of the tensors."""
        return self.observed.stats

    @property
    def whole_biases(self) -> bool:
        """Whether biases become whole numbers."""
        wide = self.scheme.activations.startswith("int16")
        return self.scheme.rules.bias == "int32" and not wide

    @property
    def for_onnxruntime(self) -> bool:
        """Whether the rules are those of onnxruntime, which quantizes on its own at times."""
        return self.scheme.rules.placement == "operators"

    def layout(self, choice: Choice) -> Layout:
        """Give the layout of a choice, of tensors that were observed only.

        It holds for every variant of the graph: they differ in constants, not in names.
        """
        if choice.kept not in self._layouts:
            self._layouts[choice.kept] = self._lay_out(dict(choice.kept))
        return self._layouts[choice.kept]

    def _lay_out(self, kept: dict[str, str]) -> Layout:
        while True:
            rules = self.scheme.rules
            layout = lay_out(self.model, rules, keep_float=self.keep_float, kept=kept)
            unseen = {name for name in layout.tensors if name not in self.stats}
            if not unseen:
                return layout
            more = _around(layout, unseen)
            assert more, "a tensor of the layout belongs to a kernel"
            kept.update(dict.fromkeys(more, "what it gives was not observed"))

    def evened(self) -> tuple[onnx_ir.Model, dict[str, TensorStats]]:
        """Give the equalized graph and its statistics."""
        if self._even is None:
            self._even = equalize(
                self.model,
                self.chains,
                self.stats,
                activation_grid(self.scheme.activations),
                weight_grid(self.scheme),
            )
        return self._even

    def realize_only(self, choice: Choice, names: Collection[str]) -> onnx_ir.Model:
        """Give the graph with only the kernels of these nodes quantized, for probing them."""
        return self._realize(choice, names)[0]

    def realize(self, choice: Choice) -> tuple[onnx_ir.Model, Layout]:
        """Give the Q/DQ graph of a choice, and its layout."""
        return self._realize(choice, None)

    def _realize(
        self, choice: Choice, only: Collection[str] | None
    ) -> tuple[onnx_ir.Model, Layout]:
        model, stats = self.model, self.stats
        if choice.equalize:
            model, stats = self.evened()
        layout = _restricted(self.layout(choice), only)
        grid = activation_grid(self.scheme.activations)
        steps = self._steps(layout, stats, choice)
        weights = self._weights(model, layout, stats, steps, choice)
        if choice.correct and weights:
            model = model.clone()
            correct_biases(model, layout, stats=stats, grid=grid, steps=steps, weights=weights)
            layout = replace(layout, biases=constant_biases(model, layout))
        numbers = Numbers(
            grid=grid, steps=steps, weights=weights, whole_biases=self.whole_biases
        )
        done = insert_qdq(model, layout, numbers)
        if self.for_onnxruntime:
            guard_float(done, layout)
        return done, layout

    def _steps(
        self, layout: Layout, stats: Mapping[str, TensorStats], choice: Choice
    ) -> dict[int, Step]:
        grid = activation_grid(self.scheme.activations)
        ranges: dict[int, tuple[float, float]] = {}
        for name, group in layout.tensors.items():
            if group in layout.fixed:
                continue
            low, high = stats[name].range(choice.ranges, grid)
            old = ranges.get(group, (0.0, 0.0))
            ranges[group] = (min(old[0], low), max(old[1], high))
        for unit in layout.units.values():
            group = layout.tensors.get(unit.results[0].name or "", -1)
            if unit.role == "same-scale" and unit.constants and group in ranges:
                ranges[group] = _with_constants(unit, *ranges[group])
        walled = {
            layout.tensors.get(unit.results[0].name or "")
            for unit in layout.units.values()
            if unit.absorbed is not None and unit.absorbed.op_type == "Clip"
        }
        steps = {
            group: grid.step_for(*ends, inside=group in walled)
            for group, ends in ranges.items()
        }
        steps.update((group, grid.fixed_step(*ends)) for group, ends in layout.fixed.items())
        return steps

    def _weights(
        self,
        model: onnx_ir.Model,
        layout: Layout,
        stats: Mapping[str, TensorStats],
        steps: Mapping[int, Step],
        choice: Choice,
    ) -> dict[tuple[str, int], WholeWeight]:
        grid = weight_grid(self.scheme)
        nodes = {node.name or "": node for node in model.graph}
        biased = set(layout.biases)
        per_channel = "per-channel" in self.scheme.weights
        moments: Mapping[str, Moments] = {}
        if choice.rounding and grid.symmetric:
            moments = self._moments_of(model, stats, equalized=choice.equalize)
        weights: dict[tuple[str, int], WholeWeight] = {}
        for use in layout.weights:
            node = nodes[use.node]
            value = node.inputs[use.position]
            array = constant_array(value)
            assert array is not None
            assert value is not None
            axis = use.axis if per_channel else None
            floor = None
            # onnxruntime makes whole numbers of a float bias beside pairs as well
            whole = self.whole_biases or self.for_onnxruntime
            if use.position == 1 and (use.node, 2) in biased and whole:
                floor = _floor(layout.units[use.node], node, layout, steps, axis)
            key = (choice.equalize, choice.least_error, value.name, axis)
            weight = self._nearest.get(key)
            if weight is None:
                least = choice.least_error
                weight = quantize_weight(array, grid, axis, least_error=least)
                self._nearest[key] = weight
            if floor is not None and weight.is_below(floor):
                weight = quantize_weight(array, grid, axis, floor=floor)
            if choice.rounding and use.position == 1 and use.node in moments:
                weight = rounded_weight(
                    node, array, weight, grid, moments[use.node], centred=choice.correct
                )
            weights[use.node, use.position] = weight
        return weights

    def _moments_of(
        self, model: onnx_ir.Model, stats: Mapping[str, TensorStats], *, equalized: bool
    ) -> dict[str, Moments]:
        if equalized not in self._moments:
            samples = [one.inputs for one in self.observed.kept]
            names = [unit.node.name or "" for unit in self.layout(Choice()).compute]
            self._moments[equalized] = layer_moments(model, names, samples, stats)
        return self._moments[equalized]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a quantization decided, for looking into its layers.

    Attributes:
        trial: Makes graphs, with every sample counted as in the one that is shipped.
        before: The choice with every node in 8 bits that can be.
        after: The choice that was taken, with what a budget gave back to float.
    """

    trial: Trial
    before: Choice
    after: Choice


OnSettled = Callable[[Settled], None]


def _with_constants(unit: Unit, low: float, high: float) -> tuple[float, float]:
    """Widen a range by the constants that a kernel joins with what shares it."""
    arrays = [constant_array(unit.node.inputs[position]) for position in unit.constants]
    for array in arrays:
        if array is not None and array.size:
            low, high = min(low, float(array.min())), max(high, float(array.max()))
    return low, high


def _around(layout: Layout, tensors: set[str]) -> list[str]:
    """Give the nodes of kernels that read or make one of the tensors."""
    names: list[str] = []
    for unit in layout.units.values():
        values = (*(unit.node.inputs[p] for p in unit.reads), *unit.results)
        if any(value is not None and value.name in tensors for value in values):
            names.extend(unit.names)
    return names


def _restricted(layout: Layout, only: Collection[str] | None) -> Layout:
    """Leave only some kernels in a layout, with the tensors around them."""
    if only is None:
        return layout
    units = {name: unit for name, unit in layout.units.items() if name in only}
    around = {
        value.name
        for unit in units.values()
        for value in (*(unit.node.inputs[p] for p in unit.reads), *unit.results)
        if value is not None
    }
    return replace(
        layout,
        units=units,
        tensors={name: group for name, group in layout.tensors.items() if name in around},
        whole={name for name in layout.whole if name in around},
        weights=[use for use in layout.weights if use.node in units],
        biases=[each for each in layout.biases if each[0] in units],
    )


def _floor(
    unit: Unit,
    node: onnx_ir.Node,
    layout: Layout,
    steps: Mapping[int, Step],
    axis: int | None,
) -> np.ndarray | None:
    """Give the least scale per channel with which the bias of ``node`` fits into 32 bits."""
    bias = constant_array(node.inputs[2])
    source = unit.node.inputs[0]
    if bias is None or source is None or source.name not in layout.tensors:
        return None
    floor = bias_floor(bias, steps[layout.tensors[source.name]].scale)
    return floor if axis is not None else floor.max(keepdims=True)
