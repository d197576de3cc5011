"""Where nodes go, why not elsewhere, and what it will take: pure, so tested on values alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.errors import PlacementError, RecipeError
from edgesdk.model.values import NodeFacts, SourceModel
from edgesdk.plan import BuildPlan, ModelFacts, Recipe, plan_build
from edgesdk.plan.memory import predict_memory_bytes
from edgesdk.profiles.rules import load_scheme_rules
from edgesdk.profiles.values import (
    AgentNeeds,
    BackendProfile,
    Identify,
    Provenance,
    QuantScheme,
    TargetProfile,
)
from edgesdk.quantize.lonely import ALONE
from edgesdk.tensors import TensorInfo


def tensor(name: str, *shape: int | str, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def node(index: int, op: str, reads: TensorInfo, writes: TensorInfo, **more: Any) -> NodeFacts:
    facts: dict[str, Any] = {
        "index": index,
        "name": f"{op.lower()}_{index}",
        "op": op,
        "domain": "",
        "since_version": 13,
        "inputs": (reads.name,),
        "outputs": (writes.name,),
        "input_types": (reads,),
        "output_types": (writes,),
        "constant_inputs": (False,),
    }
    return NodeFacts(**facts | more)


def conv(index: int, reads: TensorInfo, writes: TensorInfo) -> NodeFacts:
    """Give a convolution with constant weights."""
    return node(
        index,
        "Conv",
        reads,
        writes,
        inputs=(reads.name, "w"),
        input_types=(reads, tensor("w", 8, 4, 1, 1)),
        constant_inputs=(False, True),
    )


def model(*nodes: NodeFacts, fmt: Any = "onnx", weights: int = 0) -> ModelFacts:
    source = SourceModel(
        path=Path("m.onnx"),
        name="m",
        format=fmt,
        sha256="0" * 64,
        bytes=1,
        ir_version=8,
        opset=17,
        opsets={"": 17},
        producer="",
        inputs=(nodes[0].input_types[0] or tensor("x"),),
        outputs=(nodes[-1].output_types[0] or tensor("y"),),
        op_counts={},
        initializer_bytes=weights,
        external_data=False,
    )
    return ModelFacts(source=source, nodes=nodes)


def backend(name: str, kind: str, **more: Any) -> BackendProfile:
    facts: dict[str, Any] = {
        "id": name,
        "kind": kind,
        "runtime": kind,
        "accelerator": False,
        "precisions": ("int8", "fp32"),
        "scheme": QuantScheme(
            activations="uint8-asymmetric",
            weights="int8-per-channel-symmetric",
            rules=load_scheme_rules("onnxruntime-cpu"),
        ),
        "runtime_version": "1.0",
        "max_opset": None,
        "max_ir": None,
        "requirement": "pip install it",
        "options": {},
        "quirks": (),
    }
    return BackendProfile(**facts | more)


def target(*backends: BackendProfile) -> TargetProfile:
    return TargetProfile(
        name="board",
        family="boards",
        vendor="someone",
        title="A board",
        default=False,
        ram_bytes=1 << 30,
        backends=backends,
        agent=AgentNeeds(python="3.9", reach=("ssh",)),
        identify=Identify(),
        provenance=(
            Provenance(field="ram_bytes", kind="assumed", source="", checked="2026-01-01"),
        ),
        notes="",
        source=Path("board.yaml"),
        digest="1" * 64,
    )


CPU = backend("cpu", "onnxruntime")
X, Y, Z = tensor("x", 1, 4, 8, 8), tensor("y", 1, 8, 8, 8), tensor("z", 1, 8, 8, 8)
CONV_RELU = model(node(0, "Conv", X, Y), node(1, "Relu", Y, Z))


def plan(facts: ModelFacts, *backends: BackendProfile, **recipe: Any) -> BuildPlan:
    return plan_build(facts, target(*backends), Recipe(**recipe))


def test_the_best_backend_that_takes_the_whole_graph_gets_it() -> None:
    made = plan(CONV_RELU, CPU, backend("other", "openvino"))
    assert made.nodes_by_backend == {"cpu": 2}
    assert made.parts[0].nodes == (0, 1)
    assert made.parts[0].format == "onnx"
    assert all(not entry.refusals for entry in made.nodes)
    assert made.assumed == ("ram_bytes",)


def test_a_backend_without_a_compiler_refuses_every_node_and_says_so() -> None:
    made = plan(CONV_RELU, backend("npu", "dreamchip", accelerator=True), CPU)
    for entry in made.nodes:
        assert entry.backend == "cpu"
        assert [refusal.backend for refusal in entry.refusals] == ["npu"]
        assert "no compiler for dreamchip" in entry.refusals[0].reason


def test_a_backend_that_takes_only_some_nodes_has_its_island_weighed() -> None:
    text = model(
        node(0, "Conv", X, Y),
        node(1, "StringNormalizer", Y, Z),
    )
    made = plan(text, backend("ov", "openvino"), CPU)
    assert "an island of 1 node that saves 0 us and costs" in made.nodes[0].refusals[0].reason
    assert [(each.backend, each.nodes) for each in made.given_up] == [("ov", (0,))]
    assert [part.backend for part in made.parts] == ["cpu"]
    assert "StringNormalizer is not translated" in made.nodes[1].refusals[0].reason


def test_an_operator_newer_than_the_runtime_is_refused_with_both_versions() -> None:
    gelu = model(node(0, "Gelu", X, Y, since_version=20))
    old = backend("cpu", "onnxruntime", max_opset=18, runtime_version="1.14.1")
    with pytest.raises(PlacementError) as caught:
        plan(gelu, old)
    assert str(caught.value) == (
        "cannot place m on board: node 0 'gelu_0' (Gelu): cpu: Gelu exists since opset 20; "
        "onnxruntime 1.14.1 ends at 18"
    )
    assert caught.value.exit_code == 3
    assert "1 of 1 nodes are refused" in caught.value.hint


def test_an_unregistered_domain_is_refused_by_name() -> None:
    with pytest.raises(PlacementError, match=r"operator domain .acme\.ops."):
        plan(model(node(0, "Warp", X, Y, domain="acme.ops")), CPU)


def test_litert_is_given_onnx_graphs_as_far_as_they_are_lowered_and_tflite_files() -> None:
    litert = backend("litert", "litert")
    assert plan(CONV_RELU, litert).nodes_by_backend == {"litert": 2}
    with pytest.raises(PlacementError, match="TfIdfVectorizer has no lowering to TFLite"):
        plan(model(node(0, "TfIdfVectorizer", X, Y)), litert)
    made = plan(model(node(0, "CONV_2D", X, Y), fmt="tflite"), CPU, litert)
    assert made.nodes[0].backend == "litert"
    assert made.precision == "as-is"
    assert "it reads ONNX" in made.nodes[0].refusals[0].reason


def test_the_recipe_chooses_among_backends_and_unknown_ones_are_named() -> None:
    other = backend("ov", "openvino")
    assert plan(CONV_RELU, CPU, other, prefer=("ov",)).nodes_by_backend == {"ov": 2}
    assert plan(CONV_RELU, CPU, other, avoid=("cpu",)).nodes_by_backend == {"ov": 2}
    with pytest.raises(RecipeError, match="it has no backend 'npu'") as caught:
        plan(CONV_RELU, CPU, prefer=("npu",))
    assert "its backends are cpu" in caught.value.hint
    with pytest.raises(RecipeError, match="avoids every backend"):
        plan(CONV_RELU, CPU, avoid=("cpu",))


def test_a_precision_the_backend_does_not_have_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot build int8 for cpu: it runs fp32"):
        plan(CONV_RELU, backend("cpu", "onnxruntime", precisions=("fp32",)), precision="int8")


def test_nodes_the_quantizer_leaves_are_planned_in_float() -> None:
    made = plan(
        model(conv(0, X, Y), node(1, "Softmax", Y, Z), node(2, "Relu", Z, X)),
        CPU,
        precision="int8",
        keep_float=("relu_2",),
    )
    assert [entry.precision for entry in made.nodes] == ["int8", "fp32", "fp32"]
    reasons = [entry.why_float for entry in made.nodes]
    assert reasons[0] is None
    assert reasons[1] is not None
    assert "Softmax" in reasons[1]
    assert reasons[2] == "the recipe keeps it in float"
    assert [entry["why_float"] for entry in made.to_json()["nodes"]] == reasons


def test_weights_that_are_computed_are_planned_in_float_with_the_reason() -> None:
    made = plan(model(node(0, "Conv", X, Y)), CPU, precision="int8")
    assert made.nodes[0].why_float == "its weights are not constants"


@pytest.mark.parametrize(
    ("precision", "whys"),
    [
        ("fp32", [None, None]),
        ("fp16", [None, None]),
        ("int8-dynamic", ["Conv is not converted in int8-dynamic", None]),
        ("int4-weights", ["Conv is not converted in int4-weights", None]),
    ],
)
def test_each_precision_has_its_own_reasons(precision: str, whys: list[str | None]) -> None:
    product = node(
        1,
        "MatMul",
        Y,
        Z,
        inputs=("y", "v"),
        input_types=(Y, tensor("v", 8, 4)),
        constant_inputs=(False, True),
    )
    every = ("int8", "int8-dynamic", "int4-weights", "fp16", "fp32")
    able = backend("ort-cpu", "onnxruntime", precisions=every)
    made = plan(model(conv(0, X, Y), product), able, precision=precision)
    assert [entry.why_float for entry in made.nodes] == whys
    assert [entry.precision for entry in made.nodes] == [
        precision if why is None else "fp32" for why in whys
    ]


@pytest.mark.parametrize("precision", ["fp16", "int16x8", "int8-dynamic", "int4-weights"])
def test_a_precision_that_the_backend_lacks_is_refused_with_those_it_has(
    precision: str,
) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(CONV_RELU, CPU, precision=precision)
    assert str(caught.value) == f"cannot build {precision} for cpu: it runs int8, fp32"
    assert caught.value.hint == "build with --precision int8"
    assert caught.value.exit_code == 2


def test_memory_is_weights_and_the_tensors_alive_at_once() -> None:
    # x (1024 B) and y (2048 B) live during the convolution, y and z (4096 B) during Relu
    assert predict_memory_bytes(CONV_RELU, {}) == 4096
    assert plan(CONV_RELU, CPU).memory_bytes == 4096
    weight = tensor("w", 8, 4, 1, 1)
    conv = node(
        0,
        "Conv",
        X,
        Y,
        inputs=("x", "w"),
        input_types=(X, weight),
        constant_inputs=(False, True),
    )
    facts = model(conv, weights=128)
    assert predict_memory_bytes(facts, {}) == 1024 + 2048 + 128
    assert predict_memory_bytes(facts, {0: "int8"}) == 1024 + 512 + 32


def test_an_input_whose_open_extent_is_fixed_counts_with_what_it_is_fixed_to() -> None:
    open_x = replace(X, shape=("N", *X.shape[1:]))
    facts = model(*CONV_RELU.nodes)
    source = replace(facts.source, inputs=(open_x,))
    assert predict_memory_bytes(replace(facts, source=source), {}) == 4096
    unknown = tuple(replace(node, input_types=(open_x,)) for node in facts.nodes[:1])
    assert predict_memory_bytes(replace(facts, source=source, nodes=unknown), {}) is None


@pytest.mark.parametrize(
    ("precision", "activation", "weight"),
    [
        ("fp32", 4, 4),
        ("fp16", 2, 2),
        ("int16x8", 2, 1),
        ("int8", 1, 1),
        ("auto", 1, 1),
        ("int8-dynamic", 4, 1),
        ("int4-weights", 4, 0.625),
    ],
)
def test_memory_is_foretold_for_every_precision(
    precision: str, activation: int, weight: float
) -> None:
    facts = model(conv(0, X, Y), weights=128)
    # 32 weights; the graph's input stays in float, the result has 512 numbers
    expected = 1024 + 512 * activation + 32 * weight
    assert predict_memory_bytes(facts, {0: precision}) == expected


def test_constants_that_are_turned_about_take_memory_once_and_as_weights() -> None:
    weight, turned = tensor("w", 8, 4), tensor("t", 4, 8)
    facts = model(
        node(0, "Transpose", weight, turned, constant_inputs=(True,)),
        node(
            1,
            "MatMul",
            tensor("x", 1, 4),
            tensor("y", 1, 8),
            inputs=("x", "t"),
            input_types=(tensor("x", 1, 4), turned),
            constant_inputs=(False, False),
        ),
        weights=128,
    )
    source = replace(facts.source, inputs=(tensor("x", 1, 4),))
    made = plan(ModelFacts(source=source, nodes=facts.nodes), CPU, precision="int8")
    assert [entry.why_float for entry in made.nodes] == [
        "the build folds it into a constant",
        None,
    ]
    assert made.memory_bytes == 16 + 8 + 32


def test_a_node_without_a_neighbour_in_eight_bits_is_planned_in_float() -> None:
    made = plan(model(conv(0, X, Y), node(1, "Sigmoid", Y, Z)), CPU, precision="int8")
    assert [entry.why_float for entry in made.nodes] == [None, ALONE]


@pytest.mark.parametrize(
    ("kept", "problem", "hint"),
    [
        (("cnov_0",), "no node and ONNX no operator type 'cnov_0'", "did you mean conv_0"),
        (("Relv",), "'Relv'", "did you mean Relu or relu_1?"),
        (("",), "operator type ''", "it has Conv, Relu"),
        ("conv_0", "it is the text 'conv_0' (expected a list of names)", "write ['conv_0']"),
    ],
)
def test_a_typo_in_what_stays_float_is_refused(
    kept: tuple[str, ...], problem: str, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        plan(CONV_RELU, CPU, precision="int8", keep_float=kept)
    assert problem in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("kept", ["conv_0", "Relu", "LSTM"])
def test_what_stays_float_may_be_a_node_or_any_operator_type_of_onnx(kept: str) -> None:
    assert plan(CONV_RELU, CPU, precision="int8", keep_float=(kept,)).parts


def test_names_that_simplifying_gives_in_place_of_missing_ones_may_stay_float() -> None:
    nameless = model(replace(conv(0, X, Y), name=""), node(1, "Relu", Y, Z))
    assert plan(nameless, CPU, precision="int8", keep_float=("node_1", "node")).parts
    with pytest.raises(RecipeError):
        plan(nameless, CPU, precision="int8", keep_float=("relu_2",))


def test_names_of_nodes_in_bodies_are_not_in_the_facts_and_pass() -> None:
    loop = model(node(0, "Loop", X, Y, subgraph_ops=("MatMul",)))
    assert plan(loop, CPU, keep_float=("inner",)).parts


def test_memory_is_not_predicted_where_a_shape_is_not_fixed() -> None:
    assert plan(model(node(0, "Relu", tensor("x", "N", 4), Y)), CPU).memory_bytes is None


def test_a_plan_is_plain_data() -> None:
    record = plan(CONV_RELU, backend("npu", "dreamchip"), CPU).to_json()
    assert record["nodes"][0]["refusals"][0]["backend"] == "npu"
    assert record["parts"][0]["runtime"] == "onnxruntime"
    assert set(record) >= {"nodes", "parts", "memory_bytes", "assumed"}


def test_a_normalization_that_is_folded_counts_with_its_convolution() -> None:
    names = ("scale", "shift", "mean", "variance")
    types = tuple(tensor(name, 8) for name in names)
    more = {"input_types": (Y, *types), "constant_inputs": (False, True, True, True, True)}
    made = plan(
        model(
            conv(0, X, Y),
            node(1, "BatchNormalization", Y, Z, inputs=("y", *names), **more),
            node(2, "Relu", Z, tensor("r", 1, 8, 8, 8)),
            node(
                3,
                "BatchNormalization",
                tensor("r", 1, 8, 8, 8),
                X,
                inputs=("r", *names),
                **more,
            ),
        ),
        CPU,
        precision="int8",
    )
    assert [entry.precision for entry in made.nodes] == ["int8", "int8", "int8", "fp32"]


def test_a_long_row_of_constants_is_no_trouble() -> None:
    """Each goes with what reads it, however many there are."""
    count = 3000
    values = [tensor(f"c{number}", 8) for number in range(count + 1)]
    row = [
        node(i, "Constant" if not i else "Identity", values[i], values[i + 1])
        for i in range(count)
    ]
    row[0] = replace(row[0], inputs=("",), input_types=(None,), constant_inputs=(False,))
    last = node(
        count,
        "Add",
        X,
        Y,
        inputs=(X.name, values[-1].name),
        input_types=(X, values[-1]),
        constant_inputs=(False, False),
    )
    made = plan(model(*row, last), CPU)
    assert made.nodes_by_backend == {"cpu": count + 1}
    assert made.parts[0].nodes == tuple(range(count + 1))


def test_speeds_that_nobody_gave_are_named_where_they_decided() -> None:
    text = model(node(0, "Conv", X, Y), node(1, "StringNormalizer", Y, Z))
    assert "backends.ov.speed" in plan(text, backend("ov", "openvino"), CPU).assumed
    assert "backends.cpu.speed" not in plan(CONV_RELU, CPU).assumed


@pytest.mark.parametrize("quirks", [(), ("static-shapes-only",)])
def test_open_extents_are_refused_only_by_what_takes_fixed_shapes(quirks: Any) -> None:
    x, y = tensor("x", "N", 4, "H", "W"), tensor("y", "N", 8, "H", "W")
    first = backend("first", "onnxruntime", accelerator=True, quirks=quirks)
    plan = plan_build(model(node(0, "Relu", x, y)), target(first, CPU), Recipe())
    assert plan.nodes[0].backend == ("cpu" if quirks else "first")
    said = [each.reason for each in plan.nodes[0].refusals]
    # the very first extent is open only here: a plan of a file sees it as 1
    assert said == (
        ["extent 0 of x is not fixed, and first takes fixed shapes only"] if quirks else []
    )


def test_an_open_batch_alone_refuses_nothing() -> None:
    x, y = tensor("x", "N", 4, 8, 8), tensor("y", "N", 4, 8, 8)
    first = backend("first", "onnxruntime", quirks=("static-shapes-only",))
    plan = plan_build(model(node(0, "Relu", x, y)), target(first, CPU), Recipe())
    assert plan.nodes_by_backend == {"first": 1}


def test_where_only_shapes_are_missing_the_hint_is_to_fix_them() -> None:
    x, y = tensor("x", 1, 4, "H", "W"), tensor("y", 1, 4, "H", "W")
    only = backend("only", "onnxruntime", quirks=("static-shapes-only",))
    with pytest.raises(PlacementError, match="extent 2 of x is not fixed") as caught:
        plan_build(model(node(0, "Relu", x, y)), target(only), Recipe())
    assert "--shape x=... fixes the shapes" in str(caught.value.hint)
