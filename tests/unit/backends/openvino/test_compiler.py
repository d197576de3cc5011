"""A part for OpenVINO: what is in it, what of its 8 bits is kept, what is refused and why."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from edgesdk.backends import CompiledPart, NodesRefused, PartJob
from edgesdk.backends.openvino import convert
from edgesdk.backends.openvino.compiler import compile_part
from edgesdk.build.reference import OnnxOnHost, open_part
from edgesdk.errors import CompileError
from edgesdk.model.open import open_model
from edgesdk.profiles import BackendProfile, find_target
from edgesdk.quantize.api import quantize

pytest.importorskip("openvino", reason="needs OpenVINO")

CPU = next(each for each in find_target("host").backends if each.id == "openvino-cpu")
NPU = next(
    each for each in find_target("intel-npu-core-ultra-2").backends if each.id == "openvino-npu"
)
DEMO = Path(__file__).parents[4] / "configs" / "demo"
#: OpenVINO's ConvTranspose has no 8-bit kernel behind a zero point that is not zero.
TRANSPOSED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 2, 4, 4] x) => (float[1, 2, 5, 5] y)
<float s = {0.1}, uint8 z = {17}, float ws = {0.02}, int8 wz = {0},
 int8[2, 2, 2, 2] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7}>
{
  q = QuantizeLinear (x, s, z)
  d = DequantizeLinear (q, s, z)
  dw = DequantizeLinear (w, ws, wz)
  [up] y = ConvTranspose (d, dw)
}
"""
FLOAT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y, float[1, 4] z) { y = Relu (x) [last] z = Exp (y) }
"""
NONZERO = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2, 4] x) => (float[2, K] y)
{ a = Relu (x) n = NonZero (a) y = Cast <to = 1> (n) }
"""


def graph(text: str) -> ir.Model:
    return ir.from_proto(parser.parse_model(text))


def compiled(
    model: ir.Model, folder: Path, profile: BackendProfile = CPU, **job: Any
) -> CompiledPart:
    folder.mkdir(exist_ok=True)
    what = {"index": 0, "source": None, "precision": "int8", **job}
    return compile_part(PartJob(model=model, folder=folder, **what), profile)


@pytest.fixture(scope="module")
def quantized() -> ir.Model:
    with np.load(DEMO / "calib.npz") as arrays:
        images = arrays["image"].astype(np.float32)
    done = quantize(DEMO / "digits_cnn.onnx", images, scheme="host/openvino-cpu", means=())
    return done.model


def test_every_quantized_operator_gets_an_8_bit_kernel(
    quantized: ir.Model, tmp_path: Path
) -> None:
    part = compiled(quantized, tmp_path)
    ops = [node.op_type for node in quantized.graph]
    inside = part.inside
    assert inside["int8_kernels"] == {
        "Convolution": ops.count("Conv"),
        "FullyConnected": ops.count("Gemm"),
    }
    assert inside["quantized"] == ops.count("Conv") + ops.count("Gemm")
    assert inside["not_fused"] == []
    assert inside["int8_ops"] >= inside["quantized"]
    assert inside["checked_on"] == "CPU"
    assert part.findings == ()


def test_the_pairs_stay_in_the_ir(quantized: ir.Model, tmp_path: Path) -> None:
    part = compiled(quantized, tmp_path)
    text = part.files["model"].read_text(encoding="utf-8")
    pairs = sum(node.op_type == "QuantizeLinear" for node in quantized.graph)
    assert text.count('type="FakeQuantize"') == pairs > 0
    assert part.format == "openvino"
    weights = sum(
        value.const_value.nbytes
        for value in quantized.graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.name == "INT8"
    )
    # weights are as small as in the graph
    assert weights < part.files["data"].stat().st_size < 2 * weights


def test_the_same_graph_gives_the_same_part(quantized: ir.Model, tmp_path: Path) -> None:
    one, other = compiled(quantized, tmp_path / "a"), compiled(quantized, tmp_path / "b")
    for role in ("model", "data"):
        assert one.files[role].read_bytes() == other.files[role].read_bytes()
    assert one.inside == other.inside


