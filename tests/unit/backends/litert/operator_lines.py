"""One small float graph for each operator of interest, with what its lowering promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from tests.unit.quantize.floats import samples
from tests.unit.quantize.modes import graph, normal

__all__ = ["LINES", "Line"]

IMAGE = "float[1, 4, 8, 8]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A float graph of one operator.

    Attributes:
        text: Its nodes; the last gives ``y``.
        inputs: Types by name, as ONNX's text form has them.
        constants: Initializers by name.
        opset: Of the graph.
        kind: Of the result.
        is_whole: LiteRT has a kernel for it, or for what it is made of, on 8-bit numbers.
        is_wide: Likewise on 16-bit numbers.
        spread: Inputs are normal numbers times this.
        flips: Share of whole results that may differ: where two scores fall on one step.
    """

    text: str
    inputs: Mapping[str, str] = field(default_factory=lambda: {"x": IMAGE})
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    opset: int = 17
    kind: str = "float"
    is_whole: bool = True
    is_wide: bool = False
    spread: float = 1.0
    flips: float = 0.0

    def model(self) -> ir.Model:
        """Give the graph."""
        given = ", ".join(f"{kind} {name}" for name, kind in self.inputs.items())
        header = f'<ir_version: 10, opset_import: ["" : {self.opset}]>'
        made = f"{self.kind}[] y"
        return graph(
            f"{header}\nline ({given}) => ({made}) {{ {self.text} }}", {**self.constants}
        )

    def samples(self, *, seed: int = 2) -> list[dict[str, np.ndarray]]:
        """Give four samples; those of another seed stay within the ranges of these."""
        found = samples(self.model(), 4, seed=seed)
        for sample in found:
            for name, array in sample.items():
                if array.dtype == np.float32:
                    sample[name] = np.clip(array, -2.5, 2.5).astype("f4") * np.float32(
                        self.spread
                    )
        return found


def _two(text: str, **more: object) -> Line:
    return Line(text=text, inputs={"x": IMAGE, "d": IMAGE}, **more)  # type: ignore[arg-type]


def _one(text: str, **more: object) -> Line:
    return Line(text=text, **more)  # type: ignore[arg-type]


def _rows(text: str, given: str = "float[3, 8]", **more: object) -> Line:
    return Line(text=text, inputs={"x": given}, **more)  # type: ignore[arg-type]


_KERNEL = {"w": normal(6, 4, 3, 3) / 6, "b": normal(6)}
_DEPTH = {"w": normal(4, 1, 3, 3) / 3, "b": normal(4)}
_LONG = {"w": normal(6, 4, 3) / 3, "b": normal(6)}
_UP = {"w": normal(4, 6, 2, 2) / 4, "b": normal(6)}
_RECURRENT = {
    "w": normal(1, 12, 5) / 2,
    "r": normal(1, 12, 3, seed=2) / 2,
    "b": normal(1, 24, seed=3) / 4,
}
_GATED = {
    "w": normal(1, 9, 5) / 2,
    "r": normal(1, 9, 3, seed=2) / 2,
    "b": normal(1, 18, seed=3) / 4,
}
_SEQUENCE = {"x": "float[7, 2, 5]"}


def _both_ways(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([one, -one]) for name, one in weights.items()}


