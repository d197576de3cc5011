"""Four-bit weights: the kernel they are for, scales by search, rounding that compensates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.errors import QuantizeError
from edgesdk.model import simplify
from edgesdk.quantize.values import Converted
from edgesdk.quantize.weights_only import QuantizeRow, compensating, to_int4_weights
from tests.unit.quantize.modes import (
    far,
    graph,
    kernels,
    normal,
    ops,
    run,
    size,
    speech,
    speech_accuracy,
)

#: How far 4-bit weights (and the kernel's 8-bit activations) may be from float.
NEAR = 0.15
DENSE = """
dense (float[M, 64] x) => (float[M, 32] y)
{ [product] h = MatMul (x, w)
  y = Tanh (h) }
"""


def _dense() -> ir.Model:
    return graph(DENSE, {"w": normal(64, 32) / 8})


def _product(weight: np.ndarray) -> ir.Model:
    rows, columns = weight.shape
    text = f"one (float[M, {rows}] x) => (float[M, {columns}] y) {{ [it] y = MatMul (x, w) }}"
    return graph(text, {"w": weight})


def _convert(model: ir.Model, **more: object) -> Converted:
    options = {"runtime": "onnxruntime", "max_opset": None, "least_weights": 1}
    return to_int4_weights(model, **(options | more))  # type: ignore[arg-type]  # any keyword


def _reasons(done: Converted) -> dict[str, str]:
    return {node.name: node.reason for node in done.left_float}


def _weights(model: ir.Model) -> np.ndarray:
    """Give what the 4-bit weights of a one-product model stand for."""
    (product,) = [node for node in model.graph if node.op_type in ("MatMul", "MatMulNBits")]
    real = product.inputs[0]
    assert real is not None
    assert real.shape is not None
    width = real.shape[1]
    assert isinstance(width, int)
    # one row at a time has large steps for the kernel's 8-bit activations to hit exactly
    return run(model, x=np.eye(width, dtype="f4"))[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "other"])
def test_a_product_is_standard_and_becomes_one_kernel(runtime: str, tmp_path: Path) -> None:
    model = _dense()
    done = to_int4_weights(model, runtime=runtime, max_opset=21)
    assert (done.converted_nodes, done.left_float, done.findings) == (1, (), ())
    assert ops(done.model) == {"DequantizeLinear": 1, "MatMul": 1, "Tanh": 1}
    assert done.model.graph.opset_imports == {"": 21}
    assert done.model.ir_version == 10
    found = kernels(done.model, tmp_path)
    assert (found["MatMulNBits"], found["MatMul"], found["DequantizeLinear"]) == (1, 0, 0)
    assert far(model, done.model, x=normal(5, 64)) < NEAR


def test_below_opset_21_the_runtimes_own_operator_is_used() -> None:
    model = _dense()
    done = to_int4_weights(model, runtime="onnxruntime", max_opset=17)
    assert ops(done.model) == {"MatMulNBits": 1, "Tanh": 1}
    assert done.model.graph.opset_imports == {"": 17, "com.microsoft": 1}
    standard = to_int4_weights(model, runtime="onnxruntime", max_opset=21)
    assert far(standard.model, done.model, x=normal(5, 64)) < 1e-5


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_opset": 17}, r"4-bit tensors need opset 21 \(at most 17 here\)"),
        ({"max_ir": 9}, r"4-bit tensors need IR version 10 \(at most 9 here\)"),
    ],
)
def test_another_runtime_without_4_bit_tensors_is_refused(
    limits: dict[str, int], reason: str
) -> None:
    with pytest.raises(QuantizeError, match=rf"no node was quantized \({reason}\)") as caught:
        _convert(_dense(), runtime="other", **limits)
    assert caught.value.hint == "build with --precision fp32"


def test_the_file_takes_an_eighth_of_the_room() -> None:
    model = _product(normal(512, 512))
    assert size(_convert(model, block=128).model) < 0.14 * size(model)
    assert size(_convert(model, block=128, max_opset=17).model) < 0.14 * size(model)


@pytest.mark.parametrize("rows", [8, 16, 20, 48, 63, 64, 96])
@pytest.mark.parametrize("max_opset", [17, 21])
def test_any_number_of_rows_fits_the_runtimes_kernel(
    rows: int, max_opset: int, tmp_path: Path
) -> None:
    model = _product(normal(rows, 33))
    done = _convert(model, max_opset=max_opset)
    assert kernels(done.model, tmp_path) == {"MatMulNBits": 1}
    assert far(model, done.model, x=normal(4, rows)) < NEAR


def test_another_runtime_gets_a_block_that_divides_the_rows() -> None:
    done = _convert(_product(normal(48, 33)), runtime="other", max_opset=21)
    (back,) = [node for node in done.model.graph if node.op_type == "DequantizeLinear"]
    assert back.attributes["block_size"].as_int() == 16
    with pytest.raises(QuantizeError, match="its 20 rows are no multiple of a block"):
        _convert(_product(normal(20, 33)), runtime="other", max_opset=21)


@pytest.mark.parametrize("block", [0, 8, 24, -32])
def test_a_block_that_no_kernel_has_is_refused(block: int) -> None:
    with pytest.raises(QuantizeError) as caught:
        _convert(_dense(), block=block)
    assert str(caught.value) == (
        f"cannot quantize to int4: the block is {block} (expected a power of two from 16)"
    )


def test_weights_of_one_sign_get_zero_points_and_whole_ones_none() -> None:
    positive = _convert(_product(np.abs(normal(64, 8)) + 3)).model
    assert "w.zero" in positive.graph.initializers
    whole = np.random.default_rng(1).integers(-7, 8, (64, 8)).astype("f4")
    whole[::16] = 7
    exact = _convert(_product(whole)).model
    assert "w.zero" not in exact.graph.initializers
    assert np.abs(_weights(exact) - whole).max() < 0.06


def test_the_search_loses_less_than_the_whole_range_does() -> None:
    weight = np.random.default_rng(4).standard_t(4, (256, 16)).astype("f4")
    got = _weights(_convert(_product(weight), max_opset=17).model)
    blocks = weight.reshape(8, 32, 16)
    scale = (blocks.max(axis=1) - blocks.min(axis=1)) / 15
    zero = np.rint(-blocks.min(axis=1) / scale)
    steps = np.clip(np.rint(blocks / scale[:, None]) + zero[:, None], 0, 15)
    naive = ((steps - zero[:, None]) * scale[:, None]).reshape(256, 16)
    assert ((got - weight) ** 2).sum() < 0.97 * ((naive - weight) ** 2).sum()


def _moment(rows: int) -> np.ndarray:
    random = np.random.default_rng(7)
    mix = random.standard_normal((rows, rows)) * np.exp(random.standard_normal(rows))
    inputs = random.standard_normal((4 * rows, rows)) @ mix
    return inputs.T @ inputs / len(inputs)


def _lost(model: ir.Model, weight: np.ndarray, moment: np.ndarray) -> float:
    change = _weights(model).astype("f8") - weight
    return float(np.trace(change.T @ moment @ change))


@pytest.mark.parametrize("max_opset", [17, 21])
def test_second_moments_make_rounding_compensate(max_opset: int) -> None:
    weight, moment = normal(160, 24), _moment(160)
    model = _product(weight)
    plain = _convert(model, max_opset=max_opset).model
    done = _convert(model, max_opset=max_opset, second_moments={"it": moment}).model
    assert _lost(done, weight, moment) < 0.5 * _lost(plain, weight, moment)
    grouped = _convert(model, max_opset=max_opset, second_moments={"it": moment[None]}).model
    assert np.array_equal(_weights(grouped), _weights(done))


def test_second_moments_of_inputs_that_are_never_there_are_damped() -> None:
    weight, moment = normal(64, 8), _moment(64)
    moment[10:30] = moment[:, 10:30] = 0
    done = _convert(_product(weight), second_moments={"it": moment}).model
    assert np.isfinite(_weights(done)).all()
    nothing = _convert(_product(weight), second_moments={"it": np.zeros((64, 64))}).model
    assert np.isfinite(_weights(nothing)).all()


@pytest.mark.parametrize(
    ("moment", "problem"),
    [
        (np.eye(63), r"its second moments have the shape \[63, 63\] \(expected \[64, 64\]\)"),
        (np.full((64, 64), np.nan), "its second moments hold NaN or infinite values"),
        (-np.eye(64), "the second moments, 64 by 64, are not positive"),
    ],
)
def test_second_moments_that_are_none_are_refused(moment: np.ndarray, problem: str) -> None:
    with pytest.raises(QuantizeError, match=problem):
        _convert(_product(normal(64, 8)), second_moments={"it": moment})


def test_a_rounding_of_ones_own_takes_the_place_of_nearest() -> None:
    seen: list[tuple[int, ...]] = []

    def first_row_only(weight: np.ndarray, quantize_row: QuantizeRow) -> np.ndarray:
        seen.append(weight.shape)
        rows = [quantize_row(k, row if k == 0 else row * 0) for k, row in enumerate(weight)]
        return np.stack(rows)

    got = _weights(_convert(_product(normal(64, 8)), rounding=first_row_only).model)
    assert seen == [(64, 8)]
    assert np.abs(got[1:]).max() < 1e-6 < np.abs(got[0]).max()
    moment = _moment(64)
    own = _convert(_product(normal(64, 8)), rounding=compensating(moment)).model
    assert np.isfinite(_weights(own)).all()


@pytest.mark.parametrize("max_opset", [17, 21])
@pytest.mark.parametrize(
    ("attributes", "shape", "bias"),
    [
        ("transB = 1", (32, 64), (32,)),
        ("alpha = -0.5, beta = 2.0", (64, 32), (1, 32)),
        ("beta = 0.5", (64, 32), (3, 32)),
    ],
)
def test_a_gemm_means_the_same(
    attributes: str, shape: tuple[int, ...], bias: tuple[int, ...], max_opset: int
) -> None:
    text = f"gemm (float[3, 64] x) => (float[3, 32] y) {{ y = Gemm <{attributes}> (x, w, b) }}"
    model = graph(text, {"w": normal(*shape), "b": normal(*bias)})
    done = _convert(model, max_opset=max_opset)
    assert "Gemm" not in ops(done.model)
    assert far(model, done.model, x=normal(3, 64)) < NEAR


@pytest.mark.parametrize("step", ["Relu", "Clip", "Tanh", "Sigmoid", "Abs", "Erf"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("batch", ["", "2, "])
def test_products_become_kernels_whatever_follows(
    step: str, biased: bool, batch: str, tmp_path: Path
) -> None:
    add = "g = Add (h, b)" if biased else "g = Identity (h)"
    text = f"""steps (float[{batch}M, 64] x) => (float[{batch}M, 32] y)
    {{ h = MatMul (x, w)
      {add}
      a = {step} (g)
      k = MatMul (a, v)
      l = Add (k, c)
      m = {step} (l)
      n = {"MatMul (m, u)" if batch else "Gemm (m, u, c)"}
      y = {step} (n) }}"""
    weights = {"w": (64, 64), "v": (64, 32), "u": (32, 32), "c": (32,)}
    constants = {name: normal(*shape) / 8 for name, shape in weights.items()}
    model = graph(text, constants | ({"b": normal(64)} if biased else {}))
    if not biased:
        model = simplify(model)
    done = _convert(model)
    assert kernels(done.model, tmp_path)["MatMulNBits"] == 3
    assert far(model, done.model, x=normal(*([2] if batch else []), 5, 64)) < 2 * NEAR


def test_products_that_share_weights_share_the_integers(tmp_path: Path) -> None:
    text = """twice (float[M, 64] x) => (float[M, 64] y)
    { h = MatMul (x, w)
      r = Relu (h)
      y = MatMul (r, w) }"""
    model = graph(text, {"w": normal(64, 64)})
    done = _convert(model)
    assert kernels(done.model, tmp_path)["MatMulNBits"] == 2
    assert size(done.model) < 0.35 * size(model)
    assert far(model, done.model, x=normal(3, 64)) < 2 * NEAR


BRANCHES = """
branches (float[M, 64] x, bool flag) => (float[M, 32] y)
{
    y = If (flag) <
        then_branch = yes () => (float[M, 32] t) { [inner] t = MatMul (x, w) },
        else_branch = no () => (float[M, 32] e) { [other] g = MatMul (x, w)
            e = Neg (g) }
    >
}
"""


@pytest.mark.parametrize("max_opset", [17, 21])
def test_products_in_branches_are_converted_there(max_opset: int, tmp_path: Path) -> None:
    model = graph(BRANCHES, {"w": normal(64, 32)})
    done = _convert(model, max_opset=max_opset)
    assert done.converted_nodes == 2
    assert kernels(done.model, tmp_path)["MatMulNBits"] == 2
    for flag in (True, False):
        assert far(model, done.model, x=normal(3, 64), flag=np.array(flag)) < NEAR


WORDS = "words (int64[N] ids) => (float[N, 32] y) { [look] y = Gather (table, ids) }"


@pytest.mark.parametrize(
    ("runtime", "max_opset", "op", "share", "near"),
    [
        ("onnxruntime", 21, "GatherBlockQuantized", 0.19, NEAR),
        ("onnxruntime", 17, "Cast", 0.31, 0.01),
        ("other", 21, "Cast", 0.31, 0.01),
    ],
)
def test_a_table_shrinks(
    runtime: str, max_opset: int, op: str, share: float, near: float
) -> None:
    model = graph(WORDS, {"table": normal(500, 32)})
    done = _convert(model, runtime=runtime, max_opset=max_opset)
    assert ops(done.model)[op] == 1
    assert size(done.model) < share * size(model)
    assert far(model, done.model, ids=np.array([0, 499, 7])) < near


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_stay_in_float(bad: float) -> None:
    weight = normal(64, 8)
    weight[3, 4] = bad
    with pytest.raises(QuantizeError, match="its weights hold NaN or infinite values"):
        _convert(_product(weight))


def test_empty_weights_stay_in_float() -> None:
    with pytest.raises(QuantizeError, match="its weights are empty"):
        _convert(_product(np.zeros((64, 0), "f4")))


def test_kept_nodes_and_other_operators_stay_in_float() -> None:
    text = """mixed (float[1, 64] x) => (float[1, 2, 62] y)
    { [one] h = MatMul (x, w)
      [two] k = MatMul (h, w)
      s = Reshape (k, shape)
      [conv] y = Conv (s, kernel) }"""
    constants = {"w": normal(64, 64), "kernel": normal(2, 1, 3), "shape": np.array([1, 1, 64])}
    done = _convert(graph(text, constants), keep_float=("two",))
    assert _reasons(done) == {
        "two": "the recipe keeps it in float",
        "conv": "4-bit weights are for matrix products and tables",
    }


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = _dense()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    first = ir.to_proto(_convert(model).model).SerializeToString(deterministic=True)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert ir.to_proto(_convert(model).model).SerializeToString(deterministic=True) == first


def test_a_transformer_hears_nearly_the_same(shared_assets: Path, tmp_path: Path) -> None:
    model = speech(shared_assets, "fsdd_transformer")
    done = to_int4_weights(model, runtime="onnxruntime", max_opset=None)
    assert kernels(done.model, tmp_path)["MatMulNBits"] == done.converted_nodes == 12
    before = speech_accuracy(shared_assets, model)
    assert speech_accuracy(shared_assets, done.model) >= before - 0.021


def test_recurrent_cells_hear_nearly_the_same(shared_assets: Path, tmp_path: Path) -> None:
    model = speech(shared_assets, "fsdd_gru_lstm")
    done = to_int4_weights(model, runtime="onnxruntime", max_opset=None)
    assert kernels(done.model, tmp_path)["MatMulNBits"] == done.converted_nodes == 2
    before = speech_accuracy(shared_assets, model)
    assert speech_accuracy(shared_assets, done.model) >= before - 0.021


@given(
    rows=st.integers(1, 100),
    columns=st.integers(1, 20),
    block=st.sampled_from([16, 32, 64]),
    max_opset=st.sampled_from([17, 21]),
    power=st.integers(-100, 100),
    shift=st.floats(-3, 3),
)
@settings(max_examples=30, deadline=None)
def test_no_weight_is_further_off_than_half_a_step_of_its_whole_range(
    rows: int, columns: int, block: int, max_opset: int, power: int, shift: float
) -> None:
    weight = (normal(rows, columns) + np.float32(shift)) * np.float32(2.0**power)
    got = _weights(_convert(_product(weight), block=block, max_opset=max_opset).model)
    got = got.astype("f8")
    # the search may clip the largest to make the sum of squares smaller
    span = float(np.abs(weight).max()) * 2
    assert np.abs(got - weight).max() <= span * 0.36
    assert np.sqrt(np.mean((got - weight) ** 2)) <= span / 15
