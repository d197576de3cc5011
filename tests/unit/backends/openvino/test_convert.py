"""ONNX becomes OpenVINO IR in a process that may die: same bytes, names kept, reasons told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from edgesdk.backends.openvino import convert
from edgesdk.backends.openvino.convert import Converted, convert_to_ir, named_nodes

pytest.importorskip("openvino", reason="needs OpenVINO")

RELU = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }
"""
NONZERO = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 4] x) => (int64[2, K] y) { y = NonZero(x) }
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "part-0.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return path


def converted(folder: Path, text: str) -> Converted:
    return convert_to_ir(write(folder, text), folder / "part-0.xml", timeout_s=60)


def test_the_ir_keeps_the_names_of_inputs_and_outputs(tmp_path: Path) -> None:
    import openvino

    seen = converted(tmp_path, RELU)
    assert (seen.stage, seen.problem) == ("compiled", "")
    model = openvino.Core().compile_model(tmp_path / "part-0.xml", "CPU")
    x = np.array([[-1, 2, -3, 4]], dtype=np.float32)
    np.testing.assert_array_equal(model({"x": x})["y"], np.maximum(x, 0))


def test_the_same_graph_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("one", "another"):
        converted(tmp_path / name, RELU)
    for suffix in (".xml", ".bin"):
        one, other = (
            (tmp_path / name / "part-0").with_suffix(suffix) for name in ("one", "another")
        )
        assert one.read_bytes() == other.read_bytes()
    assert str(tmp_path).encode() not in (tmp_path / "one/part-0.xml").read_bytes()


def test_values_without_fixed_extents_are_named(tmp_path: Path) -> None:
    assert "y" in " ".join(converted(tmp_path, NONZERO).open)


def test_a_file_that_is_no_model_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "part-0.onnx"
    path.write_bytes(b"\x08garbage" * 50)
    seen = convert_to_ir(path, tmp_path / "part-0.xml", timeout_s=60)
    assert (seen.stage, seen.has_ir) == ("start", False)
    assert seen.problem.startswith("OpenVINO, reading the graph: Unable to read the model")


def test_what_an_earlier_run_left_does_not_count(tmp_path: Path) -> None:
    path = write(tmp_path, RELU)
    assert convert_to_ir(path, tmp_path / "part-0.xml", timeout_s=60).has_ir
    path.write_bytes(b"nothing")
    assert not convert_to_ir(path, tmp_path / "part-0.xml", timeout_s=60).has_ir
    assert not (tmp_path / "part-0.xml").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import time; time.sleep(60)", "takes longer than 1 s"),
        ("import os; os.abort()", "died of SIGABRT"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('x' * 100)", "it said nothing"),
        ("import sys; open(sys.argv[3], 'w').write('[1, 2')", "it said nothing"),
        ("import sys; open(sys.argv[3], 'w').write('[' * 100000)", "it said nothing"),
        (
            "import sys; open(sys.argv[3], 'w').write('{\"stage\": \"compiled\"}')",
            "it wrote no IR",
        ),
    ],
)
def test_a_converter_that_hangs_dies_or_talks_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    child = tmp_path / "child.py"
    child.write_text(body, encoding="utf-8")
    monkeypatch.setattr(convert, "_CHILD", child)
    start = time.monotonic()
    seen = convert_to_ir(write(tmp_path / "m", RELU), tmp_path / "m/part-0.xml", timeout_s=1)
    assert time.monotonic() - start < 30
    assert not seen.has_ir
    assert told in seen.problem


def test_memory_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1] x) => (float[A, B, C] y) {
      n = Constant <value = int64[3] {4096, 4096, 4096}> ()
      z = ConstantOfShape <value = float[1] {1.0}> (n)
      y = Add (z, x)
    }
    """
    monkeypatch.setattr(convert, "_MEMORY_BYTES", 1 << 30)
    seen = converted(tmp_path, text)
    assert seen.stage != "compiled"
    assert seen.problem


def test_nodes_are_found_in_what_the_frontend_says() -> None:
    said = (
        "FrontEnd API failed with OpConversionFailure:\n"
        "Model wasn't fully converted. Failed operations detailed log:\n"
        "-- LSTM-17 with a message:\n"
        "While validating ONNX node '<Node(LSTM): out:0>': Exception from src/a.hpp:150:\n"
        "Element not supported\n\n"
        "-- Loop-17 with a message:\n"
        "Check '(a)' failed at src/b.cpp:310:\n"
        "While validating ONNX node '<Node(Loop): loop>':\nsizes differ\n\n"
        "Summary:\n-- Conversion is failed for: LSTM-17, Loop-17\n"
    )
    assert named_nodes(said, {"out:0", "loop", "other"}) == {
        "out:0": "Element not supported",
        "loop": "sizes differ",
    }
    assert named_nodes(said, {"other"}) == {}
    assert named_nodes("nothing of the kind", {"out:0"}) == {}


def test_the_process_does_not_take_modules_from_where_it_runs(tmp_path: Path) -> None:
    """A file called openvino.py beside a model is not run."""
    (tmp_path / "openvino.py").write_text("raise SystemExit('run')", encoding="utf-8")
    assert converted(tmp_path, RELU).stage == "compiled"
