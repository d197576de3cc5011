"""Look at an opened model for what will matter on a device, before anything is built.

A finding of severity ``error`` means that no build can work, ``warning`` that something is
likely to go wrong or to cost a lot, ``info`` that it is worth knowing. The rules are listed in
`_RULES`; each looks at the graph alone, so they can be read and tested one by one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from edgesdk.model.values import Finding
from edgesdk.wire.tensors import DTYPE_BYTES

if TYPE_CHECKING:
    import onnx_ir

    from edgesdk.model.open import OpenedModel

__all__ = ["lint_model"]

#: The oldest opset whose operators quantization can rely on (per-channel scales).
_OLD_OPSET = 13
_LARGE_BYTES = 1 << 29
_MOST_NAMES = 5
_MOST_SCANNED_BYTES = 1 << 30
_FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
_QUANTIZED = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"}
    | {"MatMulInteger", "DynamicQuantizeLinear"}
)
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
    | {"Multinomial", "Bernoulli"}
)
_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def lint_model(opened: OpenedModel) -> tuple[Finding, ...]:
    """Check an opened model against every rule; findings come worst first."""
    found = [finding for rule in _RULES for finding in rule(opened)]
    rank = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(found, key=lambda finding: rank[finding.severity]))


def _dynamic_shapes(opened: OpenedModel) -> Iterator[Finding]:
    for info in opened.source.inputs:
        open_axes = [
            axis for axis, extent in enumerate(info.shape) if not isinstance(extent, int)
        ]
        if not open_axes:
            continue
        only_batch = open_axes == [0]
        fixed = ",".join(str(one) if isinstance(one, int) else "1" for one in info.shape)
        yield Finding(
            code="dynamic-batch" if only_batch else "dynamic-shape",
            severity="info" if only_batch else "warning",
            message=f"input {info} is open at axis {', '.join(map(str, open_axes))}",
            hint=f"fix it with --shape {info.name}={fixed} (put in your extents); many "
            "accelerators take fixed shapes only",
            subject=info.name,
        )


def _odd_types(opened: OpenedModel) -> Iterator[Finding]:
    source = opened.source
    for what, infos in (("input", source.inputs), ("output", source.outputs)):
        for info in infos:
            if info.dtype in ("float64", "float16", "bfloat16"):
                yield Finding(
                    code=f"{info.dtype}-{what}",
                    severity="warning",
                    message=f"{what} {info} is {info.dtype}",
                    hint="export the model with float32 inputs and outputs",
                    subject=info.name,
                )
            if info.dtype not in DTYPE_BYTES and info.dtype != "bfloat16":
                yield Finding(
                    code=f"unsendable-{what}",
                    severity="error",
                    message=f"{what} {info.name!r} is of type {info.dtype or 'unknown'}, which "
                    "cannot be sent to a device",
                    hint="cut the part that works on it off the model and run it on the host",
                    subject=info.name,
                )


def _ends(opened: OpenedModel) -> Iterator[Finding]:
    graph = opened.ir.graph
    if not graph.inputs:
        yield Finding(
            code="no-input",
            severity="warning",
            message="the model has no input: it gives the same on every run",
        )
    for value in graph.inputs:
        if not value.uses() and not value.is_graph_output():
            yield Finding(
                code="unused-input",
                severity="warning",
                message=f"input {value.name!r} is read by no node",
                hint="it must still be fed on every run; drop it in the exporter",
                subject=value.name or "",
            )


def _odd_names(opened: OpenedModel) -> Iterator[Finding]:
    ends = (*opened.source.inputs, *opened.source.outputs)
    odd = [
        info.name
        for info in ends
        if any(unicodedata.category(char)[0] == "C" for char in info.name)
        or info.name != info.name.strip()
    ]
    if odd:
        yield Finding(
            code="odd-name",
            severity="info",
            message=f"{_some(odd)} {_have(odd)} characters that do not show",
            hint="quote the name, or rename it in the exporter",
            subject=odd[0],
        )


def _control_flow(opened: OpenedModel) -> Iterator[Finding]:
    ops = sorted(_BODIES & opened.source.op_counts.keys())
    if ops:
        counts = ", ".join(f"{opened.source.op_counts[op]} {op}" for op in ops)
        yield Finding(
            code="control-flow",
            severity="info",
            message=f"the graph has bodies of control flow: {counts}",
            hint="nodes in bodies stay in float and on the CPU",
            subject=ops[0],
        )


def _quantized(opened: OpenedModel) -> Iterator[Finding]:
    ops = sorted(_QUANTIZED & opened.source.op_counts.keys())
    if ops:
        yield Finding(
            code="already-quantized",
            severity="warning",
            message=f"the model is quantized already: it has {', '.join(ops)}",
            hint="give the float model, and let the build quantize it for the target",
            subject=ops[0],
        )


def _random(opened: OpenedModel) -> Iterator[Finding]:
    ops = sorted(_RANDOM & opened.source.op_counts.keys())
    if ops:
        yield Finding(
            code="random-output",
            severity="warning",
            message=f"the model draws random numbers: it has {', '.join(ops)}",
            hint="check vectors cannot be compared; make the noise an input",
            subject=ops[0],
        )


def _versions(opened: OpenedModel) -> Iterator[Finding]:
    source = opened.source
    if source.opset < _OLD_OPSET:
        yield Finding(
            code="old-opset",
            severity="info",
            message=f"opset {source.opset} is converted to {_OLD_OPSET} for quantization",
            hint=f"export with opset {_OLD_OPSET} or newer if the conversion fails",
        )
    others = sorted(domain for domain in source.opsets if domain)
    used = [one for one in others if any(op.startswith(f"{one}.") for op in source.op_counts)]
    if used:
        yield Finding(
            code="other-domain",
            severity="warning",
            message=f"nodes of domain {_some(used)} run on few runtimes",
            subject=used[0],
        )


def _size(opened: OpenedModel) -> Iterator[Finding]:
    if opened.source.initializer_bytes > _LARGE_BYTES:
        yield Finding(
            code="large-model",
            severity="warning",
            message=f"the weights have {opened.source.initializer_bytes >> 20} MiB",
            hint="the device needs them in memory, often twice while it loads",
        )


def _weights(opened: OpenedModel) -> Iterator[Finding]:
    """NaN and infinity in weights; files that were kept outside and huge are not read here."""
    import numpy as np

    bad: list[str] = []
    left = _MOST_SCANNED_BYTES
    for name, tensor in _constants(opened.ir):
        if tensor.dtype.name not in _FLOATS or tensor.nbytes > left:
            continue
        left -= tensor.nbytes
        array = tensor.numpy()
        if array.dtype.kind != "f":
            array = array.astype(np.float32)
        if not np.isfinite(array).all() and not _is_mask(array):
            bad.append(name)
    if bad:
        yield Finding(
            code="weights-not-finite",
            severity="warning",
            message=f"{_some(bad)} {_have(bad)} NaN or infinity",
            hint="was the training diverging? no quantizer can scale such weights",
            subject=bad[0],
        )


def _is_mask(array: object) -> bool:
    """Minus infinity in a constant is how attention masks are written."""
    import numpy as np

    values = np.asarray(array)
    return not np.isnan(values).any() and not np.isposinf(values).any()


def _constants(model: onnx_ir.Model) -> Iterator[tuple[str, onnx_ir.TensorProtocol]]:
    import onnx_ir as ir

    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.name or "", value.const_value
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            yield node.outputs[0].name or "", attribute.as_tensor()


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _have(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


_RULES: tuple[Callable[[OpenedModel], Iterator[Finding]], ...] = (
    _odd_types,
    _dynamic_shapes,
    _ends,
    _weights,
    _quantized,
    _random,
    _control_flow,
    _versions,
    _size,
    _odd_names,
)
