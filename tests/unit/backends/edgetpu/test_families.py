"""What stays on the processor of the common kinds of networks, drawn small.

Each case has the operators, types and ranks that the converters give such a network; what is
left is what the table of operators, the published logs and the rule of one part say of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgesdk.backends.edgetpu.mapping import foretell
from edgesdk.model import open_tflite
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

RULES = load_compiler_rules("edgetpu-16")
Drawn = tuple[list[int], list[int]]


class Sketch(Network):
    """A network in the making, with a call for each operator that these need."""

    def step(self, name: str, taken: int, shape: list[int], *constants: object) -> int:
        """Add an operator with one input and constants, of the type of its input."""
        inputs = [taken, *(self.constant(values) for values in constants)]
        return self.op(name, inputs, self.tensor(shape))

    def both(self, name: str, one: int, other: int) -> int:
        """Add an operator with two inputs and the shape of the first."""
        return self.op(name, [one, other], self.tensor(list(self.tensors[one].shape)))

    def dense(self, taken: int, outputs: int) -> int:
        """Add a fully connected layer."""
        depth = self.tensors[taken].shape[-1]
        weights = self.constant(np.ones((outputs, depth)), "int8")
        bias = self.constant(np.zeros(outputs), "int32")
        shape = [*self.tensors[taken].shape[:-1], outputs]
        return self.op("FULLY_CONNECTED", [taken, weights, bias], self.tensor(shape))

    def depthwise(self, taken: int) -> int:
        """Add a depthwise convolution of 3 x 3."""
        shape = list(self.tensors[taken].shape)
        weights = self.constant(np.ones((1, 3, 3, shape[-1])), "int8")
        bias = self.constant(np.zeros(shape[-1]), "int32")
        return self.op("DEPTHWISE_CONV_2D", [taken, weights, bias], self.tensor(shape))

    def join(self, parts: list[int], shape: list[int]) -> int:
        """Add a concatenation along the last axis but where shapes say otherwise."""
        return self.op("CONCATENATION", parts, self.tensor(shape), kind="ConcatenationOptions")


def left(tmp_path: Path, draw: Callable[[Sketch], Drawn]) -> list[str]:
    net = Sketch()
    inputs, outputs = draw(net)
    graph = open_tflite(net.save(tmp_path / "m.tflite", inputs, outputs)).graph
    return [graph.ops[index].name for index in sorted(foretell(graph, RULES))]


def classifier(net: Sketch) -> Drawn:
    """MobileNet v1 of the first converter: 8 bits in and out, nothing around."""
    taken = net.tensor([1, 8, 8, 3], "uint8")
    value = net.conv(net.depthwise(net.conv(taken, 8)), 16)
    pooled = net.op("AVERAGE_POOL_2D", [value], net.tensor([1, 1, 1, 16]))
    logits = net.step("RESHAPE", net.conv(pooled, 10), [1, 10], [1, 10])
    return [taken], [net.step("SOFTMAX", logits, [1, 10])]


def converted_classifier(net: Sketch) -> Drawn:
    """The same after training: float in and out (logs of Keras models)."""
    taken = net.tensor([1, 8, 8, 3], "float32")
    value = net.step("QUANTIZE", taken, [1, 8, 8, 3])
    value = net.both("ADD", net.conv(value, 3), value)
    mean = net.step("MEAN", net.conv(value, 16), [1, 16], [1, 2])
    soft = net.step("SOFTMAX", net.dense(mean, 10), [1, 10])
    return [taken], [net.op("DEQUANTIZE", [soft], net.tensor([1, 10], "float32"))]


def residual(net: Sketch) -> Drawn:
    """ResNet: padding, pools, sums; uint8 outside, int8 inside."""
    taken = net.tensor([1, 8, 8, 3], "uint8")
    value = net.step("QUANTIZE", taken, [1, 8, 8, 3])
    pads = [[0, 0], [1, 1], [1, 1], [0, 0]]
    value = net.conv(net.step("PAD", value, [1, 10, 10, 3], pads), 8)
    value = net.step("MAX_POOL_2D", value, [1, 5, 5, 8])
    value = net.both("ADD", net.conv(value, 8), value)
    logits = net.dense(net.step("MEAN", value, [1, 8], [1, 2]), 4)
    return [taken], [net.op("QUANTIZE", [logits], net.tensor([1, 4], "uint8"))]


def inception(net: Sketch) -> Drawn:
    """Branches that are joined."""
    taken = net.tensor([1, 8, 8, 4])
    pool = net.step("AVERAGE_POOL_2D", taken, [1, 8, 8, 4])
    joined = net.join([net.conv(taken, 8), net.conv(pool, 4)], [1, 8, 8, 12])
    return [taken], [net.conv(joined, 4)]


def squeeze_and_excite(net: Sketch) -> Drawn:
    """EfficientNet's gates: a mean, two convolutions, a sigmoid, a product."""
    taken = net.tensor([1, 112, 112, 8])
    gate = net.step("MEAN", taken, [1, 8], [1, 2])
    gate = net.step("RESHAPE", gate, [1, 1, 1, 8], [1, 1, 1, 8])
    gate = net.step("LOGISTIC", net.conv(net.conv(gate, 4), 8), [1, 1, 1, 8])
    return [taken], [net.conv(net.both("MUL", taken, gate), 4)]


