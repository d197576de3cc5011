"""Rules of the project that no linter knows, held by reading its own files."""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import edgesdk
from edgesdk import errors

SRC = Path(edgesdk.__file__).parent
TOP = SRC.parent
AGENT = TOP / "device_agents"
#: Names that say nothing about what lives in a module.
BANNED_STEMS = {"utils", "util", "helpers", "helper", "common", "misc", "tools", "core"}
#: Fillers of unfinished work.
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MAX_LINES = 400

if not (TOP / "pyproject.toml").is_file():
    pytest.skip("these rules are about the checkout", allow_module_level=True)

MODULES = sorted([*SRC.rglob("*.py"), *AGENT.rglob("*.py")])


def shown(path: Path) -> str:
    return path.relative_to(TOP).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    skipped = pytestconfig.getini("norecursedirs")
    for path in (TOP / "tests").rglob("test_*.py"):
        for folder in path.relative_to(TOP).parts[:-1]:
            assert not any(fnmatch.fnmatch(folder, each) for each in skipped), path


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_says_what_lives_there_and_is_named_for_it(path: Path) -> None:
    tree = tree_of(path)
    text = path.read_text(encoding="utf-8")
    assert path.stem not in BANNED_STEMS
    doc = ast.get_docstring(tree)
    assert doc or not text.strip(), "a module has a docstring"
    if len(text.splitlines()) > MAX_LINES:
        assert re.search(
            r"\b(because|long|one place|single module|one module|together)\b", doc or ""
        ), f"{len(text.splitlines())} lines, and the docstring gives no reason"


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_nothing_is_left_for_later(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [line.strip() for line in text.splitlines() if UNFINISHED.search(line)]
    assert not found


def test_only_the_command_line_prints_or_exits() -> None:
    for path in SRC.rglob("*.py"):
        place = path.relative_to(SRC)
        if place.parts[0] in ("cli", "testing"):
            continue
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            assert name not in ("print", "sys.exit", "exit"), f"{place}:{node.lineno} {name}"


def target_names() -> set[str]:
    """Every target and family name, without the default ones, which are words of English."""
    names: set[str] = set()
    for path in sorted((TOP / "targets").glob("*.yaml")):
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
        names.add(str(record.get("family")))
        names |= {str(each["name"]) for each in record.get("variants", ())}
    return {name for name in names if "-" in name}


def test_no_target_is_named_in_the_code() -> None:
    """Facts about targets are data: a name in the code would be a rule that hides from them."""
    names = target_names()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, f"{shown(path)}:{node.lineno} {node.value!r}"


def test_every_error_is_drawn_in_the_tree_and_has_a_code() -> None:
    drawn = set(re.findall(r"(\w+(?:Error|Missing|Mismatch|Timeout|Closed))\b", errors.__doc__))
    assert drawn == set(errors.__all__)
    for name in errors.__all__:
        assert getattr(errors, name).exit_code in (1, 2, 3, 4, 5, 6, 70)


def test_every_documented_exit_code_is_that_of_some_error() -> None:
    table = re.search(r"Exit codes:(.*?)\.\s", errors.__doc__ or "", flags=re.DOTALL)
    assert table is not None
    documented = {int(code) for code in re.findall(r"\b\d+\b", table.group(1))}
    raised = {getattr(errors, name).exit_code for name in errors.__all__}
    assert documented == raised | {errors.EXIT_OK, errors.EXIT_INTERRUPTED}


def test_every_test_file_has_its_own_subject() -> None:
    for path in (TOP / "tests").rglob("test_*.py"):
        assert ast.get_docstring(tree_of(path)), f"{shown(path)} has no docstring"


def test_readmes_of_folders_say_why_they_are_like_this() -> None:
    for name in ("targets", "device_agents", "tests", "configs"):
        text = (TOP / name / "README.md").read_text(encoding="utf-8")
        assert "## Why it is like this" in text, name


def test_examples_in_configs_are_recipes_that_load() -> None:
    from edgesdk.plan.recipe import load_recipe

    recipes = sorted((TOP / "configs" / "recipes").glob("*.yaml"))
    assert recipes
    for path in recipes:
        load_recipe(path)


def test_the_version_is_the_same_everywhere() -> None:
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{edgesdk.__version__}"' in text
    assert f"## [{edgesdk.__version__}]" in (TOP / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_is_the_whole_text() -> None:
    text = (TOP / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_no_tracked_file_is_large() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=False
    ).stdout
    for name in listed.decode("utf-8", "surrogateescape").split("\0"):
        path = TOP / name
        if name and path.is_file():
            assert path.stat().st_size <= 1_000_000, name
