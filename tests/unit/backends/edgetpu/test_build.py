"""From ONNX to a bundle for the Edge TPU: one file, and what is known of its inside."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.build import build_bundle
from edgesdk.bundle import Bundle
from edgesdk.data import open_dataset
from edgesdk.model import open_model, open_tflite
from edgesdk.plan import BuildPlan, Recipe, plan_build
from edgesdk.plan.facts import model_facts
from edgesdk.profiles import find_target
from edgesdk.profiles.compilers import load_compiler_rules
from tests.unit.backends.edgetpu.files import Network

pytestmark = pytest.mark.slow
RULES = load_compiler_rules("edgetpu-16")
TARGET = find_target("coral-dev-board")
#: Exp is in no table of the Edge TPU; LiteRT has it, in the same file.
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, 96, 96] x) => (float[1, 4] y)
{
  a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
  b = Relu(a)
  c = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (b, v)
  d = Relu(c)
  e = Add(d, b)
  f = GlobalAveragePool(e)
  h = Flatten(f)
  i = Gemm <transB = 1> (h, u)
  y = Exp(i)
}
"""
SHAPES = {"w": (64, 3, 3, 3), "v": (64, 64, 3, 3), "u": (4, 64)}


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH, for a compiler to be put into."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return programs


@pytest.fixture
def built(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[BuildPlan, Any]:
    """The plan, and what builds; a parameter is the operator in place of Exp."""
    last = getattr(request, "param", "Exp")
    model = onnx.parser.parse_model(MODEL.replace("Exp(", f"{last}("))
    random = np.random.default_rng(7)
    for name, shape in SHAPES.items():
        weights = random.normal(0, 0.1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    opened = open_model(path)
    data = random.normal(0, 1, (8, 3, 96, 96)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=data)
    recipe = Recipe(precision="int8", means=())
    plan = plan_build(model_facts(opened, TARGET), TARGET, recipe)

    def build() -> Bundle:
        calib = open_dataset(str(tmp_path / "calib.npz"), opened.source.inputs)
        return build_bundle(opened, TARGET, recipe, plan, calib=calib, out=tmp_path / "bundle")

    return plan, build


def test_the_plan_places_nodes_and_says_why_not(built: tuple[BuildPlan, Any]) -> None:
    plan, _ = built
    assert {node.op for node in plan.nodes if node.backend == "edgetpu"} == {
        "Conv",
        "Relu",
        "Add",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    }
    last = plan.nodes[-1]
    assert (last.op, last.backend) == ("Exp", "litert-cpu")
    assert "Operation not supported: EXP" in last.refusals[0].reason
    (part,) = plan.parts
    assert (part.backend, part.format) == ("edgetpu", "tflite"), "one file for both"


def test_without_the_compiler_the_file_is_for_the_processor_and_its_inside_foretold(
    built: tuple[BuildPlan, Any], nowhere: Path
) -> None:
    bundle = built[1]()
    (part,) = bundle.manifest["parts"]
    assert (part["backend"], part["format"]) == ("litert-cpu", "tflite")
    assert "delegate" not in part["options"]
    (record,) = bundle.manifest["as_built"]["placement"]["parts"]
    inside = record["inside"]
    assert inside["provenance"] == "assumed"
    left = [each["op"] for each in inside["left"]]
    assert sorted(left) == ["DEQUANTIZE", "EXP", "QUANTIZE"], "and nothing else"
    assert inside["memory"]["parameter_bytes"] > 64 * 64 * 9
    assert "not-compiled" in json.dumps(bundle.manifest["as_built"]["findings"])


def test_what_the_compiler_makes_is_shipped_for_the_delegate(
    built: tuple[BuildPlan, Any], nowhere: Path, tmp_path: Path
) -> None:
    net = Network()
    taken = net.tensor([1, 3, 96, 96], "float32")
    inner = net.op(RULES.compiled_op, [taken], net.tensor([1, 4]), custom=True)
    flat = net.op("DEQUANTIZE", [inner], net.tensor([1, 4], "float32"))
    given = net.op("EXP", [flat], net.tensor([1, 4], "float32"))
    made = net.save(tmp_path / "made.tflite", [taken], [given])
    program = nowhere / RULES.program
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, shutil, sys\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n"
        f"shutil.copy({str(tmp_path / 'made.tflite')!r}, out / 'part_edgetpu.tflite')\n"
        f"shutil.copy(sys.argv[-1], {str(tmp_path / 'seen.tflite')!r})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    bundle = built[1]()
    (part,) = bundle.manifest["parts"]
    assert (part["backend"], part["options"]["delegate"]) == ("edgetpu", "edgetpu")
    assert part["files"][0]["bytes"] == made.stat().st_size
    seen = open_tflite(tmp_path / "seen.tflite").graph
    assert {op.name for op in seen.ops} >= {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED", "EXP"}
    (record,) = bundle.manifest["as_built"]["placement"]["parts"]
    assert record["inside"]["provenance"] == "measured"
    # QUANTIZE was foretold to be left, and is not in what this compiler made
    assert record["inside"]["disagreements"] == [
        {"op": "QUANTIZE", "foretold_left": 1, "left": 0}
    ]


@pytest.mark.parametrize("built", ["Erf"], indirect=True)
def test_what_the_compiler_does_not_read_goes_into_another_part(
    built: tuple[BuildPlan, Any], nowhere: Path
) -> None:
    plan, build = built
    assert plan.nodes[-1].backend == "litert-cpu", "it is lowered, with newer operators"
    bundle = build()
    first, second = bundle.manifest["parts"]
    assert (first["format"], second["backend"]) == ("tflite", "ort-cpu")
    placement = bundle.manifest["as_built"]["placement"]
    (moved,) = placement["moved"]
    assert (moved["op"], moved["planned"], moved["built"]) == ("Erf", "litert-cpu", "ort-cpu")
    assert "newer than what reads the file" in moved["reason"]
