"""Loops that are recurrent layers become LSTM, GRU and RNN, and give the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesdk.importers.frameworks.tensorflow_cells import recognise
from edgesdk.importers.frameworks.tensorflow_loops import write_layers

TIME, BATCH, WIDTH, UNITS = 5, 2, 3, 4
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL

# Bodies as text: x and the states in, the states out. Gates stand beside each other in W and R.
GRU_AFTER = """
    xw = MatMul (x, W)
    xb = Add (xw, b0)
    hr = MatMul (h, R)
    hb = Add (hr, b1)
    xz, xr, xn = Split <axis = 1, num_outputs = 3> (xb)
    hz, hq, hn = Split <axis = 1, num_outputs = 3> (hb)
    za = Add (xz, hz)
    z = Sigmoid (za)
    ra = Add (xr, hq)
    r = Sigmoid (ra)
    rh = Mul (r, hn)
    na = Add (xn, rh)
    n = Tanh (na)
    keep = Mul (z, h)
    rest = Sub (one, z)
    put = Mul (rest, n)
    h_next = Add (keep, put)
"""
GRU_BEFORE = """
    xw = MatMul (x, W)
    xb = Add (xw, b0)
    xz, xr, xn = Split <axis = 1, num_outputs = 3> (xb)
    rz, rq, rn = Split <axis = 1, num_outputs = 3> (R)
    hz = MatMul (h, rz)
    hq = MatMul (h, rq)
    za = Add (hz, xz)
    z = Sigmoid (za)
    ra = Add (xr, hq)
    r = Sigmoid (ra)
    rh = Mul (r, h)
    hn = MatMul (rh, rn)
    na = Add (xn, hn)
    n = Tanh (na)
    keep = Mul (z, h)
    rest = Sub (one, z)
    put = Mul (rest, n)
    h_next = Add (keep, put)
"""
LSTM = """
    hr = MatMul (h, R)
    xw = Gemm (x, W, b0)
    both = Add (xw, hr)
    ia, fa, ga, oa = Split <axis = 1, num_outputs = 4> (both)
    i = Sigmoid (ia)
    f = Sigmoid (fa)
    g = Tanh (ga)
    o = Sigmoid (oa)
    kept = Mul (f, c)
    put = Mul (i, g)
    c_next = Add (kept, put)
    t = Tanh (c_next)
    h_next = Mul (o, t)
"""
RNN = """
    xw = MatMul (x, W)
    hr = MatMul (h, R)
    both = Add (xw, hr)
    all = Add (both, b0)
    h_next = {squash} (all)
