"""Real networks as OpenVINO IR on the processor: the numbers of onnxruntime, float and 8 bits.

Floats are held at float32, as on a device; OpenVINO itself would take bfloat16 on some CPUs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgesdk.backends import CompiledPart, PartJob
from edgesdk.backends.openvino.compiler import compile_part
from edgesdk.build.reference import HostModel, OnnxOnHost, open_part
from edgesdk.model.open import open_model
from edgesdk.model.shapes import at_batch_one
from edgesdk.model.simplify import simplify
from edgesdk.profiles import find_target
from edgesdk.quantize.api import quantize
from tests.long.test_assets import FACE, write_data

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
pytest.importorskip("openvino", reason="needs OpenVINO")

CPU = next(each for each in find_target("host").backends if each.id == "openvino-cpu")
#: What OpenVINO takes whole, with the name of the input and how many samples are compared.
WHOLE = {
    "digits/digits_mobile.onnx": ("image", 300),
    "speech_digits/fsdd_dscnn.onnx": ("features", 300),
    "speech_digits/fsdd_transformer.onnx": ("features", 300),
    FACE: ("input", 1),
}


def compiled(model: ir.Model, folder: Path) -> CompiledPart:
    folder.mkdir()
    job = PartJob(index=0, model=model, source=None, precision="int8", folder=folder)
    return compile_part(job, CPU)


def answers(host: HostModel, name: str, samples: np.ndarray) -> dict[str, np.ndarray]:
    given = [host.run({name: sample[None].astype(np.float32)}) for sample in samples]
    return {key: np.concatenate([each[key] for each in given]) for key in given[0]}


def both(
    model: ir.Model, folder: Path, name: str, samples: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, CompiledPart]]:
    """Give each output by OpenVINO and by onnxruntime."""
    onnx.save(ir.to_proto(model), folder / "whole.onnx")
    part = compiled(model, folder / "part")
    outputs = [value.name or "" for value in model.graph.outputs]
    ours = answers(open_part(part.files["model"], "openvino", outputs), name, samples)
    theirs = answers(OnnxOnHost(folder / "whole.onnx", as_written=True), name, samples)
    return [(ours[key], theirs[key], part) for key in outputs]


def test_data(model: str, assets: Path, folder: Path) -> tuple[Path, np.ndarray]:
    calib, test = write_data(model, assets, folder)
    name, count = WHOLE[model]
    with np.load(test) as arrays:
        return calib, arrays[name][:count]


test_data.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


@pytest.mark.parametrize("model", WHOLE)
def test_floats_are_those_of_onnxruntime(
    model: str, shared_assets: Path, tmp_path: Path
) -> None:
    _, samples = test_data(model, shared_assets, tmp_path)
    graph = simplify(at_batch_one(open_model(shared_assets / model).ir))
    for got, want, part in both(graph, tmp_path, WHOLE[model][0], samples):
        apart, largest = float(np.abs(got - want).max()), float(np.abs(want).max())
        print(f"{model}: float, off by {apart / largest:.2g} of the largest; {part.inside}")
        assert apart <= 1e-4 * largest


@pytest.mark.parametrize("model", WHOLE)
def test_eight_bits_are_those_of_onnxruntime_to_a_step(
    model: str, shared_assets: Path, tmp_path: Path
) -> None:
    calib, samples = test_data(model, shared_assets, tmp_path)
    graph = quantize(shared_assets / model, str(calib), scheme="host/openvino-cpu").model
    for got, want, part in both(graph, tmp_path, WHOLE[model][0], samples):
        # outputs are float: a step is that of the 8 bits that would cover them
        step = float(want.max() - min(want.min(), 0)) / 255
        within = float(np.mean(np.abs(got - want) <= step))
        same = float(np.mean(got.argmax(-1) == want.argmax(-1)))
        print(f"{model}: {within:.2%} within a step, top-1 {same:.2%} alike; {part.inside}")
        assert part.inside["not_fused"] == []
        assert within >= 0.995
        if model != FACE:
            assert same >= 0.99
