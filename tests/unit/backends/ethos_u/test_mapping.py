"""What the rules foretell of operators, near the limits and far from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesdk.backends.base import ModelFacts
from edgesdk.backends.ethos_u import make_backend, mapping
from edgesdk.backends.ethos_u.mapping import foretell, object_to
from edgesdk.model import open_tflite
from edgesdk.model.tflite_graph import TfliteGraph, read_tflite_graphs
from edgesdk.model.values import NodeFacts
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from edgesdk.profiles.constraint_values import CheckName, ConstraintRules
from edgesdk.tensors import TensorInfo
from tests.unit.backends.edgetpu.files import Network
from tests.unit.backends.ethos_u import forms
from tests.unit.backends.ethos_u.graphs import Spec, const, tflite_bytes
from tests.unit.backends.ethos_u.strays import stray_cases


def _rules() -> ConstraintRules:
    found = load_compiler_rules("ethos-u-vela")
    assert isinstance(found, ConstraintRules)
    return found


RULES = _rules()
SMALL, LARGE = "ethos-u55-128", "ethos-u85-256"


def graph_of(spec: Spec) -> TfliteGraph:
    return read_tflite_graphs(tflite_bytes(spec))[0][0]


def judge(spec: Spec, accelerator: str = SMALL) -> str | None:
    core = RULES.core_of(accelerator)
    assert core is not None
    graph = graph_of(spec)
    return object_to(graph, graph.ops[0], core)


@pytest.mark.parametrize("op", sorted(forms.PLAIN))
def test_a_plain_form_is_placed_where_the_core_has_the_operator(op: str) -> None:
    for accelerator in (SMALL, LARGE):
        core = RULES.core_of(accelerator)
        assert core is not None
        reason = judge(forms.PLAIN[op](), accelerator)
        assert (reason is None) == (op in core.operators), reason


CONV, DEPTHWISE = forms.conv, forms.depthwise
SIZE = (33, 33)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (CONV().with_maps(dtype="float32"), "it reads float32"),
        (CONV().with_outputs(scales=()), "is not quantized"),
        (CONV().with_input(1, scales=()), "is not quantized"),
        (CONV().with_input(1, scales=(2.0,) * 7 + (0.0,), zeros=(0,) * 8), "has the scale 0"),
        (CONV(size=SIZE, stride=(4, 4)), "steps of 4 x 4 over the edge or with gaps, past 3"),
        (CONV(size=SIZE, stride=(4, 4), padding=1), None),
        (CONV(size=SIZE, stride=(4, 4), padding=1, dilation=(2, 2)), "steps of 4 x 4"),
        (DEPTHWISE(size=SIZE, stride=(4, 4), padding=1), "steps of 4 x 4, past 3"),
        (CONV(kernel=(8, 8), depth=1200, channels=2, weight=127), "weights sum up to 9753600"),
        (CONV(kernel=(8, 8), depth=1200, channels=2, weight=64), None),
        (CONV().with_input(1, dtype="int16"), "weights of int16"),
        (CONV().with_input(1, values=None), "its weights are not known"),
        (CONV().with_input(2, values=None), "its bias is not known"),
        (CONV(bias=const(np.zeros(8), "int16", scales=(1.0,))), "a bias of int16"),
        (
            CONV(dtype="int16", bias=const(np.full(8, 1 << 41), "int64", scales=(1.0,))),
            "a bias of 2199023255552",
        ),
        (CONV().with_input(0, signature=(1, 16, 16, -1)), "is fixed only when it runs"),
        (CONV().with_input(0, signature=(-1, 16, 16, 8)), None),
        (forms.pool("AVERAGE_POOL_2D", size=(20, 20), kernel=(9, 9), padding=0), "9 x 9 over"),
        (forms.pool("AVERAGE_POOL_2D", size=(20, 20), kernel=(9, 9), padding=1), None),
        (forms.pool(size=(300, 4), kernel=(257, 1), stride=(1, 1)), "higher than 256"),
        (forms.fully(dynamic=True), None),
        (forms.fully(dynamic=True, dtype="int16"), "that are known only when it runs"),
        (forms.fully(dynamic=True, depth=70000, channels=2), "an extent of 70000"),
        (forms.matmul(dtype="int16"), "it reads int16"),
        (forms.transpose_conv(stride=(3, 3)), "steps of 3 x 3"),
        (forms.transpose_conv(stride=(1, 2), size=(1, 8), kernel=(1, 3)), None),
        (forms.transpose_conv(stride=(1, 2), size=(2, 8), kernel=(1, 3)), "steps of 1 x 2"),
        (forms.transpose_conv(out=(15, 15)), "an extent of 8 becomes 15, not 16"),
        (forms.binary("MAXIMUM").with_outputs(scales=(0.1,)), "has another scale"),
        (forms.binary("MAXIMUM").with_outputs(zeros=(3,)), "has another zero point"),
        (forms.binary("ADD").with_input(1, dtype="int16"), "int8 beside int16"),
        (forms.binary("ADD").with_outputs(dtype="uint8"), "int8 becomes uint8"),
        (forms.binary("ADD", dtype="int32").with_maps(scales=()), None),
        (forms.unary("RELU").with_maps(scales=(0.05, 0.06) * 4, axis=3), "has 8 scales"),
        (forms.unary("RELU").with_maps(dtype="uint8", zeros=(-1,)), "zero point -1 of uint8"),
        (forms.unary("RELU", shape=()), "without axes"),
        (forms.unary("ELU", dtype="int16"), "it reads int16"),
        (forms.unary("SOFTMAX", shape=(300, 300, 2)), "90000 rows, past 65536"),
        (forms.arg_max(shape=(1, 2, 2, 128)), "depth 128, past 127"),
        (forms.arg_max(axis=1), "axis 1 of"),
        (forms.reduce("MEAN", axes=(3,)), "it reduces the depth"),
        (forms.reduce("MEAN", shape=(1, 1, 8, 8), axes=(3,)), None),
        (forms.reduce("MEAN", shape=(2, 8, 8, 8)), "a batch of 2"),
        (
            forms.reduce("MEAN", shape=(1, 257, 256, 1), dtype="int16"),
            "65792 elements in one result",
        ),
        (forms.reduce("SUM", axes=(3,)), None),
        (forms.resize(out=(24, 24)), "8 x 8 to 24 x 24, not by 2, 4, 8"),
        (forms.resize(out=(32, 32), half=True), "not by 2"),
        (forms.resize(out=(15, 15), align=True), None),
        (forms.resize(size=(1, 1), out=(7, 7)), None),
        (forms.resize(size=(1, 8), out=(1, 16)), None),
        (forms.split(said=3), "3 results stated, 2 made"),
        (forms.strided(strides=(1, 1, 1, 2)), "steps [1, 1, 1, 2]"),
        (forms.strided(strides=(1, 2, 2, 1)), None),
        (forms.transpose((1, 4, 6, 8), (0, 3, 1, 2), "int32"), "in 32 bits"),
        (forms.transpose((1, 4, 6, 8), (0, 2, 1, 3), "int32"), None),
        (forms.transpose((300, 300, 2, 2), (1, 0, 2, 3)), "order [1, 0, 2, 3]"),
        (forms.transpose((2,) * 9, (1, 0, 2, 3, 4, 5, 6, 7, 8)), "9 axes, past 8"),
        (forms.pad(pads_dtype="int16"), "input 1 is int16"),
        (forms.lstm(), None),
        (forms.lstm(peephole=True), "gates look at the cell"),
        (forms.lstm(projection=True), "its result is projected"),
        (forms.lstm(norm=True), "gates are normalized"),
        (forms.lstm(without=(1, 5, 12)), "a gate is implied"),
    ],
)
def test_limits_of_the_small_cores(spec: Spec, reason: str | None) -> None:
    found = judge(spec)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (forms.conv(size=SIZE, stride=(8, 8)), None),
        (forms.binary("EQUAL", out_dtype="bool"), None),
        (forms.cast("int8", "float32"), "it makes float32"),
        (forms.gather((4, 8, 16), axis=1), "axis 1 with 0 batch axes"),
        (forms.resize(out=(24, 24)), "not by a power of two"),
        (forms.resize("RESIZE_NEAREST_NEIGHBOR", out=(24, 24)), None),
        (forms.resize(align=True, half=True), "corners aligned and pixels"),
        (forms.resize(size=(1, 2), out=(1, 4096)), "past 1024 times"),
        (forms.resize(size=(0, 8)), "0 x 8 to 16 x 16, from nothing"),
        (forms.unary("RELU", dtype="int16").with_maps(zeros=(1,)), "zero point 1 of int16"),
        (forms.unary("RELU").with_outputs(zeros=(200,)), "zero point 200 of int8"),
    ],
)
def test_limits_of_the_large_cores(spec: Spec, reason: str | None) -> None:
    found = judge(spec, LARGE)
    assert found is None if reason is None else reason in str(found)


def test_every_check_that_a_file_may_name_has_code() -> None:
    assert set(mapping.CHECKS) == set(get_args(CheckName))


def test_indices_that_repeat_are_not_scattered() -> None:
    def spec(places: list[int]) -> Spec:
        return Spec(
            "SCATTER_ND",
            (const(np.reshape(places, (2, 1))), forms.unary("RELU").inputs[0], const([8, 4])),
            (replace(forms.unary("RELU").outputs[0], shape=(8, 4)),),
            "ScatterNdOptions",
        )

    assert judge(spec([0, 3]), LARGE) is None
    assert "twice to one place" in str(judge(spec([3, 3]), LARGE))


def test_a_compiled_file_is_judged_by_what_is_in_it(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8])
    inner = net.op("ethos-u", [taken], net.tensor([1, 8]), custom=True)
    given_ = net.op("RELU", [inner], net.tensor([1, 8]))
    graph = open_tflite(net.save(tmp_path / "x.tflite", [taken], [given_])).graph
    core = RULES.core_of(SMALL)
    assert core is not None
    assert foretell(graph, RULES, core) == {1: "vela left it out"}


def test_a_backend_whose_accelerator_nobody_knows_takes_nothing(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8])
    given_ = net.op("RELU", [taken], net.tensor([1, 8]))
    opened = open_tflite(net.save(tmp_path / "x.tflite", [taken], [given_]))
    profile = find_target(SMALL).backends[0]
    facts = ModelFacts(source=opened.source, nodes=opened.ops, tflite=opened.graph)
    assert make_backend(profile, facts).refusals(facts) == {}
    odd = replace(profile, options={"accelerator": "ethos-u99-1"})
    assert "'ethos-u99-1'" in make_backend(odd, facts).refusals(facts)[0]
    bare = replace(profile, compiler=None)
    assert "names no constraints" in make_backend(bare, facts).refusals(facts)[0]


def node(op: str, *shapes: tuple[int, ...], **ints: tuple[int, ...]) -> NodeFacts:
    values = [
        TensorInfo(name=f"v{number}", dtype="float32", shape=shape)
        for number, shape in enumerate(shapes)
    ]
    return NodeFacts(
        index=0,
        op=op,
        domain="",
        name="n",
        since_version=13,
        inputs=tuple(value.name for value in values[:-1]),
        outputs=(values[-1].name,),
        input_types=tuple(values[:-1]),
        output_types=(values[-1],),
        constant_inputs=(False,) + (True,) * (len(values) - 2),
        ints=ints,
    )


def test_a_node_of_an_onnx_model_is_judged_by_what_it_becomes() -> None:
    core = RULES.core_of(SMALL)
    assert core is not None
    image, kernel = (1, 8, 33, 33), (8, 8, 3, 3)
    conv = node("Conv", image, kernel, (1, 8, 31, 31), kernel_shape=(3, 3), strides=(1, 1))
    assert mapping.why_not_placed(conv, core) is None
    far = node("Conv", image, kernel, (1, 8, 4, 4), kernel_shape=(3, 3), strides=(12, 12))
    assert "steps of 12 x 12" in str(mapping.why_not_placed(far, core))
    root = node("Sqrt", image, image)
    assert mapping.why_not_placed(root, core) == "it has no SQRT"
    unknown = node("NoSuchOperator", image, image)
    assert "no lowering" in str(mapping.why_not_placed(unknown, core))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 32))
def test_no_graph_by_chance_breaks_the_rules(seed: int) -> None:
    for case in stray_cases(seed, 5):
        for accelerator in (SMALL, LARGE):
            reason = judge(case.spec, accelerator)
            assert reason is None or reason.isprintable()
