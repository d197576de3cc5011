"""What is asked of operators that reduce, resize, slice or move."""

from __future__ import annotations

import math

from edgesdk.backends.ethos_u.asked import Asked, Check

__all__ = ["NAMED", "SHAPES"]

_HALF = 1 << 16


def _rows(asked: Asked) -> str | None:
    main, most = asked.main(), asked.limits.most_rows
    if most is None or main is None:
        return None
    rows = math.prod(main.shape[-3:-1])
    return f"{rows} rows, past {most}" if rows > most else None


def _depth(asked: Asked) -> str | None:
    main, most = asked.main(), asked.limits.most_depth
    if most is None or main is None or not main.shape:
        return None
    return f"depth {main.shape[-1]}, past {most}" if main.shape[-1] > most else None


def _axes(asked: Asked) -> list[int] | None:
    """Give the axes in its second input, counted from the front; None if unknown or odd."""
    main, axes = asked.main(), asked.numbers(1)
    if main is None or axes is None:
        return None
    rank = len(main.shape)
    if any(not -rank <= axis < rank for axis in axes):
        return None
    return sorted({axis % rank for axis in axes})


def _reduced(asked: Asked) -> str | None:
    limits, main = asked.limits, asked.main()
    if main is None or not (limits.most_reduced or limits.most_reduced_extent):
        return None
    axes = _axes(asked)
    if axes is None:
        return None if asked.is_drawn else "its axes are not those of its input"
    elements = math.prod(main.shape[axis] for axis in axes)
    most = limits.most_reduced.get(main.dtype)
    if most is not None and elements > most:
        return f"{elements} elements in one result, past {most}"
    longest = max((main.shape[axis] for axis in axes), default=1)
    if limits.most_reduced_extent is not None and longest > limits.most_reduced_extent:
        return f"an extent of {longest} is reduced, past {limits.most_reduced_extent}"
    return None


def _resize(asked: Asked) -> str | None:
    limits = asked.limits
    if not (limits.scale_factors or limits.most_factor):
        return None
    taken, given = asked.input(0), next(asked.results(), None)
    if taken is None or given is None or len(taken.shape) != 4 or len(given.shape) != 4:
        return "it resizes something without height and width"
    before, after = taken.shape[1:3], given.shape[1:3]
    is_aligned = asked.op.options.get("align_corners") is True
    is_half = asked.op.options.get("half_pixel_centers") is True
    said = f"{before[0]} x {before[1]} to {after[0]} x {after[1]}"
    if limits.scale_factors:
        return _fixed_factors(asked, before, after, said)
    if is_aligned and is_half:
        return f"{said}, with corners aligned and pixels at their middles"
    return _free_factors(asked, before, after, said)


