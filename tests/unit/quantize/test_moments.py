"""Moments are those of the whole im2col matrix, whatever the window, the passes and batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from edgesdk.errors import QuantizeError
from edgesdk.progress import Progress
from edgesdk.quantize.moments import (
    collect_moments,
    moments_by_pass,
    rows_to_weight,
    weight_rows,
    why_no_moments,
)

EVERY: dict[str, Any] = {"columns_per_sample": 1 << 20, "fewest_columns": 1 << 20}
WINDOWS = [
    ("group = 1", (6, 4, 3, 3), 1),
    ("pads = [1, 1, 1, 1]", (6, 4, 3, 3), 1),
    ("pads = [0, 1, 2, 0], strides = [2, 1]", (6, 4, 3, 2), 1),
    ("pads = [2, 2, 2, 2], dilations = [2, 2]", (6, 4, 3, 3), 1),
    ("pads = [1, 1, 1, 1], group = 4", (4, 1, 3, 3), 4),
    ("group = 4, strides = [2, 2], pads = [2, 2, 2, 2]", (8, 1, 5, 5), 4),
    ("group = 2", (6, 2, 1, 1), 2),
    ('auto_pad = "SAME_UPPER", strides = [2, 2]', (6, 4, 3, 3), 1),
    ('auto_pad = "SAME_LOWER", strides = [3, 2]', (6, 4, 4, 2), 1),
    ('auto_pad = "VALID", strides = [2, 2]', (6, 4, 3, 3), 1),
]


def _model(text: str, **weights: np.ndarray) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.serde.deserialize_model(proto)


def _random(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _conv(attributes: str, weight: np.ndarray, batch: str = "1") -> ir.Model:
    text = (
        f"g (float[{batch}, 4, 9, 8] x) => (float[{batch}, o, h, v] y)"
        f"{{ [conv] y = Conv <{attributes}> (x, w) }}"
    )
    return _model(text, w=weight)


def _columns_by_unit_kernels(
    attributes: str, shape: tuple[int, ...], groups: int, images: list[np.ndarray]
) -> np.ndarray:
    """Cut columns out with a convolution whose kernels are each a single one; [G, P, K]."""
    width = int(np.prod(shape[1:]))
    found = []
    for at in range(width):
        kernel = np.zeros((groups, width), np.float32)
        kernel[:, at] = 1
        given = kernel.reshape(groups, *shape[1:])
        found.append([_run(_conv(attributes, given), image) for image in images])
    whole = np.array(found)[:, :, 0]  # K, samples, G, h, v
    return whole.transpose(2, 1, 3, 4, 0).reshape(groups, -1, width).astype(np.float64)


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run(None, {"x": x})[0]
    return answer


@pytest.mark.parametrize(("attributes", "shape", "groups"), WINDOWS)
def test_moments_of_a_convolution_are_those_of_its_im2col_matrix(
    attributes: str, shape: tuple[int, ...], groups: int
) -> None:
    images = [_random(1, 4, 9, 8, seed=seed) for seed in range(3)]
    columns = _columns_by_unit_kernels(attributes, shape, groups, images)
    done = collect_moments(
        _conv(attributes, _random(*shape)),
        ["conv"],
        [{"x": image} for image in images],
        **EVERY,
    )
    seen = done.moments["conv"]
    assert seen.columns == columns.shape[1]
    expected = columns.transpose(0, 2, 1) @ columns / columns.shape[1]
    np.testing.assert_allclose(seen.second, expected, atol=1e-6)
    np.testing.assert_allclose(seen.mean, columns.mean(axis=1), atol=1e-6)
    mean = columns.mean(axis=1, keepdims=True)
    centred = (columns - mean).transpose(0, 2, 1) @ (columns - mean) / columns.shape[1]
    np.testing.assert_allclose(seen.centred, centred, atol=1e-6)


def test_a_convolution_over_one_axis_has_moments_too() -> None:
    text = "g (float[1, 2, 7] x) => (float[1, 3, n] y) { [conv] y = Conv (x, w) }"
    x = _random(1, 2, 7)
    done = collect_moments(_model(text, w=_random(3, 2, 3)), ["conv"], [{"x": x}])
    columns = np.stack([x[0, :, at : at + 3].reshape(-1) for at in range(5)]).astype(float)
    np.testing.assert_allclose(
        done.moments["conv"].second[0], columns.T @ columns / 5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("Gemm (x, w)", (5, 3)),
        ("Gemm <transB = 1> (x, w)", (3, 5)),
        ("MatMul (x, w)", (5, 3)),
    ],
)
def test_moments_of_a_matrix_are_those_of_the_rows_on_its_left(
    node: str, shape: tuple[int, ...]
) -> None:
    text = f"g (float[2, 5] x) => (float[2, 3] y) {{ [it] y = {node} }}"
    samples = [{"x": _random(2, 5, seed=seed)} for seed in range(4)]
    done = collect_moments(_model(text, w=_random(*shape)), ["it"], samples)
    rows = np.concatenate([sample["x"] for sample in samples]).astype(np.float64)
    np.testing.assert_allclose(done.moments["it"].second[0], rows.T @ rows / 8, rtol=1e-5)
    np.testing.assert_allclose(done.moments["it"].mean[0], rows.mean(axis=0), rtol=1e-5)
    assert (done.samples, done.passes, done.moments["it"].columns) == (4, 1, 8)


def test_rows_times_moments_give_the_energy_of_the_output() -> None:
    model = _conv("pads = [1, 1, 1, 1], group = 4", _random(8, 1, 3, 3))
    x = _random(1, 4, 9, 8, seed=5)
    done = collect_moments(model, ["conv"], [{"x": x}], **EVERY)
    rows = weight_rows(model.graph[0]).reshape(4, 2, 9)
    energy = np.einsum("gnk,gkl,gnl->gn", rows, done.moments["conv"].second, rows)
    seen = (_run(model, x)[0].astype(np.float64) ** 2).mean(axis=(1, 2))
    np.testing.assert_allclose(energy.reshape(-1), seen, rtol=1e-5)


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        ("Conv (x, w)", (3, 5, 2, 2)),
        ("Gemm (x, w)", (5, 3)),
        ("Gemm <transB = 1> (x, w)", (3, 5)),
        ("MatMul (x, w)", (5, 3)),
    ],
)
def test_rows_go_back_to_the_weight_they_came_from(node: str, shape: tuple[int, ...]) -> None:
    weight = _random(*shape)
    model = _model(f"g (float[n, 5] x) => (float[n, 3] y) {{ y = {node} }}", w=weight)
    rows = weight_rows(model.graph[0])
    assert len(rows) == 3
    assert np.array_equal(rows_to_weight(model.graph[0], rows), weight)


DEEP = """
g (float[N, 3, 12, 12] x, float[N, 3, 12, 12] x2) => (float[N, 5] y)
{
    x3 = Add (x, x2)
    [c1] a = Conv <pads = [1, 1, 1, 1]> (x3, w1)
    r = Relu (a)
    [c2] b = Conv <pads = [1, 1, 1, 1], group = 8> (r, w2)
    [c3] c = Conv (b, w3)
    [c4] d = Conv (b, w4)
    e = Add (c, d)
    p = GlobalAveragePool (e)
    f = Flatten (p)
    [fc] y = Gemm (f, w5)
}
"""
NAMES = ("c1", "c2", "c3", "c4", "fc")


def _deep(text: str = DEEP) -> ir.Model:
    shapes = {
        "w1": (8, 3, 3, 3),
        "w2": (8, 1, 3, 3),
        "w3": (6, 8, 1, 1),
        "w4": (6, 8, 1, 1),
        "w5": (6, 5),
    }
    return _model(text, **{name: _random(*shape) for name, shape in shapes.items()})


def _pairs(count: int) -> Iterator[dict[str, np.ndarray]]:
    for seed in range(count):
        yield {"x": _random(1, 3, 12, 12, seed=seed), "x2": _random(1, 3, 12, 12, seed=-~seed)}


def test_a_low_cap_takes_several_passes_and_gives_the_same() -> None:
    whole = collect_moments(_deep(), NAMES, list(_pairs(5)))
    assert whole.passes == 1
    apart = collect_moments(_deep(), NAMES, list(_pairs(5)), cap_bytes=27 * 27 * 8)
    assert apart.passes == 3
    assert apart.moments.keys() == set(NAMES)
    for name in NAMES:
        np.testing.assert_allclose(
            apart.moments[name].mean, whole.moments[name].mean, atol=1e-6
        )
        np.testing.assert_allclose(
            apart.moments[name].second, whole.moments[name].second, rtol=1e-5, atol=1e-6
        )


def test_passes_can_be_taken_one_after_the_other() -> None:
    whole = collect_moments(_deep(), (*NAMES, "p"), list(_pairs(5)))
    parts = list(
        moments_by_pass(_deep(), (*NAMES, "p"), list(_pairs(5)), cap_bytes=27 * 27 * 8)
    )
    assert [sorted(part.moments) for part in parts] == [["c1"], ["c2", "c3", "c4"], ["fc"]]
    assert [len(part.left) for part in parts] == [1, 0, 0]
    for part in parts:
        for name, seen in part.moments.items():
            np.testing.assert_allclose(seen.mean, whole.moments[name].mean, atol=1e-6)


def test_samples_that_can_be_read_only_once_are_kept_for_the_next_pass() -> None:
    done = collect_moments(_deep(), NAMES, _pairs(5), cap_bytes=27 * 27 * 8)
    assert (done.passes, done.samples) == (3, 5)
    assert {one.columns for one in done.moments.values()} == {5, 5 * 16}


def test_layers_that_read_the_same_share_their_moments() -> None:
    done = collect_moments(_deep(), NAMES, _pairs(2))
    assert done.moments["c3"] is done.moments["c4"]


def test_an_open_first_axis_changes_nothing_but_the_time() -> None:
    together = collect_moments(_deep(), NAMES, _pairs(11))
    alone = collect_moments(_deep(DEEP.replace("float[N", "float[1")), NAMES, _pairs(11))
    for name in NAMES:
        assert together.moments[name].columns == alone.moments[name].columns
        np.testing.assert_allclose(
            together.moments[name].second, alone.moments[name].second, rtol=1e-5, atol=1e-5
        )


def test_an_open_axis_that_samples_mix_along_is_not_joined() -> None:
    """Attention over an open first axis: joined samples would see each other."""
    text = """
    g (float[T, 4] x) => (float[T, 3] y)
    {
        t = Transpose (x)
        s = MatMul (x, t)
        a = Softmax (s)
        m = MatMul (a, x)
        [out] y = MatMul (m, w)
    }
    """
    samples = [{"x": _random(6, 4, seed=seed)} for seed in range(9)]
    done = collect_moments(_model(text, w=_random(4, 3)), ["out"], samples)
    rows = []
    for sample in samples:
        x = sample["x"].astype(np.float64)
        odds = np.exp(x @ x.T)
        rows.append(odds / odds.sum(axis=1, keepdims=True) @ x)
    stacked = np.concatenate(rows)
    expected = stacked.T @ stacked / len(stacked)
    np.testing.assert_allclose(done.moments["out"].second[0], expected, rtol=1e-4, atol=1e-5)


def test_samples_of_several_shapes_are_taken_as_they_come() -> None:
    text = "g (float[N, 2, H, W] x) => (float[N, 3, h, v] y) { [conv] y = Conv (x, w) }"
    sides = (4, 4, 5, 5, 5, 4)
    samples = [{"x": _random(1, 2, side, side, seed=side)} for side in sides]
    done = collect_moments(_model(text, w=_random(3, 2, 1, 1)), ["conv"], samples, **EVERY)
    assert done.moments["conv"].columns == sum(side * side for side in sides)


def test_subsampled_columns_are_few_differ_by_sample_and_stand_for_all() -> None:
    text = "g (float[1, 2, 64, 64] x) => (float[1, 3, h, v] y) { [conv] y = Conv (x, w) }"
    model = _model(text, w=_random(3, 2, 1, 1))
    ramp = np.stack(np.meshgrid(np.arange(64), np.arange(64))).astype(np.float32)[None] / 64
    few = collect_moments(model, ["conv"], itertools.repeat({"x": ramp}, 8))
    assert few.moments["conv"].columns == 8 * 16
    whole = collect_moments(model, ["conv"], [{"x": ramp}], **EVERY)
    np.testing.assert_allclose(
        few.moments["conv"].second, whole.moments["conv"].second, atol=0.03
    )


def test_the_same_samples_give_the_same_numbers() -> None:
    first, again = (collect_moments(_deep(), NAMES, _pairs(3)) for _ in range(2))
    for name in NAMES:
        assert np.array_equal(first.moments[name].second, again.moments[name].second)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("y = ConvTranspose (x, w)", {}, "ConvTranspose has no matrix of columns here"),
    ("y = Conv (x, x)", {}, "its weights are not constant"),
    ("y = MatMul (w, x)", {}, "its left side is constant"),
    ("y = MatMul (x, w)", {}, "its weights have the shape (2, 3, 2, 2)"),
    ("y = Conv (x, w)", {"largest_width": 11}, "its columns have 12 elements (at most 11)"),
    ("y = Conv (x, w)", {"cap_bytes": 1151}, "its moments take 1152 bytes (at most 1151)"),
]


@pytest.mark.parametrize(("node", "limits", "reason"), REFUSED)
def test_what_cannot_be_described_is_left_with_a_reason(
    node: str, limits: dict[str, Any], reason: str
) -> None:
    text = f"g (float[1, 3, 6, 6] x) => (float[a, b, c, d] y) {{ [it] {node} }}"
    model = _model(text, w=_random(2, 3, 2, 2))
    done = collect_moments(model, ["it"], [{"x": _random(1, 3, 6, 6)}], **limits)
    assert not done.moments
    (left,) = done.left
    assert left.name == "it"
    assert why_no_moments(model.graph[0], **limits) == left.reason
    assert left.reason.startswith(reason)


def test_a_transposed_left_side_and_unknown_names_are_left() -> None:
    text = "g (float[5, 2] x) => (float[2, 3] y) { [it] y = Gemm <transA = 1> (x, w) }"
    done = collect_moments(_model(text, w=_random(5, 3)), ["it", "other"], [])
    assert [(one.name, one.reason) for one in done.left] == [
        ("it", "its left side is transposed"),
        ("other", "0 nodes have this name"),
    ]


def test_inputs_that_are_not_finite_are_left_by_name() -> None:
    text = """
    g (float[1, 4] x) => (float[1, 3] y, float[1, 3] z)
    { l = Log (x) [bad] y = MatMul (l, w) [good] z = MatMul (x, w) }
    """
    done = collect_moments(
        _model(text, w=_random(4, 3)), ["bad", "good"], [{"x": np.zeros((1, 4), np.float32)}]
    )
    assert done.moments.keys() == {"good"}
    assert done.left[0].reason == "its input is empty or not finite on the samples"


def test_no_samples_and_samples_of_another_model_are_refused() -> None:
    with pytest.raises(QuantizeError, match="there are no samples") as caught:
        collect_moments(_deep(), NAMES, [])
    assert "--calib" in caught.value.hint
    with pytest.raises(QuantizeError, match="cannot run the model on a sample"):
        collect_moments(_deep(), NAMES, [{"x": np.ones((1, 3, 12, 12), np.float32)}])


def test_it_tells_of_every_sample_and_leaves_the_model_alone() -> None:
    model = _deep()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    told: list[Progress] = []
    collect_moments(model, NAMES, _pairs(3), on_progress=told.append)
    assert [(one.step, one.done) for one in told] == [("moments", n) for n in (1, 2, 3)]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
