"""The arrows between the parts of the package, held by reading every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgesdk

SRC = Path(edgesdk.__file__).parent
BASE = {"errors", "progress", "tensors", "near", "yaml_file"}

#: What each part may import; itself always, `edgesdk` alone (the version) too.
MAY_IMPORT: dict[str, set[str]] = {
    # the floor
    "errors": set(),
    "progress": set(),
    "near": set(),
    "yaml_file": {"errors"},
    "_resources": {"errors"},
    "tensors": {"errors", "wire"},
    "settings": {"errors", "near", "yaml_file"},
    "wire": set(),
    # where both columns meet
    "bundle": {*BASE, "wire"},
    "data": {*BASE, "wire"},
    # from a model to a bundle
    "profiles": {*BASE, "_resources"},
    "model": {*BASE, "wire"},
    "importers": {*BASE, "model", "_resources"},
    "backends": {*BASE, "profiles", "model"},
    "quantize": {*BASE, "profiles", "model", "data"},
    "plan": {*BASE, "wire", "profiles", "model", "backends", "data", "quantize"},
    "build": {
        *BASE,
        "wire",
        "profiles",
        "model",
        "backends",
        "data",
        "quantize",
        "plan",
        "bundle",
    },
    # from a bundle to a report
    "transport": {*BASE, "wire"},
    "devices": {*BASE, "wire", "transport", "profiles", "_resources"},
    "deploy": {*BASE, "wire", "devices", "transport", "bundle", "data", "profiles"},
    "bench": {*BASE, "wire", "devices", "deploy", "bundle", "data", "profiles"},
    "report": {*BASE, "bench"},
}
#: These may import everything.
TOP = {"__init__", "cli", "testing"}


def edgesdk_imports(path: Path) -> set[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {name.split(".")[1] for name in names if name.startswith("edgesdk.")}


def files_of(part: str) -> list[Path]:
    return [*SRC.glob(f"{part}.py"), *(SRC / part).rglob("*.py")]


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_nothing_imports_upwards(part: str) -> None:
    for path in files_of(part):
        extra = edgesdk_imports(path) - MAY_IMPORT[part] - {part, "__version__"}
        assert not extra, f"{path.relative_to(SRC)} may not import {sorted(extra)}"


def test_every_part_of_the_package_has_its_arrows() -> None:
    here = {
        path.stem if path.is_file() else path.name
        for path in SRC.iterdir()
        if path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))
    }
    assert here - TOP - {"_data"} <= set(MAY_IMPORT)


def test_the_two_columns_meet_only_in_bundle_and_data() -> None:
    build_side = {"model", "importers", "backends", "quantize", "plan", "build"}
    device_side = {"transport", "devices", "deploy", "bench", "report"}
    for part in build_side:
        assert not MAY_IMPORT[part] & device_side
    for part in device_side:
        assert not MAY_IMPORT[part] & build_side


def test_only_the_command_line_knows_the_settings() -> None:
    for part, allowed in MAY_IMPORT.items():
        assert "settings" not in allowed, part


def test_no_import_is_relative_anywhere() -> None:
    for path in SRC.rglob("*.py"):
        edgesdk_imports(path)


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("paramiko", "transport/ssh.py"),
        ("serial", "transport/serial.py"),
        ("pickle", None),
        ("marshal", None),
        ("typer", "cli"),
        ("rich", "cli"),
    ],
)
def test_a_library_is_imported_in_its_one_place(library: str, home: str | None) -> None:
    for path in SRC.rglob("*.py"):
        place = path.relative_to(SRC).as_posix()
        if home is not None and place.startswith(home):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            used = [name for name in names if name.split(".")[0] == library]
            assert not used, f"{place}:{node.lineno} imports {library}"
