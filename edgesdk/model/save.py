"""Write a graph as one ONNX file, or with its weights beside it; always the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import CompileError, OutputError
from edgesdk.model._external import bring_in
from edgesdk.model._protoscan import protobuf_errors

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["SINGLE_FILE_BYTES", "model_bytes", "save_model"]

#: Above this the weights go into a file of their own: protobuf ends at 2 GiB.
SINGLE_FILE_BYTES = 1_800_000_000
_EXTERNAL_FROM_BYTES = 1024
#: Runtimes map the data file; a tensor above this size begins on a page.
_ALIGN_FROM_BYTES = 1 << 16
_ALIGN_BYTES = 4096


def save_model(
    model: onnx_ir.Model,
    folder: Path,
    stem: str,
    *,
    single_file_bytes: int = SINGLE_FILE_BYTES,
) -> list[Path]:
    """Write ``<stem>.onnx`` into ``folder``, and ``<stem>.data`` where one file cannot hold it.

    The same graph gives the same bytes on every run. Existing files are replaced.

    Returns:
        The model file, then the data file if there is one.

    Raises:
        CompileError: The graph without its weights has 2 GiB or more.
        OutputError: The folder cannot be written to.
    """
    path = folder / f"{stem}.onnx"
    try:
        if _weight_bytes(model) <= single_file_bytes:
            data = model_bytes(model)
            path.write_bytes(data)
            return [path]
        return _save_apart(model, path, folder / f"{stem}.data")
    except OSError as exc:
        raise OutputError(
            f"cannot write {path}: {exc.strerror or exc}",
            hint="is there room, and may your user write there?",
            path=str(path),
        ) from exc


def model_bytes(model: onnx_ir.Model) -> bytes:
    """Give the bytes of a graph that fits one message; external weights are read into it.

    Raises:
        CompileError: It has 2 GiB or more.
    """
    import onnx_ir as ir

    copy = model.clone()
    bring_in(copy)
    try:
        data: bytes = ir.serde.serialize_model(copy).SerializeToString(deterministic=True)
    except protobuf_errors() as exc:
        raise _too_big(exc) from exc
    return data


def _save_apart(model: onnx_ir.Model, path: Path, data_path: Path) -> list[Path]:
    import onnx_ir as ir

    try:
        ir.save(
            model,
            path,
            external_data=data_path.name,
            size_threshold_bytes=_EXTERNAL_FROM_BYTES,
            alignment=_ALIGN_BYTES,
            align_threshold=_ALIGN_FROM_BYTES,
        )
    except ValueError as exc:
        raise _too_big(exc) from exc
    return [path, data_path]


def _too_big(exc: Exception) -> CompileError:
    return CompileError(
        "cannot save the model: without its weights it still has 2 GiB or more",
        hint="export large constants as initializers",
        cause=str(exc)[:200],
    )


def _weight_bytes(model: onnx_ir.Model) -> int:
    """Count the bytes of all tensors, in attributes too: they travel in the same message."""
    import onnx_ir as ir

    total = 0
    for graph in _graphs(model):
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype != ir.DataType.STRING:
                total += tensor.nbytes
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                tensor = attribute.as_tensor()
                total += 0 if tensor.dtype == ir.DataType.STRING else tensor.nbytes
    return total


def _graphs(model: onnx_ir.Model) -> list[onnx_ir.Graph]:
    return [model.graph, *{id(graph): graph for graph in model.graph.subgraphs()}.values()]
