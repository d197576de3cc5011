"""The full reader of TFLite files: grids, options and constants, with nothing trusted."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from edgesdk.errors import ModelError
from edgesdk.model import TfliteGraph, open_tflite
from edgesdk.model._flatbuffer import FlatbufferError
from edgesdk.model.tflite_graph import read_tflite_graphs
from edgesdk.plan.planner import model_facts


@pytest.fixture
def graphs(shared_assets: Path) -> dict[str, TfliteGraph]:
    return {
        path.stem: open_tflite(path).graph
        for path in sorted((shared_assets / "edgetpu").glob("*.tflite"))
    }


def test_tensors_have_their_grids(graphs: dict[str, TfliteGraph]) -> None:
    graph = graphs["mobilenet_v1_0.25_128_quant"]
    taken = graph.tensors[graph.inputs[0]]
    assert (taken.scales, taken.zero_points, taken.axis) == ((0.0078125,), (128,), None)
    assert taken.constant is None
    per_channel = graphs["posenet_posenet_mobilenet_v1_075_353_481_16_quant_decoder"]
    kernel = per_channel.tensors[per_channel.ops[3].inputs[1]]
    assert (kernel.shape, kernel.axis, len(kernel.scales)) == ((1, 3, 3, 24), 3, 24)
    assert set(kernel.zero_points) == {0}
    assert kernel.bytes == 216


def test_operators_have_their_options(graphs: dict[str, TfliteGraph]) -> None:
    ops = graphs["mobilenet_v1_0.25_128_quant"].ops
    assert dict(ops[0].options) == {
        "padding": "SAME",
        "stride_w": 2,
        "stride_h": 2,
        "activation": "RELU6",
        "dilation_w": 1,
        "dilation_h": 1,
    }
    assert ops[30].options["beta"] == 1.0
    split = graphs["tools_split_concat"].ops[1]
    assert split.options == {"num_splits": 6}


def test_constants_are_read_from_the_file(graphs: dict[str, TfliteGraph]) -> None:
    graph = graphs["posenet_posenet_mobilenet_v1_075_353_481_16_quant_decoder"]
    pads = graph.array(graph.ops[1].inputs[1])
    assert pads is not None
    np.testing.assert_array_equal(pads, [[0, 0], [0, 1], [0, 1], [0, 0]])
    assert graph.array(graph.inputs[0]) is None
    assert not pads.flags.writeable


def test_a_compiled_file_keeps_its_blob(graphs: dict[str, TfliteGraph]) -> None:
    graph = graphs["mobilenet_v1_0.25_128_quant_edgetpu"]
    (op,) = graph.ops
    assert op.is_custom
    assert op.name == "edgetpu-custom-op"
    assert len(graph.custom_options(op)) == 778324
    assert graph.producers() == {graph.outputs[0]: 0}


def test_rules_see_the_options_and_the_graph(shared_assets: Path) -> None:
    opened = open_tflite(shared_assets / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite")
    facts = model_facts(opened)
    assert facts.tflite is opened.graph
    assert facts.nodes[0].ints["stride_h"] == (2,)
    assert facts.nodes[0].strings["activation"] == "RELU6"
    assert facts.nodes[30].floats["beta"] == (1.0,)


@pytest.mark.parametrize("name", ["keras_lstm_mnist_ptq", "tools_split_concat"])
def test_mutated_files_are_read_or_refused(
    shared_assets: Path, tmp_path: Path, name: str
) -> None:
    """What is read after a mutation still refers only to what the file holds."""
    whole = (shared_assets / "edgetpu" / f"{name}.tflite").read_bytes()
    chance = random.Random(4)
    refused = 0
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            content[chance.randrange(len(content))] = chance.choice(
                (0, 1, 2, 127, 128, 255, chance.randrange(256))
            )
        try:
            graphs, _, _ = read_tflite_graphs(bytes(content))
        except FlatbufferError:
            refused += 1
            continue
        for graph in graphs:
            for tensor in graph.tensors:
                if tensor.constant is not None:
                    content_held = graph.constant(tensor.index)
                    assert content_held is not None
                    assert len(content_held) == tensor.constant[1]
                    graph.array(tensor.index)
                assert tensor.axis is None or tensor.axis < len(tensor.shape)
            for op in graph.ops:
                assert all(-1 <= index < len(graph.tensors) for index in op.inputs)
                graph.custom_options(op)
    assert refused > 10
    path = tmp_path / "cut.tflite"
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="cannot open"):
            open_tflite(path)
