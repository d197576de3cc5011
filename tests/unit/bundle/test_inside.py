"""What is inside compiled parts, as people read it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
