"""Go through a TFLite graph operator by operator and make an ONNX graph of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.errors import ModelError
from edgesdk.importers.tflite.builder import Builder
from edgesdk.importers.tflite.held import CannotConvert, Grid, Held, content_of, grid_of
from edgesdk.importers.tflite.refusals import refusal_of
from edgesdk.importers.tflite.registry import conversion_of
from edgesdk.importers.tflite.site import Site
from edgesdk.model.tflite import OpenedTflite

if TYPE_CHECKING:
    import onnx_ir as ir

    from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor

__all__ = ["Converted", "Place", "Walk", "convert_tflite"]

#: Of ONNX's operators; what needs a later one raises it.
_OPSET = 18
_IR_VERSION = 8
#: From this version of the operators on files have a later version of the format.
_LATER = {19: 9, 21: 10}
_MOST_NAMED = 4
_ODD = "does the file run in LiteRT? if it does, please report it"
#: Values that one graph may hold in its activations; nothing real comes near.
_MOST_ELEMENTS = 1 << 28
#: What a file that contradicts itself may lead to, in more ways than are worth a check each.
_CONTRADICTIONS = (ArithmeticError, LookupError, TypeError, ValueError)


class _Behind(CannotConvert):
    """An operator is refused only because one in front of it is."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of the file is in the ONNX graph.

    ``value`` names it; its axis ``i`` is axis ``order[i]`` of the tensor. ``step`` is what
    neighbours on its grid are apart: 1 for integers, the scale for real numbers that were
    rounded, None for what was not. ``is_wide`` says that the grid has 16 bits.
    """

    value: str
    order: tuple[int, ...]
    step: float | None = None
    is_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An ONNX graph made of a TFLite file.

    Attributes:
        model: The graph, with its inputs and outputs as the file has them.
        places: By index of a tensor that an operator makes, where it is.
        outputs: Where each output is, in the file's order.
        rounds: Whether numbers are rounded to grids as the graph runs.
        hybrid: Operators that LiteRT computes with 8-bit weights and inputs it rounds to 8
            bits as it goes, which ONNX does in float.
        stateful: Operators that keep a state from one run to the next in LiteRT.
        notes: What the user should know.
    """

    model: ir.Model
    places: dict[int, Place]
    outputs: tuple[Place, ...] = ()
    rounds: bool = False
    hybrid: tuple[int, ...] = ()
    stateful: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def convert_tflite(opened: OpenedTflite, *, name: str = "") -> Converted:
    """Make an ONNX graph of a TFLite file; nothing is run.

    Float graphs become float graphs. What is quantized becomes Q/DQ pairs with the scales and
    zero points of the file, weights stay in their integers. Inputs and outputs keep their
    names, types and shapes.

    Args:
        opened: The file.
        name: What to call the graph; the file's name without one.

    Raises:
        ModelError: Operators that have no form in ONNX, each named with its position; or the
            file contradicts itself.
    """
    try:
        walk = Walk(opened.graph)
    except (CannotConvert, *_CONTRADICTIONS) as exc:
        raise _unlike(opened, exc) from exc
    refused: list[tuple[TfliteOp, CannotConvert]] = []
    for op in opened.graph.ops:
        reason = walk.convert(op)
        if reason is not None and not isinstance(reason, _Behind):
            refused.append((op, reason))
    if refused:
        raise _refusal(opened, refused)
    try:
        model = walk.finish(name or opened.source.name)
    except (CannotConvert, *_CONTRADICTIONS) as exc:
        raise _unlike(opened, exc) from exc
    return Converted(
        model=model,
        places=walk.places(),
        outputs=walk.ends(),
        rounds=any(node.op_type == "QuantizeLinear" for node in model.graph),
        hybrid=tuple(walk.hybrid),
        stateful=tuple(walk.stateful),
        notes=tuple(walk.told),
    )


def _unlike(opened: OpenedTflite, exc: Exception) -> ModelError:
    hint = exc.hint if isinstance(exc, CannotConvert) else _ODD
    return ModelError(
        f"cannot turn {opened.source.path} into ONNX: {str(exc)[:400]}", hint=hint
    )


