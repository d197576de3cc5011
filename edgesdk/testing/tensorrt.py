"""A device with TensorRT that is none: ``trtexec``, the Python package and CUDA's library.

The three stand in for NVIDIA's as programs and libraries that an agent finds where it would
find the real ones, so all of its code runs. Engines hold the model and onnxruntime runs them,
so the numbers are real. What they do not show: speed, memory, and whatever the real ones do
otherwise than their documentation says.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["FakeTensorrt"]

_SOURCES = Path(__file__).parent / "_tensorrt"


def _compiler() -> str:
    return shutil.which("cc") or "cc"


class FakeTensorrt:
    """The stand-ins, laid out in a folder.

    Args:
        folder: Where; made if it is missing.
        version: Of TensorRT: 8.5.2, 8.6.1, 10.3.0, 11.0.0 or the like.
        trtexec: Whether the program is there; without it, engines are built by the package.
        package: Whether the Python package is there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        version: str = "10.3.0",
        trtexec: bool = True,
        package: bool = True,
    ) -> None:
        self.folder = folder
        self.version = version
        self.log = folder / "trtexec.log"
        tools = folder / "tools"
        programs, modules, libraries = folder / "bin", folder / "python", folder / "lib"
        for place in (tools, programs, modules, libraries):
            place.mkdir(parents=True, exist_ok=True)
        for name in ("trtexec.py", "fake_plans.py"):
            shutil.copy(_SOURCES / name, tools / name)
        for name in ("tensorrt.py", "fake_plans.py") if package else ():
            shutil.copy(_SOURCES / name, modules / name)
        if trtexec:
            program = programs / "trtexec"
            program.write_text(
                f'#!/bin/sh\nexec "{sys.executable}" "{tools}/trtexec.py" "$@"\n'
            )
            program.chmod(0o755)
        library, source = libraries / "libcudart.so", _SOURCES / "cudart.c"
        subprocess.run(
            [_compiler(), "-shared", "-fPIC", "-O1", "-o", str(library), str(source)],
            check=True,
        )

    @staticmethod
    def why_not() -> str | None:
        """Say why the stand-ins cannot be made here, or None."""
        if shutil.which("cc") is None:
            return "there is no C compiler (cc), which makes the CUDA stand-in"
        return None

    def environment(self, path: str, **settings: str) -> Mapping[str, str]:
        """Give the variables under which an agent finds them.

        Args:
            path: The search path for programs of everything else.
            settings: What the stand-ins read, such as ``FAKE_TRTEXEC="hang"``.
        """
        return {
            "PATH": f"{self.folder / 'bin'}:{path}",
            "PYTHONPATH": str(self.folder / "python"),
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
            "FAKE_TENSORRT_VERSION": self.version,
            "FAKE_TRTEXEC_LOG": str(self.log),
            **settings,
        }

    @property
    def builds(self) -> list[str]:
        """The command lines that ``trtexec`` got, without those that ask for help."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
