"""Cut a graph into the graphs of its parts, Q/DQ pairs kept on both sides of a cut.

What crosses a boundary is the quantized tensor where its reader dequantizes it: a quarter of
the bytes, and the same numbers on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.errors import BuildError
from edgesdk.model.kernels import KernelGraph
from edgesdk.model.nodes import tensor_info
from edgesdk.plan.placing import PlacedPart
from edgesdk.tensors import TensorInfo

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["CutPart", "cut_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPart:
    """One part's graph, with what goes in and out of it; no graph where a file is taken."""

    model: onnx_ir.Model | None
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


def cut_parts(
    model: onnx_ir.Model, kernels: KernelGraph, parts: Sequence[PlacedPart]
) -> tuple[CutPart, ...]:
    """Give the graph of each part; a single part is the whole graph.

    Raises:
        BuildError: A part cannot be cut out, which is a mistake of ours.
    """
    if len(parts) == 1:
        return (_described(model),)
    inputs = {value.name or "" for value in model.graph.inputs}
    takes = [_taken(kernels, part, inputs) for part in parts]
    gives = [_given(kernels, parts, takes, number) for number in range(len(parts))]
    return tuple(
        _cut(model, taken, given, number)
        for number, (taken, given) in enumerate(zip(takes, gives, strict=True))
    )


def _taken(kernels: KernelGraph, part: PlacedPart, inputs: set[str]) -> dict[str, str]:
    """Say, by what a part reads, which value of the graph comes in for it."""
    found: dict[str, str] = {}
    wanted = set(part.reads)
    for index in part.nodes:
        node = kernels.nodes[index]
        for name in (*node.inputs, *node.captures):
            if name not in wanted:
                continue
            carrier = kernels.crossings.get((index, name), name)
            # a graph input comes in as it is, and so does what is read both ways
            plain = name in inputs or found.get(name, carrier) != carrier
            found[name] = name if plain else carrier
    return found


def _given(
    kernels: KernelGraph,
    parts: Sequence[PlacedPart],
    takes: Sequence[Mapping[str, str]],
    number: int,
) -> tuple[str, ...]:
    """Name the values that a part gives to others, and the graph outputs it makes."""
    names: dict[str, None] = {}
    for made in parts[number].gives:
        for other, taken in enumerate(takes):
            if other != number and made in taken:
                names[taken[made]] = None
        for final in kernels.finals.get(made, ()):
            names[final] = None
    return tuple(names)


def _cut(
    model: onnx_ir.Model, taken: Mapping[str, str], given: Sequence[str], number: int
) -> CutPart:
    import onnx_ir as ir

    try:
        graph = ir.convenience.extract(
            model.graph, list(dict.fromkeys(taken.values())), list(given)
        )
    except ValueError as exc:
        raise BuildError(f"cannot cut part {number} out of the graph: {exc}") from exc
    graph.name = f"{model.graph.name or 'model'}-part-{number}"
    graph.opset_imports.update(model.graph.opset_imports)
    # they come in an order that differs from run to run, and the bytes must not
    values = dict(graph.initializers)
    graph.initializers.clear()
    for name in model.graph.initializers:
        if name in values:
            graph.initializers[name] = values.pop(name)
    graph.initializers.update(values)
    return _described(ir.Model(graph, ir_version=model.ir_version))


def _described(model: onnx_ir.Model) -> CutPart:
    return CutPart(
        model=model,
        inputs=tuple(tensor_info(value) for value in model.graph.inputs),
        outputs=tuple(tensor_info(value) for value in model.graph.outputs),
    )
