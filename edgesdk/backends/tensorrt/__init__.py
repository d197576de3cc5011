"""TensorRT on NVIDIA's GPUs and DLA cores; engines are finished on the device.

``options.dla`` names a DLA core; without it the backend is the GPU. What this package says
rests on documents: nothing of it has run on an NVIDIA device.
"""

from __future__ import annotations

from functools import partial

from edgesdk.backends.base import Backend, CompiledPart, ModelFacts, PartJob, RuleBackend
from edgesdk.backends.opsets import knows_the_version
from edgesdk.backends.tensorrt.dla import dla_rules
from edgesdk.backends.tensorrt.rules import gpu_rules
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``."""
    is_onnx = model.source.format == "onnx"

    def reads_the_format(_: NodeFacts) -> str | None:
        return None if is_onnx else "it reads ONNX, and this is a TFLite file"

    rules = (reads_the_format, knows_the_version(profile), *gpu_rules(profile))
    if "dla" in profile.options:
        rules = (*rules, *dla_rules(profile))
    return RuleBackend(
        profile=profile,
        format="onnx",
        rules=rules,
        compiler=partial(_compile, profile=profile),
    )


def _compile(job: PartJob, *, profile: BackendProfile) -> CompiledPart:
    from edgesdk.backends.tensorrt.compile import compile_part

    return compile_part(job, profile)
