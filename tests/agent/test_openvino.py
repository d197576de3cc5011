"""OpenVINO on a device: which device ran it, what is kept compiled, and what serves instead.

The processor's plugin is real. The NPU is played by `edgesdk.testing.FakeOpenvinoNpu`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgesdk.testing import FakeOpenvinoNpu
from tests.agent.agent_driver import AgentProcess, EchoBundle, Start, push

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        FakeOpenvinoNpu.why_not() is not None, reason=str(FakeOpenvinoNpu.why_not())
    ),
]
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0,
                  9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0}>
{ m = MatMul(x, w)  t = Softmax(m)  y = Add(t, x) }
"""
X = np.array([[-1.0, 0.0, 0.5, 2.0]], np.float32)
CPU = {"backend": "openvino-cpu", "runtime": "openvino", "options": {"device": "CPU"}}
SPARE = {"backend": "ort-cpu", "runtime": "onnxruntime", "options": {}, "spare": True}
Device = Callable[..., AgentProcess]


class OpenvinoBundle(EchoBundle):
    """One part of IR, with an ONNX file beside it, and what onnxruntime answers."""

    def __init__(
        self,
        folder: Path,
        device: str = "NPU",
        *,
        shape: Any = (1, 4),
        ir: bytes | None = None,
        fallbacks: Any = (CPU, SPARE),
        **options: Any,
    ) -> None:
        import onnx.parser
        import onnxruntime
        import openvino

        super().__init__(name="small")
        self.blobs.clear()
        data = onnx.parser.parse_model(MODEL).SerializeToString()
        (folder / "m.onnx").write_bytes(data)
        openvino.save_model(openvino.Core().read_model(folder / "m.onnx"), folder / "m.xml")
        graph = (folder / "m.xml").read_bytes() if ir is None else ir
        y = onnxruntime.InferenceSession(data).run(None, {"x": X})[0]
        taken = {"name": "x", "dtype": "float32", "shape": list(shape)}
        given = {"name": "y", "dtype": "float32", "shape": list(shape)}
        self.manifest.update(inputs=[taken], outputs=[given])
        self.manifest["parts"] = [
            {
                "backend": "openvino-npu",
                "runtime": "openvino",
                "format": "openvino",
                "precision": "fp32",
                "files": [
                    {**self._add(graph), "role": "model"},
                    {**self._add((folder / "m.bin").read_bytes()), "role": "data"},
                ],
                "inputs": [taken],
                "outputs": [given],
                "options": {"device": device, **options},
                "fallbacks": list(fallbacks),
                "spare": {"format": "onnx", "files": [{**self._add(data), "role": "model"}]},
            }
        ]
        at = {"dtype": "float32", "shape": [1, 4], "nbytes": 16}
        self.manifest["checks"] = [
            {
                "blob": self._add(X.tobytes() + y.tobytes()),
                "inputs": [{**at, "name": "x", "offset": 0}],
                "expected": [{**at, "name": "y", "offset": 16}],
                "reference": [],
                "tolerance": [{"output": "y", "abs": 1e-5, "rel": 0.0}],
            }
        ]


@pytest.fixture
def npu(tmp_path: Path) -> FakeOpenvinoNpu:
    return FakeOpenvinoNpu(tmp_path / "npu")


@pytest.fixture
def device(start: Start, npu: FakeOpenvinoNpu) -> Device:
    """Start an agent on a device with an NPU."""

    def begin(**settings: str) -> AgentProcess:
        return start("--python", sys.executable, env=dict(npu.environment(**settings)))

    return begin


def check(agent: AgentProcess, bundle: EchoBundle) -> dict[str, Any]:
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["ok"], reply
    assert reply["passed"], reply
    (record,) = reply["runtimes"]
    return dict(record)


def ran_again(agent: AgentProcess, bundle: EchoBundle) -> dict[str, Any]:
    """What a new process says of loading it: a passed check is not made twice."""
    reply = agent.ask("bench", release=bundle.id, spec={"runs": 1, "fresh": True}).meta
    assert reply["ok"], reply
    return dict(reply["runtimes"][0]["detail"])


def blobs(state: Path) -> list[Path]:
    return sorted((state / "cache" / "openvino").glob("*/*.blob"))


def test_a_part_is_compiled_for_the_npu_once(
    device: Device, npu: FakeOpenvinoNpu, tmp_path: Path, state: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path))
    record = check(agent, bundle)
    assert record["backend"] == "openvino-npu"
    assert record["detail"]["execution_devices"] == ["NPU"]
    assert record["detail"]["from_cache"] is False
    agent.kill()
    assert ran_again(device(), bundle)["from_cache"] is True
    assert npu.events == ["compiled 1700000000 ok", "loaded 1700000000"]
    assert len(blobs(state)) == 1


def test_what_another_driver_compiled_is_removed_and_made_anew(
    device: Device, npu: FakeOpenvinoNpu, tmp_path: Path, state: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path))
    check(agent, bundle)
    (before,) = blobs(state)
    agent.kill()
    agent = device(FAKE_NPU_DRIVER="1800000000")
    assert ran_again(agent, bundle)["from_cache"] is False
    assert npu.events[-1] == "compiled 1800000000 ok"
    (after,) = blobs(state)
    assert after.parent != before.parent


