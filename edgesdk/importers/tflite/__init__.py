"""TFLite to ONNX on this computer: float files to float graphs, quantized ones to Q/DQ graphs.

``walk`` goes through the operators, ``ops`` has what is made of each, ``site`` what such a
conversion is given, ``builder`` the nodes that turn axes and quantize, ``prove`` LiteRT's
answer beside onnxruntime's. A tensor stays in the order of axes in which an operator gave it,
and is turned where another one needs that: a chain of convolutions has a Transpose at its two
ends. How an operator is added is in the README of this folder.
"""

from __future__ import annotations
