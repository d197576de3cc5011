"""Models: open and describe ONNX and TFLite files, simplify, convert and save ONNX graphs.

A model file is hostile until shown otherwise. What reads it is layered: its first bytes say
what it is (`content`), a bounded walk says that it can be parsed (`_protoscan`), external data
is found without following links (`_external`), and ONNX's C++ checker, shape inference and
version converter only run in a child process with limits (`_isolated`).

The heavy libraries are imported when a function needs them, never by importing this package.
"""

from __future__ import annotations

from edgesdk.model.convert import fit_opset
from edgesdk.model.lint import lint_model
from edgesdk.model.nodes import node_facts
from edgesdk.model.open import OpenedModel, open_model
from edgesdk.model.save import save_model
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import OpenedTflite, open_tflite
from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, TfliteSignature, TfliteTensor
from edgesdk.model.values import Finding, NodeFacts, SourceModel

__all__ = [
    "Finding",
    "NodeFacts",
    "OpenedModel",
    "OpenedTflite",
    "SourceModel",
    "TfliteGraph",
    "TfliteOp",
    "TfliteSignature",
    "TfliteTensor",
    "fit_opset",
    "lint_model",
    "node_facts",
    "open_model",
    "open_tflite",
    "save_model",
    "simplify",
]