def _fixed_factors(
    asked: Asked, before: tuple[int, ...], after: tuple[int, ...], said: str
) -> str | None:
    """Refuse what does not grow by one of a few factors, the same along both sides."""
    if before == (1, 1):
        return None
    off = 1 if asked.op.options.get("align_corners") is True else 0
    factors = []
    for one, other in zip(before, after, strict=True):
        is_whole = one > off and (other - off) % (one - off) == 0
        factors.append((other - off) // (one - off) if is_whole else 0)
    if asked.op.options.get("half_pixel_centers") is True and asked.limits.half_pixel_factors:
        allowed = asked.limits.half_pixel_factors
    elif before == after:
        return None
    else:
        allowed = asked.limits.scale_factors
        # a side of 1 may stay one, and then only the other side counts
        for side in (0, 1):
            if before[side] == after[side] == 1:
                factors = [factors[1 - side]]
    if len(set(factors)) > 1 or factors[0] not in allowed:
        return f"{said}, not by {', '.join(str(one) for one in allowed)}"
    return None


def _free_factors(
    asked: Asked, before: tuple[int, ...], after: tuple[int, ...], said: str
) -> str | None:
    """Refuse to grow by too much, or by other factors where only powers of two will do."""
    limits = asked.limits
    is_aligned = asked.op.options.get("align_corners") is True
    most = limits.most_aligned_factor if is_aligned else limits.most_factor
    for one, other in zip(before, after, strict=True):
        if one < 1:
            return f"{said}, from nothing"
        off = 1 if is_aligned and one > 1 and other > 1 else 0
        factor = (other - off) / (one - off)
        if most is not None and factor > most:
            return f"{said}, past {most} times"
        if limits.powers_only and not _is_power(factor) and before != (1, 1):
            return f"{said}, not by a power of two"
    return None


def _is_power(factor: float) -> bool:
    return factor >= 1 and factor == int(factor) and not int(factor) & (int(factor) - 1)


SHAPES: tuple[Check, ...] = (_rows, _depth, _reduced, _resize)


def _batch_of_one(asked: Asked) -> str | None:
    main = asked.main()
    if main is None or len(main.shape) < 4 or math.prod(main.shape[:-3]) == 1:
        return None
    return f"a batch of {math.prod(main.shape[:-3])}"


def _depth_alone(asked: Asked) -> str | None:
    """Refuse to reduce along the depth where height, width and depth are all longer than 1."""
    main, axes = asked.main(), _axes(asked)
    if main is None or not axes or len(main.shape) < 3:
        return None
    if len(main.shape) - 1 in axes and all(extent > 1 for extent in main.shape[-3:]):
        return f"it reduces the depth of {list(main.shape[-3:])}"
    return None


def _along_depth(asked: Asked) -> str | None:
    main, axes = asked.main(), _axes(asked)
    if main is None or axes is None:
        return None if asked.is_drawn else "its axis is not that of its input"
    if axes != [len(main.shape) - 1] or len(main.shape) < 2:
        return f"axis {axes[0] if axes else 0} of {list(main.shape)}"
    return None


def _said_splits(asked: Asked) -> str | None:
    said, made = asked.option("num_splits"), len(asked.op.outputs)
    return None if said == made or asked.is_drawn else f"{said} results stated, {made} made"


def _forward_slice(asked: Asked) -> str | None:
    """Refuse to step backwards, or along the depth or the batch by more than 1."""
    main, strides = asked.input(0), asked.numbers(3)
    if main is None or strides is None:
        return None if asked.is_drawn else "its steps are not known when it is compiled"
    for axis, stride in enumerate(strides):
        place = axis - len(strides)
        if stride < 1 or (stride > 1 and place not in (-2, -3)):
            return f"steps {strides}"
    return None


def _transposed(asked: Asked) -> str | None:
    main, order = asked.input(0), asked.numbers(1)
    if main is None or order is None:
        return None if asked.is_drawn else "its order is not known when it is compiled"
    rank = len(main.shape)
    if sorted(order) != list(range(rank)):
        return f"order {order} of {rank} axes"
    if order == list(range(rank)):
        return None
    return (_moved_words if main.dtype == "int32" else _moved)(main.shape, order)


def _moved_words(shape: tuple[int, ...], order: list[int]) -> str | None:
    """Judge the order of 32-bit numbers: two neighbours of height, width and depth may swap."""
    said = f"order {order} of {list(shape)} in 32 bits"
    rank = len(shape)
    if rank > 4:
        return said
    padded = (1,) * (4 - rank) + shape
    full = [*range(4 - rank), *(axis + 4 - rank for axis in order)]
    n, h, w, c = padded
    if full == [0, 2, 1, 3]:
        fits = n == 1 and max(h, w) <= _HALF and c <= 1 << 14
    elif full == [0, 1, 3, 2]:
        fits = n * h <= _HALF and max(w, c) <= _HALF
    else:
        fits = False
    return None if fits else said


def _moved(shape: tuple[int, ...], order: list[int]) -> str | None:
    said = f"order {order} of {list(shape)}"
    rank = len(shape)
    outer = max(rank - 3, 0)
    is_inner = order[:outer] == list(range(outer)) and math.prod(shape[:outer]) == 1
    if is_inner:
        return said if max(shape[outer:]) > _HALF else None
    largest = sorted(shape, reverse=True)[: max(rank - 2, 1)]
    return said if math.prod(largest) > _HALF else None


def _square_steps(asked: Asked) -> str | None:
    """Refuse steps other than 1 and 2, which may differ only along a side that stays flat."""
    strides, taken, kernel = asked.pair("stride"), asked.input(2), asked.input(1)
    if strides in ((1, 1), (2, 2)) or taken is None or kernel is None:
        return None
    if sorted(strides) == [1, 2] and len(taken.shape) == len(kernel.shape) == 4:
        # the side along which it does not grow is flat
        flat = 1 + strides.index(1)
        if taken.shape[flat] == kernel.shape[flat] == 1:
            return None
    return f"steps of {strides[0]} x {strides[1]}"


def _summed_extents(asked: Asked) -> str | None:
    """Refuse a product of matrices whose rows are too long."""
    one, most = asked.input(0), asked.limits.most_open_extent
    if one is None or most is None or len(one.shape) < 2:
        return None
    summed = one.shape[-2] if asked.op.options.get("adj_x") is True else one.shape[-1]
    made = max((each.shape[-1] for each in asked.results() if each.shape), default=1)
    largest = max(summed, made)
    return f"an extent of {largest}, past {most}" if largest > most else None


def _axis_is_batch(asked: Asked) -> str | None:
    axis, batch = asked.option("axis"), asked.option("batch_dims")
    return None if axis == batch else f"axis {axis} with {batch} batch axes"


def _plain_gates(asked: Asked) -> str | None:
    """Refuse gates that are implied, look at the cell, are normalized or projected."""
    has = {place for place in range(24) if asked.input(place) is not None}
    for places, said in (
        ((9, 10, 11), "gates look at the cell"),
        ((16, 17), "its result is projected"),
        ((20, 21, 22, 23), "gates are normalized"),
    ):
        if has & set(places):
            return said
    if not {1, 2, 3, 4, 5, 6, 7, 8} <= has:
        return "a gate is implied by another"
    return None


def _flat_weights(asked: Asked) -> str | None:
    """Refuse weights with an axis longer than 1 between results and sums."""
    weights = asked.input(asked.limits.weights)
    if weights is None or all(extent == 1 for extent in weights.shape[1:-1]):
        return None
    return f"weights of shape {list(weights.shape)}"


def _scattered(asked: Asked) -> str | None:
    import numpy as np

    indices = asked.input(0)
    array = None if indices is None else asked.graph.array(indices.index)
    if indices is None or array is None:
        return None if asked.is_drawn else "its indices are not known when it is compiled"
    if not indices.shape or indices.shape[-1] != 1:
        return f"indices of shape {list(indices.shape)}"
    return "it writes twice to one place" if len(np.unique(array)) < array.size else None


#: By the name that rules have for it.
NAMED: dict[str, Check] = {
    "along-depth": _along_depth,
    "axis-is-batch": _axis_is_batch,
    "batch-of-one": _batch_of_one,
    "depth-alone": _depth_alone,
    "flat-weights": _flat_weights,
    "forward-slice": _forward_slice,
    "plain-gates": _plain_gates,
    "said-splits": _said_splits,
    "scattered-once": _scattered,
    "square-steps": _square_steps,
    "summed-extents": _summed_extents,
    "transposed": _transposed,
}
