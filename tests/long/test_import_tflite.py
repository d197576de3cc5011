"""Real TFLite files, and ONNX networks lowered to TFLite and back: how near their ONNX is.

Figures are printed: ``pytest -m long -s tests/long/test_import_tflite.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.backends.litert.lower import lower_graph
from edgesdk.build.reference import OnnxOnHost
from edgesdk.cli.app import run
from edgesdk.errors import ModelError
from edgesdk.importers.importing import open_imported
from edgesdk.importers.tflite.importing import import_tflite
from edgesdk.importers.tflite.layers import compare_layers
from edgesdk.importers.tflite.litert import LiteRT
from edgesdk.importers.tflite.prove import examples_of
from edgesdk.importers.tflite.walk import convert_tflite
from edgesdk.model.open import open_model
from edgesdk.model.save import save_model
from edgesdk.model.shapes import at_batch_one, with_shapes
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import open_tflite
from edgesdk.quantize.api import quantize
from tests.long.test_assets import FACE, write_data

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
pytest.importorskip("ai_edge_litert", reason="needs LiteRT")

#: Files of Coral's test data that have only built-in operators.
REAL = (
    "mobilenet_v1_0.25_128_quant",
    "deeplabv3_mnv2_dm05_pascal_quant",
    "keras_lstm_mnist_ptq",
    "tools_split_concat",
)
REFUSED = {
    "posenet_posenet_mobilenet_v1_075_353_481_16_quant_decoder": "PosenetDecoderOp",
    "mobilenet_v1_0.25_128_quant_edgetpu": "edgetpu-custom-op",
    "deeplabv3_mnv2_dm05_pascal_quant_edgetpu": "edgetpu-custom-op",
    "keras_lstm_mnist_ptq_edgetpu": "edgetpu-custom-op",
    "tools_split_concat_edgetpu": "edgetpu-custom-op",
}
NETWORKS = (
    "digits/digits_mobile.onnx",
    "speech_digits/fsdd_dscnn.onnx",
    "speech_digits/fsdd_transformer.onnx",
    FACE,
)
#: Networks whose input has labels, with the input's name.
LABELLED = {
    "digits/digits_mobile.onnx": "image",
    "speech_digits/fsdd_dscnn.onnx": "features",
    "speech_digits/fsdd_transformer.onnx": "features",
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_agrees_with_litert(name: str, shared_assets: Path, tmp_path: Path) -> None:
    path = shared_assets / "edgetpu" / f"{name}.tflite"
    made = import_tflite(path, imports=tmp_path)
    for note in made.origin.notes:
        print(f"{name}: {note}")
    file, opened = open_tflite(path), open_imported(made)
    assert made.origin.examples == 3
    assert [(each.name, each.dtype, each.shape) for each in opened.source.inputs] == [
        (each.name, each.dtype, each.shape) for each in file.source.inputs
    ]
    assert [(each.dtype, each.shape) for each in opened.source.outputs] == [
        (each.dtype, each.shape) for each in file.source.outputs
    ]


@pytest.mark.parametrize("name", REAL)
def test_every_operator_of_a_real_file_agrees_with_litert(
    name: str, shared_assets: Path
) -> None:
    file = open_tflite(shared_assets / "edgetpu" / f"{name}.tflite")
    made = convert_tflite(file)
    seen = []
    for example in examples_of(file.graph):
        seen += compare_layers(file.graph.data, file.graph, made, example)
    op, worst = min(seen, key=lambda each: (each[1].within, -each[1].largest))
    print(
        f"{name}: {len(seen)} results compared, the worst of operator {op.index} ({op.name}), "
        f"{worst.within:.3%} within one step, at most {worst.largest:g} steps apart"
    )
    assert len(seen) >= 3 * len(file.graph.ops)
    assert all(each.holds for _, each in seen)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_with_a_custom_operator_is_refused(
    name: str, shared_assets: Path, tmp_path: Path
) -> None:
    path = shared_assets / "edgetpu" / f"{name}.tflite"
    with pytest.raises(ModelError, match=REFUSED[name]) as caught:
        import_tflite(path, imports=tmp_path)
    print(f"{name}: {caught.value} | {caught.value.hint}")
    assert caught.value.hint


def lowered(model: ir.Model, folder: Path) -> Path:
    path = folder / "lowered.tflite"
    path.write_bytes(lower_graph(with_shapes(model)))
    return path


def share_apart(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_network_comes_back_from_tflite(
    name: str, shared_assets: Path, tmp_path: Path
) -> None:
    model = simplify(at_batch_one(open_model(shared_assets / name).ir))
    first = OnnxOnHost(save_model(model, tmp_path, "first")[0])
    made = import_tflite(lowered(model, tmp_path), imports=tmp_path / "imports")
    again = OnnxOnHost(made.path)
    assert made.origin.max_rel_error is not None
    random, worst = np.random.default_rng(1), 0.0
    for _ in range(3):
        inputs = {
            value.name: random.standard_normal(value.shape.numpy()).astype("f4")
            for value in model.graph.inputs
        }
        wanted, got = first.run(inputs), again.run(inputs)
        worst = max(worst, *(share_apart(got[key], wanted[key]) for key in wanted))
    print(
        f"{name}: float, {made.origin.max_rel_error:.2g} of the largest apart from LiteRT, "
        f"{worst:.2g} from the first graph in onnxruntime"
    )
    assert made.origin.max_rel_error <= 1e-4
    assert worst <= 1e-4


@pytest.mark.parametrize("name", LABELLED)
def test_a_quantized_network_keeps_its_accuracy(
    name: str, shared_assets: Path, tmp_path: Path
) -> None:
    calib, test = write_data(name, shared_assets, tmp_path)
    done = quantize(shared_assets / name, str(calib), scheme="raspberry-pi-5/litert-cpu")
    path = lowered(simplify(at_batch_one(done.model)), tmp_path)
    made = import_tflite(path, imports=tmp_path / "imports")
    for note in made.origin.notes:
        print(f"{name}: {note}")
    litert, onnx = LiteRT(path.read_bytes()), OnnxOnHost(made.path)
    with np.load(test) as arrays:
        samples = arrays[LABELLED[name]][:300].astype("f4")
        labels = arrays["labels"][:300]
    theirs = np.concatenate([litert.run([each[None]])[0] for each in samples])
    ours = np.concatenate(
        [next(iter(onnx.run({LABELLED[name]: each[None]}).values())) for each in samples]
    )
    right = [float(np.mean(each.argmax(-1) == labels)) for each in (theirs, ours)]
    same = float(np.mean(theirs.argmax(-1) == ours.argmax(-1)))
    print(
        f"{name}: accuracy {right[0]:.4f} in LiteRT, {right[1]:.4f} as ONNX, {same:.2%} alike"
    )
    assert abs(right[0] - right[1]) <= 0.01


def test_a_real_quantized_network_goes_on_to_both_runtimes(
    shared_assets: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Back through our own lowering to LiteRT, and deployed as Q/DQ graph to onnxruntime."""
    monkeypatch.chdir(tmp_path)
    path = shared_assets / "edgetpu" / "mobilenet_v1_0.25_128_quant.tflite"
    made = import_tflite(path, imports=tmp_path / "imports")
    blob = lower_graph(with_shapes(simplify(open_imported(made).ir)))
    again, first = LiteRT(blob), LiteRT(path.read_bytes())
    apart = []
    for example in examples_of(open_tflite(path).graph):
        (wanted,), (got,) = first.run(example), again.run(example)
        apart.append(np.abs(got.astype(int) - wanted.astype(int)))
    within = float(np.mean(np.stack(apart) <= 1))
    print(f"mobilenet: {within:.3%} within one step after going back to TFLite")
    assert within >= 0.995
    device = f"local:?state={tmp_path / 'device'}"
    assert run(["deploy", str(made.path), "--device", device, "--no-bench"]) == 0
