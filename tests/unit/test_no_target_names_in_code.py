"""No code knows a target or a family by name: what they differ in is data in targets/*.yaml."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgesdk
from edgesdk.profiles import load_catalog

SOURCE = Path(edgesdk.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py") if "_data" not in path.parts)
NAMES = {name for p in load_catalog().values() for name in (p.name, p.family)}
INSIDE = re.compile(
    r"(?<![\w-])(" + "|".join(sorted(map(re.escape, NAMES), reverse=True)) + r")(?![\w-])"
)

#: Files in which a word that is also a target's name means something else.
HOMONYMS = {
    # the side that ran a model: the device, or the computer that commands it
    "bench/accuracy.py": {"host"},
    "bench/values.py": {"host"},
    "bench/benchmark.py": {"host"},
    "cli/debug.py": {"host"},
    "cli/debugjob.py": {"host"},
}


def docstrings(tree: ast.AST) -> set[int]:
    """Give the identity of each docstring node: prose may name a board as an example."""
    found = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            found.add(id(body[0].value))
    return found


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """Give line and name of each string constant that is, or holds, a target's name.

    A name of one word (such as ``host``) is too common a word to be looked for inside others.
    """
    tree = ast.parse(source)
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in prose:
            continue
        for name in INSIDE.findall(node.value):
            if "-" in name or node.value == name:
                yield node.lineno, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_string_in_the_code_names_a_target(path: Path) -> None:
    allowed = HOMONYMS.get(path.relative_to(SOURCE).as_posix(), set())
    found = [
        f"line {line}: {name}"
        for line, name in names_in(path.read_text(encoding="utf-8"))
        if name not in allowed
    ]
    assert not found, f"{path}: {found}; state a capability in the profile instead"


def test_a_name_would_be_found() -> None:
    assert list(names_in("x = 'raspberry-pi-5'")) == [(1, "raspberry-pi-5")]
    assert list(names_in("def f():\n    return f'use coral-usb, {1}'")) == [(2, "coral-usb")]
    assert list(names_in("if target == 'host':\n    pass")) == [(1, "host")]
    assert list(names_in("'''For a raspberry-pi-5.'''\nx = 'localhost'")) == []
