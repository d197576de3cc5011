"""What TensorRT and its DLA turn down, release by release, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgesdk.backends import Backend, ModelFacts, backend_for
from edgesdk.backends.fallbacks import ceilings_of, fallbacks_of
from edgesdk.model.values import NodeFacts, SourceModel
from edgesdk.profiles import find_target, load_catalog
from edgesdk.profiles.values import BackendProfile
from edgesdk.tensors import TensorInfo

SOURCE = SourceModel(
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


def backend(
    release: str = "10.3", *, quirks: tuple[str, ...] = (), dla: bool = False
) -> Backend:
    profile = BackendProfile(
        id="it",
        kind="tensorrt",
        runtime="tensorrt",
        accelerator=True,
        precisions=("int8", "fp16", "fp32"),
        scheme=None,
        runtime_version=release,
        max_opset=17,
        max_ir=None,
        requirement="",
        options={"dla": 0} if dla else {},
        quirks=quirks,
    )
    return backend_for(profile, ModelFacts(source=SOURCE, nodes=()))


def value(name: str, *shape: int | str, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def node(
    op: str, *taken: TensorInfo, given: TensorInfo | None = None, **more: Any
) -> NodeFacts:
    taken = taken or (value("x", 1, 4, 8, 8),)
    out = given or value("y", 1, 4, 8, 8)
    return NodeFacts(
        index=0,
        name="n",
        op=op,
        domain=more.pop("domain", ""),
        since_version=more.pop("since", 13),
        inputs=tuple(each.name for each in taken),
        outputs=more.pop("outputs", (out.name,)),
        input_types=taken,
        output_types=(out,),
        constant_inputs=more.pop("constant", (False, True, True, True)[: len(taken)]),
        **more,
    )


X, W = value("x", 1, 4, 8, 8), value("w", 4, 4, 3, 3)


@pytest.mark.parametrize(
    ("release", "op", "reason"),
    [
        ("10.3", "DFT", "DFT has no importer in TensorRT 10.3's ONNX parser"),
        ("10.3", "DynamicQuantizeLinear", "DynamicQuantizeLinear has no importer"),
        ("8.5.2", "LayerNormalization", "; 8.6 is the first that has one"),
        ("8.6", "LayerNormalization", None),
        ("10.3", "STFT", "; 10.5 is the first that has one"),
        ("10.3", "Conv", None),
        ("8.5.2", "HardSwish", None),
    ],
)
def test_operators_are_those_of_the_release(release: str, op: str, reason: str | None) -> None:
    seen = backend(release).why_not(node(op, X, W))
    assert (seen is None) if reason is None else (seen is not None and reason in seen)


@pytest.mark.parametrize(
    ("release", "asked", "reason"),
    [
        ("10.3", node("Relu", value("x", 2, dtype="int64")), None),
        (
            "8.5.2",
            node("Relu", value("x", 2, dtype="int64")),
            "x is int64; TensorRT 8.5.2 takes Relu of floats only",
        ),
        (
            "10.3",
            node("Add", value("x", 2, dtype="uint8")),
            "x is uint8, which no layer of TensorRT takes",
        ),
        ("10.3", node("Cast", value("x", 2, dtype="uint8")), None),
        ("10.3", node("Cast", value("x", 2, dtype="string")), "does not cast"),
        ("10.3", node("Sin", value("x", 2, dtype="float64")), "narrows to float32"),
        ("8.5.2", node("Sin", value("x", 2, dtype="bfloat16")), "does not have"),
        ("10.3", node("Softmax", value("x", 2, dtype="bool")), "of floats only"),
        ("10.3", node("Relu", value("x", *[1] * 9)), "has 9 dimensions (at most 8)"),
        (
            "10.3",
            node("Where", value("c", 2, dtype="bool"), value("x", 2), value("y", 2)),
            None,
        ),
        ("10.3", node("Identity", domain="my.own"), "Identity of my.own has no importer"),
        (
            "10.3",
            node("If", value("c", dtype="bool"), subgraph_ops=("Add", "Det")),
            "Det (in a",
        ),
    ],
)
def test_types_and_bodies(release: str, asked: NodeFacts, reason: str | None) -> None:
    seen = backend(release).why_not(asked)
    assert (seen is None) if reason is None else (seen is not None and reason in seen)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (node("MaxPool", ints={"kernel_shape": (3,)}), "a window of 1 dimensions (2 or 3)"),
        (
            node("MaxPool", ints={"kernel_shape": (3, 3)}, outputs=("y", "at")),
            "its second output, the indices, is not supported",
        ),
        (
            node("AveragePool", ints={"kernel_shape": (3, 3), "dilations": (2, 2)}),
            "a dilated window",
        ),
        (node("Resize", strings={"mode": "cubic"}), "mode cubic (nearest, linear)"),
        (node("Resize", ints={"antialias": (1,)}), "antialiasing"),
        (node("LSTM", ints={"layout": (1,)}), "attribute layout is not 0"),
        (node("LayerNormalization", outputs=("y", "mean")), "only its first output"),
        (node("TopK", ints={"sorted": (0,)}), "attribute sorted is 0"),
        (
            node("ReduceMean", X, value("axes", 1, dtype="int64"), constant=(False, False)),
            "its axes have to be known when it is built",
        ),
        (
            node("DequantizeLinear", value("q", 4, dtype="uint8")),
            "q is uint8, which no layer of TensorRT takes",
        ),
        (
            node("QuantizeLinear", X, given=value("q", 4, dtype="uint8")),
            "q is uint8 (int8 with zero point 0)",
        ),
        (node("ScatterND", strings={"reduction": "add"}), "reduction add"),
        (node("Resize", strings={"mode": "linear"}), None),
    ],
)
def test_parameters(asked: NodeFacts, reason: str | None) -> None:
    seen = backend().why_not(asked)
    assert (seen is None) if reason is None else (seen is not None and reason in seen)


def test_einsum_with_an_ellipsis_came_with_ten() -> None:
    asked = node("Einsum", strings={"equation": "...ij,...jk->...ik"})
    assert backend("10.3").why_not(asked) is None
    assert backend("8.6.1").why_not(asked) == "an ellipsis or a diagonal in its equation"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (node("Conv", X, W, ints={"kernel_shape": (3, 3), "strides": (2, 2)}), None),
        (node("Conv", X, W, ints={"kernel_shape": (33, 3)}), "kernel side 33 (1 to 32)"),
        (node("Conv", X, W, ints={"strides": (9, 1)}), "stride 9 (1 to 8)"),
        (node("Conv", X, W, ints={"pads": (32, 0, 0, 0)}), "padding 32 (0 to 31)"),
        (node("Conv", X, W, constant=(False, False)), "its weights are not constant"),
        (node("ConvTranspose", X, W, ints={"group": (2,)}), "groups 2 (1 to 1)"),
        (node("ConvTranspose", X, W, ints={"pads": (1, 1, 1, 1)}), "padding 1 (0 to 0)"),
        (node("MaxPool", ints={"kernel_shape": (9, 9)}), "window side 9 (1 to 8)"),
        (
            node("AveragePool", ints={"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}),
            "an average that leaves the padding out",
        ),
        (node("Concat", X, W, ints={"axis": (2,)}), "it joins along axis 2 (only channels)"),
        (node("Gelu"), "the DLA has no layer for Gelu"),
        (node("Relu", value("x", 1, 8193, 2, 2)), "has an extent of 8193 (at most 8192)"),
        (node("Relu", value("x", 5000, 4, 2, 2)), "has a batch of 5000 (at most 4096)"),
        (node("Relu", value("x", 1, 4)), "has 2 dimensions (4)"),
        (node("Relu", value("x", 1, 4, "h", 2)), "has an extent that is not fixed"),
        (node("Relu", value("x", "n", 4, 8, 8)), None),
        (node("Add", value("x", 1, 4, 8, 8, dtype="int32")), "computes in fp16 and int8 only"),
        (node("DequantizeLinear", value("q", 1, 4, 8, 8, dtype="int8")), None),
        (node("Transpose", ints={"perm": (1, 0, 2, 3)}), "it moves the batch"),
        (node("LRN", ints={"size": (4,)}), "a window of 4 (3, 5, 7 or 9)"),
    ],
)
def test_limits_of_a_dla(asked: NodeFacts, reason: str | None) -> None:
    seen = backend(dla=True).why_not(asked)
    assert (seen is None) if reason is None else (seen is not None and reason in seen)


def test_dla_of_the_first_generation_has_no_softmax() -> None:
    asked = node("Softmax", ints={"axis": (1,)})
    assert backend("8.5.2", dla=True).why_not(asked) is None
    old = backend("8.5.2", dla=True, quirks=("first-generation-dla",))
    assert old.why_not(asked) == "the DLA of this generation has no layer for Softmax"


def test_ten_seven_was_the_last_release_with_a_dla() -> None:
    reason = backend("10.13", dla=True).why_not(node("Relu"))
    assert reason is not None
    assert "builds nothing for a DLA" in reason


def test_a_tflite_file_is_not_read() -> None:
    kept = backend().profile
    source = SourceModel(
        **{
            **{name: getattr(SOURCE, name) for name in SOURCE.__dataclass_fields__},
            "format": "tflite",
        }
    )
    other = backend_for(kept, ModelFacts(source=source, nodes=()))
    assert other.why_not(node("Conv")) == "it reads ONNX, and this is a TFLite file"


def test_a_part_is_written_for_all_who_may_run_it() -> None:
    target = find_target("jetson-xavier-nx")
    by_id = {backend.id: backend for backend in target.backends}
    assert ceilings_of(target, by_id["tensorrt"]) == (17, 10)
    assert ceilings_of(target, by_id["ort-cpu"]) == (21, 10)


def test_fallbacks_are_the_other_readers_of_onnx_best_first() -> None:
    target = find_target("jetson-orin-nx")
    for name in ("tensorrt", "tensorrt-dla"):
        entry = next(each for each in target.backends if each.id == name)
        assert fallbacks_of(target, entry) == [
            {
                "backend": "ort-cuda",
                "runtime": "onnxruntime",
                "options": {"provider": "CUDAExecutionProvider", "as_written": True},
            },
            {"backend": "ort-cpu", "runtime": "onnxruntime", "options": {"as_written": True}},
        ]


def test_what_is_complete_as_built_needs_none() -> None:
    for target in load_catalog().values():
        for entry in target.backends:
            needs = {"finished-on-device", "compiled-at-load"}.intersection(entry.quirks)
            assert bool(fallbacks_of(target, entry)) is bool(needs)
