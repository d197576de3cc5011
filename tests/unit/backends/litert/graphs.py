"""Small graphs, in float and through Q/DQ pairs: LiteRT's answer beside onnxruntime's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from edgesdk.backends.litert.lower import lower_graph
from edgesdk.build.reference import TfliteOnHost
from edgesdk.model.save import save_model
from edgesdk.model.shapes import with_shapes
from edgesdk.model.tflite_graph import TfliteGraph, read_tflite_graphs
from edgesdk.profiles import find_target
from edgesdk.quantize.modes import Wanted, convert

__all__ = ["Answers", "build", "lowered", "quantize", "same_numbers", "with_pairs"]

#: Where LiteRT's kernels have a grid of their own.
_FIXED = {"Sigmoid": (0.0, 1.0), "Softmax": (0.0, 1.0), "Tanh": (-1.0, 1.0)}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What both runtimes gave, and the file.

    ``steps`` has the quantization step of each output that comes from a dequantizer.
    """

    graph: TfliteGraph
    model: ir.Model
    wanted: Arrays
    given: Arrays
    steps: dict[str, float]

    @property
    def ops(self) -> dict[str, int]:
        """How many operators of which kind the file has."""
        return dict(Counter(op.name for op in self.graph.ops))


def build(text: str, constants: Arrays | None = None, *, opset: int = 18) -> ir.Model:
    """Parse a graph in ONNX text form (without its header) and infer its shapes.

    Args:
        text: ``g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }``.
        constants: Initializers by name.
        opset: Of ONNX's operators.
    """
    header = f'<ir_version: 9, opset_import: ["" : {opset}]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for index, node in enumerate(proto.graph.node):
        node.name = node.name or f"n{index}"
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def samples_of(model: ir.Model, count: int = 16, *, seed: int = 0) -> list[Arrays]:
    """Make inputs: floats around 0, whole numbers 0 or 1."""
    random = np.random.default_rng(seed)
    samples = []
    for _ in range(count):
        sample = {}
        for value in model.graph.inputs:
            shape = [int(extent) for extent in value.shape or ()]
            assert value.dtype is not None
            kind = value.dtype.numpy()
            if kind.kind == "f":
                sample[value.name or ""] = random.normal(size=shape).astype(kind)
            elif kind.itemsize == 1 and kind.kind in "iu":
                low, high = np.iinfo(kind).min, np.iinfo(kind).max
                sample[value.name or ""] = random.integers(low, high + 1, shape).astype(kind)
            else:
                sample[value.name or ""] = random.integers(0, 2, shape).astype(kind)
        samples.append(sample)
    return samples


@cache
def _backend(kind: str) -> Any:
    target = find_target("generic-aarch64")
    return next(each for each in target.backends if each.kind == kind)


def quantize(
    model: ir.Model, precision: str = "int8", kind: str = "litert", **wanted: Any
) -> ir.Model:
    """Quantize a float graph by the scheme of a backend, on random samples."""
    backend = _backend(kind)
    done = convert(
        model,
        lambda: iter(samples_of(model)),
        Wanted(
            precision=precision,
            scheme=backend.scheme,
            precisions=backend.precisions,
            runtime=backend.runtime,
            kind=backend.kind,
            means=(),
            **wanted,
        ),
    )
    return with_shapes(done.model)


