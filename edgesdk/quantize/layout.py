"""Where Q/DQ pairs go: which nodes compute in 8 bits, on which tensors, and who shares scales.

Made from the float graph and a scheme's rules, before any number is known. Nodes and tensors
are known by name, so one layout fits every clone of the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgesdk.model.nodes import is_constant, node_facts
from edgesdk.profiles.values import SchemeRules
from edgesdk.quantize.edit import group_of, is_transposed
from edgesdk.quantize.lonely import ALONE, Kernel, Role, find_lonely, only_a_part, roles_of
from edgesdk.quantize.operands import constant_array, why_not_operands
from edgesdk.quantize.scope import WEIGHT_INPUT, data_inputs, why_float

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["ALONE", "Layout", "Unit", "WeightUse", "constant_biases", "lay_out"]

_MIXED = "the tensors it joins have scales that are fixed to different values"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightUse:
    """A constant that a compute node multiplies with; ``axis`` None means one scale for all."""

    node: str
    position: int
    tensor: str
    axis: int | None


@dataclass(slots=True)
class Unit:
    """One kernel: a node, with the activation it absorbs.

    ``reads`` are the input positions that read 8-bit activations, ``constants`` those that read
    a constant as if it were one.
    """

    node: onnx_ir.Node
    role: Role
    absorbed: onnx_ir.Node | None = None
    reads: tuple[int, ...] = ()
    constants: tuple[int, ...] = ()

    @property
    def results(self) -> tuple[onnx_ir.Value, ...]:
        """What the kernel gives."""
        last = self.absorbed or self.node
        return tuple(value for value in last.outputs if value.name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its nodes."""
        nodes = (self.node,) if self.absorbed is None else (self.node, self.absorbed)
        return tuple(node.name or "" for node in nodes)


@dataclass(slots=True, kw_only=True)
class Layout:
    """The outcome.

    Attributes:
        units: Kernels of 8 bits, by the name of their node, in the order of the graph.
        left: Why a node stays in float, by its name.
        tensors: Group of every activation that gets a Q/DQ pair; a group shares one scale.
        whole: Tensors that an 8-bit kernel makes: all readers read the dequantized form.
        fixed: The interval of a group whose scale the rules fix.
        weights: Constants of compute nodes.
        biases: Node and position of constant biases to store as whole numbers.
    """

    units: dict[str, Unit] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, int] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    fixed: dict[int, tuple[float, float]] = field(default_factory=dict)
    weights: list[WeightUse] = field(default_factory=list)
    biases: list[tuple[str, int]] = field(default_factory=list)

    @property
    def node_names(self) -> set[str]:
        """The names of all nodes that 8-bit kernels take up."""
        return {name for unit in self.units.values() for name in unit.names}

    @property
    def compute(self) -> list[Unit]:
        """The kernels that multiply and accumulate."""
        return [unit for unit in self.units.values() if unit.role == "compute"]


def lay_out(
    model: onnx_ir.Model,
    rules: SchemeRules,
    *,
    keep_float: Collection[str] = (),
    kept: Mapping[str, str] | None = None,
) -> Layout:
    """Decide where Q/DQ pairs go.

    Args:
        model: A simplified float graph whose nodes and values have unique names.
        rules: What the kernels want.
        keep_float: Node names and operators that the recipe keeps in float.
        kept: More nodes to keep in float, with the reason: what measuring decided.
    """
    left, units = _candidates(model, rules, keep_float, kept or {})
    graph_inputs = {value.name or "" for value in model.graph.inputs}
    while True:
        # what was lonely stays so: there are only ever fewer kernels
        if rules.placement != "everything":
            for unit in _drop_lonely(units, graph_inputs):
                left.update(dict.fromkeys(unit.names, ALONE))
        layout = Layout(units={name: replace(unit) for name, unit in units.items()}, left=left)
        _choose_tensors(layout, model, rules)
        mixed = _group(layout, rules)
        if not mixed:
            break
        for name in mixed:
            left.update(dict.fromkeys(units.pop(name).names, _MIXED))
    order = {node.name or "": index for index, node in enumerate(model.graph)}
    layout.left = dict(sorted(layout.left.items(), key=lambda item: order.get(item[0], -1)))
    _choose_weights(layout, rules)
    layout.biases = constant_biases(model, layout)
    return layout