def test_it_answers_as_onnxruntime_does(quantized: ir.Model, tmp_path: Path) -> None:
    onnx.save(ir.to_proto(quantized), tmp_path / "q.onnx")
    part = compiled(quantized, tmp_path / "part")
    ours = open_part(part.files["model"], "openvino", ["logits"])
    theirs = OnnxOnHost(tmp_path / "q.onnx", as_written=True)
    with np.load(DEMO / "calib.npz") as arrays:
        images = arrays["image"][:60].astype(np.float32)
    pairs = [
        (
            ours.run({"image": image[None]})["logits"],
            theirs.run({"image": image[None]})["logits"],
        )
        for image in images
    ]
    got, want = (np.concatenate(side) for side in zip(*pairs, strict=True))
    step = (want.max() - want.min()) / 255
    assert np.mean(np.abs(got - want) <= step) >= 0.995
    assert np.mean(got.argmax(1) == want.argmax(1)) >= 0.99


def test_floats_answer_as_in_onnxruntime(tmp_path: Path) -> None:
    model = graph(FLOAT)
    part = compiled(model, tmp_path, precision="fp32")
    host = open_part(part.files["model"], "openvino", ["y", "z"])
    x = np.array([[-1, 0.5, 2, 3]], np.float32)
    got = host.run({"x": x})
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    for name, want in zip(("y", "z"), session.run(None, {"x": x}), strict=True):
        assert np.abs(got[name] - want).max() <= 1e-4 * np.abs(want).max()
    assert part.inside["quantized"] == part.inside["int8_ops"] == 0
    assert part.inside["float_ops"] >= 1


def test_a_quantized_operator_in_float_is_named_and_warned_of(tmp_path: Path) -> None:
    part = compiled(graph(TRANSPOSED), tmp_path)
    assert part.inside["not_fused"] == ["up"]
    assert part.inside["int8_kernels"] == {}
    (finding,) = part.findings
    assert (finding.code, finding.severity, finding.subject) == ("not-fused", "warning", "up")
    assert "1 of 1 quantized operators compute in float" in finding.message


def test_a_part_for_the_npu_says_where_it_is_compiled_and_has_a_spare_file(
    quantized: ir.Model, tmp_path: Path
) -> None:
    fixed = open_model(DEMO / "digits_cnn.onnx", shapes={"image": (1, 1, 8, 8)}).ir
    part = compiled(fixed, tmp_path, NPU, precision="fp16", max_opset=23, max_ir=11)
    assert part.format == "openvino"
    assert part.inside["compiled"] == "on the device, when it is loaded first"
    assert [finding.code for finding in part.findings] == ["compiled-on-device"]
    session = onnxruntime.InferenceSession(part.spare["model"])
    assert [value.name for value in session.get_inputs()] == ["image"]
    assert compiled(quantized, tmp_path / "cpu").spare == {}


def test_a_spare_file_that_cannot_be_written_is_a_finding(tmp_path: Path) -> None:
    gelu = FLOAT.replace('"" : 17', '"" : 20').replace("Exp", "Gelu")
    part = compiled(graph(gelu), tmp_path, NPU, max_opset=18, max_ir=8)
    assert part.spare == {}
    assert "no-spare" in [finding.code for finding in part.findings]


def test_what_has_no_fixed_shape_is_turned_down_for_the_npu_only(tmp_path: Path) -> None:
    with pytest.raises(NodesRefused) as caught:
        compiled(graph(NONZERO), tmp_path, NPU)
    assert set(caught.value.reasons) == {"n", "y"}
    assert caught.value.reasons["n"] == (
        "its result has no fixed shape, and NPU takes no other"
    )
    assert compiled(graph(NONZERO), tmp_path / "cpu").format == "openvino"


