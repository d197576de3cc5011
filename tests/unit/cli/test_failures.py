"""How errors end a command: text, code, document."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from edgesdk import errors
from edgesdk.cli import app
from edgesdk.cli.failures import error_code, interrupted, show_failure, wants_json

DOCUMENTED = {
    errors.FindingsError: 1,
    errors.InputError: 2,
    errors.BuildError: 3,
    errors.LinkError: 4,
    errors.RolledBackError: 6,
    errors.DeviceError: 5,
}


def every_error() -> list[type[errors.EdgeError]]:
    return [getattr(errors, name) for name in errors.__all__ if name != "EdgeError"]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_documented_code_and_text(kind, capsys) -> None:
    expected = next(code for base, code in DOCUMENTED.items() if issubclass(kind, base))
    error = kind("cannot open x: it is y", hint="try z", path="x")
    assert show_failure(error, ["status"]) == expected
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err == "error: cannot open x: it is y\nhint: try z\n"
    assert f"── {kind.__name__}" in (errors.__doc__ or "")


def test_with_json_the_error_is_a_document(capsys) -> None:
    error = errors.ChannelTimeout("cannot read", hint="wait", timeout_s=5.0, path=Path("/x"))
    assert show_failure(error, ["status", "--format", "json"]) == 4
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {
        "schema": "edgesdk.error/1",
        "error": {
            "code": "channel-timeout",
            "exit_code": 4,
            "problem": "cannot read",
            "hint": "wait",
            "facts": {"timeout_s": 5.0, "path": "/x"},
        },
    }
    assert seen.err.startswith("error: cannot read\n")


def test_an_unknown_exception_is_a_bug_whose_traceback_is_kept(
    capsys, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as exc:
        code = show_failure(exc, ["deploy", "ssh://pi:secret@host"])
    assert code == 70
    seen = capsys.readouterr().err
    (kept,) = (tmp_path / "edgesdk").glob("crash-*.txt")
    assert seen.startswith("error: internal error: ZeroDivisionError: division by zero\n")
    assert f"hint: this is a bug in edgesdk; the traceback is in {kept}" in seen
    assert "Traceback" not in seen
    text = kept.read_text(encoding="utf-8")
    assert "Traceback" in text
    assert "secret" not in text
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_an_error_nobody_classified_is_a_bug_too(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert show_failure(errors.EdgeError("cannot be"), []) == 70
    assert "this is a bug in edgesdk" in capsys.readouterr().err


def test_control_characters_in_an_error_do_not_reach_the_terminal(capsys) -> None:
    show_failure(errors.DeviceError("cannot run: \x1b[31mred"), [])
    assert "\x1b" not in capsys.readouterr().err


def test_interrupting_says_what_the_device_keeps(capsys) -> None:
    assert interrupted(["deploy", "m.onnx"]) == 130
    assert "hint: a device keeps the release it had" in capsys.readouterr().err


@pytest.mark.parametrize("raised", [KeyboardInterrupt, 130])
def test_ctrl_c_anywhere_ends_with_130(monkeypatch, capsys, raised) -> None:
    class Root:
        def main(self, **_: object) -> object:
            if raised is KeyboardInterrupt:
                raise KeyboardInterrupt
            return raised

    monkeypatch.setattr(app, "root_command", Root)
    assert app.run(["status"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        (["x", "--format", "json"], True),
        (["x", "--format=json"], True),
        (["x", "--format", "text"], False),
        (["x", "--format"], False),
        (["x", "--", "--format", "json"], False),
        (["x", "json"], False),
    ],
)
def test_json_is_recognized_in_lines_that_cannot_be_parsed(args, asked) -> None:
    assert wants_json(args) is asked


def test_codes_for_scripts_are_hyphenated_class_names() -> None:
    assert error_code(errors.HostKeyError("x")) == "host-key-error"
    assert error_code(errors.RuntimeMissing("x")) == "runtime-missing"


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_without_a_hint_gets_the_usual_one(kind, capsys) -> None:
    show_failure(kind("cannot open x: it is y"), ["status"])
    problem, hint = capsys.readouterr().err.splitlines()
    assert problem == "error: cannot open x: it is y"
    assert len(hint) > len("hint: ")
