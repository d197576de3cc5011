"""Bias correction takes back the mean shift of rounding, and touches nothing else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.quantize.host import HostSession
from edgesdk.quantize.layout import lay_out
from edgesdk.quantize.observe import observe
from edgesdk.quantize.trial import Choice, Trial, watch_for
from tests.unit.quantize.floats import named, samples, shipped
from tests.unit.quantize.modes import normal

#: One scale for all weights: one that sticks out costs all others their digits.
SCHEME = shipped("onnxruntime-cpu", weights="int8-per-tensor-symmetric")


def lossy(*shape: int, seed: int = 1) -> np.ndarray:
    """Give weights of which one sticks out, so that the others move a lot by rounding."""
    weight = normal(*shape, seed=seed) * 0.1
    weight.reshape(-1)[0] = 20.0
    return weight


CONV = (
    "n (float[1, 4, 12, 12] x) => (float[1, 6, 10, 10] y) { y = Conv (x, w, b) }",
    {"w": lossy(6, 4, 3, 3), "b": normal(6)},
)
NETS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "Conv": CONV,
    "Conv in groups": (
        "n (float[1, 4, 12, 12] x) => (float[1, 6, 10, 10] y)"
        "{ y = Conv <group = 2> (x, w, b) }",
        {"w": lossy(6, 2, 3, 3), "b": normal(6)},
    ),
    "depthwise": (
        "n (float[1, 4, 12, 12] x) => (float[1, 4, 10, 10] y) { y = Conv <group = 4> (x, w) }",
        {"w": lossy(4, 1, 3, 3)},
    ),
    "Conv without a bias": (
        "n (float[1, 4, 12, 12] x) => (float[1, 6, 10, 10] y) { y = Conv (x, w) }",
        {"w": lossy(6, 4, 3, 3)},
    ),
    "Gemm": (
        "n (float[1, 24] x) => (float[1, 6] y) { y = Gemm (x, w, b) }",
        {"w": lossy(24, 6), "b": normal(6)},
    ),
    "Gemm transposed": (
        "n (float[1, 24] x) => (float[1, 6] y) { y = Gemm <transB = 1> (x, w) }",
        {"w": lossy(6, 24)},
    ),
}


def shifted(model: ir.Model, *, count: int = 200) -> list[dict[str, np.ndarray]]:
    """Give samples whose means are far from 0, as behind a rectifier."""
    return [
        {name: np.abs(array) + 0.5 for name, array in one.items()}
        for one in samples(model, count)
    ]


def trial_of(model: ir.Model, data: list[dict[str, np.ndarray]]) -> Trial:
    layout = lay_out(model, SCHEME.rules)
    watched, chains = watch_for(model, layout)
    observed = observe(model, watched, data)
    return Trial(model=model, scheme=SCHEME, keep_float=(), observed=observed, chains=chains)


def shift(before: ir.Model, after: ir.Model, data: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Measure the mean error of each output channel over samples."""
    one, other = HostSession(before), HostSession(after, optimize="off")
    errors = [other.run(sample)["y"] - one.run(sample)["y"] for sample in data]
    whole = np.concatenate(errors).astype(np.float64)
    axes = (0, 2, 3) if whole.ndim == 4 else (0,)
    result: np.ndarray = whole.mean(axis=axes)
    return result


@pytest.mark.parametrize("name", NETS)
def test_the_mean_error_of_each_channel_goes(name: str) -> None:
    model = named(*NETS[name])
    data = shifted(model)
    trial = trial_of(model, data)
    plain = shift(model, trial.realize(Choice())[0], data)
    right = shift(model, trial.realize(Choice(correct=True))[0], data)
    assert np.abs(plain).max() > 0.01, "rounding shifted nothing here"
    assert np.abs(right).max() < 0.1 * np.abs(plain).max()


def test_a_missing_bias_is_added_and_stored_like_any_other() -> None:
    model = named(*NETS["Conv without a bias"])
    done, _ = trial_of(model, shifted(model, count=9)).realize(Choice(correct=True))
    (conv,) = [node for node in done.graph if node.op_type == "Conv"]
    assert len(conv.inputs) == 3
    source = conv.inputs[2]
    assert source is not None
    dequantize = source.producer()
    assert dequantize is not None
    stored = dequantize.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    assert stored.const_value.numpy().dtype == np.int32


def test_the_float_graph_keeps_its_biases() -> None:
    model = named(*CONV)
    trial = trial_of(model, shifted(model, count=9))
    trial.realize(Choice(correct=True))
    bias = model.graph.initializers["b"].const_value
    assert bias is not None
    assert np.array_equal(bias.numpy(), CONV[1]["b"])


def test_a_bias_that_others_share_is_theirs_as_it_was() -> None:
    model = named(
        "n (float[1, 4, 12, 12] x) => (float[1, 6, 10, 10] y, float[1, 6, 10, 10] z)"
        "{ y = Conv (x, w, b) z = Conv (x, v, b) }",
        {**CONV[1], "v": np.zeros((6, 4, 3, 3), np.float32)},
    )
    data = shifted(model, count=40)
    done, _ = trial_of(model, data).realize(Choice(correct=True))
    got = HostSession(done, optimize="off").run(data[0])["z"]
    assert got == pytest.approx(
        np.broadcast_to(CONV[1]["b"].reshape(1, -1, 1, 1), got.shape), abs=0.05
    )


def test_a_product_without_a_bias_is_left_alone() -> None:
    model = named(
        "n (float[1, 6, 24] x) => (float[1, 6, 6] y) { y = MatMul (x, w) }",
        {"w": lossy(24, 6)},
    )
    trial = trial_of(model, shifted(model, count=9))
    one, other = (
        ir.to_proto(trial.realize(Choice(correct=on))[0]).SerializeToString(deterministic=True)
        for on in (False, True)
    )
    assert one == other
