"""What OpenVINO's devices take by their limits, and who serves where one fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgesdk.backends import Backend, ModelFacts, backend_for
from edgesdk.backends.fallbacks import ceilings_of, fallbacks_of
from edgesdk.model.values import NodeFacts, SourceModel
from edgesdk.profiles import BackendProfile, TargetProfile, find_target
from edgesdk.profiles.limits import load_limits
from edgesdk.tensors import TensorInfo

TARGET = find_target("intel-npu-core-ultra-2")
NPU = next(each for each in TARGET.backends if each.id == "openvino-npu")


def node(
    op: str,
    shape: Sequence[int | str | None] = (1, 3, 8, 8),
    dtype: str = "float32",
    **more: Any,
) -> NodeFacts:
    value = TensorInfo(name="x", dtype=dtype, shape=tuple(shape))
    return NodeFacts(
        index=0,
        name="n",
        op=op,
        domain=more.pop("domain", ""),
        since_version=13,
        inputs=("x",),
        outputs=("y",),
        input_types=(value,),
        output_types=(None,),
        **more,
    )


def on(
    device: str, limits: str | None = "openvino-npu", entry: BackendProfile = NPU
) -> Backend:
    source = SourceModel(
        path=Path("m"),
        name="m",
        format="onnx",
        sha256="0" * 64,
        bytes=1,
        ir_version=8,
        opset=17,
        opsets={"": 17},
        producer="",
        inputs=(),
        outputs=(),
        op_counts={},
        initializer_bytes=0,
        external_data=False,
    )
    profile = replace(
        entry,
        options={"device": device},
        limits=None if limits is None else load_limits(limits),
    )
    return backend_for(profile, ModelFacts(source=source, nodes=()))


def test_the_npu_takes_fixed_shapes_only() -> None:
    npu = on("NPU")
    assert npu.is_static
    assert npu.why_not(node("Conv")) is None
    assert npu.why_not(node("Conv", (1, 3, "H", 8))) == (
        "extent 2 of x is not fixed, and OpenVINO's NPU takes fixed shapes only"
    )
    assert npu.why_not(node("Conv", (None, 3, 8, 8))) is not None


def test_the_npu_takes_no_control_flow_not_even_inside_a_body() -> None:
    npu = on("NPU")
    assert npu.why_not(node("If")) == (
        "OpenVINO's NPU does not take If: which of its branches runs is decided while it runs"
    )
    inside = npu.why_not(node("SequenceAt", subgraph_ops=("Add", "Loop")))
    assert inside is not None
    assert "Loop (in a body of SequenceAt)" in inside


@pytest.mark.parametrize(
    ("device", "limits", "dtype", "taken"),
    [
        ("NPU", "openvino-npu", "float16", True),
        ("NPU", "openvino-npu", "int16", True),
        ("NPU", "openvino-npu", "float64", False),
        ("NPU", "openvino-npu", "uint64", False),
        ("GPU.1", "openvino-gpu", "int64", True),
        ("GPU", "openvino-gpu", "int16", False),
        ("CPU", None, "float64", True),
    ],
)
def test_types_are_those_of_the_device(
    device: str, limits: str | None, dtype: str, taken: bool
) -> None:
    reason = on(device, limits).why_not(node("Add", dtype=dtype))
    assert (reason is None) is taken
    if reason is not None:
        assert f"x is {dtype}, which OpenVINO's {device} does not take" in reason


def test_the_gpu_takes_eight_dimensions_and_open_extents() -> None:
    gpu = on("GPU", "openvino-gpu", replace(NPU, quirks=("compiled-at-load",)))
    assert not gpu.is_static
    assert gpu.why_not(node("Add", ("N", 3))) is None
    assert gpu.why_not(node("Add", (1,) * 8)) is None
    assert gpu.why_not(node("Add", (1,) * 9)) == (
        "x has 9 dimensions (OpenVINO's GPU takes at most 8)"
    )


def test_auto_asks_the_first_device_and_a_mix_asks_for_shapes_only() -> None:
    auto, mix = on("AUTO:NPU,CPU"), on("HETERO:NPU,CPU")
    for odd in (node("If"), node("Add", dtype="float64")):
        assert auto.why_not(odd) is not None
        assert mix.why_not(odd) is None
    assert mix.why_not(node("Add", ("N", 3))) is not None
    # without a processor in the mix nobody takes the rest
    assert on("HETERO:NPU,GPU").why_not(node("If")) is not None


@pytest.mark.parametrize("device", ["TPU", "AUTO:NPU,TPU", "BATCH:GPU(4)", "", "HETERO: ,X"])
def test_a_device_that_openvino_does_not_have_is_refused_by_name(device: str) -> None:
    reason = on(device).why_not(node("Conv"))
    assert reason is not None
    assert "OpenVINO has no device" in reason


def test_what_the_frontend_does_not_translate_is_refused_on_every_device() -> None:
    for device in ("CPU", "NPU", "HETERO:NPU,CPU"):
        reason = on(device).why_not(node("StringSplit"))
        assert reason == "StringSplit is not translated by OpenVINO's ONNX frontend"


def test_the_plan_rests_on_limits_that_nobody_tried() -> None:
    assert "backends.openvino-npu.limits" in TARGET.assumed
    assert load_limits("openvino-gpu").assumed == ()


def test_the_processor_then_onnxruntime_serve_where_the_npu_fails() -> None:
    assert fallbacks_of(TARGET, NPU, part_format="openvino", has_spare=True) == [
        {"backend": "openvino-cpu", "runtime": "openvino", "options": {"device": "CPU"}},
        {
            "backend": "ort-cpu",
            "runtime": "onnxruntime",
            "options": {"as_written": True},
            "spare": True,
        },
    ]


def test_without_a_spare_file_onnxruntime_serves_only_parts_that_are_onnx() -> None:
    def runtimes(**how: Any) -> list[str]:
        return [each["runtime"] for each in fallbacks_of(TARGET, NPU, **how)]

    assert runtimes(part_format="openvino", has_spare=False) == ["openvino"]
    assert runtimes(part_format="onnx", has_spare=False) == ["openvino", "onnxruntime"]


def test_what_the_recipe_avoids_does_not_serve_either() -> None:
    kept = fallbacks_of(TARGET, NPU, part_format="onnx", avoid=("openvino-cpu",))
    assert [each["backend"] for each in kept] == ["ort-cpu"]
    assert fallbacks_of(TARGET, NPU, avoid=("openvino-cpu", "ort-cpu")) == []


def test_better_devices_are_not_asked_again() -> None:
    gpu = replace(NPU, id="openvino-gpu", options={"device": "GPU"})
    target: TargetProfile = replace(
        TARGET, backends=(TARGET.backends[0], gpu, *TARGET.backends[1:])
    )
    names = [each["backend"] for each in fallbacks_of(target, gpu)]
    assert names == ["openvino-cpu", "ort-cpu"]
    assert [each["backend"] for each in fallbacks_of(target, NPU)] == ["openvino-gpu", *names]


def test_the_spare_file_is_written_for_the_runtime_that_reads_it() -> None:
    assert ceilings_of(TARGET, NPU) == (23, 11)
