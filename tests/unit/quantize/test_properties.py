"""Random small graphs under every scheme: each loads, runs, and errs no more than it may.

What it may is `tests.unit.quantize.bounds`: derived from the scales alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError
from edgesdk.profiles.values import QuantScheme
from edgesdk.quantize.compare import open_candidate
from edgesdk.quantize.prepare import prepare
from tests.unit.quantize.bounds import allowed_error
from tests.unit.quantize.floats import array_of, named, nodes, samples, shipped, static
from tests.unit.quantize.modes import normal, run

_INT8 = "int8-per-channel-symmetric"
SCHEMES = [
    ("onnxruntime-cpu", "uint8-asymmetric", _INT8),
    ("onnxruntime-cpu", "uint8-asymmetric", "int8-per-tensor-symmetric"),
    ("onnxruntime-cpu", "uint8-asymmetric", "uint8-per-tensor-asymmetric"),
    ("onnxruntime-cpu", "int8-asymmetric", _INT8),
    ("onnxruntime-cpu", "int8-symmetric", _INT8),
    ("openvino", "uint8-asymmetric", _INT8),
    ("tensorrt", "int8-symmetric", _INT8),
    ("litert-int8", "int8-asymmetric", _INT8),
    ("edgetpu", "int8-asymmetric", _INT8),
]
Shape = tuple[int, ...]


class _Growing:
    """A graph that grows at random ends; what it may do next depends on the shapes it has."""

    def __init__(self, draw: st.DrawFn, shape: Shape) -> None:
        self._draw = draw
        self._lines: list[str] = []
        self._input = shape
        self.tensors: list[tuple[str, Shape]] = [("x", shape)]
        self._read: set[str] = set()
        self.weights: dict[str, np.ndarray] = {}

    def choose(self, options: list[str]) -> str:
        return self._draw(st.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        return self._draw(st.integers(low, high))

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = normal(*shape, seed=self.number(0, 99)) * np.float32(scale)
        return name

    def add(self, op: str, inputs: list[str], shape: Shape) -> None:
        name = f"t{len(self.tensors)}"
        self._lines.append(f"{name} = {op} ({', '.join(inputs)})")
        self._read.update(inputs)
        self.tensors.append((name, shape))

    def grow(self) -> None:
        """Add an operator behind a tensor of the last few."""
        name, shape = self.tensors[-self.number(1, min(3, len(self.tensors)))]
        options = ["Relu", "Clip", "Sigmoid", "Softmax", "Add", "Mul", "Concat"]
        options += ["compute"] * 5
        options += {4: ["MaxPool", "Pool", "Reshape"], 3: ["Transpose", "square"]}.get(
            len(shape), ["Reshape"]
        )
        getattr(self, f"_{self.choose(options).lower()}")(name, shape)

    def _relu(self, name: str, shape: Shape) -> None:
        self.add("Relu", [name], shape)

    def _sigmoid(self, name: str, shape: Shape) -> None:
        self.add("Sigmoid", [name], shape)

    def _softmax(self, name: str, shape: Shape) -> None:
        self.add(f"Softmax <axis = {self.number(1, len(shape) - 1)}>", [name], shape)

    def _clip(self, name: str, shape: Shape) -> None:
        low = self.choose(["zero", "minus"])
        self.weights |= {
            "zero": np.zeros((), "f4"),
            "minus": np.array(-1, "f4"),
            "six": np.array(6, "f4"),
        }
        self.add("Clip", [name, low, "six"], shape)

    def _other(self, shape: Shape) -> str:
        """Give another tensor of the same shape, or a constant by channel or for all."""
        same = [each for each, its in self.tensors if its == shape]
        by_channel = [1] * len(shape)
        by_channel[1] = shape[1]
        kind = self.choose(["tensor", "tensor", "by channel", "scalar"])
        if kind == "tensor":
            return self.choose(same)
        return self.weight(*(by_channel if kind == "by channel" else ()))

    def _add(self, name: str, shape: Shape) -> None:
        self.add("Add", [name, self._other(shape)], shape)

    def _mul(self, name: str, shape: Shape) -> None:
        self.add("Mul", [name, self._other(shape)], shape)

    def _concat(self, name: str, shape: Shape) -> None:
        fits = [
            (each, its[1])
            for each, its in self.tensors
            if len(its) == len(shape) and its[2:] == shape[2:] and its[1] + shape[1] <= 24
        ]
        if not fits:
            return
        other, channels = self._draw(st.sampled_from(fits))
        whole = (shape[0], shape[1] + channels, *shape[2:])
        self.add("Concat <axis = 1>", [name, other], whole)

    def _maxpool(self, name: str, shape: Shape) -> None:
        if min(shape[2:]) < 2:
            return
        half = tuple(extent // 2 for extent in shape[2:])
        text = "MaxPool <kernel_shape = [2, 2], strides = [2, 2]>"
        self.add(text, [name], (*shape[:2], *half))

    def _pool(self, name: str, shape: Shape) -> None:
        self.add("GlobalAveragePool", [name], (*shape[:2], 1, 1))

    def _reshape(self, name: str, shape: Shape) -> None:
        size = int(np.prod(shape))
        if len(shape) == 2 and size % 2 == 0:
            after: Shape = (1, 2, size // 2)
        else:
            after = (1, size)
        key = "s" + "_".join(map(str, after))
        self.weights[key] = np.array(after)
        self.add("Reshape", [name, key], after)

    def _transpose(self, name: str, shape: Shape) -> None:
        self.add("Transpose <perm = [0, 2, 1]>", [name], (shape[0], shape[2], shape[1]))

    def _square(self, name: str, shape: Shape) -> None:
        self._transpose(name, shape)
        self.add("MatMul", [name, self.tensors[-1][0]], (1, shape[1], shape[1]))

    def _compute(self, name: str, shape: Shape) -> None:
        if len(shape) == 4:
            self._conv(name, shape)
            return
        wide, out = shape[-1], self.number(1, 8)
        scale = wide**-0.5
        after = (*shape[:-1], out)
        if len(shape) == 3 or self.choose(["Gemm", "MatMul"]) == "MatMul":
            self.add("MatMul", [name, self.weight(wide, out, scale=scale)], after)
            return
        turned = self.choose(["0", "1"])
        weight = self.weight(*((out, wide) if turned == "1" else (wide, out)), scale=scale)
        bias = [self.weight(out)] if self.number(0, 1) else []
        self.add(f"Gemm <transB = {turned}>", [name, weight, *bias], after)

    def _conv(self, name: str, shape: Shape) -> None:
        channels, side = shape[1], self.choose(["1", "3"])
        groups = channels if self.choose(["whole", "depthwise"]) == "depthwise" else 1
        out = channels if groups > 1 else self.number(1, 8)
        kernel = (int(side), int(side))
        fan_in = channels // groups * kernel[0] * kernel[1]
        weight = self.weight(out, channels // groups, *kernel, scale=fan_in**-0.5)
        bias = [self.weight(out)] if self.number(0, 1) else []
        pads = "[1, 1, 1, 1]" if side == "3" else "[0, 0, 0, 0]"
        text = f"Conv <group = {groups}, pads = {pads}>"
        self.add(text, [name, weight, *bias], (1, out, *shape[2:]))

    def model(self) -> ir.Model:
        """Give the graph: what nobody reads is an output, and now and then what is read."""
        ends = [
            (name, shape)
            for name, shape in self.tensors[1:]
            if name not in self._read or not self.number(0, 5)
        ]
        outputs = ", ".join(f"float[{', '.join(map(str, s))}] {name}" for name, s in ends)
        inputs = f"float[{', '.join(map(str, self._input))}] x"
        body = "\n".join(self._lines)
        return named(f"drawn ({inputs}) => ({outputs}) {{\n{body}\n}}", self.weights)


@st.composite
def models(draw: st.DrawFn) -> ir.Model:
    rank = draw(st.sampled_from([4, 4, 3, 2]))
    shape = (1, *draw(st.tuples(*[st.integers(2, 6)] * (rank - 1))))
    graph = _Growing(draw, shape)
    graph._compute("x", shape)
    for _ in range(draw(st.integers(1, 12))):
        graph.grow()
    return graph.model()


def _scheme(which: tuple[str, str, str]) -> QuantScheme:
    return shipped(*which)


def _check(model: ir.Model, scheme: QuantScheme) -> None:
    """Quantize, load, run; hold every output of every calibration sample to the bound."""
    data = samples(model, 3)
    try:
        whole = static(model, scheme, data).model
    except QuantizeError:
        if not scheme.activations.endswith("-symmetric"):
            raise
        reject()  # a Relu does not vanish there, so a graph may have nothing that fuses
    session, float_model = open_candidate(whole), prepare(model)
    for sample in data:
        wanted = run(model, **sample)
        got = session.run(sample)
        bound = allowed_error(whole, float_model, sample)
        for value, true in zip(model.graph.outputs, wanted, strict=True):
            name = value.name or ""
            away = np.abs(got[name].astype(np.float64) - true)
            over = (away - bound[name]).max()
            assert over <= 0, f"{name} is {over:.3g} beyond {bound[name].max():.3g}"


@pytest.mark.parametrize("which", SCHEMES, ids="-".join)
@settings(derandomize=True, deadline=None, max_examples=12, database=None)
@given(model=models())
def test_random_graphs_err_no_more_than_their_scales_allow(
    which: tuple[str, str, str], model: ir.Model
) -> None:
    _check(model, _scheme(which))


def test_the_bound_notices_a_weight_that_is_ten_steps_off() -> None:
    model = named(
        "g (float[1, 8] x) => (float[1, 4] y) { y = Gemm (x, w) }", {"w": normal(8, 4)}
    )
    data = samples(model, 3)
    whole = static(model, "onnxruntime-cpu", data).model
    for shift, kept in ((0, True), (10, False)):
        (stored,) = (
            node.inputs[0]
            for node in nodes(whole, "DequantizeLinear")
            if node.inputs[0] is not None and node.inputs[0].const_value is not None
        )
        assert stored is not None
        moved = np.clip(array_of(stored) + shift, -127, 127).astype(np.int8)
        stored.const_value = ir.tensor(moved, name=stored.name)
        held = []
        for sample in data:
            away = np.abs(run(whole, **sample)[0] - run(model, **sample)[0])
            held.append(bool((away <= allowed_error(whole, model, sample)["y"]).all()))
        assert all(held) == kept
