"""What each kind of backend takes and refuses, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgesdk.backends import ModelFacts, backend_for
from edgesdk.model.values import ModelFormat, NodeFacts, SourceModel
from edgesdk.profiles.values import BackendProfile
from edgesdk.tensors import TensorInfo


def _node(op: str, domain: str = "", *, dtype: str = "float32", since: int = 13) -> NodeFacts:
    value = TensorInfo(name="x", dtype=dtype, shape=(1, 4))
    return NodeFacts(
        index=0,
        name="n",
        op=op,
        domain=domain,
        since_version=since,
        inputs=("x",),
        outputs=("y",),
        input_types=(value,),
        output_types=(None,),
    )


def _why_not(
    kind: str,
    node: NodeFacts,
    *,
    model_format: ModelFormat = "onnx",
    max_opset: int | None = None,
    options: Mapping[str, str] | None = None,
) -> str | None:
    profile = BackendProfile(
        id="it",
        kind=kind,
        runtime=kind,
        accelerator=False,
        precisions=("fp32",),
        scheme=None,
        runtime_version="1.0",
        max_opset=max_opset,
        max_ir=None,
        requirement="",
        options=dict(options or {}),
        quirks=(),
    )
    source = SourceModel(
        path=Path("m"),
        name="m",
        format=model_format,
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
    return backend_for(profile, ModelFacts(source=source, nodes=(node,))).why_not(node)


@pytest.mark.parametrize(
    ("op", "domain"),
    [
        ("Conv", ""),
        ("TreeEnsembleClassifier", "ai.onnx.ml"),
        ("FusedConv", "com.microsoft"),
        ("SkipLayerNormalization", "com.microsoft"),
    ],
)
def test_onnxruntime_takes_standard_classic_and_its_own_operators(op: str, domain: str) -> None:
    assert _why_not("onnxruntime", _node(op, domain, since=1)) is None


def test_onnxruntime_refuses_a_name_that_is_not_registered_in_its_domain() -> None:
    assert _why_not("onnxruntime", _node("Magic", "com.microsoft")) == (
        "Magic of com.microsoft is not an operator that onnxruntime registers"
    )
    assert _why_not("onnxruntime", _node("Magic", "my.ops")) == (
        "Magic is in the operator domain 'my.ops', which is not registered"
    )


def test_onnxruntime_refuses_operators_younger_than_the_target_s_runtime() -> None:
    assert _why_not("onnxruntime", _node("Gelu", since=20), max_opset=18) == (
        "Gelu exists since opset 20; onnxruntime 1.0 ends at 18"
    )
    # an older form exists, so the build can lower the node
    assert _why_not("onnxruntime", _node("Conv", since=22), max_opset=18) is None


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_complex_numbers_have_no_kernel(kind: str) -> None:
    reason = _why_not(kind, _node("Add", dtype="complex64"))
    assert reason is not None
    assert "complex64 (x)" in reason


def test_openvino_takes_only_what_its_frontend_translates() -> None:
    assert _why_not("openvino", _node("Conv")) is None
    assert _why_not("openvino", _node("FusedConv", "com.microsoft")) is None
    assert _why_not("openvino", _node("CropAndResize", "com.microsoft")) == (
        "CropAndResize of com.microsoft is not translated by OpenVINO's ONNX frontend"
    )
    assert _why_not("openvino", _node("TreeEnsembleClassifier", "ai.onnx.ml")) == (
        "TreeEnsembleClassifier walks trees by comparing one feature at a time, which is no "
        "arithmetic, and OpenVINO's ONNX frontend does not translate it"
    )
    assert _why_not("openvino", _node("StringNormalizer")) == (
        "StringNormalizer is not translated by OpenVINO's ONNX frontend"
    )


def test_each_backend_says_which_format_it_does_not_read() -> None:
    for kind in ("onnxruntime", "openvino"):
        reason = _why_not(kind, _node("CONV_2D"), model_format="tflite")
        assert reason is not None
        assert "TFLite" in reason


def test_litert_takes_of_onnx_what_is_lowered() -> None:
    assert _why_not("litert", _node("Relu")) is None
    assert _why_not("litert", _node("StringNormalizer")) == (
        "StringNormalizer has no lowering to TFLite"
    )
    assert _why_not("litert", _node("Conv", "com.microsoft")) == (
        "Conv of com.microsoft has no lowering to TFLite"
    )


def test_litert_refuses_what_is_compiled_for_an_accelerator() -> None:
    node = _node("edgetpu-custom-op", "custom")
    assert _why_not("litert", node, model_format="tflite") == (
        "edgetpu-custom-op is compiled for an Edge TPU, which it needs to run"
    )
    # another custom operator may have a kernel there
    assert _why_not("litert", _node("MyOp", "custom"), model_format="tflite") is None


def test_the_edge_tpu_takes_nothing_without_rules_of_its_compiler() -> None:
    assert _why_not("edgetpu", _node("CONV_2D"), model_format="tflite") == (
        "its profile names no compiler rules"
    )


@pytest.mark.parametrize("kind", ["dreamchip", "../escape", "os.path"])
def test_a_kind_without_a_package_takes_nothing_and_says_so(kind: str) -> None:
    assert _why_not(kind, _node("Conv")) == (
        f"this version of edgesdk has no compiler for {kind}"
    )
