"""A new kind of device is one YAML file: from the plan to a measured release, and no Python."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from edgesdk.cli.app import run

DEMO = Path(__file__).parents[2] / "configs" / "demo"
#: A board nobody has, with LiteRT and then OpenVINO. This computer passes for it.
FAMILY = f"""
schema: 1
family: acme-board
vendor: Acme
backends:
  - id: lite
    kind: litert
    runtime: litert
    precisions: [int8, fp32]
    scheme:
      activations: int8-asymmetric
      weights: int8-per-channel-symmetric
      rules: litert-int8
    requirement: python3 -m pip install ai-edge-litert
    speed: {{gmacs_per_s: {{int8: 20, fp32: 10}}, move_mb_per_s: 4000, launch_us: 5}}
  - id: vino
    kind: openvino
    runtime: openvino
    precisions: [int8, fp32]
    scheme:
      activations: int8-asymmetric
      weights: int8-per-channel-symmetric
      rules: openvino
    requirement: python3 -m pip install openvino
agent:
  python: "3.9"
  reach: [local]
identify:
  machine: [{platform.machine()}]
provenance:
  - fields: [backends, agent, identify]
    kind: assumed
    source: made up
    checked: "2026-12-01"
variants:
  - name: acme-board-1
    title: Acme Board 1
"""


@pytest.fixture
def targets(tmp_path: Path, home: Path) -> Path:
    folder = tmp_path / "targets"
    folder.mkdir()
    (folder / "acme-board.yaml").write_text(FAMILY, encoding="utf-8")
    return folder


def document(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    assert run([*map(str, args), "--format", "json"]) == 0, capsys.readouterr().err
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    return record


def test_one_file_adds_a_target_from_the_plan_to_the_report(
    targets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--target", "acme-board-1", "--targets-dir", targets)
    model = DEMO / "digits_cnn.onnx"
    planned = document(capsys, "plan", model, "--precision", "int8", *where)
    assert planned["target"] == "acme-board-1"
    assert {node["backend"] for node in planned["nodes"]} == {"lite"}
    done = document(
        capsys,
        "deploy",
        model,
        "--calib",
        DEMO / "calib.npz",
        "--data",
        DEMO / "test.npz",
        "--runs",
        "20",
        "-o",
        tmp_path / "run",
        "--device",
        f"local:?state={tmp_path / 'state'}",
        *where,
    )
    report = done["report"]
    assert done["deployment"]["target"] == "acme-board-1"
    assert report["bundle"]["id"] == done["deployment"]["bundle_id"]
    assert [part["runtime"] for part in report["parts"]] == ["litert"]
    assert report["accuracy"]["labelled"]["value"] >= 0.97
