"""Draw the TFLite graph that lowering would make of ONNX nodes, from their facts alone.

Compilers of accelerators that read TFLite files have rules about TFLite's operators. Before
there is a quantized graph to lower, a plan asks those rules about this drawing instead: one
operator for each node, the main one, with shapes in TFLite's order of axes and numbers of 8
bits. What a lowering adds where layouts or grids disagree is not in it; the file that is built
in the end is judged again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edgesdk.backends.litert.rules import tflite_ops
from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor
from edgesdk.model.values import NodeFacts
from edgesdk.tensors import TensorInfo

__all__ = ["Drawing", "draw"]

_FLOATS = ("float32", "float16", "bfloat16", "float64")
_CHANNELS_LAST = (0, 2, 3, 1)
#: Operators with the axes of a reduction as second input.
_REDUCTIONS = frozenset({"MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"})
#: Operators with a constant that the lowering makes, where TFLite has it.
_MADE = {
    "PAD": 1,
    "RESHAPE": 1,
    "RESIZE_BILINEAR": 1,
    "RESIZE_NEAREST_NEIGHBOR": 1,
    "SPLIT": 0,
    "TRANSPOSE": 1,
    "TRANSPOSE_CONV": 0,
}
#: By attribute of a node with a window, what TFLite's options call it.
_WINDOWS = {"strides": "stride", "dilations": "dilation", "kernel_shape": "filter"}
#: A constant that the lowering makes, whatever is in it.
_UNKNOWN = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A drawn graph.

    Attributes:
        graph: One operator for each node that becomes one, in the order of the nodes, behind
            the operators that quantize the inputs, and some that turn axes.
        nodes: By index of an operator, that of the node it stands for; those that quantize
            inputs or turn axes stand for none.
    """

    graph: TfliteGraph
    nodes: Mapping[int, int]


def draw(nodes: Sequence[NodeFacts], float_inputs: Collection[str]) -> Drawing:
    """Draw a graph.

    Args:
        nodes: Its nodes, in an order that works.
        float_inputs: Names of its inputs that come in float, and are quantized first.
    """
    page = _Page()
    by_name = {
        value.name: value
        for node in nodes
        for value in (*node.input_types, *node.output_types)
        if value is not None
    }
    for name in float_inputs:
        page.quantize(name, by_name.get(name))
    for node in nodes:
        page.add(node)
    graph = TfliteGraph(
        tensors=tuple(page.tensors),
        ops=tuple(page.ops),
        inputs=(),
        outputs=(),
        data=bytes(page.data),
    )
    return Drawing(graph=graph, nodes=page.nodes)