def hard_swish(net: Sketch) -> Drawn:
    """MobileNet v3: one operator that the table lacks strands all behind it."""
    taken = net.tensor([1, 8, 8, 4])
    value = net.step("HARD_SWISH", net.conv(taken, 8), [1, 8, 8, 8])
    return [taken], [net.conv(net.conv(value, 8), 8)]


def detector(net: Sketch) -> Drawn:
    """SSD of the first converter: only the custom operator is left."""
    taken = net.tensor([1, 19, 19, 8], "uint8")
    boxes = net.step("RESHAPE", net.conv(taken, 12), [1, 1083, 1, 4], [1, 1083, 1, 4])
    boxes = net.step("SQUEEZE", boxes, [1, 1083, 4])
    scores = net.step("RESHAPE", net.conv(taken, 273), [1, 1083, 91], [1, 1083, 91])
    scores = net.step("LOGISTIC", scores, [1, 1083, 91])
    anchors = net.constant(np.ones((1083, 4)), "uint8")
    found = [net.tensor([1, 10, 4], "float32"), net.tensor([1, 10], "float32")]
    net.op("TFLite_Detection_PostProcess", [boxes, scores, anchors], *found, custom=True)
    return [taken], found


def converted_detector(net: Sketch) -> Drawn:
    """EfficientDet-Lite and SSD of TensorFlow 2: two DEQUANTIZE more (issue 560)."""
    taken = net.tensor([1, 8, 8, 3], "uint8")
    fine = net.conv(net.step("QUANTIZE", taken, [1, 8, 8, 3]), 8)
    coarse = net.step("MAX_POOL_2D", fine, [1, 4, 4, 8])
    up = net.step("RESIZE_NEAREST_NEIGHBOR", coarse, [1, 8, 8, 8], [8, 8])
    value = net.depthwise(net.both("ADD", fine, up))
    boxes = net.step("RESHAPE", net.conv(value, 36), [1, 576, 4], [1, 576, 4])
    scores = net.step("RESHAPE", net.conv(value, 90), [1, 576, 10], [1, 576, 10])
    scores = net.step("LOGISTIC", scores, [1, 576, 10])
    floats = [
        net.op("DEQUANTIZE", [each], net.tensor(shape, "float32"))
        for each, shape in ((boxes, [1, 576, 4]), (scores, [1, 576, 10]))
    ]
    anchors = net.constant(np.ones((576, 4)), "float32")
    found = net.tensor([1, 25, 4], "float32")
    net.op("TFLite_Detection_PostProcess", [*floats, anchors], found, custom=True)
    return [taken], [found]


