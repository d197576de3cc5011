"""From the graph of a part to OpenVINO IR, and what of its 8 bits the plugin keeps.

The IR is made by OpenVINO's own frontend from the Q/DQ graph, whose pairs stay in it as they
are: which of them become 8-bit kernels is for the plugin of the device to decide, but for what
`fences.py` keeps from it. What the CPU's makes of them is looked up here, in its runtime model.
A plugin for another device cannot be asked here; it compiles when the part is loaded first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.backends.base import CompiledPart, NodesRefused, PartJob
from edgesdk.backends.fallbacks import AT_LOAD
from edgesdk.backends.openvino.convert import (
    Converted,
    convert_to_ir,
    has_openvino,
    named_nodes,
)
from edgesdk.backends.openvino.devices import named_devices
from edgesdk.backends.openvino.fences import fence_pools
from edgesdk.backends.program import time_limit_s
from edgesdk.errors import CompileError
from edgesdk.model.openvino_layers import layers_of
from edgesdk.model.values import Finding
from edgesdk.profiles.values import BackendProfile

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["compile_part"]

_COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WHOLE = frozenset({"u8", "i8"})
_FLOATS = frozenset({"f32", "f16", "bf16", "f64"})
#: Primitives that stand for data, and those that only bring numbers into another type or order.
_NO_WORK = frozenset({"Input", "Output", "Const", "Constant", "Parameter", "Result"})
_CONVERSIONS = frozenset({"FakeQuantize", "Convert", "Reorder"})
#: Primitives that multiply and accumulate.
_KERNELS = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "Gemm"})
_STATIC = "static-shapes-only"
_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def compile_part(job: PartJob, profile: BackendProfile) -> CompiledPart:
    """Make the IR of a part.

    ``options.compile-timeout-s`` in the profile bounds how long it may take.

    ``inside`` has, counted over what this computer's CPU executes: ``int8_ops``, among them
    ``int8_kernels`` by type; ``float_ops``; ``conversions`` between the two; ``quantized``,
    how many operators of the graph are meant to multiply 8-bit numbers, and ``not_fused``, the
    names of those that do not. ``checked_on`` says whose word that is, ``compiled`` when the
    device's own plugin compiles, ``openvino`` the version that wrote the IR.

    Raises:
        NodesRefused: OpenVINO does not read or compile some nodes, or cannot say which.
        CompileError: There is no graph, or it cannot be written.
    """
    from edgesdk.model.save import save_model

    if job.model is None:
        raise CompileError(
            f"cannot compile {job.source} for {profile.id}: it is given ONNX only",
            hint="give the ONNX model it was made from",
        )
    fenced = fence_pools(job.model)
    if not has_openvino():
        return _as_onnx(job, fenced)
    paths = save_model(fenced, job.folder, f"part-{job.index}-source")
    target = job.folder / f"part-{job.index}.xml"
    seen = convert_to_ir(paths[0], target, timeout_s=time_limit_s(profile.options))
    on_cpu = named_devices(str(profile.options.get("device", "CPU"))) == ("CPU",)
    if not seen.has_ir or (on_cpu and seen.stage != "compiled"):
        raise NodesRefused(_blamed(job.model, seen))
    if _STATIC in profile.quirks and seen.open:
        _refuse_open(job.model, seen, profile)
    inside: dict[str, Any] = {
        "openvino": seen.version.partition("-")[0],
        "compiled": "when it is loaded" if on_cpu else "on the device, when it is loaded first",
        "checked_on": "CPU" if seen.stage == "compiled" else None,
        **_fusion(job.model, seen, profile),
    }
    spare, findings = _spare(job, profile)
    findings += _findings(inside, seen, profile, on_cpu=on_cpu)
    return CompiledPart(
        files={"model": target, "data": target.with_suffix(".bin")},
        format="openvino",
        on_host=None if seen.stage == "compiled" else paths[0],
        spare=spare,
        findings=tuple(findings),
        requires={"openvino": inside["openvino"]},
        inside=inside,
    )


def _as_onnx(job: PartJob, model: ir.Model) -> CompiledPart:
    """Ship the graph as it is; the frontend reads it on the device."""
    from edgesdk.model.convert import fit_opset
    from edgesdk.model.save import save_model

    model = fit_opset(model, lowest=1, highest=job.max_opset, max_ir=job.max_ir)
    paths = save_model(model, job.folder, f"part-{job.index}")
    return CompiledPart(
        files=dict(zip(("model", "data"), paths, strict=False)),
        format="onnx",
        requires={"opset": model.opset_imports.get(""), "ir_version": model.ir_version},
        findings=(_not_installed(),),
    )


def _spare(job: PartJob, profile: BackendProfile) -> tuple[dict[str, Path], list[Finding]]:
    """Write the part as ONNX for the runtimes that serve it where the device does not."""
    from edgesdk.model.convert import fit_opset
    from edgesdk.model.save import save_model

    if AT_LOAD not in profile.quirks or job.model is None:
        return {}, []
    try:
        model = fit_opset(job.model, lowest=1, highest=job.max_opset, max_ir=job.max_ir)
    except CompileError as exc:
        finding = Finding(
            code="no-spare",
            severity="warning",
            message=f"where {profile.id} fails on the device, onnxruntime cannot serve the "
            f"part: {exc}",
            hint="OpenVINO on the processor still can",
        )
        return {}, [finding]
    paths = save_model(model, job.folder, f"part-{job.index}")
    return dict(zip(("model", "data"), paths, strict=False)), []


def _blamed(model: ir.Model, seen: Converted) -> dict[str, str]:
    """Say, by first output, which operators it does not take; all, where it does not tell."""
    firsts = {
        inner.outputs[0].name: node
        for node in model.graph
        for inner in (node, *_inside(node))
        if inner.outputs and inner.outputs[0].name
    }
    found: dict[str, str] = {}
    for name, reason in named_nodes(seen.detail, firsts.keys()).items():
        for node in _operators(firsts[name]):
            found[node.outputs[0].name or ""] = f"OpenVINO does not convert it: {reason}"
    return found or _all_of(model, seen.problem)


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """Give the nodes of a node's bodies, and of the bodies in them."""
    from edgesdk.model.nodes import bodies_of

    for attribute in node.attributes.values():
        for body in bodies_of(attribute):
            yield from body.all_nodes()


