"""Loops of TensorFlow that are recurrent layers, written as ONNX' LSTM, GRU and RNN.

tf2onnx knows a few arrangements of a loop's body, none of which Keras 3 writes for a GRU. What
it leaves as a Loop runs, but only on runtimes with control flow, step by step, and no
accelerator takes it. `tensorflow_cells` says which layer a body computes; here the loop around
it is read (one sequence, taken step by step to its end, nothing else looked at) and replaced. A
loop that is anything more, one with a mask for instance, stays a Loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.importers.frameworks.tensorflow_cells import Cell, recognise
from edgesdk.importers.frameworks.tensorflow_graph import GraphView, prune, tidy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["write_layers"]


def write_layers(model: Any) -> int:
    """Replace the loops of an ONNX `ModelProto` that are recurrent layers; how many were."""
    view = GraphView(model)
    count = 0
    nodes = []
    for node in model.graph.node:
        loop = _read(view, node) if node.op_type == "Loop" else None
        cell = (
            None
            if loop is None
            else recognise(
                loop.step,
                loop.constants,
                states=len(loop.states),
                batch=view.batch_of(loop.sequence),
            )
        )
        if loop is None or cell is None or not _gives_hidden(loop, cell):
            nodes.append(node)
            continue
        nodes += _written(view, loop, cell)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    tidy(model)
    prune(model)
    return count


@dataclass(slots=True, kw_only=True)
class _Loop:
    """A loop that takes one sequence step by step.

    Attributes:
        sequence: The value it takes, ``[time, batch, in]``.
        states: Names before the first step.
        last: Names of the states after the last step.
        scans: For each thing that it collects, its name and which state it is.
    """

    node: Any
    sequence: str
    states: list[str]
    last: list[str]
    scans: list[tuple[str, int]]
    constants: list[Any]
    run: Any

    def step(self, x: Any, states: Sequence[Any]) -> Sequence[Any]:
        """The states after one step of the body."""
        names = self.run.input_names
        return list(self.run.run(None, dict(zip(names, (x, *states), strict=True))))


def _read(view: GraphView, node: Any) -> _Loop | None:
    """Read a Loop as one pass over a sequence; None where it is more than that."""
    body = next(one.g for one in node.attribute if one.name == "body")
    inside = _Body(view, node, body)
    sequence = inside.sequence()
    if sequence is None or not inside.states or not inside.passes_to_the_end(sequence):
        return None
    scans = []
    for index, name in enumerate(inside.collected):
        of = [at for at in inside.states if inside.root(inside.after[at]) == inside.root(name)]
        if not of:
            return None
        scans.append((node.output[len(inside.before) + index], inside.states.index(of[0])))
    kept = {*inside.states}
    if any(node.output[at] in view.used for at in range(len(inside.before)) if at not in kept):
        return None
    made = inside.step_model(inside.taken)
    if made is None:
        return None
    run, constants = made
    return _Loop(
        node=node,
        sequence=sequence,
        states=[node.input[2 + at] for at in inside.states],
        last=[node.output[at] for at in inside.states],
        scans=scans,
        constants=constants,
        run=run,
    )


class _Body:
    """The body of a Loop, and what its names stand for."""

    def __init__(self, view: GraphView, node: Any, body: Any) -> None:
        from onnx import TensorProto, numpy_helper

        self.view, self.node, self.body = view, node, body
        self.made = {name: one for one in body.node for name in one.output}
        self.local = {one.name: numpy_helper.to_array(one) for one in body.initializer}
        carried = list(node.input[2:])
        self.before = [one.name for one in body.input][2:]
        after = [one.name for one in body.output][1:]
        self.after, self.collected = after[: len(carried)], after[len(carried) :]
        self.outer: dict[str, str] = {}
        self.states: list[int] = []
        self.counters = {body.input[0].name}
        self.odd = False  # whether it carries something that is neither state nor counter
        for at, name in enumerate(self.before):
            if self.root(self.after[at]) == name:
                self.outer[name] = carried[at]
            elif body.input[2 + at].type.tensor_type.elem_type == TensorProto.FLOAT:
                self.states.append(at)
            elif self._counts(at, carried[at]):
                self.counters.add(name)
            else:
                self.odd = True
        self.taken = ""

    def root(self, name: str) -> str:
        """The value that a chain of Identity only hands on."""
        while name in self.made and self.made[name].op_type == "Identity":
            name = self.made[name].input[0]
        return name

    def constant(self, name: str) -> Array | None:
        """The value of a name that is the same in every step."""
        name = self.root(name)
        found = self.local.get(name)
        return (
            found if found is not None else self.view.constants.get(self.outer.get(name, name))
        )

    def _counts(self, at: int, start: str) -> bool:
        """Whether a carried number begins at 0 and grows by one."""
        node = self.made.get(self.root(self.after[at]))
        if node is None or node.op_type != "Add":
            return False
        others = [one for one in node.input if self.root(one) != self.before[at]]
        grown = self.constant(others[0]) if len(others) == 1 else None
        begun = self.view.constants.get(start)
        return grown is not None and begun is not None and grown.max() == 1 and begun.max() == 0

    def sequence(self) -> str | None:
        """The one outer value that each step takes its own slice of."""
        found = {}
        for node in self.body.node:
            if node.op_type != "Gather" or self.root(node.input[1]) not in self.counters:
                continue
            axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
            data = self.outer.get(self.root(node.input[0]), self.root(node.input[0]))
            if axis != 0 or data in self.made or data in self.before:
                return None
            found[node.output[0]] = data
        if len(found) != 1 or self.odd:
            return None
        ((self.taken, data),) = found.items()
        return data

    def passes_to_the_end(self, sequence: str) -> bool:
        """Whether the loop takes every step of the sequence, and stops there."""
        trips, start = self.node.input[0], self.node.input[1]
        length = (self.view.shapes.get(sequence) or [None])[0]
        count = self.view.constants.get(trips) if trips else None
        if count is not None:
            known = length is not None and int(count.max()) == length
        else:
            known = bool(trips) and self.view.is_of_shape(trips, sequence)
        return (
            known
            and (not start or self._holds(start, sequence, length, inside=False))
            and self._holds(self.body.output[0].name, sequence, length, inside=True)
        )

    def _holds(self, name: str, sequence: str, length: int | None, *, inside: bool) -> bool:
        """Whether a condition is true as long as the sequence has steps left."""
        made = self.made if inside else self.view.made
        waiting = [name]
        while waiting:
            one = waiting.pop()
            value = self.constant(one) if inside else self.view.constants.get(one)
            if value is not None:
                if not value.all():
                    return False
                continue
            node = made.get(one)
            if node is None:
                return False
            if node.op_type in ("And", "Identity") or (
                node.op_type == "Cast"
                and made.get(node.input[0]) is not None
                and made[node.input[0]].op_type in ("Less", "And")
            ):
                waiting += node.input
            elif (
                node.op_type != "Less"
                or not self._is_count(node.input[0], inside=inside)
                or not self._bounded(node.input[1], sequence, length, inside=inside)
            ):
                return False
        return True

    def _is_count(self, name: str, *, inside: bool) -> bool:
        """Whether a value is the number of steps taken: a counter, or its start outside."""
        made = self.made if inside else self.view.made
        while name in made and made[name].op_type in ("Cast", "Identity", "Add"):
            node = made[name]
            counted = [one for one in node.input if not inside or self.constant(one) is None]
            if len(counted) != 1:
                return False
            name = counted[0]
        if inside:
            return name in self.counters
        value = self.view.constants.get(name)
        return value is not None and not value.any()

    def _bounded(self, name: str, sequence: str, length: int | None, *, inside: bool) -> bool:
        """Whether a bound of the counter is the sequence's length or more."""
        made = self.made if inside else self.view.made
        while name in made and made[name].op_type in ("Cast", "Identity"):
            name = made[name].input[0]
        value = self.constant(name) if inside else self.view.constants.get(name)
        if value is not None:
            return length is not None and float(value.min()) >= length
        return self.view.is_of_shape(self.outer.get(name, name), sequence)

    def step_model(self, taken: str) -> tuple[Any, list[Any]] | None:
        """What runs one step, and the float constants in it."""
        import numpy as np
        import onnx
        from onnx import TensorProto, helper, numpy_helper
        from onnx.reference import ReferenceEvaluator

        inputs = [taken, *(self.before[at] for at in self.states)]
        outputs = [self.after[at] for at in self.states]
        needed: set[str] = set()
        constants: dict[str, Any] = {}
        waiting = list(outputs)
        while waiting:
            name = waiting.pop()
            if not name or name in inputs or name in constants or name in needed:
                continue
            value = self.constant(name)
            if value is not None:
                constants[name] = value
                continue
            node = self.made.get(name)
            if node is None or any(one.HasField("g") for one in node.attribute):
                return None
            needed.update(node.output)
            waiting += node.input
        nodes = [one for one in self.body.node if needed & {*one.output}]
        graph = helper.make_graph(
            nodes,
            "step",
            [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in inputs],
            [helper.make_tensor_value_info(one, TensorProto.FLOAT, None) for one in outputs],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        made = helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", self.view.opset)]
        )
        floats = [one for one in constants.values() if one.dtype == np.float32 and one.ndim]
        return ReferenceEvaluator(made), floats


