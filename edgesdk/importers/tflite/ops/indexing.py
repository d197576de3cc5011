"""Operators that pick numbers by their places: slices, gathering, lists of places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgesdk.importers.tflite.held import CannotConvert, Held
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import Site

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []

#: An end in front of the first entry, for a slice that runs backwards through it.
_BEFORE_ALL = -(1 << 31)
_INT64 = 7


@converts("SLICE")
def _slice(site: Site) -> None:
    held = site.held(0)
    begins, sizes = site.numbers(1, "begins"), site.numbers(2, "sizes")
    spans = [
        range(begin, extent if size < 0 else begin + size)
        for begin, size, extent in zip(begins, sizes, held.shape, strict=True)
    ]
    for span, extent in zip(spans, held.shape, strict=True):
        if span.start < 0 or span.stop > extent:
            raise CannotConvert(f"it takes {span} of {extent} entries")
    site.pass_on(_sliced(site, held, spans))


@converts("STRIDED_SLICE")
def _strided_slice(site: Site) -> None:
    held = site.held(0)
    spans, gone = _spans(site, held)
    made = _sliced(site, held, spans)
    if not gone and made.shape == site.out_shape():
        site.pass_on(made)
    else:
        site.pass_on(site.builder.reshaped(made, site.out_shape()))


def _spans(site: Site, held: Held) -> tuple[list[range], bool]:
    """Say which places of every axis are taken, and whether axes come or go."""
    begins, ends, strides = (site.numbers(each, "bounds") for each in (1, 2, 3))
    if not len(begins) == len(ends) == len(strides):
        raise CannotConvert("its bounds have different lengths")
    masks = {
        name: site.number(f"{name}_mask") & ((1 << len(begins)) - 1)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    spans: list[range] = []
    for place, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        bit = 1 << place
        if masks["ellipsis"] & bit:
            behind = len(begins) - place - 1 - (masks["new_axis"] >> (place + 1)).bit_count()
            spans += [range(each) for each in held.shape[len(spans) : held.rank - behind]]
            continue
        if masks["new_axis"] & bit:
            continue
        extent = held.shape[len(spans)]
        if masks["shrink_axis"] & bit:
            first = begin + extent if begin < 0 else begin
            if not 0 <= first < extent:
                raise CannotConvert(f"it takes entry {begin} of {extent}")
            spans.append(range(first, first + 1))
            continue
        if not stride:
            raise CannotConvert("it takes steps of 0")
        stop = begin + end if site.number("offset") else end
        bounds = slice(
            None if masks["begin"] & bit else begin,
            None if masks["end"] & bit else stop,
            stride,
        )
        spans.append(range(*bounds.indices(extent)))
    spans += [range(extent) for extent in held.shape[len(spans) :]]
    return spans, bool(masks["new_axis"] | masks["shrink_axis"])


def _sliced(site: Site, held: Held, spans: list[range]) -> Held:
    """Give the numbers at these places, in the order in which they lie."""
    shape = tuple(len(span) for span in spans)
    if held.data is not None and (held.grid is None or held.grid.axis is None):
        places = np.ix_(*(np.array(span, np.int64) for span in spans))
        data = held.data[places] if spans else held.data
        return Held(shape, held.identity, held.grid, data=data)
    cut = [axis for axis, span in enumerate(spans) if span != range(held.shape[axis])]
    if not cut:
        return held
    ends = [
        _BEFORE_ALL if spans[axis].step < 0 and spans[axis].stop < 0 else spans[axis].stop
        for axis in cut
    ]
    bounds = [
        [spans[axis].start for axis in cut],
        ends,
        [held.order.index(axis) for axis in cut],
        [spans[axis].step for axis in cut],
    ]
    limits = [site.builder.numbers(*each) for each in bounds]
    value = site.emit("Slice", [site.builder.real(held, held.order), *limits])
    return site.builder.moved(held, value, shape, held.order)


@converts("GATHER")
def _gather(site: Site) -> None:
    held, places = site.held(0), site.held(1)
    axis = site.axis(site.number("axis"), held.rank)
    shared = site.number("batch_dims")
    if shared:
        if axis != shared or places.rank < shared:
            raise CannotConvert(f"it gathers along axis {axis}, {shared} axes in common")
        where = site.builder.reshaped(places, (*places.shape, 1))
        index = site.emit("Cast", [site.builder.real(where)], {"to": _INT64})
        fields = {"batch_dims": shared}
        site.give(site.emit("GatherND", [site.take(0), index], fields))
        return
    order = held.order if places.rank == 1 else held.identity
    inputs = [site.take(0, order), site.take(1)]
    value = site.emit("Gather", inputs, {"axis": order.index(axis)})
    site.give(value, order if places.rank == 1 else None)


@converts("GATHER_ND")
def _gather_nd(site: Site) -> None:
    index = site.emit("Cast", [site.take(1)], {"to": _INT64})
    site.give(site.emit("GatherND", [site.take(0), index]))


@converts("SCATTER_ND")
def _scatter_nd(site: Site) -> None:
    zeros = _filled(site, site.number_value(0, like=1))
    index = site.emit("Cast", [site.take(0)], {"to": _INT64})
    inputs = [zeros, index, site.take(1)]
    site.give(site.emit("ScatterND", inputs, {"reduction": "add"}))


def _filled(site: Site, value: ir.Value) -> ir.Value:
    """Give the output's shape full of one number."""
    return site.emit("Expand", [value, site.builder.numbers(*site.out_shape())])