@pytest.mark.parametrize("damage", ["cut", "changed", "unsealed", "added"])
def test_a_damaged_blob_is_never_shown_to_the_driver(
    device: Device, npu: FakeOpenvinoNpu, tmp_path: Path, state: Path, damage: str
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path))
    check(agent, bundle)
    agent.kill()
    (blob,) = blobs(state)
    if damage == "cut":
        blob.write_bytes(blob.read_bytes()[:10])
    elif damage == "changed":
        blob.write_bytes(blob.read_bytes().replace(b"driver", b"dRiver"))
    elif damage == "unsealed":
        (blob.parent / "seal.json").write_text("[[[", encoding="utf-8")
    else:
        (blob.parent / "other").symlink_to("/etc/passwd")
    detail = ran_again(device(), bundle)
    assert (detail["from_cache"], detail["cache_rebuilt"]) == (False, True)
    assert npu.events == ["compiled 1700000000 ok"] * 2
    assert Path("/etc/passwd").exists()
    assert [path.name for path in blob.parent.iterdir() if path.is_symlink()] == []


def test_a_part_is_compiled_where_nothing_can_be_kept(
    device: Device, npu: FakeOpenvinoNpu, tmp_path: Path, state: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path, fallbacks=()))
    (state / "cache" / "openvino").write_bytes(b"no folder")
    record = check(agent, bundle)
    assert record["backend"] == "openvino-npu"
    assert "from_cache" not in record["detail"]
    assert npu.events == ["compiled 1700000000 ok"]


@pytest.mark.parametrize("fate", ["refuse", "die"])
def test_a_driver_that_fails_leaves_it_to_the_processor(
    device: Device, tmp_path: Path, fate: str
) -> None:
    agent = device(FAKE_NPU=fate)
    push(agent, bundle := OpenvinoBundle(tmp_path))
    record = check(agent, bundle)
    assert (record["backend"], record["runtime"]) == ("openvino-cpu", "openvino")
    assert record["detail"]["execution_devices"] == ["CPU"]
    (why,) = record["detail"]["fell_back"]
    assert ("ZE_RESULT_ERROR_UNKNOWN" if fate == "refuse" else "SIGABRT") in why


def test_ir_that_openvino_does_not_read_is_served_from_the_spare_file(
    device: Device, tmp_path: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path, ir=b"<net version='99'/>"))
    record = check(agent, bundle)
    assert (record["backend"], record["runtime"]) == ("ort-cpu", "onnxruntime")
    assert len(record["detail"]["fell_back"]) == 2


def test_open_extents_are_fixed_for_the_npu_by_the_manifest(
    device: Device, tmp_path: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path, shape=("N", 4), fallbacks=()))
    assert check(agent, bundle)["detail"]["execution_devices"] == ["NPU"]


def test_auto_tells_which_device_it_chose(device: Device, tmp_path: Path) -> None:
    agent = device(FAKE_NPU_REFUSES="SoftMax,Softmax")
    push(agent, bundle := OpenvinoBundle(tmp_path, "AUTO:NPU,CPU"))
    assert check(agent, bundle)["detail"]["execution_devices"] == ["CPU"]


def test_auto_has_one_device_from_the_first_run_on_whose_blob_is_kept(
    device: Device, npu: FakeOpenvinoNpu, tmp_path: Path
) -> None:
    agent = device()
    push(agent, bundle := OpenvinoBundle(tmp_path, "AUTO:NPU,CPU"))
    assert check(agent, bundle)["detail"]["execution_devices"] == ["NPU"]
    agent.kill()
    detail = ran_again(device(), bundle)
    assert (detail["execution_devices"], detail["from_cache"]) == (["NPU"], True)
    assert npu.events == ["compiled 1700000000 ok", "loaded 1700000000"]


def test_a_mix_of_devices_tells_who_takes_what(device: Device, tmp_path: Path) -> None:
    agent = device(FAKE_NPU_REFUSES="SoftMax,Softmax")
    push(agent, bundle := OpenvinoBundle(tmp_path, "HETERO:NPU,CPU"))
    detail = check(agent, bundle)["detail"]
    assert detail["assignment"]["CPU"] == 1
    assert detail["assignment"]["NPU"] >= 2
    reply = agent.ask("profile", release=bundle.id, runs=2)
    assert reply.meta["ok"], reply.meta
    ops = json.loads(reply.body)["parts"][0]["ops"]
    where = {op["op"]: op["where"] for op in ops}
    assert where["Softmax"] == "CPU"
    assert "NPU" in where.values()


@pytest.mark.parametrize("name", ["CPU", "AUTO:CPU", "HETERO:CPU", "AUTO"])
def test_floats_are_held_at_float32_on_the_processor_in_every_mode(
    start: Start, tmp_path: Path, name: str
) -> None:
    agent = start("--python", sys.executable)
    push(agent, bundle := OpenvinoBundle(tmp_path, name, fallbacks=(), threads=1))
    detail = check(agent, bundle)["detail"]
    assert detail["execution_devices"] == ["CPU"]
    assert detail["precision"] == "f32"
    assert detail["default_precision"] in ("f32", "bf16", "f16")
    assert detail.get("from_cache", False) is False


def test_the_processor_keeps_what_it_compiled_where_it_is_told_to(
    start: Start, tmp_path: Path, state: Path
) -> None:
    bundle = OpenvinoBundle(tmp_path, "CPU", fallbacks=(), cache=True)
    push(agent := start("--python", sys.executable), bundle)
    assert check(agent, bundle)["detail"]["from_cache"] is False
    agent.kill()
    (blob,) = blobs(state)
    agent = start("--python", sys.executable)
    assert ran_again(agent, bundle)["from_cache"] is True
    agent.kill()
    data = bytearray(blob.read_bytes())
    data[-40] ^= 1
    blob.write_bytes(data)
    agent = start("--python", sys.executable)
    detail = ran_again(agent, bundle)
    assert (detail["from_cache"], detail["cache_rebuilt"]) == (False, True)