def test_nodes_that_the_frontend_names_are_turned_down(
    shared_assets: Path, tmp_path: Path
) -> None:
    model = open_model(shared_assets / "speech_digits" / "fsdd_gru_lstm.onnx").ir
    with pytest.raises(NodesRefused) as caught:
        compiled(model, tmp_path)
    ops = {node.outputs[0].name: node.op_type for node in model.graph}
    assert {ops[name] for name in caught.value.reasons} == {"LSTM", "Loop"}
    for reason in caught.value.reasons.values():
        assert reason.startswith("OpenVINO does not convert it: ")


def test_what_is_wrong_inside_a_body_turns_down_the_node_around_it(tmp_path: Path) -> None:
    """The frontend knows no convolution of a tensor whose rank it does not know."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 1, 8, 8] x, bool c, int64[K] s) => (float y) <float[1, 1, 1, 1] w = {2.0}>
    {
      a = Relu (x)
      y = If (c) <
        then_branch = t () => (float p) { r = Reshape (a, s) p = Conv (r, w) },
        else_branch = e () => (float q) { q = Identity (a) }
      >
    }
    """
    with pytest.raises(NodesRefused) as caught:
        compiled(graph(text), tmp_path)
    assert set(caught.value.reasons) == {"y"}
    assert "rank has to be known" in caught.value.reasons["y"]


def test_a_converter_that_dies_turns_down_all_with_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import os; os.abort()", encoding="utf-8")
    monkeypatch.setattr(convert, "_CHILD", child)
    with pytest.raises(NodesRefused) as caught:
        compiled(graph(FLOAT), tmp_path / "part")
    assert caught.value.reasons == dict.fromkeys(
        ("y", "z"), "OpenVINO, reading the graph: died of SIGABRT"
    )


def test_the_profile_says_how_long_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text("import time; time.sleep(60)", encoding="utf-8")
    monkeypatch.setattr(convert, "_CHILD", child)
    quick = replace(CPU, options={**CPU.options, "compile-timeout-s": 1})
    with pytest.raises(NodesRefused, match="takes longer than 1 s"):
        compiled(graph(FLOAT), tmp_path / "part", quick)


def test_what_only_the_device_can_compile_is_expected_to_answer_as_onnxruntime_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor's plugin may fail on what another device's takes."""
    child = tmp_path / "child.py"
    source = convert._CHILD.read_text(encoding="utf-8")
    broken = source.replace(
        'core.compile_model(target, "CPU"', 'core.compile_model(target, "X"'
    )
    assert broken != source
    child.write_text(broken, encoding="utf-8")
    monkeypatch.setattr(convert, "_CHILD", child)
    part = compiled(graph(FLOAT), tmp_path / "part", NPU)
    assert part.inside["checked_on"] is None
    assert part.on_host is not None
    assert isinstance(open_part(part.on_host, "openvino"), OnnxOnHost)
    assert "not-compiled-here" in [finding.code for finding in part.findings]
    with pytest.raises(NodesRefused, match="compiling it for the processor"):
        compiled(graph(FLOAT), tmp_path / "cpu", CPU)


def test_without_openvino_the_graph_is_shipped_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    part = compiled(graph(FLOAT), tmp_path)
    assert part.format == "onnx"
    assert part.requires["opset"] == 17
    (finding,) = part.findings
    assert (finding.code, finding.severity) == ("no-ir", "info")
    onnxruntime.InferenceSession(part.files["model"])


def test_an_image_with_an_older_release_is_warned_of(tmp_path: Path) -> None:
    older = replace(CPU, runtime_version="2024.4.0")
    (finding,) = compiled(graph(FLOAT), tmp_path, older).findings
    assert (finding.code, finding.severity) == ("ir-too-new", "warning")
    assert finding.hint == "build with openvino==2024.4.0"
    newer = replace(CPU, runtime_version="2099.1.0")
    assert compiled(graph(FLOAT), tmp_path / "newer", newer).findings == ()


def test_a_file_instead_of_a_graph_is_refused(tmp_path: Path) -> None:
    job = PartJob(
        index=0, model=None, source=Path("m.tflite"), precision="int8", folder=tmp_path
    )
    with pytest.raises(CompileError, match=r"cannot compile m\.tflite for openvino-cpu"):
        compile_part(job, CPU)
