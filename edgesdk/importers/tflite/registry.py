"""Which operators of TFLite are converted, and by whom.

One is added in a module of `edgesdk.importers.tflite.ops`, which is found by itself:

    @converts("ELU")
    def convert_elu(site: Site) -> None: ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.importers.tflite.site import Site

__all__ = ["Convert", "conversion_of", "converts", "known_ops"]

Convert = Callable[["Site"], None]
_CONVERSIONS: dict[str, Convert] = {}
_LOADED: list[bool] = []


def converts(*ops: str) -> Callable[[Convert], Convert]:
    """Register a function that converts operators by their names in TFLite's schema."""

    def register(convert: Convert) -> Convert:
        for op in ops:
            assert op not in _CONVERSIONS, f"{op} has two conversions"
            _CONVERSIONS[op] = convert
        return convert

    return register


def conversion_of(op: str) -> Convert | None:
    """Give how an operator is converted, or None where it is not."""
    _load()
    return _CONVERSIONS.get(op)


def known_ops() -> tuple[str, ...]:
    """Name every operator that is converted, sorted."""
    _load()
    return tuple(sorted(_CONVERSIONS))


def _load() -> None:
    from edgesdk.importers.tflite import ops

    if not _LOADED:
        for module in pkgutil.iter_modules(ops.__path__):
            importlib.import_module(f"{ops.__name__}.{module.name}")
        _LOADED.append(True)
