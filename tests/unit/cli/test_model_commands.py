"""Commands from a model to a report, with a small real model and a real agent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.cli.app import run

pytestmark = pytest.mark.slow

NET = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 2, 8, 8] image) => (float[N, 3] scores)
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
    """A folder with a model, calibration data and labelled data."""
    folder = tmp_path_factory.mktemp("model-commands")
    random = np.random.default_rng(7)
    model = onnx.parser.parse_model(NET)
    for name, shape in (("kernel", (4, 2, 3, 3)), ("weight", (3, 4)), ("bias", (3,))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, folder / "small.onnx")
    images = random.random((48, 2, 8, 8)).astype(np.float32)
    np.savez(folder / "calib.npz", image=images)
    np.savez(folder / "data.npz", image=images[:20], labels=np.arange(20) % 3)
    return folder


@pytest.fixture(autouse=True)
def quiet_settings(monkeypatch, work: Path) -> None:
    for variable in ("EDGESDK_DEVICE", "EDGESDK_INVENTORY", "EDGESDK_SETTINGS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(work / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "state-home"))
    monkeypatch.chdir(work)


def answer(capsys, *args: str, code: int = 0) -> dict:
    assert run([*args, "--format", "json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def deployed(work: Path, tmp_path_factory) -> dict:
    """What ``deploy --baseline`` answered, made once."""
    import contextlib
    import io
    import os

    before = Path.cwd()
    os.chdir(work)
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            code = run(
                [
                    "deploy",
                    "small.onnx",
                    "--device",
                    f"local:?state={work / 'device'}",
                    "--calib",
                    "calib.npz",
                    "--data",
                    "data.npz",
                    "--baseline",
                    "--accept-slower",  # so small a model may take longer in 8 bits
                    "--runs",
                    "30",
                    "-o",
                    "run",
                    "--format",
                    "json",
                ]
            )
    finally:
        os.chdir(before)
    assert code == 0
    return json.loads(text.getvalue())


@pytest.fixture
def device(work: Path) -> str:
    return f"local:?state={work / 'device'}"


def test_inspect_says_what_the_model_is(capsys) -> None:
    record = answer(capsys, "inspect", "small.onnx", "--shape", "image=1,2,8,8", "-t", "host")
    assert record["schema"] == "edgesdk.inspect/1"
    assert record["model"]["opset"] == 17
    assert record["model"]["inputs"] == [
        {"name": "image", "dtype": "float32", "shape": [1, 2, 8, 8]}
    ]
    assert record["placement"]["nodes"][0]["op"] == "Conv"


def test_inspect_refuses_what_is_no_model(work: Path, capsys) -> None:
    (work / "text.onnx").write_text("hello", encoding="utf-8")
    error = answer(capsys, "inspect", "text.onnx", code=2)["error"]
    assert error["code"] == "model-error"
    assert "text.onnx" in error["problem"]


def test_a_shape_of_another_form_says_how_to_write_it(capsys) -> None:
    assert run(["inspect", "small.onnx", "--shape", "image:1,2"]) == 2
    seen = capsys.readouterr().err
    assert "cannot use --shape 'image:1,2': not an input and its extents" in seen
    assert "write --shape 'NAME=1,3,224,224'" in seen


def test_a_plan_has_every_field_of_the_contract(capsys) -> None:
    record = answer(capsys, "plan", "small.onnx", "-t", "raspberry-pi-5", "--precision", "int8")
    assert record["schema"] == "edgesdk.plan/1"
    assert [node["index"] for node in record["nodes"]] == [0, 1, 2, 3, 4]
    for node in record["nodes"]:
        assert {"index", "name", "op", "backend", "refusals"} <= set(node)
    assert record["parts"]
    assert "memory_bytes" in record
    assert isinstance(record["assumed"], list)


def test_a_plan_prints_refusals(capsys) -> None:
    assert run(["plan", "small.onnx", "-t", "coral-dev-board"]) == 0
    seen = capsys.readouterr().out
    assert "edgetpu takes none of the nodes: it runs int8, and this build is fp32" in seen


def test_an_unknown_target_is_suggested(capsys) -> None:
    assert run(["plan", "small.onnx", "-t", "raspbery-pi-5"]) == 2
    assert "did you mean raspberry-pi-5" in capsys.readouterr().err


def test_int8_without_data_says_what_to_give(capsys) -> None:
    assert run(["build", "small.onnx", "--precision", "int8", "-o", "nothing"]) == 2
    seen = capsys.readouterr().err
    assert "cannot quantize to int8: there is no calibration data" in seen
    assert "--calib" in seen


def test_a_build_can_be_shown_verified_and_exported(work: Path, capsys) -> None:
    built = answer(capsys, "build", "small.onnx", "--calib", "calib.npz", "-o", "bundle-1")
    assert built["schema"] == "edgesdk.build/1"
    assert built["bundle"]["precision"] == "int8"
    again = answer(capsys, "build", "small.onnx", "--calib", "calib.npz", "-o", "bundle-2")
    assert again["bundle"]["id"] == built["bundle"]["id"]
    shown = answer(capsys, "bundle", "show", "bundle-1")
    assert shown["bundle"]["id"] == built["bundle"]["id"]
    assert shown["manifest"]["schema"] == "edgesdk.bundle/1"
    assert answer(capsys, "bundle", "verify", "bundle-1")["verified"] is True
    exported = answer(capsys, "bundle", "export", "bundle-1", "-o", "exported")
    assert (work / "exported" / "small.int8.onnx").is_file()
    assert len(exported["files"]) == 2
    blob = next((work / "bundle-2" / "blobs").iterdir())
    blob.write_bytes(b"x" * blob.stat().st_size)
    error = answer(capsys, "bundle", "verify", "bundle-2", code=2)["error"]
    assert "cannot trust bundle" in error["problem"]


def test_a_deployment_has_every_field_of_the_contract(deployed: dict, work: Path) -> None:
    assert deployed["schema"] == "edgesdk.deploy/1"
    assert len(deployed["bundle"]["id"]) == 64
    assert deployed["deployment"]["bundle_id"] == deployed["bundle"]["id"]
    assert deployed["deployment"]["slot"] == "current"
    report = deployed["report"]
    for field in (
        "model",
        "target",
        "device",
        "bundle",
        "parts",
        "cold_start_ms",
        "load_ms",
        "throughput_per_s",
        "peak_rss_bytes",
        "conditions",
        "accuracy",
        "verdict",
    ):
        assert field in report, field
    assert set(report["placement"]) == {"predicted", "as_built", "actual"}
    assert len(report["latency"]["samples_ms"]) == 30
    assert report["latency"]["p99_ms"] is None
    assert "368" in report["latency"]["why"]["p99_ms"]
    assert (work / "run" / "report.html").stat().st_size > 1000
    assert json.loads((work / "run" / "report.json").read_bytes()) == report
    assert json.loads((work / "run" / "deployment.json").read_bytes())["slot"] == "current"


def test_the_baseline_is_the_float_model_of_the_same_session(deployed: dict) -> None:
    baseline = deployed["report"]["baseline"]
    assert baseline["bundle"]["precision"] == "fp32"
    assert len(baseline["latency"]["samples_ms"]) == 30
    assert deployed["deployment"]["previous"] == baseline["bundle"]["id"]
    labelled = deployed["report"]["accuracy"]["labelled"]
    reference = deployed["report"]["accuracy"]["labelled_reference"]
    assert labelled["where"] == "device"
    assert reference["where"] == "host"
    assert baseline["accuracy"]["labelled"]["value"] == reference["value"]


def test_deploying_again_sends_nothing(deployed: dict, device, capsys) -> None:
    again = answer(capsys, "deploy", "run", "-d", device, "--no-bench")
    assert again["deployment"]["blobs_sent"] == 0
    assert again["deployment"]["self_check"]["reused"] is True
    assert again["report"] is None
    assert again["folder"] is None


def test_one_inference_runs_on_the_device(deployed: dict, device, work: Path, capsys) -> None:
    record = answer(
        capsys, "run", device, "--data", "data.npz", "--index", "3", "-o", "outputs.npz"
    )
    (output,) = record["outputs"]
    assert output["name"] == "scores"
    assert output["shape"] == [1, 3]
    with np.load(work / "outputs.npz") as saved:
        assert saved["scores"].tolist() == output["values"]


def test_a_sample_that_is_not_there_is_an_input_error(deployed: dict, device, capsys) -> None:
    assert run(["run", device, "--data", "data.npz", "--index", "99"]) == 2
    assert "cannot take sample 99 of data.npz" in capsys.readouterr().err


def test_a_release_can_be_measured_again(deployed: dict, device, work: Path, capsys) -> None:
    record = answer(
        capsys, "bench", device, "--bundle", "run", "--runs", "20", "-o", "bench-run"
    )
    assert record["bundle"]["id"] == deployed["bundle"]["id"]
    assert len(record["report"]["latency"]["samples_ms"]) == 20
    assert (work / "bench-run" / "report.json").is_file()


def test_a_release_that_is_not_there_is_listed_against(deployed: dict, device, capsys) -> None:
    assert run(["bench", device, "--release", "candidate"]) == 2
    assert "cannot find release 'candidate'" in capsys.readouterr().err


def test_a_report_is_shown_rendered_and_explained(deployed: dict, work: Path, capsys) -> None:
    assert answer(capsys, "report", "run") == deployed["report"]
    assert run(["report", "run", "-o", "page.html"]) == 0
    assert "all shows every fact" in capsys.readouterr().out
    assert run(["report", "run", "--all"]) == 0
    assert "verdict" in capsys.readouterr().out
    assert (work / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert run(["report", "run", "-o", "page.pdf"]) == 2
    assert "(expected .html, .md or .xml)" in capsys.readouterr().err
    schema = answer(capsys, "report", "--schema")["json_schema"]
    assert "latency" in schema["properties"]


def test_rolling_back_gives_the_float_release(deployed: dict, device, capsys) -> None:
    record = answer(capsys, "rollback", device)
    assert record["current"]["bundle"] == deployed["report"]["baseline"]["bundle"]["id"]
    record = answer(capsys, "rollback", device)
    assert record["current"]["bundle"] == deployed["bundle"]["id"]


def test_nothing_that_edgesdk_did_not_write_is_overwritten(work: Path, capsys) -> None:
    folder = work / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious", encoding="utf-8")
    assert run(["deploy", "small.onnx", "-o", "mine"]) == 2
    seen = capsys.readouterr().err
    assert "cannot write to mine: it holds thesis.txt, which edgesdk did not write" in seen
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "precious"
    (folder / "thesis.txt").unlink()
    (folder / "report.json").write_text("{}", encoding="utf-8")
    assert run(["deploy", "small.onnx", "-o", "mine"]) == 2
    assert "it holds report.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--calib", "calib.npz"], "cannot use --calib with run/bundle: it is a bundle"),
        (["--baseline"], "cannot use --baseline with run/bundle: it is a bundle"),
        (["-t", "raspberry-pi-5"], "for raspberry-pi-5: it was built for host"),
    ],
)
def test_a_bundle_is_never_changed(deployed: dict, options, said, capsys) -> None:
    assert run(["deploy", "run/bundle", *options]) == 2
    assert said in capsys.readouterr().err


def test_a_float_build_has_no_float_baseline(capsys) -> None:
    assert run(["deploy", "small.onnx", "--baseline"]) == 2
    assert "cannot compare with a float baseline: this build is fp32" in capsys.readouterr().err


def test_a_device_that_is_not_the_target_gets_nothing(work: Path, capsys) -> None:
    state = work / "other"
    args = ["deploy", "small.onnx", "-t", "coral-dev-board", "-d", f"local:?state={state}"]
    error = answer(capsys, *args, "--no-bench", "-o", "coral", code=5)["error"]
    assert error["code"] == "target-mismatch"
    assert error["hint"] == "build for the target it is, or pass --force-target"


def test_a_measurement_that_would_never_start_is_a_usage_matter(capsys) -> None:
    assert run(["deploy", "small.onnx", "--duration", "-1"]) == 2
    assert "cannot use --duration '-1'" in capsys.readouterr().err


def test_evaluate_sets_the_device_beside_the_float_model(
    deployed: dict, device: str, work: Path, capsys
) -> None:
    given = ["evaluate", device, "--data", "data.npz", "--model", "small.onnx", "-o", "judged"]
    record = answer(capsys, *given, "--metric", "top-1,auc")
    assert record["schema"] == "edgesdk.evaluate/1"
    found = record["evaluation"]
    assert json.loads((work / "judged" / "evaluation.json").read_bytes()) == {
        "schema": "edgesdk.evaluation/1",
        **found,
    }
    assert (found["complete"], found["samples"], found["wanted_samples"]) == (True, 20, 20)
    assert [each["metric"] for each in found["metrics"]] == ["top-1", "auc-macro"]
    # what deploy said of the same data, on the device and here
    labelled = deployed["report"]["accuracy"]["labelled"]
    assert found["metrics"][0]["value"] == labelled["value"]
    before = deployed["report"]["accuracy"]["labelled_reference"]
    assert found["reference"][0]["value"] == before["value"]
    difference = found["differences"][0]
    assert difference["value"] == pytest.approx(labelled["value"] - before["value"])
    assert difference["lower"] <= difference["value"] <= difference["upper"]


def test_evaluate_shows_a_table_for_people(deployed: dict, device: str, capsys) -> None:
    given = ["evaluate", device, "--data", "data.npz", "--model", "small.onnx", "-o", "shown"]
    assert run([*given, "--limit", "12"]) == 0
    shown = capsys.readouterr().out
    assert "12 samples" in shown
    assert "95 % interval, paired" in shown
    assert "top-1: 12 rows, interval by Wilson" in shown
    assert "samples a second" in shown


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--data", "calib.npz"], "it has no labels"),
        (["--data", "short.npz"], "there are [5] of them and 20 samples"),
        (["--data", "high.npz"], "labels go from 7 to 7 and the output has 3 classes"),
        (["--data", "wide.npz"], "'image'"),
        (["--data", "small.onnx"], "cannot read data from small.onnx"),
        (["--data", "data.npz", "--metric", "top9"], "there is no such metric"),
        (["--data", "data.npz", "--metric", "map"], "no output is called like boxes"),
        (["--data", "data.npz", "--detections", "boxes"], "not a role and an output"),
        (["--data", "data.npz", "--metric", ","], "no metric is named"),
        (
            ["--data", "data.npz", "--model", "other.onnx", "--bundle", "run"],
            "was built from another model",
        ),
        (["--data", "data.npz", "--release", "previous-one"], "cannot find release"),
    ],
)
def test_evaluate_refuses_what_does_not_go_together(
    deployed: dict, device: str, work: Path, capsys, more: list[str], text: str
) -> None:
    images = np.load(work / "data.npz")["image"]
    np.savez(work / "short.npz", image=images, labels=np.zeros(5, int))
    np.savez(work / "high.npz", image=images, labels=np.full(20, 7))
    np.savez(work / "wide.npz", image=images[:, :1], labels=np.zeros(20, int))
    model = onnx.load(work / "small.onnx")
    model.doc_string = "another one"
    onnx.save(model, work / "other.onnx")
    error = answer(capsys, "evaluate", device, *more, "-o", "refused", code=2)["error"]
    assert text in error["problem"]


def test_evaluate_keeps_what_a_device_said_before_it_went(
    deployed: dict, device: str, work: Path, capsys, monkeypatch
) -> None:
    from edgesdk.bench import streaming
    from edgesdk.errors import ChannelClosed

    take = streaming._Stream._take_answer
    taken = []

    def take_one(stream: streaming._Stream) -> None:
        if taken:
            raise ChannelClosed("cannot read from the device: it is gone", device="it")
        taken.append(take(stream))

    monkeypatch.setattr(streaming._Stream, "_take_answer", take_one)
    given = ["evaluate", device, "--data", "data.npz", "-o", "cut"]
    error = answer(capsys, *given, code=4)["error"]
    assert "it is gone (after 1 of 20 samples)" in error["problem"]
    assert "evaluation.json" in error["hint"]
    found = json.loads((work / "cut" / "evaluation.json").read_bytes())
    assert (found["complete"], found["samples"]) == (False, 1)
    assert found["metrics"][0]["rows"] == 1
