"""What is allowed in calibration data and probably not meant is said; the rest is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgesdk.data.dataset import open_dataset
from edgesdk.model import open_model, simplify
from edgesdk.model.values import Finding
from edgesdk.quantize.values import Quantized
from tests.unit.quantize.floats import named, static
from tests.unit.quantize.modes import normal

Sample = dict[str, np.ndarray]
ABOUT_DATA = {
    "few-samples",
    "samples-alike",
    "input-constant",
    "input-saturated",
    "activation-saturated",
}
MODEL = named(
    "n (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y)"
    "{ c = Conv (x, w) r = Clip (c, zero, six) y = Conv (r, v) }",
    {
        "w": np.abs(normal(4, 3, 3, 3)) * 0.2,
        "v": normal(4, 4, 1, 1),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    },
)


def pictures(count: int = 20, *, top: float = 1.0) -> list[Sample]:
    random = np.random.default_rng(1)
    return [{"x": (top * random.random((1, 3, 8, 8))).astype(np.float32)} for _ in range(count)]


def found(data: list[Sample]) -> dict[str, Finding]:
    return about_data(static(MODEL, data=data))


def about_data(done: Quantized) -> dict[str, Finding]:
    return {one.code: one for one in done.findings if one.code in ABOUT_DATA}


def test_typical_samples_give_rise_to_nothing() -> None:
    assert not found(pictures())


def test_few_samples_are_told() -> None:
    finding = found(pictures(15))["few-samples"]
    assert finding.message == "15 calibration samples are few (expected at least 16)"
    assert finding.severity == "warning"
    assert "100 typical inputs" in finding.hint


def test_samples_that_are_all_the_same_are_told() -> None:
    assert set(found(pictures(1) * 20)) == {"samples-alike"}
    message = found(pictures(1) * 20)["samples-alike"].message
    assert message == "all 20 calibration samples are the same"


def test_a_single_sample_is_few_and_not_alike() -> None:
    assert set(found(pictures(1))) == {"few-samples"}


def test_an_input_that_never_changes_is_told() -> None:
    finding = found([{"x": np.full((1, 3, 8, 8), 0.5, np.float32)}] * 20)["input-constant"]
    assert finding.message == "input 'x' is 0.5 everywhere in the calibration samples"
    assert finding.subject == "x"


def test_an_input_that_hits_its_upper_end_is_told() -> None:
    data = [{"x": np.minimum(one["x"] * 2.5, 1.0)} for one in pictures()]
    finding = found(data)["input-saturated"]
    assert finding.message.startswith("59")
    assert finding.message.endswith(
        "% of the values of input 'x' are 1, the end of their range (expected numbers that "
        "spread)"
    )


def test_silence_and_margins_at_the_lower_end_are_fine() -> None:
    data = pictures()
    for one in data:
        one["x"][:, :, :6] = 0.0
    assert not found(data)


def test_black_and_white_is_fine() -> None:
    data = [{"x": (one["x"] > 0.3).astype(np.float32)} for one in pictures()]
    assert "input-saturated" not in found(data)


def test_pixels_up_to_255_for_a_model_up_to_1_hit_the_ceiling() -> None:
    finding = found(pictures(top=255.0))["activation-saturated"]
    assert finding.subject == "r"
    assert "% of what 'r' gives is at its ceiling of 6" in finding.message
    assert "pixels of 0 to 255" in finding.hint


def test_the_demo_has_nothing_to_complain_about(root: Path) -> None:
    opened = open_model(root / "configs" / "demo" / "digits_cnn.onnx")
    data = open_dataset(root / "configs" / "demo" / "calib.npz", opened.source.inputs)
    assert not about_data(static(simplify(opened.ir), data=list(data.samples())))


def test_a_tensor_that_holds_no_numbers_keeps_its_readers_in_float() -> None:
    model = named(
        "n (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y, float[1, 4, 8, 8] z)"
        "{ c = Conv (x, w) y = Conv (c, v) m = Div (x, zero) z = Conv (m, u) }",
        {
            "w": normal(4, 3, 3, 3),
            "v": normal(4, 4, 1, 1),
            "u": normal(4, 3, 1, 1),
            "zero": np.array(0, np.float32),
        },
    )
    left = {node.name: node.reason for node in static(model, data=pictures()).left_float}
    assert left["z"] == "tensor 'm' held NaN or infinite values in calibration"
