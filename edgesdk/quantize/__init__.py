"""From a float ONNX graph to one of another precision, by the scheme that the target names.

Q/DQ ONNX is the single quantized source: every vendor format is derived from it. The module
itself can be called, as the verb that the package offers: ``edgesdk.quantize(model, data)``.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import TYPE_CHECKING, Any

from edgesdk.quantize.scope import why_float
from edgesdk.quantize.values import Converted, LeftFloat, Mean, Quantized

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Converted", "LeftFloat", "Mean", "Quantized", "why_float"]

_ABOUT = __doc__


class _CallableModule(types.ModuleType):
    """A module that is also the function it is named after (``edgesdk.quantize.api``)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Quantized:
        """Quantize a model; see `edgesdk.quantize.api.quantize`."""
        return _function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """The function's, for `inspect.signature` and editors."""
        return inspect.signature(_function())

    @property
    def __doc__(self) -> str:  # type: ignore[override]  # computed: the function loads on use
        """What the module is and what the function takes, for `help`."""
        function = _function()
        return f"{_ABOUT}\nquantize{inspect.signature(function)}\n\n{inspect.getdoc(function)}"


def _function() -> Callable[..., Quantized]:
    from edgesdk.quantize.api import quantize

    return quantize


sys.modules[__name__].__class__ = _CallableModule
