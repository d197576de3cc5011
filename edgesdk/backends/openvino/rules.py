"""What OpenVINO turns down: operators its ONNX frontend does not translate, and device limits.

Operator support follows the ONNX frontend's table
(https://docs.openvino.ai/2026/documentation/compatibility-and-support/supported-operations.html).
What a device takes is data that the profile names (``targets/limits``).
"""

from __future__ import annotations

from edgesdk.backends.base import WhyNot
from edgesdk.backends.openvino.devices import family_of, mode_of, named_devices
from edgesdk.model.classical import why_it_stays
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile
from edgesdk.tensors import TensorInfo

__all__ = ["device_rules", "frontend_rules"]

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
#: Devices that there are plugins for.
_DEVICES = ("CPU", "GPU", "NPU")


def frontend_rules() -> tuple[WhyNot, ...]:
    """Give the rules that hold whatever the device."""
    return (_translates_the_op, _has_kernels)


def device_rules(profile: BackendProfile) -> tuple[WhyNot, ...]:
    """Give the rules of the device, or devices, that ``options.device`` names.

    With ``HETERO`` what one device does not take runs on another in the same part, so that only
    shapes matter; with ``AUTO`` one device takes all or another one does, so that a node the
    first does not take would send all the others away from it too.
    """
    device = str(profile.options.get("device", "CPU"))
    listed = named_devices(device)
    unknown = [name for name in listed if family_of(name) not in _DEVICES]
    if unknown:
        why = f"OpenVINO has no device {unknown[0]} (it has {', '.join(_DEVICES)})"
        return (lambda _: why,)
    limits = profile.limits
    if limits is None:
        return ()
    first = listed[0] if listed else device
    mixed = mode_of(device) == "HETERO" and any(family_of(name) == "CPU" for name in listed)

    def has_fixed_shapes(node: NodeFacts) -> str | None:
        for value in _values(node):
            for position, extent in enumerate(value.shape):
                if not isinstance(extent, int):
                    return (
                        f"extent {position} of {value.name} is not fixed, and OpenVINO's "
                        f"{first} takes fixed shapes only"
                    )
        return None

    def takes_the_op(node: NodeFacts) -> str | None:
        for op in (node.op, *node.subgraph_ops):
            reason = None if node.domain not in _DOMAINS else limits.refused.get(op)
            if reason is not None:
                inside = "" if op == node.op else f" (in a body of {node.op})"
                return f"OpenVINO's {first} does not take {op}{inside}: {reason}"
        return None

    def takes_the_types(node: NodeFacts) -> str | None:
        for value in _values(node):
            if value.dtype and value.dtype not in limits.types:
                return f"{value.name} is {value.dtype}, which OpenVINO's {first} does not take"
        return None

    def takes_the_rank(node: NodeFacts) -> str | None:
        most = limits.most_rank
        for value in _values(node):
            if most is not None and len(value.shape) > most:
                return (
                    f"{value.name} has {len(value.shape)} dimensions (OpenVINO's {first} takes "
                    f"at most {most})"
                )
        return None

    shapes: tuple[WhyNot, ...] = (has_fixed_shapes,) if limits.fixed_shapes else ()
    return shapes if mixed else (takes_the_op, *shapes, takes_the_types, takes_the_rank)


def _values(node: NodeFacts) -> list[TensorInfo]:
    return [value for value in (*node.input_types, *node.output_types) if value is not None]


def _translates_the_op(node: NodeFacts) -> str | None:
    if node.domain in _TRANSLATED and node.op not in _TRANSLATED[node.domain]:
        return f"{node.op} of {node.domain} is not translated by OpenVINO's ONNX frontend"
    if (reason := why_it_stays(node)) is not None:
        return f"{node.op} {reason}, and OpenVINO's ONNX frontend does not translate it"
    if node.domain not in (*_DOMAINS, *_TRANSLATED):
        return f"{node.op} is in the operator domain {node.domain!r}, which is not translated"
    if node.op in _NOT_TRANSLATED:
        return f"{node.op} is not translated by OpenVINO's ONNX frontend"
    return None


def _has_kernels(node: NodeFacts) -> str | None:
    for value in _values(node):
        if value.dtype in _NO_KERNELS:
            return f"no kernel for {value.dtype} ({value.name})"
    return None
