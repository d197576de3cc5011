"""Check one operator of a TFLite graph against what the compiler's rules say of it.

Each check gives the kind of the compiler's status and what was seen, or None. They run in the
order in which the compiler's log gives its reasons: rank, type, operator, the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor
from edgesdk.profiles.compiler_values import CompilerRules, OperatorLimits, StatusKind

__all__ = ["Objection", "object_to"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Why the compiler leaves an operator out: the kind of its status, and what was seen."""

    kind: StatusKind
    seen: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """An operator with what is needed to judge it."""

    graph: TfliteGraph
    op: TfliteOp
    rules: CompilerRules
    limits: OperatorLimits

    def input(self, position: int) -> TfliteTensor | None:
        """Give an input; None where it is left out."""
        if position >= len(self.op.inputs) or self.op.inputs[position] < 0:
            return None
        return self.graph.tensors[self.op.inputs[position]]

    def numbers(self, position: int | None) -> list[int] | None:
        """Give the whole numbers in a constant input; None where they are not known."""
        if position is None or (tensor := self.input(position)) is None:
            return None
        if tensor.dtype not in ("int32", "int64") or tensor.elements > 64:
            return None
        array = self.graph.array(tensor.index)
        return None if array is None else [int(one) for one in array.ravel()]

    def data_inputs(self) -> Iterator[TfliteTensor]:
        """Give the inputs that are known only when it runs."""
        for index in self.op.inputs:
            if index >= 0 and self.graph.tensors[index].constant is None:
                yield self.graph.tensors[index]

    def results(self) -> Iterator[TfliteTensor]:
        """Give the outputs."""
        for index in self.op.outputs:
            if index >= 0:
                yield self.graph.tensors[index]

    def is_batch(self, axis: int, rank: int) -> bool:
        """Say whether an axis lies before the inner ones."""
        axis = axis + rank if axis < 0 else axis
        return axis < rank - self.rules.inner_axes


def object_to(graph: TfliteGraph, op: TfliteOp, rules: CompilerRules) -> Objection | None:
    """Give the first objection to an operator, wherever in the graph it stands."""
    limits = None if op.is_custom else rules.operators.get(op.name)
    asked = _Asked(graph, op, rules, limits or OperatorLimits())
    early = _rank(asked) or _type(asked)
    if early is not None:
        return early
    if limits is None:
        return Objection(kind="operator", seen=op.name)
    for check in _CHECKS:
        if (objection := check(asked)) is not None:
            return objection
    return None


def _rank(asked: _Asked) -> Objection | None:
    inner = asked.rules.inner_axes
    for tensor in (*asked.data_inputs(), *asked.results()):
        outer = tensor.shape[: max(0, len(tensor.shape) - inner)]
        if any(extent > 1 for extent in outer):
            return Objection(kind="rank", seen=f"shape {list(tensor.shape)}")
    return None


def _type(asked: _Asked) -> Objection | None:
    allowed = asked.limits.types or asked.rules.types
    for tensor in (*asked.data_inputs(), *asked.results()):
        if tensor.dtype not in allowed:
            return Objection(kind=asked.limits.type_status, seen=tensor.dtype)
    return None


def _strides(asked: _Asked) -> Objection | None:
    strides = asked.numbers(asked.limits.unit_strides_input)
    if strides is not None and any(stride != 1 for stride in strides):
        return Objection(kind="strides", seen=f"strides {strides}")
    return None


def _resize(asked: _Asked) -> Objection | None:
    taken, given = asked.input(0), next(asked.results(), None)
    limits = asked.limits
    if limits.most_extent is None and limits.grows_from_one:
        return None
    if taken is None or given is None or len(taken.shape) != 4 or len(given.shape) != 4:
        return None
    before, after = taken.shape[1:3], given.shape[1:3]
    grows = any(one == 1 < other for one, other in zip(before, after, strict=True))
    too_large = limits.most_extent is not None and max(after) > limits.most_extent
    if too_large or (grows and not limits.grows_from_one):
        seen = f"{before[0]} x {before[1]} to {after[0]} x {after[1]}"
        return Objection(kind="precision", seen=seen)
    return None


def _activation(asked: _Asked) -> Objection | None:
    activation = asked.op.options.get("activation", "NONE")
    if asked.limits.activations and activation not in asked.limits.activations:
        return _limit(f"fused {activation}")
    return None


def _options(asked: _Asked) -> Objection | None:
    for key, values in asked.limits.options.items():
        if key in asked.op.options and asked.op.options[key] not in values:
            return _limit(f"{key} {asked.op.options[key]}")
    equal = {key: asked.op.options.get(key) for key in asked.limits.equal_options}
    if len(set(equal.values())) > 1:
        return _limit(", ".join(f"{key} {value}" for key, value in equal.items()))
    return None


