"""A graph is brought to the opset and IR a runtime loads, or the node in the way is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgesdk.errors import CompileError
from edgesdk.model import fit_opset, open_model
from edgesdk.model.save import model_bytes

WriteModel = Callable[..., Path]
RunModel = Callable[..., list[Any]]


@pytest.mark.parametrize(
    ("body", "opset", "goal"),
    [
        ("y = Softmax<axis=1>(x)", 11, 13),
        ("y = Clip<min=0.0, max=0.5>(x)", 9, 13),
        ("t = Squeeze<axes=[0]>(x) y = Unsqueeze<axes=[1]>(t)", 11, 13),
        ("y = ReduceSum<axes=[2], keepdims=0>(x)", 11, 13),
        ("y, i = TopK<k=2>(x)", 9, 13),
        ("y = Pad<pads=[0, 0, 1, 1, 0, 0, 1, 1]>(x)", 9, 13),
        ("y = ReduceMean<axes=[2, 3]>(x)", 17, 18),
        ("a = Constant<value_ints=[2, 3]>() y = ReduceMean(x, a)", 21, 17),
        ("a = Constant<value_ints=[2, 3]>() y = ReduceMax<keepdims=0>(x, a)", 21, 17),
        ("a, y = Split<axis=2, num_outputs=2>(x)", 21, 17),
        ("s = Constant<value_ints=[1, -1]>() t = Reshape(x, s) y = Relu(t)", 22, 18),
        ("y = AveragePool<kernel_shape=[2, 2]>(x)", 22, 17),
    ],
)
def test_converted_nodes_give_the_same_numbers(
    write_model: WriteModel, run_model: RunModel, body: str, opset: int, goal: int
) -> None:
    path = write_model(f"g (float[1, 3, 8, 8] x) => (float[n] y) {{ {body} }}", opset=opset)
    fitted = fit_opset(
        open_model(path).ir,
        lowest=min(goal, 13) if goal < opset else goal,
        highest=goal,
        max_ir=8,
    )
    data = model_bytes(fitted)
    model = onnx.load_from_string(data)
    assert model.opset_import[0].version == goal
    assert model.ir_version <= 8
    onnx.checker.check_model(data, full_check=True)
    np.testing.assert_allclose(
        run_model(data)[0], run_model(path.read_bytes())[0], rtol=1e-6, atol=1e-6
    )


def test_a_model_in_range_is_left_at_its_opset(write_model: WriteModel) -> None:
    opened = open_model(write_model("g (float[2] x) => (float[2] y) { y = Relu(x) }", opset=15))
    fitted = fit_opset(opened.ir, lowest=13, highest=18, max_ir=None)
    assert fitted.graph.opset_imports[""] == 15
    assert fitted.ir_version == 8
    assert fitted is not opened.ir


def test_nodes_in_bodies_are_converted_too(
    write_model: WriteModel, run_model: RunModel
) -> None:
    path = write_model(
        "g (bool c, float[2, 2] x) => (float[n, m] y) { y = If (c) <"
        "then_branch = a () => (float[n, m] t) { t = Softmax<axis=1>(x) }, "
        "else_branch = b () => (float[n, m] e) { e = ReduceSum<axes=[0]>(x) }> }",
        opset=11,
    )
    data = model_bytes(fit_opset(open_model(path).ir, lowest=13, highest=None, max_ir=None))
    for truth in (True, False):
        feeds = {"c": np.array(truth), "x": np.eye(2, dtype=np.float32)}
        np.testing.assert_allclose(
            run_model(data, feeds)[0], run_model(path.read_bytes(), feeds)[0], rtol=1e-6
        )


@pytest.mark.parametrize(
    ("body", "opset", "goal", "says"),
    [
        ("[g1] y = Gelu(x)", 21, 18, r"node 0 'g1' \(Gelu\) .* there is no Gelu at opset 18"),
        (
            "[g2] y = GroupNormalization<num_groups=1>(x, s, s)",
            21,
            18,
            r"node 0 'g2' \(GroupNormalization\) from opset 21 to 18: Group",
        ),
        (
            '[g3] y = Pad<mode="wrap">(x, p)',
            21,
            18,
            r"node 0 'g3' \(Pad\) from opset 21 to 18: mode 'wrap' of Pad changed at opset 19",
        ),
    ],
)
def test_a_node_in_the_way_is_named(
    write_model: WriteModel, body: str, opset: int, goal: int, says: str
) -> None:
    path = write_model(
        f"g (float[1, 3, 8, 8] x) => (float[n] y) {{ {body} }}",
        opset=opset,
        weights={"s": np.ones(3, np.float32), "p": np.ones(8, np.int64)},
    )
    with pytest.raises(CompileError, match=f"cannot convert {says}") as caught:
        fit_opset(open_model(path).ir, lowest=13, highest=goal, max_ir=None)
    assert caught.value.exit_code == 3
    assert "export the model with opset 18" in caught.value.hint


def test_ceilings_that_leave_no_room_are_refused(write_model: WriteModel) -> None:
    opened = open_model(write_model("g (float[2] x) => (float[2] y) { y = Relu(x) }"))
    with pytest.raises(CompileError, match="to opset 12: at least 13 is needed"):
        fit_opset(opened.ir, lowest=13, highest=12, max_ir=None)
    with pytest.raises(CompileError, match=r"to IR version 3: .* needs 4"):
        fit_opset(opened.ir, lowest=13, highest=None, max_ir=3)