def with_pairs(model: ir.Model, dtype: str = "int8", *, bare: Sequence[str] = ()) -> ir.Model:
    """Put a Q/DQ pair on every float value, whatever makes it, by what samples show.

    Constants that Conv, Gemm and MatMul multiply with get int8 around 0 (of Conv by channel),
    their biases int32 on the grid of the sum; every other float constant an activation's grid.
    Values in ``bare`` get none.
    """
    graph = ir.to_proto(model).graph
    ranges = _ranges(model)
    before: list[onnx.NodeProto] = []
    nodes: list[onnx.NodeProto] = []
    names: dict[str, str] = {}
    scales: dict[str, np.ndarray] = {}
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}

    def pair(name: str, grid: tuple[np.ndarray, np.ndarray], axis: int | None = None) -> None:
        scales[name] = grid[0]
        _add(graph, f"{name}_s", np.asarray(grid[0], np.float32))
        _add(graph, f"{name}_z", grid[1])
        sides = [f"{name}_s", f"{name}_z"]
        place = {} if axis is None else {"axis": axis}
        where = before if name in constants else nodes
        source = name if name in constants else f"{name}_q"
        if name in constants:
            steps = _steps_of(constants[name], grid, axis)
            _add(graph, f"{name}_q", steps)
            source = f"{name}_q"
        else:
            made = name if name not in outputs else f"{name}_f"
            where.append(onnx.helper.make_node("QuantizeLinear", [made, *sides], [source]))
        given = name if name in outputs else f"{name}_d"
        names[name] = given
        make = onnx.helper.make_node
        where.append(make("DequantizeLinear", [source, *sides], [given], **place))

    outputs = {each.name for each in graph.output if each.name in ranges}
    for value in graph.input:
        if value.name in ranges:
            pair(value.name, _grid(*ranges[value.name], dtype))
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in names or name not in constants or constants[name].dtype != np.float32:
                continue
            data = constants[name]
            if node.op_type == "Clip":
                continue
            if node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose") and position == 1:
                axis = 0 if node.op_type == "Conv" else None
                rest = tuple(i for i in range(data.ndim) if i != axis)
                scale = np.abs(data).max(rest if axis is not None else None) / 127
                pair(name, (np.float32(scale), np.zeros(scale.shape, np.int8)), axis)
            elif node.op_type in ("Conv", "Gemm") and position == 2:
                scale = scales[node.input[0]] * scales[node.input[1]]
                zero = np.zeros(np.shape(scale), np.int32)
                pair(name, (np.float32(scale), zero), 0 if np.ndim(scale) else None)
            else:
                pair(name, _grid(float(data.min()), float(data.max()), dtype))
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        changed.input[:] = [names.get(name, name) for name in node.input]
        changed.output[:] = [f"{n}_f" if n in outputs else n for n in node.output]
        nodes.append(changed)
        for name in node.output:
            if name in ranges and name not in bare:
                pair(name, _grid(*ranges[name], dtype))
    for index, node in enumerate((*before, *nodes)):
        node.name = node.name or f"p{index}"
    del graph.node[:]
    graph.node.extend([*before, *nodes])
    del graph.value_info[:]
    opset = max(model.opset_imports[""], 21 if dtype == "int16" else 13)
    proto = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10
    )
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def _ranges(model: ir.Model) -> dict[str, tuple[float, float]]:
    """Measure every float value of a graph on samples."""
    proto = ir.to_proto(model)
    known = {each.name for each in proto.graph.output}
    for info in proto.graph.value_info:
        if info.name not in known and info.name not in {n.name for n in proto.graph.input}:
            proto.graph.output.append(info)
    session = _session(proto.SerializeToString(), exact=True)
    found: dict[str, tuple[float, float]] = {}
    fixed = {n.output[0]: _FIXED[n.op_type] for n in proto.graph.node if n.op_type in _FIXED}
    for sample in samples_of(model):
        values = {**sample, **dict(zip(*_run(session, sample), strict=True))}
        for name, value in values.items():
            if name in fixed:
                found[name] = fixed[name]
            elif value.dtype == np.float32:
                low, high = found.get(name, (0.0, 0.0))
                found[name] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def _grid(low: float, high: float, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    limits = np.iinfo(dtype)
    low, high = min(low, 0.0), max(high, low + 1e-3, 1e-3)
    if dtype == "int16":
        scale = max(-low, high) / limits.max
        return np.array(scale, np.float32), np.array(0, dtype)
    scale = (high - low) / 255
    zero = round(limits.min - low / scale)
    return np.array(scale, np.float32), np.array(zero, dtype)


def _steps_of(
    data: np.ndarray, grid: tuple[np.ndarray, np.ndarray], axis: int | None
) -> np.ndarray:
    scale, zero = (np.asarray(each) for each in grid)
    shape = [-1 if i == axis else 1 for i in range(data.ndim)] if scale.ndim else ()
    limits = np.iinfo(zero.dtype)
    steps = np.rint(data / scale.reshape(shape)) + zero.reshape(shape)
    return np.clip(steps, limits.min, limits.max).astype(zero.dtype)


def _add(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))


def _session(model: Path | bytes, *, exact: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if exact:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _run(
    session: onnxruntime.InferenceSession, sample: Arrays
) -> tuple[list[str], list[np.ndarray]]:
    names = [each.name for each in session.get_outputs()]
    return names, session.run(names, sample)


def lowered(model: ir.Model) -> TfliteGraph:
    """Lower a graph and read what came out."""
    return read_tflite_graphs(lower_graph(model))[0][0]


def same_numbers(
    model: ir.Model,
    folder: Path,
    *,
    seed: int = 7,
    bound: float = 1e-5,
    stepped: float = 1.0,
) -> Answers:
    """Run a graph in both runtimes, and hold the numbers against each other.

    Float outputs may differ by ``bound`` of the largest, outputs of a dequantizer by
    ``stepped`` steps on all but one element in two hundred (or one element, of few), raw 8-bit
    ones by 1.
    """
    data = lower_graph(model)
    path = folder / "lowered.tflite"
    path.write_bytes(data)
    sample = samples_of(model, 1, seed=seed)[0]
    reference = save_model(model, folder, "reference")[0]
    # onnxruntime's optimizer rounds int16 activations to 8 bits on their way into a product
    wide = any(value.dtype == ir.DataType.INT16 for value in model.graph.initializers.values())
    wanted = dict(zip(*_run(_session(reference, exact=wide), sample), strict=True))
    given = TfliteOnHost(path).run(sample)
    steps = _steps(model)
    answers = Answers(
        graph=read_tflite_graphs(data)[0][0],
        model=model,
        wanted=wanted,
        given=given,
        steps=steps,
    )
    assert set(given) == set(wanted)
    for name, value in wanted.items():
        other = given[name]
        assert other.shape == value.shape, name
        assert other.dtype == value.dtype, name
        apart = np.abs(other.astype(np.float64) - value.astype(np.float64))
        if value.dtype.kind == "f" and not steps.get(name):
            assert apart.max() <= bound * max(float(np.abs(value).max()), 1e-6), name
        else:
            step = steps.get(name) or float(value.dtype != bool and value.dtype.itemsize <= 2)
            assert (apart > step * stepped * 1.001).sum() <= max(
                apart.size // 200, apart.size > 1
            ), name
            assert apart.max() <= 2.001 * step * stepped, name
    return answers


def _steps(model: ir.Model) -> dict[str, float]:
    found = {}
    for value in model.graph.outputs:
        node = value.producer()
        if node is not None and node.op_type == "DequantizeLinear":
            scale = ir.convenience.get_const_tensor(node.inputs[1])  # type: ignore[arg-type]
            assert scale is not None
            found[value.name or ""] = float(scale.numpy().max())
    return found
