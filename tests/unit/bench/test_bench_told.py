"""What a device says it ran where: checked, and matched with the plan."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.bench.predicted import PredictedNode, match_ops, predicted_nodes
from edgesdk.bench.told import MAX_TOLD_OPS, read_told
from edgesdk.bundle import Bundle
from edgesdk.errors import (
    ProtocolError,
)
from edgesdk.wire.frames import Frame
from tests.unit.bench.fixtures import make_bundle
from tests.unit.bench.offload_fixtures import node, op, part, reply

# what comes over the wire


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b"[]", "no parts"),
        (b'{"parts": 3}', "no parts"),
        (b'{"parts": []}', "0 parts, not of 1"),
        (b'{"parts": [5]}', "a part is 5"),
        (b"[" * 200_000, "lists and objects"),
        (b'{"a": NaN, "parts": []}', "not JSON"),
    ],
)
def test_an_answer_that_is_none_is_refused(body: bytes, seen: str) -> None:
    with pytest.raises(ProtocolError, match=seen) as caught:
        read_told(Frame({"runtimes": []}, body), parts=1, device="bench-3")
    assert str(caught.value).startswith("cannot read what ran where on bench-3: ")
    assert caught.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"us": -1.0},
        {"us": 1e13},
        {"us": "10"},
        {"us": True},
        {"accelerator": "yes"},
        {"count": 0},
        {"count": 1.5},
        {"derived": 1},
        {"name": None},
        {"where": ["GPU"]},
        {"precision": 8},
    ],
)
def test_an_op_with_a_field_of_another_kind_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read_told(reply(part(0, op(**wrong))), parts=1, device="d")


@pytest.mark.parametrize("wrong", [{"index": 1}, {"share": 2}, {"total_us": []}, {"why": 5}])
def test_a_part_with_a_field_of_another_kind_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read_told(reply({**part(0, op()), **wrong}), parts=1, device="d")


def test_more_ops_than_an_agent_sends_are_refused() -> None:
    ops = [op()] * (MAX_TOLD_OPS + 1)
    with pytest.raises(ProtocolError, match="more than"):
        read_told(reply(part(0, *ops)), parts=1, device="d")


def test_names_cannot_drive_a_terminal_and_are_cut() -> None:
    told = read_told(
        reply(part(0, op("\x1b[31mred\r\n\u202eback" + "x" * 5000))), parts=1, device="d"
    )
    name = told.parts[0].ops[0].name
    assert "\x1b" not in name
    assert "\n" not in name
    assert "\u202e" not in name
    assert len(name) < 400


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["parts", "index", "ops", "us", "name", "op", "runtime", "how"]), inner
    ),
    max_leaves=20,
).map(lambda value: json.dumps({"parts": [value]}).encode()))  # fmt: skip
def test_nothing_that_comes_raises_anything_else(body: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read_told(Frame({"runtimes": 7}, body), parts=1, device="d")


# which nodes an op stands for


def chain_of(*ops: str) -> list[PredictedNode]:
    """Nodes in a row, each reading what the one before gives."""
    return [
        node(f"n{i}", "tensorrt", op=kind, reads=(f"n{i - 1}_out",))
        for i, kind in enumerate(ops)
    ]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("n1", (1,)),
        ("n1_nchwc", (1,)),
        ("n1_token_12", (1,)),
        ("n1_out.quantize", (1,)),
        ("n1_out.quantized.transposed", (1,)),
        ("n0/WithoutBiases,Multiply_17,n0,n1.quantize", (0, 1)),
        ("n0 + n1", (0, 1)),
        ("PWN(PWN(n1), n2)", (1, 2)),
        ("[CONVOLUTION]-[n0]", (0,)),
        ("node_of_n2_out", (2,)),
        ("{ForeignNode[n0...n2]}", ()),
        ("Reorder_17", ()),
        ("n1_other", ()),
        ("", ()),
    ],
)
def test_names_of_runtimes_lead_to_nodes(name: str, found: tuple[int, ...]) -> None:
    named, _ = match_ops(chain_of("Conv", "Relu", "Sigmoid"), [name])
    assert named == (found,)


def test_a_name_that_repeats_says_nothing() -> None:
    nodes = [node("a", "x", gives=("p",)), node("a", "y", gives=("q",))]
    assert match_ops(nodes, ["a", "q"])[0] == ((), (1,))


def test_what_is_fused_goes_to_the_op_beside_it() -> None:
    nodes = chain_of("Conv", "Clip", "Conv", "BatchNormalization", "Relu", "Softmax")
    # the first is named after its convolution, the second after what follows it
    named, everything = match_ops(nodes, ["n0_token_1", "n4_nchwc", "n5"])
    assert named == ((0,), (4,), (5,))
    assert everything == ((0, 1), (2, 3, 4), (5,))


def test_nothing_is_taken_into_an_op_of_another_backend() -> None:
    first, second = chain_of("Conv", "Relu")
    nodes = [first, replace(second, backend="ort-cpu")]
    assert match_ops(nodes, ["n0"])[1] == ((0,),)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "b", "a_nchwc"]),
            st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=2),
            st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=2),
            st.sampled_from(["Conv", "Relu"]),
        ),
        max_size=8,
    ),
    st.lists(st.sampled_from(["a", "b", "c", "a,b", "d"]), max_size=6),
)
def test_any_plan_is_matched_and_no_node_twice(plan: Any, names: list[str]) -> None:
    nodes = [
        node(name, "x", reads=tuple(reads), gives=tuple(gives), op=kind)
        for name, reads, gives, kind in plan
    ]
    _, everything = match_ops(nodes, names)
    taken = [position for group in everything for position in group]
    assert len(taken) == len(set(taken))


def test_a_plan_that_is_none_is_no_plan(tmp_path: Any) -> None:
    assert predicted_nodes(make_bundle()) == ()
    for text in (b"", b"5", b'{"nodes": 3}', b'{"nodes": [7, {}]}'):

        class Held(Bundle):
            def attachment(self, role: str, data: bytes = text) -> bytes | None:
                return data

        held = Held(folder=tmp_path, id="0" * 64, manifest={"attachments": [1]})
        assert all(each.share == 0.0 for each in predicted_nodes(held))
