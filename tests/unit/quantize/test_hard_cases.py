"""Cases that once gave wrong numbers without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import edgesdk
from edgesdk.errors import QuantizeError, RecipeError
from edgesdk.plan.recipe import load_recipe, parse_share
from edgesdk.quantize.budget import Budget
from edgesdk.quantize.compare import noise_by_output
from edgesdk.quantize.engine import quantize_static
from edgesdk.quantize.host import HostSession
from edgesdk.quantize.modes import Wanted, convert
from edgesdk.quantize.observe import Kept
from edgesdk.quantize.prune_spec import parse_prune
from tests.unit.quantize.floats import named, samples, shipped
from tests.unit.quantize.modes import normal

DETECTOR = """
detect (float[1, 4, 8, 8] x) => (int64[4, N] found)
{
    c = Conv (x, w) r = Relu (c) d = Conv (r, v)
    limit = Constant <value_float = 0.4> ()
    over = Greater (d, limit) found = NonZero (over)
}
"""
TWO_READERS = """
two (float[1, 4, 10, 10] x) => (float[1, 4, 8, 8] y, float[1, 8, 10, 3] z)
{
    c = Conv (x, w) r = Relu (c)
    y = Conv (r, v)
    z = MatMul (r, m)
}
"""
WALLS = """
walls (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
{
    low = Constant <value_float = %s> () high = Constant <value_float = %s> ()
    c = Conv (x, w) k = Clip (c, low, high) d = Conv (k, v) y = Relu (d)
}
"""
SEQUENCE = """
list (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, seq(float[1, 4, 8, 8]) s)
{
    c = Conv (x, w) y = Relu (c) s = SequenceConstruct (y)
}
"""


def square(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"w": normal(4, 4, 1, 1, seed=1), "v": normal(4, 4, 1, 1, seed=2), **more}


def session_noise(model: ir.Model, other: ir.Model) -> float:
    session = HostSession(model)
    kept = [Kept(inputs=s, answers=session.run(s)) for s in samples(model, 8, seed=7)]
    return max(noise_by_output(HostSession(other), kept).values())


def test_answers_of_another_length_are_wrong_answers() -> None:
    model = named(DETECTOR, square())
    with pytest.raises(QuantizeError, match="cannot keep the loss of noise within 1e-06"):
        quantize_static(
            model,
            samples(model, 24),
            scheme=shipped("onnxruntime-cpu"),
            budget=Budget(limit=1e-6),
        )


def test_one_tensor_may_have_readers_that_call_other_axes_channels() -> None:
    weights = {"w": normal(8, 4, 1, 1), "v": normal(4, 8, 3, 3), "m": normal(10, 3)}
    model = named(TWO_READERS, weights)
    done = quantize_static(model, samples(model, 24), scheme=shipped("onnxruntime-cpu"))
    assert session_noise(model, done.model) < 1e-3


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0), (0.0, 6.0)])
def test_a_clip_with_two_walls_costs_no_kernel(low: float, high: float) -> None:
    model = named(WALLS % (low, high), square())
    done = quantize_static(model, samples(model, 24), scheme=shipped("onnxruntime-cpu"))
    assert done.kernels == (2, 2)
    assert not done.left_float


def test_a_clip_away_from_zero_stays_outside_the_kernel() -> None:
    model = named(WALLS % (0.5, 3.0), square())
    done = quantize_static(model, samples(model, 24), scheme=shipped("onnxruntime-cpu"))
    assert done.kernels == (2, 2)
    assert [node.name for node in done.left_float if node.op == "Clip"] == ["k"]


def test_sequences_among_the_outputs_are_not_compared() -> None:
    model = named(SEQUENCE, square())
    done = quantize_static(model, samples(model, 24), scheme=shipped("onnxruntime-cpu"))
    assert set(done.sqnr_db or {}) == {"y"}


class Reused:
    """Gives every sample in one and the same array."""

    def __init__(self, data: list[dict[str, np.ndarray]]) -> None:
        self._data = data

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        buffer = np.zeros_like(self._data[0]["x"])
        for one in self._data:
            buffer[...] = one["x"]
            yield {"x": buffer}


def test_samples_may_come_in_one_array_that_is_used_again() -> None:
    model = named(WALLS % (0.0, 6.0), square())
    data = samples(model, 24)
    plain, reused = (
        quantize_static(model, each, scheme=shipped("onnxruntime-cpu"))
        for each in (data, Reused(data))
    )
    assert reused.sqnr_db == plain.sqnr_db


def test_weights_can_be_pruned_without_being_quantized() -> None:
    model = named(
        WALLS % (0.0, 6.0), {k: normal(8, 4, 1, 1) for k in "w"} | {"v": normal(4, 8, 1, 1)}
    )
    data = samples(model, 24)
    wanted = Wanted(precision="fp32", prune=parse_prune("unstructured:0.5"))
    done = convert(model, lambda: data, wanted)
    assert done.precision == "fp32"
    assert done.pruned is not None
    zeros = sum(
        int((value.const_value.numpy() == 0).sum())
        for value in done.model.graph.initializers.values()
        if value.const_value is not None and value.const_value.numpy().ndim == 4
    )
    assert zeros >= 16


@pytest.mark.parametrize("text", ["1", "1.0", True])
def test_a_drop_of_one_is_not_taken_for_one_per_cent(text: object) -> None:
    with pytest.raises(RecipeError, match="says everything, not one per cent") as caught:
        parse_share(text)  # type: ignore[arg-type]  # YAML gives what it likes
    assert caught.value.hint == "write 1% or 0.01"


def test_a_recipe_with_a_drop_of_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("max_drop: 1\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="says everything"):
        load_recipe(path)


def test_a_bias_beyond_every_scale_leaves_finite_scales() -> None:
    text = (
        "big (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) { c = Conv (x, w, b) y = Relu (c) }"
    )
    weights = {"w": normal(4, 4, 1, 1) * 1e-30, "b": np.full(4, 1e30, np.float32)}
    model = named(text, weights)
    data = [{"x": one["x"] * 1e-30} for one in samples(model, 24)]
    done = quantize_static(model, data, scheme=shipped("litert-int8"))
    for value in done.model.graph.initializers.values():
        assert value.const_value is not None
        assert np.isfinite(value.const_value.numpy().astype(np.float64)).all(), value.name


def test_the_demo_model_quantizes_through_the_one_public_verb() -> None:
    demo = Path(__file__).parents[3] / "configs" / "demo"
    done = edgesdk.quantize(demo / "digits_cnn.onnx", demo / "calib.npz")
    assert done.kernels is not None
    assert done.kernels[0] == done.kernels[1] > 10
