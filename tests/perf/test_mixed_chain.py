"""A chain of three runtimes takes what its parts take: LiteRT int8, OpenVINO, onnxruntime.

Each part is a real one, made as the build makes it and run by the agent's worker over
``local:``. In every counted run the whole and the runtimes' own calls are timed by one clock,
so the ratio holds on a busy computer too. What the parts take by themselves is shown beside it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgesdk.backends.litert.lower import lower_graph
from edgesdk.build.reference import OnnxOnHost, TfliteOnHost
from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.deploy import deploy_bundle
from edgesdk.devices import connect, resolve_device
from edgesdk.wire.manifest import MANIFEST_SCHEMA
from tests.unit.backends.litert import graphs

pytestmark = pytest.mark.perf

MOST = 1.05
ROUNDS = 5
RUNS = 200
SHAPE = (1, 32, 48, 48)
TEXT = """
g (float[1,32,48,48] {x}) => (float[1,32,48,48] {y}) {{
  {y}_a = Conv <pads = [1, 1, 1, 1]> ({x}, {y}_w)
  {y} = Relu ({y}_a)
}}
"""


def conv_model(given: str, gives: str) -> Any:
    weights = np.random.default_rng(len(gives)).normal(0, 0.08, (32, 32, 3, 3))
    return graphs.build(
        TEXT.format(x=given, y=gives), {f"{gives}_w": weights.astype(np.float32)}
    )


def value(name: str) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": list(SHAPE)}


def chain_bundle(folder: Path) -> Bundle:
    """Three convolutions, each for another runtime."""
    import onnx_ir as ir
    import openvino

    first, second, third = (
        conv_model(given, gives) for given, gives in (("x", "p"), ("p", "q"), ("q", "y"))
    )
    folder.mkdir()
    paths = {name: folder / name for name in ("a.tflite", "b.onnx", "b.xml", "c.onnx")}
    paths["a.tflite"].write_bytes(lower_graph(graphs.quantize(first)))
    for name, model in (("b.onnx", second), ("c.onnx", third)):
        onnx.save(ir.to_proto(model), paths[name])
    openvino.save_model(
        openvino.convert_model(str(paths["b.onnx"])), paths["b.xml"], compress_to_fp16=False
    )
    x = np.random.default_rng(1).normal(0, 1, SHAPE).astype(np.float32)
    p = TfliteOnHost(paths["a.tflite"]).run({"x": x})
    q = OnnxOnHost(paths["b.onnx"]).run({"p": next(iter(p.values()))})
    y = OnnxOnHost(paths["c.onnx"]).run(q)["y"]
    made = (
        ("litert", "tflite", "x", "p", {"model": paths["a.tflite"]}),
        ("openvino", "openvino", "p", "q",
         {"model": paths["b.xml"], "data": paths["b.xml"].with_suffix(".bin")}),
        ("onnxruntime", "onnx", "q", "y", {"model": paths["c.onnx"]}),
    )  # fmt: skip
    with BundleWriter(folder / "bundle") as writer:
        parts = [
            {
                "backend": f"{runtime}-cpu",
                "runtime": runtime,
                "format": form,
                "precision": "int8" if form == "tflite" else "fp32",
                "files": [{"role": r, **writer.add_file(path)} for r, path in files.items()],
                "inputs": [value(given)],
                "outputs": [value(gives)],
                "options": {},
            }
            for runtime, form, given, gives, files in made
        ]
        check = {
            "blob": writer.add_bytes(x.tobytes() + y.tobytes()),
            "inputs": [{**value("x"), "offset": 0, "nbytes": x.nbytes}],
            "expected": [{**value("y"), "offset": x.nbytes, "nbytes": y.nbytes}],
            "reference": [],
            "tolerance": [{"output": "y", "abs": float(1e-4 * abs(y).max()), "rel": 0.0}],
        }
        return writer.finish(
            {
                "schema": MANIFEST_SCHEMA,
                "name": "mixed",
                "precision": "int8",
                "target": {"name": "any"},
                "model": {},
                "inputs": [value("x")],
                "outputs": [value("y")],
                "parts": parts,
                "checks": [check],
                "attachments": [],
            }
        )


def over_its_parts(meta: Mapping[str, Any]) -> float:
    """Time of all runs over that of all calls within them: shares are of the former."""
    return float(1.0 / sum(part["share"] for part in meta["parts"]))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("threads", [None, 1])
def test_mixed_chain_takes_what_its_parts_take(threads: int | None, tmp_path: Path) -> None:
    bundle = chain_bundle(tmp_path / "made")
    device = resolve_device(f"local:?state={tmp_path / 'state'}")
    spec = {"warmup_runs": 20, "runs": RUNS, "threads": threads, "sample_conditions": False}
    with connect(device, timeout_s=30) as session:
        deploy_bundle(bundle, session, device=device)
        rounds = [
            session.request("bench", {"release": bundle.id, "spec": spec}, timeout_s=120)
            for _ in range(ROUNDS)
        ]
        asked = {"release": bundle.id, "runs": 100, "threads": threads or 0}
        alone = json.loads(session.request("profile", asked, timeout_s=120).body)["parts"]
    ratios = sorted(over_its_parts(reply.meta) for reply in rounds)
    whole_ms = np.median([np.median(np.frombuffer(r.body, "<u8")) for r in rounds]) / 1e6
    inside = [part["median_ms"] for part in rounds[-1].meta["parts"]]
    apart = [part["total_us"] / 1e3 for part in alone]
    sys.stdout.write(
        f"\nthreads {threads or 'as they like'}: chain {whole_ms:.3f} ms, calls in it "
        f"{' + '.join(f'{ms:.3f}' for ms in inside)}, each by itself "
        f"{' + '.join(f'{ms:.3f}' for ms in apart)} = {sum(apart):.3f}; over its parts "
        f"{ratios[len(ratios) // 2]:.4f} [{ratios[0]:.4f}, {ratios[-1]:.4f}]\n"
    )
    assert [record["runtime"] for record in rounds[0].meta["runtimes"]] == [
        "litert",
        "openvino",
        "onnxruntime",
    ]
    assert ratios[len(ratios) // 2] <= MOST
