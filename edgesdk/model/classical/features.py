"""What comes before an estimator: scaling, filling in, choosing and joining of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.classical.linear import row_width
from edgesdk.model.classical.writing import Lowered, Writer, float_array, int_array, text
from edgesdk.model.graph_edit import constant_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "array_feature_extractor",
    "binarizer",
    "feature_vectorizer",
    "imputer",
    "normalizer",
    "one_hot_encoder",
    "scaler",
]

#: Categories that a OneHotEncoder may tell apart; more are a table, not arithmetic.
_MOST_CATEGORIES = 1 << 12


def scaler(node: ir.Node, write: Writer) -> Lowered:
    """Lower a Scaler: subtract, then multiply, per feature or all alike."""
    offset, scale = float_array(node, "offset"), float_array(node, "scale")
    width, value = row_width(node), node.inputs[0]
    if width is None or value is None or len(offset) != len(scale):
        return None
    if len(scale) not in (1, width):
        return None
    moved = write.op("Sub", write.as_float(value), write.constant(offset, "offset"))
    return {0: write.op("Mul", moved, write.constant(scale, "scale"))}


def normalizer(node: ir.Node, write: Writer) -> Lowered:
    """Lower a Normalizer; a row whose norm is 0 stays as it is."""
    value, norm = node.inputs[0], text(node, "norm", "MAX")
    if row_width(node) is None or value is None:
        return None
    data = write.as_float(value)
    if norm == "MAX":
        size = write.over("ReduceMax", data, (1,), keepdims=1)
    elif norm == "L1":
        size = write.over("ReduceSum", write.op("Abs", data), (1,), keepdims=1)
    elif norm == "L2":
        squares = write.over("ReduceSum", write.op("Mul", data, data), (1,), keepdims=1)
        size = write.op("Sqrt", squares)
    else:
        return None
    divisor = write.op("Where", write.is_zero(size), write.number(1, "one"), size)
    return {0: write.op("Div", data, divisor)}


def binarizer(node: ir.Node, write: Writer) -> Lowered:
    """Lower a Binarizer: 1 above the threshold, else 0."""
    value, attribute = node.inputs[0], node.attributes.get("threshold")
    if value is None or value.dtype is None or value.dtype.name != "FLOAT":
        return None
    threshold = 0.0 if attribute is None else attribute.as_float()
    above = write.op("Greater", value, write.number(threshold, "threshold"))
    return {0: write.cast(above, "FLOAT")}


def imputer(node: ir.Node, write: Writer) -> Lowered:
    """Lower an Imputer of floats: what is missing, or a value that stands for it, is put in."""
    import numpy as np

    filled = float_array(node, "imputed_value_floats")
    attribute = node.attributes.get("replaced_value_float")
    value, width = node.inputs[0], row_width(node)
    if value is None or width is None or value.dtype is None or value.dtype.name != "FLOAT":
        return None
    if not len(filled) or attribute is None:
        return None
    if len(filled) != width:
        filled = filled[:1]
    replaced = attribute.as_float()
    if np.isnan(replaced):
        missing = write.op("IsNaN", value)
    elif np.isinf(replaced):
        return None
    elif replaced:
        missing = write.is_zero(write.op("Sub", value, write.number(replaced, "replaced")))
    else:
        missing = write.is_zero(value)
    return {0: write.op("Where", missing, write.constant(filled, "filled"), value)}


def feature_vectorizer(node: ir.Node, write: Writer) -> Lowered:
    """Lower a FeatureVectorizer whose inputs have the widths it is told."""
    wanted = int_array(node, "inputdimensions")
    if len(wanted) != len(node.inputs):
        return None
    columns = []
    for value, width in zip(node.inputs, wanted, strict=True):
        if value is None or value.shape is None or len(value.shape) != 2:
            return None
        if value.shape[1] != int(width) or value.dtype is None:
            return None
        columns.append(write.as_float(value))
    joined = write.op("Concat", *columns, axis=1)
    return {0: joined}


def array_feature_extractor(node: ir.Node, write: Writer) -> Lowered:
    """Lower an ArrayFeatureExtractor: choose along the last axis, by one flat list."""
    value, chosen = node.inputs[0], node.inputs[1]
    if value is None or chosen is None or value.shape is None:
        return None
    rank = len(value.shape)
    if not rank or value.dtype is None or value.dtype.name == "STRING":
        return None
    known = constant_of(chosen)
    if known is not None:
        flat = write.constant(known.numpy().reshape(-1), "chosen")
    else:
        is_flat = chosen.shape is not None and len(chosen.shape) == 1
        flat = chosen if is_flat else write.reshape(chosen, (-1,))
    if rank > 1:
        return {0: write.op("Gather", value, flat, axis=rank - 1)}
    return {0: write.reshape(write.op("Gather", value, flat, axis=0), (1, -1))}


def one_hot_encoder(node: ir.Node, write: Writer) -> Lowered:
    """Lower a OneHotEncoder of whole numbers that gives zeros for what it does not know."""
    import numpy as np

    known, attribute = int_array(node, "cats_int64s"), node.attributes.get("zeros")
    value = node.inputs[0]
    if not 0 < len(known) <= _MOST_CATEGORIES or len(set(known.tolist())) != len(known):
        return None
    if attribute is not None and attribute.as_int() == 0:
        return None
    if value is None or value.shape is None or value.dtype is None or len(value.shape) > 2:
        return None
    if value.dtype.name not in ("INT64", "FLOAT") or not len(value.shape):
        return None
    whole = value if value.dtype.name == "INT64" else write.cast(value, "INT64")
    each = write.over("Unsqueeze", whole, (len(value.shape),))
    same = write.op("Equal", each, write.constant(np.asarray(known), "categories"))
    return {0: write.cast(same, "FLOAT")}
