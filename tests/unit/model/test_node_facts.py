"""Facts of nodes say what a backend asks for, without an ONNX library at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgesdk.model import node_facts, open_model

WriteModel = Callable[..., Path]


def test_a_convolution_is_described(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[1, 3, 8, 8] x) => (float[n, m, h, w] y) "
        '{ [c] t = Conv<kernel_shape=[3, 3], group=1, auto_pad="SAME_UPPER">(x, w) '
        "y = Elu<alpha=0.5>(t) }",
        weights={"w": np.zeros((4, 3, 3, 3), np.float32)},
    )
    conv, elu = node_facts(open_model(path).ir)
    assert (conv.index, conv.name, conv.op, conv.domain, conv.since_version) == (
        0,
        "c",
        "Conv",
        "",
        11,
    )
    assert conv.ints == {"kernel_shape": (3, 3), "group": (1,)}
    assert conv.strings == {"auto_pad": "SAME_UPPER"}
    assert conv.constant_inputs == (False, True)
    assert str(conv.input_types[1]) == "w: float32[4, 3, 3, 3]"
    assert str(conv.output_types[0]) == "t: float32[1, 4, 8, 8]"
    assert elu.floats == {"alpha": (0.5,)}
    assert conv.label == "node 0 'c' (Conv)"


def test_inputs_left_out_keep_their_place(write_model: WriteModel) -> None:
    path = write_model("g (float[2] x, float m) => (float[2] y) { y = Clip(x, , m) }")
    [clip] = node_facts(open_model(path).ir)
    assert clip.inputs == ("x", "", "m")
    assert clip.input_types[1] is None
    assert clip.constant_inputs == (False, False, False)


def test_operators_in_bodies_are_named_by_the_node_around_them(write_model: WriteModel) -> None:
    path = write_model(
        "g (bool c, float[2] x) => (float[2] y) { y = If (c) <"
        "then_branch = a () => (float[2] t) { t = Relu(x) }, "
        "else_branch = b () => (float[2] e) { n = Neg(x) e = Abs(n) }> }"
    )
    opened = open_model(path)
    [node] = node_facts(opened.ir)
    assert node.subgraph_ops == ("Abs", "Neg", "Relu")
    assert opened.source.op_counts == {"Abs": 1, "If": 1, "Neg": 1, "Relu": 1}
