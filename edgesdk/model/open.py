"""Open any ONNX file that a trainer writes, and turn it into one form.

What `open_model` gives back has been checked from the first byte on: one domain name, no
initializer that is an input too, no local function, external data proven to lie beside the
file, every type and shape that can be inferred. Positions of nodes are those of the file,
except where a local function was put in place of its call, and where classical operators are
written as the tensor arithmetic that they are.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError
from edgesdk.model._external import ExternalFiles
from edgesdk.model._protoscan import ScanError, protobuf_errors, scan_onnx
from edgesdk.model._prove import (
    complete_imports,
    plain_domains,
    prove_operators,
    prove_tensors,
    prove_versions,
)
from edgesdk.model._shapes import clean_inputs, freeze_inputs, infer_and_check
from edgesdk.model.classical import DOMAIN, join_columns, lower_classical
from edgesdk.model.content import read_model_file, sniff_format
from edgesdk.model.nodes import bodies_of, tensor_info
from edgesdk.model.values import SourceModel, model_name

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["OpenedModel", "open_model"]

#: Classical operators one behind the other, with others between, that are still followed.
_LOWERING_ROUNDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedModel:
    """A model file, described, and its graph. Nobody changes ``ir``: passes work on a copy."""

    source: SourceModel
    ir: onnx_ir.Model


def open_model(
    path: Path, *, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> OpenedModel:
    """Open an ONNX file.

    Args:
        path: The file. Its external data, if any, must lie in its folder.
        shapes: Fixed shapes by input name. Symbolic extents of one name are fixed together, and
            shape inference carries them through the graph.

    Raises:
        ModelError: The file is something else, damaged, unsafe, or uses what ONNX does not
            define; or ``shapes`` contradicts it.
    """
    path = Path(path)
    if sniff_format(path) == "tflite":
        raise ModelError(
            f"cannot open {path} as ONNX: it is a TFLite file",
            hint="a target with a TFLite runtime takes it as it is; to make ONNX of it: "
            "edgesdk import FILE -o FILE.onnx",
            path=str(path),
        )
    data = read_model_file(path)
    proto = _parse(data, path)
    complete_imports(proto)
    prove_versions(proto, path)
    plain_domains(proto)
    files = ExternalFiles(path)
    prove_tensors(proto, files)
    prove_operators(proto, path)
    digest = hashlib.sha256(data).hexdigest()
    size = len(data)
    del data
    model = _build(proto, path)
    clean_inputs(model)
    if shapes:
        freeze_inputs(model, shapes, path)
    infer_and_check(model, path)
    model = _lowered(model, path)
    source = SourceModel(
        path=path,
        name=model_name(path),
        format="onnx",
        sha256=_digest(files, digest, path),
        bytes=size + sum(files.sizes.values()),
        ir_version=proto.ir_version,
        opset=model.graph.opset_imports.get("", 0),
        opsets=dict(sorted(model.graph.opset_imports.items())),
        producer=" ".join(filter(None, (proto.producer_name, proto.producer_version))),
        inputs=tuple(tensor_info(value) for value in model.graph.inputs),
        outputs=tuple(tensor_info(value) for value in model.graph.outputs),
        op_counts=_op_counts(model),
        initializer_bytes=_initializer_bytes(model),
        external_data=bool(files.sizes),
    )
    return OpenedModel(source=source, ir=model)


def _lowered(model: onnx_ir.Model, path: Path) -> onnx_ir.Model:
    """Write classical operators as arithmetic, unless the graph around them contradicts it."""
    if DOMAIN not in model.graph.opset_imports:
        return model
    copy, done = model.clone(), 0
    try:
        for _ in range(_LOWERING_ROUNDS):
            # what is behind a node has a known shape only once the node is arithmetic
            lowered = lower_classical(copy)
            if not lowered:
                break
            done += lowered
            infer_and_check(copy, path)
        if done and join_columns(copy):
            infer_and_check(copy, path)
    except ModelError:
        return model
    return copy if done else model


def _parse(data: bytes, path: Path) -> onnx.ModelProto:
    import onnx

    try:
        scan_onnx(data)
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except ScanError as exc:
        if exc.truncated and data[:1] == b"\x08":
            raise ModelError(
                f"cannot open {path}: the file is cut short: {exc}",
                hint="copy or download it again",
                path=str(path),
            ) from exc
        raise ModelError(
            f"cannot open {path}: it is not an ONNX file: {exc}",
            hint="give the .onnx file that the exporter wrote",
            path=str(path),
        ) from exc
    except protobuf_errors() as exc:
        raise ModelError(
            f"cannot open {path}: it is not an ONNX file: {exc}",
            hint="copy or download it again",
            path=str(path),
        ) from exc
    return proto


def _build(proto: onnx.ModelProto, path: Path) -> onnx_ir.Model:
    """Make the graph; the only place that meets what onnx-ir throws at odd files."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    for graph in _every_graph(proto.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            if _holds_map(info.type):
                raise ModelError(
                    f"cannot open {path}: {info.name!r} is a map (expected tensors)",
                    hint="leave the map out when you export: options={'zipmap': False} in "
                    "skl2onnx, zipmap=False in other converters",
                    tensor=info.name,
                )
        if graph.sparse_initializer:
            raise ModelError(
                f"cannot open {path}: it has sparse initializers (expected dense ones)",
                hint="export the weights as dense tensors",
            )
    try:
        model = ir.serde.deserialize_model(proto)
        ir.external_data.set_base_dir(model.graph, path.parent.absolute())
        common.RemoveInitializersFromInputsPass()(model)
        if model.functions:
            common.InlinePass()(model)
            model.functions.clear()
        # from IR 4 on an initializer need not be an input
        model.ir_version = max(model.ir_version, 4)
    except Exception as exc:
        raise ModelError(
            f"cannot open {path}: its graph makes no sense: {_innermost(exc)}",
            hint="export it again with a current exporter",
            path=str(path),
        ) from exc
    _prove_links(model.graph, path, "")
    return model


