"""What is asked of the tensors of any operator: types, grids, fixed shapes, constants."""

from __future__ import annotations

from edgesdk.backends.ethos_u.asked import Asked, Check
from edgesdk.model.tflite_graph import TfliteTensor

__all__ = ["GENERIC"]


def _open_shapes(asked: Asked) -> str | None:
    for tensor in (*asked.maps(), *asked.results()):
        if any(extent < 0 for extent in tensor.shape_signature[1:]):
            return f"shape {list(tensor.shape_signature)} is fixed only when it runs"
    return None


def _scalars(asked: Asked) -> str | None:
    if asked.is_drawn:  # so look shapes that nobody knows yet
        return None
    for tensor in (*asked.maps(), *asked.results()):
        if not tensor.shape:
            return f"tensor {tensor.index} is a number without axes that is known only then"
    return None


def _types(asked: Asked) -> str | None:
    limits = asked.limits
    allowed = limits.types or asked.core.types
    own = (asked.input(limits.weights), asked.input(limits.bias))  # they are judged apart
    for tensor in asked.maps():
        if tensor not in own and tensor.dtype not in allowed:
            return f"it reads {tensor.dtype}"
    for tensor in asked.results():
        if tensor.dtype not in (limits.result_types or allowed):
            return f"it makes {tensor.dtype}"
    return None


_SIGNED = ("int8", "int16", "int32", "int64")
_BITS = {"bool": 8, "int8": 8, "uint8": 8, "int16": 16, "int32": 32, "int64": 64}


def _same_types(asked: Asked) -> str | None:
    main, limits = asked.main(), asked.limits
    if main is None:
        return None
    results = [tensor.dtype for tensor in asked.results()]
    others = [tensor.dtype for tensor in asked.maps()] if limits.same_inputs else []
    if limits.same_type:
        others = [*(tensor.dtype for tensor in asked.maps()), *results]
    for other in others:
        if other != main.dtype:
            return f"{main.dtype} beside {other}"
    for other in results:
        changes_sign = (other in _SIGNED) != (main.dtype in _SIGNED)
        if limits.same_sign and changes_sign:
            return f"{main.dtype} becomes {other}"
        if limits.never_narrower and _BITS.get(other, 0) < _BITS.get(main.dtype, 0):
            return f"{main.dtype} becomes {other}"
    return None


def _same_shape(asked: Asked) -> str | None:
    main = asked.main()
    if not asked.limits.same_shape or main is None:
        return None
    for tensor in asked.results():
        if tensor.shape != main.shape:
            return f"shape {list(main.shape)} becomes {list(tensor.shape)}"
    return None


def _judged(asked: Asked) -> list[TfliteTensor]:
    """Give the tensors whose grid matters: all but those that steer, and the bias."""
    limits = asked.limits
    others = (*limits.constants, *limits.unread, limits.bias)
    found = [
        asked.graph.tensors[index]
        for position, index in enumerate(asked.op.inputs)
        if index >= 0 and position not in others
    ]
    return [*found, *asked.results()]


def _grids(asked: Asked) -> str | None:
    if asked.is_drawn or not asked.limits.needs_grids:
        return None
    for tensor in _judged(asked):
        if not tensor.scales and tensor.dtype not in asked.core.bare_types:
            return f"tensor {tensor.index} ({tensor.name[:60]}) is not quantized"
    return None


def _scales(asked: Asked) -> str | None:
    for tensor in _judged(asked):
        for scale in tensor.scales:
            if not 0 < abs(scale) < float("inf"):
                return f"tensor {tensor.index} has the scale {scale:g}"
    return None


def _per_axis(asked: Asked) -> str | None:
    if asked.limits.per_axis:
        return None
    for tensor in (*asked.inputs(), *asked.results()):
        if len(tensor.scales) > 1:
            return f"tensor {tensor.index} has {len(tensor.scales)} scales"
    return None


def _zero_points(asked: Asked) -> str | None:
    if asked.limits.any_zero_point:
        return None
    for tensors, ranges in (
        (asked.maps(), asked.core.zero_points),
        (asked.results(), asked.core.result_zero_points),
    ):
        for tensor in tensors:
            low, high = ranges.get(tensor.dtype, (-(1 << 63), 1 << 63))
            for zero in tensor.zero_points:
                if not low <= zero <= high:
                    return f"zero point {zero} of {tensor.dtype}"
    return None


def _same_grid(asked: Asked) -> str | None:
    limits, wanted = asked.limits, next(asked.results(), None)
    if wanted is None or asked.is_drawn or not (limits.same_grid or limits.same_scale):
        return None
    for tensor in _judged(asked):
        if limits.same_scale and not (tensor.scales and wanted.scales):
            continue
        if tensor.scales != wanted.scales:
            return f"tensor {tensor.index} has another scale than the result"
        if limits.same_grid and tensor.zero_points != wanted.zero_points:
            return f"tensor {tensor.index} has another zero point than the result"
    return None


def _constants(asked: Asked) -> str | None:
    for position in asked.limits.constants:
        tensor = asked.input(position)
        if tensor is None:
            continue
        if tensor.constant is None:
            return f"input {position} is not known when it is compiled"
        if asked.limits.constant_types and tensor.dtype not in asked.limits.constant_types:
            return f"input {position} is {tensor.dtype}"
    return None


def _rank(asked: Asked) -> str | None:
    main, most = asked.main(), asked.limits.most_rank
    if most is not None and main is not None and len(main.shape) > most:
        return f"{len(main.shape)} axes, past {most}"
    return None


#: In the order in which they are asked.
GENERIC: tuple[Check, ...] = (
    _open_shapes,
    _scalars,
    _types,
    _same_types,
    _same_shape,
    _grids,
    _scales,
    _per_axis,
    _zero_points,
    _same_grid,
    _constants,
    _rank,
)
