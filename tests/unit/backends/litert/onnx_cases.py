"""The single-operator cases that come with the onnx package, as graphs with their answers.

A case passes everything as an input. What an export writes as a constant (the shape of a
Reshape, the axes of a reduction, the weights of a convolution) is one input among others there,
so each case is offered twice: as it is, and with such inputs as initializers. Doubles become
single precision.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

__all__ = ["OnnxCase", "cases_by_op"]

#: Positions of inputs that say how, not what, by operator: constants in any real model.
SETTINGS: Mapping[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "CenterCropPad": (1,),
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "CumSum": (1,),
    "DequantizeLinear": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "GRU": (1, 2, 3, 4),
    "Gather": (1,),
    "GatherElements": (1,),
    "GatherND": (1,),
    "Gemm": (1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LSTM": (1, 2, 3, 4, 7),
    "LayerNormalization": (1, 2),
    "OneHot": (1, 2),
    "PRelu": (1,),
    "Pad": (1, 2, 3),
    "QuantizeLinear": (1, 2),
    "RNN": (1, 2, 3, 4),
    "RMSNormalization": (1,),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "ScatterElements": (1,),
    "ScatterND": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
#: Made of several nodes: the function bodies of operators.
EXPANDED = "(expanded)"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCase:
    """One case.

    Attributes:
        name: In the package; with ``/bound`` where settings became initializers.
        op: The operator, or `EXPANDED`.
        model: Its graph.
        inputs: By name.
        wanted: The answers, by name.
    """

    name: str
    op: str
    model: ir.Model
    inputs: dict[str, np.ndarray]
    wanted: dict[str, np.ndarray]


@functools.cache
def cases_by_op() -> dict[str, tuple[OnnxCase, ...]]:
    """Collect what has tensors for inputs and outputs, by operator."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases overflow, divide by zero, on purpose
        found = collect_testcases(None)
    cases: dict[str, list[OnnxCase]] = {}
    for each in found:
        if each.model is None or not each.data_sets:
            continue
        nodes = each.model.graph.node
        op = nodes[0].op_type if len(nodes) == 1 else EXPANDED
        inputs, wanted = ([_array(one) for one in half] for half in each.data_sets[0])
        arrays = (*inputs, *wanted)
        if not all(isinstance(one, np.ndarray | np.generic) for one in arrays):
            continue
        given = {
            value.name: np.asarray(array)
            for value, array in zip(each.model.graph.input, inputs, strict=True)
        }
        answers = {
            value.name: np.asarray(array)
            for value, array in zip(each.model.graph.output, wanted, strict=True)
        }
        proto = each.model
        if any(one.dtype == np.float64 for one in (*given.values(), *answers.values())):
            proto = _in_single(proto)
            given, answers = ({n: _single(a) for n, a in h.items()} for h in (given, answers))
        several = cases.setdefault(op, [])
        several.append(_case(each.name, op, proto, given, answers))
        if bound := _bound(proto, given):
            left = {name: given[name] for name in given if name not in bound}
            proto = _with_constants(proto, {name: given[name] for name in bound})
            several.append(_case(f"{each.name}/bound", op, proto, left, answers))
    return {op: tuple(several) for op, several in sorted(cases.items())}


def _single(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _in_single(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give a case of doubles, which LiteRT has no kernels for, in single precision."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in (*copy.graph.input, *copy.graph.output):
        kind = value.type.tensor_type
        if kind.elem_type == onnx.TensorProto.DOUBLE:
            kind.elem_type = onnx.TensorProto.FLOAT
    return copy


def _array(given: object) -> object:
    """Give a tensor as an array; small floats and sequences stay what they are."""
    if not isinstance(given, onnx.TensorProto):
        return given
    array = numpy_helper.to_array(given)
    return array if array.dtype.kind in "fiub" and array.dtype.isbuiltin else given


def _case(
    name: str,
    op: str,
    proto: onnx.ModelProto,
    inputs: dict[str, np.ndarray],
    wanted: dict[str, np.ndarray],
) -> OnnxCase:
    model = ir.serde.deserialize_model(proto)
    return OnnxCase(name=name, op=op, model=model, inputs=inputs, wanted=wanted)


def _bound(proto: onnx.ModelProto, given: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    if len(proto.graph.node) != 1:
        return ()
    (node,) = proto.graph.node
    names = [node.input[at] for at in SETTINGS.get(node.op_type, ()) if at < len(node.input)]
    return tuple(name for name in names if name in given)


def _with_constants(
    proto: onnx.ModelProto, constants: Mapping[str, np.ndarray]
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    left = [value for value in copy.graph.input if value.name not in constants]
    del copy.graph.input[:]
    copy.graph.input.extend(left)
    for name, array in constants.items():
        copy.graph.initializer.append(numpy_helper.from_array(array, name))
    return copy
