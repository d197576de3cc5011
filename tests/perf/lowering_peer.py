"""onnx2tf and litert-quantizer, each in an environment of its own, and clocks for all of us.

onnx2tf pins Python 3.12 and every package it uses, so it gets both. Environments are made once,
under ``.cache/peers``.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from quantize_fetch import CACHE

__all__ = ["Spent", "peer_environment", "python_312", "quantize_by_peer", "spend"]

#: By name of the environment; both are compared at these versions.
REQUIREMENTS = {"onnx2tf": "onnx2tf==2.6.9", "litert-quantizer": "litert-quantizer==0.11.0"}

_QUANTIZE = """
import sys
import numpy as np
from litert_quantizer import quantizer, recipe
from ai_edge_litert.interpreter import Interpreter
source, data, out = sys.argv[1:]
interpreter = Interpreter(source)
(key,) = interpreter.get_signature_list()
(name,) = interpreter.get_signature_list()[key]["inputs"]
rows = np.load(data)["input"]
feeds = [{name: np.ascontiguousarray(row.transpose(1, 2, 0)[None])} for row in rows]
work = quantizer.Quantizer(source, recipe.static_wi8_ai8())
result = work.quantize(work.calibrate({key: feeds}))
open(out, "wb").write(result.quantized_model)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a process and its children took: seconds of the clock, and of processors."""

    wall_s: float
    cpu_s: float


def python_312() -> str | None:
    """Find an interpreter of the version that onnx2tf asks for; None if there is none."""
    found = [*Path.home().glob(".pyenv/versions/3.12*/bin/python"), shutil.which("python3.12")]
    for path in found:
        if path is None:
            continue
        command = [str(path), "-c", "import sys; print(sys.version_info[:2])"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == "(3, 12)":
            return str(path)
    return None


def peer_environment(name: str, python: str) -> Path:
    """Give the folder of programs of a peer's environment, made once."""
    folder = CACHE / "peers" / name
    stamp = folder / "requirements"
    wanted = REQUIREMENTS[name]
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", wanted]
        subprocess.run(install, check=True, stderr=subprocess.PIPE, text=True)
        stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def spend(command: list[str], programs: Path | None = None) -> Spent:
    """Run a program to its end and say what it took."""
    path = os.environ["PATH"]
    if programs is not None:
        path = f"{programs}{os.pathsep}{path}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(wall_s=wall, cpu_s=cpu)


def quantize_by_peer(programs: Path, source: Path, data: Path, out: Path) -> None:
    """Quantize a float TFLite file with litert-quantizer; ``data`` has rows of ``input``."""
    command = [str(programs / "python"), "-c", _QUANTIZE, str(source), str(data), str(out)]
    subprocess.run(command, check=True, capture_output=True, text=True)
