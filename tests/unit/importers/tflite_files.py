"""Small TFLite files made by hand: one operator in float or on grids, and how it converts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgesdk.backends.litert.lower.graph import Graph, Grid, Options, Tensor
from edgesdk.backends.litert.lower.write import write_graph
from edgesdk.importers.tflite.prove import Proof, prove_tflite
from edgesdk.importers.tflite.walk import Converted, convert_tflite
from edgesdk.model.tflite import OpenedTflite, open_tflite

__all__ = ["Case", "Made", "Net", "Weights", "converted", "grid_over", "make", "opened"]

Mode = Literal["float32", "int8", "uint8", "int16"]


@dataclass(frozen=True)
class Weights:
    """A constant of real numbers; quantized where the file is, by channel along ``axis``."""

    array: np.ndarray
    axis: int | None = None


@dataclass(frozen=True)
class Case:
    """One operator.

    Attributes:
        code: Its name in TFLite's schema.
        inputs: A shape for what is given, ``Weights``, or an array that stays as it is.
        outs: Shapes of what it gives.
        options: Its options.
        span: Of the outputs' numbers where they are quantized; ``"same"`` for the grid of the
            first input, None where no kernel computes in integers.
        dtypes: Of the outputs, where they are not real numbers.
        given: Type of what is given, where it is not real numbers.
    """

    code: str
    inputs: tuple[tuple[int, ...] | Weights | np.ndarray, ...]
    outs: tuple[tuple[int, ...], ...]
    options: Options | None = None
    span: tuple[float, float] | Literal["same"] | None = None
    dtypes: tuple[str, ...] = ()
    given: str = ""


@dataclass(frozen=True)
class Made:
    """A file, what became of it, and how near that is."""

    opened: OpenedTflite
    converted: Converted
    proof: Proof

    @property
    def ops(self) -> list[str]:
        """The operators of the ONNX graph, in order."""
        return [node.op_type for node in self.converted.model.graph]


def grid_over(low: float, high: float, dtype: str) -> Grid:
    """Give the grid of a type that spans numbers and 0; around 0 for 16 bits."""
    low, high = min(low, 0.0), max(high, 0.0)
    limits = np.iinfo(dtype)
    if dtype == "int16":
        return Grid(dtype, (float(np.float32(max(-low, high) / limits.max)),), (0,))
    scale = float(np.float32((high - low) / 255))
    return Grid(dtype, (scale,), (round(int(limits.min) - low / scale),))


class Net:
    """A TFLite graph as a test writes it."""

    def __init__(self) -> None:
        self.graph = Graph()

    def given(
        self, shape: Sequence[int], dtype: str = "float32", grid: Grid | None = None
    ) -> Tensor:
        """Add an input."""
        name = f"in{len(self.graph.inputs)}"
        tensor = Tensor(name, dtype if grid is None else grid.dtype, tuple(shape), grid)
        self.graph.inputs.append(tensor)
        return tensor

    def fixed(self, array: np.ndarray, grid: Grid | None = None, name: str = "c") -> Tensor:
        """Add a constant, of integers where it has a grid."""
        return Tensor(name, array.dtype.name, array.shape, grid, np.asarray(array))

    def op(
        self,
        code: str,
        inputs: Sequence[Tensor | None],
        shape: Sequence[int],
        *,
        options: Options | None = None,
        dtype: str = "float32",
        grid: Grid | None = None,
    ) -> Tensor:
        """Add an operator of one output."""
        name = f"{code.lower()}{len(self.graph.ops)}"
        made = Tensor(name, dtype if grid is None else grid.dtype, tuple(shape), grid)
        self.graph.add(code, inputs, [made], options)
        return made

    def save(self, folder: Path, *outputs: Tensor, name: str = "net") -> Path:
        """Write the file."""
        self.graph.outputs = list(outputs)
        path = folder / f"{name}.tflite"
        path.write_bytes(write_graph(self.graph))
        return path


def opened(net: Net, folder: Path, *outputs: Tensor) -> OpenedTflite:
    """Write the file and open it."""
    return open_tflite(net.save(folder, *outputs))


def converted(file: OpenedTflite) -> Made:
    """Convert a file and hold it against LiteRT."""
    graph = convert_tflite(file)
    return Made(file, graph, prove_tflite(file.graph, graph))


def make(case: Case, folder: Path, mode: Mode = "float32", *, behind: bool = False) -> Made:
    """Write a case's file, convert it, and hold it against LiteRT.

    Args:
        case: What is in it.
        folder: Where the file goes.
        mode: What real numbers are stored as.
        behind: Put a 1 by 1 convolution in front of inputs of four axes, so that they come in
            ONNX's order of axes.
    """
    net = Net()
    whole = None if mode == "float32" else grid_over(-3.0, 3.0, mode)
    inputs = [_input(net, each, case, mode, whole, behind) for each in case.inputs]
    outs = []
    for number, shape in enumerate(case.outs):
        dtype = case.dtypes[number] if number < len(case.dtypes) else ""
        grid = None
        if not dtype and whole is not None:
            assert case.span is not None
            grid = whole if case.span == "same" else grid_over(*case.span, mode)
        stored = dtype or ("float32" if grid is None else grid.dtype)
        outs.append(Tensor(f"out{number}", stored, shape, grid))
    options = case.options
    if mode == "int16" and options is not None and case.code in ("ADD", "SUB"):
        options = options[0], {**options[1], "potScaleInt16": False}
    net.graph.add(case.code, inputs, outs, options)
    return converted(open_tflite(net.save(folder, *outs)))


def _input(
    net: Net,
    each: tuple[int, ...] | Weights | np.ndarray,
    case: Case,
    mode: Mode,
    whole: Grid | None,
    behind: bool,
) -> Tensor:
    if isinstance(each, np.ndarray):
        return net.fixed(each)
    if isinstance(each, Weights):
        return _weights(net, each, case, mode, whole)
    if case.given:
        return net.given(each, case.given)
    tensor = net.given(each, grid=whole)
    if behind and len(each) == 4 and whole is None:
        channels = each[3]
        random = np.random.default_rng(channels)
        kernel = random.normal(size=(channels, 1, 1, channels)).astype("f4")
        fields = {"strideH": 1, "strideW": 1}
        weights = [net.fixed(kernel), net.fixed(np.zeros(channels, "f4"))]
        tensor = net.op("CONV_2D", [tensor, *weights], each, options=("Conv2DOptions", fields))
    return tensor


def _weights(net: Net, each: Weights, case: Case, mode: Mode, whole: Grid | None) -> Tensor:
    array = each.array.astype("f4")
    if whole is None:
        return net.fixed(array)
    is_bias = array.ndim == 1 and case.code in _BIASED
    if is_bias:
        beside = next(e for e in case.inputs if isinstance(e, Weights))
        sums = np.array(_weight_grid(beside, mode).scales) * whole.scale
        dtype = "int64" if mode == "int16" else "int32"
        scales = tuple(float(np.float32(one)) for one in np.atleast_1d(sums))
        axis = 0 if len(scales) > 1 else None
        grid = Grid(dtype, scales, (0,) * len(scales), axis)
        return net.fixed(np.rint(array / sums).astype(dtype), grid)
    if case.code not in _BIASED:
        low, high = float(array.min()), float(array.max())
        grid = grid_over(low, high, mode)
        limits = np.iinfo(mode)
        steps = np.rint(array / grid.scale) + grid.zero_point
        return net.fixed(np.clip(steps, limits.min, limits.max).astype(mode), grid)
    grid = _weight_grid(each, mode)
    shape = [-1 if axis == grid.axis else 1 for axis in range(array.ndim)]
    scales_, zeros = (np.reshape(one, shape) for one in (grid.scales, grid.zero_points))
    limits = np.iinfo(grid.dtype)
    steps = np.clip(np.rint(array / scales_) + zeros, limits.min, limits.max)
    return net.fixed(steps.astype(grid.dtype), grid)


_BIASED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"}


def _weight_grid(each: Weights, mode: Mode) -> Grid:
    """Give the grid of weights: int8 around 0 by channel, in old files uint8 with a 0 point."""
    array = each.array
    if mode == "uint8":
        return grid_over(float(array.min()), float(array.max()), "uint8")
    if each.axis is None:
        return Grid("int8", (float(np.float32(np.abs(array).max() / 127)),), (0,))
    others = tuple(axis for axis in range(array.ndim) if axis != each.axis)
    scales = np.abs(array).max(axis=others).astype("f4") / np.float32(127)
    return Grid("int8", tuple(map(float, scales)), (0,) * scales.size, each.axis)
