"""Compile a part for LiteRT: its graph as a ``.tflite`` file, or the file that was given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgesdk.backends.base import CompiledPart, PartJob
from edgesdk.errors import CompileError

__all__ = ["compile_part", "lower_part"]


def lower_part(job: PartJob, versions: Mapping[str, int] | None = None) -> Path:
    """Write the graph of a part as a ``.tflite`` file into the part's folder.

    Args:
        job: The part.
        versions: What its reader knows, as in `lower_graph`.

    Raises:
        NodesRefused: Nodes that have no form in TFLite.
        CompileError: The job has no graph, or the file cannot be written.
    """
    from edgesdk.backends.litert.lower import lower_graph

    if job.model is None:
        raise CompileError(
            f"cannot lower part {job.index}: it is a file that is deployed as it is"
        )
    path = job.folder / f"part-{job.index}.tflite"
    path.write_bytes(lower_graph(job.model, versions))
    return path


def compile_part(job: PartJob, versions: Mapping[str, int] | None = None) -> CompiledPart:
    """Give a part's file, with how many operators of which kind are in it.

    Args:
        job: The part.
        versions: What else has to read the file knows, as in `lower_graph`.

    Raises:
        NodesRefused: Nodes that have no form in TFLite.
        CompileError: The file cannot be written or read.
    """
    from edgesdk.model.tflite_graph import read_tflite_graphs

    path = job.source if job.source is not None else lower_part(job, versions)
    graphs, _, _ = read_tflite_graphs(path.read_bytes())
    counts = Counter(op.name for graph in graphs for op in graph.ops)
    return CompiledPart(
        files={"model": path},
        format="tflite",
        inside={"operators": dict(sorted(counts.items()))},
    )
