"""Rules of the agent's code: standard library only, nothing unpacked, nothing unpickled."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgesdk

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "device_agents" / "edge_agent"
SOURCES = [*sorted(AGENT.rglob("*.py")), *sorted((ROOT / "edgesdk" / "wire").glob("*.py"))]
RUNTIMES = {
    "client.py": {"numpy"},  # for applications that have it
    "runtimes/arrays.py": {"numpy"},
    "runtimes/onnxruntime.py": {"onnxruntime"},
    "runtimes/openvino.py": {"openvino"},
    "runtimes/trtpart.py": {"numpy", "tensorrt"},
}
BANNED = {
    "pickle",
    "marshal",
    "shelve",
    "tarfile",
    "zipfile",
    "shutil",
    "dbm",
    "urllib",
    "http",
}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_the_standard_library_and_the_wire(path: Path) -> None:
    allowed: set[str] = set()
    if AGENT in path.parents:
        allowed = RUNTIMES.get(str(path.relative_to(AGENT)), set())
    for name in imports(path):
        top = name.split(".")[0]
        assert top not in BANNED, f"{path.name} imports {name}"
        if top == "edgesdk":
            assert name == "edgesdk" or name.startswith("edgesdk.wire"), name
        else:
            known = top in sys.stdlib_module_names or top == "edge_agent" or top in allowed
            assert known, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_calls_nothing_that_runs_text(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_below_four_hundred_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_agent_and_project_have_one_version() -> None:
    text = (AGENT / "__init__.py").read_text(encoding="utf-8")
    assert f'__version__ = "{edgesdk.__version__}"' in text
