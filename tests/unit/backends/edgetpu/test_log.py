"""The compiler's log: what it says is read, and rubbish is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgesdk.backends.edgetpu.log import read_log


def test_sizes_counts_and_statuses_are_read() -> None:
    log = read_log(
        "Edge TPU Compiler version 15.0.340273435\n"
        "On-chip memory used for caching model parameters: 6.89MiB\n"
        "On-chip memory remaining for caching model parameters: 1.00KiB\n"
        "Off-chip memory used for streaming uncached model parameters: 175.00KiB\n"
        "Total number of operations: 229\n"
        "Operator                       Count      Status\n"
        "QUANTIZE                       1          More than one subgraph is not supported\n"
        "CONV_2D                        60         Mapped to Edge TPU\n"
    )
    assert log.version == "15.0.340273435"
    assert log.numbers == {
        "cached_bytes": int(6.89 * (1 << 20)),
        "free_bytes": 1024,
        "streamed_bytes": 175 * 1024,
        "total": 229,
    }
    assert [(row.op, row.count, row.is_mapped) for row in log.rows] == [
        ("QUANTIZE", 1, False),
        ("CONV_2D", 60, True),
    ]


def test_a_log_of_another_program_is_empty() -> None:
    log = read_log("Total number of operations: many\nOn-chip memory used: 7 cats\n\0\n")
    assert (log.version, log.numbers, log.rows) == ("", {}, ())


@given(st.text(max_size=400))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert read_log(text).to_json()["version"] == read_log(text).version
