"""ONNX graphs for the Edge TPU: what is said of their nodes, and of the file they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.backends import Backend, ModelFacts, backend_for
from edgesdk.backends.base import NodesRefused, PartJob
from edgesdk.backends.edgetpu.compiler import compile_part
from edgesdk.backends.edgetpu.mapping import foretell
from edgesdk.backends.edgetpu.nodes import strand, why_not_mapped
from edgesdk.backends.litert.lower import lower_graph
from edgesdk.model.kernels import kernel_graph
from edgesdk.model.tflite_graph import TfliteGraph, read_tflite_graphs
from edgesdk.model.values import NodeFacts, SourceModel
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from edgesdk.tensors import TensorInfo
from tests.unit.backends.litert.graphs import (
    build,
    quantize,
    same_numbers,
    with_pairs,
)

RULES = load_compiler_rules("edgetpu-16")
PROFILE = find_target("coral-dev-board").backends[0]
BORDER = {"QUANTIZE", "DEQUANTIZE"}
RNG = np.random.default_rng(5)


def weights(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def source_of(model: ir.Model) -> SourceModel:
    def infos(values: Sequence[ir.Value]) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(
                name=value.name or "",
                dtype="float32",
                shape=tuple(int(each) for each in value.shape or ()),
            )
            for value in values
        )

    return SourceModel(
        path=Path("m.onnx"),
        name="m",
        format="onnx",
        sha256="0" * 64,
        bytes=1,
        ir_version=9,
        opset=18,
        opsets={"": 18},
        producer="",
        inputs=infos(model.graph.inputs),
        outputs=infos(model.graph.outputs),
        op_counts={},
        initializer_bytes=0,
        external_data=False,
    )


def refused(model: ir.Model) -> dict[str, str]:
    """What the backend says of a quantized graph, by operator."""
    kernels = kernel_graph(model)
    facts = ModelFacts(source=source_of(model), nodes=tuple(kernels.nodes.values()))
    facts = replace(
        facts, floats={i: "in float" for i in kernels.nodes if i not in kernels.quantized}
    )
    backend: Backend = backend_for(PROFILE, facts)
    return {kernels.nodes[i].op: why for i, why in backend.refusals(facts).items()}


def lowered_for_it(model: ir.Model) -> TfliteGraph:
    """Lower with what its compiler reads, as a build does."""
    return read_tflite_graphs(lower_graph(model, RULES.versions))[0][0]


def left(model: ir.Model) -> list[str]:
    """What of the lowered file is foretold to stay on the processor, borders aside."""
    graph = lowered_for_it(model)
    names = [graph.ops[index].name for index in sorted(foretell(graph, RULES))]
    return [name for name in names if name not in BORDER]


def network(body: str, *, shape: str = "1,3,16,16", **constants: np.ndarray) -> ir.Model:
    text = f"g (float[{shape}] x) => (float y) {{ {body} }}"
    return quantize(build(text, constants))


def test_a_residual_network_is_mapped_and_so_is_its_file() -> None:
    model = network(
        """
        a = Conv<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x, w)
        b = Relu(a)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(b)
        c = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(p, v)
        d = Add(c, p)
        e = Relu(d)
        m = GlobalAveragePool(e)
        f = Flatten(m)
        y = Gemm<transB=1>(f, u, t)
        """,
        w=weights(8, 3, 3, 3),
        v=weights(8, 8, 3, 3),
        u=weights(4, 8),
        t=weights(4),
    )
    assert refused(model) == {}
    assert left(model) == []


def test_padding_a_pool_behind_a_relu_needs_no_operator_that_is_not_mapped(
    tmp_path: Path,
) -> None:
    body = """
        a = Conv<kernel_shape=[1,1]>(x, w)
        b = {}(a)
        p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(b)
        y = Conv<kernel_shape=[1,1]>(p, v)
        """
    constants = {"w": weights(8, 3, 1, 1), "v": weights(4, 8, 1, 1)}
    model = network(body.format("Relu"), **constants)
    answers = same_numbers(model, tmp_path)
    assert "PADV2" not in answers.ops
    assert left(model) == []
    wide = body.replace("(p, v)", "(q, u)").replace("strides=[2,2]", "strides=[1,1]")
    wide = wide.replace("y = Conv", "q = Concat<axis=1>(p, a) y = Conv")
    model = network(wide.format("Relu"), **constants, u=weights(4, 16, 1, 1))
    assert "PADV2" not in same_numbers(model, tmp_path).ops, (
        "the grid begins below zero, the numbers do not"
    )
    # without the Relu there are numbers below zero, which only PADV2 pads for
    assert left(network(body.format("Tanh"), **constants))[0] == "PADV2"


@pytest.mark.parametrize("shape", ["1,3,16,16", "1,3,40", "1,3"])
def test_a_normalization_that_nothing_took_in_stays_in_integers(
    tmp_path: Path, shape: str
) -> None:
    gain = np.array([1.5, -0.25, 1e-7], np.float32)
    offset = np.array([0.5, -3, 7], np.float32)
    text = "{ a = Relu(x) b = BatchNormalization(a, g, o, m, v) y = Relu(b) }"
    constants = {"g": gain, "o": offset, "m": weights(3), "v": np.abs(weights(3)) + 1}
    model = with_pairs(build(f"g (float[{shape}] x) => (float y) {text}", constants))
    answers = same_numbers(model, tmp_path)
    assert answers.ops["DEPTHWISE_CONV_2D"] == 1
    assert not {"MUL", "ADD"} & answers.ops.keys()
    assert refused(model) == {}
    assert left(model) == []


def test_a_picture_of_floats_is_turned_and_quantized_on_the_processor() -> None:
    body = "y = Conv<kernel_shape=[3,3]>(x, w)"
    model = network(body, shape="1,3,240,320", w=weights(8, 3, 3, 3))
    assert refused(model) == {}
    graph = lowered_for_it(model)
    found = foretell(graph, RULES)
    assert "CONV_2D" not in {graph.ops[index].name for index in found}, (
        "what stands first strands nothing, though 230,400 elements are turned there"
    )


def test_an_operator_in_float_strands_what_is_behind_it() -> None:
    model = network(
        """
        a = Conv<kernel_shape=[1,1]>(x, w)
        b = Div(a, q)
        c = Conv<kernel_shape=[1,1]>(b, v)
        d = Relu(c)
        y = Conv<kernel_shape=[1,1]>(d, v)
        """,
        w=weights(8, 3, 1, 1),
        v=weights(8, 8, 1, 1),
        q=np.abs(weights(1, 8, 1, 1)) + 1,
    )
    said = refused(model)
    assert set(said) == {"Div", "Conv", "Relu"}
    assert said["Div"] == "Operation not supported: DIV"
    assert left(model) == ["DIV", "CONV_2D", "CONV_2D", "TRANSPOSE"]


@pytest.mark.parametrize(("op", "into"), [("HardSwish", "HARD_SWISH"), ("Exp", "EXP")])
def test_an_operator_that_the_table_lacks_is_named(op: str, into: str) -> None:
    model = network(
        f"a = Conv<kernel_shape=[1,1]>(x, w) b = {op}(a) y = Conv<kernel_shape=[1,1]>(b, v)",
        w=weights(8, 3, 1, 1),
        v=weights(8, 8, 1, 1),
    )
    assert refused(model)[op] == f"Operation not supported: {into}"
    assert into in left(model)


def test_an_operator_newer_than_the_compiler_is_lowered_in_float_or_not_at_all(
    tmp_path: Path,
) -> None:
    body = "a = Conv<kernel_shape=[1,1]>(x, w) b = {}(a) y = Conv<kernel_shape=[1,1]>(b, v)"
    constants = {"w": weights(8, 3, 1, 1), "v": weights(4, 8, 1, 1)}
    model = network(body.format("Exp"), **constants)
    versions = {op.name: op.version for op in lowered_for_it(model).ops}
    assert versions["EXP"] == 1
    assert left(model)[0] == "EXP", "and not everything, as of a file that is not read"
    text = "g (float[1,3,16,16] x) => (float y) "
    model = with_pairs(build(text + "{ " + body.format("Gelu") + " }", constants, opset=20))
    with pytest.raises(NodesRefused) as caught:
        lower_graph(model, RULES.versions)
    (reason,) = caught.value.reasons.values()
    assert reason.startswith("it takes GELU of version")
    assert lower_graph(model), "whoever reads any version may have it"


def facts(
    index: int, op: str, inputs: Sequence[str], shape: Sequence[int], **ints: tuple[int, ...]
) -> NodeFacts:
    info = tuple(TensorInfo(name=name, dtype="float32", shape=tuple(shape)) for name in inputs)
    return NodeFacts(
        index=index,
        name=f"n{index}",
        op=op,
        domain="" if op != "Strange" else "my.own",
        since_version=13,
        inputs=tuple(inputs),
        outputs=(f"v{index}",),
        input_types=info,
        output_types=(TensorInfo(name=f"v{index}", dtype="float32", shape=tuple(shape)),),
        ints=ints,
        constant_inputs=tuple(False for _ in inputs),
    )


@pytest.mark.parametrize(
    ("op", "shape", "ints", "why"),
    [
        ("Relu", (1, 8, 4, 4), {}, None),
        ("Relu", (2, 8, 4, 4), {}, "unsupported rank"),
        ("Relu", (1, 2, 8, 4, 4), {}, "unsupported rank"),
        ("Softmax", (1, 16_000), {}, None),
        ("Softmax", (1, 16_001), {}, "depth 16001, past 16000"),
        ("Softmax", (1, 20_000, 1, 8), {"axis": (3,)}, None),
        ("Softmax", (1, 8, 20_000), {"axis": (1,)}, None),
        ("Softmax", (1, 20_000, 8), {"axis": (1,)}, "depth 20000, past 16000"),
        ("GlobalAveragePool", (1, 8, 256, 128), {}, "32768 elements in one result"),
        ("GlobalAveragePool", (1, 8, 7, 7), {}, None),
        ("Strange", (1, 8), {}, "has no lowering"),
    ],
)
def test_limits_of_a_node(
    op: str, shape: tuple[int, ...], ints: dict[str, tuple[int, ...]], why: str | None
) -> None:
    said = why_not_mapped(facts(0, op, ["x"], shape, **ints), RULES)
    assert (said is None) if why is None else (why in (said or ""))


def chain(*ops: str) -> ModelFacts:
    nodes = [
        facts(index, op, [f"v{index - 1}" if index else "x"], (1, 8, 4, 4))
        for index, op in enumerate(ops)
    ]
    source = replace(
        source_of(build("g (float[1,8,4,4] x) => (float y) { y = Relu(x) }")), outputs=()
    )
    return ModelFacts(source=source, nodes=tuple(nodes))


def test_what_stands_behind_a_refused_node_is_refused() -> None:
    model = chain("Relu", "Div", "Relu", "Relu")
    assert sorted(strand(model, {1: "no"}, RULES)) == [2, 3]
    assert sorted(strand(model, {0: "no"}, RULES)) == [], "not behind the first"
    assert "More than one subgraph" in strand(model, {1: "no"}, RULES)[3]


def test_a_node_in_float_strands_like_one_that_is_refused() -> None:
    model = replace(chain("Relu", "Relu", "Relu"), floats={1: "kept in float"})
    assert sorted(strand(model, {}, RULES)) == [2]


def test_nodes_that_are_not_lowered_part_the_files_and_each_has_its_own_run() -> None:
    model = chain("Relu", "Strange", "Relu", "Div", "Relu")
    assert sorted(strand(model, {1: "not lowered", 3: "no"}, RULES)) == [4]


def job(model: ir.Model, folder: Path) -> PartJob:
    return PartJob(index=0, model=model, source=None, precision="int8", folder=folder)


def test_a_part_is_lowered_and_its_own_file_is_judged(tmp_path: Path) -> None:
    model = network(
        "a = Conv<kernel_shape=[1,1]>(x, w) b = Relu(a) y = Div(b, q)",
        w=weights(8, 3, 1, 1),
        q=np.abs(weights(1, 8, 1, 1)) + 1,
    )
    made = compile_part(job(model, tmp_path), PROFILE, RULES)
    assert made.format == "tflite"
    assert made.is_for_rest, "there is no compiler here"
    assert made.inside["provenance"] == "assumed"
    counts = {(each["op"], each["status"]): each["count"] for each in made.inside["ops"]}
    assert counts["CONV_2D", "mapped"] == 1
    assert made.inside["memory"]["cached_bytes"] == 16 * (16 + 8)
    entry = next(each for each in made.inside["left"] if each["op"] == "DEQUANTIZE")
    assert entry["makes"]
