"""TFLite files are read without a runtime, and a broken one is refused, never followed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgesdk.errors import ModelError
from edgesdk.model import open_tflite


def table(*fields: bytes | None) -> bytes:
    """Lay out one table, its layout first: fields in order, aligned to four bytes."""
    places, body = [], b""
    for value in fields:
        places.append(0 if value is None else 4 + len(body))
        body += value or b""
    layout = struct.pack("<HH", 4 + 2 * len(places), 4 + len(body))
    layout += b"".join(struct.pack("<H", place) for place in places)
    layout += bytes(-len(layout) % 4)
    return (
        struct.pack("<I", 8 + len(layout))
        + b"TFL3"
        + layout
        + struct.pack("<i", len(layout))
        + body
    )


def test_a_file_of_eight_bytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x18\0\0\0TFL3")
    with pytest.raises(ModelError, match="its structure is broken: it has 8 bytes"):
        open_tflite(path)


def test_an_unknown_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(table(struct.pack("<I", 9)))
    with pytest.raises(ModelError, match=r"its schema has version 9 \(expected 3\)"):
        open_tflite(path)


def test_a_vector_past_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(table(struct.pack("<I", 3), struct.pack("<I", 4)) + b"\xff\xff\xff\x7f")
    with pytest.raises(ModelError, match="has 2147483647 entries"):
        open_tflite(path)


def test_an_onnx_file_is_no_tflite_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x08\x08\x3a\x00")
    with pytest.raises(ModelError, match="as TFLite: it is another kind of file"):
        open_tflite(path)


@given(st.binary(max_size=300))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_bytes_behind_the_mark_are_refused(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x10\0\0\0TFL3" + tail)
    with pytest.raises(ModelError, match="cannot open"):
        open_tflite(path)


def test_operators_of_real_files_are_counted(shared_assets: Path) -> None:
    folder = shared_assets / "edgetpu"
    truth = json.loads((folder / "compiler_truth.json").read_text())
    opened = open_tflite(folder / "mobilenet_v1_0.25_128_quant.tflite")
    expected = truth["mobilenet_v1_0.25_128_quant.tflite"]["op_counts"]
    assert dict(opened.source.op_counts) == expected
    assert [str(info) for info in opened.source.inputs] == ["input: uint8[1, 128, 128, 3]"]
    assert opened.ops[0].op == "CONV_2D"
    assert opened.ops[0].constant_inputs == (False, True, True)
    compiled = open_tflite(folder / "mobilenet_v1_0.25_128_quant_edgetpu.tflite")
    assert [(op.op, op.domain) for op in compiled.ops] == [("edgetpu-custom-op", "custom")]


def test_flipped_bytes_and_cuts_of_a_real_file_never_crash(
    shared_assets: Path, tmp_path: Path
) -> None:
    whole = (shared_assets / "edgetpu" / "tools_split_concat.tflite").read_bytes()
    path = tmp_path / "m.tflite"
    refused = 0
    for at in range(0, len(whole), 3):
        for content in (whole[:at], whole[:at] + b"\xff" + whole[at + 1 :]):
            path.write_bytes(content)
            try:
                open_tflite(path)
            except ModelError:
                refused += 1
    assert refused > len(whole) // 3
