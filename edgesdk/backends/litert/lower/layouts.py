"""Which order of axes operators agree on, and how axes go through a reshape."""

from __future__ import annotations

from collections.abc import Sequence

from edgesdk.backends.litert.lower.builder import Builder
from edgesdk.backends.litert.lower.errors import CannotLower
from edgesdk.backends.litert.lower.site import Held, Site

__all__ = ["axis_of", "channels_last", "choose_order", "lifted", "regrouped"]


def channels_last(rank: int) -> tuple[int, ...]:
    """Give the order that TFLite's convolutions and pools have: batch, space, channels."""
    return (0, *range(2, rank), 1)


def axis_of(axis: int, rank: int) -> int:
    """Give an axis counted from the front.

    Raises:
        CannotLower: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise CannotLower(f"it has no axis {axis} (of {rank})")
    return axis % rank


def choose_order(helds: Sequence[Held], rank: int) -> tuple[int, ...]:
    """Choose an order for operators whose operands and result have to share one.

    The one in which most numbers lie already; channels last where that is even, since what
    comes behind is more likely to want it. Constants have no say: they are turned here.
    """
    votes: dict[tuple[int, ...], int] = {}
    for held in helds:
        if held.tensor.data is None and len(held.order) == rank:
            votes[held.order] = votes.get(held.order, 0) + held.tensor.size
    plain = tuple(range(rank))
    return max(votes, key=lambda order: (votes[order], order != plain), default=plain)


def lifted(site: Site, held: Held, rank: int) -> Held:
    """Give a value more axes in front, each of one entry, as broadcasting does."""
    missing = rank - len(held.order)
    if missing < 0:
        raise CannotLower(f"an operand has {len(held.order)} dimensions (its result {rank})")
    if not missing:
        return held
    tensor = site.builder.reshaped(held.tensor, (1,) * missing + held.tensor.shape)
    return Held(tensor, (*range(missing), *(axis + missing for axis in held.order)))


def regrouped(builder: Builder, held: Held, shape: Sequence[int]) -> Held:
    """Reshape a value without turning it where its axes allow that.

    Axes that a reshape merges or splits have to lie beside each other, in ONNX's order, in the
    tensor; groups of them may lie in any order. Else it is turned to ONNX's order first.
    """
    shape = tuple(shape)
    groups = _groups(held.shape, shape)
    if groups is not None:
        ordered: list[int] = []
        rest = [axis for axis in held.order if held.shape[axis] != 1]
        while rest:
            number = next(i for i, (before, _) in enumerate(groups) if rest[0] in before)
            wanted = groups[number][0]
            if rest[: len(wanted)] != wanted:
                break
            rest = rest[len(wanted) :]
            ordered.append(number)
        if not rest:
            empty = [i for i in range(len(groups)) if i not in ordered]
            order = [axis for i in (*ordered, *empty) for axis in groups[i][1]]
            if _moves_nothing(order, shape):
                order = list(range(len(shape)))
            tensor = builder.reshaped(held.tensor, [shape[axis] for axis in order])
            return Held(tensor, tuple(order))
    plain = [held.order.index(axis) for axis in range(len(held.order))]
    tensor = builder.reshaped(builder.permuted(held.tensor, plain), shape)
    return Held(tensor, tuple(range(len(shape))))


def _moves_nothing(order: Sequence[int], shape: Sequence[int]) -> bool:
    real = [axis for axis in order if shape[axis] != 1]
    return real == sorted(real)


def _groups(
    before: Sequence[int], after: Sequence[int]
) -> list[tuple[list[int], list[int]]] | None:
    """Pair the axes of a reshape: the least groups that hold as many numbers on both sides.

    Axes of one entry belong to nothing before, and to groups of their own after.
    """
    groups: list[tuple[list[int], list[int]]] = []
    old = [axis for axis, extent in enumerate(before) if extent != 1]
    new = [axis for axis, extent in enumerate(after) if extent != 1]
    while old or new:
        if not (old and new):
            return None
        left, right = [old.pop(0)], [new.pop(0)]
        product, other = before[left[0]], after[right[0]]
        while product != other:
            side, rest = (left, old) if product < other else (right, new)
            if not rest:
                return None
            side.append(rest.pop(0))
            if side is left:
                product *= before[left[-1]]
            else:
                other *= after[right[-1]]
        groups.append((left, right))
    groups.extend(([], [axis]) for axis, extent in enumerate(after) if extent == 1)
    return groups
