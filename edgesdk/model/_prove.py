"""Prove, before a graph is built from it, that a parsed model is one we can work with.

Operators must be ones ONNX defines at the model's opset, and every tensor must hold exactly
the bytes that its shape and dtype ask for: readers downstream allocate by shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError
from edgesdk.model._external import ExternalFiles, every_tensor
from edgesdk.model.classical import DOMAIN

if TYPE_CHECKING:
    import onnx

__all__ = [
    "complete_imports",
    "plain_domains",
    "prove_operators",
    "prove_tensors",
    "prove_versions",
]

#: The domain of operators that onnxruntime adds. ONNX has no schema for them, so their names
#: are judged by the backends, which know what their runtime registers.
_RUNTIMES_OWN = "com.microsoft"
#: What onnxruntime writes where it saved a graph laid out for one kind of processor.
_LAID_OUT = ("com.microsoft.nchwc", "com.ms.internal.nhwc")
_ASSUMED_OPSET = 13
_MAX_ELEMENTS = 1 << 48
_MAX_RANK = 32

# dtype -> bits of an element, the field for values that are not raw, elements per value
_LAYOUT = {
    1: (32, "float_data", 1),
    2: (8, "int32_data", 1),
    3: (8, "int32_data", 1),
    4: (16, "int32_data", 1),
    5: (16, "int32_data", 1),
    6: (32, "int32_data", 1),
    7: (64, "int64_data", 1),
    8: (0, "string_data", 1),
    9: (8, "int32_data", 1),
    10: (16, "int32_data", 1),
    11: (64, "double_data", 1),
    12: (32, "uint64_data", 1),
    13: (64, "uint64_data", 1),
    14: (64, "float_data", 0.5),
    15: (128, "double_data", 0.5),
    16: (16, "int32_data", 1),
    17: (8, "int32_data", 1),
    18: (8, "int32_data", 1),
    19: (8, "int32_data", 1),
    20: (8, "int32_data", 1),
    21: (4, "int32_data", 2),
    22: (4, "int32_data", 2),
    23: (4, "int32_data", 2),
    24: (8, "int32_data", 1),
    25: (2, "int32_data", 4),
    26: (2, "int32_data", 4),
}


def prove_versions(model: onnx.ModelProto, path: Path) -> None:
    """Refuse versions that are missing or newer than the ONNX library knows.

    Raises:
        ModelError: Naming both versions.
    """
    import onnx

    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"cannot open {path}: its IR version is {model.ir_version} (this onnx "
            f"{onnx.__version__} knows up to {onnx.IR_VERSION})",
            hint="pip install -U onnx, or export with an older opset",
            ir_version=model.ir_version,
        )
    if model.ir_version < 1:
        raise ModelError(
            f"cannot open {path}: it states no IR version (expected an ONNX file)",
            hint="is this an ONNX file?",
        )
    seen: dict[str, int] = {}
    for entry in model.opset_import:
        if entry.domain in seen and seen[entry.domain] != entry.version:
            raise ModelError(
                f"cannot open {path}: it imports domain {entry.domain!r} twice, as version "
                f"{seen[entry.domain]} and {entry.version}"
            )
        seen[entry.domain] = entry.version
    newest = onnx.defs.onnx_opset_version()
    opset = seen.get("", 0)
    if opset > newest:
        raise ModelError(
            f"cannot open {path}: its opset is {opset} (this onnx {onnx.__version__} knows up "
            f"to {newest})",
            hint="pip install -U onnx, or export with an older opset",
            opset=opset,
        )
    if opset < 1:
        raise ModelError(
            f"cannot open {path}: it imports no version of ONNX's operators (expected an opset "
            f"from 1 to {newest})",
            hint="export it again",
        )


def complete_imports(model: onnx.ModelProto) -> None:
    """Import ONNX's own operators where a graph of classical ones alone imports none."""
    domains = {entry.domain for entry in model.opset_import}
    if domains != {DOMAIN} or model.functions:
        return
    if any(node.domain != DOMAIN for node, _ in _every_node(model.graph, "")):
        return
    entry = model.opset_import.add()
    entry.domain, entry.version = "", _ASSUMED_OPSET


def plain_domains(model: onnx.ModelProto) -> None:
    """Write ONNX's own domain in its one short form, the empty string."""
    for entry in model.opset_import:
        if entry.domain == "ai.onnx":
            entry.domain = ""
    for graph in (model.graph, *model.functions):
        for node, _ in _every_node(graph, ""):
            if node.domain == "ai.onnx":
                node.domain = ""
    for function in model.functions:
        for entry in function.opset_import:
            if entry.domain == "ai.onnx":
                entry.domain = ""


def prove_operators(model: onnx.ModelProto, path: Path) -> None:
    """Refuse operators that ONNX does not define at the model's opset.

    Raises:
        ModelError: Naming the node and the operator.
    """
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    local = {(function.domain, function.name) for function in model.functions}
    for node, where in _every_node(model.graph, ""):
        _prove_operator(node, where, opsets, local, path)
    for function in model.functions:
        own = {entry.domain: entry.version for entry in function.opset_import}
        for node, where in _every_node(function, f"function {function.name}: "):
            _prove_operator(node, where, {**opsets, **own}, local, path)


