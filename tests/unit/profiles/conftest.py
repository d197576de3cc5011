"""Fixtures for target profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgesdk.errors import ProfileError
from edgesdk.profiles.family import load_family

GOOD = """
schema: 1
family: testboard
vendor: Nobody
backends:
  - id: ort-cpu
    kind: onnxruntime
    runtime: onnxruntime
    precisions: [int8, fp32]
    scheme: {activations: int8-asymmetric, weights: int8-per-channel-symmetric,
             rules: onnxruntime-cpu}
    runtime_version: "1.19.2"
    max_opset: 21
    max_ir: 10
    requirement: python3 -m pip install onnxruntime==1.19.2
    options: {device: CPU}
  - id: litert-cpu
    kind: litert
    runtime: litert
    precisions: [fp32]
    requirement: python3 -m pip install ai-edge-litert
agent: {python: "3.9", reach: [ssh]}
identify: {machine: [aarch64]}
provenance:
  - {fields: [agent, identify, backends], kind: assumed, source: a test, checked: "2026-01-15"}
variants:
  - {name: testboard-one, title: Test board one}
  - {name: testboard-two, title: Test board two}
"""


RULES = """
schema: 1
name: acme
placement: operators
compute: [Conv, Gemm]
elementwise: [Add, Sigmoid]
same_scale: [MaxPool, Reshape]
fused_after: {Conv: [Relu, Clip]}
fixed_outputs: {Sigmoid: [0, 1]}
per_tensor_weights: [Gemm]
float_results: [Gemm]
kept_float: {Softmax: it is better}
narrow_weights: true
bias: int32
provenance:
  - fields: [placement, compute, elementwise, same_scale, fused_after, fixed_outputs,
             per_tensor_weights, float_results, kept_float, narrow_weights, bias]
    kind: assumed
    source: a test
    checked: "2026-01-15"
"""


@pytest.fixture
def family() -> dict[str, Any]:
    """The content of a family file that is right, to be made wrong in one place."""
    content = yaml.safe_load(GOOD)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def rules() -> dict[str, Any]:
    """The content of a file of scheme rules that is right, to be made wrong in one place."""
    content = yaml.safe_load(RULES)
    assert isinstance(content, dict)
    return content


@pytest.fixture
def good_text() -> str:
    """A family file that is right, as text."""
    return GOOD


Write = Callable[..., Path]
Refusal = Callable[[dict[str, Any]], ProfileError]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a family file, or one of rules, and give its path."""

    def write_it(content: dict[str, Any] | str, name: str = "family.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write_it


@pytest.fixture
def refusal(write: Write) -> Refusal:
    """Load a family file that must be refused and give the error."""

    def load_it(content: dict[str, Any]) -> ProfileError:
        path = write(content)
        with pytest.raises(ProfileError) as caught:
            load_family(path)
        assert str(path) in str(caught.value)
        assert caught.value.exit_code == 2
        return caught.value

    return load_it
