"""An operator of a TFLite graph with what its compiler asks of it, and what checks look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor
from edgesdk.profiles.constraint_values import Core, OperatorConstraints

__all__ = ["Asked", "Check"]


@dataclass(frozen=True, slots=True)
class Asked:
    """An operator with what is needed to judge it.

    ``is_drawn`` says that the graph was drawn before there is a quantized one, so that neither
    grids nor the content of constants are known; nothing is held against an operator for those.
    """

    graph: TfliteGraph
    op: TfliteOp
    core: Core
    limits: OperatorConstraints
    is_drawn: bool = False

    def input(self, position: int | None) -> TfliteTensor | None:
        """Give an input; None where it is left out."""
        if position is None or position >= len(self.op.inputs):
            return None
        index = self.op.inputs[position]
        return self.graph.tensors[index] if index >= 0 else None

    def given(self, position: int) -> TfliteTensor:
        """Give an input that the operator has been found to have."""
        tensor = self.input(position)
        assert tensor is not None
        return tensor

    def inputs(self) -> Iterator[TfliteTensor]:
        """Give the inputs that are not left out."""
        for index in self.op.inputs:
            if index >= 0:
                yield self.graph.tensors[index]

    def maps(self) -> Iterator[TfliteTensor]:
        """Give the inputs that are known only when it runs, but those nobody looks at."""
        for position, index in enumerate(self.op.inputs):
            if index >= 0 and position not in self.limits.unread:
                tensor = self.graph.tensors[index]
                if tensor.constant is None:
                    yield tensor

    def results(self) -> Iterator[TfliteTensor]:
        """Give the outputs."""
        for index in self.op.outputs:
            if index >= 0:
                yield self.graph.tensors[index]

    def main(self) -> TfliteTensor | None:
        """Give the first input that is known only when it runs, weights left aside."""
        for position, index in enumerate(self.op.inputs):
            skipped = position == self.limits.weights or position in self.limits.unread
            if index >= 0 and not skipped:
                tensor = self.graph.tensors[index]
                if tensor.constant is None:
                    return tensor
        return None

    def numbers(self, position: int) -> list[int] | None:
        """Give the whole numbers in a constant input; None where they are not known."""
        tensor = self.input(position)
        if tensor is None or tensor.elements > 64:
            return None
        if tensor.dtype not in ("int8", "int16", "int32", "int64"):
            return None
        array = self.graph.array(tensor.index)
        return None if array is None else [int(one) for one in array.ravel()]

    def option(self, name: str, default: int = 0) -> int:
        """Give an option that is a whole number."""
        value = self.op.options.get(name, default)
        return value if isinstance(value, int) else default

    def pair(self, stem: str, default: int = 1) -> tuple[int, int]:
        """Give an option along height and along width."""
        return self.option(f"{stem}_h", default), self.option(f"{stem}_w", default)


#: What is wrong with an operator, in words, or None.
Check = Callable[[Asked], "str | None"]
