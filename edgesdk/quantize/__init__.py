"""From a float ONNX graph to Q/DQ ONNX, by the scheme that the target profile names.

Q/DQ ONNX is the single quantized source: every vendor format is derived from it. The work is
done by onnxruntime's static quantizer behind `quantize`; callers see only this interface.
"""

from __future__ import annotations

from edgesdk.quantize.engine import LeftFloat, Quantized, quantize
from edgesdk.quantize.scope import why_float

__all__ = ["LeftFloat", "Quantized", "quantize", "why_float"]
