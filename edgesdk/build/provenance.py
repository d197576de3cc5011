"""What a bundle's bytes depend on besides its inputs: package versions and CPU features."""

from __future__ import annotations

import platform

from edgesdk.quantize.host import cpu_flags
from edgesdk.quantize.packages import PACKAGES, package_versions

__all__ = ["cpu_features", "tool_versions"]

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


def tool_versions(runtime: str = "") -> dict[str, str]:
    """Give the installed version of each package that shapes a build.

    OpenVINO is one where it is the ``runtime`` of the build: it decides which nodes stay in
    float, and where it is not installed nothing does.
    """
    return package_versions((*PACKAGES, "openvino") if runtime == "openvino" else PACKAGES)


def cpu_features() -> dict[str, object]:
    """Give this computer's machine name and the CPU features that decide kernels."""
    return {"machine": platform.machine(), "features": _features()}


def _features() -> list[str]:
    flags = cpu_flags()
    return [name for name in _FEATURES if name in flags]