"""
HARD = GRU_AFTER.replace("Sigmoid (", "HardSigmoid <alpha = 0.1666667, beta = 0.5> (")


def parsed(body: str) -> list[onnx.NodeProto]:
    text = f'<ir_version: 8, opset_import: ["": 18]>\ng (float[1] a) => (float[1] a) {{{body}}}'
    return list(onnx.parser.parse_model(text).graph.node)


def loop_model(
    body: str,
    gates: int,
    *,
    states: Sequence[str] = ("h",),
    collect: str = "h_next",
    trips: int = TIME,
    bound: float = TIME,
    last_only: bool = False,
    extra: str = "",
) -> onnx.ModelProto:
    """A Loop as tf2onnx writes one, around a body."""
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    weights = {
        "W": weight(WIDTH, gates * UNITS),
        "R": weight(UNITS, gates * UNITS),
        "b0": weight(gates * UNITS),
        "b1": weight(gates * UNITS),
    }
    if "b1" in body:  # Keras keeps both in one table
        weights["bias"] = np.stack([weights.pop("b0"), weights.pop("b1")])
    else:
        del weights["b1"]
    used = list(weights)
    nodes = parsed(
        "x = Gather (sequence, count) count_next = Add (count, step) "
        "bounded = Cast <to = 1> (count_next) goes_on = Less (bounded, limit) "
        + (
            "two0, two1 = Split <axis = 0, num_outputs = 2> (bias_in) "
            "b0 = Squeeze (two0, first) b1 = Squeeze (two1, first) "
            if "bias" in weights
            else ""
        )
        + body.replace("W)", "W_in)").replace("R)", "R_in)").replace(" W,", " W_in,")
        + extra
        + f" collected = Identity ({collect})"
    )
    for node in nodes:
        for at, name in enumerate(node.input):
            if name == "b0" and "bias" not in weights:
                node.input[at] = "b0_in"
    constants = {
        "step": np.array(1, np.int64),
        "limit": np.array(bound, np.float32),
        "one": np.array(1, np.float32),
        "first": np.array([0], np.int64),
    }
    handed = [f"{name}_in" for name in used]
    inner = helper.make_graph(
        [*nodes, *(helper.make_node("Identity", [one], [f"{one}_out"]) for one in handed)],
        "body",
        [
            helper.make_tensor_value_info("turn", INT64, []),
            helper.make_tensor_value_info("goes", BOOL, []),
            helper.make_tensor_value_info("count", INT64, []),
            *(helper.make_tensor_value_info(one, FLOAT, None) for one in (*states, *handed)),
        ],
        [
            helper.make_tensor_value_info("goes_on", BOOL, []),
            helper.make_tensor_value_info("count_next", INT64, []),
            *(helper.make_tensor_value_info(f"{one}_next", FLOAT, None) for one in states),
            *(helper.make_tensor_value_info(f"{one}_out", FLOAT, None) for one in handed),
            helper.make_tensor_value_info("collected", FLOAT, None),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    # each is named: onnxruntime 1.32 dies of a Loop whose output has no name
    outputs = [f"{one}_last" for one in ("count", *states, *used)] + ["all"]
    loop = helper.make_node(
        "Loop", ["trips", "yes", "zero", *(f"{one}0" for one in states), *used], outputs, "loop"
    )
    loop.attribute.append(helper.make_attribute("body", inner))
    after = (
        parsed("last = Slice (all, minus, far, first) out = Squeeze (last, first)")
        if last_only
        else parsed("out = Identity (all)")
    )
    finals = [] if last_only else [f"{one}_last" for one in states]
    outer = {
        "trips": np.array(trips, np.int64),
        "yes": np.array(True),
        "zero": np.array(0, np.int64),
        "minus": np.array([-1], np.int64),
        "far": np.array([2**31 - 1], np.int64),
        "first": np.array([0], np.int64),
        **{f"{one}0": np.zeros((BATCH, UNITS), np.float32) for one in states},
        **weights,
    }
    graph = helper.make_graph(
        [*parsed("sequence = Transpose <perm = [1, 0, 2]> (rows)"), loop, *after],
        "g",
        [helper.make_tensor_value_info("rows", FLOAT, [BATCH, TIME, WIDTH])],
        [
            helper.make_tensor_value_info(one, FLOAT, ["a", "b", "c"][-rank:])
            for one, rank in (("out", 2 if last_only else 3), *((one, 2) for one in finals))
        ],
        [numpy_helper.from_array(value, name) for name, value in outer.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    session = ort.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    rows = np.random.default_rng(2).standard_normal((BATCH, TIME, WIDTH)).astype(np.float32)
    return list(session.run(None, {"rows": rows}))


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def rewritten(model: onnx.ModelProto) -> onnx.NodeProto:
    """Rewrite, hold the numbers against the loop's, and give the layer."""
    before = run(model)
    assert write_layers(model) == 1
    onnx.checker.check_model(model)
    for one, other in zip(before, run(model), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    assert "Loop" not in kinds(model)
    (layer,) = [node for node in model.graph.node if node.op_type in ("LSTM", "GRU", "RNN")]
    return layer


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize(
    ("body", "gates", "states", "kind"),
    [
        (GRU_AFTER, 3, ("h",), "GRU"),
        (GRU_BEFORE, 3, ("h",), "GRU"),
        (LSTM, 4, ("h", "c"), "LSTM"),
        (LSTM, 4, ("c", "h"), "LSTM"),
        (RNN.format(squash="Tanh"), 1, ("h",), "RNN"),
    ],
    ids=["gru-after", "gru-before", "lstm", "lstm-swapped", "rnn"],
)
def test_a_loop_becomes_the_layer_it_is(
    body: str, gates: int, states: tuple[str, ...], kind: str, *, last_only: bool
) -> None:
    layer = rewritten(loop_model(body, gates, states=states, last_only=last_only))
    assert layer.op_type == kind
    assert attributes(layer)["hidden_size"] == UNITS
    assert len(layer.input) == 4  # states that begin at zero are left out
    if kind == "GRU":
        assert attributes(layer)["linear_before_reset"] == int(body is GRU_AFTER)


def test_the_last_step_is_read_from_the_layers_own_output() -> None:
    model = loop_model(GRU_AFTER, 3, last_only=True)
    rewritten(model)
    assert "Slice" not in kinds(model)


@pytest.mark.parametrize(
    ("body", "gates", "names"),
    [
        (HARD, 3, [b"HardSigmoid", b"Tanh"]),
        (RNN.format(squash="Relu"), 1, [b"Relu"]),
        (RNN.format(squash="Identity"), 1, [b"Affine"]),
    ],
)
def test_other_activations_are_told(body: str, gates: int, names: list[bytes]) -> None:
    layer = rewritten(loop_model(body, gates))
    assert attributes(layer)["activations"] == names


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trips": TIME - 1}, "stops before the end"),
        ({"bound": TIME - 2.0}, "is told to stop before the end"),
        ({"body": GRU_AFTER.replace("Tanh", "Sin")}, "is no layer of ONNX"),
        ({"body": GRU_AFTER.replace("Sub (one, z)", "Sub (one, r)")}, "mixes its gates"),
        ({"collect": "n"}, "collects something else"),
        ({"body": LSTM, "gates": 4, "states": ("h", "c"), "collect": "c_next"}, "collects c"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_loop_that_is_something_else_stays_a_loop(changes: dict[str, Any], why: str) -> None:
    model = loop_model(**({"body": GRU_AFTER, "gates": 3} | changes))
    before = run(model)
    assert write_layers(model) == 0, why
    assert "Loop" in kinds(model)
    for one, other in zip(before, run(model), strict=True):
        np.testing.assert_array_equal(other, one)


def test_a_state_that_does_not_begin_at_zero_is_kept() -> None:
    model = loop_model(LSTM, 4, states=("h", "c"))
    for one in model.graph.initializer:
        if one.name in ("h0", "c0"):
            start = np.random.default_rng(5).standard_normal((BATCH, UNITS))
            one.CopyFrom(numpy_helper.from_array(start.astype(np.float32), one.name))
    assert len(rewritten(model).input) == 7


def test_weights_of_one_shape_are_told_apart_by_what_they_do() -> None:
    """Where in and units are the same, W and R could be either."""
    rng = np.random.default_rng(3)
    w, r = (rng.standard_normal((4, 4)).astype(np.float32) for _ in range(2))

    def step(x: np.ndarray, s: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.tanh(x @ w + s[0] @ r)]

    for constants in ([w, r], [r, w]):
        cell = recognise(step, constants, states=1, batch=None)
        assert cell is not None
        np.testing.assert_array_equal(cell.w[0], w.T)
        np.testing.assert_array_equal(cell.r[0], r.T)
        assert not cell.b.any()


def test_a_step_that_fails_is_no_layer() -> None:
    def step(x: np.ndarray, s: Sequence[np.ndarray]) -> list[np.ndarray]:
        raise ValueError("the shapes do not fit")

    tables = [np.ones((3, 4), np.float32), np.ones((4, 4), np.float32)]
    assert recognise(step, tables, states=1, batch=1) is None
