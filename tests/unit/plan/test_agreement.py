"""What the plan says of each node is what the quantizer does with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.model import node_facts, open_model, simplify
from edgesdk.plan.asbuilt import as_built
from edgesdk.plan.eightbits import why_left
from edgesdk.profiles.rules import load_scheme_rules
from edgesdk.quantize.layout import lay_out
from edgesdk.quantize.prepare import prepare
from tests.unit.quantize.floats import named
from tests.unit.quantize.modes import normal

BY = ("onnxruntime-cpu", "openvino", "tensorrt", "litert-int8")
IMAGE = "float[1, 4, 8, 8]"
SAME = "<pads = [1, 1, 1, 1]>"
W = {"w": normal(4, 4, 3, 3)}
VECTOR = normal(1, 4, 1, 1, seed=3)
SMALL = {
    "lonely": (
        f"""g ({IMAGE} x) => ({IMAGE} y, {IMAGE} z)
        {{ y = Conv {SAME} (x, w)
           z = Sigmoid (x) }}""",
        W,
    ),
    "link by link": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w) s = Sigmoid (c) m = Mul (s, c)
           y = Neg (m) }}""",
        W,
    ),
    "fed by the input": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ m = Transpose <perm = [0, 1, 3, 2]> (x)
           y = Conv {SAME} (m, w) }}""",
        W,
    ),
    "residual": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ a = Conv {SAME} (x, w) ar = Relu (a) b = Conv {SAME} (ar, w) s = Add (b, x)
           sr = Relu (s)
           y = Conv {SAME} (sr, w) }}""",
        W,
    ),
    "weights turned about": (
        """g (float[2, 8] x) => (float[2, 6] y)
        { t = Transpose <perm = [1, 0]> (v) i = Identity (t)
          y = MatMul (x, i) }""",
        {"v": normal(6, 8)},
    ),
    "a product and its bias": (
        """g (float[2, 8] x) => (float[2, 8] y)
        { h = MatMul (x, v) a = Add (h, b) r = Relu (a)
          y = MatMul (r, v) }""",
        {"v": normal(8, 8), "b": normal(8)},
    ),
    "a product and the bias of each row": (
        """g (float[2, 8] x) => (float[2, 8] y)
        { h = MatMul (x, v)
          y = Add (h, b) }""",
        {"v": normal(8, 8), "b": normal(2, 1)},
    ),
    "factors and offsets": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w) m = Mul (c, k) a = Add (k, m)
           y = Relu (a) }}""",
        {**W, "k": VECTOR},
    ),
    "factors by row": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w)
           y = Mul (c, k) }}""",
        {**W, "k": normal(1, 1, 8, 1)},
    ),
    "idle nodes": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w) i = Identity (c) d = Dropout (i) s = Sigmoid (d)
           y = Conv {SAME} (s, w) }}""",
        W,
    ),
    "normalization": (
        f"""g ({IMAGE} x) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w) n = BatchNormalization (c, u, u, u, u) r = Relu (n)
           y = BatchNormalization (r, u, u, u, u) }}""",
        {**W, "u": np.abs(normal(4)) + 1},
    ),
    "bounds that are computed": (
        f"""g ({IMAGE} x, float hi) => ({IMAGE} y)
        {{ c = Conv {SAME} (x, w) a = Clip (c, lo, hi)
           y = Conv {SAME} (a, w) }}""",
        {**W, "lo": np.array(0, "f4")},
    ),
    "an activation at the end": (
        f"""g ({IMAGE} x) => ({IMAGE} c, {IMAGE} y)
        {{ c = Conv {SAME} (x, w)
           y = Relu (c) }}""",
        W,
    ),
}
ASSETS = (
    "digits/digits_mobile.onnx",
    "face/ultraface_slim_320.onnx",
    "speech_digits/fsdd_dscnn.onnx",
    "speech_digits/fsdd_gru_lstm.onnx",
    "speech_digits/fsdd_transformer.onnx",
)


def disagreements(model: ir.Model, by: str) -> dict[str, tuple[str | None, str | None]]:
    """Give what plan and layout say of a tensor's node, where one of them says float."""
    rules = load_scheme_rules(by)
    outputs = {value.name or "" for value in model.graph.outputs}
    built = as_built(node_facts(model), outputs, joins_bias=True)
    planned = why_left(
        built.nodes,
        rules,
        keep_float=(),
        inputs={value.name or "" for value in model.graph.inputs},
        outputs=outputs,
    )
    told = {built.nodes[index].outputs[0]: why for index, why in planned.items()}
    graph = prepare(simplify(model))
    layout = lay_out(graph, rules)
    done = {
        node.outputs[0].name or "": layout.left.get(node.name or "") for node in graph.graph
    }
    assert set(done) <= set(told), "the plan knows every tensor of the graph that is built"
    return {
        name: (told[name], why)
        for name, why in done.items()
        if (told[name] is None) != (why is None)
    }


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("name", SMALL)
def test_plan_and_layout_agree_on_small_graphs(name: str, by: str) -> None:
    text, weights = SMALL[name]
    assert disagreements(named(text, weights), by) == {}


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("path", ASSETS)
def test_plan_and_layout_agree_on_real_models(shared_assets: Path, path: str, by: str) -> None:
    if not (shared_assets / path).is_file():
        pytest.skip(f"needs a model file: there is no {shared_assets / path}")
    assert disagreements(open_model(shared_assets / path).ir, by) == {}
