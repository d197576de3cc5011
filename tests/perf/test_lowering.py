"""Lowering EfficientNet-lite0 against onnx2tf: as fast to make, smaller, and faster to run.

Times are of processors, which other work on the machine hardly moves; those of the clock are
shown. The peer's float file is quantized by litert-quantizer on the samples we calibrate with.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgesdk.build.reference import OnnxOnHost
from edgesdk.model.open import open_model
from edgesdk.model.shapes import at_batch_one, with_shapes
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite_graph import TfliteGraph, read_tflite_graphs
from edgesdk.profiles import find_target
from edgesdk.quantize.modes import Wanted, convert

pytestmark = [pytest.mark.perf, pytest.mark.timeout(3000)]

sys.path.insert(0, str(Path(__file__).parent))
from lowering_peer import (  # noqa: E402 - beside this file
    peer_environment,
    python_312,
    quantize_by_peer,
    spend,
)
from quantize_models import Case, feeds, prepare  # noqa: E402 - beside this file

CALIBRATION = 64
TESTED = 100
_LOWER = """
import sys
from pathlib import Path
import onnx_ir as ir
from edgesdk.backends.litert.lower import lower_graph
Path(sys.argv[2]).write_bytes(lower_graph(ir.load(sys.argv[1])))
"""


@dataclass(frozen=True)
class Files:
    """The network as it was made and as it is lowered, and the samples of the peer."""

    case: Case
    qdq: Path
    float_graph: Path
    tflite: Path
    float_tflite: Path
    samples: Path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    (case,) = prepare(["efficientnet_lite0"])
    if case.missing:
        pytest.skip(f"the network cannot be had: {case.missing}")
    folder = tmp_path_factory.mktemp("lowering")
    opened = open_model(case.folder / "model.onnx")
    graph = with_shapes(simplify(at_batch_one(opened.ir)))
    target = find_target("generic-aarch64")
    litert = next(each for each in target.backends if each.kind == "litert")
    done = convert(
        graph,
        lambda: feeds(case, "calib.npz", CALIBRATION),
        Wanted(
            precision="int8",
            scheme=litert.scheme,
            precisions=litert.precisions,
            runtime=litert.runtime,
            kind=litert.kind,
        ),
    )
    made = Files(
        case=case,
        qdq=folder / "qdq.onnx",
        float_graph=folder / "float.onnx",
        tflite=folder / "qdq.tflite",
        float_tflite=folder / "float.tflite",
        samples=folder / "samples.npz",
    )
    ir.save(with_shapes(done.model), made.qdq)
    ir.save(graph, made.float_graph)
    for source, out in ((made.qdq, made.tflite), (made.float_graph, made.float_tflite)):
        subprocess.run([sys.executable, "-c", _LOWER, str(source), str(out)], check=True)
    rows = [sample["input"][0] for sample in feeds(case, "calib.npz", CALIBRATION)]
    np.savez(made.samples, input=np.stack(rows))
    return made


@pytest.fixture(scope="module")
def python() -> str:
    found = python_312()
    if found is None:
        pytest.skip("onnx2tf runs on Python 3.12 only, and there is none")
    return found


def test_the_file_holds_int8_weights_and_int32_biases_only(files: Files) -> None:
    graph = graph_of(files.tflite)
    for op in graph.ops:
        if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        dtypes = [graph.tensors[index].dtype for index in op.inputs]
        assert dtypes == ["int8", "int8", "int32"], op
    constants = [tensor for tensor in graph.tensors if tensor.constant is not None]
    assert {tensor.dtype for tensor in constants} <= {"int8", "int32"}
    assert not [op.name for op in graph.ops if op.name in ("PAD", "RESHAPE") and op.index < 58]
    size, source = files.tflite.stat().st_size, files.float_tflite.stat().st_size
    print(f"\nint8 {size / 1e6:.2f} MB, float {source / 1e6:.2f} MB")
    assert size < 0.3 * source


def test_lowering_takes_no_longer_than_onnx2tf(
    files: Files, python: str, tmp_path: Path
) -> None:
    programs = peer_environment("onnx2tf", python)
    ours_command = [sys.executable, "-c", _LOWER, str(files.qdq), str(tmp_path / "ours.tflite")]
    theirs_command = [str(programs / "onnx2tf"), "-i", str(files.case.folder / "model.onnx")]
    theirs_command += ["-o", str(tmp_path / "theirs")]
    ours, theirs = [], []
    for _ in range(3):
        ours.append(spend(ours_command))
        theirs.append(spend(theirs_command, programs))
    ours_s = min(each.cpu_s for each in ours)
    theirs_s = min(each.cpu_s for each in theirs)
    print(
        f"\nlowering: {ours_s:.2f} s of CPU ({min(e.wall_s for e in ours):.2f} s), onnx2tf's "
        f"float: {theirs_s:.2f} s ({min(e.wall_s for e in theirs):.2f} s)"
    )
    assert ours_s <= theirs_s


def test_the_file_runs_faster_than_the_peers(files: Files, python: str, tmp_path: Path) -> None:
    programs = peer_environment("onnx2tf", python)
    command = [str(programs / "onnx2tf"), "-i", str(files.case.folder / "model.onnx")]
    spend([*command, "-o", str(tmp_path)], programs)
    theirs_float = tmp_path / "model_float32.tflite"
    theirs = tmp_path / "model_int8.tflite"
    quantizer = peer_environment("litert-quantizer", python)
    quantize_by_peer(quantizer, theirs_float, files.samples, theirs)
    names = {
        "int8": files.tflite,
        "float": files.float_tflite,
        "onnx2tf float, quantized by litert-quantizer": theirs,
        "onnx2tf float": theirs_float,
    }
    times = latencies_ms(list(names.values()))
    for name, path in names.items():
        print(f"\n{name}: {times[path]:.2f} ms", end="")
    assert times[files.tflite] <= 0.9 * times[theirs]
    assert times[files.float_tflite] <= 1.05 * times[theirs_float]


def test_the_file_answers_as_onnxruntime_does_on_the_same_graph(files: Files) -> None:
    step = step_of(files.qdq)
    reference, other = OnnxOnHost(files.qdq), OnnxOnHost(files.float_graph)
    lowered, lowered_float = open_tflite(files.tflite), open_tflite(files.float_tflite)
    beyond, agreed, furthest = [], [], 0.0
    for sample in feeds(files.case, "test.npz", TESTED):
        wanted = reference.run(sample)["logits"]
        given = run(lowered, sample["input"])
        beyond.append(np.mean(np.abs(given - wanted) > step * 1.0001))
        agreed.append(given.argmax() == wanted.argmax())
        plain = other.run(sample)["logits"]
        apart = np.abs(run(lowered_float, sample["input"]) - plain).max()
        furthest = max(furthest, float(apart / np.abs(plain).max()))
    print(
        f"\nbeyond a step: {np.mean(beyond):.3%}, same top-1: {np.mean(agreed):.1%}, "
        f"float: {furthest:.1e} of the largest"
    )
    assert np.mean(beyond) <= 0.005
    assert np.mean(agreed) >= 0.99
    assert furthest <= 1e-4


def graph_of(path: Path) -> TfliteGraph:
    return read_tflite_graphs(path.read_bytes())[0][0]


def open_tflite(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def run(interpreter: Any, values: np.ndarray) -> np.ndarray:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    answer: np.ndarray = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return answer


def latencies_ms(paths: list[Path]) -> dict[Path, float]:
    """Time a run of each in turns: the lower quartile of what a thread's processor took."""
    opened = {}
    for path in paths:
        opened[path] = open_tflite(path)
        detail = opened[path].get_input_details()[0]
        values = np.random.default_rng(0).normal(size=detail["shape"])
        run(opened[path], values.astype(detail["dtype"]))
    times: dict[Path, list[float]] = {path: [] for path in paths}
    for _ in range(80):
        for path, interpreter in opened.items():
            begun = time.thread_time()
            interpreter.invoke()
            times[path].append((time.thread_time() - begun) * 1e3)
    return {path: statistics.quantiles(several)[0] for path, several in times.items()}


def step_of(path: Path) -> float:
    node = ir.load(path).graph.outputs[0].producer()
    assert node is not None
    assert node.op_type == "DequantizeLinear"
    scale = ir.convenience.get_const_tensor(node.inputs[1])  # type: ignore[arg-type]
    assert scale is not None
    return float(scale.numpy())
