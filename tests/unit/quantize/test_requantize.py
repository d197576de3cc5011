"""Models that arrive quantized: passed through as they are, or taken apart when asked."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import edgesdk
from edgesdk.errors import QuantizeError
from edgesdk.model.save import model_bytes
from edgesdk.quantize.dynamic import to_dynamic_int8
from edgesdk.quantize.prepare import is_quantized
from tests.unit.quantize.floats import SHIPPED, array_of, named, nodes, samples, shipped, static
from tests.unit.quantize.modes import far, normal, ops, run

TEXT = """small (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4] z)
{ y = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  p = GlobalAveragePool (y)
  f = Flatten (p)
  z = Gemm (f, v) }"""
SCHEME = shipped("onnxruntime-cpu")


def _float() -> ir.Model:
    weights = {"w": normal(4, 4, 3, 3), "b": normal(4), "v": normal(4, 4)}
    return named(TEXT, weights)


@pytest.mark.parametrize("by", SHIPPED)
def test_a_quantized_model_is_passed_through_with_a_finding(by: str) -> None:
    model = _float()
    whole = static(model, by).model
    done = edgesdk.quantize(whole, samples(model), scheme=SCHEME)
    (finding,) = done.findings
    assert (finding.code, finding.severity) == ("already-quantized", "warning")
    assert finding.message == (
        "the model arrives quantized, so it is deployed with its own numbers"
    )
    assert "requantize: true" in finding.hint
    assert (done.precision, done.samples, done.quantized_nodes) == ("int8", 0, 0)
    assert ops(done.model) == ops(whole)
    sample = samples(model)[0]
    for a, b in zip(run(whole, **sample), run(done.model, **sample), strict=True):
        assert np.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("by", SHIPPED)
def test_requantizing_gives_a_fresh_graph_of_the_scheme_that_is_asked_for(by: str) -> None:
    model = _float()
    whole = static(model, by).model
    done = edgesdk.quantize(whole, samples(model), scheme=SCHEME, requantize=True, means=())
    assert "already-quantized" not in [finding.code for finding in done.findings]
    assert done.kernels == (2, 2)
    assert [value.name for value in done.model.graph.outputs] == ["y", "z"]
    for node in nodes(done.model, "QuantizeLinear"):
        assert array_of(node.inputs[2]).dtype == np.uint8
    assert far(model, done.model, **samples(model)[0]) < 0.06


def test_requantizing_once_more_changes_nothing_to_speak_of() -> None:
    model = _float()
    whole = static(model).model
    again = edgesdk.quantize(whole, samples(model), scheme=SCHEME, requantize=True, means=())
    assert far(whole, again.model, **samples(model)[0]) < 0.03


def test_requantizing_leaves_the_model_given_as_it_was() -> None:
    model = _float()
    whole = static(model).model
    before = model_bytes(whole)
    edgesdk.quantize(whole, samples(model), scheme=SCHEME, requantize=True, means=())
    assert model_bytes(whole) == before


def test_kernels_that_are_no_pairs_cannot_be_taken_apart() -> None:
    model = named(
        "g (float[2, 8] x) => (float[2, 4] y) { y = MatMul (x, w) }", {"w": normal(8, 4)}
    )
    whole = to_dynamic_int8(model, runtime="any", least_weights=1).model
    assert is_quantized(whole)
    with pytest.raises(QuantizeError) as caught:
        edgesdk.quantize(whole, samples(model), scheme=SCHEME, requantize=True)
    assert str(caught.value) == (
        "cannot requantize the model: it has 8-bit operators that are no Q/DQ pairs"
    )
    assert caught.value.hint == "give the float model it was made from"
