"""What stays on the chip, and where to cut for several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgesdk.backends.edgetpu.mapping import foretell
from edgesdk.backends.edgetpu.memory import estimate_memory, parameter_bytes, suggest_segments
from edgesdk.backends.edgetpu.package import read_packages
from edgesdk.model import TfliteGraph, open_tflite
from edgesdk.profiles.compiler_values import CompilerRules
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

RULES = load_compiler_rules("edgetpu-16")
LAYOUT = RULES.layout


def keeping(cache_bytes: int) -> CompilerRules:
    return replace(RULES, cache_bytes=cache_bytes)


@pytest.fixture
def graph(tmp_path: Path) -> TfliteGraph:
    """Six convolutions; each has weights for 64 or 128 inputs, and 8 bytes, per output."""
    net = Network()
    first = value = net.tensor([1, 4, 4, 64])
    for channels in (64, 64, 128, 64, 64, 64):
        value = net.conv(value, channels)
    return open_tflite(net.save(tmp_path / "m.tflite", [first], [value])).graph


def test_parameters_are_counted_once(graph: TfliteGraph) -> None:
    sizes = parameter_bytes(graph, range(6), LAYOUT)
    assert list(sizes.values()) == [
        channels * depth + 8 * channels
        for channels, depth in (
            (64, 64),
            (64, 64),
            (128, 64),
            (64, 128),
            (64, 64),
            (64, 64),
        )
    ]
    assert sum(parameter_bytes(graph, [0, 5], LAYOUT).values()) == 2 * (64 * 64 + 8 * 64)


def kernel(tmp_path: Path, name: str, shape: Sequence[int]) -> int:
    """What a kernel of some shape takes, with its biases."""
    net = Network()
    taken = net.tensor([1, 8, 8, shape[-1]])
    weights = net.constant(np.ones(shape), "int8")
    bias = net.constant(np.zeros(shape[0]), "int32")
    given = net.op(name, [taken, weights, bias], net.tensor([1, 8, 8, 4]))
    graph = open_tflite(net.save(tmp_path / "m.tflite", [taken], [given])).graph
    return parameter_bytes(graph, [0], LAYOUT)[0]


def test_kernels_are_padded(tmp_path: Path) -> None:
    # a published log calls this 66.00 KiB
    assert kernel(tmp_path, "FULLY_CONNECTED", [256, 256]) == 66 * 1024
    assert kernel(tmp_path, "CONV_2D", [1, 3, 3, 3]) == 16 * (9 * 16 + 8)
    assert kernel(tmp_path, "DEPTHWISE_CONV_2D", [1, 3, 3, 65]) == 128 * (9 * 4 + 16)


def test_shapes_and_axes_are_no_parameters(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4])
    given = net.op("RESHAPE", [taken, net.constant([1, 256])], net.tensor([1, 256]))
    graph = open_tflite(net.save(tmp_path / "m.tflite", [taken], [given])).graph
    assert parameter_bytes(graph, [0], LAYOUT) == {0: 0}


@pytest.mark.parametrize(
    "name",
    [
        "deeplabv3_mnv2_dm05_pascal_quant",
        "mobilenet_v1_0.25_128_quant",
        "posenet_posenet_mobilenet_v1_075_353_481_16_quant_decoder",
    ],
)
def test_estimates_are_near_what_compiled_files_hold(shared_assets: Path, name: str) -> None:
    folder = shared_assets / "edgetpu"
    graph = open_tflite(folder / f"{name}.tflite").graph
    mapped = {op.index for op in graph.ops} - foretell(graph, RULES).keys()
    estimate = estimate_memory(graph, mapped, RULES)
    (package,) = read_packages(open_tflite(folder / f"{name}_edgetpu.tflite").graph, RULES)
    assert estimate["cached_bytes"] == pytest.approx(package.cached_bytes, rel=0.04)
    assert estimate["streamed_bytes"] == package.streamed_bytes == 0


def test_what_does_not_fit_is_streamed(graph: TfliteGraph) -> None:
    total = sum(parameter_bytes(graph, range(6), LAYOUT).values())
    assert estimate_memory(graph, range(6), keeping(total)) == {
        "parameter_bytes": total,
        "cache_bytes": total,
        "cached_bytes": total,
        "streamed_bytes": 0,
        "provenance": "assumed",
    }
    assert estimate_memory(graph, range(6), keeping(10_000))["streamed_bytes"] == total - 10_000


def test_an_operator_too_large_for_the_chip_is_streamed_in_full(graph: TfliteGraph) -> None:
    # logs of matrices: 16 MB and 64 MB, nothing cached
    estimate = estimate_memory(graph, range(6), keeping(5000))
    sizes = parameter_bytes(graph, range(6), LAYOUT).values()
    assert estimate["cached_bytes"] == 5000
    assert estimate_memory(graph, range(6), keeping(min(sizes) - 1))["cached_bytes"] == 0


def test_one_segment_will_do_where_all_fits(graph: TfliteGraph) -> None:
    assert suggest_segments(graph, range(6), keeping(1 << 23)) == []


def test_cuts_are_as_even_as_they_can_be(graph: TfliteGraph) -> None:
    sizes = parameter_bytes(graph, range(6), LAYOUT)
    segments = suggest_segments(graph, range(6), keeping(1 << 23), tpus=2)
    assert [(each["first_op"], each["last_op"], each["ops"]) for each in segments] in (
        [(0, 2, 3), (3, 5, 3)],
        [(0, 3, 4), (4, 5, 2)],
    )
    best = min(
        max(sum(list(sizes.values())[:cut]), sum(list(sizes.values())[cut:]))
        for cut in range(1, 6)
    )
    assert max(each["parameter_bytes"] for each in segments) == best
    assert sum(each["parameter_bytes"] for each in segments) == sum(sizes.values())
    assert segments[-1]["gives_bytes"] == 0
    assert segments[0]["gives_bytes"] in (4 * 4 * 128, 4 * 4 * 64)


def test_as_many_as_it_takes_to_keep_everything(graph: TfliteGraph) -> None:
    segments = suggest_segments(graph, range(6), keeping(10_000))
    assert len(segments) == 4, "the fewest: two operators fit together twice"
    assert all(each["parameter_bytes"] <= 10_000 for each in segments)
    assert len(suggest_segments(graph, range(6), keeping(100))) == 6, (
        "never more than operators"
    )
