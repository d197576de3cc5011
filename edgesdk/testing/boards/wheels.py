"""Wheels for another machine, fetched and unpacked by pip; every one is checked by its hash."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgesdk.testing.boards.commands import run_program

__all__ = ["fetch_wheels"]

_FETCH_S = 900.0


def fetch_wheels(
    folder: Path, requirements: Path, *, python: str, platforms: Sequence[str]
) -> None:
    """Unpack the wheels that a file pins into ``folder``.

    Args:
        folder: Becomes a folder of packages for that Python.
        requirements: Names with versions and hashes, all that is needed.
        python: The version of the interpreter there, such as ``3.11``.
        platforms: Platform tags that fit there.

    Raises:
        BootstrapError: The index cannot be reached, or has other files.
    """
    doing = "fetch the runtimes' wheels"
    tags = [option for platform in platforms for option in ("--platform", platform)]
    run_program(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-input", "--no-deps", "--require-hashes", "--only-binary=:all:"),
            *("--no-compile", "--implementation", "cp", "--python-version", python, *tags),
            *("--target", str(folder), "--requirement", str(requirements)),
        ],
        doing=doing,
        timeout_s=_FETCH_S,
        hint="can this computer reach the package index that pip uses?",
        environment={"PIP_USER": "0"},
    )