def _operators(node: ir.Node) -> Iterator[ir.Node]:
    """Give the operator that a node is, or those that a Q/DQ node stands beside."""
    if node.op_type not in _PAIRS:
        yield node
        return
    source = node.inputs[0]
    maker = source.producer() if source is not None else None
    if maker is not None and maker.op_type not in _PAIRS:
        yield maker
    for value in node.outputs:
        for reader, _ in value.uses():
            yield from _operators(reader)


def _all_of(model: ir.Model, reason: str) -> dict[str, str]:
    return {
        node.outputs[0].name: reason
        for node in model.graph
        if node.op_type not in _PAIRS and node.outputs[0].name
    }


def _refuse_open(model: ir.Model, seen: Converted, profile: BackendProfile) -> None:
    """Turn down what has no fixed shape in the IR.

    Raises:
        NodesRefused: If anything has none.
    """
    names = set(seen.open)
    reason = (
        f"its result has no fixed shape, and {profile.options.get('device')} takes no other"
    )
    found = {
        node.outputs[0].name: reason
        for node in model.graph
        if node.op_type not in _PAIRS
        and names.intersection({node.name, *(value.name for value in node.outputs)})
        and node.outputs[0].name
    }
    raise NodesRefused(found or _all_of(model, reason))


def _fusion(model: ir.Model, seen: Converted, profile: BackendProfile) -> dict[str, Any]:
    """Count what the CPU executes, by the numbers it computes in."""
    if seen.stage != "compiled":
        return {}
    counts: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    whole: set[str] = set()
    for layer, precision, names, _ in seen.primitives:
        if layer in _NO_WORK:
            continue
        if layer in _CONVERSIONS:
            counts["conversions"] += 1
        elif precision in _WHOLE:
            counts["int8_ops"] += 1
            if layer in _KERNELS:
                kernels[layer] += 1
                whole |= layers_of(names)
        elif precision in _FLOATS:
            counts["float_ops"] += 1
    wanted = _quantized(model, profile)
    return {
        "int8_ops": counts["int8_ops"],
        "float_ops": counts["float_ops"],
        "conversions": counts["conversions"],
        "int8_kernels": dict(sorted(kernels.items())),
        "quantized": len(wanted),
        "not_fused": [name for name in wanted if name not in whole],
    }


def _quantized(model: ir.Model, profile: BackendProfile) -> list[str]:
    """Name the operators that multiply quantized numbers only, by node or else by output."""
    compute = _COMPUTE if profile.scheme is None else profile.scheme.rules.compute
    return [
        node.name or node.outputs[0].name or ""
        for node in model.graph
        if node.op_type in compute and all(map(_is_dequantized, node.inputs[:2]))
    ]


def _is_dequantized(value: ir.Value | None) -> bool:
    maker = None if value is None else value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"


def _numbers(version: str) -> tuple[int, ...]:
    """Give a release as numbers; none where it is not known."""
    pieces = version.partition("-")[0].split(".")
    return tuple(int(piece) for piece in pieces if piece.isdigit())


def _not_installed() -> Finding:
    return Finding(
        code="no-ir",
        severity="info",
        message="OpenVINO is not installed on this computer, so the part is shipped as ONNX, "
        "which the device converts each time it loads it, and nobody has looked which 8-bit "
        "kernels come of it",
        hint="install it: python3 -m pip install 'edgesdk[openvino]'",
    )


def _findings(
    inside: Mapping[str, Any], seen: Converted, profile: BackendProfile, *, on_cpu: bool
) -> Iterator[Finding]:
    if _numbers(seen.version) > _numbers(profile.runtime_version) > ():
        yield Finding(
            code="ir-too-new",
            severity="warning",
            message=f"the IR is written by OpenVINO {inside['openvino']}, and the target has "
            f"{profile.runtime_version}: an older one need not read what a newer one writes",
            hint=f"build with openvino=={profile.runtime_version}",
        )
    stuck = inside.get("not_fused", [])
    if stuck:
        yield Finding(
            code="not-fused",
            severity="warning",
            message=f"{len(stuck)} of {inside['quantized']} quantized operators compute in "
            f"float in OpenVINO on this computer's processor: {', '.join(stuck[:5])}"
            + (", ..." if len(stuck) > 5 else ""),
            hint="keep them in float (keep_float in a recipe): their pairs cost time and gain "
            "nothing",
            subject=stuck[0],
        )
    if not on_cpu:
        device = profile.options.get("device")
        yield Finding(
            code="compiled-on-device",
            severity="info",
            message=f"the part for OpenVINO's {device} is compiled on the device when it is "
            "loaded first, and kept there for that driver and version; here only the "
            "processor could be asked",
            subject=str(device),
        )
    if seen.stage != "compiled":
        yield Finding(
            code="not-compiled-here",
            severity="warning",
            message=f"{seen.problem}; what is expected of the part comes from onnxruntime",
            hint="compare its answers on the device with your own data (--data)",
        )
