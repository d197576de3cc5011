"""LiteRT on the CPU: runs a ``.tflite`` file as it is, and ONNX lowered to one."""

from __future__ import annotations

from edgesdk.backends.base import Backend, CompiledPart, ModelFacts, PartJob, RuleBackend
from edgesdk.backends.litert.rules import why_not_lowered
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]

#: Custom operators that stand for what a compiler made, and run nowhere else. Other custom ones
#: may have a kernel on the device, some of them in the runtime itself.
_COMPILED = {"edgetpu-custom-op": "an Edge TPU", "ethos-u": "an Ethos-U"}


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``.

    A TFLite file needs no compiler; a graph is lowered to one.
    """
    if model.source.format == "tflite":
        return RuleBackend(profile=profile, format="tflite", rules=(_needs_no_accelerator,))
    return RuleBackend(
        profile=profile, format="tflite", rules=(why_not_lowered,), compiler=_compile
    )


def _needs_no_accelerator(node: NodeFacts) -> str | None:
    if node.domain == "custom" and node.op in _COMPILED:
        return f"{node.op} is compiled for {_COMPILED[node.op]}, which it needs to run"
    return None


def _compile(job: PartJob) -> CompiledPart:
    from edgesdk.backends.litert.compiler import compile_part

    return compile_part(job)