def _constants(asked: _Asked) -> Objection | None:
    for position in asked.limits.constant_inputs:
        tensor = asked.input(position)
        if tensor is None:
            continue
        if tensor.constant is None:
            return _limit(f"input {position} is not known when it is compiled")
        if tensor.is_behind:
            return _limit(f"input {position} lies behind the tables, where it does not look")
    return None


def _axes(asked: _Asked) -> Objection | None:
    """Refuse what works along the batch, and what along a depth of an odd size."""
    limits = asked.limits
    axes = asked.numbers(limits.axes_input)
    if limits.axis_option is not None:
        axis = asked.op.options.get(limits.axis_option)
        axes = [axis] if isinstance(axis, int) else None
    # the axis of what is made counts where something is put together, else of what is read
    tensors = asked.results() if limits.axis_option else asked.data_inputs()
    tensor = next(iter(tensors), None)
    if axes is None or tensor is None:
        return None
    rank = len(tensor.shape)
    if any(not -rank <= axis < rank for axis in axes):
        return _limit(f"axes {axes} of shape {list(tensor.shape)}")
    if any(asked.is_batch(axis, rank) for axis in axes):
        return _limit("it works along the batch")
    reduced = {axis % rank for axis in axes} if rank else set()
    depth = tensor.shape[-1] if rank else 1
    if limits.depth_multiple and rank - 1 in reduced and depth % limits.depth_multiple:
        return _limit(f"depth {depth}, no multiple of {limits.depth_multiple}")
    elements = math.prod(tensor.shape[axis] for axis in reduced)
    if limits.most_reduced and elements > limits.most_reduced:
        return _limit(f"{elements} elements in one result, past {limits.most_reduced}")
    return None


def _pads(asked: _Asked) -> Objection | None:
    pads, tensor = asked.numbers(asked.limits.pads_input), asked.input(0)
    if pads is None or tensor is None:
        return None
    rank = len(tensor.shape)
    given = asked.input(asked.limits.pads_input or 0)
    if given is not None and given.dtype != "int32":
        return _limit(f"paddings of {given.dtype}, which it reads as int32")
    for axis in range(min(rank, len(pads) // 2)):
        if any(pads[2 * axis : 2 * axis + 2]) and asked.is_batch(axis, rank):
            return _limit("it pads the batch")
    return None


def _sizes(asked: _Asked) -> Objection | None:
    limits = asked.limits
    for tensor in asked.data_inputs():
        depth = tensor.shape[-1] if tensor.shape else 1
        if limits.most_depth and depth > limits.most_depth:
            return _limit(f"depth {depth}, past {limits.most_depth}")
    for tensor in asked.results():
        if limits.most_elements and tensor.elements > limits.most_elements:
            return _limit(f"{tensor.elements} elements, past {limits.most_elements}")
    return None


def _zeros(asked: _Asked) -> Objection | None:
    if not asked.limits.zero_constants:
        return None
    constants = [
        asked.graph.tensors[index]
        for index in asked.op.inputs
        if index >= 0 and asked.graph.tensors[index].constant is not None
    ]
    if not constants:
        return None
    if len(asked.op.inputs) != 2 or len(constants) != 1:
        return _limit(f"a constant among {len(asked.op.inputs)} inputs")
    array = asked.graph.array(constants[0].index)
    zero = constants[0].zero_points[0] if constants[0].zero_points else 0
    if array is None or (array != zero).any():
        return _limit("a constant input that is not zero")
    return None


def _flat(asked: _Asked) -> Objection | None:
    for position in asked.limits.flat_inputs:
        tensor = asked.input(position)
        if tensor is not None and any(extent > 1 for extent in tensor.shape[:-1]):
            return _limit(f"input {position} has the shape {list(tensor.shape)}")
    return None


def _groups(asked: _Asked) -> Objection | None:
    taken, kernel = asked.input(0), asked.input(1)
    if not asked.limits.ungrouped or taken is None or kernel is None:
        return None
    if taken.shape and kernel.shape and taken.shape[-1] != kernel.shape[-1]:
        return _limit(f"a kernel of depth {kernel.shape[-1]} on depth {taken.shape[-1]}")
    return None


def _limit(seen: str) -> Objection:
    return Objection(kind="limit", seen=seen)


_CHECKS: tuple[Callable[[_Asked], Objection | None], ...] = (
    _strides,
    _resize,
    _activation,
    _options,
    _constants,
    _axes,
    _pads,
    _sizes,
    _zeros,
    _flat,
    _groups,
)
