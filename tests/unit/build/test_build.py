"""From a model file to a bundle: the same one every time, that proves itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgesdk.build import build_bundle, open_reference
from edgesdk.bundle import Bundle, export_bundle, verify_bundle
from edgesdk.data.dataset import open_dataset
from edgesdk.data.values import InputRange
from edgesdk.errors import BuildError, OutputError, QuantizeError
from edgesdk.model.open import open_model
from edgesdk.plan import Recipe, model_facts, plan_build
from edgesdk.profiles.catalog import default_target
from edgesdk.quantize.state import State
from edgesdk.tensors import unpack_tensors
from tests.unit.build.models import CLASSIFIER, classifier


def build(model: Path, out: Path, calib: Path | None = None, **recipe: Any) -> Bundle:
    opened = open_model(model)
    profile = default_target()
    data = open_dataset(calib, opened.source.inputs) if calib is not None else None
    resolved = Recipe(**recipe).resolve(calibrated=data is not None)
    plan = plan_build(model_facts(opened), profile, resolved)
    return build_bundle(opened, profile, resolved, plan, calib=data, out=out)


def session_of(bundle: Bundle) -> onnxruntime.InferenceSession:
    (record,) = bundle.manifest["parts"][0]["files"]
    return onnxruntime.InferenceSession(str(bundle.blob_path(record["sha256"])))


def test_a_float_bundle_answers_as_the_model_does(model_path: Path, tmp_path: Path) -> None:
    bundle = build(model_path, tmp_path / "out")
    assert bundle.precision == "fp32"
    assert verify_bundle(bundle) > 0
    image = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)
    (got,) = session_of(bundle).run(None, {"image": image})
    (want,) = onnxruntime.InferenceSession(str(model_path)).run(None, {"image": image})
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_int8_bundle_is_near_the_model_and_smaller_in_its_weights(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    bundle = build(model_path, tmp_path / "out", calib_path)
    assert bundle.precision == "int8"
    as_built = bundle.manifest["as_built"]
    assert as_built["quantized_weights"] == 3
    assert as_built["calibration_samples"] == 24
    for check in bundle.manifest["checks"]:
        body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
        expected = unpack_tensors(check["expected"], body)["scores"]
        reference = unpack_tensors(check["reference"], body)["scores"]
        assert np.abs(expected - reference).max() < 0.1 * np.abs(reference).max()
        (tolerance,) = check["tolerance"]
        assert 0 < tolerance["abs"] < 0.05 * np.abs(reference).max()


def test_the_expected_answers_are_those_of_the_very_part(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    bundle = build(model_path, tmp_path / "out", calib_path)
    for check in bundle.manifest["checks"]:
        body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
        inputs = unpack_tensors(check["inputs"], body)
        (got,) = session_of(bundle).run(None, inputs)
        (tolerance,) = check["tolerance"]
        expected = unpack_tensors(check["expected"], body)["scores"]
        assert np.abs(got - expected).max() <= tolerance["abs"]


def test_rebuilding_gives_the_same_id(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    first = build(model_path, tmp_path / "a", calib_path)
    assert build(model_path, tmp_path / "b", calib_path).id == first.id
    assert build(model_path, tmp_path / "c", calib_path, checks=2).id != first.id


@pytest.mark.slow
def test_the_id_does_not_depend_on_the_process(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; "
        "from tests.unit.build.test_build import build; "
        "print(build(*map(Path, sys.argv[1:])).id)"
    )
    ids = set()
    for seed in ("0", "1", "42"):
        arguments = [str(model_path), str(tmp_path / seed), str(calib_path)]
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        ids.add(done.stdout.strip())
    assert len(ids) == 1


def test_the_plan_travels_with_the_bundle(model_path: Path, tmp_path: Path) -> None:
    import json

    bundle = build(model_path, tmp_path / "out")
    plan = json.loads(bundle.attachment("plan") or b"")
    assert [node["op"] for node in plan["nodes"]] == [
        "Conv",
        "Relu",
        "Conv",
        "Relu",
        "GlobalAveragePool",
        "Flatten",
        "Gemm",
    ]


def test_a_model_with_nothing_to_quantize_is_refused(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    soft (float[1, 8] x) => (float[1, 8] y) { y = Softmax (x) }
    """
    path = classifier(tmp_path / "soft.onnx", text)
    calib = tmp_path / "calib.npz"
    np.savez(calib, x=np.zeros((4, 8), dtype=np.float32))
    with pytest.raises(QuantizeError, match="no node was quantized") as caught:
        build(path, tmp_path / "out", calib)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def _lost(folder: Path, *, scale: float) -> tuple[Path, Path]:
    """A model that eight bits destroy, with typical inputs; its answers are ``scale`` large.

    One half is a million times the other, and only the small one counts in the end.
    """
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    lost (float[1, 2] x) => (float[1, 2] y)
    <float[2] wide, float[4, 2] narrow>
    { a = Mul (x, wide)  b = Concat <axis = 1> (a, x)  y = MatMul (b, narrow) }
    """
    path = folder / "lost.onnx"
    model = onnx.parser.parse_model(text)
    small = [[0, 0], [0, 0], [scale, 0], [0, 2 * scale]]
    for name, values in (("wide", [1e6, 1e6]), ("narrow", small)):
        array = np.array(values, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    del model.graph.value_info[:]
    onnx.save(model, path)
    calib = folder / "calib.npz"
    np.savez(calib, x=np.random.default_rng(5).random((20, 2), dtype=np.float32))
    return path, calib


def test_eight_bits_that_lose_the_answer_are_a_finding_with_the_numbers(
    tmp_path: Path,
) -> None:
    path, calib = _lost(tmp_path, scale=1.0)
    as_built = build(path, tmp_path / "out", calib).manifest["as_built"]
    (nearness,) = as_built["against_float"]
    assert nearness["output"] == "y"
    assert nearness["cosine"] < 0.5
    (finding,) = as_built["findings"]
    assert (finding["code"], finding["severity"]) == ("far-from-float", "warning")
    assert "output 'y' of the int8 part is far from the float model's" in finding["message"]
    assert "--precision fp32" in finding["hint"]
    assert build(path, tmp_path / "float").manifest["as_built"]["findings"] == []


def test_noise_around_zero_is_not_called_far_from_the_float_model(tmp_path: Path) -> None:
    path, calib = _lost(tmp_path, scale=1e-7)
    as_built = build(path, tmp_path / "out", calib).manifest["as_built"]
    assert as_built["against_float"][0]["cosine"] < 0.5
    assert as_built["findings"] == []


def test_what_calibration_saw_travels_with_the_bundle(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    bundle = build(model_path, tmp_path / "out", calib_path)
    seen = InputRange.from_json(bundle.manifest["calibration"]["input_ranges"]["image"])
    assert seen is not None
    assert 0 <= seen.low < 0.01
    assert 0.99 < seen.high <= 1
    assert seen.samples == 24
    assert bundle.manifest["as_built"]["findings"] == []


def test_words_as_an_output_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 3]>
    named (int64[1] x) => (string[1] label) {
        label = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1], values_strings = ["a", "b"]> (x)
    }
    """
    path = classifier(tmp_path / "named.onnx", text)
    with pytest.raises(BuildError, match="output 'label' is of type string") as caught:
        build(path, tmp_path / "out")
    assert "whole numbers instead of words" in caught.value.hint


