"""Go through an ONNX graph node by node and lower each; collect what cannot be lowered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgesdk.backends.base import NodesRefused
from edgesdk.backends.litert.lower.builder import Builder
from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Graph, Grid, Op, Tensor
from edgesdk.backends.litert.lower.pairs import (
    as_read,
    as_unsigned,
    constant_of,
    is_pair,
    read_grid,
    signed_steps,
)
from edgesdk.backends.litert.lower.registry import Entry, entry_of
from edgesdk.backends.litert.lower.sharing import keep_apart
from edgesdk.backends.litert.lower.site import Held, Site, bounds_of, fused_name
from edgesdk.backends.litert.lower.versions import version_of
from edgesdk.model.kernels import kernel_graph
from edgesdk.model.values import NodeFacts

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Walk", "lower_to_graph"]

#: How far grids are looked for behind a node.
_MOST_STEPS = 16
_DTYPES = {
    "FLOAT": "float32",
    "FLOAT16": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT16": "int16",
    "UINT16": "uint16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
#: Of one value. No board has memory for more, and neither may a model make us need it.
_MOST_EXTENT, _MOST_NUMBERS = 1 << 26, 1 << 28
#: What numpy and Python say where attributes, shapes and constants of a node do not fit.
_CONTRADICTIONS = (ArithmeticError, LookupError, TypeError, ValueError)
#: Integers that come into a graph quantized.
_PAIRED = ("int8", "uint8", "int16", "uint16")


def lower_to_graph(model: ir.Model, versions: Mapping[str, int] | None = None) -> Graph:
    """Lower every node of a model; ``versions`` as in `lower_graph`.

    Raises:
        NodesRefused: Some nodes have no form in TFLite.
    """
    return Walk(model, versions).run()


class Walk:
    """The lowering of one graph.

    Attributes:
        builder: Adds operators.
    """

    def __init__(self, model: ir.Model, versions: Mapping[str, int] | None = None) -> None:
        self._versions = versions
        self.model = model
        self.opset = int(model.opset_imports.get("", 0))
        self.builder = Builder(Graph(name=model.graph.name or "main"))
        self._held: dict[ir.Value, Held] = {}
        self._broken: dict[ir.Value, str] = {}
        self._absorbed: set[ir.Node] = set()
        self._closed: set[str] = set()
        self._refused: dict[str, str] = {}

    def run(self) -> Graph:
        """Lower all of it.

        Raises:
            NodesRefused: Some nodes have no form in TFLite.
        """
        graph = self.model.graph
        facts = kernel_graph(self.model).nodes
        for value in (*graph.inputs, *graph.outputs):
            self.builder.fresh(value.name or "")
        for value in graph.inputs:
            self._open(value)
        for index, node in enumerate(graph):
            if node in self._absorbed or node.op_type == "Constant":
                continue
            if is_pair(node):
                self._lower_pair(node)
            else:
                self._lower_node(node, facts[index])
        outputs = [self._close(value) for value in graph.outputs]
        if self._refused:
            raise NodesRefused(self._refused)
        self.builder.graph.outputs = [each for each in outputs if each is not None]
        self.builder.graph.prune()
        if self._versions is None:
            keep_apart(self.builder)
        return self.builder.graph

    # What lowerings ask for ------------------------------------------------------------------

    def held(self, value: ir.Value) -> Held:
        """Give a value as the graph has it.

        Raises:
            CannotLower: It has no form in TFLite.
        """
        if value in self._broken:
            raise CannotLower(self._broken[value])
        if value not in self._held:
            data = constant_of(value)
            if data is None:
                raise CannotLower(f"nothing makes its input {value.name!r}")
            if data.dtype.name not in _DTYPES.values():
                raise CannotLower(f"its constant {value.name!r} is {data.dtype.name}")
            if not data.size:
                raise CannotLower(f"nothing is in its constant {value.name!r}")
            tensor = self.builder.constant(data, value.name or "constant")
            self._held[value] = Held(tensor, tuple(range(data.ndim)))
        return self._held[value]

    def bind(self, value: ir.Value, held: Held) -> None:
        """Say where a value is."""
        self._held[value] = held

    def shape_of(self, value: ir.Value) -> tuple[int, ...]:
        """Give the shape that the graph states.

        Raises:
            CannotLower: It is not fixed, or nothing is in it.
        """
        if value.shape is None:
            raise CannotLower(f"the shape of {value.name!r} is not known")
        extents = []
        for extent in value.shape:
            if not isinstance(extent, int):
                raise CannotLower(f"the shape of {value.name!r} is not fixed")
            if not 0 < extent <= _MOST_EXTENT:
                raise CannotLower(f"an extent of {value.name!r} is {extent}")
            extents.append(extent)
        if math.prod(extents) > _MOST_NUMBERS:
            raise CannotLower(f"{value.name!r} has {math.prod(extents):,} numbers")
        return tuple(extents)

    def dtype_of(self, value: ir.Value) -> str:
        """Give the type that the graph states, halves as float32.

        Raises:
            CannotLower: It is not known, or TFLite has no kernels for it.
        """
        name = "" if value.dtype is None else value.dtype.name
        if name not in _DTYPES:
            raise CannotLower(f"{value.name!r} is {name.lower() or 'of an unknown type'}")
        return _DTYPES[name].replace("float16", "float32")

    def grid_after(self, value: ir.Value, steps: int = 0) -> Grid | None:
        """Give the grid that all who read a value put it on, if that is one of one scale."""
        if value.is_graph_output() or steps > _MOST_STEPS:
            return None
        found: Grid | None = None
        for node, position in value.uses():
            grid: Grid | None = None
            if node.op_type == "QuantizeLinear" and is_pair(node) and position == 0:
                try:
                    grid = read_grid(node)
                except CannotLower:
                    return None
            elif position == 0 and node.outputs:
                entry = entry_of(node.op_type, node.domain)
                if entry is not None and entry.keeps_grid:
                    grid = self._grid_after_all(node.outputs, steps + 1)
            if grid is None or grid.axis is not None or found not in (None, grid):
                return None
            found = grid
        return found

    def _grid_after_all(self, values: Sequence[ir.Value], steps: int) -> Grid | None:
        """Give the grid that all pieces of a value are put on; unread ones do not count."""
        read = [value for value in values if value.uses() or value.is_graph_output()]
        found = {self.grid_after(value, steps) for value in read}
        return next(iter(found)) if len(found) == 1 else None

    # Nodes -----------------------------------------------------------------------------------

    def _lower_node(self, node: ir.Node, facts: NodeFacts) -> None:
        try:
            entry = entry_of(node.op_type, node.domain)
            if entry is None:
                raise CannotLower(f"this version of edgesdk does not lower {node.op_type}")
            facts = as_read(facts, node)
            if (reason := entry.why_not(facts)) is not None:
                raise CannotLower(reason)
            site = self._lowered(entry, node, facts)
        except CannotLower as exc:
            self._refuse(node, str(exc))
            return
        except _CONTRADICTIONS as exc:
            self._refuse(node, f"what is stated of it contradicts itself: {exc}"[:400])
            return
        if site.absorbed is not None:
            self._absorbed.add(site.absorbed)

    def _lowered(self, entry: Entry, node: ir.Node, facts: NodeFacts) -> Site:
        """Lower a node; in float, where its kernel for integers is newer than the reader."""
        if self._versions is None:
            return self._lowered_once(entry, node, facts)
        late: str | None = None
        mark = self.builder.mark()
        for in_float in (False, True):
            self.builder.go_back(mark)
            site = self._lowered_once(entry, node, facts, in_float=in_float)
            late = _too_new(self.builder.graph.ops[mark.ops :], self._versions)
            if late is None:
                return site
        raise CannotLower(f"{late}, which is newer than what reads the file")

    def _lowered_once(
        self, entry: Entry, node: ir.Node, facts: NodeFacts, *, in_float: bool = False
    ) -> Site:
        site = Site(self, node, facts, in_float=in_float)
        if entry.fuses:
            self._absorb(site)
        entry.lower(site)
        return site

    def _absorb(self, site: Site) -> None:
        """Let a node compute the Relu or Clip behind it."""
        result = site.node.outputs[0]
        uses = result.uses()
        if len(uses) != 1 or result.is_graph_output():
            return
        node, position = next(iter(uses))
        if position != 0 or node.domain not in ("", "ai.onnx") or node.graph is None:
            return
        try:
            bounds = bounds_of(node)
        except CannotLower:
            return  # of the Clip, which says so itself
        activation = None if bounds is None else fused_name(*bounds)
        if activation is not None:
            site.activation, site.absorbed = activation, node

    def _lower_pair(self, node: ir.Node) -> None:
        if not node.outputs:
            return
        result = node.outputs[0]
        source = node.inputs[0] if node.inputs else None
        try:
            if source is None:
                raise CannotLower(f"{node.op_type} {node.name!r} has no input")
            if node.op_type == "QuantizeLinear":
                self._quantize(node, source, result)
            else:
                self._dequantize(node, source, result)
        except CannotLower as exc:
            self._broken[result] = str(exc)
        except _CONTRADICTIONS as exc:
            self._broken[result] = f"what is stated of its pair contradicts itself: {exc}"[:400]

    def _quantize(self, node: ir.Node, source: ir.Value, result: ir.Value) -> None:
        held, grid = self.held(source), read_grid(node)
        if grid.axis is not None:
            raise CannotLower(f"{source.name!r} is quantized with a scale per entry of an axis")
        tensor = self.builder.on_grid(held.tensor, grid)
        self.bind(result, Held(tensor, held.order, is_bare=True))

    def _dequantize(self, node: ir.Node, source: ir.Value, result: ir.Value) -> None:
        data = None if source in self._held else constant_of(source)
        if data is not None:
            self.bind(result, self._constant(node, source, data))
            return
        held, grid = self.held(source), read_grid(node)
        tensor = held.tensor
        if not held.is_bare:
            tensor = self._on_stated_grid(tensor, grid, source)
        if tensor.grid != grid:
            raise CannotLower(f"{source.name!r} is dequantized by another grid than its own")
        self.bind(result, Held(tensor, held.order))

    def _constant(self, node: ir.Node, source: ir.Value, data: np.ndarray) -> Held:
        order = tuple(range(data.ndim))
        name = source.name or "constant"
        if not data.size:
            raise CannotLower(f"nothing is in its constant {name!r}")
        if node.attributes.get("block_size") is not None or data.dtype.kind == "f":
            from edgesdk.backends.litert.lower.blocks import dequantized_constant

            return Held(self.builder.constant(dequantized_constant(node, data), name), order)
        grid = read_grid(node)
        if grid.axis is not None and data.shape[grid.axis : grid.axis + 1] != (
            len(grid.scales),
        ):
            raise CannotLower(f"{name!r} has other scales than entries along axis {grid.axis}")
        return Held(self.builder.constant(signed_steps(data), name, grid=grid), order)

    def _on_stated_grid(self, tensor: Tensor, grid: Grid, source: ir.Value) -> Tensor:
        """Read integers that come into the graph on the grid that the graph gives them."""
        given = as_unsigned(grid, tensor.dtype) if tensor.dtype in _PAIRED else None
        if given is None or given.dtype != tensor.dtype or tensor.maker is not None:
            raise CannotLower(f"{source.name!r} is dequantized from {tensor.dtype}")
        if grid.axis is not None:
            raise CannotLower(f"{source.name!r} has a scale per entry of an axis")
        if tensor.dtype == "uint16":
            raise CannotLower(f"{source.name!r} is uint16, which hardly a kernel takes")
        if source.is_graph_output() or any(
            node.op_type != "DequantizeLinear" for node, _ in source.uses()
        ):
            raise CannotLower(f"{source.name!r} is dequantized, and read as plain integers too")
        if tensor.grid is None:
            tensor.grid = given
        if tensor.grid != given:
            raise CannotLower(f"{source.name!r} is dequantized by two different grids")
        return self.builder.on_grid(tensor, grid)

    def _refuse(self, node: ir.Node, reason: str) -> None:
        """Remember why, and let the nodes behind it be looked at all the same."""
        name = next((value.name for value in node.outputs if value.name), "") or ""
        self._refused.setdefault(name, reason)
        for value in node.outputs:
            if not value.name:
                continue
            try:
                shape, dtype = self.shape_of(value), self.dtype_of(value)
            except CannotLower as exc:
                self._broken[value] = str(exc)
                continue
            grid = self.grid_after(value)
            tensor = Tensor(value.name, dtype if grid is None else grid.dtype, shape, grid)
            self.bind(value, Held(tensor, tuple(range(len(shape)))))

    # Ends ------------------------------------------------------------------------------------

    def _open(self, value: ir.Value) -> None:
        try:
            shape = self.shape_of(value)
            name = "" if value.dtype is None else value.dtype.name
            if name not in _DTYPES:
                raise CannotLower(f"{value.name!r} is {name.lower() or 'of an unknown type'}")
        except CannotLower as exc:
            self._broken[value] = str(exc)
            return
        tensor = Tensor(value.name or "", _DTYPES[name], shape)
        self.builder.graph.inputs.append(tensor)
        # few kernels take halves, so they become float32 where they come in
        read = self.builder.in_float(tensor)
        self.bind(value, Held(read, tuple(range(len(shape)))))

    def _close(self, value: ir.Value) -> Tensor | None:
        """Give an output of the graph as ONNX has it: its order, its type, its name."""
        try:
            held = self.held(value)
            order = tuple(held.order.index(axis) for axis in range(len(held.order)))
            tensor = self.builder.permuted(held.tensor, order)
            if not held.is_bare:
                tensor = self.builder.in_float(tensor)
            elif value.dtype is not None and tensor.grid is not None:
                grid = as_unsigned(tensor.grid, value.dtype.name.lower())
                tensor = self.builder.on_grid(tensor, grid)
            if value.dtype is not None and value.dtype.name == "FLOAT16":
                tensor = self.builder.cast(tensor, "float16")
        except (CannotLower, *_CONTRADICTIONS) as exc:
            self._blame(value, str(exc)[:400])
            return None
        taken = any(tensor is each for each in self.builder.graph.inputs)
        if tensor.data is not None or taken or tensor.name in self._closed:
            tensor = self.builder.copied(tensor)
        self.builder.rename(tensor, value.name or "")
        self._closed.add(tensor.name)
        return tensor

    def _blame(self, value: ir.Value, reason: str) -> None:
        """Name the node that makes an output which cannot be given."""
        made = value
        node = value.producer()
        while node is not None and is_pair(node) and node.inputs and node.inputs[0] is not None:
            made = node.inputs[0]
            node = made.producer()
        # between two ends of the graph there is nothing but the pair
        self._refused.setdefault((value if node is None else made).name or "", reason)


def _too_new(ops: Sequence[Op], versions: Mapping[str, int]) -> str | None:
    """Name the first operator that is newer than ``versions`` know, if there is one."""
    for op in ops:
        version = version_of(op)
        if version > versions.get(op.code, 0):
            return f"it takes {op.code} of version {version}"
    return None
