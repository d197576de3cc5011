"""OpenVINO, on Intel's processors, GPUs and NPUs; parts become IR where it is installed.

``options.device`` of a profile is OpenVINO's own name: ``CPU`` (the default), ``GPU`` or
``NPU``, or several, best first: ``AUTO:NPU,CPU``, ``HETERO:NPU,CPU``. Only the processor's
plugin has run here; what the profile says of other devices comes from documents.
"""

from __future__ import annotations

from edgesdk.backends.base import Backend, CompiledPart, ModelFacts, PartJob, RuleBackend
from edgesdk.backends.openvino.convert import has_openvino
from edgesdk.backends.openvino.rules import device_rules, frontend_rules
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``."""
    is_onnx = model.source.format == "onnx"

    def reads_the_format(_: NodeFacts) -> str | None:
        return None if is_onnx else "this version of edgesdk gives it ONNX only, not TFLite"

    def compiler(job: PartJob) -> CompiledPart:
        from edgesdk.backends.openvino.compiler import compile_part

        return compile_part(job, profile)

    return RuleBackend(
        profile=profile,
        format="openvino" if has_openvino() else "onnx",
        rules=(reads_the_format, *frontend_rules(), *device_rules(profile)),
        compiler=compiler,
    )
