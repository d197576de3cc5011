"""A graph that lies gets reasons: nothing in it may crash the lowering or eat the memory."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.backends import NodesRefused
from edgesdk.backends.litert.lower import lower_graph
from edgesdk.errors import EdgeError
from tests.unit.backends.litert.graphs import build, with_pairs
from tests.unit.backends.litert.test_lower_basics import GRAPHS, numbers

NUMBERS = (-(2**40), -7, -1, 0, 1, 2, 3, 64, 2**31 - 1, 2**33)
TYPES = (1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 16, 17)
CASES = sorted(GRAPHS)


def reasons(model: ir.Model) -> dict[str, str]:
    with pytest.raises(NodesRefused) as caught:
        lower_graph(model)
    return caught.value.reasons


def conv(attributes: str, **constants: np.ndarray) -> ir.Model:
    text = (
        "g (float[1,4,9,8] x) => (float[1,4,7,6] y) { y = Conv<ATTRIBUTES>(x, k) }"
    ).replace("ATTRIBUTES", attributes)
    header = '<ir_version: 9, opset_import: ["" : 18]>\n'
    proto = onnx.parser.parse_model(header + text)
    k = constants.get("k", numbers(4, 4, 3, 3))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(k, "k"))
    return ir.from_proto(proto)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("strides=[0,1]", "its strides are [0, 1]"),
        ("strides=[1]", "its window has another number of dimensions than its input"),
        ("pads=[-1,0,0,0]", "negative padding"),
        ("pads=[1,1]", "it has 2 pads for 2 dimensions"),
        ("group=0", "4 channels to 4 in 0 groups"),
        ("group=3", "4 channels to 4 in 3 groups"),
        ("group=2", "its weights read 4 of 4 channels"),
        ("kernel_shape=[5,5]", "its kernel is stated as (5, 5), with weights (4, 4, 3, 3)"),
        ("dilations=[9999999,1]", "its dilations are [9999999, 1]"),
        ("strides=[2,2]", "its output is stated to have (7, 6) places"),
        ('auto_pad="AROUND"', "auto_pad is AROUND"),
    ],
)
def test_attributes_that_contradict_the_graph(attributes: str, reason: str) -> None:
    assert reasons(conv(attributes)) == {"y": reason}


def test_shapes_beyond_all_memory() -> None:
    model = build(*GRAPHS["relu"])
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([1 << 20, 1 << 20, 4])
    assert "numbers" in reasons(model)["y"]
    model.graph.inputs[0].shape = ir.Shape([1, 1 << 40, 4])
    assert "an extent of 'x' is" in reasons(model)["y"]


def test_open_and_unknown_shapes() -> None:
    model = build(*GRAPHS["relu"])
    model.graph.inputs[0].shape = ir.Shape(["N", 4, 5])
    assert reasons(model) == {"y": "the shape of 'x' is not fixed"}
    model.graph.inputs[0].shape = None
    assert reasons(model) == {"y": "the shape of 'x' is not known"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("x_s", np.float32(0), "a scale of its quantized numbers is no positive number"),
        ("x_s", np.float32(-1), "a scale of its quantized numbers is no positive number"),
        ("x_s", np.float32("nan"), "a scale of its quantized numbers is no positive number"),
        ("x_z", np.zeros(3, np.int8), "it has 1 scales but 3 zero points"),
        ("x_z", np.array(0, np.float32), "its numbers are quantized to float32"),
    ],
)
def test_grids_that_are_none(name: str, value: np.ndarray, reason: str) -> None:
    model = with_pairs(build(*GRAPHS["max pool"]))
    proto = ir.to_proto(model)
    for each in proto.graph.initializer:
        if each.name == name:
            each.CopyFrom(onnx.numpy_helper.from_array(np.asarray(value), name))
    assert reasons(ir.from_proto(proto)) == {"y_f": reason}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=st.sampled_from(CASES), paired=st.booleans(), seed=st.integers(0, 1 << 32))
def test_whatever_is_changed_in_a_graph_it_is_lowered_or_refused(
    case: str, paired: bool, seed: int
) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(_proto(case, paired=paired))
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 3)):
        _change(proto, dice)
    problems: list[str] = ["none"]
    try:
        data = lower_graph(ir.from_proto(proto))
    except NodesRefused as exc:
        problems = list(exc.reasons.values())
    except EdgeError as exc:
        problems = [str(exc)]
    else:
        assert data[4:8] == b"TFL3"
    assert problems
    assert all(reason.strip() for reason in problems)


_MADE: dict[tuple[str, bool], onnx.ModelProto] = {}


def _proto(case: str, *, paired: bool) -> onnx.ModelProto:
    if (case, paired) not in _MADE:
        model = build(*GRAPHS[case])
        _MADE[case, paired] = ir.to_proto(with_pairs(model) if paired else model)
    return _MADE[case, paired]


def _change(proto: onnx.ModelProto, dice: random.Random) -> None:
    graph = proto.graph
    node = dice.choice(graph.node)
    values = [*graph.value_info, *graph.output, *graph.input]
    tensor = dice.choice(values).type.tensor_type
    what = dice.randrange(6)
    if what == 0 and node.attribute:
        attribute = dice.choice(node.attribute)
        attribute.i = dice.choice(NUMBERS)
        if attribute.ints:
            attribute.ints[dice.randrange(len(attribute.ints))] = dice.choice(NUMBERS)
    elif what == 1:
        extent = tensor.shape.dim.add() if dice.random() < 0.3 else None
        if extent is None and tensor.shape.dim:
            extent = dice.choice(tensor.shape.dim)
        if extent is not None:
            extent.dim_value = dice.choice((0, 1, 2, 7, 1 << 20, (1 << 31) - 1, 1 << 40))
    elif what == 2:
        tensor.elem_type = dice.choice(TYPES)
    elif what == 3 and graph.initializer:
        constant = dice.choice(graph.initializer)
        array = onnx.numpy_helper.to_array(constant)
        other = (array.reshape(-1)[:1], array[None], array * 0, np.zeros(0, array.dtype))
        constant.CopyFrom(onnx.numpy_helper.from_array(dice.choice(other), constant.name))
    elif what == 4 and node.input:
        names = ["", *(each.name for each in (*graph.initializer, *graph.input))]
        node.input[dice.randrange(len(node.input))] = dice.choice(names)
    elif what == 5 and node.input:
        del node.input[-1]