def pyramid(net: Sketch) -> Drawn:
    """SSD with a pyramid: doubling by PACK makes five axes, and what follows is stranded."""
    taken = net.tensor([1, 4, 4, 8])
    fine, coarse = net.conv(taken, 8), net.conv(taken, 8)
    wide = net.op(
        "PACK",
        [coarse, coarse],
        net.tensor([1, 4, 4, 2, 8]),
        kind="PackOptions",
        valuesCount=2,
        axis=3,
    )
    wide = net.step("RESHAPE", wide, [1, 4, 8, 8], [1, 4, 8, 8])
    return [taken], [net.conv(wide, 4), net.conv(fine, 4)]


def segmenter(net: Sketch) -> Drawn:
    """DeepLab: the pooled branch cannot be resized, nor what it joins; the other goes on."""
    taken = net.tensor([1, 33, 33, 8])
    pooled = net.conv(net.step("AVERAGE_POOL_2D", taken, [1, 1, 1, 8]), 8)
    wide = net.step("RESIZE_BILINEAR", pooled, [1, 33, 33, 8], [33, 33])
    joined = net.join([wide, net.conv(taken, 8)], [1, 33, 33, 16])
    large = net.step("RESIZE_BILINEAR", net.conv(joined, 4), [1, 513, 513, 4], [513, 513])
    axis = net.constant(np.asarray(3))
    return [taken], [net.op("ARG_MAX", [large, axis], net.tensor([1, 513, 513], "int64"))]


def mask_of_a_small_picture(net: Sketch) -> Drawn:
    """U-Net: transposed convolutions up to the size of the picture."""
    taken = net.tensor([1, 16, 16, 4])
    low = net.step("MAX_POOL_2D", net.conv(taken, 8), [1, 8, 8, 8])
    size = net.constant([1, 16, 16, 8])
    weights = net.constant(np.ones((8, 3, 3, 8)), "int8")
    up = net.op("TRANSPOSE_CONV", [size, weights, low], net.tensor([1, 16, 16, 8]))
    joined = net.join([up, net.conv(taken, 8)], [1, 16, 16, 16])
    return [taken], [net.conv(joined, 3)]


def yolo_head(net: Sketch) -> Drawn:
    """YOLO v5 and v8: slices by steps of one, sigmoids, products; a large transposition."""
    taken = net.tensor([1, 28, 28, 8])
    grid = net.step("RESHAPE", net.conv(taken, 255), [1, 784, 3, 85], [1, 784, 3, 85])
    turned = net.step("TRANSPOSE", grid, [1, 3, 784, 85], [0, 2, 1, 3])
    scores = net.step("LOGISTIC", turned, [1, 3, 784, 85])
    return [taken], [scores, net.step("LOGISTIC", net.conv(taken, 4), [1, 28, 28, 4])]


def first_layer_of_yolo(net: Sketch) -> Drawn:
    """YOLO v5's slices by steps of two: one QUANTIZE is mapped, all else left."""
    taken = net.tensor([1, 8, 8, 3], "uint8")
    value = net.step("QUANTIZE", taken, [1, 8, 8, 3])
    parts = [
        net.step("STRIDED_SLICE", value, [1, 4, 4, 3], [0, row, column, 0], [1, 8, 8, 3], steps)
        for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))
        for steps in ([1, 2, 2, 1],)
    ]
    return [taken], [net.conv(net.join(parts, [1, 4, 4, 12]), 8)]


def keypoints(net: Sketch) -> Drawn:
    """MoveNet: an ARG_MAX in the middle; the heads that do not need it are mapped."""
    taken = net.tensor([1, 12, 12, 8])
    centre = net.step("LOGISTIC", net.conv(taken, 1), [1, 12, 12, 1])
    flat = net.step("RESHAPE", centre, [1, 144], [1, 144])
    where = net.op("ARG_MAX", [flat, net.constant(np.asarray(1))], net.tensor([1], "int32"))
    heat = net.step("LOGISTIC", net.conv(taken, 17), [1, 12, 12, 17])
    rows = net.step("RESHAPE", heat, [144, 17], [144, 17])
    return [taken], [net.op("GATHER", [rows, where], net.tensor([1, 17]))]


