"""From a model to what ran where, by the command line, on runtimes that really run here.

A target made for this test calls an onnxruntime on the CPU an accelerator. It is none, and it
says so itself: a claim of a profile is no proof, so all of the time counts as off the
accelerator and every op of it is named. What does run on an accelerator is played by the echo
runtime, which says of its ops what its options tell it to.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper, parser

from edgesdk.cli.app import run
from edgesdk.testing import make_echo_bundle

TARGETS = Path(__file__).parents[2] / "targets"
#: Gelu is newer than what the first backend says it loads, so there are three parts.
GRAPH = """
<ir_version: 8, opset_import: ["" : 20]>
m (float[1, 8, 48, 48] x) => (float[1, 10] y) {
  a = Conv <pads = [1, 1, 1, 1]> (x, w1)
  b = Relu (a)
  c = Gelu (b)
  d = Conv <pads = [1, 1, 1, 1]> (c, w2)
  e = Relu (d)
  f = GlobalAveragePool (e)
  g = Flatten (f)
  y = Gemm (g, w3)
}
"""
SHAPES = {"w1": (32, 8, 3, 3), "w2": (32, 32, 3, 3), "w3": (32, 10)}


def write_target(folder: Path) -> Path:
    """A family of one target: an accelerator by its own word, then OpenVINO."""
    targets = folder / "targets"
    shutil.copytree(TARGETS / "schemes", targets / "schemes")
    family = yaml.safe_load((TARGETS / "host.yaml").read_text(encoding="utf-8"))
    by_id = {backend["id"]: backend for backend in family["backends"]}
    npu = by_id["ort-cpu"]
    speed = {"gmacs_per_s": {"fp32": 500.0}, "move_mb_per_s": 100_000.0, "launch_us": 0.1}
    npu.update(id="npu", accelerator=True, speed=speed)
    npu.update(runtime_version="1.14.1", max_opset=18, max_ir=8)
    echo = {"id": "echo", "kind": "onnxruntime", "runtime": "echo", "accelerator": True}
    echo |= {"precisions": ["fp32"], "max_opset": 7, "requirement": "nothing"}
    echo |= {"runtime_version": "1.0"}
    family["family"] = "claims"
    family["backends"] = [npu, by_id["openvino-cpu"], echo]
    family["variants"] = [{"name": "claimed", "title": "It claims to accelerate"}]
    figures = [
        f"backends.{backend['id']}.{key}"
        for backend in family["backends"]
        for key in ("precisions", "scheme", "runtime_version", "max_opset", "max_ir", "speed")
        if key in backend
    ]
    family["provenance"] = [
        {
            "fields": [*figures, "agent.python", "identify"],
            "kind": "assumed",
            "source": "a test",
            "checked": "2026-11-25",
        }
    ]
    (targets / "claims.yaml").write_text(yaml.safe_dump(family), encoding="utf-8")
    return targets


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    return write_target(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    random = np.random.default_rng(5)
    proto = parser.parse_model(GRAPH)
    for name, shape in SHAPES.items():
        weights = random.normal(0, 0.1, shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(weights, name))
    for number, node in enumerate(proto.graph.node):
        node.name = f"{node.op_type.lower()}_{number}"
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return path


Cli = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str],
    home: Path,
    tmp_path: Path,
    targets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Cli:
    """Run a command; give its exit code, its document and what it said on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESDK_TARGETS_DIR", str(targets))

    def typed(*args: str | Path) -> tuple[int, dict[str, Any], str]:
        code = run([*map(str, args), "--format", "json"])
        seen = capsys.readouterr()
        return code, json.loads(seen.out), seen.err

    return typed


@pytest.fixture
def device(tmp_path: Path) -> str:
    return f"local:?state={tmp_path / 'state'}"


def accelerated(where: str = "NPU", us: float = 1000.0, **fields: Any) -> dict[str, Any]:
    op = {"op": "Conv", "name": "c", "where": where, "accelerator": where != "CPU", "us": us}
    return {**op, "derived": False, "precision": "int8", "count": 1, **fields}


def echo_bundle(folder: Path, *ops: Mapping[str, Any]) -> Path:
    options = {"ops": list(ops), "accelerator": True, "delay_ms": 3}
    return make_echo_bundle(folder, options=options, target="claimed").folder


