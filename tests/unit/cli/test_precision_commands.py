"""A device decides the precision, and layers are looked into, with a real agent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from edgesdk.cli.app import run

pytestmark = pytest.mark.slow

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
#: Convolutions without work between operators that stay in float: in 8 bits all is conversion.
_LINKS = 16


def chain() -> onnx.ModelProto:
    links = "".join(
        f"a{n} = Conv (b{n}, kernel)\n b{n + 1} = Neg (a{n})\n" for n in range(_LINKS)
    )
    text = '<ir_version: 8, opset_import: ["" : 17]>\n'
    text += f"chain (float[1, 1, 96, 96] b0) => (float[1, 1, 96, 96] b{_LINKS}) {{ {links} }}"
    model = onnx.parser.parse_model(text)
    kernel = np.full((1, 1, 1, 1), 0.9, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "kernel"))
    return model


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with two models, calibration data and labelled data."""
    folder = tmp_path_factory.mktemp("precision")
    random = np.random.default_rng(7)
    model = onnx.parser.parse_model(NET)
    for name, shape in (("kernel", (4, 2, 3, 3)), ("weight", (3, 4)), ("bias", (3,))):
        array = random.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node, name in zip(model.graph.node, ("conv", "relu", "pool", "flat", ""), strict=True):
        node.name = name
    onnx.save(model, folder / "small.onnx")
    onnx.save(chain(), folder / "chain.onnx")
    images = random.random((32, 2, 8, 8)).astype(np.float32)
    np.savez(folder / "calib.npz", image=images)
    session = onnxruntime.InferenceSession(folder / "small.onnx")
    scores = np.concatenate([session.run(None, {"image": each[None]})[0] for each in images])
    ordered = np.sort(scores, axis=1)
    # labels that no rounding changes
    clear = np.argsort(ordered[:, -2] - ordered[:, -1])[:20]
    np.savez(folder / "data.npz", image=images[clear], labels=scores[clear].argmax(axis=1))
    np.savez(folder / "chain.npz", b0=random.random((16, 1, 96, 96)).astype(np.float32))
    return folder


@pytest.fixture(autouse=True)
def in_folder(monkeypatch, work: Path, home: Path) -> None:
    monkeypatch.chdir(work)


@pytest.fixture
def device(tmp_path: Path) -> str:
    """A device that serves a float release that the user had."""
    url = f"local:?state={tmp_path / 'device'}"
    args = ["deploy", "small.onnx", "-d", url, "--no-bench", "-o", str(tmp_path / "old")]
    assert run(args) == 0
    return url