def test_calibration_data_with_nan_are_refused(model_path: Path, tmp_path: Path) -> None:
    calib = tmp_path / "calib.npz"
    image = np.zeros((4, 3, 16, 16), dtype=np.float32)
    image[2, 0, 0, 0] = np.nan
    np.savez(calib, image=image)
    with pytest.raises(Exception, match="NaN"):
        build(model_path, tmp_path / "out", calib)


def test_a_free_extent_needs_a_shape_or_data(tmp_path: Path) -> None:
    text = CLASSIFIER.replace("float[1, 3, 16, 16]", "float[N, 3, H, 16]")
    path = classifier(tmp_path / "free.onnx", text.replace("float[1, 5]", "float[N, 5]"))
    with pytest.raises(BuildError, match="extent 2 of input image") as caught:
        build(path, tmp_path / "out")
    assert "--shape image=" in caught.value.hint


def test_a_place_that_holds_something_else_is_left_alone(
    model_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="it exists and is not a bundle"):
        build(model_path, tmp_path / "out")


def test_the_reference_is_the_model_as_opened(model_path: Path) -> None:
    image = np.random.default_rng(1).random((1, 3, 16, 16), dtype=np.float32)
    with open_reference(open_model(model_path).ir) as reference:
        got = reference.run({"image": image})["scores"]
        with pytest.raises(BuildError, match="cannot run the model on this computer"):
            reference.run({"image": image[:, :2]})
    (want,) = onnxruntime.InferenceSession(str(model_path)).run(None, {"image": image})
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_part_for_openvino_is_expected_to_answer_as_openvino_does(
    model_path: Path, calib_path: Path, tmp_path: Path
) -> None:
    import openvino

    bundle = build(model_path, tmp_path / "out", calib_path, prefer=("openvino-cpu",))
    (part,) = bundle.manifest["parts"]
    assert part["runtime"] == "openvino"
    assert [file["role"] for file in part["files"]] == ["model", "data"]
    graph, weights = (bundle.blob_path(file["sha256"]).read_bytes() for file in part["files"])
    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(graph, weights),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    for check in bundle.manifest["checks"]:
        body = bundle.blob_path(check["blob"]["sha256"]).read_bytes()
        inputs = unpack_tensors(check["inputs"], body)
        got = compiled(inputs)["scores"]
        expected = unpack_tensors(check["expected"], body)["scores"]
        assert np.abs(got - expected).max() <= check["tolerance"][0]["abs"]
    export_bundle(bundle, tmp_path / "export")
    (exported,) = (tmp_path / "export").glob("*.xml")
    alone = openvino.Core().compile_model(exported, "CPU")
    assert alone(inputs)["scores"].shape == expected.shape


def test_a_search_on_other_labels_is_not_gone_on_with(
    model_path: Path, calib_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = []

    def stop(*_: object, state: State, **__: object) -> None:
        folders.append(state.folder)
        raise KeyboardInterrupt

    monkeypatch.setattr("edgesdk.quantize.modes.convert", stop)
    opened, profile = open_model(model_path), default_target()
    resolved = Recipe(precision="int8").resolve(calibrated=True)
    plan = plan_build(model_facts(opened), profile, resolved)
    images = np.load(calib_path)["image"]
    for number, last in enumerate((1, 2, 1)):
        path = tmp_path / f"{number}.npz"
        np.savez(path, image=images, labels=np.array([0] * (len(images) - 1) + [last]))
        data = open_dataset(path, opened.source.inputs)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            build_bundle(
                opened, profile, resolved, plan, calib=data, out=out, state_dir=tmp_path / "s"
            )
    assert folders[0] == folders[2] != folders[1]
