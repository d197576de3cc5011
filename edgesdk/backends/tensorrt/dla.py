"""What NVIDIA's DLA (Deep Learning Accelerator), reached through TensorRT, turns down.

Nothing of this has run on one. Assumed, without a document at hand, are: paddings up to 31 and
dilations up to 32 of convolutions, strides up to 32 of deconvolutions, axes up to 1024 of
Softmax, and all that the first generation lacks. The other limits are from these:

* https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html
* docs of https://github.com/NVIDIA/Deep-Learning-Accelerator-SW, the operators that a DLA of
  Orin has through TensorRT 8.6
* ``NvInfer.h`` of TensorRT 8, what a pooling layer takes on a DLA
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from edgesdk.backends.base import WhyNot
from edgesdk.backends.tensorrt.rules import release_of
from edgesdk.model.values import NodeFacts
from edgesdk.profiles.values import BackendProfile

__all__ = ["dla_rules"]

_MOST_BATCH = 4096
_MOST_EXTENT = 8192
_LAST_RELEASE = (10, 7)
#: Elementwise operators that came with 10.
_SINCE_TEN = frozenset({"Div", "Min", "Pow"})
#: What the first generation, Xavier's, lacks; assumed.
_SECOND_GENERATION = frozenset({"Softmax", "Slice", "Split", "Equal", "Abs"})
_FIRST_GENERATION = "first-generation-dla"
_FLAT = frozenset({"Gemm", "MatMul", "Reshape"})
#: Operators that stand for scales, which a DLA is given apart from the graph.
_SCALES = frozenset({"QuantizeLinear", "DequantizeLinear"})

Check = Callable[[NodeFacts], str | None]


def dla_rules(profile: BackendProfile) -> tuple[WhyNot, ...]:
    """Give the rules of a DLA, to be asked after those of TensorRT itself."""
    release = release_of(profile)

    def is_built_for(_: NodeFacts) -> str | None:
        if release[:2] > _LAST_RELEASE:
            return (
                f"TensorRT {profile.runtime_version} builds nothing for a DLA; 10.7 was the "
                "last that did"
            )
        return None

    def has_a_layer(node: NodeFacts) -> str | None:
        if node.op in _SCALES or (node.op == "Constant" and not node.subgraph_ops):
            return None
        if node.op in _SINCE_TEN and release[0] < 10:
            return f"the DLA has no {node.op} through TensorRT {profile.runtime_version}"
        if node.op not in _CHECKS and node.op not in _SINCE_TEN:
            return f"the DLA has no layer for {node.op}"
        if _FIRST_GENERATION in profile.quirks and node.op in _SECOND_GENERATION:
            return f"the DLA of this generation has no layer for {node.op}"
        return None

    def fits_the_limits(node: NodeFacts) -> str | None:
        if node.op in _SCALES:
            return None
        check = _CHECKS.get(node.op, _elementwise)
        return _extents(node) or check(node)

    return (is_built_for, has_a_layer, fits_the_limits)


def _shape(node: NodeFacts, position: int) -> tuple[int | str | None, ...]:
    value = node.input_types[position] if position < len(node.input_types) else None
    return () if value is None else value.shape


def _extents(node: NodeFacts) -> str | None:
    """Check types and extents of everything that is not a constant."""
    constant = node.constant_inputs
    taken = [
        value
        for i, value in enumerate(node.input_types)
        if not (i < len(constant) and constant[i])
    ]
    for value in (*taken, *node.output_types):
        if value is None or not value.shape:
            continue
        if value.dtype not in ("float32", "float16", "int8", "bool", ""):
            return f"{value.name} is {value.dtype}; a DLA computes in fp16 and int8 only"
        if node.op not in _FLAT and len(value.shape) != 4:
            return f"{value.name} has {len(value.shape)} dimensions (4)"
        batch, *rest = value.shape
        if isinstance(batch, int) and batch > _MOST_BATCH:
            return f"{value.name} has a batch of {batch} (at most {_MOST_BATCH})"
        for extent in rest:
            if not isinstance(extent, int):
                return f"{value.name} has an extent that is not fixed"
            if extent > _MOST_EXTENT:
                return f"{value.name} has an extent of {extent} (at most {_MOST_EXTENT})"
    return None


def _anything(_: NodeFacts) -> str | None:
    return None


def _within(node: NodeFacts, name: str, least: int, most: int, called: str) -> str | None:
    for value in node.ints.get(name, ()):
        if not least <= value <= most:
            return f"{called} {value} ({least} to {most})"
    return None


def _first(*reasons: str | None) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _two_dimensions(node: NodeFacts, name: str = "kernel_shape") -> str | None:
    kernel = node.ints.get(name, ())
    if kernel and len(kernel) != 2:
        return f"a window of {len(kernel)} dimensions (2)"
    return None


def _weights(node: NodeFacts) -> str | None:
    return None if node.constant_inputs[1:2] == (True,) else "its weights are not constant"


def _conv(node: NodeFacts) -> str | None:
    outputs = _shape(node, 1)[:1]
    most = outputs[0] if outputs and isinstance(outputs[0], int) else 1
    return _first(
        _two_dimensions(node),
        _weights(node),
        _within(node, "kernel_shape", 1, 32, "kernel side"),
        _within(node, "strides", 1, 8, "stride"),
        _within(node, "pads", 0, 31, "padding"),
        _within(node, "dilations", 1, 32, "dilation"),
        f"{most} output channels (at most {_MOST_EXTENT})" if most > _MOST_EXTENT else None,
    )


def _deconv(node: NodeFacts) -> str | None:
    return _first(
        _two_dimensions(node),
        _weights(node),
        _within(node, "kernel_shape", 1, 32, "kernel side"),
        _within(node, "strides", 1, 32, "stride"),
        _within(node, "pads", 0, 0, "padding"),
        _within(node, "dilations", 1, 1, "dilation"),
        _within(node, "group", 1, 1, "groups"),
        _within(node, "output_padding", 0, 0, "output padding"),
    )


def _pool(node: NodeFacts) -> str | None:
    pads = node.ints.get("pads", ())
    exclusive = node.op == "AveragePool" and any(pads)
    if exclusive and not node.ints.get("count_include_pad", (0,))[0]:
        return "an average that leaves the padding out"
    return _first(
        _two_dimensions(node),
        _within(node, "kernel_shape", 1, 8, "window side"),
        _within(node, "strides", 1, 16, "stride"),
        _within(node, "pads", 0, 7, "padding"),
    )


def _concat(node: NodeFacts) -> str | None:
    axis = node.ints.get("axis", (0,))[0]
    if axis not in (1, -3):
        return f"it joins along axis {axis} (only channels)"
    return None if len(node.inputs) > 1 else "it joins one input only"


def _lrn(node: NodeFacts) -> str | None:
    size = node.ints.get("size", (0,))[0]
    return None if size in (3, 5, 7, 9) else f"a window of {size} (3, 5, 7 or 9)"


def _matmul(node: NodeFacts) -> str | None:
    if node.constant_inputs[1:2] != (True,):
        return "its second input is not constant"
    if node.op == "Gemm" and node.ints.get("transA", (0,))[0]:
        return "its first input is transposed"
    return None


def _elementwise(node: NodeFacts) -> str | None:
    shapes = [_shape(node, i) for i in range(len(node.inputs))]
    known = [shape for shape in shapes if shape]
    for one, other in itertools.pairwise(known):
        if len(one) == len(other) and one != other and 1 not in (*one, *other):
            return "its inputs have different shapes"
    return None


def _slope(node: NodeFacts) -> str | None:
    return None if node.constant_inputs[1:2] == (True,) else "its slope is not constant"


def _softmax(node: NodeFacts) -> str | None:
    shape = _shape(node, 0)
    axis = node.ints.get("axis", (-1,))[0]
    extent = shape[axis] if shape and -len(shape) <= axis < len(shape) else None
    if isinstance(extent, int) and extent > 1024:
        return f"an axis of {extent} (at most 1024)"
    return None


def _transpose(node: NodeFacts) -> str | None:
    order = node.ints.get("perm", ())
    return "it moves the batch" if order and order[0] != 0 else None


def _resize(node: NodeFacts) -> str | None:
    return "its scales are not constant" if not all(node.constant_inputs[1:]) else None


_CHECKS: dict[str, Check] = {
    "Abs": _anything,
    "Add": _elementwise,
    "AveragePool": _pool,
    "BatchNormalization": _anything,
    "Clip": _anything,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _deconv,
    "Equal": _elementwise,
    "Gemm": _matmul,
    "LRN": _lrn,
    "LeakyRelu": _anything,
    "MatMul": _matmul,
    "Max": _elementwise,
    "MaxPool": _pool,
    "Mul": _elementwise,
    "PRelu": _slope,
    "Relu": _anything,
    "Reshape": _anything,
    "Resize": _resize,
    "Sigmoid": _anything,
    "Slice": _anything,
    "Softmax": _softmax,
    "Split": _anything,
    "Sub": _elementwise,
    "Sum": _elementwise,
    "Tanh": _anything,
    "Transpose": _transpose,
    "Upsample": _resize,
}
