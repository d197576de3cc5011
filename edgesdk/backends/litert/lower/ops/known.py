"""Types, and what is known once shapes are: casts, shapes, ranges, constants, one-hot rows."""

from __future__ import annotations

import numpy as np

from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.graph import Options
from edgesdk.backends.litert.lower.layouts import axis_of
from edgesdk.backends.litert.lower.ops.indexing import is_known, known_integers
from edgesdk.backends.litert.lower.pairs import constant_of
from edgesdk.backends.litert.lower.registry import lowers
from edgesdk.backends.litert.lower.site import Held, Site
from edgesdk.model.values import NodeFacts

__all__: list[str] = []

#: What CAST goes between.
_CAST = ("float32", "float16", "int32", "int64", "int8", "uint8", "int16", "bool", "")
_MOST_ENTRIES = 1 << 22


def _why_not_cast(node: NodeFacts) -> str | None:
    for value in (*node.input_types[:1], *node.output_types[:1]):
        if value is not None and value.dtype not in _CAST:
            return f"it casts from or to {value.dtype}"
    return None


@lowers("Cast", "CastLike", into="CAST", why_not=_why_not_cast)
def lower_cast(site: Site) -> None:
    """Lower a change of type.

    Halves are held as float32 throughout, which rounds less than the graph does.
    """
    held = site.held(0)
    wanted = site.out_dtype()
    tensor = site.builder.in_float(held.tensor)
    if tensor.data is not None:
        with np.errstate(all="ignore"):
            data = tensor.data.astype(wanted)
        site.give(site.builder.constant(data, tensor.name), held.order)
        return
    if tensor.dtype == "float32" and wanted in ("int8", "uint8", "int16"):
        tensor = site.builder.cast(tensor, "int32")
    site.give(site.builder.cast(tensor, wanted), held.order)


def _give_array(site: Site, array: np.ndarray) -> None:
    site.give(site.builder.constant(array, site.node.outputs[0].name or "known"))


@lowers("Shape", into=())
def lower_shape(site: Site) -> None:
    """Give a shape, which is known."""
    shape = site.shape(0)
    start, end = site.number("start", 0), site.number("end", len(shape))
    _give_array(site, np.array(shape[start:end], np.int64))


@lowers("Size", into=())
def lower_size(site: Site) -> None:
    """Give how many numbers a value has, which is known."""
    _give_array(site, np.array(int(np.prod(site.shape(0), dtype=np.int64)), np.int64))


def _why_not_constant_of_shape(node: NodeFacts) -> str | None:
    return None if is_known(node, 0) else "its shape is not known before it runs"


@lowers("ConstantOfShape", into=(), why_not=_why_not_constant_of_shape)
def lower_constant_of_shape(site: Site) -> None:
    """Give a constant full of one number."""
    shape = known_integers(site, 0, "extents")
    if np.prod(shape, dtype=np.float64) > _MOST_ENTRIES:
        raise CannotLower(f"it makes a constant of shape {list(shape)}")
    attribute = site.node.attributes.get("value")
    value = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
    _give_array(site, np.full(shape, value.reshape(-1)[0], value.dtype))


def _why_not_range(node: NodeFacts) -> str | None:
    known = all(is_known(node, position) for position in range(len(node.inputs)))
    return None if known else "its bounds are not known before it runs"


@lowers("Range", into=(), why_not=_why_not_range)
def lower_range(site: Site) -> None:
    """Give numbers one after the other, which are known."""
    found = [constant_of(value) for value in site.node.inputs]
    if len(found) != 3 or any(each is None or each.size != 1 for each in found):
        raise CannotLower("its bounds are not known before it runs")
    start, end, step = (each.reshape(()) for each in found if each is not None)
    if not step or abs((float(end) - float(start)) / float(step)) > _MOST_ENTRIES:
        raise CannotLower(f"it counts from {start} to {end} by {step}")
    count = max(int(np.ceil((float(end) - float(start)) / float(step))), 0)
    _give_array(site, (start + np.arange(count) * step).astype(start.dtype))


def _why_not_idle(node: NodeFacts) -> str | None:
    if len(node.outputs) > 1 and node.outputs[1]:
        return "its second output, the mask"
    if len(node.inputs) > 2 and node.inputs[2]:
        return "it may be told to train"
    return None


@lowers("Dropout", into=(), why_not=_why_not_idle, keeps_grid=True)
def lower_dropout(site: Site) -> None:
    """Give what it reads: it drops nothing outside of training."""
    held = site.held(0)
    site.give(held.tensor, held.order)


def _why_not_one_hot(node: NodeFacts) -> str | None:
    if not is_known(node, 1) or not is_known(node, 2):
        return "its depth or values are not known before it runs"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("int32", "int64", "float32", ""):
        return f"its indices are {read.dtype}"
    return None


@lowers("OneHot", into=("ONE_HOT", "FLOOR_MOD", "CAST"), why_not=_why_not_one_hot)
def lower_one_hot(site: Site) -> None:
    """Lower to rows with one entry that differs; what is out of range differs nowhere."""
    builder = site.builder
    (depth,) = known_integers(site, 1, "depth")
    values = site.constant(2)
    if values is None or values.size != 2:
        raise CannotLower("its values are not known before it runs")
    wanted = builder.cast(site.take(0), "int32")
    low = builder.constant(np.array(0, np.int32), "zero")
    shape = wanted.shape
    is_low = site.emit("LESS", [wanted, low], shape, dtype="bool", options=("LessOptions", {}))
    count = builder.constant(np.array(depth, np.int32), "depth")
    moved = site.emit(
        "ADD",
        [wanted, count],
        shape,
        dtype="int32",
        options=("AddOptions", {"fusedActivationFunction": 0}),
    )
    counted = site.emit(
        "SELECT_V2",
        [is_low, moved, wanted],
        shape,
        dtype="int32",
        options=("SelectV2Options", {}),
    )
    out = site.out_shape()
    axis = axis_of(site.number("axis", -1), len(out))
    kind = site.out_dtype()
    off, on = (builder.constant(np.array(each, kind), "value") for each in values.reshape(-1))
    made = site.emit(
        "ONE_HOT",
        [counted, count, on, off],
        out,
        dtype=kind,
        options=("OneHotOptions", {"axis": axis}),
    )
    held = Held(made, tuple(range(len(out))))
    site.give(held.tensor, held.order)


def _why_not_trilu(node: NodeFacts) -> str | None:
    if not is_known(node, 1):
        return "which diagonal it cuts along is not known before it runs"
    read = node.input_types[0] if node.input_types else None
    if read is not None and read.dtype not in ("float32", "float16", "int32", "int64", ""):
        return f"it cuts {read.dtype}"
    return None


@lowers("Trilu", into="SELECT_V2", why_not=_why_not_trilu)
def lower_trilu(site: Site) -> None:
    """Lower to a choice between numbers and zeros, by a mask that is known."""
    shape = site.out_shape()
    shift = known_integers(site, 1, "diagonal")[0] if site.has(1) else 0
    ones = np.ones(shape[-2:], np.bool_)
    mask = np.triu(ones, shift) if site.number("upper", 1) else np.tril(ones, shift)
    x = site.take_float(0)
    zero = site.builder.constant(np.zeros((), x.dtype), "zero")
    inputs = [site.builder.constant(mask, "mask"), x, zero]
    options: Options = ("SelectV2Options", {})
    site.give(site.emit("SELECT_V2", inputs, shape, dtype=x.dtype, options=options))
