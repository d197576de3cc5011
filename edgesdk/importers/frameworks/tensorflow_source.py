"""What every model of TensorFlow is to the rest of its exporter, wherever it came from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgesdk.importers.frameworks.tensorflow_inputs import Taken

__all__ = ["Source", "one_line", "versions_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model of TensorFlow, wherever it came from.

    Attributes:
        inputs: What it takes.
        outputs: Name of each thing it gives, in order.
        call: What it gives for inputs by name, in the order of ``outputs``; works on numpy
            arrays and, while a function is being traced, on TensorFlow's tensors.
        layers: Names of its layers, where it has such.
    """

    inputs: tuple[Taken, ...]
    outputs: tuple[str, ...]
    call: Callable[[Mapping[str, Any]], list[Any]]
    versions: Mapping[str, str]
    layers: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def versions_of(*packages: str) -> dict[str, str]:
    """Versions of these packages, of those that are there."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        for name in (package, f"{package}-cpu"):
            try:
                found[package] = version(name)
                break
            except PackageNotFoundError:
                continue
    return found


def one_line(error: object, most: int = 300) -> str:
    """What an error of a framework says, without its line breaks and colours."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())[:most]