# real runtimes


@pytest.mark.slow
def test_a_claim_to_accelerate_is_held_against_what_ran(
    cli: Cli, device: str, model: Path, tmp_path: Path
) -> None:
    built, out = tmp_path / "built", tmp_path / "out"
    given = ("--target", "claimed", "-d", device, "--runs", "40", "--force-target")
    code, record, said = cli("deploy", model, *given, "-o", built, "--max-cpu-time", "100%")
    assert code == 0, said
    report = record["report"]
    assert report["verdict"] == "fell-back-to-cpu"
    offload = report["offload"]
    assert [part["backend"] for part in offload["parts"]] == ["npu", "openvino-cpu", "npu"]

    # the shares of one inference are whole, and those of the chain's parts
    kinds = ("accelerator_share", "cpu_share", "unknown_share", "between_share")
    assert sum(offload[kind] for kind in kinds) == pytest.approx(1.0)
    assert offload["off_accelerator_share"] == 1.0
    spent = sum(part["time_us"] for part in offload["parts"])
    assert spent <= offload["whole_us"] * 1.001
    for part in offload["parts"]:
        own = [op["share"] for op in offload["ops"] if op["part"] == part["index"]]
        assert part["share"] == pytest.approx(part["time_us"] / offload["whole_us"])
        assert 0 < sum(own) <= part["share"] * 1.001
    measured = {part["index"]: part["share"] for part in report["parts"]}
    longest = max(measured, key=lambda index: measured[index])
    assert longest == max(offload["parts"], key=lambda part: part["share"])["index"]

    # each op of the claimed accelerator is named, and nothing else
    elsewhere = [op for op in offload["ops"] if op["agrees"] is False]
    assert {op["predicted"] for op in elsewhere} == {"npu"}
    assert {op["part"] for op in elsewhere} == {0, 2}
    sources = {node for op in elsewhere for node in op["nodes"]}
    assert {"conv_0", "relu_1", "conv_3", "relu_4", "gemm_7"} <= sources
    assert offload["disagreeing_ops"] == len(elsewhere) == len(offload["disagreements"])
    assert offload["disagreements"][0].startswith("conv_3")
    assert (
        "was planned for npu and ran on the CPU in CPUExecutionProvider: "
        in offload["disagreements"][0]
    )
    (gelu,) = [op for op in offload["ops"] if "gelu_2" in op["nodes"]]
    assert (gelu["backend"], gelu["where"]) == ("openvino-cpu", "CPU")
    assert gelu["agrees"] is True
    by_backend = {row["backend"]: row for row in offload["rows"]}
    assert by_backend["npu"]["predicted_share"] > 0
    assert by_backend["npu"]["measured_share"] == 0.0
    here = sum(op["share"] for op in offload["ops"] if op["backend"] == "openvino-cpu")
    assert by_backend["openvino-cpu"]["measured_share"] == pytest.approx(here)

    # the same release, held to less than it can keep
    code, record, said = cli(
        "bench",
        device,
        "--bundle",
        built,
        "--runs",
        "5",
        "-o",
        out,
        "--max-cpu-time",
        "0.0001%",
    )
    error = record["error"]
    assert (code, error["code"], error["exit_code"]) == (1, "findings-error", 1)
    assert "100.0% of the time ran off the accelerator (at most 0.0001%): conv_3" in said
    assert error["facts"]["ops"][0]["name"].startswith("conv_3")
    assert Path(error["facts"]["report"]) == out / "report.json"

    # every form of the report tells of it
    for name in ("page.html", "page.md", "page.xml"):
        code, _, said = cli("report", built, "-o", tmp_path / name)
        assert code == 0, said
        assert "planned for npu and ran on the CPU in CPUExecutionProvider" in (
            (tmp_path / name).read_text(encoding="utf-8")
        )
    cases = ET.parse(tmp_path / "page.xml").findall(".//testcase[failure]")
    assert [case.get("name") for case in cases] == ["verdict", "ran where planned"]


# a gate before a release becomes current


