"""All graphs of one operator: each form, what may happen to any, and what walks its limits.

What may happen to any operator are other types, no grid, a grid per axis, odd zero points, a
batch, extents that are not fixed, and parameters that are not known when it is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tests.unit.backends.ethos_u.forms import PLAIN
from tests.unit.backends.ethos_u.graphs import Case, Spec
from tests.unit.backends.ethos_u.move_walks import moves, resizes, rest
from tests.unit.backends.ethos_u.number_walks import elementwise, reductions
from tests.unit.backends.ethos_u.window_walks import dense, windows

__all__ = ["all_cases", "anything"]


def anything(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """What may happen to any operator."""
    yield "plain", spec
    for dtype in ("uint8", "int16", "int32", "int64", "float32", "bool", "float16"):
        yield f"maps-{dtype}", spec.with_maps(dtype=dtype)
        yield f"out-{dtype}", spec.with_outputs(dtype=dtype)
    first = next(
        position
        for position, one in enumerate(spec.inputs)
        if one is not None and one.values is None
    )
    for dtype in ("uint8", "int16", "int32"):
        yield f"in-{dtype}", spec.with_input(first, dtype=dtype)
    yield "no-grids", spec.with_maps(scales=())
    yield "no-in-grid", spec.with_input(first, scales=())
    yield "no-out-grid", spec.with_outputs(scales=())
    yield "zero-scale", spec.with_maps(scales=(0.0,))
    yield "zero-out-scale", spec.with_outputs(scales=(0.0,))
    yield "negative-scale", spec.with_maps(scales=(-0.05,))
    yield "infinite-scale", spec.with_outputs(scales=(float("inf"),))
    yield "other-scale", spec.with_outputs(scales=(0.013,))
    yield "other-in-scale", spec.with_input(first, scales=(0.013,))
    yield "zero-point", spec.with_maps(zeros=(5,))
    yield "negative-zero-point", spec.with_maps(zeros=(-5,))
    yield "out-zero-point", spec.with_outputs(zeros=(7,))
    yield "far-zero-point", spec.with_maps(zeros=(1000,))
    for dtype in ("uint8", "int16", "int32"):
        yield f"{dtype}-zero-point", spec.with_maps(dtype=dtype, zeros=(5,))
        yield f"{dtype}-negative-zero-point", spec.with_maps(dtype=dtype, zeros=(-5,))
        yield f"{dtype}-out-zero-point", spec.with_outputs(dtype=dtype, zeros=(5,))
        yield f"{dtype}-other-scale", spec.with_maps(dtype=dtype).with_outputs(scales=(0.013,))
    taken, given = spec.inputs[first], spec.outputs[0]
    assert taken is not None
    for called, one in (("in", taken), ("out", given)):
        if not one.shape:
            continue
        scales = tuple(0.05 + 0.01 * i for i in range(one.shape[-1]))
        grid: dict[str, Any] = {"scales": scales, "axis": len(one.shape) - 1}
        changed = spec.with_input(first, **grid)
        if called == "out":
            results = (replace(given, **grid), *spec.outputs[1:])
            changed = replace(spec, outputs=results)
        yield f"{called}-per-axis", changed
    if taken.shape:
        inner = (*taken.shape[:-1], -1)
        outer = (-1, *taken.shape[1:])
        yield "open-depth", spec.with_input(first, signature=inner)
        yield "open-batch", spec.with_input(first, signature=outer)
    for position, one in enumerate(spec.inputs):
        if one is not None and one.values is not None:
            if np.size(one.values) < 1000:
                yield f"input-{position}-open", spec.with_input(position, values=None)
            if one.scales:
                yield f"input-{position}-no-grid", spec.with_input(position, scales=())
            if one.dtype == "int32":
                yield f"input-{position}-int64", spec.with_input(position, dtype="int64")
                yield f"input-{position}-int16", spec.with_input(position, dtype="int16")


def all_cases() -> list[Case]:
    """Give every graph, each under a name of its own, without repeats."""
    found: dict[str, Case] = {}
    for op, make in PLAIN.items():
        for name, spec in anything(make()):
            found.setdefault(f"{op}:{name}", Case(f"{op}:{name}", spec))
    for name, spec in (
        pair
        for walk in (windows, dense, elementwise, reductions, moves, resizes, rest)
        for pair in walk()
    ):
        full = f"{spec.op}::{name}"
        found.setdefault(full, Case(full, spec))
    return list(found.values())