def constant_biases(model: onnx_ir.Model, layout: Layout) -> list[tuple[str, int]]:
    """Give node and position of every constant bias that a compute kernel of ``model`` adds."""
    found = []
    for node in model.graph:
        if node.name in layout.units and node.op_type in WEIGHT_INPUT and len(node.inputs) > 2:
            bias = constant_array(node.inputs[2])
            if bias is not None and bias.size:
                found.append((node.name or "", 2))
    return found


def _candidates(
    model: onnx_ir.Model,
    rules: SchemeRules,
    keep_float: Collection[str],
    kept: Mapping[str, str],
) -> tuple[dict[str, str], dict[str, Unit]]:
    left: dict[str, str] = {}
    roles = roles_of(rules)
    units: dict[str, Unit] = {}
    taken: set[str] = set()
    for node, facts in zip(model.graph, node_facts(model), strict=True):
        name = node.name or ""
        if name in taken:
            continue
        reason = kept.get(name) or why_float(facts, rules, keep_float) or why_not_operands(node)
        if reason is None and node.op_type not in roles:
            reason = only_a_part(node.op_type)
        if reason is not None:
            left[name] = reason
            continue
        unit = Unit(node, roles[node.op_type])
        positions = data_inputs(node.op_type, len(node.inputs))
        if node.op_type in WEIGHT_INPUT:
            positions = (0,)
        present = [p for p in positions if p < len(node.inputs) and node.inputs[p] is not None]
        constant = [p for p in present if is_constant(node.inputs[p])]
        unit.reads = tuple(p for p in present if p not in constant)
        if unit.role != "compute" or node.op_type == "MatMul":
            unit.constants = tuple(p for p in constant if unit.role != "compute" or p == 0)
        unit.absorbed = _absorbed(node, rules, keep_float, kept)
        if unit.absorbed is not None:
            taken.add(unit.absorbed.name or "")
        units[name] = unit
    return left, units


def _holds_zero(clip: onnx_ir.Node) -> bool:
    """Say whether a Clip has constant bounds around 0, which every grid stands for."""
    for bound, sign in zip(clip.inputs[1:3], (-1.0, 1.0), strict=False):
        array = constant_array(bound)
        if bound is not None and (array is None or (array * sign < 0).any()):
            return False
    return True


def _absorbed(
    node: onnx_ir.Node,
    rules: SchemeRules,
    keep_float: Collection[str],
    kept: Mapping[str, str],
) -> onnx_ir.Node | None:
    """Find the activation after ``node`` that its kernel absorbs."""
    wanted = rules.fused_after.get(node.op_type, ())
    result = node.outputs[0]
    uses = result.uses()
    if not wanted or len(uses) != 1 or result.is_graph_output():
        return None
    after, position = next(iter(uses))
    if position or after.domain or after.op_type not in wanted or after.graph is not node.graph:
        return None
    if {after.name, after.op_type} & set(keep_float) or after.name in kept:
        return None
    return None if after.op_type == "Clip" and not _holds_zero(after) else after


def _drop_lonely(units: dict[str, Unit], graph_inputs: Collection[str]) -> list[Unit]:
    """Drop and give kernels that only convert back and forth."""
    kernels = {}
    for name, unit in units.items():
        reads = (unit.node.inputs[position] for position in unit.reads)
        kernels[name] = Kernel(
            role=unit.role,
            reads=tuple(value.name or "" for value in reads if value is not None),
            results=tuple(value.name or "" for value in unit.results),
        )
    return [units.pop(name) for name in find_lonely(kernels, graph_inputs)]


def _choose_tensors(layout: Layout, model: onnx_ir.Model, rules: SchemeRules) -> None:
    """Choose the activations that get a Q/DQ pair, each a group of its own so far."""
    chosen: dict[str, None] = {}
    makers = {value.name for unit in layout.units.values() for value in unit.results}
    if rules.placement == "inputs":
        _spare_one_branch(layout)
    for unit in layout.units.values():
        for position in unit.reads:
            value = unit.node.inputs[position]
            assert value is not None
            chosen[value.name or ""] = None
    if rules.placement != "inputs":
        for unit in layout.units.values():
            may_be_float = unit.role == "compute" and unit.node.op_type in rules.float_results
            for value in unit.results:
                stays = may_be_float and value.name not in chosen
                if not stays or rules.placement == "everything":
                    chosen[value.name or ""] = None
        layout.whole = {name for name in chosen if name in makers}
    if rules.placement == "everything":
        float_inputs = (v.name for v in model.graph.inputs if v.name in chosen)
        layout.whole.update(name for name in float_inputs if name)
    order = _value_order(model)
    for index, name in enumerate(sorted(chosen, key=lambda name: order.get(name, -1))):
        layout.tensors[name] = index


