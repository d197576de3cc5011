"""The root command: lazy, quick, and of one mind with its subcommands."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from edgesdk.cli.app import _MODULES, COMMANDS, run

CLI = Path(importlib.import_module("edgesdk.cli").__file__ or "").parent
HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "paramiko", "serial", "yaml", "matplotlib")


def command_of(name: str):
    module = importlib.import_module(f"edgesdk.cli.{_MODULES.get(name, name)}")
    return typer.main.get_command(module.app)


def in_child(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    assert command_of(name).help.splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_offers_json(name: str) -> None:
    command = command_of(name)
    leaves = list(getattr(command, "commands", {"": command}).values())
    assert leaves
    for leaf in leaves:
        assert any("--format" in param.opts for param in leaf.params), leaf.name


def test_help_lists_every_command_and_imports_none(capsys) -> None:
    assert run(["--help"]) == 0
    seen = capsys.readouterr().out
    assert all(f"  {name} " in seen for name in COMMANDS)
    assert "..." not in seen.replace("[ARGS]...", "")
    loaded = in_child(
        "import sys\n"
        "from edgesdk.cli.app import run\n"
        "run(['--help'])\n"
        f"heavy = {(*HEAVY, 'pydantic')!r}\n"
        "print('LOADED', [m for m in sys.modules if m.split('.')[0] in heavy"
        " or m.startswith('edgesdk.cli.') and m.rpartition('.')[2] in "
        f"{tuple(COMMANDS)!r}])"
    )
    assert loaded.endswith("LOADED []\n")


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    # pydantic is not among them: typer itself uses it to read arguments
    loaded = in_child(
        "import sys\n"
        "from edgesdk.cli.app import run\n"
        f"for name in {tuple(COMMANDS)!r}:\n"
        "    assert run([name, '--help']) == 0, name\n"
        f"print('LOADED', sorted({{m for m in sys.modules if m.split('.')[0] in {HEAVY!r}}}))"
    )
    assert loaded.endswith("LOADED []\n"), loaded.splitlines()[-1]


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys) -> None:
    assert run(["deplyo"]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "error: No such command 'deplyo'. Did you mean 'deploy'" in seen.err
    assert "hint: try 'edgesdk --help'" in seen.err


def test_an_unknown_option_is_a_usage_error_with_a_suggestion(capsys) -> None:
    assert run(["settings", "--inventry", "x"]) == 2
    assert "--inventory" in capsys.readouterr().err


def test_a_usage_error_with_json_is_a_document(capsys) -> None:
    assert run(["settings", "--bogus", "--format", "json"]) == 2
    record = json.loads(capsys.readouterr().out)
    assert record["schema"] == "edgesdk.error/1"
    assert record["error"]["code"] == "usage"
    assert record["error"]["exit_code"] == 2


@pytest.mark.parametrize("args", [[], ["targets"], ["devices"], ["bundle"], ["agent"]])
def test_a_group_alone_shows_its_help_as_a_usage_error(args, capsys) -> None:
    assert run(args) == 2
    assert "Commands:" in capsys.readouterr().err


def test_what_libraries_log_does_not_reach_the_screen() -> None:
    code = (
        "import logging\n"
        "from edgesdk.cli.app import run\n"
        "run(['settings', '--help'])\n"
        "logging.getLogger('some.library').warning('noise')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""


def test_the_version_is_the_packages(capsys) -> None:
    from edgesdk import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"edgesdk {__version__}\n"
