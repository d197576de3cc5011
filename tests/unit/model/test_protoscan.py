"""The walk over a file's bytes ends, whatever they are, and lets only models through."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgesdk.model._protoscan import MAX_DEPTH, MAX_MESSAGES, ScanError, scan_onnx


def varint(value: int) -> bytes:
    """Encode a number."""
    if value < 128:
        return bytes([value])
    return bytes([value & 127 | 128]) + varint(value >> 7)


def field(number: int, body: bytes) -> bytes:
    """Encode a message in a message."""
    return varint(number << 3 | 2) + varint(len(body)) + body


def test_a_graph_is_let_through() -> None:
    scan_onnx(b"\x08\x08" + field(7, field(1, field(4, b"Relu"))))


def test_ten_thousand_levels_are_refused() -> None:
    nested = b""
    for _ in range(3_333):  # a graph in an attribute of a node in a graph
        nested = field(1, field(5, field(6, nested)))
    with pytest.raises(ScanError, match=f"nest deeper than {MAX_DEPTH} levels"):
        scan_onnx(b"\x08\x08" + field(7, nested))


def test_millions_of_empty_messages_are_refused() -> None:
    with pytest.raises(ScanError, match=f"more than {MAX_MESSAGES} messages"):
        scan_onnx(field(7, b"\x0a\x00" * (MAX_MESSAGES + 1)))


def test_a_file_that_stops_early_is_told_from_garbage() -> None:
    whole = b"\x08\x08" + field(7, field(1, b"\x0a\x01x") * 40)
    with pytest.raises(ScanError, match="it ends 3 bytes early") as caught:
        scan_onnx(whole[:-3])
    assert caught.value.truncated
    with pytest.raises(ScanError) as caught:
        scan_onnx(b"\xff" * 40)
    assert not caught.value.truncated


@given(st.binary(max_size=400))
@example(b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_model_or_an_error(data: bytes) -> None:
    try:
        scan_onnx(data)
    except ScanError:
        return
