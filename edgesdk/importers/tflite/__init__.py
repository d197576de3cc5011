"""TFLite to ONNX on this computer: float files to float graphs, quantized ones to Q/DQ graphs.

``walk`` goes through the operators, ``ops`` has what is made of each, ``site`` what such a
conversion is given, ``builder`` the nodes that turn axes and quantize, ``prove`` LiteRT's answer
beside onnxruntime's. A tensor stays in the order of axes in which an operator gave it, and is
turned where another one needs that: a chain of convolutions has a Transpose at its two ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgesdk.importers.tflite.importing import ImportedTflite, import_tflite
    from edgesdk.importers.tflite.walk import Converted, convert_tflite

__all__ = ["Converted", "ImportedTflite", "convert_tflite", "import_tflite"]

_HOMES = {
    "Converted": "walk",
    "convert_tflite": "walk",
    "ImportedTflite": "importing",
    "import_tflite": "importing",
}


def __getattr__(name: str) -> object:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
