"""A limit on the time off the accelerator: read, and held."""

from __future__ import annotations

from typing import Any

import pytest

from edgesdk.bench.gate import check_cpu_time, read_limit
from edgesdk.bench.verdict import choose_verdict
from edgesdk.errors import (
    FindingsError,
    InputError,
)
from tests.unit.bench.offload_fixtures import CORAL, cpu, judged, node, op, part, reply
from tests.unit.bench.test_bench_assemble import assembled

# the gate


@pytest.mark.parametrize(
    ("text", "limit"), [("5%", 0.05), ("0.05", 0.05), (" 0 % ", 0.0), ("100%", 1.0), ("0", 0.0)]
)
def test_limits_read_as_people_write_them(text: str, limit: float) -> None:
    assert read_limit(text) == pytest.approx(limit)


@pytest.mark.parametrize("text", ["1", "1.0", "five", "-1%", "101%", "nan", "inf", "%", ""])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot use --max-cpu-time") as caught:
        read_limit(text)
    assert caught.value.hint


def test_the_gate_names_share_limit_and_ops() -> None:
    offload = judged(
        reply(part(0, op("a", 50.0), cpu("b", 30.0), cpu("c", 10.0))),
        node("a", "tensorrt"), node("b", "tensorrt"), node("c", "ort-cpu"),
    )  # fmt: skip
    check_cpu_time(offload, 0.5)
    with pytest.raises(FindingsError) as caught:
        check_cpu_time(offload, 0.4, after="; the active release is unchanged")
    text = str(caught.value)
    assert text.startswith("50.0% of the time ran off the accelerator (at most 40%): b (on the")
    assert "c (on the CPU in CPUExecutionProvider, 10.0%)" in text
    assert "launches, copies and hand-over (10.0%)" in text
    assert text.endswith("; the active release is unchanged")
    assert caught.value.exit_code == 1
    assert caught.value.facts["share"] == pytest.approx(0.5)
    assert [each["name"] for each in caught.value.facts["ops"]] == ["b", "c"]


@pytest.mark.parametrize(
    ("ops", "hint"),
    [
        ([cpu("a", 100.0)], "nothing ran on the accelerator"),
        ([op("a", 50.0), cpu("b", 50.0)], "ran elsewhere than planned"),
        ([op("a", 50.0), cpu("c", 50.0)], "edgesdk plan"),
    ],
)
def test_the_gate_says_what_to_try(ops: list[Any], hint: str) -> None:
    nodes = (node("a", "ort-cuda"), node("b", "ort-cuda"), node("c", "ort-cpu"))
    offload = judged(reply(part(0, *ops)), *nodes, backends=("ort-cuda",))
    with pytest.raises(FindingsError) as caught:
        check_cpu_time(offload, 0.0)
    assert hint in caught.value.hint


def test_the_gate_says_where_nothing_was_built_for_the_accelerator() -> None:
    offload = judged(
        reply(part(0, cpu("a", 100.0))),
        node("a", "edgetpu"),
        backends=("litert-cpu",),
        profile=CORAL,
        planned={"edgetpu": 1},
    )
    with pytest.raises(FindingsError) as caught:
        check_cpu_time(offload, 0.05)
    assert caught.value.hint.startswith("nothing was built for the accelerator")


def test_time_that_nobody_tells_of_is_not_let_through() -> None:
    offload = judged(reply(part(0, op("a", 80.0), op("b", 20.0, accelerator=None, where=""))))
    check_cpu_time(offload, 0.2)
    with pytest.raises(FindingsError, match=r"for 20\.0% the runtime does not tell"):
        check_cpu_time(offload, 0.1)


def test_a_verdict_without_a_record_is_what_it_was() -> None:
    accuracy = assembled().accuracy
    verdict, _ = choose_verdict(
        measured=True, parts=(), actual=(), accelerators=(), accuracy=accuracy, offload=None
    )
    assert verdict == "cpu-as-planned"
