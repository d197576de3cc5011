"""The file itself: aligned contents stored once, versions, and why none can be written."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from edgesdk.backends.litert.lower import lower_graph, write
from edgesdk.backends.litert.lower.graph import Graph, Grid, Op, Tensor
from edgesdk.backends.litert.lower.versions import oldest_runtime, version_of
from edgesdk.backends.litert.lower.write import write_graph
from edgesdk.errors import CompileError
from edgesdk.model.tflite_graph import read_tflite_graphs
from tests.unit.backends.litert.graphs import build
from tests.unit.backends.litert.test_lower_basics import numbers


def test_contents_are_aligned_and_equal_ones_stored_once() -> None:
    text = (
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) "
        "{ a = Conv<pads=[1,1,1,1]>(x, k, b) y = Conv<pads=[1,1,1,1]>(a, l, b) }"
    )
    same = numbers(4, 4, 3, 3)
    data = lower_graph(build(text, {"k": same, "l": same.copy(), "b": numbers(4)}))
    (graph,), _, size = read_tflite_graphs(data)
    places = {t.constant for t in graph.tensors if t.constant is not None}
    assert all(start % 16 == 0 for start, _ in places)
    assert len([place for place in places if place[1] == same.nbytes]) == 1
    assert size < 2 * same.nbytes


def test_a_graph_is_the_same_file_each_time() -> None:
    text = "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, k) }"
    model = build(text, {"k": numbers(4, 4, 3, 3)})
    assert lower_graph(model) == lower_graph(model)


def test_versions_follow_the_types() -> None:
    grid = Grid("int8", (0.5,), (0,))
    whole = Tensor("a", "int8", (1,), grid)
    real, wide = Tensor("b", "float32", (1,)), Tensor("c", "int16", (1,))
    assert version_of(Op("CONV_2D", (real, real), (real,))) == 1
    assert version_of(Op("CONV_2D", (whole, whole), (whole,))) == 3
    assert version_of(Op("CONV_2D", (wide, whole), (wide,))) == 4
    assert oldest_runtime([("CONV_2D", 1), ("RESHAPE", 1)]) == "1.14.0"
    assert oldest_runtime([("CONV_2D", 3), ("BATCH_MATMUL", 3)]) == "2.4.0"
    assert oldest_runtime([]) == "1.14.0"


def test_what_does_not_fit_a_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph()
    tensor = Tensor("c", "float32", (4,), data=np.zeros(4, np.float32))
    graph.outputs = [tensor]
    monkeypatch.setattr(write, "MOST_BYTES", 8)
    with pytest.raises(CompileError, match="its constants have") as caught:
        write_graph(graph)
    assert "int8" in caught.value.hint


def test_a_missing_schema_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(CompileError, match="ai-edge-litert, with its schema") as caught:
        write_graph(Graph())
    assert "edgesdk[litert]" in caught.value.hint
