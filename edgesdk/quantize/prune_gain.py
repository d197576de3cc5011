"""What pruning bought: bytes, plain and packed, and whether it can have bought speed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgesdk.model.values import Finding
from edgesdk.quantize.prune_spec import PruneSpec

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ModelSize", "model_size", "speed_finding"]

_SPEED_WORTH_NAMING = 1.05

_NO_SPEED = {
    "onnxruntime": "onnxruntime's CPU provider multiplies zeros like other numbers",
    "openvino": "OpenVINO skips zeros only in 8-bit MatMul on some server processors, once a "
    "layer has the share of them that CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE names",
    "litert": "LiteRT's quantized kernels multiply zeros like other numbers",
    "tensorrt": "TensorRT uses 2:4 zeros on Ampere and newer, and only where the engine is "
    "built with trtexec --sparsity=enable",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The bytes of all constants, plain and as zlib packs them."""

    plain_bytes: int
    compressed_bytes: int


def model_size(model: ir.Model) -> ModelSize:
    """Measure all initializers, bodies of control flow included."""
    plain, packer, packed = 0, zlib.compressobj(6), 0
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                data = value.const_value.tobytes()
                plain += len(data)
                packed += len(packer.compress(data))
    return ModelSize(plain_bytes=plain, compressed_bytes=packed + len(packer.flush()))


def speed_finding(
    spec: PruneSpec, *, kind: str, speedup: float | None = None
) -> Finding | None:
    """Say that pruning bought no speed, and why, or None where it did or may be expected to.

    Args:
        spec: What was pruned.
        kind: The backend's kind, as target profiles name it.
        speedup: Latency before over latency after, where both were measured.
    """
    if spec.pattern == "channels" and speedup is None:
        return None
    if speedup is not None and speedup >= _SPEED_WORTH_NAMING:
        return None
    if spec.pattern == "channels":
        why = "the layers that shrank are not those that take the time"
    else:
        why = _NO_SPEED.get(
            kind, f"nothing is known of {kind or 'the runtime'} that uses zeros"
        )
    seen = "" if speedup is None else f" (it runs {speedup:.2f} times as fast)"
    return Finding(
        code="pruning-no-speed",
        severity="info",
        message=f"pruning by {spec.text} bought no speed{seen}: {why}",
        hint="channels:0.3 makes layers smaller for every runtime; zeros only pack better",
        subject=kind,
    )
