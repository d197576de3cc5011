"""How long a node takes by the profile's figures."""

from __future__ import annotations

from typing import Any

import pytest

from edgesdk.model.values import NodeFacts
from edgesdk.plan.cost import copy_us, count_macs, launch_us, node_us
from edgesdk.profiles.values import BackendProfile, Speed
from edgesdk.tensors import TensorInfo


def node(op: str, *shapes: tuple[int, ...], result: tuple[int, ...], **more: Any) -> NodeFacts:
    types = tuple(
        TensorInfo(name=f"i{number}", dtype="float32", shape=shape)
        for number, shape in enumerate(shapes)
    )
    return NodeFacts(
        index=0,
        name="",
        op=op,
        domain="",
        since_version=1,
        inputs=tuple(value.name for value in types),
        outputs=("y",),
        input_types=types,
        output_types=(TensorInfo(name="y", dtype="float32", shape=result),),
        **more,
    )


def backend(speed: Speed | None = None, *, accelerator: bool = False) -> BackendProfile:
    return BackendProfile(
        id="b",
        kind="k",
        runtime="r",
        accelerator=accelerator,
        precisions=("fp32",),
        scheme=None,
        runtime_version="",
        max_opset=None,
        max_ir=None,
        requirement="install it",
        options={},
        quirks=(),
        speed=speed,
    )


SPEED = Speed(
    gmacs_per_s={"fp32": 1.0, "int8": 4.0},
    move_mb_per_s=1000.0,
    copy_mb_per_s=100.0,
    launch_us=7.0,
)


@pytest.mark.parametrize(
    ("facts", "macs"),
    [
        (node("Conv", (1, 3, 8, 8), (16, 3, 3, 3), result=(1, 16, 8, 8)), 16 * 64 * 27),
        (node("Conv", (1, 16, 8, 8), (16, 1, 3, 3), result=(1, 16, 8, 8)), 16 * 64 * 9),
        (node("ConvTranspose", (1, 4, 8, 8), (4, 2, 2, 2), result=(1, 2, 16, 16)), 256 * 8),
        (node("MatMul", (5, 7), (7, 3), result=(5, 3)), 105),
        (node("Gemm", (7, 5), (7, 3), result=(5, 3), ints={"transA": (1,)}), 105),
        (node("CONV_2D", (1, 8, 8, 3), (16, 3, 3, 3), result=(1, 8, 8, 16)), 16 * 64 * 27),
        (
            node("DEPTHWISE_CONV_2D", (1, 8, 8, 16), (1, 3, 3, 16), result=(1, 8, 8, 16)),
            16 * 64 * 9,
        ),
        (node("FULLY_CONNECTED", (1, 7), (3, 7), result=(1, 3)), 21),
        (
            node("TRANSPOSE_CONV", (4,), (2, 2, 2, 4), (1, 8, 8, 4), result=(1, 16, 16, 2)),
            256 * 8,
        ),
        (node("LSTM", (10, 1, 4), (1, 20, 4), (1, 20, 5), result=(10, 1, 1, 5)), 10 * 180),
        (node("Relu", (1, 8), result=(1, 8)), 0),
    ],
    ids=lambda value: value.op if isinstance(value, NodeFacts) else str(value),
)
def test_multiply_accumulates(facts: NodeFacts, macs: int) -> None:
    assert count_macs(facts) == macs


def test_a_node_takes_the_longer_of_computing_and_moving() -> None:
    heavy = node("MatMul", (100, 1000), (1000, 100), result=(100, 100))
    assert node_us(heavy, backend(SPEED), "fp32") == pytest.approx(10_000.0)
    assert node_us(heavy, backend(SPEED), "int8") == pytest.approx(2_500.0)
    light = node("Relu", (1, 1000), result=(1, 1000))
    assert node_us(light, backend(SPEED), "fp32") == pytest.approx(8.0)
    assert node_us(light, backend(SPEED), "int8") == pytest.approx(2.0)


def test_a_precision_that_is_not_given_goes_by_the_slowest() -> None:
    heavy = node("MatMul", (100, 1000), (1000, 100), result=(100, 100))
    assert node_us(heavy, backend(SPEED), "fp16") == node_us(heavy, backend(SPEED), "fp32")


def test_what_only_changes_a_shape_takes_no_time() -> None:
    assert node_us(node("Reshape", (1, 1000), result=(1000,)), backend(SPEED), "fp32") == 0.0


def test_copies_and_launches() -> None:
    assert copy_us(1000, backend(SPEED)) == pytest.approx(10.0)
    assert launch_us(backend(SPEED)) == 7.0
    # a processor without figures copies nothing; an accelerator without figures does
    assert copy_us(1000, backend()) == 0.0
    assert copy_us(1000, backend(accelerator=True)) > 0.0
