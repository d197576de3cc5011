"""OpenVINO on the CPU reads the Q/DQ ONNX file itself; its other devices want a compiled blob.

Operator support follows the ONNX frontend's table
(https://docs.openvino.ai/2026/documentation/compatibility-and-support/supported-operations.html).
"""

from __future__ import annotations

from edgesdk.backends.base import Backend, ModelFacts, RuleBackend
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]

_DOMAINS = ("", "ai.onnx")
#: Operators of onnxruntime's own domain that the frontend translates (read from its 2026.4
#: library; it registers them one by one).
_TRANSLATED = {
    "com.microsoft": frozenset(
        {
            "Attention",
            "BiasAdd",
            "BiasGelu",
            "DynamicQuantizeMatMul",
            "EmbedLayerNormalization",
            "FastGelu",
            "FusedConv",
            "FusedGemm",
            "FusedMatMul",
            "GatherBlockQuantized",
            "Gelu",
            "GroupNorm",
            "GroupQueryAttention",
            "MatMulIntegerToFloat",
            "MatMulNBits",
            "MultiHeadAttention",
            "QLinearConcat",
            "QuickGelu",
            "RotaryEmbedding",
            "SimplifiedLayerNormalization",
            "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        }
    )
}
#: Operators of the default domain that the frontend does not translate.
_NOT_TRANSLATED = frozenset(
    {
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "SequenceMap",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
        "ImageDecoder",
    }
)
_NO_KERNELS = frozenset({"complex64", "complex128", "string"})


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``; ``options.device`` is OpenVINO's name."""
    is_onnx = model.source.format == "onnx"
    device = str(profile.options.get("device", "CPU"))

    def compiles_for_the_device(_: NodeFacts) -> str | None:
        if device == "CPU":
            return None
        return f"this version of edgesdk does not compile for OpenVINO's {device}"

    def reads_the_format(_: NodeFacts) -> str | None:
        return None if is_onnx else "this version of edgesdk gives it ONNX only, not TFLite"

    def translates_the_op(node: NodeFacts) -> str | None:
        if node.domain in _TRANSLATED and node.op not in _TRANSLATED[node.domain]:
            return f"{node.op} of {node.domain} is not translated by OpenVINO's ONNX frontend"
        if node.domain not in (*_DOMAINS, *_TRANSLATED):
            return (
                f"{node.op} is in the operator domain {node.domain!r}, which is not translated"
            )
        if node.op in _NOT_TRANSLATED:
            return f"{node.op} is not translated by OpenVINO's ONNX frontend"
        return None

    def has_kernels(node: NodeFacts) -> str | None:
        for value in (*node.input_types, *node.output_types):
            if value is not None and value.dtype in _NO_KERNELS:
                return f"no kernel for {value.dtype} ({value.name})"
        return None

    rules = (compiles_for_the_device, reads_the_format, translates_the_op, has_kernels)
    return RuleBackend(profile=profile, format="onnx", rules=rules)
