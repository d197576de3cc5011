"""Linear models: a product with constant weights, and what is done to its scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.classical.scores import TRANSFORMS, both_scores, finish_scores
from edgesdk.model.classical.writing import Lowered, Writer, class_labels, float_array, text

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["linear_classifier", "linear_regressor", "row_width"]


def row_width(node: ir.Node) -> int | None:
    """Give the number of features of a node's first input; None unless it is a matrix.

    Its rows may be any number, its columns have to be known, and its numbers single.
    """
    value = node.inputs[0] if node.inputs else None
    if value is None or value.shape is None or len(value.shape) != 2 or value.dtype is None:
        return None
    width = value.shape[1]
    known = value.dtype.name in ("FLOAT", "INT32", "INT64")
    return width if isinstance(width, int) and known else None


def linear_classifier(node: ir.Node, write: Writer) -> Lowered:
    """Lower a LinearClassifier whose labels are whole numbers, or whose labels nobody reads."""
    weights, bias = float_array(node, "coefficients"), float_array(node, "intercepts")
    classes, labels = len(bias), class_labels(node)
    transform = text(node, "post_transform", "NONE")
    width = row_width(node)
    if not classes or width is None or len(weights) != classes * width:
        return None
    # one score tells two classes apart
    if transform not in TRANSFORMS or len(labels) != max(classes, 2):
        return None
    scores = _product(write, node, weights.reshape(classes, width), bias)
    if classes == 1:
        label = _binary_label(write, scores, labels)
        return {0: label, 1: both_scores(write, scores, transform, negated=False)}
    label = write.labels(write.op("ArgMax", scores, axis=1, keepdims=0), labels)
    done = finish_scores(write, scores, classes, transform)
    return {0: label, 1: done if done is not scores else write.op("Identity", scores)}


def linear_regressor(node: ir.Node, write: Writer) -> Lowered:
    """Lower a LinearRegressor."""
    import numpy as np

    weights, bias = float_array(node, "coefficients"), float_array(node, "intercepts")
    attribute = node.attributes.get("targets")
    targets = attribute.as_int() if attribute is not None else 1
    transform = text(node, "post_transform", "NONE")
    value, width = node.inputs[0], row_width(node)
    if width is None or value is None or value.dtype is None or value.dtype.name != "FLOAT":
        return None
    if targets < 1 or len(weights) != targets * width or transform not in TRANSFORMS:
        return None
    if len(bias) != targets:
        bias = np.zeros(targets, np.float32)
    scores = _product(write, node, weights.reshape(targets, width), bias)
    return {0: finish_scores(write, scores, targets, transform)}


def _binary_label(write: Writer, score: ir.Value, labels: np.ndarray) -> ir.Value:
    """Say which of two labels a column of scores means."""
    positive = write.op("Greater", score, write.number(0, "zero"))
    return write.labels(write.reshape(write.cast(positive, "INT64"), (-1,)), labels)


def _product(write: Writer, node: ir.Node, weights: np.ndarray, bias: np.ndarray) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return write.op(
        "Gemm",
        write.as_float(value),
        write.constant(weights, "weight"),
        write.constant(bias, "bias"),
        transB=1,
    )