@dataclass(slots=True)
class _Page:
    tensors: list[TfliteTensor] = field(default_factory=list)
    ops: list[TfliteOp] = field(default_factory=list)
    nodes: dict[int, int] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    #: By name of a value: the tensor that is known only when it runs.
    made: dict[str, int] = field(default_factory=dict)

    def quantize(self, name: str, value: TensorInfo | None) -> None:
        given = self._tensor(name, _shape(value), "float32")
        self.made[name] = self._tensor(name, _shape(value), "int8")
        self._op("QUANTIZE", [given], [self.made[name]], {})

    def add(self, node: NodeFacts) -> None:
        names = tflite_ops(node)
        if not names:  # it moves nothing, or is known before the graph runs
            for out in node.outputs:
                if node.inputs and node.inputs[0] in self.made:
                    self.made[out] = self.made[node.inputs[0]]
            return
        name = names[0]
        dynamic, constants = [], []
        for position, given in enumerate(node.inputs):
            if not given:
                continue
            value = node.input_types[position] if position < len(node.input_types) else None
            flags = node.constant_inputs
            if (position < len(flags) and flags[position]) and given not in self.made:
                constants.append(self._constant_input(name, position, value))
            else:
                dynamic.append(self._read(name, node, given, value))
        inputs = self._arranged(name, node, dynamic, constants)
        outputs = [
            self._give(name, node, out, value)
            for out, value in zip(node.outputs, node.output_types, strict=True)
            if out
        ]
        self.nodes[len(self.ops)] = node.index
        self._op(name, inputs, outputs, _options(name, node))

    def _arranged(
        self, name: str, node: NodeFacts, dynamic: list[int], constants: list[int]
    ) -> list[int]:
        """Put inputs where TFLite has them."""
        if name in _REDUCTIONS:
            return [*dynamic[:1], self._axes(node)]
        if name == "FULLY_CONNECTED":  # what else comes in is added, or a state
            return [*dynamic[:1], *constants[:1]]
        if name in _MADE:
            kept = constants if name == "TRANSPOSE_CONV" else []
            inputs = [*kept[:1], *dynamic] if name == "TRANSPOSE_CONV" else dynamic[:]
            inputs.insert(_MADE[name], self._constant((1,), "int32", _UNKNOWN))
            return [*inputs, *kept[1:]]
        return [*dynamic, *constants]

    def _read(self, name: str, node: NodeFacts, given: str, value: TensorInfo | None) -> int:
        if given not in self.made:
            self.made[given] = self._tensor(given, _shape(value), _dtype(value))
        read = self.made[given]
        shape = _last_axis(node, value) if name == "SOFTMAX" else ()
        if shape and shape != self.tensors[read].shape:
            turned = self._tensor(given, shape, self.tensors[read].dtype)
            self._op("RESHAPE", [read], [turned], {})  # whatever turns it, as far as limits go
            return turned
        return read

    def _give(self, name: str, node: NodeFacts, out: str, value: TensorInfo | None) -> int:
        shape = _last_axis(node, value) if name == "SOFTMAX" else _shape(value)
        self.made[out] = self._tensor(out, shape, _dtype(value))
        return self.made[out]

    def _constant_input(self, name: str, position: int, value: TensorInfo | None) -> int:
        shape = () if value is None else _extents(value)
        if name == "DEPTHWISE_CONV_2D" and position == 1:  # or a number per channel
            shape = (1, *(shape[2:] if len(shape) == 4 else (1, 1)), *shape[:1])
        elif len(shape) == 4:
            shape = tuple(shape[axis] for axis in _CHANNELS_LAST)
        elif len(shape) == 3:  # beside an image: of its channels and of space
            shape = (*shape[1:], shape[0])
        dtype = "int32" if position == 2 and name.endswith(("CONV_2D", "CONNECTED")) else "int8"
        return self._constant(shape, dtype, _UNKNOWN)

    def _axes(self, node: NodeFacts) -> int:
        value = node.input_types[0] if node.input_types else None
        rank = 0 if value is None else len(value.shape)
        axes = node.ints.get("axes")
        if node.op.startswith("Global"):
            axes = tuple(range(2, rank))
        if axes is None or rank == 0 or any(not -rank <= axis < rank for axis in axes):
            return self._constant((1,), "int32", _UNKNOWN)
        order = _CHANNELS_LAST if rank == 4 else tuple(range(rank))
        start = len(self.data)
        for axis in sorted(order.index(axis % rank) for axis in axes):
            self.data += axis.to_bytes(4, "little")
        return self._constant((len(axes),), "int32", (start, 4 * len(axes)))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: str) -> int:
        self.tensors.append(
            TfliteTensor(
                index=len(self.tensors),
                name=name,
                dtype=dtype,
                shape=shape,
                shape_signature=shape,
            )
        )
        return len(self.tensors) - 1

    def _constant(self, shape: tuple[int, ...], dtype: str, place: tuple[int, int]) -> int:
        self.tensors.append(
            TfliteTensor(
                index=len(self.tensors),
                name="",
                dtype=dtype,
                shape=shape,
                shape_signature=shape,
                constant=place,
                is_sparse=place == _UNKNOWN,  # nothing can be read of it
            )
        )
        return len(self.tensors) - 1

    def _op(
        self, name: str, inputs: list[int], outputs: list[int], options: Mapping[str, int]
    ) -> None:
        self.ops.append(
            TfliteOp(
                index=len(self.ops),
                name=name,
                is_custom=False,
                version=1,
                inputs=tuple(inputs),
                outputs=tuple(outputs),
                options=dict(options),
            )
        )


def _options(name: str, node: NodeFacts) -> dict[str, int]:
    """Give what is known of a window: steps, gaps, a pool's sides; and where a resize looks."""
    options: dict[str, int] = {}
    if name.endswith(("CONV_2D", "CONV", "POOL_2D")):
        for key, stem in _WINDOWS.items():
            sides = node.ints.get(key, ())
            is_sides = key == "kernel_shape"
            if len(sides) == 2 and not (is_sides and not name.endswith("POOL_2D")):
                options |= {f"{stem}_h": sides[0], f"{stem}_w": sides[1]}
    if name.startswith("RESIZE_"):
        is_old = node.op == "Upsample" or node.since_version < 11
        default = "asymmetric" if is_old else "half_pixel"
        way = node.strings.get("coordinate_transformation_mode", default)
        options["align_corners"] = way == "align_corners"
        options["half_pixel_centers"] = way.endswith("half_pixel")
    return options


def _extents(value: TensorInfo) -> tuple[int, ...]:
    """Give a shape, extents that are open taken as 1."""
    return tuple(extent if isinstance(extent, int) else 1 for extent in value.shape)


def _shape(value: TensorInfo | None) -> tuple[int, ...]:
    if value is None:
        return ()
    shape = _extents(value)
    return tuple(shape[axis] for axis in _CHANNELS_LAST) if len(shape) == 4 else shape


def _last_axis(node: NodeFacts, value: TensorInfo | None) -> tuple[int, ...]:
    """Give a shape with the axis last that a softmax works along, as TFLite's does."""
    shape = () if value is None else _extents(value)
    axis = node.ints.get("axis", (-1 if node.since_version >= 13 else 1,))[0]
    if not -len(shape) <= axis < len(shape):
        return shape
    axis %= len(shape)
    return (*shape[:axis], *shape[axis + 1 :], shape[axis])


def _dtype(value: TensorInfo | None) -> str:
    if value is None or value.dtype in _FLOATS:
        return "int8"
    known = ("bool", "int8", "uint8", "int16", "int32", "int64")
    return value.dtype if value.dtype in known else "int64"
