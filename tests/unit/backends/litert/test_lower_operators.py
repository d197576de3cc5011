"""What the cases of the onnx package leave out: odd shapes, states, places, refusals."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.unit.backends.litert.lowering import LiteRT, far, in_onnxruntime, lower
from tests.unit.quantize.floats import samples
from tests.unit.quantize.modes import graph, normal

HEADER = '<ir_version: 10, opset_import: ["" : 18]>\n'


def _graph(text: str, **constants: np.ndarray) -> ir.Model:
    return graph(HEADER + text, constants)


def _near(model: ir.Model) -> LiteRT:
    """Hold three samples to onnxruntime's answers, in one interpreter, one after the other."""
    made = lower(model)
    assert isinstance(made, bytes), made
    file = LiteRT(made)
    for sample in samples(model, 3):
        answers = file.run(sample)
        for name, wanted in in_onnxruntime(model, sample).items():
            assert far(answers[name], wanted) <= 1e-5, name
    return file


def _reason(text: str, **constants: np.ndarray) -> str:
    made = lower(_graph(text, **constants))
    assert isinstance(made, dict)
    (reason,) = made.values()
    return reason


@pytest.mark.parametrize("op", ["Max", "Less", "Pow", "Sub"])
def test_five_dimensions_broadcast(op: str) -> None:
    kind = "bool" if op == "Less" else "float"
    _near(
        _graph(
            f"""g (float[2,3,4,5,6] x) => ({kind}[2,3,4,5,6] y)
            {{ a = Abs (x)
               y = {op} (a, k) }}""",
            k=np.abs(normal(3, 1, 1, 6)),
        )
    )


def test_a_choice_broadcasts_all_its_operands() -> None:
    _near(
        _graph(
            "g (bool[4,1] c, float[1,5] x, float[3,1,1] d) => (float[3,4,5] y)"
            " { y = Where (c, x, d) }"
        )
    )


@pytest.mark.parametrize("slope", [(), (1,), (4, 1, 1), (4, 8, 8)])
def test_prelu_takes_slopes_of_any_shape(slope: tuple[int, ...]) -> None:
    _near(
        _graph(
            "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = PRelu (x, s) }",
            s=np.asarray(np.abs(normal(*slope)), np.float32),
        )
    )


@pytest.mark.parametrize("way", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("size", [(7, 13), (3, 5), (16, 16)])
def test_images_are_resized_to_odd_sizes(mode: str, way: str, size: tuple[int, int]) -> None:
    _near(
        _graph(
            f"""g (float[1,2,8,8] x) => (float[1,2,{size[0]},{size[1]}] y)
            {{ y = Resize <mode = "{mode}", coordinate_transformation_mode = "{way}">
                   (x, , , s) }}""",
            s=np.array([1, 2, *size]),
        )
    )


def test_one_axis_is_resized_where_an_image_has_others() -> None:
    _near(
        _graph(
            """g (float[2,6,5] x) => (float[2,6,10] y)
            { y = Resize <mode = "linear"> (x, , k) }""",
            k=np.array([1, 1, 2], np.float32),
        )
    )


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_begin_anew_with_each_run(op: str, gates: int, direction: str) -> None:
    ways = 2 if direction == "bidirectional" else 1
    outputs = "y, h, c" if op == "LSTM" else "y, h"
    cell = f", float[{ways},2,3] c" if op == "LSTM" else ""
    initial = "s, s" if op == "LSTM" else "s"
    _near(
        _graph(
            f"""g (float[5,2,4] x, float[{ways},2,3] s)
            => (float[5,{ways},2,3] y, float[{ways},2,3] h{cell})
            {{ {outputs} = {op} <hidden_size = 3, direction = "{direction}">
                (x, w, r, b, , {initial}) }}""",
            w=normal(ways, 3 * gates, 4) / 2,
            r=normal(ways, 3 * gates, 3, seed=2) / 2,
            b=normal(ways, 6 * gates, seed=3) / 2,
        )
    )


def test_transposed_convolutions_go_on_behind_their_windows() -> None:
    _near(
        _graph(
            """g (float[1,4,5,5] x) => (float[1,6,12,12] y)
            { y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1],
                  output_padding = [1, 1], group = 2> (x, w, b) }""",
            w=normal(4, 3, 5, 5) / 5,
            b=normal(6),
        )
    )


def test_indices_count_from_the_end_where_they_are_negative() -> None:
    model = _graph(
        "g (float[3,4] x, int64[2] i) => (float[3,2] y) { y = Gather <axis = 1> (x, i) }"
    )
    made = lower(model)
    assert isinstance(made, bytes)
    x = normal(3, 4)
    answer = LiteRT(made).run({"x": x, "i": np.array([-1, 2])})["y"]
    assert np.array_equal(answer, x[:, [3, 2]])


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (
            "its starts are not known before it runs",
            "g (float[4] x, int64[1] s) => (float[2] y) { y = Slice (x, s, s) }",
        ),
        (
            "its places follow tf_crop_and_resize",
            'g (float[1,1,4,4] x) => (float[1,1,8,8] y) { y = Resize <mode = "linear",'
            ' coordinate_transformation_mode = "tf_crop_and_resize"> (x, r, k) }',
        ),
        (
            "a sequence of 600 steps (at most 512)",
            "g (float[600,1,2] x) => (float[600,1,1,2] y)"
            " { y = RNN <hidden_size = 2> (x, w, v) }",
        ),
        (
            "an ellipsis in its equation",
            'g (float[2,3] x) => (float[3,2] y) { y = Einsum <equation = "...ij->...ji"> (x) }',
        ),
    ],
)
def test_what_is_refused_says_why(reason: str, text: str) -> None:
    constants = {
        "r": np.array([0, 0, 0, 0, 1, 1, 1, 1], np.float32),
        "k": np.array([1, 1, 2, 2], np.float32),
        "w": normal(1, 2, 2),
        "v": normal(1, 2, 2),
    }
    used = {name: one for name, one in constants.items() if f" {name}" in text}
    assert _reason(text, **used) == reason
