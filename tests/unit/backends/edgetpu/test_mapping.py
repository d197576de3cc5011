"""One part only: which run of operators the compiler keeps, and what real pairs say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.backends.edgetpu.mapping import first_run, foretell
from edgesdk.model import TfliteGraph, open_tflite
from edgesdk.plan.planner import model_facts, plan_build
from edgesdk.plan.recipe import Recipe
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

RULES = load_compiler_rules("edgetpu-16")
PAIRS = (
    "deeplabv3_mnv2_dm05_pascal_quant",
    "keras_lstm_mnist_ptq",
    "mobilenet_v1_0.25_128_quant",
    "posenet_posenet_mobilenet_v1_075_353_481_16_quant_decoder",
    "tools_split_concat",
)


def chain(count: int) -> dict[int, set[int]]:
    return {index: {index - 1} if index else set() for index in range(count)}


def test_everything_behind_an_operator_that_is_left_is_left() -> None:
    assert first_run(chain(5), {2}) == {0, 1}


def test_a_first_operator_that_is_left_strands_nothing() -> None:
    # a float input: QUANTIZE on the processor, all else mapped (logs of Keras models)
    assert first_run(chain(5), {0}) == {1, 2, 3, 4}


def test_a_branch_that_does_not_depend_on_it_goes_on() -> None:
    # 0 -> 1 (left) -> 3; 0 -> 2 -> 3
    assert first_run({0: (), 1: {0}, 2: {0}, 3: {1, 2}}, {1}) == {0, 2}


def test_the_first_run_is_kept_however_short() -> None:
    # the log of YOLO v5: one QUANTIZE mapped of 294, as four slices behind it are left
    assert first_run(chain(20), {1}) == {0}


def test_a_left_input_of_a_later_branch_counts_as_first_if_it_stands_first() -> None:
    assert first_run({0: (), 1: (), 2: {0, 1}}, {0}) == {1, 2}
    assert first_run({0: (), 1: (), 2: {0, 1}}, {1}) == {0}


def test_nothing_taken_is_no_run_and_a_circle_ends() -> None:
    assert first_run(chain(3), {0, 1, 2}) == frozenset()
    assert first_run({}, ()) == frozenset()
    assert first_run({0: {1}, 1: {0}, 2: ()}, ()) == {2}


@given(
    st.lists(st.sets(st.integers(0, 11), max_size=3), max_size=12),
    st.sets(st.integers(0, 11), max_size=6),
)
def test_a_run_is_what_the_definition_says(needs: list[set[int]], refused: set[int]) -> None:
    """Against the definition, written out: grow runs of one sort until nothing is ready."""
    graph = {i: {n for n in wanted if n < i} for i, wanted in enumerate(needs)}
    done: set[int] = set()
    expected: set[int] = set()
    while len(done) < len(graph) and not expected:
        ready = [i for i in graph if i not in done and graph[i] <= done]
        sort, run = ready[0] not in refused, set()
        grown = True
        while grown:
            grown = False
            for i, makers in graph.items():
                if i not in done and makers <= done and (i not in refused) is sort:
                    done.add(i)
                    run.add(i)
                    grown = True
        expected = run if sort else set()
    assert first_run(graph, refused) == expected


def test_a_float_model_between_quantize_and_dequantize(tmp_path: Path) -> None:
    net = Network()
    taken = net.tensor([1, 8, 8, 4], "float32")
    inner = net.conv(net.op("QUANTIZE", [taken], net.tensor([1, 8, 8, 4])), 8)
    given_ = net.op("DEQUANTIZE", [inner], net.tensor([1, 8, 8, 8], "float32"))
    graph = open_tflite(net.save(tmp_path / "m.tflite", [taken], [given_])).graph
    assert {i: o.kind for i, o in foretell(graph, RULES).items()} == {0: "limit", 2: "type"}


def left_in(compiled: TfliteGraph) -> list[str]:
    return [op.name for op in compiled.ops if op.name != RULES.compiled_op]


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_model_and_compiled_model_agree(shared_assets: Path, name: str) -> None:
    folder = shared_assets / "edgetpu"
    truth = json.loads((folder / "compiler_truth.json").read_text())[f"{name}.tflite"]
    graph = open_tflite(folder / f"{name}.tflite").graph
    found = foretell(graph, RULES)
    assert [graph.ops[index].name for index in sorted(found)] == truth["left_on_cpu"]
    # not only as many: the same ones, in the same order
    compiled = open_tflite(folder / f"{name}_edgetpu.tflite").graph
    assert [graph.ops[index].name for index in sorted(found)] == left_in(compiled)
    # and what goes in and out of the compiled piece is what is foretold
    piece = next(op for op in compiled.ops if op.name == RULES.compiled_op)
    mapped = {op.index for op in graph.ops} - found.keys()
    outputs = Counter(_given(graph, mapped))
    seen = Counter(
        (compiled.tensors[i].dtype, compiled.tensors[i].shape) for i in piece.outputs
    )
    assert outputs == seen


def _given(graph: TfliteGraph, mapped: set[int]) -> list[tuple[str, tuple[int, ...]]]:
    wanted = {i for op in graph.ops if op.index not in mapped for i in op.inputs}
    wanted |= set(graph.outputs)
    made = [i for op in graph.ops if op.index in mapped for i in op.outputs if i in wanted]
    return [(graph.tensors[i].dtype, graph.tensors[i].shape) for i in made]


@pytest.mark.parametrize("name", PAIRS)
def test_the_plan_names_what_is_left_on_the_processor(shared_assets: Path, name: str) -> None:
    folder = shared_assets / "edgetpu"
    truth = json.loads((folder / "compiler_truth.json").read_text())[f"{name}.tflite"]
    profile = find_target("coral-dev-board")
    made = plan_build(
        model_facts(open_tflite(folder / f"{name}.tflite")), profile, Recipe(precision=None)
    )
    left = [node for node in made.nodes if node.backend != "edgetpu"]
    assert [node.op for node in left] == truth["left_on_cpu"]
    assert all(node.backend == "litert-cpu" for node in left)
    assert all(node.refusals[0].backend == "edgetpu" for node in left)
    assert [part.backend for part in made.parts] == ["edgetpu"]
    assert any("compiler" in path for path in made.assumed)


@pytest.mark.parametrize("name", PAIRS)
def test_a_compiled_file_is_planned_as_it_is(shared_assets: Path, name: str) -> None:
    opened = open_tflite(shared_assets / "edgetpu" / f"{name}_edgetpu.tflite")
    made = plan_build(model_facts(opened), find_target("coral-usb"), Recipe())
    assert made.nodes_by_backend.get("edgetpu") == 1
    assert [n.op for n in made.nodes if n.backend == "edgetpu"] == [RULES.compiled_op]
    assert [n.op for n in made.nodes if n.backend != "edgetpu"] == left_in(opened.graph)
