"""What is written for a device to finish: the graph, and for a DLA the scales beside it."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from edgesdk.backends import CompiledPart, NodesRefused, PartJob
from edgesdk.backends.tensorrt.compile import compile_part
from edgesdk.backends.tensorrt.scales import calibration_cache, implicit_scales
from edgesdk.errors import CompileError
from edgesdk.profiles import find_target

QUANTIZED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
<float s = {0.05}, int8 z = {0}, float[2] ws = {0.01, 0.02}, int8[2] wz = {0, 0},
 float t = {0.1}>
{
  xq = QuantizeLinear(x, s, z)
  xd = DequantizeLinear(xq, s, z)
  wd = DequantizeLinear <axis = 0> (w, ws, wz)
  c = Conv <kernel_shape = [1, 1]> (xd, wd)
  r = Relu(c)
  rq = QuantizeLinear(r, t, z)
  y = DequantizeLinear(rq, t, z)
}
"""
PLAIN = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }
"""


def quantized() -> ir.Model:
    model = onnx.parser.parse_model(QUANTIZED)
    weights = np.array([[3, -5], [7, 127]], np.int8).reshape(2, 2, 1, 1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return ir.serde.deserialize_model(model)


def compiled(
    model: ir.Model | None, folder: Path, backend: str, target: str = "jetson-orin-nx"
) -> CompiledPart:
    profile = next(each for each in find_target(target).backends if each.id == backend)
    job = PartJob(index=3, model=model, source=None, precision="int8", folder=folder)
    return compile_part(job, profile)


def test_the_gpu_gets_the_pairs_as_they_are(tmp_path: Path) -> None:
    part = compiled(quantized(), tmp_path, "tensorrt")
    assert list(part.files) == ["model"]
    assert part.files["model"].name == "part-3.onnx"
    assert part.options == {"precision": "int8"}
    assert part.on_host is None
    ops = {node.op_type for node in onnx.load(part.files["model"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= ops
    assert part.requires["opset"] == 17


def test_a_dla_gets_a_float_graph_and_its_scales(tmp_path: Path) -> None:
    part = compiled(quantized(), tmp_path, "tensorrt-dla")
    assert list(part.files) == ["model", "calibration"]
    graph = onnx.load(part.files["model"])
    onnx.checker.check_model(graph)
    assert [node.op_type for node in graph.graph.node] == ["Conv", "Relu"]
    assert [value.name for value in graph.graph.output] == ["y"]
    header, *lines = part.files["calibration"].read_text().splitlines()
    assert header == "TRT-100300-EntropyCalibration2"
    scales = {
        name: struct.unpack(">f", bytes.fromhex(digits))[0]
        for name, digits in (line.split(": ") for line in lines)
    }
    # what goes into the activation shares the scale of what comes out
    wanted = {"x": 0.05, "c": 0.1, "y": 0.1}
    assert scales == pytest.approx(wanted)
    assert part.on_host is not None
    ops = {node.op_type for node in onnx.load(part.on_host).graph.node}
    assert "QuantizeLinear" in ops


def test_the_float_graph_of_a_dla_is_the_quantized_one_without_rounding(
    tmp_path: Path,
) -> None:
    part = compiled(quantized(), tmp_path, "tensorrt-dla")
    x = np.random.default_rng(1).uniform(-3, 3, (1, 2, 4, 4)).astype(np.float32)
    answers = []
    for path in (part.on_host, part.files["model"]):
        session = onnxruntime.InferenceSession(str(path))
        answers.append(session.run(None, {"x": x})[0])
    # half a step of the output, and half a step of each input through its weight
    bound = 0.05 + 0.025 * (0.02 * 7 + 0.02 * 127)
    assert np.abs(answers[0] - answers[1]).max() <= bound


def test_an_unquantized_part_says_its_precision(tmp_path: Path) -> None:
    model = ir.serde.deserialize_model(onnx.parser.parse_model(PLAIN))
    assert compiled(model, tmp_path, "tensorrt").options == {"precision": "fp32"}
    text = PLAIN.replace(
        "y = Relu(x)", "h = Cast <to = 10> (x) r = Relu(h) y = Cast<to = 1>(r)"
    )
    half = ir.serde.deserialize_model(
        onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text))
    )
    assert compiled(half, tmp_path, "tensorrt").options == {"precision": "fp16"}
    part = compiled(half, tmp_path, "tensorrt-dla")
    assert list(part.files) == ["model"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("int8 z = {0}>\n", "its zero point is not 0"),
        ("uint8 z = {0}>\n", "it quantizes to uint8 (int8)"),
    ],
)
def test_a_zero_point_that_tensorrt_does_not_take_is_refused(
    tmp_path: Path, text: str, reason: str
) -> None:
    graph = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4] x) => (float[1, 4] y) <float s = {{0.05}}, {text.replace("0", "3")}
    {{ q = QuantizeLinear(x, s, z)  y = DequantizeLinear(q, s, z) }}
    """
    model = ir.serde.deserialize_model(onnx.parser.parse_model(graph))
    with pytest.raises(NodesRefused) as caught:
        compiled(model, tmp_path, "tensorrt")
    assert caught.value.reasons == {"q": reason, "y": reason}


