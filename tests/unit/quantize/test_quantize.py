"""The quantizer does what the scheme says, leaves alone what it should, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from edgesdk.errors import QuantizeError
from edgesdk.profiles.values import QuantScheme
from edgesdk.quantize import Quantized, quantize

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
<ir_version: 8, opset_import: ["" : 17]>
small (float[1, 2, 6, 6] image, bool flag) => (float[1, 3, 6, 6] scores, float[1, 2, 6, 6] z)
{
    [conv] c = Conv <pads = [1, 1, 1, 1]> (image, w, b)
    [relu] r = Relu (c)
    [soft] scores = Softmax <axis = 1> (r)
    [choice] z = If (flag) <
        then_branch = yes () => (float[1, 2, 6, 6] t) { [inner] t = Relu (image) },
        else_branch = no () => (float[1, 2, 6, 6] e) { e = Neg (image) }
    >
}
"""
WITHOUT_WORK = """
<ir_version: 8, opset_import: ["" : 17]>
idle (float[1, 4] image) => (float[1, 4] y) { y = Softmax (image) }
"""


def _model(text: str = TEXT) -> ir.Model:
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(1)
    for name, shape in (("w", (3, 2, 3, 3)), ("b", (3,))) if text == TEXT else ():
        array = random.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.serde.deserialize_model(proto)


def _samples(count: int = 6) -> Iterator[dict[str, np.ndarray]]:
    random = np.random.default_rng(2)
    for _ in range(count):
        image = random.standard_normal((1, 2, 6, 6)).astype(np.float32)
        yield {"image": image, "flag": np.array(True)}


def _quantized(
    activations: Any = "uint8-asymmetric",
    weights: Any = "int8-per-channel-symmetric",
    **more: Any,
) -> Quantized:
    scheme = QuantScheme(activations=activations, weights=weights)
    return quantize(_model(), _samples(), scheme=scheme, **more)


def _constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def _weight(model: ir.Model) -> ir.Node:
    (found,) = [
        node
        for node in model.graph
        if node.op_type == "DequantizeLinear"
        and node.inputs[0] is not None
        and node.inputs[0].const_value is not None
        and len(node.inputs[0].const_value.shape) == 4
    ]
    return found


def _activation_steps(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "QuantizeLinear"]


@pytest.mark.parametrize(("activations", "weights"), SCHEMES)
def test_what_comes_out_is_of_the_scheme_and_runs(activations: str, weights: str) -> None:
    done = _quantized(activations, weights)
    weight = _weight(done.model)
    assert _constant(weight.inputs[0]).dtype.name == weights.split("-", maxsplit=1)[0]
    steps = _activation_steps(done.model)
    assert steps
    for step in steps:
        zero = _constant(step.inputs[2])
        assert zero.dtype.name == activations.split("-", maxsplit=1)[0]
        if activations.endswith("-symmetric"):
            assert not zero.any()
    if weights.endswith("-symmetric"):
        assert not _constant(weight.inputs[2]).any()
    scale = _constant(weight.inputs[1])
    if "per-channel" in weights:
        assert scale.shape == (3,)  # one for each output channel
        assert weight.attributes["axis"].as_int() == 0
    else:
        assert scale.size == 1
    data = ir.to_proto(done.model).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    sample = next(_samples())
    scores, z = session.run(None, sample)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-3)
    assert np.array_equal(z, np.maximum(sample["image"], 0))  # the body computes in float


def test_a_scheme_that_the_quantizer_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(QuantizeError, match=r"activation_type=QuantType\.QInt8, weight_type"):
        _quantized("int8-asymmetric", "uint8-per-tensor-asymmetric")


def test_answers_stay_near_the_float_model() -> None:
    done = _quantized()
    sample = next(_samples())
    answers = []
    for model in (_model(), done.model):
        data = ir.to_proto(model).SerializeToString()
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        answers.append(session.run(["scores"], sample)[0])
    assert np.abs(answers[0] - answers[1]).max() < 0.05


def test_it_counts_what_it_did() -> None:
    done = _quantized()
    assert (done.samples, done.quantized_weights) == (6, 1)
    assert done.quantized_nodes >= 1


def test_what_stays_in_float_is_named_with_its_reason() -> None:
    left = {node.name: (node.op, node.reason) for node in _quantized().left_float}
    assert left["soft"] == ("Softmax", "Softmax is not quantized")
    assert left["choice"] == ("If", "the bodies of If stay in float")


@pytest.mark.parametrize("kept", ["relu", "Relu"])
def test_the_recipe_keeps_nodes_in_float_by_name_and_by_operator(kept: str) -> None:
    done = _quantized(keep_float=(kept,))
    left = {node.name: node.reason for node in done.left_float}
    assert left["relu"] == "the recipe keeps it in float"


def test_keeping_everything_leaves_nothing_to_quantize() -> None:
    with pytest.raises(QuantizeError, match=r"no node was quantized \(the recipe keeps it"):
        _quantized(keep_float=("conv", "relu"))


def test_a_model_without_work_for_eight_bits_says_so() -> None:
    samples = [{"image": np.ones((1, 4), np.float32)}]
    scheme = QuantScheme(activations="int8-symmetric", weights="int8-per-channel-symmetric")
    with pytest.raises(QuantizeError) as caught:
        quantize(_model(WITHOUT_WORK), samples, scheme=scheme)
    assert str(caught.value) == (
        "cannot quantize idle: no node was quantized (Softmax is not quantized)"
    )
    assert caught.value.hint == "build with --precision fp32"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused_by_number(bad: float) -> None:
    samples = list(_samples(3))
    samples[2]["image"][0, 0, 0, 0] = bad
    scheme = QuantScheme(activations="int8-symmetric", weights="int8-per-channel-symmetric")
    with pytest.raises(QuantizeError, match="sample 2: input 'image' holds NaN or infinite"):
        quantize(_model(), samples, scheme=scheme)


def test_no_samples_are_refused() -> None:
    scheme = QuantScheme(activations="int8-symmetric", weights="int8-per-channel-symmetric")
    with pytest.raises(QuantizeError, match="there are no samples") as caught:
        quantize(_model(), [], scheme=scheme)
    assert "--calib" in caught.value.hint


def test_the_model_that_was_given_stays_as_it_was() -> None:
    model = _model()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    scheme = QuantScheme(activations="int8-symmetric", weights="int8-per-channel-symmetric")
    quantize(model, _samples(), scheme=scheme)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_sample_that_the_model_does_not_take_is_an_error_of_ours() -> None:
    scheme = QuantScheme(activations="int8-symmetric", weights="int8-per-channel-symmetric")
    samples = [{"image": np.ones((1, 2, 5, 6, 6), np.float32), "flag": np.array(True)}]
    with pytest.raises(QuantizeError, match="cannot quantize the model"):
        quantize(_model(), samples, scheme=scheme)
