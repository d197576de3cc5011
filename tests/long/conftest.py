"""Environments of older images: their interpreter with the newest runtime it can get."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "older"


def find_python(version: str) -> str | None:
    """Find an interpreter called ``python<version>``, on PATH or among pyenv's."""
    if found := shutil.which(f"python{version}"):
        probe = [found, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return found
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for candidate in sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True):
        return str(candidate)
    return None


@pytest.fixture(scope="session")
def older_python() -> Callable[..., str]:
    """Give a function: (version, *requirements) to a Python that has them, made once."""

    def make(version: str, *requirements: str) -> str:
        base = find_python(version)
        if base is None:
            pytest.skip(f"there is no Python {version} here: install it with pyenv")
        folder = CACHE / re.sub(r"[^a-z0-9.-]", "", f"py{version}-{'-'.join(requirements)}")
        python = folder / "bin" / "python"
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([base, "-m", "venv", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
            subprocess.run([*install, *requirements], check=True)
            (folder / "complete").touch()
        return str(python)

    return make
