"""Simplify a graph without changing what it computes or what its ends are called.

Constant folding is onnxscript's, under caps of our own: it runs operators, so a node of a few
bytes may ask for terabytes. Each step works on a copy that is kept only if the step succeeds
and the graph's inputs and outputs are still the same. The result depends on the graph alone:
no step orders anything by hash or address.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError
from edgesdk.model._affine import fold_affine
from edgesdk.model._shapes import infer_and_check
from edgesdk.model.values import Finding

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["simplify"]

#: A node whose results have fewer elements may always be folded ...
_SMALL_ELEMENTS = 1 << 16
#: ... a cheap one also where they are no more than its inputs, up to here.
_MOST_ELEMENTS = 1 << 26
#: Inputs of other operators, whose cost is not proportional to their result.
_COSTLY_ELEMENTS = 1 << 13
_CHEAP = frozenset(
    {"Add", "Cast", "Concat", "Div", "Flatten", "Gather", "Identity", "Mul", "Neg"}
    | {"Reciprocal", "Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
#: Their results are never larger than their inputs, so they may be folded without known shapes.
_SHRINKING = frozenset(
    {"Cast", "Concat", "Flatten", "Identity", "Neg", "Not", "Reshape", "Shape", "Size", "Slice"}
    | {"Squeeze", "Sqrt", "Transpose", "Unsqueeze"}
    | {"ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"}
)
#: What they compute depends on numbers: only constant inputs make them foldable.
_NEVER_IDLE = frozenset(
    {"AveragePool", "BatchNormalization", "Clip", "Conv", "ConvTranspose", "Elu", "Exp"}
    | {"Flatten", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid"}
    | {"HardSwish", "LRN", "LayerNormalization", "LeakyRelu", "LogSoftmax", "MatMul", "MaxPool"}
    | {"PRelu", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Tanh"}
    | {"Add", "Mul", "Sub", "Div"}
)
#: Quantization is what they say, and ConstantOfShape says in bytes what it means in gigabytes.
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_ROUNDS = 4


def _ignore_finding(finding: Finding) -> None:
    """Take a finding and do nothing."""


def simplify(
    model: onnx_ir.Model, *, on_finding: Callable[[Finding], None] = _ignore_finding
) -> onnx_ir.Model:
    """Give a simpler graph that computes the same.

    Constants are folded (within caps), identities and idle Dropouts removed, BatchNormalization
    and per-channel Mul and Add folded into the convolution before them, equal nodes and equal
    constants merged, what nobody reads removed, missing and repeated names fixed (a node that
    has none is called after its first output), and doc strings and metadata dropped. Names and
    order of inputs and outputs stay.

    Args:
        model: Left as it is.
        on_finding: Told of each step that had to be left out (code ``simplify-step-skipped``).
    """
    current = model.clone()
    _name_nodes(current)
    ends = _ends(model)
    for name, step in _STEPS:
        candidate = current.clone()
        try:
            with _quiet():
                step(candidate)
            if _ends(candidate) != ends:
                raise ValueError("it changes the graph's inputs or outputs")
        except Exception as exc:  # noqa: BLE001  (a companion's failure is not the user's)
            on_finding(_skipped(name, exc))
        else:
            current = candidate
    try:
        infer_and_check(current, Path(model.graph.name or "the simplified model"))
    except ModelError as exc:
        on_finding(_skipped("all steps", exc))
        return model.clone()
    return current


def _name_nodes(model: onnx_ir.Model) -> None:
    """Call nodes without a name after what they give, so that they are known by it later."""
    known = {node.name for node in model.graph}
    for node in model.graph:
        first = node.outputs[0].name if node.outputs else None
        if not node.name and first and first not in known:
            node.name = first
            known.add(first)


def _skipped(step: str, exc: Exception) -> Finding:
    text = " ".join(f"{exc.__cause__ or exc}".split())[:300]
    return Finding(
        code="simplify-step-skipped",
        severity="warning",
        message=f"the graph stays as it was before {step}: {text}",
        hint="the model works all the same; it may be larger or slower than it could be",
        subject=step,
    )


def _ends(model: onnx_ir.Model) -> tuple[tuple[str | None, ...], tuple[str | None, ...]]:
    graph = model.graph
    return tuple(one.name for one in graph.inputs), tuple(one.name for one in graph.outputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the companions' log lines and numpy's warnings about odd constants to ourselves."""
    import numpy as np

    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _lift_constants(model: onnx_ir.Model) -> None:
    from onnx_ir.passes import common

    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _fold_constants(model: onnx_ir.Model) -> None:
    if not _may_fold(model):
        return  # the optimizer alone is 25 MB to import
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    for _ in range(_ROUNDS):
        result = fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=_MOST_ELEMENTS,
            output_size_limit=_MOST_ELEMENTS,
            should_fold=_should_fold,
        )
        common.RemoveUnusedNodesPass()(model)
        if not result.modified:
            return


