"""Simplified graphs compute the same under the same names, in the same bytes every time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.model import Finding, open_model, simplify
from edgesdk.model.save import model_bytes

WriteModel = Callable[..., Path]
RunModel = Callable[..., list[Any]]

DRAW = np.random.default_rng(1)


def weights(*shape: int) -> np.ndarray:
    return DRAW.standard_normal(shape).astype(np.float32)


def ops(model: Any) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(
    ("body", "shape", "left"),
    [
        ("c = Conv(x, w, b) y = BatchNormalization(c, s, b, m, v)", (4, 3, 3, 3), ["Conv"]),
        ("c = Conv(x, w) d = Mul(c, k) y = Add(k, d)", (4, 3, 3, 3), ["Conv"]),
        ("c = Conv(x, w) d = Sub(c, k) y = Div(d, k)", (4, 3, 3, 3), ["Conv"]),
        ("c = Conv(x, w) y = Sub(k, c)", (4, 3, 3, 3), ["Conv", "Sub"]),
        ("c = ConvTranspose(x, w) y = BatchNormalization(c, s, b, m, v)", (3, 4, 2, 2), None),
        ("c = Conv(x, w) d = Mul(c, k) y = Add(c, d)", (4, 3, 3, 3), ["Conv", "Mul", "Add"]),
        ("c = Conv(x, w) y = Mul(c, row)", (4, 3, 3, 3), ["Conv", "Mul"]),
    ],
)
def test_what_follows_a_convolution_is_folded_where_that_is_the_same(
    write_model: WriteModel, run_model: RunModel, body: str, shape: tuple[int, ...], left: Any
) -> None:
    held = {"w": weights(*shape), "v": np.abs(weights(4)) + 0.1, "k": weights(1, 4, 1, 1)}
    held.update({name: weights(4) for name in "sbm"}, row=weights(6))
    path = write_model(
        f"g (float[1, 3, 8, 8] x) => (float[a, c1, h, w1] y) {{ {body} }}", weights=held
    )
    simple = simplify(open_model(path).ir)
    assert ops(simple) == (left or ["ConvTranspose"])
    np.testing.assert_allclose(
        run_model(model_bytes(simple))[0], run_model(path.read_bytes())[0], rtol=1e-4, atol=1e-5
    )


def test_a_result_that_is_an_output_too_is_not_folded_away(
    write_model: WriteModel, run_model: RunModel
) -> None:
    path = write_model(
        "g (float[1, 3, 8, 8] x) => (float[a, b, c, d] t, float[a, b, c, d] y) "
        "{ t = Conv(x, w) i = Identity(t) y = Mul(i, k) }",
        weights={"w": weights(4, 3, 3, 3), "k": weights(1, 4, 1, 1)},
    )
    simple = simplify(open_model(path).ir)
    assert [value.name for value in simple.graph.outputs] == ["t", "y"]
    for new, old in zip(
        run_model(model_bytes(simple)), run_model(path.read_bytes()), strict=True
    ):
        np.testing.assert_array_equal(new, old)


def test_constant_arithmetic_idle_dropout_and_repeats_go(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[2, 6] x) => (float[3, 4] y) { "
        "a = Constant<value_ints=[3]>() b = Constant<value_ints=[-1]>() "
        "s = Concat<axis=0>(a, b) d = Dropout(x) i = Identity(d) r = Reshape(i, s) p = Relu(r) "
        "q = Relu(r) y = Add(p, q) }"
    )
    assert ops(simplify(open_model(path).ir)) == ["Reshape", "Relu", "Add"]


def test_the_model_given_is_left_as_it_is(write_model: WriteModel) -> None:
    opened = open_model(
        write_model("g (float[2] x) => (float[2] y) { i = Identity(x) y = Relu(i) }")
    )
    simplify(opened.ir)
    assert ops(opened.ir) == ["Identity", "Relu"]


def test_large_constants_are_not_computed(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[1] x) => (float[n] y) { s = Constant<value_ints=[3000000]>() "
        "c = ConstantOfShape(s) z = Add(c, x) i = Constant<value_ints=[3]>() y = Gather(z, i) }"
    )
    simple = simplify(open_model(path).ir)
    assert ops(simple)[0] == "ConstantOfShape"
    assert len(model_bytes(simple)) < 2000


def test_bodies_of_control_flow_keep_their_outputs(
    write_model: WriteModel, run_model: RunModel
) -> None:
    path = write_model(
        "g (bool c, float[2] x) => (float[2] y) { o = Neg(x) y = If (c) <"
        "then_branch = a () => (float[2] t) { t = Identity(o) }, "
        "else_branch = b () => (float[2] e) { n = Abs(o) e = Identity(n) }> }"
    )
    simple = simplify(open_model(path).ir)
    for truth in (True, False):
        feeds = {"c": np.array(truth), "x": np.array([1, -2], np.float32)}
        new, old = run_model(model_bytes(simple), feeds), run_model(path.read_bytes(), feeds)
        np.testing.assert_array_equal(new[0], old[0])


def test_biases_of_two_layers_stay_apart_and_weights_merge(write_model: WriteModel) -> None:
    same, bias = weights(3, 3, 1, 1), np.zeros(3, np.float32)
    path = write_model(
        "g (float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) "
        "{ t = Conv(x, w1, b1) u = Relu(t) y = Conv(u, w2, b2) }",
        weights={"w1": same, "b1": bias, "w2": same, "b2": bias},
    )
    assert sorted(simplify(open_model(path).ir).graph.initializers) == ["b1", "b2", "w1"]


def test_a_step_that_fails_is_left_out_and_told(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxscript.optimizer

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(onnxscript.optimizer, "fold_constants", broken)
    path = write_model("g (float[2] x) => (float[2] y) { i = Identity(x) y = Relu(i) }")
    found: list[Finding] = []
    simple = simplify(open_model(path).ir, on_finding=found.append)
    assert ops(simple) == ["Relu"]
    assert [(one.code, one.subject) for one in found] == [
        ("simplify-step-skipped", "folding constants")
    ]
    assert "no luck" in found[0].message


PROGRAM = """
import hashlib, sys
from pathlib import Path
from edgesdk.model import fit_opset, open_model, simplify
from edgesdk.model.save import model_bytes
simple = simplify(open_model(Path(sys.argv[1])).ir)
model = fit_opset(simple, lowest=13, highest=None, max_ir=None)
print(hashlib.sha256(model_bytes(model)).hexdigest())
"""


def test_bytes_do_not_depend_on_the_process(write_model: WriteModel) -> None:
    path = write_model(
        "g (float[1, 3, 8, 8] x) => (float[a, b] y) { c = Conv(x, w) "
        "n = BatchNormalization(c, s, s, s, v) r = Relu(n) q = Relu(n) t = Add(r, q) "
        "f = Flatten(t) y = Softmax(f) }",
        opset=11,
        weights={"w": weights(4, 3, 3, 3), "s": weights(4), "v": np.ones(4, np.float32)},
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "77")
    }
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "digits/digits_mobile.onnx",
        "face/ultraface_slim_320.onnx",
        "speech_digits/fsdd_dscnn.onnx",
        "speech_digits/fsdd_gru_lstm.onnx",
        "speech_digits/fsdd_transformer.onnx",
    ],
)
def test_trained_models_give_the_same_numbers(
    shared_assets: Path, run_model: RunModel, name: str
) -> None:
    _compare(shared_assets / name, run_model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "bvlc_alexnet",
        "densenet121",
        "inception_v1",
        "inception_v2",
        "resnet50",
        "shufflenet",
        "squeezenet",
        "vgg19",
        "zfnet512",
    ],
)
def test_well_known_networks_give_the_same_numbers(run_model: RunModel, name: str) -> None:
    import onnx

    folder = Path(onnx.__file__).parent / "backend/test/data/light"
    _compare(folder / f"light_{name}.onnx", run_model)


def _compare(path: Path, run_model: RunModel) -> None:
    from edgesdk.model import fit_opset

    found: list[Finding] = []
    simple = simplify(open_model(path).ir, on_finding=found.append)
    assert not found
    fitted = fit_opset(simple, lowest=13, highest=None, max_ir=None)
    for new, old in zip(
        run_model(model_bytes(fitted)), run_model(path.read_bytes()), strict=True
    ):
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-5)


def test_the_folder_of_constants_is_loaded_only_where_it_has_work(tmp_path: Path) -> None:
    plain = "agraph (float[1, 4] x) => (float[1, 4] y) { r = Relu (x) y = Sigmoid (r) }"
    shaped = "agraph (float[N, 4] x) => (int64[2] y) { y = Shape (x) }"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edgesdk.model import open_model, simplify\n"
        "simplify(open_model(Path(sys.argv[1])).ir)\n"
        "print('onnxscript' in sys.modules)\n"
    )
    for text, loaded in ((plain, "False"), (shaped, "True")):
        path = tmp_path / "model.onnx"
        header = '<ir_version: 8, opset_import: ["" : 17]>'
        onnx.save(onnx.parser.parse_model(f"{header} {text}"), path)
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == loaded
