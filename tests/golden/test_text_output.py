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
    "targets-list": ["targets", "list"],
    "targets-show-unknown": ["targets", "show", "raspbery-pi-5"],
    "settings": ["settings"],
    "devices-list-none": ["devices", "list"],
    "device-url-unknown": ["status", "shh://pi@bench"],
    "deploy-no-such-model": ["deploy", "no-such-model.onnx"],
    "bundle-show-no-bundle": ["bundle", "show", "no-such-folder"],
    "report-none": ["report"],
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


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_as_it_was_agreed(name: str, capsys, monkeypatch, tmp_path: Path) -> None:
    for variable in list(os.environ):
        if variable.startswith("EDGESDK_") and variable != "EDGESDK_GOLDEN":
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.setenv("COLUMNS", "96")
    monkeypatch.delenv("EDGESDK_GOLDEN", raising=False)
    monkeypatch.chdir(tmp_path)
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