def big_indices(position: str) -> ir.Model:
    graph = {
        "gather": "y = Gather(x, big)",
        "slice": "y = Slice(x, zero, big)",
    }[position]
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[4] x) => (float[n] y)
    <int64[1] big = {{9223372036854775807}}, int64[1] zero = {{0}}>
    {{ {graph} }}
    """
    return ir.serde.deserialize_model(onnx.parser.parse_model(text))


def test_int64_weights_narrowed_is_a_matter_of_what_they_are_for(tmp_path: Path) -> None:
    with pytest.raises(NodesRefused) as caught:
        compiled(big_indices("gather"), tmp_path, "tensorrt", "jetson-xavier-nx")
    assert "an int64 beyond int32" in caught.value.reasons["y"]
    # an end beyond all ends stays one when it is clamped
    compiled(big_indices("slice"), tmp_path, "tensorrt", "jetson-xavier-nx")
    # from 9 on there is int64
    compiled(big_indices("gather"), tmp_path, "tensorrt")


def test_a_file_without_a_graph_is_an_error_of_the_part(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="TensorRT reads ONNX"):
        compiled(None, tmp_path, "tensorrt")


def test_half_a_pair_at_the_edge_of_a_part_is_refused() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (int8[1, 4] q) => (float[1, 4] y) <float s = {0.05}, int8 z = {0}>
    { d = DequantizeLinear(q, s, z)  y = Relu(d) }
    """
    model = ir.serde.deserialize_model(onnx.parser.parse_model(text))
    with pytest.raises(NodesRefused) as caught:
        implicit_scales(model)
    assert caught.value.reasons == {"d": "its other half is outside of the part"}


def test_a_model_is_left_as_it_was() -> None:
    model = quantized()
    before = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    implicit_scales(model)
    assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("release", "number"), [((8, 5, 2), 8502), ((8, 6), 8600), ((10, 3), 100300)]
)
def test_the_header_has_the_number_of_the_release(
    release: tuple[int, ...], number: int
) -> None:
    text = calibration_cache({"a:0": 0.05}, release).decode()
    assert text == f"TRT-{number}-EntropyCalibration2\na:0: 3d4ccccd\n"


def test_a_name_that_is_no_line_is_refused() -> None:
    with pytest.raises(CompileError, match="a line of a calibration cache cannot hold"):
        calibration_cache({"a\nb": 1.0}, (8, 5, 2))


def test_a_dla_of_a_strongly_typed_release_is_an_error(tmp_path: Path) -> None:
    target = find_target("jetson-orin-nx")
    profile = next(each for each in target.backends if each.id == "tensorrt-dla")
    profile = replace(profile, quirks=(*profile.quirks, "strongly-typed-only"))
    job = PartJob(index=0, model=quantized(), source=None, precision="int8", folder=tmp_path)
    with pytest.raises(CompileError, match="takes no scales apart from the graph"):
        compile_part(job, profile)