def prove_tensors(model: onnx.ModelProto, files: ExternalFiles) -> None:
    """Refuse tensors whose data is not exactly what their shape and dtype say.

    Raises:
        ModelError: Naming the tensor.
    """
    import onnx

    for graph in (model.graph, *model.functions):
        for tensor in every_tensor(graph):
            bits = _prove_place(tensor, files.model)
            count = 1
            for extent in tensor.dims:
                count *= extent
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                if not bits:
                    raise _bad(tensor, files.model, "strings are kept outside the file")
                files.accept(tensor, (count * bits + 7) // 8)
            else:
                _prove_inline(tensor, count, files.model)


def _prove_place(tensor: onnx.TensorProto, path: Path) -> int:
    if tensor.data_type not in _LAYOUT:
        raise _bad(
            tensor, path, f"its dtype is number {tensor.data_type}, which is unknown here"
        )
    if len(tensor.dims) > _MAX_RANK or any(not extent >= 0 for extent in tensor.dims):
        raise _bad(tensor, path, f"its shape is {list(tensor.dims)[:8]}")
    count = 1
    for extent in tensor.dims:
        count *= max(extent, 1)
    if count > _MAX_ELEMENTS:
        raise _bad(tensor, path, f"its shape {list(tensor.dims)[:8]} multiplies to {count}")
    if tensor.HasField("segment"):
        raise _bad(tensor, path, "it is cut into segments, which nothing reads")
    return _LAYOUT[tensor.data_type][0]


def _prove_inline(tensor: onnx.TensorProto, count: int, path: Path) -> None:
    bits, name, per_value = _LAYOUT[tensor.data_type]
    if tensor.external_data:
        raise _bad(tensor, path, "it has both data and a place outside the file")
    if tensor.HasField("raw_data"):
        seen, expected, unit = len(tensor.raw_data), (count * bits + 7) // 8, "bytes"
        if not bits:
            raise _bad(tensor, path, "its strings are raw bytes")
    else:
        seen, expected = len(getattr(tensor, name)), math.ceil(count / per_value)
        unit = "values"
    if seen != expected:
        raise _bad(
            tensor,
            path,
            f"it has {seen} {unit}",
            f"{expected} for {list(tensor.dims)[:8]}",
        )


def _bad(tensor: onnx.TensorProto, path: Path, seen: str, expected: str = "") -> ModelError:
    wanted = f" (expected {expected})" if expected else ""
    return ModelError(
        f"cannot read tensor {tensor.name!r} of {path}: {seen}{wanted}",
        hint="export the model again; the file is damaged or was made to do harm",
        tensor=tensor.name,
    )


def _every_node(
    graph: onnx.GraphProto | onnx.FunctionProto, where: str
) -> Iterator[tuple[onnx.NodeProto, str]]:
    for index, node in enumerate(graph.node):
        place = f"{where}node {index}"
        yield node, place
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else []
            for body in (*bodies, *attribute.graphs):
                yield from _every_node(body, f"{place} {attribute.name}: ")


def _prove_operator(
    node: onnx.NodeProto,
    where: str,
    opsets: dict[str, int],
    local: set[tuple[str, str]],
    path: Path,
) -> None:
    import onnx

    if (node.domain, node.op_type) in local:
        return
    label = f"{where} {node.name!r}" if node.name else where
    facts = {"node": node.name, "op": node.op_type, "domain": node.domain}
    if not node.op_type:
        raise ModelError(f"cannot open {path}: {label} names no operator", **facts)
    if node.domain == _RUNTIMES_OWN and node.domain in opsets:
        return
    if node.domain not in opsets or node.domain not in _domains():
        kind = f"custom operator {node.op_type!r} of domain {node.domain!r}"
        hint = "replace it by standard operators in the exporter"
        if node.domain in _LAID_OUT:
            hint = (
                "onnxruntime saved it for one kind of processor; give the model from before, "
                "or save it again with at most ORT_ENABLE_EXTENDED"
            )
        elif node.domain == _RUNTIMES_OWN:
            hint = "the file imports no version of that domain; save it again"
        raise ModelError(
            f"cannot open {path}: {label} uses the {kind} (expected ONNX's own operators)",
            hint=hint,
            **facts,
        )
    version = opsets[node.domain]
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError as exc:
        raise _unknown_op(node, label, version, path, facts) from exc
    if schema.deprecated:
        raise ModelError(
            f"cannot open {path}: {label} uses {node.op_type}, which ONNX removed at opset "
            f"{schema.since_version} (the model says opset {version})",
            hint="export it again, or state the opset it was written for",
            **facts,
        )


def _unknown_op(
    node: onnx.NodeProto, label: str, version: int, path: Path, facts: dict[str, str]
) -> ModelError:
    import difflib

    import onnx

    schemas = [
        one for one in onnx.defs.get_all_schemas_with_history() if one.domain == node.domain
    ]
    newer = [one.since_version for one in schemas if one.name == node.op_type]
    if newer:
        return ModelError(
            f"cannot open {path}: {label} uses {node.op_type}, which came with opset "
            f"{min(newer)} (the model says opset {version})",
            hint="export it again with that opset",
            **facts,
        )
    near = difflib.get_close_matches(node.op_type, {one.name for one in schemas}, n=3)
    return ModelError(
        f"cannot open {path}: {label} uses the unknown operator {node.op_type!r} (ONNX opset "
        f"{version} has none of that name)",
        hint=f"close: {', '.join(near)}" if near else "replace it by standard operators",
        **facts,
    )


@functools.cache
def _domains() -> frozenset[str]:
    """Give the domains that ONNX knows; asking it for all its schemas takes a millisecond."""
    import onnx

    return frozenset(
        {schema.domain for schema in onnx.defs.get_all_schemas()}
        - {
            "ai.onnx.training",
            "ai.onnx.preview.training",
        }
    )
