"""What people see, word for word, scrubbed of paths and times.

The expected texts lie in ``expected/``. After a change that is meant, write them anew with
``EDGESDK_GOLDEN=write pytest tests/golden`` and read the difference before it is committed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edgesdk.cli.app import COMMANDS, run

EXPECTED = Path(__file__).parent / "expected"

CASES: dict[str, list[str]] = {
    "help": ["--help"],
    **{f"help-{name}": [name, "--help"] for name in COMMANDS},
    "help-bundle-export": ["bundle", "export", "--help"],
    "help-devices-facts": ["devices", "facts", "--help"],
    "help-agent-pack": ["agent", "pack", "--help"],
    "help-history-list": ["history", "list", "--help"],
    "help-history-import": ["history", "import", "--help"],
    "history-none": ["history"],
    "gate-nothing-recorded": ["gate", "--against", "main"],
    "targets-list": ["targets", "list"],
    "targets-show-unknown": ["targets", "show", "raspbery-pi-5"],
    "settings": ["settings"],
    "devices-list-none": ["devices", "list"],
    "device-url-unknown": ["status", "shh://pi@bench"],
    "deploy-no-such-model": ["deploy", "no-such-model.onnx"],
    "bundle-show-no-bundle": ["bundle", "show", "no-such-folder"],
    "report-none": ["report"],
    "report-contest": ["report", "report.json"],
    "report-all": ["report", "report.json", "--all"],
    "report-several": ["report", "runs"],
    "report-several-foreign": ["report", "report.json", "foreign.json", "older.json"],
    "deploy-contest-of-a-bundle": ["deploy", "bundle", "--backend", "ort-cpu"],
    "plan-contest": ["plan", "net.onnx", "-t", "contest-board", "--targets-dir", "targets"],
    "plan-unknown-backend": ["plan", "net.onnx", "-t", "imx8m-plus", "--backend", "ort-cp"],
    "unknown-command": ["delpoy"],
    "unknown-option": ["deploy", "model.onnx", "--clib", "x"],
    "missing-argument": ["build"],
}


def scrub(text: str, home: Path) -> str:
    text = text.replace(str(home), "HOME")
    text = re.sub(r"\b[0-9a-f]{64}\b", "SHA256", text)
    text = re.sub(r"\d{8}T\d{6}Z", "TIME", text)
    # paths differ in length, and tables are as wide as their longest cell
    text = re.sub(r"(?<=\S) {2,}(?=\S)", "  ", text) if "HOME" in text else text
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


TARGET = """
schema: 1
family: contest-board
vendor: nobody
backends:
  - {id: fast-npu, kind: nothing, runtime: echo, accelerator: true, precisions: [fp32],
     requirement: nobody makes it}
  - {id: ort-cpu, kind: onnxruntime, runtime: onnxruntime, precisions: [fp32],
     requirement: python3 -m pip install onnxruntime}
  - {id: openvino-cpu, kind: openvino, runtime: openvino, precisions: [fp32],
     requirement: python3 -m pip install openvino, options: {device: CPU}}
  - {id: other-cpu, kind: nothing, runtime: echo, precisions: [fp32],
     requirement: nobody makes it}
contest: [ort-cpu, openvino-cpu, other-cpu]
agent: {python: "3.9", reach: [ssh]}
identify: {machine: [aarch64]}
provenance:
  - fields: [backends, agent, identify, contest]
    kind: measured
    source: a test
    checked: "2026-12-01"
variants:
  - {name: contest-board, title: A board with a contest}
"""
NET = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 8] x) => (float[1, 8] y)
{
    kept = Relu (x)
    y = Sigmoid (kept)
}
"""


def make_files(folder: Path) -> None:
    """Lay out what commands of the cases read."""
    import onnx
    import onnx.parser

    from edgesdk.report.files import encode_report
    from tests.unit.report.fixtures import make_contest, make_several, vary

    (folder / "report.json").write_bytes(encode_report(vary(contest=make_contest())))
    for number, report in enumerate(make_several()):
        run_folder = folder / "runs" / str(number)
        run_folder.mkdir(parents=True)
        (run_folder / "report.json").write_bytes(encode_report(report))
    (folder / "foreign.json").write_text('{"results": []}', encoding="utf-8")
    (folder / "older.json").write_text('{"schema": "edgesdk.report/0"}', encoding="utf-8")
    onnx.save(onnx.parser.parse_model(NET), folder / "net.onnx")
    (folder / "targets").mkdir()
    (folder / "targets" / "contest-board.yaml").write_text(TARGET, encoding="utf-8")
    (folder / "bundle" / "blobs").mkdir(parents=True)
    (folder / "bundle" / "manifest.json").write_text("{}", encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_as_it_was_agreed(name: str, capsys, monkeypatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.startswith("EDGESDK_") and variable != "EDGESDK_GOLDEN":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / ".local" / "share"))
    monkeypatch.setenv("COLUMNS", "96")
    monkeypatch.delenv("EDGESDK_GOLDEN", raising=False)
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    code = run(CASES[name])
    seen = capsys.readouterr()
    text = f"$ edgesdk {' '.join(CASES[name])}\n{seen.out}"
    if seen.err:
        text += f"--- stderr\n{seen.err}"
    text = scrub(f"{text}--- exit code {code}\n", tmp_path)
    path = EXPECTED / f"{name}.txt"
    if WRITE:
        EXPECTED.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.is_file(), f"write it with EDGESDK_GOLDEN=write: {text}"
    assert text == path.read_text(encoding="utf-8")


WRITE = os.environ.get("EDGESDK_GOLDEN") == "write"


def test_no_expected_text_is_left_over() -> None:
    assert {path.stem for path in EXPECTED.glob("*.txt")} == set(CASES)
