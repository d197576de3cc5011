"""Labels: tables of whole numbers as arithmetic, and words that only number themselves.

No device sends words. A classifier of words behind which a LabelEncoder numbers them is one of
numbers, so its words are replaced where they stand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.model.classical.writing import (
    Lowered,
    Writer,
    float_array,
    int_array,
    strings,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["label_encoder", "number_labels"]

#: Entries of a table that are compared one by one.
_MOST_KEYS = 1 << 12
#: By classifier, the attribute that holds labels which are numbers.
_NUMBERS = {
    "LinearClassifier": "classlabels_ints",
    "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}
#: What stands between a classifier and the LabelEncoder and looks at no label.
_PASSES = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def label_encoder(node: ir.Node, write: Writer) -> Lowered:
    """Lower a LabelEncoder from whole numbers to whole numbers or floats."""
    import numpy as np

    keys, whole = int_array(node, "keys_int64s"), int_array(node, "values_int64s")
    floats, value = float_array(node, "values_floats"), node.inputs[0]
    if value is None or value.shape is None or value.dtype is None:
        return None
    values: np.ndarray = whole if len(whole) else floats
    if not 0 < len(keys) <= _MOST_KEYS or len(values) != len(keys):
        return None
    if value.dtype.name != "INT64" or len(set(keys.tolist())) != len(keys):
        return None
    if not np.isfinite(values).all():
        return None
    name = "default_int64" if len(whole) else "default_float"
    attribute = node.attributes.get(name)
    default = (-1 if len(whole) else -0.0) if attribute is None else attribute.value
    each = write.over("Unsqueeze", value, (len(value.shape),))
    same = write.cast(write.op("Equal", each, write.constant(keys, "keys")), "FLOAT")
    last = len(value.shape)
    place = write.op("ArgMax", same, axis=last, keepdims=0)
    is_known = write.cast(write.over("ReduceMax", same, (last,), keepdims=0), "BOOL")
    found = write.op("Gather", write.constant(values, "values"), place, axis=0)
    other = write.constant(np.array(default, values.dtype), "default")
    return {0: write.op("Where", is_known, found, other)}


def number_labels(node: ir.Node, write: Writer) -> Lowered:
    """Number the words where they are given, if nothing else than this LabelEncoder reads them.

    This changes what is before the node: a classifier's labels, or the constant that an
    ArrayFeatureExtractor chooses from.
    """
    table, default = _table(node)
    if not table:
        return None
    passed = []
    value = node.inputs[0]
    while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
        maker = value.producer()
        if maker is None:
            return None
        passed.append(value)
        if maker.domain == node.domain:
            if not _number(maker, value, write, table, default):
                return None
            break
        if maker.domain or maker.op_type not in _PASSES:
            return None
        value = maker.inputs[0]
    else:
        return None
    _retype(passed)
    return {0: write.op("Identity", passed[0])}


def _table(node: ir.Node) -> tuple[dict[str, int], int]:
    """Give the numbers of words, and that of any other; empty where it is another table."""
    attribute = node.attributes.get("default_int64")
    default = -1 if attribute is None else attribute.as_int()
    first = strings(node, "classes_strings")
    if first:
        return {word: number for number, word in enumerate(first)}, default
    keys, values = strings(node, "keys_strings"), int_array(node, "values_int64s")
    if len(keys) != len(values) or len(set(keys)) != len(keys):
        return {}, default
    return dict(zip(keys, values.tolist(), strict=True)), default


def _number(
    maker: ir.Node, value: ir.Value, write: Writer, table: dict[str, int], default: int
) -> bool:
    """Replace the words that a node gives; say whether it is one that can be."""
    import numpy as np
    import onnx_ir as ir

    if maker.op_type in _NUMBERS and value is maker.outputs[0]:
        words = strings(maker, "classlabels_strings")
        if not words:
            return False
        numbers = [table.get(word, default) for word in words]
        del maker.attributes["classlabels_strings"]
        name = _NUMBERS[maker.op_type]
        maker.attributes[name] = ir.AttrInt64s(name, numbers)
        return True
    if maker.op_type != "ArrayFeatureExtractor":
        return False
    source = maker.inputs[0]
    tensor = None if source is None else ir.convenience.get_const_tensor(source)
    if tensor is None or tensor.dtype != ir.DataType.STRING or tensor.size > _MOST_KEYS:
        return False
    words = tuple(_word(one) for one in np.asarray(tensor.numpy()).reshape(-1))
    numbers = [table.get(word, default) for word in words]
    array = np.array(numbers, np.int64).reshape(tuple(tensor.shape.numpy()))
    maker.replace_input_with(0, write.constant(array, "classes"))
    return True


def _word(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _retype(values: list[ir.Value]) -> None:
    """Say that values are numbers now, and that nodes which made words of them make those."""
    import onnx_ir as ir

    for value in values:
        value.type = ir.TensorType(ir.DataType.INT64)
        maker = value.producer()
        if maker is not None and maker.op_type == "Cast":
            maker.attributes["to"] = ir.AttrInt64("to", int(ir.DataType.INT64))
