"""What is inside compiled parts, as people read it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesdk.bundle.as_built import as_built_lines
from edgesdk.bundle.inside import inside_lines


def record(**inside: Any) -> dict[str, Any]:
    return {"placement": {"parts": [{"index": 0, "inside": inside}]}}


OPS = [
    {"op": "CONV_2D", "status": "placed", "count": 18},
    {"op": "ADD", "status": "placed", "count": 1},
    {"op": "SQRT", "status": "left", "count": 1},
]


def test_shares_what_is_left_and_estimates_are_told() -> None:
    estimate = {
        "inference_us": 1344,
        "sram_bytes": 131696,
        "dram_bytes": 0,
        "system_config": "Ethos_U55_High_End_Embedded",
    }
    (line,) = inside_lines(record(ops=OPS, provenance="measured", estimate=estimate))
    assert line == (
        "part 0: 19 of 20 operators (95.0%) on the accelerator, as compiled; left: 1 SQRT; "
        "estimated on Ethos_U55_High_End_Embedded: 1.34 ms, 128.6 KiB SRAM"
    )


def test_a_prediction_is_called_one() -> None:
    (line,) = inside_lines(record(ops=OPS[:2], provenance="assumed"))
    assert line == "part 0: 19 of 19 operators (100.0%) on the accelerator, foretold"


def test_operators_of_the_edge_tpu_are_counted_by_its_words() -> None:
    ops = [
        {"op": "CONV_2D", "status": "mapped", "count": 3},
        {"op": "EXP", "status": "operator", "count": 1},
        {"op": "EXP", "status": "subgraph", "count": 2},
    ]
    (line,) = inside_lines(record(ops=ops, provenance="assumed"))
    assert "3 of 6 operators (50.0%)" in line
    assert line.endswith("left: 3 EXP")


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        {},
        {"placement": 3},
        {"placement": {"parts": "x"}},
        record(),
        record(ops=[{"op": "A", "status": "placed", "count": "many"}]),
        record(operators={"ADD": 3}),
    ],
)
def test_a_record_of_another_form_says_nothing(odd: object) -> None:
    assert inside_lines(odd) == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_record_breaks_it(odd: object) -> None:
    inside_lines(odd)
    inside_lines(record(ops=odd, estimate=odd))
    inside_lines({"placement": {"parts": [{"inside": odd}]}})


HUGE = 10**400


@pytest.mark.parametrize("count", [HUGE, -HUGE, -1, 10**4299])
def test_counts_that_no_graph_has_are_left_out(count: int) -> None:
    ops = [*OPS, {"op": "EXP", "status": "placed", "count": count}] * 2
    (line,) = inside_lines(record(ops=ops, estimate={"inference_us": HUGE, "sram_bytes": HUGE}))
    assert line.startswith("part 0: 38 of 40 operators (95.0%)")


def test_numbers_that_no_float_holds_are_told_as_unknown() -> None:
    lines = as_built_lines(
        {
            "quantized_nodes": HUGE,
            "precision": "int8",
            "sqnr_db": {"y": HUGE, "z": 30},
            "means": [{"name": "equalize", "on": True, "before_db": -HUGE, "after_db": 1}],
            "budget": {"metric": "top-1", "after": HUGE, "kept": ["n"], "bytes_added": HUGE},
            "pruned": {"pattern": "2:4", "bytes_before": HUGE, "bytes_after": 1 << 21},
        }
    )
    assert lines[0] == "? nodes in int8"
    assert lines[1] == "signal over noise against float: y exact or lost, z 30.0 dB"
    assert lines[2] == "equalize on: ? to 1 dB"
    assert "float for it: ? more" in lines[3]
    assert lines[4] == "pruned 2:4: weights ? to 2.0 MiB compressed"
