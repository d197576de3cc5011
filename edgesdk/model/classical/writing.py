"""Write tensor arithmetic in the place of one node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.graph_edit import Attribute, Names, constant_value, make_node

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "OLDEST_OPSET",
    "Lowered",
    "Writer",
    "class_labels",
    "float_array",
    "int_array",
    "strings",
    "text",
]

#: What stands for a node's outputs, by position; None where the node has to stay.
Lowered = dict[int, "ir.Value"] | None

#: From here on there are Where, IsNaN and Sign, and floats are compared for their order ...
OLDEST_OPSET = 9
#: ... and from here on for being equal.
_EQUAL_FLOATS = 11
#: Where axes became an input: of ReduceSum and of its like.
_AXES_INPUT = {"ReduceSum": 13, "Unsqueeze": 13}
_AXES_INPUT_OTHERS = 18


class Writer:
    """Collects the nodes and constants that a node becomes; nothing is in the graph yet.

    Args:
        node: The node; what is written is named after it.
        names: Names of the graph.
        opset: Version of ONNX's own operators.
    """

    def __init__(self, node: ir.Node, names: Names, opset: int) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []
        self._base = node.name or (node.outputs[0].name or node.op_type)
        self._names = names
        self._opset = opset

    def constant(self, array: np.ndarray, what: str) -> ir.Value:
        """Give a constant called after the node and ``what`` it is."""
        value = constant_value(self._names.fresh(f"{self._base}.{what}"), array)
        self.constants.append(value)
        return value

    def number(self, value: float, what: str) -> ir.Value:
        """Give a float32 scalar."""
        import numpy as np

        return self.constant(np.array(value, np.float32), what)

    def op(self, op: str, *inputs: ir.Value, **attributes: Attribute) -> ir.Value:
        """Write a node and give its result."""
        name = f"{self._base}.{op.lower()}"
        node = make_node(self._names, op, inputs, attributes, name=name)
        self.nodes.append(node)
        return node.outputs[0]

    def over(
        self, op: str, value: ir.Value, axes: tuple[int, ...], **attributes: Attribute
    ) -> ir.Value:
        """Write an operator whose axes are an attribute or an input, as the opset asks."""
        import numpy as np

        if self._opset < _AXES_INPUT.get(op, _AXES_INPUT_OTHERS):
            return self.op(op, value, axes=list(axes), **attributes)
        return self.op(op, value, self.constant(np.array(axes, np.int64), "axes"), **attributes)

    def cast(self, value: ir.Value, to: str) -> ir.Value:
        """Convert to a type of ONNX, such as ``FLOAT``."""
        import onnx_ir as ir

        return self.op("Cast", value, to=int(ir.DataType[to]))

    def as_float(self, value: ir.Value) -> ir.Value:
        """Convert to float32 where it is something else."""
        return (
            value
            if value.dtype is not None and value.dtype.name == "FLOAT"
            else self.cast(value, "FLOAT")
        )

    def is_zero(self, value: ir.Value) -> ir.Value:
        """Say which floats are 0."""
        if self._opset >= _EQUAL_FLOATS:
            return self.op("Equal", value, self.number(0, "zero"))
        return self.op("Not", self.cast(value, "BOOL"))

    def reshape(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Give another shape; 0 keeps an extent, -1 is what is left."""
        import numpy as np

        return self.op("Reshape", value, self.constant(np.array(shape, np.int64), "shape"))

    def labels(self, number: ir.Value, labels: np.ndarray) -> ir.Value:
        """Give the labels of class numbers, an int64 vector."""
        import numpy as np

        if np.array_equal(labels, np.arange(len(labels))):
            return number
        return self.op("Gather", self.constant(labels, "labels"), number, axis=0)


def float_array(node: ir.Node, name: str) -> np.ndarray:
    """Give a list of floats as the node has it; empty where it has none."""
    import numpy as np

    attribute = node.attributes.get(name)
    if attribute is None or attribute.type.name != "FLOATS":
        return np.zeros(0, np.float32)
    return np.asarray(attribute.as_floats(), np.float32)


def int_array(node: ir.Node, name: str) -> np.ndarray:
    """Give a list of whole numbers likewise."""
    import numpy as np

    attribute = node.attributes.get(name)
    if attribute is None or attribute.type.name != "INTS":
        return np.zeros(0, np.int64)
    return np.asarray(attribute.as_ints(), np.int64)


def class_labels(node: ir.Node) -> np.ndarray:
    """Give a classifier's labels; numbers in their place where they are words."""
    import numpy as np

    words = strings(node, "classlabels_strings")
    return np.arange(len(words)) if words else int_array(node, "classlabels_ints")


def text(node: ir.Node, name: str, otherwise: str) -> str:
    """Give a word."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type.name != "STRING":
        return otherwise
    return attribute.as_string()


def strings(node: ir.Node, name: str) -> tuple[str, ...]:
    """Give a list of words; empty where there is none."""
    attribute = node.attributes.get(name)
    if attribute is None or attribute.type.name != "STRINGS":
        return ()
    return tuple(attribute.as_strings())
