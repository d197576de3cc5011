"""The plan that travels in a bundle, and which of its nodes a runtime's op stands for.

Runtimes fuse: what one of them calls an op is often several nodes of the source graph, and its
name is that of one of them, of all, or of a tensor, with something of the runtime's own added.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgesdk.bundle import Bundle
from edgesdk.devices.text import clean_text
from edgesdk.wire.frames import load_json

__all__ = [
    "PredictedNode",
    "match_ops",
    "planned_counts",
    "planned_shares",
    "predicted_nodes",
]

_MOST_NODES = 200_000
_MAX_NAME = 300
#: What runtimes, and the quantizer here, add to the names of nodes and tensors.
_ADDED = re.compile(
    r"(?:_token_\d+|_nchwc|_quant|/WithoutBiases(?:/.*)?|/fq_.*"
    r"|\.(?:(?:de)?quantized?(?:_\d+)?|transposed|reshaped|float))\Z"
)
#: TensorRT's parser calls a node without a name after its first output.
_UNNAMED = "node_of_"
#: What separates the names of fused nodes: OpenVINO, TensorRT, LiteRT.
_BETWEEN = re.compile(r"\s*(?:,|;|\|\||\s\+\s)\s*")
_BETWEEN_AND_AROUND = re.compile(r"[\s,;+|(){}\[\]]+")
#: Nodes that a kernel is about; others are taken in by it.
_COMPUTE = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Attention"}
    | {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedNode:
    """A node of the source graph and where the plan put it."""

    label: str
    name: str
    op: str
    backend: str
    share: float
    reads: tuple[str, ...]
    gives: tuple[str, ...]


def predicted_nodes(bundle: Bundle) -> tuple[PredictedNode, ...]:
    """Read the plan that a bundle carries; nothing where it carries none that makes sense.

    Raises:
        BundleError: The attachment is missing or altered.
    """
    if not bundle.manifest.get("attachments"):
        return ()
    data = bundle.attachment("plan")
    try:
        plan = None if data is None else load_json(data)
    except ValueError:
        return ()
    nodes = plan.get("nodes") if isinstance(plan, dict) else None
    if not isinstance(nodes, list):
        return ()
    return tuple(_node(each) for each in nodes[:_MOST_NODES] if isinstance(each, dict))


def _node(record: Mapping[str, Any]) -> PredictedNode:
    index, name, op = (record.get(key) for key in ("index", "name", "op"))
    name = name if isinstance(name, str) else ""
    op = clean_text(op, limit=100)
    share = record.get("share")
    gives = _names(record.get("gives"))
    label = name or (gives[0] if gives else f"node {index}")
    known = isinstance(share, int | float) and 0.0 <= share <= 1.0
    return PredictedNode(
        label=clean_text(label, limit=_MAX_NAME).replace("\n", " "),
        name=name,
        op=op,
        backend=clean_text(record.get("backend"), limit=128),
        share=float(share) if known and share is not None else 0.0,
        reads=_names(record.get("reads")),
        gives=gives,
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(n for n in value if isinstance(n, str)) if isinstance(value, list) else ()


def planned_counts(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Read from a manifest how many nodes were planned for each backend."""
    predicted = manifest.get("predicted")
    counts = predicted.get("nodes_by_backend") if isinstance(predicted, Mapping) else None
    if not isinstance(counts, Mapping):
        return {}
    return {str(name): n for name, n in counts.items() if type(n) is int and 0 < n < 1 << 40}


def planned_shares(manifest: Mapping[str, Any]) -> dict[str, float]:
    """Read from a manifest the share of time that was planned for each backend."""
    predicted = manifest.get("predicted")
    shares = predicted.get("share_by_backend") if isinstance(predicted, Mapping) else None
    if not isinstance(shares, Mapping):
        return {}
    return {
        str(name): float(share)
        for name, share in shares.items()
        if isinstance(share, int | float) and 0 <= share <= 1
    }


def match_ops(
    nodes: Sequence[PredictedNode], names: Sequence[str]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Say which nodes each op of a runtime stands for.

    Names decide first. A node that no name tells of went into an op next to it with the same
    planned backend: a convolution into the op that is named after what follows it, anything
    else into the op before it.

    Args:
        nodes: The plan.
        names: What the runtimes call their ops, in the order in which they run.

    Returns:
        For each op the positions of nodes that its name tells of, and of all that it stands
        for.
    """
    index = _index(nodes)
    named = tuple(_named(index, name) for name in names)
    claimed: dict[int, int] = {}
    for op, found in enumerate(named):
        for node in found:
            claimed.setdefault(node, op)
    _claim_neighbours(nodes, claimed)
    everything: list[list[int]] = [[] for _ in names]
    for node, op in sorted(claimed.items()):
        everything[op].append(node)
    return named, tuple(map(tuple, everything))


def _index(nodes: Sequence[PredictedNode]) -> dict[str, int]:
    """Find nodes by what they give, and by name where that is theirs alone."""
    found: dict[str, int] = {}
    repeated: set[str] = set()
    for position, node in enumerate(nodes):
        if node.name in found:
            repeated.add(node.name)
        elif node.name:
            found[node.name] = position
    found = {name: position for name, position in found.items() if name not in repeated}
    for position, node in enumerate(nodes):
        for name in node.gives:
            found.setdefault(name, position)
    return found


def _named(index: Mapping[str, int], name: str) -> tuple[int, ...]:
    for pieces in ([name], _BETWEEN.split(name), _BETWEEN_AND_AROUND.split(name)):
        found = {position for piece in pieces if (position := _find(index, piece)) is not None}
        if found:
            return tuple(sorted(found))
    return ()


def _find(index: Mapping[str, int], name: str) -> int | None:
    name = name.removeprefix(_UNNAMED)
    while name:
        if name in index:
            return index[name]
        shorter = _ADDED.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return None


def _claim_neighbours(nodes: Sequence[PredictedNode], claimed: dict[int, int]) -> None:
    maker = {name: i for i, node in enumerate(nodes) for name in node.gives}
    readers: dict[int, list[int]] = {}
    for position, node in enumerate(nodes):
        for name in node.reads:
            if name in maker:
                readers.setdefault(maker[name], []).append(position)
    planned = {op: nodes[node].backend for node, op in reversed(claimed.items())}
    for position, node in enumerate(nodes):
        if position in claimed or node.op not in _COMPUTE:
            continue
        way, here = [position], position
        while len(readers.get(here, ())) == 1 and here not in claimed:
            after = readers[here][0]
            if after <= here or nodes[after].op in _COMPUTE:
                break
            here = after
            way.append(here)
        taker = claimed.get(here)
        if taker is not None and planned.get(taker) == node.backend:
            claimed.update(dict.fromkeys(way, taker))
    for position, node in enumerate(nodes):
        if position in claimed:
            continue
        before = [maker[name] for name in node.reads if name in maker]
        if before and planned.get(claimed.get(max(before), -1)) == node.backend:
            claimed[position] = claimed[max(before)]
