"""What the library says of arguments that make no sense together, or none at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edgesdk
from edgesdk.errors import DataError, EdgeError, ModelError, ProfileError, QuantizeError
from edgesdk.plan.recipe import CALIBRATED
from edgesdk.quantize.api import _NEED_DATA
from tests.unit.quantize.floats import named, samples, shipped
from tests.unit.quantize.modes import normal

MODEL = named(
    """n (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y)
    { c0 = Conv (x, w) r = Relu (c0)
      y = Conv (r, v) }""",
    {"w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1)},
)
TWO = named(
    """n (float[1, 4] a, float[1, 4] b) => (float[1, 4] y)
    { s = Add (a, b)
      y = Gemm (s, w) }""",
    {"w": normal(4, 4)},
)


def quantize(data: Any = None, model: Any = MODEL, **more: Any) -> Any:
    given = samples(MODEL, 4) if data is None else data
    return edgesdk.quantize(
        model, given, **{"scheme": shipped("onnxruntime-cpu"), "means": (), **more}
    )


@pytest.mark.parametrize("model", [b"\x08\x08", None, 7, [MODEL]])
def test_what_is_no_model_is_refused_with_the_types_that_are_taken(model: Any) -> None:
    with pytest.raises(ModelError, match="expected the path of an ONNX file") as caught:
        edgesdk.quantize(model, None)
    assert f"an object of type {type(model).__name__}" in str(caught.value)


def test_errors_of_a_model_in_memory_do_not_name_a_file() -> None:
    model = named("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    model.graph.node(0).op_type = "Negg"
    with pytest.raises(EdgeError, match="the model in memory") as caught:
        quantize(model=model)
    told = f"{caught.value} {caught.value.hint} {caught.value.facts}"
    assert "edgesdk-quantize-" not in told


def test_one_array_is_taken_for_the_only_input() -> None:
    assert quantize(normal(6, 3, 8, 8)).samples == 6


def test_one_array_for_several_inputs_is_refused_by_their_names() -> None:
    with pytest.raises(DataError) as caught:
        quantize(normal(6, 4), TWO)
    assert str(caught.value) == (
        "cannot calibrate: one array was given, the model has inputs 'a', 'b'"
    )


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([normal(1, 3, 8, 8)], "sample 0: it is an object of type ndarray"),
        (7, "cannot calibrate with an object of type int"),
    ],
)
def test_data_of_another_kind_is_refused_by_its_type(data: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        quantize(data)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("kept", "problem", "hint"),
    [
        (
            ["c1"],
            "cannot use keep_float=: the model has no node",
            "name a node, or an operator type: it has Conv, Relu",
        ),
        ("c0", "it is the text 'c0' (expected a list of names)", "write ['c0']"),
        ({"Konv"}, "no operator type 'Konv'", "did you mean Conv?"),
    ],
)
def test_a_typo_in_what_stays_float_is_refused(kept: Any, problem: str, hint: str) -> None:
    with pytest.raises(QuantizeError) as caught:
        quantize(keep_float=kept)
    assert problem in str(caught.value)
    assert caught.value.hint == hint


def test_operator_types_that_only_onnx_knows_may_stay_float() -> None:
    done = quantize(keep_float=["LSTM", "y"])
    assert [node.name for node in done.left_float] == ["y"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"metric": lambda found, labels: 0.0}, "by metric=: there are no labels"),
        ({"score": lambda run: 0.0, "labels": np.arange(4)}, "score= and labels= together"),
        (
            {"score": lambda run: 0.0, "metric": lambda found, labels: 0.0},
            "score= and metric= together",
        ),
        ({"means": "range-mse"}, "the means 'range-mse': it is one text"),
    ],
)
def test_arguments_that_would_be_left_aside_are_refused(
    more: dict[str, Any], problem: str
) -> None:
    with pytest.raises(QuantizeError, match=problem) as caught:
        quantize(**more)
    assert caught.value.hint


def test_labels_without_data_are_refused() -> None:
    with pytest.raises(QuantizeError, match="labels= without data"):
        edgesdk.quantize(MODEL, None, labels=np.arange(4), precision="fp16")


def test_what_needs_no_data_goes_without() -> None:
    assert edgesdk.quantize(MODEL, None, precision="auto").precision not in CALIBRATED
    assert _NEED_DATA == CALIBRATED


def test_a_backend_that_was_misspelt_is_suggested() -> None:
    with pytest.raises(ProfileError) as caught:
        quantize(scheme="host/openvino-cpv")
    assert caught.value.hint == "did you mean openvino-cpu?"