def _may_fold(model: onnx_ir.Model) -> bool:
    """Say whether there may be anything to fold.

    That is a node of constants, or one of the many kinds that shapes or neighbours can make
    superfluous.
    """
    for node in model.graph.all_nodes():
        if node.domain or node.op_type not in _NEVER_IDLE:
            return True
        inputs = [value for value in node.inputs if value is not None]
        if all(value.is_initializer() and not value.is_graph_input() for value in inputs):
            return True
    return False


def _should_fold(node: onnx_ir.Node) -> bool:
    """Say whether a node of constants may be computed now: cheap, and its result no burden."""
    if node.domain or node.op_type in _KEPT or node.op_type in _RANDOM:
        return False
    tensors = [value.const_value for value in node.inputs if value is not None]
    given = sum(tensor.size for tensor in tensors if tensor is not None)
    if given > (_MOST_ELEMENTS if node.op_type in _CHEAP else _COSTLY_ELEMENTS):
        return False
    if node.op_type in ("Div", "Mod") and not _is_plain_division(node):
        return False
    total = 0
    for value in node.outputs:
        if value.shape is None or not value.shape.is_static():
            return node.op_type in _SHRINKING
        total += math.prod(one for one in value.shape if isinstance(one, int))
    return total <= max(_SMALL_ELEMENTS, given)


def _is_plain_division(node: onnx_ir.Node) -> bool:
    """Leave integer division of negative numbers, or by zero, to the runtime's own rounding."""
    for value in node.inputs:
        tensor = value.const_value if value is not None else None
        if tensor is None:
            return False
        array = tensor.numpy()
        if array.dtype.kind in "iu" and not (array > 0).all():
            return False
    return True


def _drop_idle(model: onnx_ir.Model) -> None:
    """Remove Identity, and Dropout where it does nothing, in every graph."""
    opset = model.graph.opset_imports.get("", 0)
    graphs = {id(graph): graph for graph in (model.graph, *model.graph.subgraphs())}
    for graph in graphs.values():
        for node in list(graph):
            if not node.domain and _is_idle(node, opset):
                _bypass(node, graph)


def _is_idle(node: onnx_ir.Node, opset: int) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or opset < 7:
        return False
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    return opset < 12 or len(node.inputs) < 3 or node.inputs[2] is None


def _bypass(node: onnx_ir.Node, graph: onnx_ir.Graph) -> None:
    """Let readers of a node's first output read its first input, if that is legal."""
    source, result = node.inputs[0], node.outputs[0]
    if source is None:
        return
    if result.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return  # a graph's output must be made in that graph, and under that name
        name = result.name
        result.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        source.name = name
        return
    result.replace_all_uses_with(source)
    graph.remove(node, safe=True)


def _fold_affine(model: onnx_ir.Model) -> None:
    fold_affine(model.graph)


def _merge_equal(model: onnx_ir.Model) -> None:
    """Merge equal nodes and equal constants of the top level."""
    from onnx_ir.passes import common

    if not any(node.op_type in _RANDOM for node in model.graph.all_nodes()):
        common.CommonSubexpressionEliminationPass()(model)
    _merge_constants(model.graph)


def _merge_constants(graph: onnx_ir.Graph) -> None:
    import onnx_ir as ir

    first: dict[tuple[str, tuple[int, ...], bytes], onnx_ir.Value] = {}
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if (
            tensor is None
            or tensor.dtype == ir.DataType.STRING
            or isinstance(tensor, ir.ExternalTensor)
            or value.is_graph_input()
            or value.is_graph_output()
            or _is_bias(value)
        ):
            continue
        digest = hashlib.sha256(tensor.tobytes()).digest()
        key = (tensor.dtype.name, tuple(tensor.shape.numpy()), digest)
        if key in first:
            value.replace_all_uses_with(first[key])
            del graph.initializers[value.name or ""]
        else:
            first[key] = value


def _is_bias(value: onnx_ir.Value) -> bool:
    """A quantizer scales each bias by its own layer, so two layers cannot share one."""
    return any(
        position == 2 and node.op_type in ("Conv", "ConvTranspose", "Gemm")
        for node, position in value.uses()
    )


def _tidy(model: onnx_ir.Model) -> None:
    from onnx_ir.passes import common

    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    common.NameFixPass()(model)
    model.doc_string = None
    model.metadata_props.clear()
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.doc_string = None
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.doc_string = None
        value.metadata_props.clear()


_STEPS: tuple[tuple[str, Callable[[onnx_ir.Model], None]], ...] = (
    ("lifting constants", _lift_constants),
    ("folding constants", _fold_constants),
    ("removing identities", _drop_idle),
    ("folding into convolutions", _fold_affine),
    ("merging equal nodes", _merge_equal),
    ("tidying", _tidy),
)
