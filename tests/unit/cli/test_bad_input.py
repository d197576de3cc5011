"""What users give and cannot be used: one error, one hint, exit code 2 (or 3), and no harm.

Every line of the table is a command as it is typed. With ``--format json`` the same sentence
must be in the one document on stdout.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from edgesdk.cli.app import run
from edgesdk.testing import make_echo_bundle

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
RELU = "g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }"
CUSTOM = (
    '<ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>\n'
    "g (float[1, 4] x) => (float[1, 4] y) { y = com.acme.Magic(x) }"
)


def save_model(path: Path, text: str) -> None:
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())


def save_with_data_at(path: Path, location: str) -> None:
    model = onnx.parser.parse_model(HEAD + RELU.replace("Relu(x)", "Add(x, w)"))
    tensor = onnx.TensorProto(
        name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path.write_bytes(model.SerializeToString())


def make_models(folder: Path) -> None:
    save_model(folder / "ok.onnx", HEAD + RELU)
    whole = (folder / "ok.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(whole[:-20])
    (folder / "text.onnx").write_text("no model\n")
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "pickle.onnx").write_bytes(bytes.fromhex("80049505000000000000007d942e"))
    save_model(folder / "opset.onnx", HEAD.replace("17", "999") + RELU)
    save_model(folder / "unknown-op.onnx", HEAD + RELU.replace("Relu", "Frobnicate"))
    save_model(folder / "custom-op.onnx", CUSTOM)
    save_with_data_at(folder / "no-data.onnx", "weights.bin")
    (folder.parent / "secret.bin").write_bytes(bytes(16))
    save_with_data_at(folder / "escaping.onnx", "../secret.bin")
    save_with_data_at(folder / "absolute.onnx", "/etc/hostname")


def make_data(folder: Path) -> None:
    np.savez(folder / "shape.npz", x=np.zeros((4, 3, 9), np.float32))
    np.savez(folder / "name.npz", a=np.zeros((4, 4), np.float32), b=np.zeros(4, np.float32))
    np.savez(folder / "dtype.npz", x=np.zeros((4, 4), np.complex64))
    np.savez(folder / "none.npz", x=np.zeros((0, 4), np.float32))
    (folder / "text.npz").write_text("no archive")
    (folder / "recipe.yaml").write_text("precison: int8\n")
    (folder / "broken.yaml").write_text("precision: [\n")


def make_bundles(folder: Path) -> None:
    def altered(name: str) -> Path:
        copy = folder / name
        shutil.copytree(folder / "bundle", copy)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return copy

    make_echo_bundle(folder / "bundle", target="host")
    blob = sorted((folder / "bundle" / "blobs").iterdir())[0].name
    link = altered("linked") / "blobs" / blob
    link.unlink()
    link.symlink_to("/etc/hostname")
    flipped = altered("flipped") / "blobs" / blob
    flipped.write_bytes(bytes(len(flipped.read_bytes())))
    (altered("lacking") / "blobs" / blob).unlink()
    manifest = altered("escaping") / "manifest.json"
    text = manifest.read_text().replace(blob, f"../../{blob}"[:64].ljust(64, "0"))
    manifest.write_text(text)
    (altered("deep") / "manifest.json").write_text("[" * 100_000)
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        archive.writestr("../../evil", "x")
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("precious")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given") / "here"
    folder.mkdir()
    make_models(folder)
    make_data(folder)
    make_bundles(folder)
    return folder


#: The command, the exit code, the error and a piece of the hint.
TABLE = [
    ("inspect no-such.onnx", 2, "cannot open no-such.onnx: no such file", "check the path"),
    ("inspect text.onnx", 2, "cannot open text.onnx: it is text (expected an ONNX", "binary"),
    ("inspect empty.onnx", 2, "cannot open empty.onnx: the file is empty", "interrupted"),
    ("inspect truncated.onnx", 2, "cannot open truncated.onnx: ", "copy or download it again"),
    ("inspect pickle.onnx", 2, "it is a pickle, and loading one runs what it names", "--trust"),
    ("inspect opset.onnx", 2, "its opset is 999 (this onnx", "export with an older opset"),
    ("inspect unknown-op.onnx", 2, "uses the unknown operator 'Frobnicate'", ""),
    ("inspect custom-op.onnx", 2, "'Magic' of domain 'com.acme'", "standard operators"),
    ("inspect no-data.onnx", 2, "its data file 'weights.bin' is missing", "copy the data file"),
    ("inspect escaping.onnx", 2, "its data lies at '../secret.bin'", "do not trust it"),
    ("inspect absolute.onnx", 2, "its data lies at '/etc/hostname'", "do not trust it"),
    ("inspect ok.onnx --shape q=1,4", 2, "has no such input (it has 'x')", "--shape NAME="),
    ("inspect ok.onnx --shape x", 2, "cannot use --shape 'x'", "write --shape 'NAME="),
    ("plan ok.onnx -t raspbery-pi-5", 2, "cannot find target 'raspbery-pi-5'", "did you mean"),
    ("plan ok.onnx --precision int3", 2, "'int4-weights' or 'auto', not 'int3'", ""),
    ("build ok.onnx -o out --max-drop lots", 2, "a drop of 'lots': it is no share", "write 1%"),
    ("build ok.onnx -o out --max-drop 120%", 2, "expected 0% to 100%", "write 1% or 0.01"),
    ("build ok.onnx -o out --max-drop nan", 2, "a drop of 'nan'", "write 1% or 0.01"),
    ("build ok.onnx -o out --precision int16x8", 2, "no calibration data", "--calib"),
    ("build ok.onnx -o out --data absent.npz", 2, "absent.npz", ""),
    ("plan ok.onnx --recipe recipe.yaml", 2, "no option 'precison'", "did you mean"),
    ("plan ok.onnx --recipe broken.yaml", 2, "cannot read recipe broken.yaml", "recipe"),
    ("plan ok.onnx --recipe none.yaml", 2, "cannot read recipe none.yaml", "configs/recipes"),
    ("plan ok.onnx --calib none-such.npz", 2, "there is no such file", "give an .npz"),
    ("plan ok.onnx --calib text.npz", 2, "it is not an .npz", "np.savez"),
    (
        "plan ok.onnx --calib shape.npz",
        2,
        "'x' from shape.npz: it has the shape [4, 3,",
        "axis",
    ),
    (
        "plan ok.onnx --calib name.npz",
        2,
        "no array 'x' (it has 'a', 'b'",
        "one array per input",
    ),
    ("plan ok.onnx --calib dtype.npz", 2, "it is complex64", "save numbers"),
    ("plan ok.onnx --calib none.npz", 2, "it holds no sample", "data is an .npz"),
    ("plan ok.onnx --calib nothing_here:f", 2, "No module named 'nothing_here'", "module"),
    ("build ok.onnx -o out --precision int8", 2, "no calibration data", "--calib"),
    (
        "build ok.onnx -o mine",
        2,
        "cannot write bundle to mine: it exists",
        "does not exist yet",
    ),
    ("build ok.onnx -o /proc/none/b", 2, "cannot write bundle to /proc/none/b", "write there"),
    ("bundle show none-such", 2, "cannot read bundle none-such: no such folder", "build"),
    ("bundle show bundle.zip", 2, "a file, not a folder", "unpack an archive first"),
    ("bundle verify linked", 2, "is not a plain file", "no links"),
    ("bundle verify flipped", 2, "cannot trust bundle flipped", "build it again"),
    ("bundle verify lacking", 2, "is missing", "copy the whole folder"),
    (
        "bundle verify escaping",
        2,
        "cannot read bundle escaping: manifest.json",
        "build it again",
    ),
    ("bundle verify deep", 2, "nested too deeply", "build it again"),
    ("bundle export bundle -o mine", 2, "cannot export to mine", "does not exist yet"),
    (
        "deploy bundle -o mine",
        2,
        "mine: it holds notes.txt, which edgesdk did not",
        "empty folder",
    ),
    ("deploy bundle -t raspberry-pi-5", 2, "it was built for host", "leave --target out"),
    ("deploy bundle --calib name.npz", 2, "bundles are never changed", "give the model"),
    ("deploy ok.onnx --runs 0 --duration 0", 2, "cannot measure like that", "--runs"),
    ("deploy ok.onnx --runs -1", 2, "Invalid value for '--runs'", "deploy --help"),
    ("deploy ok.onnx --precision auto --no-bench", 2, "auto with --no-bench", "--no-bench"),
    ("deploy ok.onnx --precision auto --baseline", 2, "float model competes anyway", "leave"),
    ("deploy ok.onnx --accept-slower", 2, "--accept-slower without --baseline", "add --base"),
    ("deploy bundle --accept-slower", 2, "cannot use --accept-slower with", "give the model"),
    ("debug ok.onnx", 2, "cannot debug ok: there is no calibration data", "--calib"),
    ("debug ok.onnx --precision int8", 2, "cannot quantize to int8: there is no", "--calib"),
    ("debug ok.onnx --sort size", 2, "cannot sort by 'size'", "--sort local"),
    ("debug ok.onnx -o layers.txt", 2, "it ends in neither .csv nor .json", "layers.csv"),
    ("debug ok.onnx --precision fp16", 2, "cannot debug ok: there is no cal", "--calib"),
    ("debug ok.onnx -d bench-3", 2, "cannot find device 'bench-3'", "give a URL such as"),
    ("status usb://stick", 2, "no scheme 'usb'", "device URLs look like"),
    ("status serial:///dev/x?baud=fast", 2, "option 'baud' is 'fast'", "baud=115200"),
    ("status bench-3", 2, "cannot find device 'bench-3'", "give a URL such as local:"),
    ("devices list --inventory none.yaml", 2, "cannot read inventory none.yaml", "--inventory"),
    (
        "targets list --targets-dir none",
        2,
        "cannot read the folder of target profiles",
        "folder",
    ),
    ("report none-such", 2, "cannot read report none-such", "name a report.json"),
    ("report ok.onnx", 2, "cannot read report ok.onnx", "report --schema"),
    ("agent pack -o /proc/none/a.pyz", 2, "cannot write the agent", "may write to"),
]


@pytest.mark.parametrize(
    ("line", "code", "problem", "hint"), TABLE, ids=[line for line, *_ in TABLE]
)
def test_it_is_refused_with_a_sentence_a_hint_and_its_code(
    line: str, code: int, problem: str, hint: str, given: Path, home: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(given)
    assert run([*line.split(), "--format", "json"]) == code
    seen = capsys.readouterr()
    record = json.loads(seen.out)
    error = record["error"]
    assert record["schema"] == "edgesdk.error/1"
    assert error["exit_code"] == code
    assert problem in error["problem"]
    assert error["hint"]
    assert hint in error["hint"]
    assert seen.err.count("error: ") == 1
    assert seen.err.count("hint: ") == 1
    assert "Traceback" not in seen.err
    assert (given / "mine" / "notes.txt").read_text() == "precious"
    assert [path.name for path in (given / "mine").iterdir()] == ["notes.txt"]


def test_files_of_others_with_our_names_are_not_overwritten(
    given: Path, home: Path, tmp_path: Path, capsys
) -> None:
    for name, text in (("report.json", "{}"), ("report.html", "<p>mine"), ("bundle", "x")):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text(text)
        assert run(["deploy", str(given / "bundle"), "-o", str(folder)]) == 2
        assert "which edgesdk did not write" in capsys.readouterr().err
        assert (folder / name).read_text() == text


def test_inspect_ends_with_1_where_a_lint_warns(tmp_path: Path, home: Path, capsys) -> None:
    path = tmp_path / "open.onnx"
    save_model(path, HEAD + "g (double[1, 4] x) => (double[1, 4] y) { y = Relu(x) }")
    assert run(["inspect", str(path), "--format", "json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "edgesdk.inspect/1"
    assert {"warning", "error"} & {each["severity"] for each in record["findings"]}


def test_the_schema_of_target_files_is_a_document_for_editors(home: Path, capsys) -> None:
    assert run(["targets", "schema"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert run(["targets", "schema", "--format", "json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == {"schema": "edgesdk.targets-schema/1", "json_schema": plain}
    assert plain["properties"]