def _value_order(model: onnx_ir.Model) -> dict[str, int]:
    names = [value.name or "" for value in model.graph.inputs]
    names += [value.name or "" for node in model.graph for value in node.outputs]
    return {name: index for index, name in enumerate(names)}


def _spare_one_branch(layout: Layout) -> None:
    """Leave the branch of an Add that a convolution makes as it is, so that both can fuse."""
    makers = {
        value.name: unit
        for unit in layout.units.values()
        if unit.role == "compute" and unit.absorbed is None
        for value in unit.results
    }
    for unit in layout.units.values():
        if unit.node.op_type != "Add" or len(unit.reads) < 2:
            continue
        for position in unit.reads:
            value = unit.node.inputs[position]
            if value is not None and value.name in makers and len(value.uses()) == 1:
                unit.reads = tuple(one for one in unit.reads if one != position)
                break


def _group(layout: Layout, rules: SchemeRules) -> list[str]:
    """Join tensors that share a scale; give units that would join different fixed scales."""
    parent = dict(layout.tensors)
    root = _Union(parent)
    joins = [unit for unit in layout.units.values() if unit.role == "same-scale"]
    followers: set[str | None] = set()
    with_constants: set[str] = set()
    for unit in joins:
        around = [*(unit.node.inputs[p] for p in unit.reads), *unit.results]
        names = [value.name or "" for value in around if value is not None]
        here = [name for name in names if name in layout.tensors]
        followers.update(value.name for value in unit.results)
        with_constants.update(here if unit.constants else ())
        for other in here[1:]:
            root.join(here[0], other)
    fixed: dict[str, tuple[float, float]] = {}
    for unit in layout.units.values():
        interval = rules.fixed_outputs.get((unit.absorbed or unit.node).op_type)
        if interval is not None:
            fixed.update({value.name or "": interval for value in unit.results})
    members: dict[str, list[str]] = {}
    for name in layout.tensors:
        members.setdefault(root.find(name), []).append(name)
    bad: set[str] = set()
    layout.fixed = {}
    for index, group in enumerate(members.values()):
        intervals = {fixed.get(name) for name in group if name not in followers}
        if not with_constants.isdisjoint(group):
            intervals.add(None)
        if len(intervals) > 1 and intervals != {None}:
            bad.update(group)
        for name in group:
            layout.tensors[name] = index
        known = intervals - {None}
        if known:
            interval = known.pop()
            assert interval is not None
            layout.fixed[index] = interval
    return [unit.node.name or "" for unit in joins if any(v.name in bad for v in unit.results)]


class _Union:
    """Sets of names that grow together."""

    def __init__(self, names: Iterable[str]) -> None:
        self._parent = {name: name for name in names}

    def find(self, name: str) -> str:
        """Give the name that stands for the set."""
        while self._parent[name] != name:
            self._parent[name] = self._parent[self._parent[name]]
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        """Make one set of two."""
        self._parent[self.find(other)] = self.find(one)


def _choose_weights(layout: Layout, rules: SchemeRules) -> None:
    for unit in layout.compute:
        node = unit.node
        value = node.inputs[1]
        array = constant_array(value)
        if array is None or value is None:
            continue
        axis = _channel_axis(node, array.ndim)
        if node.op_type in rules.per_tensor_weights:
            axis = None
        layout.weights.append(
            WeightUse(node=node.name or "", position=1, tensor=value.name or "", axis=axis)
        )


def _channel_axis(node: onnx_ir.Node, rank: int) -> int | None:
    """Give the axis of a weight that numbers the output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        # with groups no axis numbers them all
        return 1 if group_of(node) == 1 else None
    if node.op_type == "Gemm":
        return 0 if is_transposed(node) else 1
    return 1 if rank == 2 else None
