"""What the rest of an ONNX graph says of a name, and the tidying after a rewrite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

__all__ = ["GraphView", "prune", "reads", "tidy"]

_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))
_KEEPS_LENGTH = frozenset(("Transpose", "ReverseSequence", "Identity", "Cast"))
_OF_A_SHAPE = frozenset(
    (
        "Cast",
        "Slice",
        "Gather",
        "Squeeze",
        "Unsqueeze",
        "Reshape",
        "Identity",
        "ReduceMax",
        "Max",
    )
)
_OF_ZEROS = frozenset(
    ("Expand", "Unsqueeze", "Squeeze", "Reshape", "Cast", "Slice", "Identity", "Transpose")
)


class GraphView:
    """What the rest of the graph says of a name."""

    def __init__(self, model: Any) -> None:
        import onnx
        from onnx import numpy_helper

        inferred = onnx.shape_inference.infer_shapes(model)
        graph = model.graph
        self.model = model
        self.opset = next(one.version for one in model.opset_import if not one.domain)
        self.constants: dict[str, Array] = {
            one.name: numpy_helper.to_array(one) for one in graph.initializer
        }
        self.made = {name: node for node in graph.node for name in node.output if name}
        self.used = {*reads(graph), *(one.name for one in graph.output)} - {""}
        self.shapes: dict[str, list[int | None]] = {
            one.name: [
                extent.dim_value if extent.HasField("dim_value") else None
                for extent in one.type.tensor_type.shape.dim
            ]
            for one in (*graph.input, *inferred.graph.value_info, *graph.output)
            if one.type.tensor_type.HasField("shape")
        }
        self.shapes |= {name: list(value.shape) for name, value in self.constants.items()}

    def batch_of(self, sequence: str) -> int | None:
        """The batch of a ``[time, batch, in]`` value, where it is fixed."""
        shape = self.shapes.get(sequence, [])
        return shape[1] if len(shape) == 3 else None

    def is_of_shape(self, name: str, sequence: str) -> bool:
        """Whether a value is read off the shape of a sequence and nothing else."""
        sources = {sequence}
        at = sequence
        while at in self.made and self.made[at].op_type in _KEEPS_LENGTH:
            at = self.made[at].input[0]
            sources.add(at)
        waiting = [name]
        while waiting:
            one = waiting.pop()
            node = self.made.get(one)
            if not one or one in self.constants:
                continue
            if node is not None and node.op_type == "Shape" and node.input[0] in sources:
                continue
            if node is None or node.op_type not in _OF_A_SHAPE:
                return False
            waiting += node.input
        return name not in self.constants

    def is_zero(self, name: str) -> bool:
        """Whether a value is zeros, of whatever shape."""
        while name in self.made and self.made[name].op_type in _OF_ZEROS:
            name = self.made[name].input[0]
        value = self.constants.get(name)
        return value is not None and not value.any()


def tidy(model: Any) -> None:
    """Take away initial states of zeros, and read the last step from where it is given."""
    view = GraphView(model)
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type not in _RECURRENT:
            continue
        for at in (5, 6):
            if at < len(node.input) and node.input[at] and view.is_zero(node.input[at]):
                node.input[at] = ""
        while node.input and not node.input[-1]:
            node.input.pop()
        for squeeze in readers.get(node.output[0], []):
            for last in readers.get(squeeze.output[0], []):
                if squeeze.op_type == "Squeeze" and _takes_last(view, last):
                    _take(node, last)


def _takes_last(view: GraphView, node: Any) -> bool:
    """Whether a Slice takes the last of the steps, ``[1, batch, units]``."""
    if node.op_type != "Slice" or len(node.input) < 4:
        return False
    start, end, axis = (view.constants.get(one) for one in node.input[1:4])
    if start is None or end is None or axis is None:
        return False
    return (list(start), list(axis)) == ([-1], [0]) and int(end[0]) >= 2**31 - 1


def _take(node: Any, last: Any) -> None:
    """Let a Slice of the last step be the layer's own output of it: the shapes are the same."""
    while len(node.output) < 2:
        node.output.append("")
    if not node.output[1]:
        node.output[1] = f"{node.output[0]}/last"
    last.op_type = "Identity"
    del last.input[:], last.attribute[:]
    last.input.append(node.output[1])


def reads(graph: Any) -> Iterator[str]:
    """Every name that a node reads, in branches and loop bodies too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from reads(attribute.g)
                yield from (one.name for one in attribute.g.output)


def prune(model: Any) -> None:
    """Take out the nodes and constants that nothing reads any more."""
    graph = model.graph
    wanted = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):
        if (wanted & {*node.output}) - {""}:
            kept.append(node)
            wanted |= {*node.input}
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    wanted |= {*reads(attribute.g)} | {one.name for one in attribute.g.output}
    del graph.node[:]
    graph.node.extend(reversed(kept))
    held = [one for one in graph.initializer if one.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(held)