def _gives_hidden(loop: _Loop, cell: Cell) -> bool:
    """Whether what the loop collects is the hidden state, the one the operator gives."""
    return all(state == cell.states[0] for _, state in loop.scans)


def _written(view: GraphView, loop: _Loop, cell: Cell) -> list[Any]:
    """The nodes in place of a loop; their weights go into the graph."""
    import numpy as np
    from onnx import helper, numpy_helper

    name = loop.node.name or loop.node.output[0]
    weights = {"W": cell.w, "R": cell.r, "B": cell.b}
    axes = {"first": np.array([0], np.int64), "second": np.array([1], np.int64)}
    for key, value in (weights | axes).items():
        view.model.graph.initializer.append(numpy_helper.from_array(value, f"{name}/{key}"))
    nodes, starts = [], []
    for at in cell.states:
        starts.append(f"{name}/initial_{at}")
        nodes.append(
            helper.make_node("Unsqueeze", [loop.states[at], f"{name}/first"], [starts[-1]])
        )
    attributes: dict[str, Any] = {"hidden_size": cell.units}
    if cell.activations not in (("Sigmoid", "Tanh"), ("Sigmoid", "Tanh", "Tanh"), ("Tanh",)):
        attributes["activations"] = list(cell.activations)
        if cell.alphas:
            attributes |= {
                "activation_alpha": list(cell.alphas),
                "activation_beta": list(cell.betas),
            }
    if cell.kind == "GRU":
        attributes["linear_before_reset"] = cell.linear_before_reset
    ends = [f"{name}/last_{at}" for at in cell.states]
    inputs = [loop.sequence, *(f"{name}/{key}" for key in weights), "", *starts]
    outputs = [f"{name}/all", *ends]
    nodes.append(helper.make_node(cell.kind, inputs, outputs, name=name, **attributes))
    for given, _ in loop.scans:
        nodes.append(helper.make_node("Squeeze", [outputs[0], f"{name}/second"], [given]))
    for at, end in zip(cell.states, ends, strict=True):
        nodes.append(helper.make_node("Squeeze", [end, f"{name}/first"], [loop.last[at]]))
    return nodes
