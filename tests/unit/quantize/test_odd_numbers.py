"""Weights, biases and activations that are zero, huge, tiny, infinite or not there at all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.errors import QuantizeError
from tests.unit.quantize.floats import SHIPPED, named, reasons, samples, shipped, static
from tests.unit.quantize.modes import far, normal, run

SAME = "<pads = [1, 1, 1, 1]>"
IMAGE = "float[1, 4, 8, 8]"
CONV = f"conv ({IMAGE} x) => ({IMAGE} y) {{ y = Conv {SAME} (x, w, b) }}"
GEMM = "dense (float[2, 8] x) => (float[2, 4] y) { y = Gemm (x, w, b) }"
WEIGHTS = [
    "int8-per-channel-symmetric",
    "int8-per-tensor-symmetric",
    "uint8-per-tensor-asymmetric",
]


def _conv(w: np.ndarray, b: np.ndarray) -> ir.Model:
    return named(CONV, {"w": w.astype("f4"), "b": b.astype("f4")})


@pytest.mark.parametrize("by", SHIPPED)
def test_channels_of_zeros_keep_their_biases_to_the_last_step_of_the_result(by: str) -> None:
    weight, bias = normal(4, 4, 3, 3), np.array([0.5, 1e-3, -3.1, 2.0])
    weight[[1, 2]] = 0
    model = _conv(weight, bias)
    done = static(model, by)
    for sample in samples(model):
        true, got = run(model, **sample)[0], run(done.model, **sample)[0]
        step = (true.max() - true.min()) / 250
        assert np.abs(got - true)[:, [1, 2]].max() <= step


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("bias", [[1e-4, 0.02, -3.0, 700.0], [0.0, 0.0, 0.0, 1e-30]])
def test_a_layer_of_zeros_gives_its_biases_exactly(weights: str, bias: list[float]) -> None:
    model = named(GEMM, {"w": np.zeros((8, 4), "f4"), "b": np.array(bias, "f4")})
    done = static(model, shipped("onnxruntime-cpu", "", weights))
    assert done.kernels == (1, 1)
    got = run(done.model, **samples(model)[0])[0]
    reach = np.abs(bias) if weights == WEIGHTS[0] else np.max(np.abs(bias))
    assert (np.abs(got - np.array(bias)) <= 1e-6 * reach).all()


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("size", [1e-9, 1e-20, 1e-39, 1e-44])
def test_a_huge_bias_over_tiny_weights_does_not_overflow(size: float, weights: str) -> None:
    bias = np.array([300.0, -200.0, 100.0, 50.0], "f4")
    weight = (normal(8, 4) * size).astype("f4")
    model = named(GEMM, {"w": weight, "b": bias})
    done = static(model, shipped("onnxruntime-cpu", "", weights))
    got = run(done.model, **samples(model)[0])[0]
    assert np.abs(got - bias).max() <= 1e-4


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("size", [1e-12, 1.0])
def test_subnormal_weights_without_a_bias_of_note_give_nothing(by: str, size: float) -> None:
    model = _conv(normal(4, 4, 3, 3) * 1e-41, np.zeros(4))
    data = [{"x": (normal(1, 4, 8, 8, seed=n) * size).astype("f4")} for n in range(4)]
    done = static(model, by, data)
    assert np.abs(run(done.model, **data[0])[0]).max() < 1e-30


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("size", [1e-30, 1e-10, 1e10, 1e30])
def test_numbers_far_from_one_are_quantized_as_well_as_others(by: str, size: float) -> None:
    model = _conv(normal(4, 4, 3, 3), np.zeros(4))
    data = [{"x": (normal(1, 4, 8, 8, seed=n) * size).astype("f4")} for n in range(4)]
    done = static(model, by, data)
    true, got = run(model, **data[0])[0], run(done.model, **data[0])[0]
    assert np.abs(got - true).max() < 0.03 * np.abs(true).max()


@pytest.mark.parametrize(("bad", "where"), [(np.inf, "w"), (np.nan, "w"), (np.inf, "b")])
def test_what_is_not_finite_stays_float_with_the_reason(bad: float, where: str) -> None:
    weights = {"w": normal(4, 4, 3, 3), "b": normal(4), "v": normal(4, 4, 3, 3)}
    weights[where] = weights[where].copy()
    weights[where].reshape(-1)[0] = bad
    text = f"""conv ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
    {{ y = Conv {SAME} (x, w, b)
       z = Conv {SAME} (x, v) }}"""
    model = named(text, weights)
    with np.errstate(all="ignore"):
        done = static(model)
    what = "its weights hold" if where == "w" else "its bias holds"
    assert reasons(done) == {"y": f"{what} NaN or infinite values"}


@pytest.mark.parametrize("by", SHIPPED)
def test_activations_that_turn_nan_keep_their_kernels_in_float(by: str) -> None:
    text = f"""logs ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
    {{ l = Log (x)
       y = Conv {SAME} (l, w)
       z = Conv {SAME} (x, w) }}"""
    model = named(text, {"w": normal(4, 4, 3, 3)})
    done = static(model, by)
    assert reasons(done)["y"] == "tensor 'l' held NaN or infinite values in calibration"
    sample = samples(model)[0]
    true, got = run(model, **sample), run(done.model, **sample)
    assert np.array_equal(np.isnan(true[0]), np.isnan(got[0]))
    assert np.abs(true[1] - got[1]).max() < 0.03 * np.abs(true[1]).max()


def test_a_graph_of_nothing_but_nan_is_refused_with_the_tensor() -> None:
    text = f"logs ({IMAGE} x) => ({IMAGE} y) {{ l = Log (x)\n y = Conv {SAME} (l, w) }}"
    with pytest.raises(QuantizeError, match="no node was quantized") as caught:
        static(named(text, {"w": normal(4, 4, 3, 3)}))
    assert "tensor 'l' held NaN or infinite values in calibration" in str(caught.value)


@pytest.mark.parametrize("by", SHIPPED)
@pytest.mark.parametrize("constant", [0.0, 3.0, -2.0])
def test_activations_that_never_change_are_kept(by: str, constant: float) -> None:
    model = _conv(normal(4, 4, 3, 3), normal(4))
    data = [{"x": np.full((1, 4, 8, 8), constant, "f4")}] * 3
    done = static(model, by, data)
    assert far(model, done.model, **data[0]) < 0.02
    codes = [finding.code for finding in done.findings]
    assert "input-constant" in codes
    assert "samples-alike" in codes


@pytest.mark.parametrize("by", SHIPPED)
def test_a_relu_that_lets_nothing_through_gives_zeros(by: str) -> None:
    text = f"""dead ({IMAGE} x) => ({IMAGE} y)
    {{ c = Conv {SAME} (x, w, b)
       r = Relu (c)
       y = Conv {SAME} (r, w, b) }}"""
    weights = {"w": normal(4, 4, 3, 3) / 9, "b": np.full(4, -50, "f4")}
    model = named(text, weights)
    done = static(model, by)
    assert far(model, done.model, **samples(model)[0]) < 0.01


@pytest.mark.parametrize("by", SHIPPED)
def test_tensors_that_were_empty_in_every_sample_stay_float(by: str) -> None:
    text = """rows (float[2, 8] x, float[K, 8] none) => (float[2, 4] y, float[K, 4] z)
    { y = Gemm (x, w)
      z = Gemm (none, w) }"""
    model = named(text, {"w": normal(8, 4)})
    data = [{"x": normal(2, 8, seed=n), "none": np.zeros((0, 8), "f4")} for n in range(4)]
    done = static(model, by, data)
    assert reasons(done) == {"z": "tensor 'none' was empty in every sample"}
    y, z = run(done.model, x=data[0]["x"], none=normal(3, 8))
    assert (y.shape, z.shape) == ((2, 4), (3, 4))


@pytest.mark.parametrize("lowest", [-1e4, -1e9, float(np.finfo("f4").min)])
def test_scores_under_a_mask_stay_in_float_and_keep_their_order(lowest: float) -> None:
    text = """attention (float[4, 8] q, float[4, 4] mask) => (float[4, 8] y)
    { s = MatMul (q, k)
      m = Add (s, mask)
      p = Softmax <axis = -1> (m)
      y = MatMul (p, v) }"""
    model = named(text, {"k": normal(8, 4), "v": normal(4, 8)})
    mask = np.zeros((4, 4), "f4")
    mask[:, 3] = lowest
    data = [{"q": normal(4, 8, seed=n), "mask": mask} for n in range(16)]
    done = static(model, "litert-int8", data)
    assert f"holds {lowest:.3g} in place of minus infinity" in str(reasons(done))
    true, got = run(model, **data[0])[0], run(done.model, **data[0])[0]
    assert np.abs(got - true).max() < 0.05 * np.abs(true).max()


def test_far_numbers_beside_others_that_a_grid_can_tell_apart_are_quantized() -> None:
    model = named(GEMM, {"w": normal(8, 4), "b": np.zeros(4, "f4")})
    data = [{"x": normal(2, 8, seed=n) * np.float32(3e4)} for n in range(16)]
    assert "x" not in str(reasons(static(model, data=data)))
