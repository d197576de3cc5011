"""LiteRT delegates that are no vendor's: one computes elementwise operators, one copies.

LiteRT loads them, asks them and calls them as it does real ones, so what is said of its
execution plan is true. They show nothing of any accelerator's speed: they are loops on the
processor. The one that copies takes compiled operators, whose inside only the vendor knows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FakeCompiledDelegate", "FakeDelegate"]

_SOURCES = Path(__file__).parent / "_litert"


def _make_library(source: str, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    command = [shutil.which("cc") or "cc", "-shared", "-fPIC", "-O1", "-o", str(library)]
    subprocess.run([*command, str(_SOURCES / source), "-lm"], check=True)


def _environment(folder: Path) -> dict[str, str]:
    known = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": f"{folder}:{known}" if known else str(folder)}


class FakeDelegate:
    """The delegate under a vendor's name, in a folder.

    Args:
        folder: Where; made if it is missing.
        library: The file name under which a runtime looks for it.
    """

    #: Operators that it takes, where they compute in float32.
    takes = ("LOGISTIC", "TANH")

    def __init__(self, folder: Path, *, library: str) -> None:
        self.folder = folder
        _make_library("delegate.c", folder / library)

    @staticmethod
    def why_not() -> str | None:
        """Say why it cannot be made here, or None."""
        return None if shutil.which("cc") else "there is no C compiler (cc) to make a delegate"

    def environment(self) -> Mapping[str, str]:
        """Give the variables under which a runtime finds it."""
        return _environment(self.folder)


class FakeCompiledDelegate:
    """A delegate for compiled operators under a vendor's name, in a folder.

    Args:
        folder: Where; made if it is missing.
        library: The file name under which a runtime looks for it.
        op: Which custom operator it takes.
    """

    def __init__(self, folder: Path, *, library: str, op: str) -> None:
        self.folder = folder
        self.op = op
        self.log = folder / "delegate.log"
        _make_library("compiled.c", folder / library)

    @staticmethod
    def why_not() -> str | None:
        """Say why it cannot be made here, or None."""
        return FakeDelegate.why_not()

    def environment(self, **settings: str) -> Mapping[str, str]:
        """Give the variables under which a runtime finds it.

        Args:
            settings: What it reads, such as ``FAKE_DELEGATE_ABSENT="1"``.
        """
        return {
            **_environment(self.folder),
            "FAKE_DELEGATE_OP": self.op,
            "FAKE_DELEGATE_LOG": str(self.log),
            **settings,
        }

    @property
    def events(self) -> list[str]:
        """What was made and taken, in order."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
