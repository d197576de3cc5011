"""What a bundle's bytes depend on besides its inputs: package versions and CPU features."""

from __future__ import annotations

import platform
from collections.abc import Iterable

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


#: Packages that shape a part, by the runtime it is for, where they are installed.
_BY_RUNTIME = {
    "openvino": ("openvino",),
    "litert": ("ai-edge-litert", "flatbuffers"),
}


def tool_versions(runtimes: Iterable[str] = ()) -> dict[str, str]:
    """Give the installed version of each package that shapes a build for ``runtimes``."""
    more = {name for each in runtimes for name in _BY_RUNTIME.get(each, ())}
    return package_versions((*PACKAGES, *sorted(more)))


def cpu_features() -> dict[str, object]:
    """Give this computer's machine name and the CPU features that decide kernels."""
    return {"machine": platform.machine(), "features": _features()}


def _features() -> list[str]:
    flags = cpu_flags()
    return [name for name in _FEATURES if name in flags]
