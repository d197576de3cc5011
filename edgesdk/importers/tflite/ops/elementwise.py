"""Operators that compute each number by itself, with broadcasting where they take two."""

from __future__ import annotations

import numpy as np

from edgesdk.importers.tflite.held import CannotConvert, Grid, Held
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import Site

__all__: list[str] = []

_UNARY = {
    "ABS": "Abs",
    "CEIL": "Ceil",
    "COS": "Cos",
    "ELU": "Elu",
    "EXP": "Exp",
    "FLOOR": "Floor",
    "HARD_SWISH": "HardSwish",
    "LOG": "Log",
    "LOGICAL_NOT": "Not",
    "LOGISTIC": "Sigmoid",
    "NEG": "Neg",
    "RELU": "Relu",
    "ROUND": "Round",
    "SIGN": "Sign",
    "SIN": "Sin",
    "SQRT": "Sqrt",
    "TANH": "Tanh",
}
_CLIPS = {
    "RELU6": (0.0, 6.0),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
_BINARY = {
    "ADD": "Add",
    "DIV": "Div",
    "EQUAL": "Equal",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "LOGICAL_AND": "And",
    "LOGICAL_OR": "Or",
    "MAXIMUM": "Max",
    "MINIMUM": "Min",
    "MUL": "Mul",
    "POW": "Pow",
    "SUB": "Sub",
}


@converts(*_UNARY)
def _unary(site: Site) -> None:
    order = site.held(0).order
    site.give(site.emit(_UNARY[site.op.name], [site.take(0, order)]), order)


@converts(*_CLIPS)
def _clip(site: Site) -> None:
    order = site.held(0).order
    site.give(site.clipped(site.take(0, order), *_CLIPS[site.op.name]), order)


@converts("RSQRT")
def _rsqrt(site: Site) -> None:
    order = site.held(0).order
    root = site.emit("Sqrt", [site.take(0, order)])
    site.give(site.emit("Reciprocal", [root]), order)


@converts("SQUARE")
def _square(site: Site) -> None:
    order = site.held(0).order
    value = site.take(0, order)
    site.give(site.emit("Mul", [value, value]), order)


@converts("LEAKY_RELU")
def _leaky_relu(site: Site) -> None:
    order = site.held(0).order
    slope = {"alpha": site.real("alpha")}
    site.give(site.emit("LeakyRelu", [site.take(0, order)], slope), order)


@converts("GELU")
def _gelu(site: Site) -> None:
    order = site.held(0).order
    way = {"approximate": "tanh" if site.number("approximate") else "none"}
    site.give(site.emit("Gelu", [site.take(0, order)], way, since=20), order)


@converts("PRELU")
def _prelu(site: Site) -> None:
    values, order = site.operands(0, 1)
    site.give(site.emit("PRelu", values), order)


@converts(*_BINARY)
def _binary(site: Site) -> None:
    values, order = site.operands(0, 1)
    site.give(site.activated(site.emit(_BINARY[site.op.name], values)), order)


@converts("NOT_EQUAL")
def _not_equal(site: Site) -> None:
    values, order = site.operands(0, 1)
    site.give(site.emit("Not", [site.emit("Equal", values)]), order)


@converts("SQUARED_DIFFERENCE")
def _squared_difference(site: Site) -> None:
    values, order = site.operands(0, 1)
    apart = site.emit("Sub", values)
    site.give(site.emit("Mul", [apart, apart]), order)


@converts("ADD_N")
def _add_n(site: Site) -> None:
    values, order = site.operands(*range(len(site.op.inputs)))
    site.give(site.emit("Sum", values), order)


@converts("FLOOR_DIV")
def _floor_div(site: Site) -> None:
    values, order = site.operands(0, 1)
    if site.real_dtype(0).startswith("float"):
        site.give(site.emit("Floor", [site.emit("Div", values)]), order)
        return
    # ONNX's division of whole numbers cuts towards zero: without a rest nothing is cut
    exact = site.emit("Sub", [values[0], site.emit("Mod", values)])
    site.give(site.emit("Div", [exact, values[1]]), order)


@converts("FLOOR_MOD")
def _floor_mod(site: Site) -> None:
    values, order = site.operands(0, 1)
    if not site.real_dtype(0).startswith("float"):
        site.give(site.emit("Mod", values), order)
        return
    whole = site.emit("Floor", [site.emit("Div", values)])
    site.give(site.emit("Sub", [values[0], site.emit("Mul", [whole, values[1]])]), order)


@converts("SELECT", "SELECT_V2")
def _select(site: Site) -> None:
    asked, chosen = site.shape(0), site.shape(1)
    if site.op.name == "SELECT" and len(asked) == 1 and len(chosen) > 1:
        # the first version picks whole rows by a list of truths
        rows = site.builder.reshaped(site.held(0), (*asked, *(1 for _ in chosen[1:])))
        order = site.common_order(1, 2)
        values = [site.broadcastable(site.held(each), order) for each in (1, 2)]
        truths = site.broadcastable(rows, order)
        site.give(site.emit("Where", [truths, *values]), order)
        return
    values, order = site.operands(0, 1, 2)
    site.give(site.emit("Where", values), order)


@converts("CAST")
def _cast(site: Site) -> None:
    """Convert the stored numbers, whatever they stand for."""
    import onnx_ir as ir

    kind = int(ir.DataType.from_numpy(np.dtype(site.out().dtype)))
    if site.out_grid() is not None:
        raise CannotConvert("it gives quantized numbers")
    if site.is_quantized(0):
        site.give(site.emit("Cast", [site.raw(0)], {"to": kind}))
        return
    order = site.held(0).order
    site.give(site.emit("Cast", [site.take(0, order)], {"to": kind}), order)


@converts("QUANTIZE")
def _quantize(site: Site) -> None:
    if site.out_grid() is None:
        raise CannotConvert(f"its output, {site.out().dtype}, has no scale")
    site.pass_on(site.held(0))


@converts("DEQUANTIZE")
def _dequantize(site: Site) -> None:
    """Leave numbers where they are: whoever reads them takes them in float32.

    Halves that are fixed become float32.
    """
    held = site.held(0)
    if held.data is not None and held.data.dtype == np.float16:
        held.data = held.data.astype(np.float32)
        site.walk.note(
            "weights stored as float16 are float32 in the ONNX file, twice as large; "
            "--precision fp16 stores halves again"
        )
    elif held.grid is None:
        order = held.order
        site.give(site.emit("Cast", [site.take(0, order)], {"to": 1}), order)
        return
    if held.shape != site.out_shape():
        raise CannotConvert(f"it gives {held.shape} (the file states {site.out_shape()})")
    site.walk.bind(site.out(), held)


@converts("FAKE_QUANT")
def _fake_quant(site: Site) -> None:
    """Round to the 8-bit grid that covers an interval, moved so that 0 lies on it."""
    low, high, bits = site.real("min"), site.real("max"), site.number("num_bits")
    if bits != 8 or site.number("narrow_range") or not low < high:
        raise CannotConvert(f"it rounds {low:g} to {high:g} to {bits} bits, or a narrow range")
    step = float(np.float32((high - low) / 255))
    grid = Grid("uint8", (step,), (int(np.clip(np.floor(0.5 - low / step), 0, 255)),))
    held = site.held(0)
    whole = site.builder.quantized(site.take(0, held.order), grid, held.order)
    site.walk.bind(site.out(), Held(held.shape, held.order, grid, whole=whole))


@converts("SOFTMAX")
def _softmax(site: Site) -> None:
    held = site.held(0)
    order, value = held.order, site.take(0, held.order)
    if not held.rank:
        raise CannotConvert("its input is one number")
    beta = site.real("beta", 1.0)
    if beta != 1.0:
        value = site.emit("Mul", [value, site.number_value(beta)])
    axis = {"axis": order.index(held.rank - 1)}
    site.give(site.emit("Softmax", [value], axis), order)


@converts("LOG_SOFTMAX")
def _log_softmax(site: Site) -> None:
    held = site.held(0)
    order, axis = held.order, {"axis": held.order.index(held.rank - 1)}
    site.give(site.emit("LogSoftmax", [site.take(0, order)], axis), order)


@converts("L2_NORMALIZATION")
def _l2_normalization(site: Site) -> None:
    """Divide by the length of each vector of the last axis, or by 1e-6 if that is shorter."""
    held = site.held(0)
    order, value = held.order, site.take(0, held.order)
    axes = site.builder.numbers(order.index(held.rank - 1))
    length = site.emit("ReduceL2", [value, axes], {"keepdims": 1})
    length = site.emit("Max", [length, site.number_value(1e-6)])
    site.give(site.activated(site.emit("Div", [value, length])), order)


@converts("LOCAL_RESPONSE_NORMALIZATION")
def _local_response(site: Site) -> None:
    held = site.held(0)
    if held.rank != 4:
        raise CannotConvert(f"its input has {held.rank} dimensions (expected 4)")
    size = 2 * site.number("radius") + 1
    fields: dict[str, int | float] = {
        "size": size,
        "alpha": site.real("alpha") * size,
        "beta": site.real("beta"),
        "bias": site.real("bias"),
    }
    order = (0, 3, 1, 2)
    site.give(site.emit("LRN", [site.take(0, order)], fields), order)