def answer(capsys, *args: str, code: int = 0) -> dict:
    capsys.readouterr()
    assert run([*args, "--format", "json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def slots(capsys, device: str) -> dict:
    status = answer(capsys, "status", device)
    return {
        slot: status[slot] and status[slot]["bundle"]
        for slot in ("current", "previous", "candidate")
    }


def test_a_device_decides_the_precision(device: str, tmp_path: Path, capsys) -> None:
    before = slots(capsys, device)
    args = ["deploy", "small.onnx", "-d", device, "--precision", "auto", "--runs", "60"]
    data = ["--calib", "calib.npz", "--data", "data.npz", "-o", str(tmp_path / "run")]
    record = answer(capsys, *args, *data)
    contest = record["report"]["contest"]
    competed = {each["precision"]: each for each in contest["contestants"]}
    assert list(competed) == ["fp32", "fp16", "int8"]
    for precision, each in competed.items():
        assert each["bundle"]["precision"] == precision
        assert each["bundle"]["bytes"] > 0
        assert len(each["latency"]["samples_ms"]) == sum(each["rounds"]) >= 36
        assert each["labelled"]["value"] == 1.0
        assert each["labelled"]["samples"] == 20
        assert each["cosine"] > 0.99
    assert competed["fp32"]["cosine"] > competed["int8"]["cosine"]
    won = next(
        each
        for each in competed.values()
        if contest["winner"] == f"{each['backend']} {each['precision']}"
    )
    assert contest["decided_by"] in ("time", "order")
    assert won["ratio"] is None
    assert won["why_out"] == ""
    assert all(each["ratio"]["rounds"] == 10 for each in competed.values() if each is not won)
    assert record["report"]["bundle"]["id"] == won["bundle"]["id"]
    after = slots(capsys, device)
    assert after == {
        "current": won["bundle"]["id"],
        "previous": before["current"] if won["precision"] != "fp32" else after["previous"],
        "candidate": None,
    }
    assert run(["report", str(tmp_path / "run")]) == 0
    assert "cosine to float" in capsys.readouterr().out


def test_eight_bits_that_lose_are_refused_and_nothing_is_switched(
    device: str, tmp_path: Path, capsys
) -> None:
    before = slots(capsys, device)
    args = ["deploy", "chain.onnx", "-d", device, "--calib", "chain.npz", "--baseline"]
    args += ["--runs", "60", "-o", str(tmp_path / "run")]
    error = answer(capsys, *args, code=1)["error"]
    assert error["problem"].startswith("cannot deploy chain int8 to local:")
    assert "times as long (95 % interval" in error["problem"]
    assert "the active release is unchanged" in error["problem"]
    assert "--accept-slower" in error["hint"]
    after = slots(capsys, device)
    assert {**after, "candidate": None} == before
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["contest"]["decided_by"] == "refused"
    assert report["contest"]["winner"].endswith(" fp32")
    assert report["deployment"] is None
    assert report["baseline"]["bundle"]["precision"] == "fp32"
    record = answer(capsys, *args, "--accept-slower")
    assert record["report"]["contest"] is None
    assert slots(capsys, device)["current"] == record["bundle"]["id"]
    assert record["bundle"]["precision"] == "int8"


def test_a_model_that_arrives_quantized_has_no_precision_to_choose(
    work: Path, tmp_path: Path, capsys
) -> None:
    import edgesdk

    path = tmp_path / "whole.onnx"
    with np.load(work / "calib.npz") as data:
        edgesdk.quantize(work / "small.onnx", {"image": data["image"]}).save(path)
    for command, said in (
        (["deploy", "--precision", "auto"], "cannot choose a precision for whole: the model"),
        (["debug"], "cannot debug whole: it arrives quantized"),
    ):
        verb, *options = command
        more = ["--calib", "calib.npz", *options]
        error = answer(capsys, verb, str(path), *more, code=2)["error"]
        assert said in error["problem"]
        assert "float model it was made from" in error["hint"]


@pytest.mark.parametrize("precision", ["fp16", "auto"])
def test_layers_of_a_build_without_pairs_cannot_be_looked_into(precision: str, capsys) -> None:
    args = ["debug", "small.onnx", "--calib", "calib.npz", "--precision", precision]
    error = answer(capsys, *args, code=2)["error"]
    assert f"cannot debug a build in {precision}: layers" in error["problem"]


def test_layers_are_looked_into_here_and_there(device: str, tmp_path: Path, capsys) -> None:
    before = slots(capsys, device)
    releases = answer(capsys, "releases", device)["releases"]
    args = ["debug", "small.onnx", "--calib", "calib.npz", "--samples", "4"]
    table = tmp_path / "layers.csv"
    record = answer(capsys, *args, "-d", device, "-o", str(table))
    layers = record["layers"]
    assert {each["op"] for each in layers} >= {"Conv+Relu", "Gemm"}
    for each in layers:
        for kind in ("accumulated", "local"):
            here, there = each[f"host_{kind}"], each[f"device_{kind}"]
            assert here["state"] == there["state"] == ""
            assert there["sqnr_db"] == pytest.approx(here["sqnr_db"], abs=1.0)
            assert 0.99 < there["cosine"] <= 1
    found = [each["device_local"]["sqnr_db"] for each in layers]
    assert found == sorted(found)
    assert record["device_runtimes"][0].startswith("onnxruntime")
    assert record["device_failed"] is None
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["layer"] for row in rows] == [each["name"] for each in layers]
    assert float(rows[0]["device_local_sqnr_db"]) == found[0]
    # what served serves, and of what was there for looking nothing is left
    assert slots(capsys, device) == before
    assert answer(capsys, "releases", device)["releases"] == releases


def test_the_cheapest_set_can_be_pasted_into_a_recipe(tmp_path: Path, capsys) -> None:
    args = ["debug", "small.onnx", "--calib", "calib.npz", "--samples", "2"]
    loose = answer(capsys, *args)
    assert loose["budget"]["kept"] == []
    assert loose["keep_float"] == []
    limit = loose["budget"]["before"] / 2
    tight = answer(capsys, *args, "--max-drop", str(limit))
    budget = tight["budget"]
    assert budget["after"] <= limit < budget["before"]
    assert set(tight["keep_float"]) <= {"conv", "relu", "pool", "flat"}
    assert run([*args, "--max-drop", str(limit), "--top", "1"]) == 0
    text = capsys.readouterr().out
    assert "keep in float" in text
    assert "more; --top 0 shows all" in text
    nameless = set(budget["kept"]) - set(tight["keep_float"])
    assert ("have no name in the model" in text) == bool(nameless)
    if tight["keep_float"]:
        lines = [line.split("  ", 1)[-1].strip() for line in text.splitlines()]
        recipe = ["keep_float:", *(f"- {json.dumps(name)}" for name in tight["keep_float"])]
        assert lines[lines.index("keep_float:") :][: len(recipe)] == recipe
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join(recipe) + "\n", encoding="utf-8")
        again = answer(capsys, *args, "--recipe", str(path))
        kept = {name for each in again["layers"] for name in each["nodes"]}
        assert not kept & set(tight["keep_float"])


def test_what_was_measured_here_is_shown_where_the_device_is_gone(
    tmp_path: Path, capsys
) -> None:
    args = ["debug", "small.onnx", "--calib", "calib.npz", "--samples", "2"]
    saved = tmp_path / "layers.json"
    url = "ssh://nobody@127.0.0.1:1"
    assert run([*args, "-d", url, "-o", str(saved)]) == 4
    seen = capsys.readouterr()
    assert "error: cannot reach" in seen.err
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert record["schema"] == "edgesdk.debug/1"
    assert record["device_failed"].startswith("cannot reach")
    assert all(each["host_local"]["sqnr_db"] for each in record["layers"])
    assert all(each["device_local"] is None for each in record["layers"])
    assert "Conv+Relu" in seen.out
