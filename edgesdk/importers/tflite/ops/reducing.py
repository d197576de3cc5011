"""Operators that make one number of many: sums, means, extremes and where they are."""

from __future__ import annotations

from edgesdk.importers.tflite.held import CannotConvert, Held
from edgesdk.importers.tflite.registry import converts
from edgesdk.importers.tflite.site import Site

__all__: list[str] = []

_REDUCTIONS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_PROD": "ReduceProd",
    "REDUCE_ANY": "ReduceMax",
    "REDUCE_ALL": "ReduceMin",
}
_INT32, _INT64, _BOOL = 6, 7, 9


@converts(*_REDUCTIONS)
def _reduce(site: Site) -> None:
    held = site.held(0)
    axes = site.axes(1, held.rank)
    keeps = bool(site.number("keep_dims"))
    value = site.take(0, held.order)
    is_truth = site.op.name in ("REDUCE_ANY", "REDUCE_ALL")
    if is_truth:
        value = site.emit("Cast", [value], {"to": _INT32})
    if axes:
        places = site.builder.numbers(*sorted(held.order.index(axis) for axis in axes))
        value = site.emit(_REDUCTIONS[site.op.name], [value, places], {"keepdims": int(keeps)})
    if is_truth:
        value = site.emit("Cast", [value], {"to": _BOOL})
    site.give(value, _left(held, axes, keeps=keeps))


def _left(held: Held, axes: tuple[int, ...], *, keeps: bool) -> tuple[int, ...]:
    """Give the order of the axes that are left, counted anew."""
    if keeps:
        return held.order
    kept = [axis for axis in range(held.rank) if axis not in axes]
    return tuple(kept.index(axis) for axis in held.order if axis in kept)


@converts("ARG_MAX", "ARG_MIN")
def _arg(site: Site) -> None:
    held = site.held(0)
    axes = site.axes(1, held.rank)
    if len(axes) != 1:
        raise CannotConvert(f"it has {len(axes)} axes")
    fields = {"axis": held.order.index(axes[0]), "keepdims": 0}
    op = "ArgMax" if site.op.name == "ARG_MAX" else "ArgMin"
    value = site.emit(op, [site.take(0, held.order)], fields)
    if site.out().dtype == "int32":
        value = site.emit("Cast", [value], {"to": _INT32})
    site.give(value, _left(held, axes, keeps=False))


@converts("CUMSUM")
def _cumsum(site: Site) -> None:
    held = site.held(0)
    axes = site.axes(1, held.rank)
    if len(axes) != 1:
        raise CannotConvert(f"it has {len(axes)} axes")
    fields = {"exclusive": site.number("exclusive"), "reverse": site.number("reverse")}
    place = site.builder.numbers(held.order.index(axes[0]))
    site.give(site.emit("CumSum", [site.take(0, held.order), place], fields), held.order)
