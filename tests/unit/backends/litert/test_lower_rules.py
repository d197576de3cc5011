"""What the plan is told from facts alone is what the lowering does with the graph."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from edgesdk.backends import NodesRefused
from edgesdk.backends.litert.lower import lower_graph
from edgesdk.backends.litert.lower.registry import entry_of, known_ops
from edgesdk.backends.litert.rules import tflite_ops, why_not_lowered
from edgesdk.model.kernels import kernel_graph
from tests.unit.backends.litert.graphs import build, lowered, with_pairs
from tests.unit.backends.litert.test_lower_basics import GRAPHS, numbers

#: What may stand around any operator: other grids, layouts and shapes.
AROUND = {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "RESHAPE", "CAST"}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("case", GRAPHS)
def test_what_the_rules_take_is_lowered_to_what_they_say(case: str, dtype: str) -> None:
    model = build(*GRAPHS[case])
    if dtype != "float32":
        model = with_pairs(model)
    nodes = kernel_graph(model).nodes.values()
    assert [why_not_lowered(node) for node in nodes] == [None] * len(nodes)
    said = {name for node in nodes for name in tflite_ops(node)}
    assert {op.name for op in lowered(model).ops} <= said | AROUND


REFUSED = {
    "weights that are no constants": (
        "g (float[1,3,9,8] x, float[4,3,3,3] k) => (float[1,4,7,6] y) { y = Conv(x, k) }",
        "its weights are not constant",
    ),
    "a convolution over space": (
        "g (float[1,3,5,5,5] x) => (float[1,4,5,5,5] y) { y = Conv(x, k) }",
        "a convolution over 3 dimensions (1 or 2)",
    ),
    "a dilated pool": (
        "g (float[1,4,9,8] x) => (float[1,4,5,4] y) "
        "{ y = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(x) }",
        "a dilated window",
    ),
    "indices of a pool": (
        "g (float[1,4,8,8] x) => (float[1,4,4,4] y, int64[1,4,4,4] i) "
        "{ y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
        "its second output, the indices",
    ),
    "another type": (
        "g (double[2,3] x) => (double[2,3] y) { y = Relu(x) }",
        "x is float64, which LiteRT's kernels do not take",
    ),
    "text": (
        "g (string[2] x) => (string[2] y) { y = StringNormalizer(x) }",
        "StringNormalizer has no lowering to TFLite",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_rules_refuse_is_not_lowered(case: str) -> None:
    text, reason = REFUSED[case]
    model = build(text, {"k": numbers(4, 3, 1, 1, 1)} if "5,5,5" in text else {})
    (node,) = kernel_graph(model).nodes.values()
    assert why_not_lowered(node) == reason
    with pytest.raises(NodesRefused) as caught:
        lower_graph(model)
    assert caught.value.reasons["y"]


def test_every_refused_node_is_named_with_its_own_reason() -> None:
    model = build(
        "g (float[1,4,9,8] x) => (float[1,4,1,1] y) { "
        "a = MaxPool<kernel_shape=[3,3], dilations=[2,2]>(x) b = Relu(a) "
        "c = Celu<alpha=2.0>(b) d = StringSplitter(c) y = GlobalAveragePool(c) }".replace(
            "d = StringSplitter(c) ", ""
        )
    )
    with pytest.raises(NodesRefused) as caught:
        lower_graph(model)
    assert caught.value.reasons["a"] == "a dilated window"
    # what only reads a refused node is not refused for that
    assert "b" not in caught.value.reasons
    assert "y" not in caught.value.reasons


def test_every_lowering_names_operators_of_the_schema() -> None:
    from ai_edge_litert import schema_py_generated as schema

    known = set(vars(schema.BuiltinOperator))
    for op in known_ops():
        entry = entry_of(op)
        assert entry is not None
        node = kernel_graph(_alone(op)).nodes[0]
        assert set(entry.into(node)) <= known, op


def _alone(op: str) -> ir.Model:
    """Make a node of an operator about which nothing is known."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ["x", "x", "x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, None)],
        [value("y", onnx.TensorProto.FLOAT, None)],
    )
    return ir.from_proto(onnx.helper.make_model(graph))
