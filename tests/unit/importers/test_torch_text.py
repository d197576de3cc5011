"""What a program's texts may say: sizes, containers, names, operators. No PyTorch is needed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.importers.frameworks.torch_expressions import plain_container, why_no_expression
from edgesdk.importers.frameworks.torch_graph_text import checked_graph, checked_payloads
from edgesdk.importers.job import CannotExport

LEAF = {"type": None, "context": None, "children_spec": []}


def node(target: str = "torch.ops.aten.relu.default", **more: Any) -> dict[str, Any]:
    return {
        "target": target,
        "inputs": [{"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}],
        "outputs": [{"as_tensor": {"name": "relu"}}],
        "metadata": {"stack_trace": 'File "a.py", line 1, in forward\n  x = "quoted"; y()'},
        **more,
    }


def graph(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = json.dumps([1, LEAF])
    return {
        "graph_module": {
            "graph": {"nodes": list(nodes or [node()]), "tensor_values": {}},
            "signature": {"input_specs": [], "output_specs": []},
            "module_call_graph": [
                {"fqn": "", "signature": {"in_spec": spec, "out_spec": spec}},
            ],
            "metadata": {"custom": "{}"},
        },
        "guards_code": ["__import__('os').system('true')"],
        "range_constraints": {"s0": {"min_val": 0, "max_val": None}},
        "torch_version": "2.13.0+cpu",
        **more,
    }


@pytest.mark.parametrize(
    "text",
    [
        "s0",
        "2*s0 + 1",
        "Max(1, s0)",
        "FloorDiv(s0, 2)",
        "s0**2",
        "Eq(Mod(u3, 4), 0)",
        "-s1",
        "Symbol('s40', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0', integer=True)), Integer(1))",
        "Pow(Symbol('s0'), Integer(-1))",
        "Mul(Float('1.5', precision=53), Symbol('u0'))",
        "StrictGreaterThan(Symbol('s0'), Integer(3))",
    ],
)
def test_sizes_are_expressions(text: str) -> None:
    assert why_no_expression(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("__import__('os').system('true')", "it calls something unknown"),
        ("().__class__", "it holds Attribute"),
        ("Symbol('__import__')", "it makes a Symbol of something else"),
        ("Symbol('s0', a=open)", "it names 'open'"),
        ("Float('9' * 99)", "it makes a Float of something else"),
        ("PowByNatural(Integer(9), s0)", "it raises to a large power"),
        ("Pow(9, Pow(9, 9))", "it raises to a large power"),
        ("-" * 90 + "s0", "it is nested too deep"),
        ("open", "it names 'open'"),
        ("s0.func", "it holds Attribute"),
        ("Max(s0, key=s1)", "it calls with keywords"),
        ("9**9**9", "it raises to a large power"),
        ("'s0'", "it holds more than numbers"),
        ("[s0 for s0 in s1]", "it holds ListComp"),
        ("lambda: s0", "it holds Lambda"),
        ("s0 +", "it cannot be parsed"),
        ("(" * 3000, "it cannot be parsed"),
        ("s0+" * 3000 + "s0", "it is too long, or no text"),
        (None, "it is too long, or no text"),
        ("u99999999999", "it names 'u99999999999'"),
    ],
)
def test_what_is_no_size_is_told_why(text: object, reason: str) -> None:
    assert why_no_expression(text) == reason


@given(st.text(max_size=40))
def test_whatever_passes_names_only_what_is_known(text: str) -> None:
    if why_no_expression(text) is None:
        assert not any(each in text for each in ("__", ".a", "import", "lambda"))


def test_containers_of_libraries_become_tuples() -> None:
    spec = {"type": "some.library.Output", "context": '{"a": 1}', "children_spec": [LEAF, LEAF]}
    plain = json.loads(plain_container(json.dumps([1, spec])))
    assert plain == [
        1, {"type": "builtins.tuple", "context": "null", "children_spec": [LEAF, LEAF]}
    ]  # fmt: skip


def test_dicts_keep_their_keys_unless_those_are_no_names() -> None:
    def keys(given: str) -> str:
        spec = {"type": "builtins.dict", "context": given, "children_spec": [LEAF]}
        return str(json.loads(plain_container(json.dumps([1, spec])))[1]["type"])

    assert keys('["logits"]') == "builtins.dict"
    assert keys('["x): import os\\n"]') == "builtins.tuple"
    assert keys('{"__enum__": true, "fqn": "os:system", "name": "a"}') == "builtins.tuple"


def test_a_default_dict_names_no_module() -> None:
    context = {"default_factory_module": "antigravity", "default_factory_name": "fly"}
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    assert "antigravity" not in plain_container(json.dumps([1, spec]))


@pytest.mark.parametrize("text", ["{}", "[2, {}]", "[1, 3]", "[1]", "null"])
def test_what_is_no_container_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="it is"):
        plain_container(text)


def test_a_checked_graph_says_the_same_without_guards_and_notes() -> None:
    checked = checked_graph(graph(), "m.pt2")
    assert checked["guards_code"] == []
    assert checked["graph_module"]["metadata"] == {}
    (kept,) = checked["graph_module"]["graph"]["nodes"]
    assert kept == node()


def test_devices_become_the_cpu() -> None:
    meta = {"dtype": 7, "sizes": [], "device": {"type": "cuda", "index": 1}}
    given = graph()
    given["graph_module"]["graph"]["tensor_values"] = {"x": meta}
    checked = checked_graph(given, "m.pt2")
    values = checked["graph_module"]["graph"]["tensor_values"]
    assert values["x"]["device"] == {"type": "cpu", "index": None}


def poisoned() -> list[tuple[str, Any, str]]:
    """Give each way that a graph can be made to run code, and what is said of it."""

    def at(*path: Any, value: Any) -> dict[str, Any]:
        made = copy.deepcopy(graph())
        place: Any = made
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        return made

    nodes = ("graph_module", "graph", "nodes", 0)
    bad_size = {"as_expr": {"expr_str": "__import__('os').system('true')"}}
    return [
        ("size", at(*nodes, "inputs", 0, "arg", value=bad_size), "is no expression"),
        ("name", at(*nodes, "outputs", 0, "as_tensor", "name", value="x;y()"), "is no name"),
        ("operator", at(*nodes, "target", value="torch.os.system"), "does not have"),
        ("files", at(*nodes, "target", value="torch.ops.aten.from_file.default"), "files"),
        (
            "weight name",
            at("graph_module", "signature", value={"parameter_name": 'a")or exit() or("'}),
            "parameter_name is",
        ),
        ("key", at("graph_module", "graph", "tensor_values", value={"x(\n)": {}}), "a key is"),
        ("range", at("range_constraints", value={"u99999999999": {}}), "symbol"),
        (
            "argument name",
            at("graph_module", "module_call_graph", 0, "signature", "forward_arg_names",
               value=["x=exit()"]),
            "is no name of a value",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(("given", "seen"), [row[1:] for row in poisoned()],
                         ids=[row[0] for row in poisoned()])  # fmt: skip
def test_a_graph_that_could_run_code_is_refused(given: dict[str, Any], seen: str) -> None:
    with pytest.raises(CannotExport, match=seen) as caught:
        checked_graph(given, "m.pt2")
    assert "m.pt2" in str(caught.value)
    assert caught.value.hint


def test_an_operator_of_another_library_is_named() -> None:
    with pytest.raises(CannotExport, match=r"operator torchvision\.nms\.default") as caught:
        checked_graph(graph(node("torch.ops.torchvision.nms.default")), "m.pt2")
    assert "run_decompositions" in caught.value.hint


def test_a_graph_that_is_nested_too_deep_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(CannotExport, match="nested too deep"):
        checked_graph(graph(more=deep), "m.pt2")


def test_payloads_are_tensors() -> None:
    entry = {
        "path_name": "weight_0",
        "is_param": True,
        "use_pickle": False,
        "tensor_meta": None,
    }
    assert checked_payloads({"config": {"a.b": entry}}, "m.pt2") == {"a.b": entry}
    with pytest.raises(CannotExport, match="is no tensor but a Python object") as caught:
        checked_payloads({"config": {"a": {**entry, "path_name": "opaque_obj_0"}}}, "m.pt2")
    assert caught.value.facts["runs_code"]
    for spoilt in (None, {}, {"config": []}, {"config": {"a": 1}}):
        with pytest.raises(CannotExport, match="is spoilt"):
            checked_payloads(spoilt, "m.pt2")
