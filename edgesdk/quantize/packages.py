"""Versions of the packages that shape what the quantizer makes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable

__all__ = ["PACKAGES", "package_versions"]

PACKAGES = ("edgesdk", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript")


def package_versions(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Give the installed version of each package, by its name."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
