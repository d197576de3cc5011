"""Each limit of the compiler, on files of one operator; sizes and verdicts are those of logs.

Where a case is drawn from a published log or report, its comment says which.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgesdk.backends.edgetpu.mapping import foretell
from edgesdk.model import open_tflite
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

RULES = load_compiler_rules("edgetpu-16")


def verdict(net: Network, path: Path, taken: list[int], given: int) -> tuple[str, str]:
    """Give the kind of status of the last operator, and what was seen."""
    graph = open_tflite(net.save(path / "m.tflite", taken, [given])).graph
    found = foretell(graph, RULES).get(len(graph.ops) - 1)
    return ("mapped", "") if found is None else (found.kind, found.seen)


def one(
    path: Path,
    name: str,
    shape: list[int],
    result: list[int],
    *constants: object,
    dtypes: tuple[str, str] = ("int8", "int8"),
    **extra: object,
) -> tuple[str, str]:
    net = Network()
    taken = net.tensor(shape, dtypes[0])
    inputs = [taken, *(net.constant(values) for values in constants)]
    given = net.op(name, inputs, net.tensor(result, dtypes[1]), **extra)
    return verdict(net, path, [taken], given)


@pytest.mark.parametrize(
    ("name", "shape", "result", "expected"),
    [
        ("LOGISTIC", [1, 1917, 91], [1, 1917, 91], "mapped"),
        ("TANH", [1, 8], [1, 8], "mapped"),
        ("LEAKY_RELU", [1, 8, 8, 4], [1, 8, 8, 4], "operator"),  # logs of YOLO v3
        ("HARD_SWISH", [1, 8, 8, 4], [1, 8, 8, 4], "operator"),
        ("EXP", [1, 8], [1, 8], "operator"),
        ("LOGISTIC", [2, 8, 8, 4], [2, 8, 8, 4], "rank"),  # issue 30: a batch of 30
        ("SOFTMAX", [1, 16_000], [1, 16_000], "mapped"),
        ("SOFTMAX", [1, 16_001], [1, 16_001], "limit"),
        ("SOFTMAX", [1, 400, 4, 16], [1, 400, 4, 16], "mapped"),  # logs of YOLO v9
    ],
)
def test_operators_without_constants(
    tmp_path: Path, name: str, shape: list[int], result: list[int], expected: str
) -> None:
    assert one(tmp_path, name, shape, result)[0] == expected


@pytest.mark.parametrize(
    ("name", "dtypes", "expected"),
    [
        ("QUANTIZE", ("uint8", "int8"), "mapped"),
        ("QUANTIZE", ("float32", "int8"), "limit"),  # logs of every model with float inputs
        ("DEQUANTIZE", ("int8", "float32"), "type"),  # the same logs
        ("LOGISTIC", ("float32", "float32"), "type"),
        ("LOGISTIC", ("int16", "int16"), "type"),
        ("CAST", ("int8", "int32"), "type"),
    ],
)
def test_types(tmp_path: Path, name: str, dtypes: tuple[str, str], expected: str) -> None:
    assert one(tmp_path, name, [1, 8], [1, 8], dtypes=dtypes)[0] == expected


@pytest.mark.parametrize(
    ("shape", "result", "expected"),
    [
        ([1, 64, 64, 32], [1, 128, 128, 32], "mapped"),  # issue 31
        ([1, 256, 256, 32], [1, 512, 512, 32], "precision"),  # issue 31
        ([1, 1, 1, 256], [1, 33, 33, 256], "precision"),  # a pair of files
        ([1, 1, 1, 256], [1, 1, 1, 256], "mapped"),
        ([1, 33, 33, 21], [1, 33, 33, 21], "mapped"),
    ],
)
def test_bilinear_resizing_has_to_be_precise(
    tmp_path: Path, shape: list[int], result: list[int], expected: str
) -> None:
    size = np.asarray(result[1:3])
    assert one(tmp_path, "RESIZE_BILINEAR", shape, result, size)[0] == expected


def test_nearest_resizing_is_taken_at_any_size(tmp_path: Path) -> None:
    kind = one(tmp_path, "RESIZE_NEAREST_NEIGHBOR", [1, 40, 40, 64], [1, 80, 80, 64], [80, 80])
    assert kind == ("mapped", "")


@pytest.mark.parametrize(
    ("name", "shape", "axes", "result", "expected"),
    [
        ("MEAN", [1, 64, 128, 3], [1, 2], [1, 3], "mapped"),  # issue 461
        ("MEAN", [1, 256, 128, 3], [1, 2], [1, 3], "limit"),  # issue 461
        ("MEAN", [1, 7, 7, 1280], [1, 2], [1, 1280], "mapped"),
        ("MEAN", [1, 7, 7, 1280], [0], [7, 7, 1280], "limit"),
        ("MEAN", [1, 7, 7, 6], [3], [1, 7, 7], "limit"),
        ("MEAN", [1, 7, 7, 8], [-1], [1, 7, 7], "mapped"),
        ("SUM", [1, 7, 7, 6], [3], [1, 7, 7], "mapped"),
        ("REDUCE_MAX", [1, 7, 7, 6], [0], [7, 7, 6], "limit"),
        ("MEAN", [1, 7, 7, 6], [9], [1, 7, 7], "limit"),
    ],
)
def test_reductions(
    tmp_path: Path,
    name: str,
    shape: list[int],
    axes: list[int],
    result: list[int],
    expected: str,
) -> None:
    assert one(tmp_path, name, shape, result, axes)[0] == expected


def test_strided_slices_step_by_one(tmp_path: Path) -> None:
    ends = ([0, 0, 0, 0], [1, 8, 8, 4])
    taken = one(tmp_path, "STRIDED_SLICE", [1, 8, 8, 4], [1, 8, 8, 4], *ends, [1, 1, 1, 1])
    assert taken == ("mapped", "")
    # the log of YOLO v5, whose first layer steps by 2
    left = one(tmp_path, "STRIDED_SLICE", [1, 8, 8, 4], [1, 4, 8, 4], *ends, [1, 2, 1, 1])
    assert left == ("strides", "strides [1, 2, 1, 1]")


def test_padding_leaves_the_batch_alone(tmp_path: Path) -> None:
    pads = [[0, 0], [1, 1], [1, 1], [0, 0]]
    assert one(tmp_path, "PAD", [1, 8, 8, 4], [1, 10, 10, 4], pads)[0] == "mapped"
    deep = [[0, 0], [0, 0], [0, 0], [0, 4]]
    assert one(tmp_path, "PAD", [1, 8, 8, 4], [1, 8, 8, 8], deep)[0] == "mapped"
    batch = [[1, 0], [0, 0], [0, 0], [0, 0]]
    assert one(tmp_path, "PAD", [1, 1, 8, 4], [1, 1, 8, 4], batch)[0] == "limit"
    assert one(tmp_path, "PADV2", [1, 8, 8, 4], [1, 10, 10, 4], pads)[0] == "operator"


def test_paddings_of_64_bits_are_read_as_32(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    pads = net.constant([[0, 0], [1, 1], [1, 1], [0, 0]], "int64")
    given = net.op("PAD", [taken, pads], net.tensor([1, 10, 10, 4]))
    assert verdict(net, tmp_path, [taken], given)[1].startswith("paddings of int64")


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, "mapped"),
        ({"dilationWFactor": 2, "dilationHFactor": 2}, "mapped"),
        ({"dilationWFactor": 2}, "limit"),
        ({"fusedActivationFunction": 3}, "mapped"),
        ({"fusedActivationFunction": 4}, "limit"),  # TANH
    ],
)
def test_convolutions(tmp_path: Path, extra: dict[str, int], expected: str) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    given = net.conv(taken, 8, **extra)
    assert verdict(net, tmp_path, [taken], given)[0] == expected


def test_a_convolution_of_a_later_version_or_in_groups_is_left(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    given = net.conv(taken, 8)
    net.codes[-1].version = 6
    assert verdict(net, tmp_path, [taken], given) == ("version", "version 6, past 5")
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    given = net.conv(taken, 8)
    net.tensors[taken].shape = [1, 8, 8, 8]
    assert verdict(net, tmp_path, [taken], given)[1] == "a kernel of depth 4 on depth 8"


def test_parameters_have_to_be_known(tmp_path: Path) -> None:
    net = Network()
    taken, kernel = net.tensor([1, 8]), net.tensor([4, 8])
    given = net.op("FULLY_CONNECTED", [taken, kernel, -1], net.tensor([1, 4]))
    kind, seen = verdict(net, tmp_path, [taken, kernel], given)
    assert (kind, seen) == ("limit", "input 1 is not known when it is compiled")


@pytest.mark.parametrize(
    ("value", "zero_point", "count", "expected"),
    [(-3, -3, 1, "mapped"), (0, -3, 1, "limit"), (-3, -3, 2, "limit")],
)
def test_a_constant_in_a_concatenation_is_zero_and_alone(
    tmp_path: Path, value: int, zero_point: int, count: int, expected: str
) -> None:
    net = Network()
    taken = net.tensor([1, 4, 4, 2])
    zeros = [
        net.constant(np.full((1, 4, 4, 2), value), "int8", zero_point) for _ in range(count)
    ]
    given = net.op(
        "CONCATENATION",
        [taken, *zeros],
        net.tensor([1, 4, 4, 2 + 2 * count]),
        kind="ConcatenationOptions",
        axis=3,
    )
    assert verdict(net, tmp_path, [taken], given)[0] == expected


def test_prelu_has_one_slope_a_channel(tmp_path: Path) -> None:
    for shape, expected in (((1, 1, 4), "mapped"), ((8, 8, 4), "limit")):
        net = Network()
        taken = net.tensor([1, 8, 8, 4])
        slopes = net.constant(np.ones(shape), "int8")
        given = net.op("PRELU", [taken, slopes], net.tensor([1, 8, 8, 4]))
        assert verdict(net, tmp_path, [taken], given)[0] == expected


def test_pooling_has_no_fused_activation(tmp_path: Path) -> None:
    for activation, expected in ((0, "mapped"), (1, "limit")):
        kind = one(
            tmp_path,
            "MAX_POOL_2D",
            [1, 8, 8, 4],
            [1, 4, 4, 4],
            kind="Pool2DOptions",
            fusedActivationFunction=activation,
        )
        assert kind[0] == expected


@pytest.mark.parametrize(
    ("shape", "result", "expected"),
    [
        ([1, 64, 1344], [1, 1344, 64], "mapped"),  # YOLO v8 at 256, mapped in full
        ([1, 784, 3, 85], [1, 3, 784, 85], "limit"),  # YOLO v5 at 224
    ],
)
def test_large_transpositions_are_left(
    tmp_path: Path, shape: list[int], result: list[int], expected: str
) -> None:
    order = [0, 2, 1] if len(shape) == 3 else [0, 2, 1, 3]
    assert one(tmp_path, "TRANSPOSE", shape, result, order)[0] == expected


def test_a_custom_operator_is_left_by_its_types(tmp_path: Path) -> None:
    # logs of SSD models say this of TFLite_Detection_PostProcess
    kind = one(
        tmp_path,
        "TFLite_Detection_PostProcess",
        [1, 1917, 4],
        [1, 10, 4],
        dtypes=("uint8", "float32"),
        custom=True,
    )
    assert kind[0] == "type"
    assert one(tmp_path, "MyOp", [1, 4], [1, 4], custom=True)[0] == "operator"
