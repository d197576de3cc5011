"""A contest from a model to a release: two runtimes that are here, a real agent, a new target.

The target is a file that the tests write: what it takes is YAML and nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.cli.app import run

pytest.importorskip("openvino", reason="needs openvino, to have two runtimes here")
pytestmark = pytest.mark.slow

TARGET = """
schema: 1
family: test-contest
vendor: nobody
backends:
  - id: ort-cpu
    kind: onnxruntime
    runtime: onnxruntime
    precisions: [int8, fp32, fp16]
    scheme: {activations: uint8-asymmetric, weights: int8-per-channel-symmetric,
             rules: onnxruntime-cpu}
    requirement: python3 -m pip install onnxruntime
  - id: openvino-cpu
    kind: openvino
    runtime: openvino
    precisions: [int8, fp32]
    scheme: {activations: uint8-asymmetric, weights: int8-per-channel-symmetric,
             rules: openvino}
    requirement: python3 -m pip install openvino
    options: {device: CPU}
  - id: nothing-cpu
    kind: nothing
    runtime: echo
    precisions: [fp32]
    requirement: nobody makes it
contest: [ort-cpu, openvino-cpu, nothing-cpu]
agent: {python: "3.7", reach: [local]}
identify: {machine: ["*"]}
provenance:
  - fields: [backends, agent, identify, contest]
    kind: assumed
    source: a test
    checked: "2026-12-01"
variants:
  - {name: test-contest, title: This computer as a contest}
  - {name: test-order, title: This computer without one, contest: []}
