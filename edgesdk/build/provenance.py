"""What a bundle's bytes depend on besides its inputs: package versions and CPU features."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

__all__ = ["cpu_features", "sums_saturate", "tool_versions"]

_PACKAGES = ("edgesdk", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")
#: The instruction sets by which onnxruntime chooses its kernels, as /proc/cpuinfo names them.
_FEATURES = (
    "asimddp",
    "avx",
    "avx2",
    "avx512_vnni",
    "avx512f",
    "avx_vnni",
    "amx_int8",
    "i8mm",
    "sve",
)


def tool_versions() -> dict[str, str]:
    """Give the installed version of each package that shapes a build."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def cpu_features() -> dict[str, object]:
    """Give this computer's machine name and the CPU features that decide kernels."""
    return {"machine": platform.machine(), "features": _features()}


def sums_saturate() -> bool:
    """Say whether this CPU adds products of 8-bit numbers in 16 bits, which may overflow.

    That is x86 without VNNI (``vpmaddubsw``); see
    https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html.
    """
    exact = {"avx512_vnni", "avx_vnni", "amx_int8"}
    return platform.machine() in ("x86_64", "AMD64") and exact.isdisjoint(_features())


def _features() -> list[str]:
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("flags", "features"):
                flags.update(value.split())
                break
    return [name for name in _FEATURES if name in flags]