def words(net: Sketch) -> Drawn:
    """BERT: looking words up first strands nothing; the product of two tensors does."""
    taken = net.tensor([1, 16], "int32")
    table = net.constant(np.ones((50, 8)), "int8")
    value = net.op("GATHER", [table, taken], net.tensor([1, 16, 8]))
    query, key = net.dense(value, 8), net.dense(value, 8)
    scores = net.op("BATCH_MATMUL", [query, key], net.tensor([1, 16, 16]))
    return [taken], [net.dense(net.step("SOFTMAX", scores, [1, 16, 16]), 8)]


def attention(net: Sketch) -> Drawn:
    """A vision transformer's: products of two tensors are not in the table."""
    taken = net.tensor([1, 16, 8])
    query, key = net.dense(taken, 8), net.dense(taken, 8)
    turned = net.step("TRANSPOSE", key, [1, 8, 16], [0, 2, 1])
    scores = net.op("BATCH_MATMUL", [query, turned], net.tensor([1, 16, 16]))
    return [taken], [net.step("SOFTMAX", scores, [1, 16, 16])]


def gated_unit(net: Sketch) -> Drawn:
    """A GRU written out: products, sigmoids and a tanh, all in the table."""
    taken, state = net.tensor([1, 8]), net.tensor([1, 8])
    update = net.step("LOGISTIC", net.both("ADD", net.dense(taken, 8), state), [1, 8])
    fresh = net.step("TANH", net.dense(taken, 8), [1, 8])
    kept = net.both("MUL", update, state)
    mixed = net.both("MUL", net.both("SUB", fresh, update), fresh)
    return [taken, state], [net.both("ADD", kept, mixed)]


def loop(net: Sketch) -> Drawn:
    """A recurrent layer as a loop."""
    taken, state = net.tensor([1, 8]), net.tensor([1, 8])
    value = net.dense(taken, 8)
    return [taken, state], [net.dense(net.both("WHILE", value, state), 4)]


def open_batch(net: Sketch) -> Drawn:
    """A reshape whose shape is worked out when it runs: the file is not compiled at all."""
    taken = net.tensor([1, 4, 4, 8])
    shape = net.op("SHAPE", [taken], net.tensor([4], "int32"))
    begin, end, steps = net.constant([0]), net.constant([1]), net.constant([1])
    first = net.op("STRIDED_SLICE", [shape, begin, end, steps], net.tensor([], "int32"))
    wanted = net.op(
        "PACK",
        [first, net.constant(np.asarray(128))],
        net.tensor([2], "int32"),
        kind="PackOptions",
        valuesCount=2,
    )
    value = net.conv(taken, 8)
    flat = net.op("RESHAPE", [value, wanted], net.tensor([1, 128]))
    return [taken], [net.dense(flat, 4)]


def places_of_numbers(net: Sketch) -> Drawn:
    """How many places there are depends on the numbers."""
    value = net.conv(taken := net.tensor([1, 4, 4, 8]), 1)
    return [taken], [net.op("WHERE", [value], net.tensor([0, 4], "int64"))]


def pixels_to_space(net: Sketch) -> Drawn:
    """Super-resolution: the table has SPACE_TO_DEPTH and not its inverse."""
    taken = net.tensor([1, 8, 8, 4])
    value = net.step("SPACE_TO_DEPTH", taken, [1, 4, 4, 16])
    return [taken], [net.step("DEPTH_TO_SPACE", net.conv(value, 16), [1, 8, 8, 4])]


def pictures_at_once(net: Sketch) -> Drawn:
    """Two pictures a run: four axes, none of them of one (issue 30)."""
    taken = net.tensor([2, 8, 8, 3])
    return [taken], [net.conv(net.conv(taken, 8), 8)]


