"""Every operator that shipped rules name, between two that compute: it loads and stays near."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.profiles import load_scheme_rules
from tests.unit.quantize.floats import SHIPPED, named, nodes, reasons, samples, static
from tests.unit.quantize.modes import far, normal

IMAGE = (1, 4, 8, 8)
SAME = "<pads = [1, 1, 1, 1]>"
HALF = "<kernel_shape = [2, 2], strides = [2, 2]>"
#: The line of the operator, and the shape it gives.
LINES: dict[str, tuple[str, tuple[int, ...]]] = {
    "Add": ("m = Add (c, d)", IMAGE),
    "AveragePool": (f"m = AveragePool {HALF} (c)", (1, 4, 4, 4)),
    "Clip": ("m = Clip (c, low, high)", IMAGE),
    "Concat": ("m = Concat <axis = 1> (c, d)", (1, 8, 8, 8)),
    "DepthToSpace": ("m = DepthToSpace <blocksize = 2> (c)", (1, 1, 16, 16)),
    "Elu": ("m = Elu (c)", IMAGE),
    "Expand": ("m = Expand (p, whole)", IMAGE),
    "Flatten": ("m = Flatten <axis = 2> (c)", (4, 64)),
    "Gather": ("m = Gather <axis = 1> (c, order)", IMAGE),
    "GatherElements": ("m = GatherElements <axis = 1> (c, places)", (1, 2, 8, 8)),
    "GlobalAveragePool": ("m = GlobalAveragePool (c)", (1, 4, 1, 1)),
    "HardSwish": ("m = HardSwish (c)", IMAGE),
    "LeakyRelu": ("m = LeakyRelu (c)", IMAGE),
    "LogSoftmax": ("m = LogSoftmax <axis = 1> (c)", IMAGE),
    "LpNormalization": ("m = LpNormalization <axis = 1> (c)", IMAGE),
    "Max": ("m = Max (c, d)", IMAGE),
    "MaxPool": (f"m = MaxPool {HALF} (c)", (1, 4, 4, 4)),
    "Min": ("m = Min (c, d)", IMAGE),
    "Mul": ("m = Mul (c, d)", IMAGE),
    "PRelu": ("m = PRelu (c, slope)", IMAGE),
    "Pad": ("m = Pad (c, pads)", (1, 4, 10, 10)),
    "ReduceMax": ("m = ReduceMax <axes = [2, 3]> (c)", (1, 4, 1, 1)),
    "ReduceMean": ("m = ReduceMean <axes = [2, 3]> (c)", (1, 4, 1, 1)),
    "ReduceMin": ("m = ReduceMin <axes = [2, 3]> (c)", (1, 4, 1, 1)),
    "ReduceSum": ("m = ReduceSum (c, axes)", (1, 4, 1, 1)),
    "Relu": ("m = Relu (c)", IMAGE),
    "Reshape": ("m = Reshape (c, long)", (1, 4, 64, 1)),
    "Resize": ('m = Resize <mode = "nearest"> (c, , twice)', (1, 4, 16, 16)),
    "Sigmoid": ("m = Sigmoid (c)", IMAGE),
    "Slice": ("m = Slice (c, one, three, one)", (1, 2, 8, 8)),
    "Softmax": ("m = Softmax <axis = 1> (c)", IMAGE),
    "SpaceToDepth": ("m = SpaceToDepth <blocksize = 2> (c)", (1, 16, 4, 4)),
    "Split": ("m, rest = Split <axis = 1> (c, halves)", (1, 2, 8, 8)),
    "Squeeze": ("u = Unsqueeze (c, one)\n m = Squeeze (u, one)", IMAGE),
    "Sub": ("m = Sub (c, d)", IMAGE),
    "Tanh": ("m = Tanh (c)", IMAGE),
    "Tile": ("m = Tile (p, repeats)", IMAGE),
    "Transpose": ("m = Transpose <perm = [0, 1, 3, 2]> (c)", IMAGE),
    "Unsqueeze": ("u = Unsqueeze (c, one)\n m = Reshape (u, long)", (1, 4, 64, 1)),
    "Where": ("m = Where (mask, c, d)", IMAGE),
}
CONSTANTS = {
    "low": np.array(-1, "f4"),
    "high": np.array(2, "f4"),
    "whole": np.array(IMAGE),
    "order": np.array([2, 0, 3, 1]),
    "places": np.random.default_rng(1).integers(0, 4, (1, 2, 8, 8)),
    "slope": np.abs(normal(4, 1, 1)),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "axes": np.array([2, 3]),
    "long": np.array([1, 4, 64, 1]),
    "twice": np.array([1, 1, 2, 2], "f4"),
    "one": np.array([1]),
    "three": np.array([3]),
    "halves": np.array([2, 2]),
    "repeats": np.array([1, 1, 8, 8]),
    "mask": np.random.default_rng(1).random((1, 1, 8, 8)) > 0.5,
}
_RULES = {name: load_scheme_rules(name) for name in SHIPPED}
NAMED = sorted(
    (by, op)
    for by, rules in _RULES.items()
    for op in {
        *rules.elementwise,
        *rules.same_scale,
        *(op for ops in rules.fused_after.values() for op in ops),
    }
)


def _between(op: str) -> ir.Model:
    line, shape = LINES[op]
    channels = shape[1] if len(shape) == 4 else 0
    made = ", ".join(str(one) for one in (*shape[:1], 3, *shape[2:])) if channels else "4, 3"
    last = f"y = Conv {SAME} (m, v)" if channels else "y = MatMul (m, v)"
    # a part of a Split that nobody reads has no pair, and then no kernel
    more = ", float[1, 2, 8, 8] rest" if "m, rest" in line else ""
    text = f"""between (float[1, 4, 8, 8] x) => (float[{made}] y{more})
    {{ c = Conv {SAME} (x, w)
       d = Conv (x, t)
       p = GlobalAveragePool (c)
       {line}
       {last} }}"""
    weights = {
        "w": normal(4, 4, 3, 3) / 3,
        "t": normal(4, 4, 1, 1, seed=2),
        "v": normal(3, channels, 3, 3) / 3 if channels else normal(64, 3),
    }
    version = 13 if "axes = [2, 3]" in line else 14 if op != "HardSwish" else 17
    header = f'<ir_version: 8, opset_import: ["" : {version}]>\n'
    return named(header + text, weights | CONSTANTS)


def test_there_is_a_line_for_every_operator_that_rules_name() -> None:
    assert sorted({op for _, op in NAMED}) == sorted(LINES)


@pytest.mark.parametrize(("by", "op"), NAMED)
def test_an_operator_that_rules_name_stays_near_to_float(by: str, op: str) -> None:
    model = _between(op)
    done = static(model, by)
    for sample in samples(model):
        assert far(model, done.model, **sample) < 0.06
    assert "y" not in reasons(done)


@pytest.mark.parametrize(("by", "op"), NAMED)
def test_what_shares_a_scale_by_the_rules_reads_and_gives_it(by: str, op: str) -> None:
    if op not in _RULES[by].same_scale:
        return
    whole = static(_between(op), by).model
    scales = {
        node.inputs[1]
        for node in nodes(whole, "QuantizeLinear")
        if node.name in ("c.quantize", "m.quantize")
        and not (op in ("Expand", "Tile") and node.name == "c.quantize")
    }
    assert len(scales) == 1
