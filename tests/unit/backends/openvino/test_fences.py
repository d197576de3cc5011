"""Averages that a Q/DQ graph leaves in float come out of OpenVINO in float."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import parser

from edgesdk.backends import PartJob
from edgesdk.backends.openvino.compiler import compile_part
from edgesdk.backends.openvino.fences import fence_pools
from edgesdk.build.reference import OpenvinoOnHost, open_part, open_reference
from edgesdk.model.save import save_model
from edgesdk.model.shapes import with_shapes
from edgesdk.profiles import find_target

CPU = next(each for each in find_target("host").backends if each.id == "openvino-cpu")
STEP = 0.0311
_POOL = "AveragePool <kernel_shape = [3, 3], strides = [2, 2]>"
#: A pool whose result is clipped, then read in 8 bits and in float.
CLIPPED = f"a = {_POOL} (d) r = Clip (a, zero, six)"
#: One that a Concat joins with a convolution's result.
JOINED = f"""
    a = {_POOL} (d) b = Conv <kernel_shape = [3, 3], strides = [2, 2]> (d, deep)
    c = Concat <axis = 1> (a, b) r = Relu (c)
"""
PLAIN = f"r = {_POOL} (d)"


def graph(body: str, *, float_reader: bool = True, channels: int = 4) -> ir.Model:
    weights = np.random.default_rng(0).integers(-127, 127, (channels, channels)).ravel()
    deep = np.random.default_rng(1).standard_normal((4, 4, 3, 3)).ravel() * 0.1
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 15, 15] x) => (float[1, {channels}, 7, 7] y{
        f", float[1, {channels}, 7, 7] f" if float_reader else ""
    })
    <float s = {{{STEP}}}, uint8 z = {{0}}, float t = {{0.0213}}, float v = {{0.01}},
     int8 o = {{0}}, float zero = {{0}}, float six = {{6}},
     float[4, 4, 3, 3] deep = {{{", ".join(map(str, deep))}}},
     int8[{channels}, {channels}, 1, 1] w = {{{", ".join(map(str, weights))}}}>
    {{
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        {body}
        rq = QuantizeLinear (r, t, z)
        rd = DequantizeLinear (rq, t, z)
        wd = DequantizeLinear (w, v, o)
        y = Conv (rd, wd)
        {"f = Sigmoid (r)" if float_reader else ""}
    }}
    """
    return with_shapes(ir.from_proto(parser.parse_model(text)))


def sample() -> dict[str, np.ndarray]:
    steps = np.random.default_rng(2).integers(0, 256, (1, 4, 15, 15))
    return {"x": (steps * np.float32(STEP)).astype(np.float32)}


def wanted(model: ir.Model) -> np.ndarray:
    with open_reference(model, as_written=True) as whole:
        return whole.run(sample())["f"]


def fences(model: ir.Model) -> list[str]:
    """Name what reads a fence."""
    return [
        reader.op_type
        for node in model.graph
        if node.op_type == "Clip" and str(node.outputs[0].name).endswith("fenced")
        for reader, _ in node.outputs[0].uses()
    ]


@pytest.mark.parametrize(("body", "channels"), [(CLIPPED, 4), (JOINED, 8), (PLAIN, 4)])
def test_a_part_averages_as_its_graph_says(body: str, channels: int, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    model = graph(body, channels=channels)
    job = PartJob(index=0, model=model, source=None, precision="int8", folder=tmp_path)
    part = compile_part(job, CPU)
    found = open_part(part.files["model"], "openvino", ["y", "f"]).run(sample())["f"]
    np.testing.assert_allclose(found, wanted(model), atol=1e-5)
    # what is not fenced off stays in 8 bits
    assert part.inside["int8_kernels"] == {"Convolution": 1}


def test_openvino_needs_the_fence(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO")
    model = graph(CLIPPED)
    path = save_model(model, tmp_path, "bare")[0]
    found = OpenvinoOnHost(path, ["y", "f"]).run(sample())["f"]
    # if this fails after an update of OpenVINO, fences.py may go
    assert np.abs(found - wanted(model)).max() > 1e-3


def test_a_pool_that_is_quantized_itself_has_none() -> None:
    for body in (PLAIN, f"a = {_POOL} (d) r = Relu (a)"):
        model = graph(body, float_reader=False)
        assert fence_pools(model) is model


def test_a_float_graph_has_none() -> None:
    text = f"""
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 15, 15] d) => (float[1, 4, 7, 7] r) {{ {PLAIN} }}
    """
    model = ir.from_proto(parser.parse_model(text))
    assert fence_pools(model) is model


def test_every_other_pool_has_one_and_the_graph_stays_as_it_is() -> None:
    model = graph(CLIPPED)
    before = ir.to_proto(model).SerializeToString()
    fenced = fence_pools(model)
    assert fences(fenced) == ["AveragePool"]
    assert ir.to_proto(model).SerializeToString() == before
    np.testing.assert_array_equal(wanted(fenced), wanted(model))


def test_names_that_are_taken_are_left_alone() -> None:
    model = graph(CLIPPED)
    next(n for n in model.graph if n.op_type == "AveragePool").outputs[0].name = "fence.least"
    fenced = fence_pools(model)
    assert fences(fenced) == ["AveragePool"]
    np.testing.assert_array_equal(wanted(fenced), wanted(model))