COMPUTE = {
    "Conv": _one("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", constants=_KERNEL, is_wide=True),
    "Conv without a bias": _one("y = Conv (x, w)", constants={"w": _KERNEL["w"]}),
    "Conv, same": _one('y = Conv <auto_pad = "SAME_UPPER"> (x, w, b)', constants=_KERNEL),
    "Conv, same lower": _one(
        'y = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w, b)', constants=_KERNEL
    ),
    "Conv, strided": _one(
        "y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)", constants=_KERNEL
    ),
    "Conv, pads of one side": _one(
        "y = Conv <pads = [0, 2, 1, 0]> (x, w, b)", constants=_KERNEL
    ),
    "Conv, dilated": _one("y = Conv <dilations = [2, 2]> (x, w, b)", constants=_KERNEL),
    "Conv, pointwise": _one(
        "y = Conv (x, w, b)",
        constants={"w": normal(6, 4, 1, 1) / 2, "b": normal(6)},
        is_wide=True,
    ),
    "Conv, depthwise": _one(
        "y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w, b)", constants=_DEPTH, is_wide=True
    ),
    "Conv, depthwise with more channels": _one(
        "y = Conv <group = 4> (x, w, b)",
        constants={"w": normal(8, 1, 3, 3) / 3, "b": normal(8)},
    ),
    "Conv, grouped": _one(
        "y = Conv <group = 2> (x, w, b)",
        constants={"w": normal(6, 2, 3, 3) / 4, "b": normal(6)},
    ),
    "Conv of one dimension": Line(
        text="y = Conv <pads = [1, 1]> (x, w, b)",
        inputs={"x": "float[1, 4, 16]"},
        constants=_LONG,
    ),
    "ConvTranspose": _one("y = ConvTranspose <strides = [2, 2]> (x, w, b)", constants=_UP),
    "ConvTranspose, padded": _one(
        "y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b)",
        constants={"w": normal(4, 6, 4, 4) / 6, "b": normal(6)},
    ),
    "Gemm": _rows(
        "y = Gemm <transB = 1> (x, w, b)",
        constants={"w": normal(5, 8) / 3, "b": normal(5)},
        is_wide=True,
    ),
    "MatMul": _rows("y = MatMul (x, w)", constants={"w": normal(8, 5) / 3}, is_wide=True),
    "MatMul of rank 3": _rows(
        "y = MatMul (x, w)", "float[1, 6, 8]", constants={"w": normal(8, 5) / 3}
    ),
    "MatMul of two": Line(
        text="y = MatMul (x, d)",
        inputs={"x": "float[1, 2, 6, 8]", "d": "float[1, 2, 8, 5]"},
    ),
    "LSTM": Line(
        text="s, h, y = LSTM <hidden_size = 3> (x, w, r, b)",
        inputs=_SEQUENCE,
        constants=_RECURRENT,
        is_whole=False,
    ),
    "LSTM, both ways": Line(
        text='y = LSTM <hidden_size = 3, direction = "bidirectional"> (x, w, r, b)',
        inputs=_SEQUENCE,
        constants=_both_ways(_RECURRENT),
        is_whole=False,
    ),
    "GRU": Line(
        text="y = GRU <hidden_size = 3, linear_before_reset = 1> (x, w, r, b)",
        inputs=_SEQUENCE,
        constants=_GATED,
        is_whole=False,
    ),
    "GRU, backwards": Line(
        text='y = GRU <hidden_size = 3, direction = "reverse"> (x, w, r, b)',
        inputs=_SEQUENCE,
        constants=_GATED,
        is_whole=False,
    ),
}
ELEMENTWISE = {
    "Add": _two("y = Add (x, d)", is_wide=True),
    "Add, broadcast": Line(
        text="y = Add (x, d)", inputs={"x": IMAGE, "d": "float[1, 4, 1, 1]"}
    ),
    "Add of a constant": _one("y = Add (x, k)", constants={"k": normal(4, 1, 1)}),
    "Add of a number": _one("y = Add (x, k)", constants={"k": np.array(0.7, "f4")}),
    "Sub": _two("y = Sub (x, d)", is_wide=True),
    "Mul": _two("y = Mul (x, d)", is_wide=True),
    "Mul by a constant": _one("y = Mul (x, k)", constants={"k": normal(4, 1, 1)}),
    "Div": _one("y = Div (x, k)", constants={"k": np.array(3, "f4")}, is_whole=False),
    "Max": _two("y = Max (x, d)", is_wide=True),
    "Min": _two("y = Min (x, d)", is_wide=True),
    "Relu": _one("y = Relu (x)"),
    "Clip": _one(
        "y = Clip (x, low, high)",
        constants={"low": np.array(0, "f4"), "high": np.array(6, "f4")},
    ),
    "Clip to odd bounds": _one(
        "y = Clip (x, low, high)",
        constants={"low": np.array(-0.7, "f4"), "high": np.array(1.3, "f4")},
    ),
    "LeakyRelu": _one("y = LeakyRelu <alpha = 0.1> (x)", is_wide=True),
    "PRelu": _one("y = PRelu (x, k)", constants={"k": np.abs(normal(4, 1, 1)) / 4}),
    "Sigmoid": _one("y = Sigmoid (x)"),
    "Tanh": _one("y = Tanh (x)"),
    "HardSwish": _one("y = HardSwish (x)", spread=2.0),
    "HardSigmoid": _one("y = HardSigmoid <alpha = 0.2, beta = 0.5> (x)", is_whole=False),
    "Elu": _one("y = Elu (x)"),
    "Gelu": _one("y = Gelu (x)", opset=20),
    "Erf": _one("y = Erf (x)", is_whole=False),
    "Exp": _one("y = Exp (x)"),
    "Sqrt": _one("a = Abs (x)\n y = Sqrt (a)", is_whole=False),
    "Softplus": _one("y = Softplus (x)", is_whole=False),
    "Abs": _one("y = Abs (x)", is_whole=False),
    "Neg": _one("y = Neg (x)", is_whole=False),
    "Pow": _one("y = Pow (x, k)", constants={"k": np.array(2, "f4")}, is_whole=False),
    "Softmax": _rows("y = Softmax <axis = -1> (x)", is_wide=True),
    "Softmax over channels": _one("y = Softmax <axis = 1> (x)"),
    "LogSoftmax": _rows("y = LogSoftmax <axis = -1> (x)", is_whole=False),
    "BatchNormalization": _one(
        "y = BatchNormalization (x, k, k, k, k)",
        constants={"k": np.abs(normal(4)) + 0.5},
        is_whole=False,
    ),
    "LayerNormalization": _rows(
        "y = LayerNormalization (x, k, k)", constants={"k": normal(8)}, is_whole=False
    ),
}
MOVES = {
    "AveragePool": _one("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    "MaxPool": _one(
        "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)",
        is_wide=True,
    ),
    "GlobalAveragePool": _one("y = GlobalAveragePool (x)", is_wide=True),
    "GlobalMaxPool": _one("y = GlobalMaxPool (x)"),
    "Concat": _two("y = Concat <axis = 1> (x, d)", is_wide=True),
    "Flatten": _one("y = Flatten (x)"),
    "Reshape": _one(
        "y = Reshape (x, k)", constants={"k": np.array([1, 8, 4, 8])}, is_wide=True
    ),
    "Transpose": _one("y = Transpose <perm = [0, 3, 1, 2]> (x)", is_wide=True),
    "Squeeze": _rows("y = Squeeze (x, k)", "float[1, 5, 8]", constants={"k": np.array([0])}),
    "Unsqueeze": _rows("y = Unsqueeze (x, k)", constants={"k": np.array([1])}),
    "Slice": _one(
        "y = Slice (x, k, m)",
        constants={"k": np.array([0, 1, 2, 0]), "m": np.array([1, 3, 8, 8])},
    ),
    "Slice by steps": _one(
        "y = Slice (x, k, m, a, s)",
        constants={
            "k": np.array([-1, 0]),
            "m": np.array([-99, 99]),
            "a": np.array([2, 3]),
            "s": np.array([-1, 2]),
        },
    ),
    "Split": _one(
        "a, b = Split <axis = 1> (x, k)\n y = Sub (a, b)", constants={"k": np.array([2, 2])}
    ),
    "Pad": _one("y = Pad (x, k)", constants={"k": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
    "Pad by reflection": _one(
        'y = Pad <mode = "reflect"> (x, k)', constants={"k": np.array([0, 0, 1, 2, 0, 0, 2, 1])}
    ),
    "Gather": _one("y = Gather <axis = 1> (x, k)", constants={"k": np.array([2, 0, 3])}),
    "Gather of one": _one("y = Gather <axis = 2> (x, k)", constants={"k": np.array(3)}),
    "Resize, nearest": _one(
        'y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",'
        ' nearest_mode = "floor"> (x, , k)',
        constants={"k": np.array([1, 1, 2, 2], "f4")},
    ),
    "Resize, linear": _one(
        'y = Resize <mode = "linear"> (x, , k)', constants={"k": np.array([1, 1, 2, 2], "f4")}
    ),
    "Resize, linear by corners": _one(
        'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners">'
        " (x, , k)",
        constants={"k": np.array([1, 1, 2, 2], "f4")},
    ),
    "ReduceMean": _one("y = ReduceMean <axes = [2, 3]> (x)", is_wide=True),
    "ReduceMean over channels": _one("y = ReduceMean <axes = [1]> (x)"),
    "ReduceSum": _one("y = ReduceSum (x, k)", constants={"k": np.array([1])}),
    "ReduceMax": _one("y = ReduceMax <axes = [2, 3], keepdims = 0> (x)"),
    "ReduceMin": _one("y = ReduceMin <axes = [1]> (x)"),
    "ArgMax": _rows("y = ArgMax <axis = 1> (x)", "float[3, 8]", kind="int64", flips=0.1),
    "DepthToSpace": _one("y = DepthToSpace <blocksize = 2> (x)"),
    "DepthToSpace, columns first": _one('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)'),
    "SpaceToDepth": _one("y = SpaceToDepth <blocksize = 2> (x)"),
    "Tile": _one("y = Tile (x, k)", constants={"k": np.array([1, 1, 2, 1])}),
    "Expand": _rows(
        "y = Expand (x, k)",
        "float[1, 4, 1, 1]",
        constants={"k": np.array([1, 4, 8, 8])},
    ),
    "Where": Line(
        text="y = Where (m, x, d)",
        inputs={"x": IMAGE, "d": IMAGE},
        constants={"m": np.random.default_rng(1).random((1, 1, 8, 8)) > 0.5},
    ),
}
LINES: dict[str, Line] = {**COMPUTE, **ELEMENTWISE, **MOVES}
