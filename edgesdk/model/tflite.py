"""Open a TFLite file, and refuse a broken one before any runtime sees it.

TFLite's loader trusts offsets and sizes in the file, so they are all checked here first: that
tables, vectors and buffers lie inside the file, that tensors, operators and subgraphs refer to
ones that exist, and that a constant has the bytes its shape asks for (`tflite_graph`). Nothing
of a runtime is imported.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgesdk.errors import ModelError
from edgesdk.model._flatbuffer import FlatbufferError
from edgesdk.model.content import read_model_file, sniff_format
from edgesdk.model.tflite_graph import TfliteGraph, TfliteOp, read_tflite_graphs
from edgesdk.model.values import NodeFacts, SourceModel, model_name
from edgesdk.tensors import TensorInfo

__all__ = ["OpenedTflite", "open_tflite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTflite:
    """A TFLite file, described. ``ops`` and ``graph`` are those of the first subgraph.

    An operator has the name TFLite gives it (``CONV_2D``); a custom one has its own name and
    the domain ``custom``. Its options stand in ``ints``, ``floats`` and ``strings`` under
    their names in `TfliteOp`.
    """

    source: SourceModel
    ops: tuple[NodeFacts, ...]
    graph: TfliteGraph


def open_tflite(path: Path) -> OpenedTflite:
    """Open a TFLite file.

    Raises:
        ModelError: It is something else, cut short, or refers to what is not in it.
    """
    path = Path(path)
    if sniff_format(path) != "tflite":
        raise ModelError(
            f"cannot open {path} as TFLite: it is another kind of file",
            hint="a TFLite file has TFL3 in its bytes 4 to 7",
            path=str(path),
        )
    data = read_model_file(path)
    try:
        return _read(data, path)
    except FlatbufferError as exc:
        raise ModelError(
            f"cannot open {path}: its structure is broken: {exc}",
            hint="copy or convert it again; a runtime might crash on it",
            path=str(path),
        ) from exc


def _read(data: bytes, path: Path) -> OpenedTflite:
    graphs, description, constant_bytes = read_tflite_graphs(data)
    first = graphs[0]
    counts = Counter(
        f"custom.{op.name}" if op.is_custom else op.name for graph in graphs for op in graph.ops
    )
    source = SourceModel(
        path=path,
        name=model_name(path),
        format="tflite",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        ir_version=0,
        opset=0,
        opsets={},
        producer=description,
        inputs=tuple(_info(first, index) for index in first.inputs),
        outputs=tuple(_info(first, index) for index in first.outputs),
        op_counts=dict(sorted(counts.items())),
        initializer_bytes=constant_bytes,
        external_data=False,
    )
    ops = tuple(_facts(op, first, graphs) for op in first.ops)
    return OpenedTflite(source=source, ops=ops, graph=first)


def _info(graph: TfliteGraph, index: int) -> TensorInfo:
    tensor = graph.tensors[index]
    stated = tuple(
        None if wanted < 0 else extent
        for extent, wanted in zip(tensor.shape, tensor.shape_signature, strict=True)
    )
    return TensorInfo(name=tensor.name, dtype=tensor.dtype, shape=stated)


def _facts(op: TfliteOp, graph: TfliteGraph, graphs: tuple[TfliteGraph, ...]) -> NodeFacts:
    taken = [_info(graph, one) if one >= 0 else None for one in op.inputs]
    given = [_info(graph, one) if one >= 0 else None for one in op.outputs]
    ints: dict[str, tuple[int, ...]] = {}
    floats: dict[str, tuple[float, ...]] = {}
    strings: dict[str, str] = {}
    for key, value in op.options.items():
        if isinstance(value, str):
            strings[key] = value
        elif isinstance(value, tuple):
            if all(isinstance(one, int) for one in value):
                ints[key] = tuple(int(one) for one in value)
            else:
                floats[key] = value
        elif isinstance(value, float):
            floats[key] = (value,)
        else:
            ints[key] = (int(value),)
    return NodeFacts(
        index=op.index,
        name="",
        op=op.name,
        domain="custom" if op.is_custom else "",
        since_version=op.version,
        inputs=tuple(one.name if one else "" for one in taken),
        outputs=tuple(one.name if one else "" for one in given),
        input_types=tuple(taken),
        output_types=tuple(given),
        ints=ints,
        floats=floats,
        strings=strings,
        constant_inputs=tuple(
            one >= 0 and graph.tensors[one].constant is not None for one in op.inputs
        ),
        subgraph_ops=tuple(sorted(_body_ops(op, graphs))),
    )


def _body_ops(op: TfliteOp, graphs: tuple[TfliteGraph, ...]) -> set[str]:
    """Name the operators in the subgraphs that ``op`` runs, and in those that they run."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [op]
    while waiting:
        for key, value in waiting.pop().options.items():
            if key.endswith("subgraph") and isinstance(value, int) and value not in seen:
                seen.add(value)
                found.update(inner.name for inner in graphs[value].ops)
                waiting.extend(graphs[value].ops)
    return found
