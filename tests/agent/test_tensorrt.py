"""Engines finished on the device, cached, refused and rebuilt, and what serves without one.

NVIDIA's side is played by programs and libraries from `edgesdk.testing`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgesdk.testing import FakeTensorrt
from tests.agent.agent_driver import AgentProcess, SocketTalk, Start, push, wait_until_gone
from tests.agent.tensorrt_bundles import HALF, QUANTIZED, TensorrtBundle

pytestmark = pytest.mark.skipif(
    FakeTensorrt.why_not() is not None, reason=str(FakeTensorrt.why_not())
)
Device = Callable[..., AgentProcess]


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., FakeTensorrt]:
    made: dict[Any, FakeTensorrt] = {}

    def fake(version: str = "10.3.0", **has: bool) -> FakeTensorrt:
        key = (version, *sorted(has.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("nvidia")
            made[key] = FakeTensorrt(folder, version=version, **has)
        made[key].log.unlink(missing_ok=True)
        return made[key]

    return fake


@pytest.fixture
def nvidia(fakes: Callable[..., FakeTensorrt]) -> FakeTensorrt:
    return fakes()


@pytest.fixture
def device(start: Start) -> Device:
    """Start an agent on a device that has what ``nvidia`` has."""

    def begin(nvidia: FakeTensorrt, *, command: str = "stdio", **settings: str) -> Any:
        env = dict(nvidia.environment(os.environ["PATH"], **settings))
        greet = command == "stdio"
        return start("--python", sys.executable, env=env, command=command, greet=greet)

    return begin


def finish(agent: Any, bundle: TensorrtBundle, **meta: Any) -> dict[str, Any]:
    reply = agent.ask("finish", bundle=bundle.id, **meta).meta
    assert reply["ok"], reply
    (part,) = reply["parts"]
    return part


def check(agent: Any, bundle: TensorrtBundle) -> dict[str, Any]:
    reply = agent.ask("check", bundle=bundle.id).meta
    assert reply["ok"], reply
    assert reply["passed"], reply
    return reply


def engines(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "cache" / "tensorrt").glob("*.engine"))


def test_an_engine_is_built_once_and_serves(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    agent, bundle = device(nvidia), TensorrtBundle()
    push(agent.talk, bundle)
    built = finish(agent, bundle)
    assert (built["outcome"], built["builder"]) == ("built", "trtexec 10.3.0")
    ran = check(agent, bundle)["runtimes"][0]
    assert (ran["runtime"], ran["version"]) == ("tensorrt", "10.3.0")
    assert ran["detail"]["accelerator"] is True
    assert ran["detail"]["engine"] == built["fingerprint"]
    assert "fell_back" not in ran["detail"]
    assert finish(agent, bundle)["outcome"] == "cached"
    assert check(agent, bundle)["reused"] is True
    assert len(nvidia.builds) == len(engines(state)) == 1
    agent.hang_up()
    assert finish(device(nvidia), bundle)["outcome"] == "cached"


@pytest.mark.parametrize(
    ("version", "flag"),
    [
        ("8.5.2", "--buildOnly"),
        ("8.6.1", "--skipInference"),
        ("10.3.0", "--skipInference"),
        ("11.0.0", "--skipInference"),
    ],
)
@pytest.mark.parametrize(("text", "precision"), [(QUANTIZED, "int8"), (HALF, "fp16")])
def test_each_dialect_is_told_what_it_knows(
    device: Device,
    fakes: Callable[..., FakeTensorrt],
    version: str,
    flag: str,
    text: str,
    precision: str,
) -> None:
    nvidia = fakes(version)
    agent, bundle = device(nvidia), TensorrtBundle(text, precision=precision)
    push(agent.talk, bundle)
    assert finish(agent, bundle)["outcome"] == "built"
    (line,) = nvidia.builds
    assert flag in line
    assert (f"--{precision}" in line) is (not version.startswith("11"))
    assert check(agent, bundle)["runtimes"][0]["runtime"] == "tensorrt"


@pytest.mark.parametrize("version", ["8.5.2", "10.3.0", "11.0.0"])
def test_without_trtexec_the_package_builds(
    device: Device, fakes: Callable[..., FakeTensorrt], version: str
) -> None:
    agent = device(fakes(version, trtexec=False))
    bundle = TensorrtBundle(QUANTIZED, precision="int8")
    push(agent.talk, bundle)
    assert finish(agent, bundle)["builder"] == f"tensorrt {version}"
    assert check(agent, bundle)["runtimes"][0]["runtime"] == "tensorrt"


@pytest.mark.parametrize("builder", [True, False], ids=["trtexec", "package"])
def test_a_dla_gets_its_scales_and_its_core(
    device: Device, fakes: Callable[..., FakeTensorrt], builder: bool
) -> None:
    nvidia = fakes("8.6.1", trtexec=builder)
    scales = b"TRT-8601-EntropyCalibration2\nx: 3d4ccccd\ny: 3d4ccccd\n"
    bundle = TensorrtBundle(precision="int8", dla=1, calibration=scales)
    agent = device(nvidia)
    push(agent.talk, bundle)
    assert finish(agent, bundle)["outcome"] == "built"
    if builder:
        (line,) = nvidia.builds
        for flag in ("--useDLACore=1", "--allowGPUFallback", "--int8", "--fp16", "--calib="):
            assert flag in line
    assert check(agent, bundle)["runtimes"][0]["detail"]["device"] == "DLA1"


def test_a_strongly_typed_builder_takes_no_scales(
    device: Device, fakes: Callable[..., FakeTensorrt]
) -> None:
    scales = b"TRT-8601-EntropyCalibration2\nx: 3d4ccccd\n"
    bundle = TensorrtBundle(precision="int8", dla=0, calibration=scales)
    agent = device(fakes("11.0.0"))
    push(agent.talk, bundle)
    failed = finish(agent, bundle)
    assert failed["outcome"] == "failed"
    assert (
        failed["why"] == "trtexec 11.0.0 takes no calibration cache: its types are in the graph"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"FAKE_CUDA_DRIVER": "12080"}, "driver 12060 (here 12080)"),
        ({"FAKE_GPU_NAME": "Xavier"}, "gpu Orin (here Xavier)"),
        ({"FAKE_GPU_COMPUTE": "7.2"}, "compute capability 8.7 (here 7.2)"),
        ({"FAKE_TENSORRT_VERSION": "10.7.0"}, "tensorrt 10.3.0 (here 10.7.0)"),
    ],
)
def test_an_engine_from_another_device_is_not_used_and_built_again(
    device: Device, nvidia: FakeTensorrt, state: Path, changed: dict[str, str], said: str
) -> None:
    agent, bundle = device(nvidia), TensorrtBundle()
    push(agent.talk, bundle)
    finish(agent, bundle)
    check(agent, bundle)
    agent.hang_up()
    agent = device(nvidia, **changed)
    unfinished = agent.ask("check", bundle=bundle.id, force=True).meta["runtimes"][0]
    assert unfinished["backend"] == "ort-cpu"
    assert said in unfinished["detail"]["fell_back"][0]
    again = finish(agent, bundle)
    assert again["outcome"] == "built"
    assert said in again["instead_of"]
    assert check(agent, bundle)["reused"] is False
    assert said in "\n".join(agent.ask("logs", lines=50).meta["lines"])
    assert len(engines(state)) == 2


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("fail", "trtexec ended with status 1: Error[10]: Could not find any implementation"),
        ("crash", "trtexec ended with signal 11"),
        ("rubbish", "trtexec says that it is done and left no engine"),
        ("silent", "trtexec says that it is done and left no engine"),
        ("truncate", "TensorRT refuses the engine: "),
    ],
)
def test_a_failed_build_leaves_nothing_and_a_fallback_serves(
    device: Device, nvidia: FakeTensorrt, state: Path, manner: str, said: str
) -> None:
    agent, bundle = device(nvidia, FAKE_TRTEXEC=manner), TensorrtBundle()
    push(agent.talk, bundle)
    failed = finish(agent, bundle)
    assert failed["outcome"] == "failed"
    assert failed["why"].startswith(said)
    assert failed["why"].isprintable()
    ran = check(agent, bundle)["runtimes"][0]
    assert (ran["backend"], ran["runtime"]) == ("ort-cpu", "onnxruntime")
    why = ran["detail"]["fell_back"]
    assert why[0].startswith("tensorrt (tensorrt): it is not finished for this device")
    assert why[1].startswith("ort-cuda (onnxruntime): this onnxruntime has no CUDA")
    folder = state / "cache" / "tensorrt"
    assert [path.name for path in folder.iterdir()] == []


def test_a_model_that_is_none_is_refused_by_name(device: Device, nvidia: FakeTensorrt) -> None:
    agent, bundle = device(nvidia), TensorrtBundle(model=b"\x08\x07 no model at all")
    push(agent.talk, bundle)
    assert "ModelImporter" in finish(agent, bundle)["why"]


def test_a_build_that_hangs_is_ended_at_its_limit(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    agent, bundle = device(nvidia, FAKE_TRTEXEC="hang"), TensorrtBundle()
    push(agent.talk, bundle)
    began = time.monotonic()
    failed = finish(agent, bundle, timeout_s=2.0)
    assert time.monotonic() - began < 20
    assert failed["why"].startswith("trtexec was stopped: it took longer than")
    assert "Local timing cache in use" in failed["why"]
    assert check(agent, bundle)["runtimes"][0]["backend"] == "ort-cpu"
    assert any("building with trtexec" in str(e.get("step")) for e in agent.talk.events)


def test_a_damaged_engine_is_not_used(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    agent, bundle = device(nvidia), TensorrtBundle()
    push(agent.talk, bundle)
    finish(agent, bundle)
    (name,) = engines(state)
    path = state / "cache" / "tensorrt" / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    ran = check(agent, bundle)["runtimes"][0]
    assert "its engine is damaged" in ran["detail"]["fell_back"][0]
    again = finish(agent, bundle)
    assert (again["outcome"], "damaged" in again["instead_of"]) == ("built", True)
    assert check(agent, bundle)["runtimes"][0]["runtime"] == "tensorrt"


@pytest.mark.parametrize("record", [b"", b"[]", b"{", b'{"fingerprint": {}}', b"\xff" * 64])
def test_a_record_that_is_none_is_passed_by(
    device: Device, nvidia: FakeTensorrt, state: Path, record: bytes
) -> None:
    agent, bundle = device(nvidia), TensorrtBundle()
    push(agent.talk, bundle)
    finish(agent, bundle)
    (path,) = (state / "cache" / "tensorrt").glob("*.json")
    path.write_bytes(record)
    assert finish(agent, bundle)["outcome"] == "built"
    assert check(agent, bundle)["runtimes"][0]["runtime"] == "tensorrt"


def test_a_power_cut_while_building_leaves_no_half_engine(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    agent, bundle = device(nvidia, FAKE_TRTEXEC_PAUSE_S="600"), TensorrtBundle()
    push(agent.talk, bundle)
    agent.talk.send("finish", bundle=bundle.id)
    folder = state / "cache" / "tensorrt"
    deadline = time.monotonic() + 60
    while not [p for p in folder.glob("build-*/engine") if p.stat().st_size]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (building,) = folder.glob("build-*")
    agent.kill()
    wait_until_gone(int(building.name.partition("-")[2]))
    assert engines(state) == []
    agent = device(nvidia)
    assert finish(agent, bundle)["outcome"] == "built"
    assert list(folder.glob("build-*")) == []
    assert len(engines(state)) == 1
    assert check(agent, bundle)["runtimes"][0]["runtime"] == "tensorrt"


def test_who_hangs_up_ends_the_build(device: Device, nvidia: FakeTensorrt, state: Path) -> None:
    agent, bundle = device(nvidia, FAKE_TRTEXEC="hang"), TensorrtBundle()
    push(agent.talk, bundle)
    agent.talk.send("finish", bundle=bundle.id)
    folder = state / "cache" / "tensorrt"
    deadline = time.monotonic() + 60
    while not list(folder.glob("build-*")) or not nvidia.builds:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (building,) = folder.glob("build-*")
    assert agent.hang_up() == 0
    wait_until_gone(int(building.name.partition("-")[2]))


def test_run_and_bench_go_on_while_an_engine_is_built(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    process = device(nvidia, command="run", FAKE_TRTEXEC="slow:4")
    deadline = time.monotonic() + 20
    while not (state / "agent.sock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    builder, user = SocketTalk(state), SocketTalk(state)
    hello = {"protocol": [1, 1], "host_version": "0", "session": "ab" * 16}
    builder.ask("hello", **hello)
    user.ask("hello", **hello)
    bundle = TensorrtBundle()
    push(builder, bundle)
    check(builder, bundle)
    builder.ask("activate", bundle=bundle.id)
    number = builder.send("finish", bundle=bundle.id)
    busy = {}
    waiting = threading.Thread(target=lambda: busy.update(reply=builder.receive(60).meta))
    waiting.start()
    while not nvidia.builds:
        time.sleep(0.02)
    spec = {"runs": 20}
    reply = user.ask("bench", release="current", spec=spec).meta
    assert reply["ok"], reply
    assert reply["parts"][0]["backend"] == "ort-cpu"
    assert waiting.is_alive(), "the benchmark waited for the engine"
    refused = user.ask("finish", bundle=bundle.id).meta
    assert refused["code"] == "busy"
    waiting.join(60)
    assert busy["reply"]["id"] == number
    assert busy["reply"]["parts"][0]["outcome"] == "built"
    after = user.ask("bench", release="current", spec=spec).meta
    assert after["parts"][0]["backend"] == "tensorrt"
    builder.close()
    user.close()
    assert process.process.poll() is None


def test_gc_removes_the_engines_of_releases_that_are_gone(
    device: Device, nvidia: FakeTensorrt, state: Path
) -> None:
    agent, first = device(nvidia), TensorrtBundle(name="first")
    second = TensorrtBundle(QUANTIZED, precision="int8", name="second")
    for bundle in (first, second):
        push(agent.talk, bundle)
        finish(agent, bundle)
        check(agent, bundle)
        agent.ask("activate", bundle=bundle.id)
    third = TensorrtBundle(HALF, precision="fp16", name="third")
    push(agent.talk, third)
    check(agent, third)
    agent.ask("activate", bundle=third.id)
    assert len(engines(state)) == 2
    assert agent.ask("gc").meta["removed"] == [first.id]
    records = [
        json.loads(path.read_text())["fingerprint"]["model"][0]
        for path in (state / "cache" / "tensorrt").glob("*.json")
    ]
    assert records == [second.manifest["parts"][0]["files"][0]["sha256"]]
    assert len(engines(state)) == 1


def test_without_the_package_trtexec_alone_serves_nothing_and_says_so(
    device: Device, fakes: Callable[..., FakeTensorrt]
) -> None:
    agent, bundle = device(fakes(package=False)), TensorrtBundle()
    push(agent.talk, bundle)
    failed = finish(agent, bundle)
    assert failed["outcome"] == "failed"
    assert "trtexec builds engines, but the tensorrt package that runs them" in failed["why"]
    assert check(agent, bundle)["runtimes"][0]["backend"] == "ort-cpu"


def test_without_a_gpu_the_reason_names_it(device: Device, nvidia: FakeTensorrt) -> None:
    agent, bundle = device(nvidia, FAKE_GPU_NAME="none"), TensorrtBundle(fallbacks=[])
    push(agent.talk, bundle)
    assert "no CUDA-capable device" in finish(agent, bundle)["why"]
    reply = agent.ask("check", bundle=bundle.id).meta
    assert (reply["ok"], reply["code"]) == (False, "no-runtime")


def test_a_runtime_that_takes_the_worker_along_leaves_it_to_the_fallback(
    start: Start,
) -> None:
    bundle = TensorrtBundle()
    part = bundle.manifest["parts"][0]
    part.update(backend="killer", runtime="echo", options={"load_die": "SIGSEGV"})
    agent = start("--python", sys.executable)
    push(agent.talk, bundle)
    ran = check(agent, bundle)["runtimes"][0]
    assert ran["backend"] == "ort-cpu"
    assert "the worker ended by SIGSEGV while loading part 0" in ran["detail"]["fell_back"][0]


def test_layers_are_told_with_their_times(device: Device, nvidia: FakeTensorrt) -> None:
    agent, bundle = device(nvidia), TensorrtBundle()
    push(agent.talk, bundle)
    finish(agent, bundle)
    reply = agent.ask("profile", release=bundle.id, runs=5)
    (part,) = json.loads(reply.body)["parts"]
    assert part["why"] is None
    assert [(op["op"], op["where"], op["accelerator"]) for op in part["ops"]] == [
        ("Relu", "GPU", True),
        ("Add", "GPU", True),
    ]
    assert all(op["us"] > 0 for op in part["ops"])
