"""Channels are evened out where that changes nothing but the noise, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.quantize.chains import Chain, find_chains
from edgesdk.quantize.compare import noise_by_output, open_candidate
from edgesdk.quantize.equalize import equalize
from edgesdk.quantize.grid import activation_grid
from edgesdk.quantize.layout import lay_out
from edgesdk.quantize.observe import Observed, observe
from edgesdk.quantize.observers import TensorStats
from edgesdk.quantize.trial import Choice, Trial, watch_for
from edgesdk.quantize.weights import weight_grid
from tests.unit.quantize.floats import named, samples, shipped
from tests.unit.quantize.modes import far, normal

SCHEME = shipped("onnxruntime-cpu")
SPREAD = np.logspace(-1.5, 1.5, 8).astype(np.float32)
IMAGE = "(float[1, 3, 10, 10] x) => (float[1, N, M, M] y)"


def wide(*shape: int, axis: int = 0, seed: int = 1) -> np.ndarray:
    """Give normal numbers that span three decades along an axis of 8."""
    factors = [1] * len(shape)
    factors[axis] = 8
    return normal(*shape, seed=seed) * SPREAD.reshape(factors)


#: Convolutions whose first one gives uneven channels, and what reads them.
FIRST = {"w": wide(8, 3, 3, 3), "b": wide(8, seed=2)}
DEPTHWISE = {"d": normal(8, 1, 3, 3, seed=3), "v": normal(5, 8, 1, 1, seed=4)}
NETS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "Relu": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv (r, v) }",
        {**FIRST, "v": normal(5, 8, 1, 1)},
    ),
    "LeakyRelu": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = LeakyRelu <alpha = 0.1> (c) y = Conv (r, v) }",
        {**FIRST, "v": normal(5, 8, 1, 1)},
    ),
    "depthwise": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 6, 6] y)"
        "{ c = Conv (x, w, b) r = Relu (c) e = Conv <group = 8> (r, d) y = Conv (e, v) }",
        {**FIRST, **DEPTHWISE},
    ),
    "depthwise-two-each": (
        "n (float[1, 3, 10, 10] x) => (float[1, 16, 6, 6] y)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv <group = 8> (r, d) }",
        {**FIRST, "d": normal(16, 1, 3, 3)},
    ),
    "pools": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 3, 3] y)"
        "{ c = Conv (x, w, b) r = Relu (c) p = MaxPool <kernel_shape = [2, 2]> (r)"
        "  q = AveragePool <kernel_shape = [5, 5]> (p) y = Conv (q, v) }",
        {**FIRST, "v": normal(5, 8, 1, 1)},
    ),
    "flatten": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5] y)"
        "{ c = Conv (x, w, b) r = Relu (c) p = GlobalAveragePool (r) f = Flatten (p)"
        "  y = Gemm <transB = 1> (f, g, h) }",
        {**FIRST, "g": normal(5, 8), "h": normal(5)},
    ),
    "norm": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w) s = BatchNormalization (c, scale, b, mean, var) r = Relu (s)"
        "  y = Conv (r, v) }",
        {
            "w": FIRST["w"],
            "b": SPREAD,
            "scale": SPREAD,
            "mean": normal(8),
            "var": np.abs(normal(8)) + 1,
            "v": normal(5, 8, 1, 1),
        },
    ),
    "transposed": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 12, 12] y)"
        "{ c = ConvTranspose (x, t, b) r = Relu (c) y = Conv (r, v) }",
        {"t": wide(3, 8, 3, 3, axis=1), "b": SPREAD, "v": normal(5, 8, 1, 1)},
    ),
    "scalar-factor": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) m = Mul (c, two) r = Relu (m) y = Conv (r, v) }",
        {**FIRST, "two": np.array(2, np.float32), "v": normal(5, 8, 1, 1)},
    ),
    "Gemm": (
        "n (float[4, 3] x) => (float[4, 5] y)"
        "{ c = Gemm (x, w, b) r = Relu (c) y = Gemm <transB = 1> (r, v) }",
        {"w": wide(3, 8, axis=1), "b": normal(1, 8), "v": normal(5, 8)},
    ),
    "MatMul": (
        "n (float[4, 3] x) => (float[4, 5] y)"
        "{ c = MatMul (x, w) r = Relu (c) y = MatMul (r, v) }",
        {"w": wide(3, 8, axis=1), "v": normal(8, 5)},
    ),
    "LayerNormalization": (
        "n (float[1, 6, 8] x) => (float[1, 6, 5] y)"
        "{ c = LayerNormalization (x, w, b) y = MatMul (c, v) }",
        {"w": SPREAD, "b": normal(8), "v": normal(8, 5)},
    ),
    "two-readers": (
        "n (float[1, 6, 8] x) => (float[1, 6, 5] y, float[1, 6, 4] z)"
        "{ c = LayerNormalization (x, w, b) y = MatMul (c, v) z = MatMul (c, u) }",
        {"w": SPREAD, "b": normal(8), "v": normal(8, 5), "u": normal(8, 4)},
    ),
    "decomposed-norm": (
        "n (float[1, 6, 8] x) => (float[1, 6, 5] y)"
        "{ mean = ReduceMean <axes = [-1]> (x) d = Sub (x, mean) q = Mul (d, d)"
        "  var = ReduceMean <axes = [-1]> (q) e = Add (var, eps) s = Sqrt (e) n = Div (d, s)"
        "  m = Mul (n, w) c = Add (m, b) y = MatMul (c, v) }",
        {"w": SPREAD, "b": normal(8), "v": normal(8, 5), "eps": np.array(1e-5, np.float32)},
    ),
    "ReLU6": (
        "n (float[1, 3, 10, 10] x) => (float[1, 8, 6, 6] y)"
        "{ c = Conv (x, w, b) r = Clip (c, zero, six) y = Conv <group = 8> (r, d) }",
        {
            **FIRST,
            "zero": np.array(0, np.float32),
            "six": np.array(6, np.float32),
            "d": normal(8, 1, 3, 3, seed=3),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Evened:
    before: ir.Model
    after: ir.Model
    chains: list[Chain]
    observed: Observed
    stats: dict[str, TensorStats]


def evened(text: str, weights: dict[str, np.ndarray]) -> Evened:
    model = named(text, weights)
    layout = lay_out(model, SCHEME.rules)
    watched, chains = watch_for(model, layout)
    observed = observe(model, watched, samples(model, 30))
    grids = activation_grid(SCHEME.activations), weight_grid(SCHEME)
    after, stats = equalize(model, chains, observed.whole, *grids)
    return Evened(before=model, after=after, chains=chains, observed=observed, stats=stats)


def changed(one: Evened) -> set[str]:
    """Give the nodes that read other constants afterwards."""
    names = set()
    for old, new in zip(one.before.graph, one.after.graph, strict=True):
        for was, now in zip(old.inputs, new.inputs, strict=True):
            if was is None or was.const_value is None:
                continue
            assert now is not None
            assert now.const_value is not None
            if not np.array_equal(was.const_value.numpy(), now.const_value.numpy()):
                names.add(new.name or "")
    return names


@pytest.mark.parametrize("name", NETS)
def test_the_graph_computes_what_it_did(name: str) -> None:
    one = evened(*NETS[name])
    assert one.chains
    assert changed(one), "nothing was evened out"
    for sample in samples(one.before, 5, seed=2):  # what calibration saw
        assert far(one.before, one.after, **sample) < 2e-5
    if name != "ReLU6":  # whose ceiling bounds what comes on top
        for sample in samples(one.before, 5, seed=77):
            loud = {key: 100 * array for key, array in sample.items()}
            assert far(one.before, one.after, **loud) < 2e-5


@pytest.mark.parametrize("name", NETS)
def test_statistics_say_what_the_changed_graph_gives(name: str) -> None:
    one = evened(*NETS[name])
    layout = lay_out(one.after, SCHEME.rules)
    watched, _ = watch_for(one.after, layout)
    again = observe(one.after, watched, samples(one.before, 30)).whole
    for tensor in one.chains[0].tensors:
        if tensor not in one.stats:
            continue
        assert one.stats[tensor].low == pytest.approx(again[tensor].low, rel=1e-4, abs=1e-5)
        assert one.stats[tensor].high == pytest.approx(again[tensor].high, rel=1e-4, abs=1e-5)
        assert np.allclose(one.stats[tensor].rows, again[tensor].rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in NETS if name != "ReLU6"])
def test_channels_are_more_alike_afterwards(name: str) -> None:
    one = evened(*NETS[name])
    tensor = one.chains[0].tensors[0]
    spreads = []
    for stats in (one.observed.whole[tensor], one.stats[tensor]):
        assert stats.channel_low is not None
        assert stats.channel_high is not None
        reach = np.maximum(-stats.channel_low, stats.channel_high)
        spreads.append(float(np.log(reach[reach > 0]).std()))
    assert spreads[1] < 0.9 * spreads[0]


def test_under_a_ceiling_channels_are_raised_only() -> None:
    one = evened(*NETS["ReLU6"])
    before, after = one.observed.whole["r"], one.stats["r"]
    assert before.channel_high is not None
    assert after.channel_high is not None
    assert (after.channel_high >= before.channel_high * 0.99999).all()
    assert after.channel_high.max() <= 6.0
    assert (after.channel_high > before.channel_high * 1.1).any()
    assert one.chains[0].ceiling == 6.0


ELSE = {"v": normal(8, 8, 1, 1, seed=5), "u": normal(5, 8, 1, 1, seed=6)}
SIX = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}
NO_CHAIN: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "a residual": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) e = Conv (r, v) s = Add (r, e) y = Conv (s, u) }",
        {**FIRST, **ELSE},
    ),
    "a graph output": (
        "n (float[1, 3, 10, 10] x) => (float[1, 8, 8, 8] r, float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv (r, u) }",
        {**FIRST, **ELSE},
    ),
    "a graph output before the activation": (
        "n (float[1, 3, 10, 10] x) => (float[1, 8, 8, 8] c, float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv (r, u) }",
        {**FIRST, **ELSE},
    ),
    "two that read before the activation": (
        "n (float[1, 3, 10, 10] x) => (float[1, 8, 8, 8] z, float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) z = Neg (c) y = Conv (r, u) }",
        {**FIRST, **ELSE},
    ),
    "a sigmoid": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Sigmoid (c) y = Conv (r, u) }",
        {**FIRST, **ELSE},
    ),
    "a reader that mixes channels in groups": (
        "n (float[1, 3, 10, 10] x) => (float[1, 8, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv <group = 2> (r, g) }",
        {**FIRST, "g": normal(8, 4, 1, 1)},
    ),
    "a flatten of places": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5] y)"
        "{ c = Conv (x, w, b) r = Relu (c) f = Flatten (r) y = MatMul (f, g) }",
        {**FIRST, "g": normal(512, 5)},
    ),
    "a clip that does not start at 0": (
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y)"
        "{ c = Conv (x, w, b) r = Clip (c, low, six) y = Conv (r, u) }",
        {**FIRST, **ELSE, **SIX, "low": np.array(-1, np.float32)},
    ),
    "the graph's input": (
        "n (float[1, 8, 8, 8] x) => (float[1, 5, 8, 8] y) { y = Conv (x, u) }",
        ELSE,
    ),
    "a softmax": (
        "n (float[1, 6, 3] x) => (float[1, 6, 5] y)"
        "{ c = MatMul (x, w) r = Softmax (c) y = MatMul (r, v) }",
        {"w": wide(3, 8, axis=1), "v": normal(8, 5)},
    ),
    "a norm over two axes": (
        "n (float[1, 6, 8] x) => (float[1, 6, 5] y)"
        "{ c = LayerNormalization <axis = 1> (x, w) y = MatMul (c, v) }",
        {"w": wide(6, 8, axis=1), "v": normal(8, 5)},
    ),
    "a bias for each row": (
        "n (float[8, 3] x) => (float[8, 5] y)"
        "{ c = Gemm (x, w, b) r = Relu (c) y = Gemm (r, v) }",
        {"w": wide(3, 8, axis=1), "b": normal(8, 1), "v": normal(8, 5)},
    ),
}


@pytest.mark.parametrize("name", NO_CHAIN)
def test_channels_are_not_touched_through(name: str) -> None:
    model = named(*NO_CHAIN[name])
    assert not find_chains(model, lay_out(model, SCHEME.rules))


def test_others_that_share_a_weight_keep_it() -> None:
    """The weight ``v`` is read in a chain and beside it."""
    one = evened(
        "n (float[1, 3, 10, 10] x, float[1, 8, 8, 8] beside)"
        " => (float[1, 8, 8, 8] y, float[1, 8, 8, 8] z)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv (r, v) o = Neg (beside) z = Conv (o, v) }",
        {**FIRST, **ELSE},
    )
    assert changed(one) == {"c", "y"}
    for sample in samples(one.before, 3, seed=9):
        assert far(one.before, one.after, **sample) < 2e-5


def test_a_writer_that_shares_its_bias_changes_its_own_only() -> None:
    one = evened(
        "n (float[1, 3, 10, 10] x) => (float[1, 5, 8, 8] y, float[1, 8, 8, 8] z)"
        "{ c = Conv (x, w, b) r = Relu (c) y = Conv (r, u) z = Conv (x, w, b) }",
        {**FIRST, **ELSE},
    )
    assert changed(one) == {"c", "y"}
    for sample in samples(one.before, 3, seed=9):
        assert far(one.before, one.after, **sample) < 2e-5


def test_dead_channels_stay_as_they_are() -> None:
    text, weights = NETS["depthwise"]
    dead = {**weights, "w": weights["w"].copy(), "b": weights["b"].copy()}
    dead["w"][3], dead["b"][3] = 0.0, 0.0
    one = evened(text, dead)
    for old, new in zip(one.before.graph, one.after.graph, strict=True):
        assert [v.name for v in old.outputs] == [v.name for v in new.outputs]
    assert one.stats["r"].channel_high is not None
    assert one.stats["r"].channel_high[3] == 0.0
    for value in one.after.graph.initializers.values():
        assert value.const_value is not None
        assert np.isfinite(value.const_value.numpy()).all()


def test_even_channels_are_left_alone() -> None:
    text, _ = NETS["depthwise-two-each"]
    weights = {"w": normal(1, 3, 3, 3), "b": normal(1), "d": normal(2, 1, 3, 3)}
    alike = {name: np.repeat(array, 8, axis=0) for name, array in weights.items()}
    assert not changed(evened(text, alike))


@pytest.mark.parametrize("name", ["depthwise", "LayerNormalization"])
def test_noise_falls_where_channels_were_uneven(name: str) -> None:
    one = evened(*NETS[name])
    trial = Trial(
        model=one.before,
        scheme=SCHEME,
        keep_float=(),
        observed=one.observed,
        chains=one.chains,
    )
    noise = []
    for choice in (Choice(), Choice(equalize=True)):
        session = open_candidate(trial.realize(choice)[0])
        noise.append(max(noise_by_output(session, one.observed.kept).values()))
    assert noise[1] < 0.8 * noise[0]
