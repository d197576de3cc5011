"""Why a classical operator is no arithmetic, in words for a plan."""

from __future__ import annotations

from edgesdk.model.classical.lower import DOMAIN, TREES
from edgesdk.model.values import NodeFacts

__all__ = ["why_it_stays"]


def why_it_stays(node: NodeFacts) -> str | None:
    """Say why a node is still a classical operator; None if it is none.

    The sentence goes on from the operator's name, without a full stop.
    """
    if node.domain != DOMAIN:
        return None
    if node.op in TREES:
        return _trees(node)
    words = next(
        (value.name for value in node.output_types if value and value.dtype == "string"), None
    )
    if words is not None:
        return f"gives words ({words}), which no arithmetic does"
    if any(value is not None and value.dtype == "string" for value in node.input_types):
        return "reads words, which no arithmetic does"
    if node.op == "SVMClassifier" and "prob_a" in node.floats:
        return "finds its probabilities in a loop over pairs of classes, which is no arithmetic"
    return "has no form as tensor arithmetic for these attributes and inputs"


def _trees(node: NodeFacts) -> str:
    trees = node.ints.get("nodes_treeids") or node.ints.get("tree_roots") or ()
    count = len(set(trees))
    points = len(node.ints.get("nodes_falsenodeids", ()))
    number = f"{count} tree{'s' if count != 1 else ''}" if count else "trees"
    size = f" of {points} nodes" if points else ""
    return f"walks {number}{size} by comparing one feature at a time, which is no arithmetic"
