"""Graphs that no package ships as ONNX: EfficientNet-lite0 from its weights, an MNIST CNN.

The weights come in a PyTorch file; it is read here without PyTorch and without running what is
in it, by walking the opcodes of its pickles.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["efficientnet_lite0", "mnist_cnn", "read_torch_weights"]

#: Expansion, kernel, stride, channels, repeats of the seven stages of EfficientNet-lite0.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(slots=True)
class _Mark:
    pass


@dataclass(slots=True)
class _Walk:
    """The stack machine of a pickle, with nothing that it could call but these few shapes."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def cut(self) -> list[Any]:
        """Take everything above the last mark."""
        at = max(i for i, item in enumerate(self.stack) if isinstance(item, _Mark))
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def reduce(self) -> None:
        """Make of a known name and its arguments what it stands for."""
        arguments, called = self.stack.pop(), self.stack.pop()
        made: Any
        if called.name.endswith("OrderedDict"):
            made = {}
        elif called.name.endswith("_rebuild_tensor_v2"):
            made = _Tensor(arguments[0], arguments[1], arguments[2], arguments[3])
        else:
            raise ValueError(f"a weights file that calls {called.name}")
        self.stack.append(made)

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        stack = self.stack
        if name in ("MARK", "EMPTY_DICT", "EMPTY_TUPLE", "NONE", "NEWTRUE", "NEWFALSE"):
            fresh: dict[str, Any] = {"MARK": _Mark(), "EMPTY_DICT": {}, "EMPTY_TUPLE": ()}
            fresh |= {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
            stack.append(fresh[name])
        elif name in ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"):
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(_Global(argument.replace(" ", ".")))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("TUPLE", "LIST"):
            stack.append(tuple(self.cut()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "APPENDS":
            items = self.cut()
            stack[-1].extend(items)
        elif name == "SETITEMS":
            items = self.cut()
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            stack[-1][key] = value
        elif name == "BINPERSID":
            _, kind, key, *_ = stack.pop()
            stack.append(_Storage(key, kind.name.rsplit(".", 1)[-1]))
        elif name == "REDUCE":
            self.reduce()
        elif name == "BUILD":
            stack.pop()
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"a weights file with the opcode {name}")


def _read_pickle(file: BinaryIO) -> Any:
    walk = _Walk()
    for opcode, argument, _ in pickletools.genops(file):
        walk.step(opcode.name, argument)
    return walk.stack[-1]


def read_torch_weights(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict in PyTorch's format of before 1.6: pickles, then the raw storages."""
    dtypes = {"FloatStorage": "<f4", "LongStorage": "<i8"}
    with path.open("rb") as file:
        for _ in range(3):  # magic number, version, sizes of types
            _read_pickle(file)
        tensors: dict[str, _Tensor] = _read_pickle(file)
        kinds = {t.storage.key: dtypes[t.storage.kind] for t in tensors.values()}
        storages = {}
        for key in _read_pickle(file):
            (count,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(kinds[key])
            storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    weights = {}
    for name, tensor in tensors.items():
        flat = storages[tensor.storage.key][tensor.offset :]
        strides = [step * flat.itemsize for step in tensor.strides]
        weights[name] = np.lib.stride_tricks.as_strided(
            flat, tensor.shape, strides, writeable=False
        ).copy()
    return weights


class _Graph:
    """Nodes and weights as they are added; names follow the layers."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, name: str, inputs: Iterable[str], **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(op, list(inputs), [f"{name}_out"], name=name, **attributes)
        )
        return f"{name}_out"

    def conv(
        self, name: str, x: str, weight: np.ndarray, bias: np.ndarray, **attributes: Any
    ) -> str:
        names = (x, self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias))
        return self.node("Conv", name, names, kernel_shape=weight.shape[2:], **attributes)

    def model(self, x: list[Any], y: list[Any], *, name: str, out: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info(out, TensorProto.FLOAT, y)],
            self.weights,
        )
        graph.node[-1].output[0] = out
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def efficientnet_lite0(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Build the inference graph, normalization folded as an export of a trained network has it.

    Input ``input`` [N, 3, 224, 224], output ``logits`` [N, 1000]. Padding is TensorFlow's
    "same": more at the end where the stride is 2.
    """
    graph = _Graph()
    zero = graph.weight("zero", np.array(0, np.float32))
    six = graph.weight("six", np.array(6, np.float32))
    side = 224

    def layer(name: str, norm: str, x: str, *, stride: int, relu: bool) -> str:
        nonlocal side
        weight = weights[f"{name}.weight"]
        gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + 1e-3)
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
        kernel, out = weight.shape[-1], -(-side // stride)
        pad = max((out - 1) * stride + kernel - side, 0)
        before, after = pad // 2, pad - pad // 2
        y = graph.conv(
            name.strip("_").replace("._", "."),
            x,
            weight * gain[:, None, None, None],
            bias,
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=weight.shape[0] if "depthwise" in name else 1,
        )
        side = out
        return graph.node("Clip", y[: -len("_out")] + ".relu6", (y, zero, six)) if relu else y

    x = layer("_conv_stem", "_bn0", "input", stride=2, relu=True)
    block, width = 0, 32
    for expansion, _, first_stride, channels, repeats in _STAGES:
        for repeat in range(repeats):
            name, stride = f"_blocks.{block}.", first_stride if repeat == 0 else 1
            y = x
            if expansion > 1:
                y = layer(f"{name}_expand_conv", f"{name}_bn0", y, stride=1, relu=True)
            y = layer(f"{name}_depthwise_conv", f"{name}_bn1", y, stride=stride, relu=True)
            y = layer(f"{name}_project_conv", f"{name}_bn2", y, stride=1, relu=False)
            if stride == 1 and width == channels:
                y = graph.node("Add", f"blocks.{block}.add", (y, x))
            x, width, block = y, channels, block + 1
    x = layer("_conv_head", "_bn1", x, stride=1, relu=True)
    x = graph.node("GlobalAveragePool", "pool", (x,))
    x = graph.node("Flatten", "flatten", (x,))
    names = [graph.weight(f"fc.{end}", weights[f"_fc.{end}"]) for end in ("weight", "bias")]
    graph.node("Gemm", "fc", (x, *names), transB=1)
    return graph.model(["N", 3, 224, 224], ["N", 1000], name="efficientnet-lite0", out="logits")


def _windows(x: np.ndarray) -> np.ndarray:
    """Give the 3 x 3 windows at every second place, padded by 1: [N, H/2, W/2, C * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    view = view[:, :, ::2, ::2].transpose(0, 2, 3, 1, 4, 5)
    return np.ascontiguousarray(view).reshape(*view.shape[:3], -1)


def _unwindows(windows: np.ndarray, channels: int, side: int) -> np.ndarray:
    """Add the windows back where they came from: the gradient of `_windows`."""
    n, half = windows.shape[0], windows.shape[1]
    parts = windows.reshape(n, half, half, channels, 3, 3).transpose(0, 3, 4, 5, 1, 2)
    padded = np.zeros((n, channels, side + 2, side + 2), np.float32)
    for i in range(3):
        for j in range(3):
            padded[:, :, i : i + 2 * half : 2, j : j + 2 * half : 2] += parts[:, :, i, j]
    return padded[:, :, 1:-1, 1:-1]


def mnist_cnn(pictures: np.ndarray, classes: np.ndarray) -> onnx.ModelProto:
    """Train two strided convolutions and a dense layer by Adam, in numpy; half a minute.

    Input ``input`` [N, 1, 28, 28], output ``logits`` [N, 10].
    """
    dice = np.random.default_rng(0)
    shapes = {"w1": (16, 9), "w2": (32, 144), "w3": (10, 32 * 49)}
    p = {
        name: (dice.standard_normal(s) * np.sqrt(2 / s[1])).astype(np.float32)
        for name, s in shapes.items()
    }
    p |= {f"b{i}": np.zeros(len(p[f"w{i}"]), np.float32) for i in (1, 2, 3)}
    first = {name: np.zeros_like(value) for name, value in p.items()}
    second = {name: np.zeros_like(value) for name, value in p.items()}
    step = 0
    for epoch in range(12):
        order = dice.permutation(len(classes))
        for at in range(0, len(order), 64):
            rows = order[at : at + 64]
            n = len(rows)
            seen1 = _windows(pictures[rows])
            y1 = np.maximum(seen1 @ p["w1"].T + p["b1"], 0)
            seen2 = _windows(y1.transpose(0, 3, 1, 2))
            y2 = np.maximum(seen2 @ p["w2"].T + p["b2"], 0)
            flat = y2.transpose(0, 3, 1, 2).reshape(n, -1)
            logits = flat @ p["w3"].T + p["b3"]
            odds = np.exp(logits - logits.max(1, keepdims=True))
            error = odds / odds.sum(1, keepdims=True)
            error[np.arange(n), classes[rows]] -= 1
            error /= n
            g = {"w3": error.T @ flat, "b3": error.sum(0)}
            back = (error @ p["w3"]).reshape(n, 32, 7, 7).transpose(0, 2, 3, 1) * (y2 > 0)
            g["w2"] = np.tensordot(back, seen2, ((0, 1, 2), (0, 1, 2)))
            g["b2"] = back.sum((0, 1, 2))
            down = _unwindows(back @ p["w2"], 16, 14).transpose(0, 2, 3, 1) * (y1 > 0)
            g["w1"] = np.tensordot(down, seen1, ((0, 1, 2), (0, 1, 2)))
            g["b1"] = down.sum((0, 1, 2))
            step += 1
            rate = 2e-3 * 0.75**epoch
            for name, grad in g.items():
                first[name] += 0.1 * (grad - first[name])
                second[name] += 0.001 * (grad**2 - second[name])
                mean, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                p[name] -= rate * mean / (np.sqrt(spread) + 1e-8)
    graph, x = _Graph(), "input"
    for i, channels in ((1, 1), (2, 16)):
        weight = p[f"w{i}"].reshape(-1, channels, 3, 3)
        x = graph.conv(f"conv{i}", x, weight, p[f"b{i}"], strides=[2, 2], pads=[1, 1, 1, 1])
        x = graph.node("Relu", f"relu{i}", (x,))
    x = graph.node("Flatten", "flatten", (x,))
    names = (graph.weight("fc.weight", p["w3"]), graph.weight("fc.bias", p["b3"]))
    graph.node("Gemm", "fc", (x, *names), transB=1)
    return graph.model(["N", 1, 28, 28], ["N", 10], name="mnist-cnn", out="logits")
