"""LiteRT on the CPU runs a ``.tflite`` file as it is."""

from __future__ import annotations

from edgesdk.backends.base import Backend, ModelFacts, RuleBackend
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``."""
    is_tflite = model.source.format == "tflite"

    def reads_the_format(_: NodeFacts) -> str | None:
        if is_tflite:
            return None
        return "this version of edgesdk does not lower ONNX to LiteRT"

    def is_built_in(node: NodeFacts) -> str | None:
        if node.domain == "custom":
            return f"{node.op} is a custom op, for which LiteRT has no kernel"
        return None

    return RuleBackend(profile=profile, format="tflite", rules=(reads_the_format, is_built_in))
