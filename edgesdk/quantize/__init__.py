"""From a float ONNX graph to one of another precision, by the scheme that the target names.

Q/DQ ONNX is the single quantized source: every vendor format is derived from it. The module
itself can be called, as the verb that the package offers: ``edgesdk.quantize(model, data)``.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from edgesdk.quantize.scope import why_float
from edgesdk.quantize.values import Converted, LeftFloat, Mean, Quantized

__all__ = ["Converted", "LeftFloat", "Mean", "Quantized", "why_float"]


class _CallableModule(types.ModuleType):
    """A module that is also the function it is named after (``edgesdk.quantize.api``)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Quantized:
        """Quantize a model; see `edgesdk.quantize.api.quantize`."""
        from edgesdk.quantize.api import quantize

        return quantize(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