def sine(net: Sketch) -> Drawn:
    """Two dense layers, a sine in float, one more (compiled with 16.0 and published)."""
    taken = net.tensor([1, 8], "uint8")
    value = net.dense(net.dense(net.step("QUANTIZE", taken, [1, 8]), 8), 8)
    value = net.op("DEQUANTIZE", [value], net.tensor([1, 8], "float32"))
    value = net.op("SIN", [value], net.tensor([1, 8], "float32"))
    value = net.dense(net.step("QUANTIZE", value, [1, 8]), 8)
    return [taken], [net.op("QUANTIZE", [value], net.tensor([1, 8], "uint8"))]


def matrix(net: Sketch) -> Drawn:
    """One dense layer between changes of type (compiled with 16.0: all of it mapped)."""
    taken = net.tensor([1, 256], "uint8")
    value = net.dense(net.step("QUANTIZE", taken, [1, 256]), 256)
    return [taken], [net.op("QUANTIZE", [value], net.tensor([1, 256], "uint8"))]


ALL_BUT_THE_FIRST = ["STRIDED_SLICE"] * 4 + ["CONCATENATION", "CONV_2D"]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (classifier, []),
        (converted_classifier, ["QUANTIZE", "DEQUANTIZE"]),
        (residual, []),
        (inception, []),
        (squeeze_and_excite, []),
        (hard_swish, ["HARD_SWISH", "CONV_2D", "CONV_2D"]),
        (detector, ["TFLite_Detection_PostProcess"]),
        (
            converted_detector,
            ["DEQUANTIZE", "DEQUANTIZE", "TFLite_Detection_PostProcess"],
        ),
        (pyramid, ["PACK", "RESHAPE", "CONV_2D"]),
        (
            segmenter,
            ["RESIZE_BILINEAR", "CONCATENATION", "CONV_2D", "RESIZE_BILINEAR", "ARG_MAX"],
        ),
        (mask_of_a_small_picture, []),
        (yolo_head, ["TRANSPOSE", "LOGISTIC"]),
        (first_layer_of_yolo, ALL_BUT_THE_FIRST),
        (keypoints, ["ARG_MAX", "GATHER"]),
        (words, ["GATHER", "BATCH_MATMUL", "SOFTMAX", "FULLY_CONNECTED"]),
        (attention, ["BATCH_MATMUL", "SOFTMAX"]),
        (gated_unit, []),
        (loop, ["WHILE", "FULLY_CONNECTED"]),
        (
            open_batch,
            ["SHAPE", "STRIDED_SLICE", "PACK", "CONV_2D", "RESHAPE", "FULLY_CONNECTED"],
        ),
        (places_of_numbers, ["CONV_2D", "WHERE"]),
        (pixels_to_space, ["DEPTH_TO_SPACE"]),
        (pictures_at_once, ["CONV_2D", "CONV_2D"]),
        (sine, ["DEQUANTIZE", "SIN", "QUANTIZE", "FULLY_CONNECTED", "QUANTIZE"]),
        (matrix, []),
    ],
    ids=lambda each: each.__name__ if callable(each) else "",
)
def test_what_is_left_of_a_network(
    tmp_path: Path, draw: Callable[[Sketch], Drawn], expected: list[str]
) -> None:
    assert left(tmp_path, draw) == expected


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("CONV_2D", 6),  # issue 631 of google-coral/edgetpu
        ("QUANTIZE", 3),  # issue 879
        ("EXP", 2),  # issue 71 of google-coral/libedgetpu
        ("FULLY_CONNECTED", 12),
    ],
)
def test_a_file_of_a_later_converter_is_not_read_at_all(
    tmp_path: Path, name: str, version: int
) -> None:
    net = Sketch()
    taken = net.tensor([1, 8, 8, 3])
    value = net.conv(taken, 8)
    given = net.op(name, [value], net.tensor([1, 8, 8, 8]), version=version)
    graph = open_tflite(net.save(tmp_path / "m.tflite", [taken], [given])).graph
    found = foretell(graph, RULES)
    assert {objection.kind for objection in found.values()} == {"version"}
    assert sorted(found) == [0, 1]
    assert f"{name} of version {version}" in found[0].seen