def test_a_release_within_the_limit_becomes_current(
    cli: Cli, device: str, tmp_path: Path
) -> None:
    ops = (accelerated(us=3000.0), accelerated("CPU", us=30.0, name="s", op="Softmax"))
    bundle = echo_bundle(tmp_path / "b", *ops)
    given = ("-d", device, "--force-target", "--runs", "5", "-o", tmp_path / "out")
    code, record, said = cli("deploy", bundle, *given, "--max-cpu-time", "70%")
    assert code == 0, said
    offload = record["report"]["offload"]
    assert 0 < offload["accelerator_share"] < 1
    assert offload["cpu_share"] == pytest.approx(offload["accelerator_share"] / 100)
    assert record["deployment"]["slot"] == "current"
    assert [op["agrees"] for op in offload["ops"]] == [True, False]


@pytest.mark.parametrize("no_bench", [True, False])
def test_a_release_over_the_limit_leaves_the_device_as_it_was(
    no_bench: bool, cli: Cli, device: str, tmp_path: Path
) -> None:
    good = make_echo_bundle(tmp_path / "good", target="claimed")
    bad = echo_bundle(
        tmp_path / "bad", accelerated(us=20.0), accelerated("CPU", us=2000.0, name="big")
    )
    given = ("-d", device, "--force-target", "-o", tmp_path / "out")
    assert cli("deploy", good.folder, *given, "--no-bench")[0] == 0
    more = ("--no-bench",) if no_bench else ("--runs", "5")
    code, record, said = cli("deploy", bad, *given, *more, "--max-cpu-time", "5%")
    error = record["error"]
    assert (code, error["code"]) == (1, "findings-error")
    assert "(at most 5%): big (on the CPU" in error["problem"]
    assert error["problem"].endswith("; the active release is unchanged")
    assert error["hint"]
    assert said.count("error: ") == 1
    assert error["facts"]["limit"] == 0.05
    assert error["facts"]["share"] > 0.95
    assert cli("status", device)[1]["current"]["bundle"] == good.id
    report = tmp_path / "out" / "report.json"
    assert report.is_file() is not no_bench
    if not no_bench:
        assert error["facts"]["report"] == str(report)
        told = json.loads(report.read_text(encoding="utf-8"))
        assert told["deployment"] is None
        assert told["offload"]["ops"][1]["name"] == "big"


def test_what_nobody_tells_of_is_not_let_through(cli: Cli, device: str, tmp_path: Path) -> None:
    untold = echo_bundle(tmp_path / "b", accelerated("AUTO", accelerator=None))
    given = ("-d", device, "--force-target", "--no-bench")
    code, record, _ = cli("deploy", untold, *given, "--max-cpu-time", "90%")
    assert code == 1
    assert "the runtime does not tell" in record["error"]["problem"]
    rubbish = echo_bundle(tmp_path / "c", {"op": 5})
    code, record, _ = cli("deploy", rubbish, *given, "--max-cpu-time", "50%")
    assert code == 1
    assert "cannot hold the time off the accelerator to 50%" in record["error"]["problem"]


def test_a_target_without_accelerator_has_nothing_to_limit(
    cli: Cli, device: str, model: Path, tmp_path: Path
) -> None:
    given = ("-d", device, "--max-cpu-time", "5%")
    code, record, _ = cli("deploy", model, "--target", "host", *given, "-o", tmp_path / "o")
    assert code == 2
    assert "host has no accelerator, so there is nothing to limit" in record["error"]["problem"]
    assert not (tmp_path / "state").exists()
    plain = make_echo_bundle(tmp_path / "plain", target="host").folder
    assert cli("deploy", plain, "-d", device, "--force-target", "--no-bench")[0] == 0
    code, record, _ = cli("bench", device, "--bundle", plain, "--max-cpu-time", "5%")
    assert code == 2
    assert record["error"]["hint"]


@pytest.mark.parametrize("text", ["five", "-1%", "101%", "1", "nan", "", "1e400", "5 %%"])
def test_a_limit_that_is_none_is_refused_before_anything_else(
    text: str, cli: Cli, device: str, tmp_path: Path
) -> None:
    code, record, _ = cli(
        "deploy", tmp_path / "none.onnx", "-d", device, f"--max-cpu-time={text}"
    )
    assert code == 2
    assert record["error"]["problem"].startswith("cannot use --max-cpu-time")
    assert record["error"]["hint"].startswith("write ")