@converts("ONE_HOT")
def _one_hot(site: Site) -> None:
    depth = site.numbers(1, "depth")[0]
    pair = site.emit(
        "Concat",
        [site.builder.real(site.builder.reshaped(site.held(each), (1,))) for each in (3, 2)],
        {"axis": 0},
    )
    index = site.emit("Cast", [site.take(0)], {"to": _INT64})
    # ONNX counts from the end what lies before 0, where TFLite switches nothing on
    low, high = (site.builder.constant(np.array(each, np.int64)) for each in (0, depth))
    index = site.emit("Where", [site.emit("Less", [index, low]), high, index])
    inputs = [index, site.builder.numbers(depth), pair]
    site.give(site.emit("OneHot", inputs, {"axis": site.number("axis", -1)}))


@converts("REVERSE_SEQUENCE")
def _reverse_sequence(site: Site) -> None:
    axes = {"time_axis": site.number("seq_dim"), "batch_axis": site.number("batch_dim")}
    if sorted(axes.values()) != [0, 1]:
        raise CannotConvert(
            f"its time is axis {axes['time_axis']}, its batch {axes['batch_axis']} "
            "(ONNX has them in front)"
        )
    lengths = site.emit("Cast", [site.take(1)], {"to": _INT64})
    site.give(site.emit("ReverseSequence", [site.take(0), lengths], axes))


@converts("TOPK_V2")
def _top_k(site: Site) -> None:
    held = site.held(0)
    count = site.numbers(1, "count")[0]
    axis = {"axis": held.order.index(held.rank - 1)}
    inputs = [site.take(0, held.order), site.builder.numbers(count)]
    values, places = site.builder.emit("TopK", inputs, axis, outputs=2)
    site.give(values, held.order)
    if site.out(1).dtype != "int64":
        places = site.emit("Cast", [places], {"to": 6})
    site.give(places, held.order, position=1)


@converts("SHAPE", "RANK")
def _shape(site: Site) -> None:
    """State what is known before the graph runs."""
    shape = site.shape(0)
    dtype = np.dtype(site.out().dtype)
    data = np.array(shape if site.op.name == "SHAPE" else len(shape), dtype)
    site.pass_on(Held(data.shape, tuple(range(data.ndim)), data=data))


@converts("ZEROS_LIKE")
def _zeros_like(site: Site) -> None:
    site.give(_filled(site, site.number_value(0)))


@converts("FILL")
def _fill(site: Site) -> None:
    site.give(_filled(site, site.take(1)))


@converts("RANGE")
def _range(site: Site) -> None:
    bounds = [site.constant(each) for each in range(3)]
    if any(each is None or each.size != 1 for each in bounds):
        raise CannotConvert("its bounds are not known before it runs")
    shape = site.out_shape()
    start, _, step = (each.reshape(()) for each in bounds if each is not None)
    data = (start + step * np.arange(site.countable(*shape))).astype(site.out().dtype)
    site.pass_on(Held(shape, (0,), data=data))
