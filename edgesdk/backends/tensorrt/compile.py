"""From the graph of a part to what a device finishes: an ONNX file, for a DLA with its scales.

The engine itself is built on the device: it holds for one GPU, one driver and one TensorRT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgesdk.backends.base import CompiledPart, NodesRefused, PartJob
from edgesdk.backends.tensorrt.rules import release_of
from edgesdk.backends.tensorrt.scales import calibration_cache, implicit_scales
from edgesdk.errors import CompileError
from edgesdk.model.values import Finding
from edgesdk.profiles.values import BackendProfile

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import onnx_ir as ir

__all__ = ["compile_part"]

_NARROWED = "int64-weights-narrowed"
_STRONGLY_TYPED = "strongly-typed-only"
#: Inputs that are bounds, by operator: one beyond all extents means the same when clamped.
_BOUNDS = {"Slice": (1, 2)}
#: What a person should know of a part with scales for a DLA.
_CHOOSES = Finding(
    code="implicit-quantization",
    severity="info",
    message="a DLA is given the scales apart from the graph and decides itself which layers "
    "run in 8 bits: its check vectors allow twice what the graph with and without rounding "
    "differ by",
    hint="measure the accuracy on the device with --data",
)
_INT32 = (-(1 << 31), (1 << 31) - 1)


def compile_part(job: PartJob, profile: BackendProfile) -> CompiledPart:
    """Write the part's ONNX file, and for a DLA its calibration cache.

    Raises:
        NodesRefused: A node holds numbers that TensorRT would change.
        CompileError: There is no graph, or it cannot be written.
    """
    from edgesdk.model.convert import fit_opset
    from edgesdk.model.save import save_model

    if job.model is None:
        raise CompileError(
            f"cannot compile {job.source} for {profile.id}: TensorRT reads ONNX",
            hint="give the ONNX model it was made from",
        )
    model = fit_opset(job.model, lowest=1, highest=job.max_opset, max_ir=job.max_ir)
    _refuse_odd_numbers(model, profile)
    precision = _precision(model)
    on_host: Path | None = None
    inside: dict[str, Any] = {"precision": precision}
    stem = f"part-{job.index}"
    calibration: bytes | None = None
    if "dla" in profile.options and precision == "int8":
        if _STRONGLY_TYPED in profile.quirks:
            raise CompileError(
                f"cannot compile a part for {profile.id}: this TensorRT takes no scales apart "
                "from the graph, and a DLA takes no others",
                hint="leave this backend out with `avoid` in a recipe",
            )
        on_host = save_model(model, job.folder, f"{stem}-host")[0]
        model, scales = implicit_scales(model)
        calibration = calibration_cache(scales, release_of(profile))
        inside["scales"] = len(scales)
    paths = save_model(model, job.folder, stem)
    files = dict(zip(("model", "data"), paths, strict=False))
    if calibration is not None:
        files["calibration"] = job.folder / f"{stem}.calib"
        files["calibration"].write_bytes(calibration)
    return CompiledPart(
        files=files,
        format="onnx",
        on_host=on_host,
        unrounded=files["model"] if on_host is not None else None,
        findings=(_CHOOSES,) if on_host is not None else (),
        options={"precision": precision},
        requires={"opset": model.opset_imports.get(""), "ir_version": model.ir_version},
        inside=inside,
    )


def _precision(model: ir.Model) -> str:
    """Say what a weakly typed build has to be allowed for the types that are in the graph."""
    import onnx_ir as ir

    if any(node.op_type == "DequantizeLinear" for node in model.graph.all_nodes()):
        return "int8"
    half = ir.DataType.FLOAT16
    values = [
        *model.graph.initializers.values(),
        *(value for node in model.graph.all_nodes() for value in node.outputs),
    ]
    return "fp16" if any(value.dtype == half for value in values) else "fp32"


def _refuse_odd_numbers(model: ir.Model, profile: BackendProfile) -> None:
    found: dict[str, str] = {}
    for node in model.graph.all_nodes():
        reason = None
        for position, value in enumerate(node.inputs):
            array = _constant(value)
            if array is None:
                continue
            narrowed = (
                _NARROWED in profile.quirks
                and array.dtype.name == "int64"
                and position not in _BOUNDS.get(node.op_type, ())
            )
            if narrowed and array.size and not _fits(array):
                reason = (
                    f"input {position} holds an int64 beyond int32, to which TensorRT "
                    f"{profile.runtime_version} narrows it"
                )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            reason = reason or _odd_zero_point(node)
        if reason is not None and node.outputs[0].name:
            found[node.outputs[0].name] = reason
    if found:
        raise NodesRefused(found)


def _odd_zero_point(node: ir.Node) -> str | None:
    zero = _constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if zero is not None and zero.dtype.name not in ("int8", "int4"):
        return f"it quantizes to {zero.dtype.name} (int8)"
    return "its zero point is not 0" if zero is not None and zero.any() else None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    if value is None:
        return None
    tensor = value.const_value
    maker = value.producer()
    if tensor is None and maker is not None and maker.op_type == "Constant":
        attribute = maker.attributes.get("value")
        tensor = attribute.as_tensor() if attribute is not None else None
    if tensor is None or tensor.dtype.name == "STRING":
        return None
    array: np.ndarray = tensor.numpy()
    return array


def _fits(array: np.ndarray) -> bool:
    low, high = _INT32
    return bool(array.min() >= low and array.max() <= high)