"""
NET = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[1, 2, 8, 8] image) => (float[1, 3] scores)
{
    wide = Conv <pads = [1, 1, 1, 1]> (image, kernel)
    kept = Relu (wide)
    pooled = GlobalAveragePool (kept)
    flat = Flatten (pooled)
    scores = Gemm <transB = 1> (flat, weight, bias)
}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with a model, calibration data, labelled data and a target with a contest."""
    folder = tmp_path_factory.mktemp("contest")
    random = np.random.default_rng(7)
    model = onnx.parser.parse_model(NET)
    for name, shape in (("kernel", (4, 2, 3, 3)), ("weight", (3, 4)), ("bias", (3,))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, folder / "small.onnx")
    images = random.random((48, 2, 8, 8)).astype(np.float32)
    np.savez(folder / "calib.npz", image=images)
    np.savez(folder / "data.npz", image=images[:20], labels=np.arange(20) % 3)
    (folder / "targets").mkdir()
    (folder / "targets" / "test-contest.yaml").write_text(TARGET, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def quiet_settings(monkeypatch, work: Path) -> None:
    for variable in ("EDGESDK_DEVICE", "EDGESDK_INVENTORY", "EDGESDK_SETTINGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EDGESDK_TARGETS_DIR", str(work / "targets"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(work / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "state-home"))
    monkeypatch.chdir(work)


def answer(capsys, *args: str, code: int = 0) -> dict:
    assert run([*args, "--format", "json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def deploy_args(state: Path, *more: str) -> list[str]:
    common = ["small.onnx", "-t", "test-contest", "--calib", "calib.npz"]
    return ["deploy", *common, "-d", f"local:?state={state}", "--runs", "60", *more]


@pytest.fixture(scope="module")
def device(work: Path) -> str:
    return f"local:?state={work / 'device'}"


@pytest.fixture(scope="module")
def deployed(work: Path, device: str) -> dict:
    """A float release that the user had, then what ``deploy`` with a contest answered."""
    text = io.StringIO()
    before, home = Path.cwd(), dict(os.environ)
    os.environ |= {"EDGESDK_TARGETS_DIR": str(work / "targets")}
    os.environ |= {"XDG_STATE_HOME": str(work / "state-home")}
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            old = ["deploy", "small.onnx", "-t", "test-order", "-d", device, "--no-bench"]
            assert run([*old, "-o", "old"]) == 0
        with contextlib.redirect_stdout(text):
            args = deploy_args(work / "device", "--data", "data.npz", "-o", "run")
            assert run([*args, "--format", "json"]) == 0
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(home)
    return json.loads(text.getvalue())


def test_a_plan_says_who_will_compete(capsys) -> None:
    args = ["plan", "small.onnx", "-t", "test-contest", "--calib", "calib.npz"]
    record = answer(capsys, *args)
    assert [each["backend"] for each in record["contest"]] == [
        "ort-cpu",
        "openvino-cpu",
        "nothing-cpu",
    ]
    assert [each["nodes_by_backend"] for each in record["contest"]] == [
        {"ort-cpu": 5},
        {"openvino-cpu": 5},
        None,
    ]
    assert record["contest"][2]["why_out"].startswith("it gets none of the nodes: it runs fp32")
    assert run(args) == 0
    seen = capsys.readouterr().out
    assert "edgesdk deploy measures ort-cpu and openvino-cpu in turns and keeps the" in seen
    assert run(["plan", "small.onnx", "-t", "test-order"]) == 0
    assert "in turns" not in capsys.readouterr().out


def test_a_contest_measures_both_and_keeps_one(deployed: dict) -> None:
    contest = deployed["report"]["contest"]
    measured = contest["contestants"][:2]
    assert [each["backend"] for each in measured] == ["ort-cpu", "openvino-cpu"]
    for each in measured:
        assert len(each["latency"]["samples_ms"]) == sum(each["rounds"]) >= 36
        assert each["latency"]["p50_ms"] > 0
        assert each["peak_rss_bytes"] > 1 << 20
        assert each["why_out"] == ""
    assert [each["runtimes"][0].split()[0] for each in measured] == ["onnxruntime", "openvino"]
    assert contest["contestants"][2]["why_out"].startswith("it gets none of the nodes")
    assert contest["decided_by"] in ("time", "order")
    loser = next(each for each in measured if each["backend"] != contest["winner"])
    ratio = loser["ratio"]
    assert ratio["lower"] <= ratio["value"] <= ratio["upper"]
    claims = not ratio["lower"] <= 1 <= ratio["upper"]
    assert claims == (contest["decided_by"] == "time")
    if not claims:
        assert contest["winner"] == "ort-cpu"


def test_what_is_measured_active_and_reported_is_one_bundle(
    deployed: dict, device: str, work: Path, capsys
) -> None:
    winner = deployed["report"]["contest"]["winner"]
    chosen = {
        each["backend"]: each["bundle"]["id"]
        for each in deployed["report"]["contest"]["contestants"]
        if each["bundle"]
    }
    ids = {
        deployed["bundle"]["id"],
        deployed["deployment"]["bundle_id"],
        deployed["report"]["bundle"]["id"],
        deployed["report"]["deployment"]["bundle_id"],
        answer(capsys, "status", device)["current"]["bundle"],
        answer(capsys, "bundle", "show", "run/bundle")["bundle"]["id"],
    }
    assert ids == {chosen[winner]}
    assert deployed["report"]["parts"][0]["backend"] == winner
    loser = next(name for name in chosen if name != winner)
    assert (work / "run" / "contest" / loser / "bundle" / "manifest.json").is_file()
    receipt = json.loads((work / "run" / "deployment.json").read_bytes())
    assert receipt["bundle_id"] == chosen[winner]


def test_the_bundle_of_the_first_is_the_one_that_build_makes(deployed: dict, capsys) -> None:
    args = ["small.onnx", "-t", "test-contest", "--calib", "calib.npz", "--data", "data.npz"]
    assert run(["build", *args, "-o", "built", "--format", "json"]) == 0
    seen = capsys.readouterr()
    first = deployed["report"]["contest"]["contestants"][0]
    assert json.loads(seen.out)["bundle"]["id"] == first["bundle"]["id"]
    assert (
        "note: which is faster, ort-cpu or openvino-cpu or nothing-cpu, shows on the device; "
        "--backend builds another than ort-cpu"
    ) in seen.err
    other = answer(capsys, "build", *args, "-o", "built-2", "--backend", "openvino-cpu")
    assert {part["backend"] for part in other["bundle"]["parts"]} == {"openvino-cpu"}


def test_rolling_back_gives_what_the_user_had_and_the_loser_is_garbage(
    deployed: dict, device: str, work: Path, capsys
) -> None:
    old = answer(capsys, "bundle", "show", "old/bundle")["bundle"]["id"]
    assert deployed["deployment"]["previous"] == old
    status = answer(capsys, "status", device)
    assert status["previous"]["bundle"] == old
    assert status["candidate"] is None
    record = answer(capsys, "rollback", device)
    assert record["current"]["bundle"] == old
    answer(capsys, "rollback", device)
    contest = deployed["report"]["contest"]
    (loser,) = (
        each["bundle"]["id"]
        for each in contest["contestants"]
        if each["bundle"] and each["backend"] != contest["winner"]
    )
    assert answer(capsys, "gc", device)["removed"] == [loser]


def test_the_report_shows_the_contest(deployed: dict, capsys) -> None:
    assert run(["report", "run"]) == 0
    text = capsys.readouterr().out
    (head,) = (
        line for line in text.splitlines() if line.startswith("contest  ") and "p95" in line
    )
    assert head.split()[:5] == ["contest", "median", "p95", "peak", "memory"]
    assert "out: it gets none of the nodes: it runs fp32, and this build is int8" in text
    assert deployed["report"]["contest"]["why"] in text
    for name, piece in (("page.md", "| openvino-cpu | "), ("page.html", "<h2>Contest</h2>")):
        assert run(["report", "run", "-o", name]) == 0
        assert piece in Path(name).read_text(encoding="utf-8")


def test_again_with_a_baseline_it_is_the_winners_and_becomes_previous(
    deployed: dict, work: Path, capsys
) -> None:
    # a model as small as this one may take longer in 8 bits
    more = ["--data", "data.npz", "--baseline", "--accept-slower", "-o", "run"]
    again = answer(capsys, *deploy_args(work / "device", *more))
    contest, before = again["report"]["contest"], deployed["report"]["contest"]
    assert [each["bundle"] for each in contest["contestants"]] == [
        each["bundle"] for each in before["contestants"]
    ]
    baseline = again["report"]["baseline"]["bundle"]["id"]
    assert again["deployment"]["previous"] == baseline
    shown = answer(capsys, "bundle", "show", "run/baseline")["bundle"]
    assert shown["id"] == baseline
    assert shown["parts"][0]["backend"] == contest["winner"]


def test_a_folder_of_bundles_with_something_else_in_it_is_left_alone(
    deployed: dict, work: Path, capsys
) -> None:
    (work / "run" / "contest" / "thesis.txt").write_text("precious", encoding="utf-8")
    assert run(deploy_args(work / "device", "-o", "run")) == 2
    assert "cannot write to run: it holds contest, which edgesdk" in capsys.readouterr().err
    (work / "run" / "contest" / "thesis.txt").unlink()


@pytest.mark.parametrize(
    ("options", "backend", "said"),
    [
        (["--no-contest"], "ort-cpu", "--no-contest takes ort-cpu"),
        (["--no-bench"], "ort-cpu", "--no-bench takes ort-cpu"),
        (["--backend", "openvino-cpu"], "openvino-cpu", ""),
    ],
)
def test_without_a_contest_one_backend_is_taken_and_said(
    work: Path, capsys, options: list[str], backend: str, said: str
) -> None:
    args = deploy_args(work / "other", *options, "--runs", "6", "-o", f"alone-{len(said)}")
    assert run([*args, "--format", "json"]) == 0
    seen = capsys.readouterr()
    record = json.loads(seen.out)
    assert {part["backend"] for part in record["bundle"]["parts"]} == {backend}
    assert record["report"] is None or record["report"]["contest"] is None
    assert said in seen.err
    assert ("shows on the device" in seen.err) == bool(said)


def test_a_backend_that_is_not_there_is_suggested(work: Path, capsys) -> None:
    for command in ("deploy", "plan"):
        assert (
            run([command, "small.onnx", "-t", "test-contest", "--backend", "openvno-cpu"]) == 2
        )
        seen = capsys.readouterr().err
        assert "cannot plan for test-contest: it has no backend 'openvno-cpu'" in seen
        assert "did you mean openvino-cpu? its backends are ort-cpu, openvino-cpu" in seen


def test_a_backend_that_the_recipe_avoids_is_refused(work: Path, capsys) -> None:
    Path("avoid.yaml").write_text("avoid: [ort-cpu]\n", encoding="utf-8")
    args = ["small.onnx", "-t", "test-contest", "--recipe", "avoid.yaml"]
    assert run(["plan", *args, "--backend", "ort-cpu"]) == 2
    assert "cannot build for ort-cpu first: the recipe avoids it" in capsys.readouterr().err
    record = answer(capsys, "plan", *args)
    assert record["contest"][0]["why_out"] == "the recipe avoids it"
    assert record["contest"][1]["nodes_by_backend"] == {"openvino-cpu": 5}


def test_a_backend_that_gets_nothing_is_not_passed_over_in_silence(capsys) -> None:
    args = ["build", "small.onnx", "-t", "test-contest", "-o", "none"]
    assert run([*args, "--backend", "nothing-cpu"]) == 0
    assert (
        "note: nothing-cpu, which was asked for, gets none of the nodes: this version of "
        "edgesdk has no compiler for nothing"
    ) in capsys.readouterr().err


def test_a_bundle_has_its_backends_already(deployed: dict, capsys) -> None:
    assert run(["deploy", "run/bundle", "--backend", "ort-cpu"]) == 2
    assert "cannot use --backend with run/bundle: it is a bundle" in capsys.readouterr().err


@pytest.fixture
def interpreter(work: Path) -> str:
    """This Python, with modules that cannot be imported named in a variable."""
    blind = work / "blind"
    if not blind.exists():
        blind.mkdir()
        for module in ("openvino", "onnxruntime"):
            (blind / f"{module}.py").write_text(
                "import os\n"
                f"if '{module}' in os.environ['BLIND_TO'].split():\n"
                f"    raise ImportError('no {module} for this test')\n"
                "import sys\n"
                "sys.path.remove(os.path.dirname(__file__))\n"
                f"del sys.modules['{module}']\n"
                f"import {module}\n",
                encoding="utf-8",
            )
    program = work / "python-of-the-test"
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{blind}" exec "{sys.executable}" "$@"\n', encoding="utf-8"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_a_runtime_that_the_device_lacks_drops_out_with_the_reason(
    work: Path, capsys, monkeypatch, interpreter: str
) -> None:
    monkeypatch.setenv("BLIND_TO", "openvino")
    args = deploy_args(work / "blind-1", "--runs", "6", "-o", "blind-run")
    args[args.index("-d") + 1] += f"&python={interpreter}"
    contest = answer(capsys, *args)["report"]["contest"]
    assert (contest["winner"], contest["decided_by"]) == ("ort-cpu", "alone")
    assert "it has no openvino: " in contest["contestants"][1]["why_out"]
    assert "no openvino for this test" in contest["contestants"][1]["why_out"]


def test_where_no_runtime_is_there_it_is_the_usual_error(
    work: Path, capsys, monkeypatch, interpreter: str
) -> None:
    monkeypatch.setenv("BLIND_TO", "openvino onnxruntime")
    args = deploy_args(work / "blind-2", "--runs", "6", "-o", "blind-run")
    args[args.index("-d") + 1] += f"&python={interpreter}"
    error = answer(capsys, *args, code=5)["error"]
    assert error["code"] == "runtime-missing"
    assert "it has no onnxruntime" in error["problem"]
    assert "pip install" in error["hint"]
