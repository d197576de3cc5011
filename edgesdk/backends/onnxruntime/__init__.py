"""onnxruntime on the CPU: reads the ONNX file itself, so its rules are on versions and types.

Ceilings come from the target profile: the newest operator set and IR version of the onnxruntime
that the target's images have (https://onnxruntime.ai/docs/reference/compatibility.html).
"""

from __future__ import annotations

from functools import cache

from edgesdk.backends.base import Backend, ModelFacts, RuleBackend
from edgesdk.backends.opsets import knows_the_version
from edgesdk.model.classical import why_it_stays
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["make_backend"]

_OWN_DOMAIN = "com.microsoft"
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", _OWN_DOMAIN)
#: Types that the CPU provider has no kernels for.
_NO_KERNELS = frozenset({"complex64", "complex128"})


def make_backend(profile: BackendProfile, model: ModelFacts) -> Backend:
    """Give the rules of this backend for ``model``."""
    is_onnx = model.source.format == "onnx"

    def reads_the_format(_: NodeFacts) -> str | None:
        return None if is_onnx else "it reads ONNX, and this is a TFLite file"

    def knows_the_domain(node: NodeFacts) -> str | None:
        if node.domain == _OWN_DOMAIN and not _is_registered(node.op):
            return f"{node.op} of {_OWN_DOMAIN} is not an operator that onnxruntime registers"
        if node.domain in _DOMAINS:
            return None
        return f"{node.op} is in the operator domain {node.domain!r}, which is not registered"

    def has_kernels(node: NodeFacts) -> str | None:
        for value in (*node.input_types, *node.output_types):
            if value is not None and value.dtype in _NO_KERNELS:
                return f"no CPU kernel for {value.dtype} ({value.name})"
        return None

    def leaves_it_to_the_processor(node: NodeFacts) -> str | None:
        reason = why_it_stays(node) if profile.accelerator else None
        return reason and f"{node.op} {reason}, and onnxruntime has kernels of it for CPUs only"

    rules = (
        reads_the_format,
        knows_the_domain,
        leaves_it_to_the_processor,
        knows_the_version(profile),
        has_kernels,
    )
    return RuleBackend(profile=profile, format="onnx", rules=rules)


@cache
def _own_operators() -> frozenset[str]:
    from onnxruntime.capi import onnxruntime_pybind11_state

    schemas = onnxruntime_pybind11_state.get_all_operator_schema()
    return frozenset(schema.name for schema in schemas if schema.domain == _OWN_DOMAIN)


def _is_registered(op: str) -> bool:
    """Say whether this computer's onnxruntime registers ``op`` in its own domain.

    It stands for the target's: the build loads the part here, and the device checks it there.
    """
    return op in _own_operators()