def _refusal(opened: OpenedTflite, refused: list[tuple[TfliteOp, CannotConvert]]) -> ModelError:
    shown = [
        f"operator {op.index} ({op.name}): {reason}" for op, reason in refused[:_MOST_NAMED]
    ]
    if len(refused) > _MOST_NAMED:
        kinds = Counter(op.name for op, _ in refused[_MOST_NAMED:])
        more = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        shown.append(f"and {len(refused) - _MOST_NAMED} more: {more[:200]}")
    first, reason = refused[0]
    return ModelError(
        f"cannot turn {opened.source.path} into ONNX: {'; '.join(shown)}",
        hint=reason.hint or "give the model that the file was made from",
        operator=first.index,
        op=first.name,
        refused=len(refused),
    )


class Walk:
    """The graph that is made, and what has become of every tensor so far."""

    def __init__(self, graph: TfliteGraph) -> None:
        import onnx_ir as ir

        self.graph = graph
        self.builder = Builder(_OPSET)
        self.hybrid: list[int] = []
        self.stateful: list[int] = []
        self.told: dict[str, None] = {}
        self._failed: set[int] = set()
        self._named: set[int] = set()
        self._held: dict[int, Held] = {}
        self._inputs: list[ir.Value] = []
        self._ends = set(graph.outputs)
        names = [self._end_name(index, "input") for index in graph.inputs]
        for index, name in zip(graph.inputs, names, strict=True):
            tensor = graph.tensors[index]
            if math.prod(tensor.shape) > _MOST_ELEMENTS:
                raise CannotConvert(f"its input {name!r} has more than 2^28 numbers")
            value = ir.Value(
                name=name, type=ir.TensorType(_type_of(tensor)), shape=ir.Shape(tensor.shape)
            )
            self._inputs.append(value)
            grid = self.activation_grid(tensor)
            held = Held(tensor.shape, tuple(range(len(tensor.shape))), grid)
            if grid is None:
                held.real = value
            else:
                held.whole = value
            self._held[index] = held
        self._out_names = [self._end_name(index, "output") for index in graph.outputs]

    def note(self, text: str) -> None:
        """Keep something the user should know, once."""
        self.told[text] = None

    def activation_grid(self, tensor: TfliteTensor) -> Grid | None:
        """Give the grid of a tensor that is made as the graph runs.

        Raises:
            CannotConvert: It has a scale per channel.
        """
        grid = grid_of(tensor)
        if grid is not None and grid.dtype in ("int32", "int64"):
            return None
        if grid is not None and grid.axis is not None:
            raise CannotConvert(
                f"tensor {tensor.name!r} has a scale per channel, and no content"
            )
        return grid

    def held(self, index: int) -> Held:
        """Give what a tensor has become.

        Raises:
            CannotConvert: Nothing makes it, or its content is stored in a way we do not read.
        """
        if index in self._held:
            return self._held[index]
        tensor = self.graph.tensors[index]
        if index in self._failed:
            raise _Behind("it reads what another refused operator gives")
        if tensor.is_sparse:
            raise CannotConvert(
                f"its constant {tensor.name!r} is sparse",
                hint="convert to TFLite again without sparse weights",
            )
        data = content_of(self.graph, index)
        if data is None and tensor.constant is None and math.prod(tensor.shape) == 0:
            data = np.zeros(tensor.shape, tensor.dtype)
        if data is None:
            if tensor.constant is not None:
                raise CannotConvert(f"its constant {tensor.name!r} is of type {tensor.dtype}")
            raise CannotConvert(f"it reads tensor {tensor.name!r}, which nothing gives")
        held = Held(tensor.shape, tuple(range(len(tensor.shape))), grid_of(tensor), data=data)
        self._held[index] = held
        return held

    def bind(self, tensor: TfliteTensor, held: Held) -> None:
        """Say what a tensor has become."""
        self._held[tensor.index] = held
        value = held.whole if held.whole is not None else held.real
        if value is None or id(value) in self._named or not tensor.name:
            return
        self._named.add(id(value))
        if tensor.index not in self._ends and value.producer() is not None:
            value.name = self.builder.name(tensor.name)

    def convert(self, op: TfliteOp) -> CannotConvert | None:
        """Convert an operator; give why not if that fails."""
        self.builder.label = f"{op.name}_{op.index}"
        kept = len(self.builder.nodes), len(self.builder.initializers)
        try:
            convert = conversion_of(op.name)
            if op.is_custom or convert is None:
                raise refusal_of(op)
            for index in op.outputs:
                if index >= 0 and math.prod(self.graph.tensors[index].shape) > _MOST_ELEMENTS:
                    raise CannotConvert("its output has more than 2^28 numbers")
            convert(Site(self, op))
        except CannotConvert as exc:
            reason = exc
        except _CONTRADICTIONS as exc:
            reason = CannotConvert(
                f"its shapes and options contradict each other: {str(exc)[:200]}", hint=_ODD
            )
        else:
            return None
        del self.builder.nodes[kept[0] :]
        self._failed.update(index for index in op.outputs if index >= 0)
        return reason

    def finish(self, name: str) -> ir.Model:
        """Give the whole graph."""
        import onnx_ir as ir

        self.builder.label = "output"
        outputs = [
            self._output(self.graph.tensors[index], label)
            for index, label in zip(self.graph.outputs, self._out_names, strict=True)
        ]
        opset = self.builder.opset
        graph = ir.Graph(
            self._inputs,
            outputs,
            nodes=self.builder.nodes,
            initializers=self.builder.initializers,
            opset_imports={"": opset},
            name=name,
        )
        _drop_unused(graph)
        version = max([_IR_VERSION, *(ir_ for at, ir_ in _LATER.items() if opset >= at)])
        return ir.Model(graph, ir_version=version, producer_name="edgesdk")

    def places(self) -> dict[int, Place]:
        """Say, by index of a tensor that an operator makes, where it is in the graph."""
        made = {index for op in self.graph.ops for index in op.outputs if index >= 0}
        found = {}
        for index in made & set(self._held):
            held = self._held[index]
            is_whole = self.activation_grid(self.graph.tensors[index]) is not None
            value = held.whole if is_whole else held.real
            if value is not None and value.name and value.graph is not None:
                found[index] = self._place(index, value.name, held.order)
        return found

    def ends(self) -> tuple[Place, ...]:
        """Say where each output is."""
        return tuple(
            self._place(index, name, self._held[index].identity)
            for index, name in zip(self.graph.outputs, self._out_names, strict=True)
        )

    def _place(self, index: int, name: str, order: tuple[int, ...]) -> Place:
        grid = self._held[index].grid
        if grid is None:
            return Place(name, order)
        is_whole = self.activation_grid(self.graph.tensors[index]) is not None
        step = 1.0 if is_whole else max(grid.scales)
        return Place(name, order, step, is_wide=grid.dtype.endswith("16"))

    def _output(self, tensor: TfliteTensor, name: str) -> ir.Value:
        import onnx_ir as ir

        held = self.held(tensor.index)
        is_whole = self.activation_grid(tensor) is not None
        if is_whole and held.data is not None:
            value = self.builder.constant(held.data)
        elif is_whole:
            turned = self.builder.turned(held, held.identity)
            assert turned.whole is not None
            value = turned.whole
        else:
            value = self.builder.real(held)
        # an output is made by a node of its own: not given, fixed, or an output already
        if value.producer() is None or value.name in self._out_names:
            value = self.builder.one("Identity", [value])
        value.name = name
        value.type = ir.TensorType(_type_of(tensor))
        value.shape = ir.Shape(tensor.shape)
        return value

    def _end_name(self, index: int, kind: str) -> str:
        return self.builder.name(self.graph.tensors[index].name or f"{kind}_{index}")


def _type_of(tensor: TfliteTensor) -> ir.DataType:
    import onnx_ir as ir

    try:
        return ir.DataType.from_numpy(np.dtype(tensor.dtype))
    except TypeError as exc:
        raise CannotConvert(
            f"tensor {tensor.name!r} is of type {tensor.dtype}, which has no counterpart"
        ) from exc


def _drop_unused(graph: ir.Graph) -> None:
    """Take away nodes and constants that nothing reads."""
    ends = set(graph.outputs)
    for node in reversed(list(graph)):
        if not any(value in ends or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in ends:
            del graph.initializers[name]
