"""Write what is arithmetic of a graph's classical operators as such."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgesdk.model.classical import features, labels, linear, svm
from edgesdk.model.classical.writing import OLDEST_OPSET, Lowered, Writer
from edgesdk.model.graph_edit import Names, replace_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["DOMAIN", "TREES", "lower_classical"]

DOMAIN = "ai.onnx.ml"
#: Operators that branch on values, which arithmetic on tensors does not.
TREES = frozenset({"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})

_LOWERINGS: dict[str, Callable[[ir.Node, Writer], Lowered]] = {
    "ArrayFeatureExtractor": features.array_feature_extractor,
    "Binarizer": features.binarizer,
    "FeatureVectorizer": features.feature_vectorizer,
    "Imputer": features.imputer,
    "LabelEncoder": labels.label_encoder,
    "LinearClassifier": linear.linear_classifier,
    "LinearRegressor": linear.linear_regressor,
    "Normalizer": features.normalizer,
    "OneHotEncoder": features.one_hot_encoder,
    "SVMClassifier": svm.svm_classifier,
    "SVMRegressor": svm.svm_regressor,
    "Scaler": features.scaler,
}


def lower_classical(model: ir.Model) -> int:
    """Lower the nodes of a graph's top level that can be; say how many were.

    A node whose attributes contradict each other or its input stays as it is, and so does one
    whose labels are words: a runtime that has the operator says what it thinks of it. Types and
    shapes have to be known, and are to be inferred again afterwards.

    Args:
        model: Changed.
    """
    opset = model.graph.opset_imports.get("", 0)
    if opset < OLDEST_OPSET or not any(node.domain == DOMAIN for node in model.graph):
        return 0
    names = Names(model)
    done = 0
    for lowerings in ({"LabelEncoder": labels.number_labels}, _LOWERINGS):
        for node in list(model.graph):
            lower = lowerings.get(node.op_type) if node.domain == DOMAIN else None
            if lower is not None:
                done += _lower_node(model.graph, node, lower, Writer(node, names, opset))
    return done


def _lower_node(
    graph: ir.Graph,
    node: ir.Node,
    lower: Callable[[ir.Node, Writer], Lowered],
    write: Writer,
) -> bool:
    results = lower(node, write) if node.inputs and not _gives_words(node) else None
    if results is None:
        return False
    for value in write.constants:
        graph.register_initializer(value)
    there = {at: value for at, value in results.items() if at < len(node.outputs)}
    replace_node(node, write.nodes, there)
    return True


def _gives_words(node: ir.Node) -> bool:
    """Say whether a label that is a word is read by someone."""
    if "classlabels_strings" not in node.attributes or not node.outputs:
        return False
    label = node.outputs[0]
    return bool(label.uses()) or label.is_graph_output()