def _holds_map(kind: onnx.TypeProto) -> bool:
    """Tell whether a type is a map from keys to values, or a list of such."""
    while kind.WhichOneof("value") in ("sequence_type", "optional_type"):
        kind = getattr(kind, kind.WhichOneof("value")).elem_type
    return bool(kind.WhichOneof("value") == "map_type")


def _prove_links(graph: onnx_ir.Graph, path: Path, where: str) -> None:
    """Refuse nodes that read, and graphs that give, what nothing computes."""
    for index, node in enumerate(graph):
        label = f"{where}node {index} {node.name!r} ({node.op_type})"
        for value in node.inputs:
            if value is not None and value.graph is None and value.producer() is None:
                raise ModelError(
                    f"cannot open {path}: {label} reads {value.name!r}, which nothing gives",
                    hint="export it again with a current exporter",
                    node=node.name or "",
                )
        for attribute in node.attributes.values():
            for body in bodies_of(attribute):
                _prove_links(body, path, f"{label}, ")
    for value in graph.outputs:
        if value.graph is None and value.producer() is None:
            raise ModelError(
                f"cannot open {path}: {where}output {value.name!r} is given by no node",
                hint="export it again with a current exporter",
            )


def _innermost(exc: BaseException) -> str:
    """Give the first cause, which says what is wrong; what wraps it says where we were."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    return " ".join(str(exc).split())[:400] or type(exc).__name__


def _every_graph(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    graphs = [graph]
    for node in graph.node:
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else []
            for body in (*bodies, *attribute.graphs):
                graphs += _every_graph(body)
    return graphs


def _digest(files: ExternalFiles, model_sha256: str, path: Path) -> str:
    if not files.sizes:
        return model_sha256
    try:
        return files.digest(model_sha256)
    except OSError as exc:
        raise ModelError(f"cannot read the data of {path}: {exc.strerror}") from exc


def _op_counts(model: onnx_ir.Model) -> dict[str, int]:
    counts = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in model.graph.all_nodes()
    )
    return dict(sorted(counts.items()))


def _initializer_bytes(model: onnx_ir.Model) -> int:
    """Count the bytes of constants, however the exporter stored them."""
    import onnx_ir as ir

    graphs = [model.graph, *model.graph.subgraphs()]
    total = 0
    for graph in {id(graph): graph for graph in graphs}.values():
        for value in graph.initializers.values():
            total += value.const_value.nbytes if value.const_value is not None else 0
    for node in model.graph.all_nodes():
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            total += 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes
    return total
