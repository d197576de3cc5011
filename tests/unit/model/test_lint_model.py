"""Each rule of the lint finds what it is for and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgesdk.model import Finding, lint_model, open_model

WriteModel = Callable[..., Path]


def lint(path: Path) -> dict[str, Finding]:
    return {finding.code: finding for finding in lint_model(open_model(path))}


def test_a_plain_model_has_no_findings(write_model: WriteModel) -> None:
    assert not lint(write_model("g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }"))


@pytest.mark.parametrize(
    ("graph", "code", "severity", "says"),
    [
        (
            "(float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }",
            "dynamic-batch",
            "info",
            "input x: float32[N, 4] is open at axis 0",
        ),
        (
            "(float[1, T] x) => (float[1, T] y) { y = Relu(x) }",
            "dynamic-shape",
            "warning",
            "open at axis 1",
        ),
        (
            "(double[2] x) => (double[2] y) { y = Relu(x) }",
            "float64-input",
            "warning",
            "is float64",
        ),
        (
            "(string[2] x) => (string[2] y) { y = Identity(x) }",
            "unsendable-input",
            "error",
            "of type string",
        ),
        (
            "(float[2] x, float[2] z) => (float[2] y) { y = Relu(x) }",
            "unused-input",
            "warning",
            "'z' is read by no node",
        ),
        (
            "() => (float[2] y) { y = RandomNormal<shape=[2]>() }",
            "no-input",
            "warning",
            "no input",
        ),
        (
            "() => (float[2] y) { y = RandomNormal<shape=[2]>() }",
            "random-output",
            "warning",
            "RandomNormal",
        ),
        (
            "(float[2] x) => (float[2] y) { y = Add(x, bad) }",
            "weights-not-finite",
            "warning",
            "'bad'",
        ),
        (
            "(float[2] x) => (uint8[2] y) { y = QuantizeLinear(x, s, z) }",
            "already-quantized",
            "warning",
            "QuantizeLinear",
        ),
    ],
)
def test_each_rule_finds_its_case(
    write_model: WriteModel, graph: str, code: str, severity: str, says: str
) -> None:
    held: dict[str, np.ndarray] = {}
    if "bad" in graph:
        held["bad"] = np.array([1, np.nan], np.float32)
    if "Quantize" in graph:
        held |= {"s": np.array(0.5, np.float32), "z": np.array(3, np.uint8)}
    finding = lint(write_model(f"g {graph}", weights=held))[code]
    assert finding.severity == severity
    assert says in finding.message


def test_old_opsets_and_control_flow_are_worth_knowing(write_model: WriteModel) -> None:
    found = lint(
        write_model(
            "g (bool c, float[2] x) => (float[2] y) { y = If (c) <"
            "then_branch = a () => (float[2] t) { t = Relu(x) }, "
            "else_branch = b () => (float[2] e) { e = Neg(x) }> }",
            opset=11,
        )
    )
    assert found["old-opset"].severity == found["control-flow"].severity == "info"
    assert "1 If" in found["control-flow"].message
