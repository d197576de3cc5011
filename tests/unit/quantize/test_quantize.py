"""The quantizer's two entries do what the scheme says, and say what they did and why not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import edgesdk
from edgesdk.errors import DataError, ProfileError, QuantizeError
from edgesdk.model.save import model_bytes
from edgesdk.progress import Progress
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import array_of, named, nodes, reasons, shipped
from tests.unit.quantize.modes import far, normal, run

SCHEMES = [
    ("uint8-asymmetric", "int8-per-channel-symmetric"),
    ("uint8-asymmetric", "int8-per-tensor-symmetric"),
    ("uint8-asymmetric", "uint8-per-tensor-asymmetric"),
    ("int8-asymmetric", "int8-per-channel-symmetric"),
    ("int8-asymmetric", "int8-per-tensor-symmetric"),
    ("int8-symmetric", "int8-per-channel-symmetric"),
    ("int8-symmetric", "int8-per-tensor-symmetric"),
]
TEXT = """
small (float[1, 2, 6, 6] image, bool flag) => (float[1, 3, 6, 6] scores, float[1, 2, 6, 6] z)
{
    [conv] c = Conv <pads = [1, 1, 1, 1]> (image, w, b)
    [relu] r = Relu (c)
    [second] d = Conv (r, v)
    [soft] scores = Softmax <axis = 1> (d)
    [choice] z = If (flag) <
        then_branch = yes () => (float[1, 2, 6, 6] t) { [inner] t = Relu (image) },
        else_branch = no () => (float[1, 2, 6, 6] e) { e = Neg (image) }
    >
}
"""
WITHOUT_WORK = "idle (float[1, 4] image) => (float[1, 4] y) { [soft] y = Softmax (image) }"
SOFTMAX = (
    "8 of 10 results of a Softmax over 197 values become zero in 8 bits and 8 % of its mass is "
    "misplaced"
)
SCHEME = shipped("onnxruntime-cpu")


def _model() -> ir.Model:
    return named(TEXT, {"w": normal(3, 2, 3, 3), "b": normal(3), "v": normal(3, 3, 1, 1)})


def _samples(count: int = 6) -> Iterator[dict[str, np.ndarray]]:
    for seed in range(count):
        yield {"image": normal(1, 2, 6, 6, seed=seed), "flag": np.array(True)}


def _quantized(scheme: Any = SCHEME, **more: Any) -> Quantized:
    return quantize_static(_model(), _samples(), scheme=scheme, **more)


# The engine


@pytest.mark.parametrize(("activations", "weights"), SCHEMES)
def test_what_comes_out_is_of_the_scheme_and_runs(activations: str, weights: str) -> None:
    done = _quantized(shipped("openvino", activations, weights))
    steps = nodes(done.model, "QuantizeLinear")
    assert steps
    for step in steps:
        zero = array_of(step.inputs[2])
        assert zero.dtype.name == activations.split("-", maxsplit=1)[0]
        if activations.endswith("-symmetric"):
            assert not zero.any()
    (weight,) = (
        node
        for node in nodes(done.model, "DequantizeLinear")
        if node.inputs[0] is not None and node.inputs[0].name == "w.quantized"
    )
    assert array_of(weight.inputs[0]).dtype.name == weights.split("-", maxsplit=1)[0]
    scale = array_of(weight.inputs[1])
    assert scale.shape == ((3,) if "per-channel" in weights else ())
    if weights.endswith("-symmetric"):
        assert not array_of(weight.inputs[2]).any()
    sample = next(_samples())
    scores, z = run(done.model, **sample)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    assert np.array_equal(z, np.maximum(sample["image"], 0))  # the body computes in float


def test_a_reduced_range_keeps_weights_to_seven_bits() -> None:
    done = _quantized(dataclasses.replace(SCHEME, reduce_range=True))
    stored = [
        array_of(node.inputs[0])
        for node in nodes(done.model, "DequantizeLinear")
        if node.inputs[0] is not None and node.inputs[0].const_value is not None
    ]
    weights = [array for array in stored if array.dtype == np.int8]
    assert [int(np.abs(array.astype(int)).max()) for array in weights] == [63, 63]


def test_answers_stay_near_the_float_model() -> None:
    done = _quantized()
    for sample in _samples():
        assert far(_model(), done.model, **sample) < 0.05


def test_it_counts_what_it_did() -> None:
    done = _quantized()
    assert (done.samples, done.quantized_weights, done.precision) == (6, 2, "int8")
    assert done.quantized_nodes == 3  # two convolutions, and the Relu in the first one's kernel
    assert done.kernels == (2, 2)
    assert done.ranges in ("min-max", "mse", "percentile")
    assert done.sqnr_db is not None
    assert (done.sqnr_db["scores"] or 0) > 20
    assert done.sqnr_db["z"] is None  # exact


def test_its_record_is_json_and_the_same_every_time() -> None:
    record = json.dumps(_quantized().to_json())
    assert record == json.dumps(_quantized().to_json())
    assert model_bytes(_quantized().model) == model_bytes(_quantized().model)


def test_what_stays_in_float_is_named_with_its_reason() -> None:
    left = {node.name: (node.op, node.reason) for node in _quantized().left_float}
    assert left == {
        "soft": ("Softmax", SOFTMAX),
        "choice": ("If", "the bodies of If stay in float"),
    }


@pytest.mark.parametrize("kept", ["relu", "Relu"])
def test_the_recipe_keeps_nodes_in_float_by_name_and_by_operator(kept: str) -> None:
    done = _quantized(keep_float=(kept,))
    assert reasons(done)["relu"] == "the recipe keeps it in float"
    assert done.quantized_nodes == 2


def test_keeping_everything_leaves_nothing_to_quantize() -> None:
    with pytest.raises(QuantizeError, match=r"no node was quantized \(the recipe keeps it"):
        _quantized(keep_float=("Conv", "relu"))


@pytest.mark.parametrize("kept", ["MatMul", "Add", "product", "bias"])
def test_a_product_and_its_bias_are_kept_by_either_name(kept: str) -> None:
    text = """dense (float[2, 4] x) => (float[2, 4] y, float[2, 4] z)
    { [product] h = MatMul (x, w)
      [bias] y = Add (h, b)
      z = Gemm (x, w) }"""
    model = named(text, {"w": normal(4, 4), "b": normal(4)})
    data = [{"x": normal(2, 4, seed=n)} for n in range(3)]
    done = quantize_static(model, data, scheme=SCHEME, keep_float=(kept,))
    names = {"MatMul": "product", "Add": "bias"}
    assert reasons(done)[names.get(kept, kept)] == "the recipe keeps it in float"


def test_a_model_without_work_for_eight_bits_says_so() -> None:
    samples = [{"image": np.ones((1, 4), np.float32)}]
    with pytest.raises(QuantizeError) as caught:
        quantize_static(named(WITHOUT_WORK), samples, scheme=SCHEME)
    assert str(caught.value) == f"cannot quantize idle: no node was quantized ({SOFTMAX})"
    assert caught.value.hint == "build with --precision fp32"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_by_number(bad: float) -> None:
    samples = list(_samples(3))
    samples[2]["image"][0, 0, 0, 0] = bad
    with pytest.raises(QuantizeError) as caught:
        quantize_static(_model(), samples, scheme=SCHEME)
    assert str(caught.value) == (
        "cannot calibrate with sample 2: input 'image' holds NaN or infinite values"
    )
    assert caught.value.facts["sample"] == 2


def test_no_samples_are_refused() -> None:
    with pytest.raises(QuantizeError) as caught:
        quantize_static(_model(), [], scheme=SCHEME)
    assert str(caught.value) == "cannot calibrate: there are no samples"
    assert "--calib" in caught.value.hint


@pytest.mark.parametrize("lacks", [0, 1, 4])
def test_a_sample_that_lacks_an_input_is_an_error_of_ours(lacks: int) -> None:
    samples = list(_samples())
    del samples[lacks]["flag"]
    with pytest.raises(QuantizeError, match="flag"):
        quantize_static(_model(), samples, scheme=SCHEME)


def test_a_sample_of_another_rank_is_an_error_of_ours() -> None:
    samples = [{"image": np.ones((1, 2, 5, 6, 6), np.float32), "flag": np.array(True)}]
    with pytest.raises(QuantizeError) as caught:
        quantize_static(_model(), samples, scheme=SCHEME)
    assert str(caught.value).startswith("cannot run the model on this computer: ")
    assert "Invalid rank for input: image" in str(caught.value)
    assert caught.value.hint == "do the calibration data fit the model's inputs?"


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = _model()
    before = model_bytes(model)
    quantize_static(model, _samples(), scheme=SCHEME)
    assert model_bytes(model) == before


def test_progress_is_told_of_samples_and_of_means() -> None:
    heard: list[Progress] = []
    _quantized(on_progress=heard.append, total=6)
    last = {progress.step: progress for progress in heard}
    assert (last["calibrate"].done, last["calibrate"].total) == (6, 6)
    assert last["try means"].done == last["try means"].total


def test_means_that_were_tried_are_recorded_with_what_they_bought() -> None:
    tried = _quantized().means
    assert [mean.name for mean in tried][:1] == ["bias-correction"]
    for mean in tried:
        assert mean.on == (mean.after_db > mean.before_db + 0.3)
    assert _quantized(means=()).means == ()


# The entry of the package


def _api(model: Any, data: Any, **more: Any) -> Quantized:
    return edgesdk.quantize(model, data, **{"scheme": SCHEME, "means": (), **more})


def test_a_file_a_proto_and_a_graph_give_the_same(tmp_path: Path) -> None:
    model = _model()
    path = tmp_path / "small.onnx"
    onnx.save(ir.to_proto(model), path)
    given = [path, str(path), ir.to_proto(model), model, edgesdk.open_model(path)]
    made = [model_bytes(_api(one, _samples()).model) for one in given]
    assert len(set(made)) == 1


def test_a_graph_in_memory_needs_no_name() -> None:
    model = _model()
    model.graph.name = None
    assert _api(model, _samples()).kernels == (2, 2)
    assert model.graph.name is None


def test_arrays_samples_and_an_iterator_give_the_same() -> None:
    text = "dense (float[N, 4] x) => (float[N, 3] y) { y = Gemm (x, w) }"
    model = named(text, {"w": normal(4, 3)})
    rows = normal(8, 4)
    samples = [{"x": row[np.newaxis]} for row in rows]
    made = [
        model_bytes(_api(model, data).model) for data in ({"x": rows}, samples, iter(samples))
    ]
    assert len(set(made)) == 1


def test_arrays_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError):
        _api(_model(), {"image": normal(4, 2, 6, 6), "flag": np.array([True])})


def test_without_data_a_calibrated_precision_is_refused() -> None:
    with pytest.raises(QuantizeError) as caught:
        _api(_model(), None)
    assert str(caught.value) == "cannot quantize to int8: there is no calibration data"


def test_a_scheme_is_found_by_target_and_backend() -> None:
    found = _api(_model(), _samples(), scheme="host/openvino-cpu")
    assert found.kernels is None or found.kernels[1] > 0
    (first, *_) = nodes(found.model, "Conv")
    assert array_of(first.inputs[2]).dtype == np.float32  # biases stay float there


def test_a_backend_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(ProfileError) as caught:
        _api(_model(), _samples(), scheme="host/npu")
    assert str(caught.value) == (
        "cannot quantize for host/npu: host has no backend 'npu' with a scheme of whole numbers"
    )
    assert "ort-cpu" in caught.value.hint


def test_what_was_made_can_be_saved_and_opened(tmp_path: Path) -> None:
    path = _api(_model(), _samples()).save(tmp_path / "small-int8.onnx")
    assert path == tmp_path / "small-int8.onnx"
    assert [one.name for one in edgesdk.open_model(path).source.inputs] == ["image", "flag"]


def test_a_graph_that_openvino_does_not_take_whole_is_quantized_uncounted(
    shared_assets: Path,
) -> None:
    """Its LSTM goes to another backend; that is no reason to end the build."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    with np.load(shared_assets / "speech_digits" / "eval.npz") as arrays:
        samples = arrays["x_calib"][:20].astype(np.float32)
    model = shared_assets / "speech_digits" / "fsdd_gru_lstm.onnx"
    found = edgesdk.quantize(model, samples, scheme="host/openvino-cpu", means=())
    assert found.kernels is None
    (finding,) = [each for each in found.findings if each.code == "kernels-not-counted"]
    assert "LSTM" in finding.message
