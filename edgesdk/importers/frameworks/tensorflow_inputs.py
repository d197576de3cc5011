"""What a TensorFlow model takes: its shapes made definite, and examples that fit it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgesdk.importers.job import CannotExport, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = dict[str, NDArray[np.generic]]

__all__ = ["Taken", "example_inputs", "fix_shapes", "given_examples"]

_SETS = 3
_NO_NUMPY = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "qint8", "quint8", "qint32")
_BATCHES = (1, 3, 2)  # of a free leading extent, by set
_LENGTHS = (16, 24, 16)  # of any other free one


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One input; None stands for a free extent, or for a shape of any rank."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str


def fix_shapes(job: Job, inputs: Sequence[Taken]) -> tuple[Taken, ...]:
    """Put the job's shapes into the inputs; a batch that nobody asked to stay free becomes 1.

    Raises:
        CannotExport: A name or shape of the job does not fit, an extent is missing, or an input
            takes no numbers.
    """
    names = [one.name for one in inputs]
    only = {"": names[0]} if len(names) == 1 else {}
    shapes = {only.get(key, key): value for key, value in job.shapes.items()}
    free = {only.get(key, key) for key in job.dynamic}
    strangers = sorted((set(shapes) | free) - set(names))
    if strangers:
        raise CannotExport(
            f"cannot find the input {strangers[0]!r} in {job.name}, which takes "
            f"{', '.join(names)}",
            hint="--shape NAME=1,224,224,3 takes one of these names",
            inputs=names,
        )
    if job.examples and len(job.examples) != len(inputs):
        raise CannotExport(
            f"cannot fit {len(job.examples)} example inputs to {job.name}, which takes "
            f"{len(inputs)}: {', '.join(names)}",
            hint="give one array per input, in this order",
            inputs=names,
        )
    fixed, missing = [], []
    for index, one in enumerate(inputs):
        if one.dtype in ("string", "resource", "variant"):
            raise CannotExport(
                f"cannot import {job.name}: its input {one.name} takes a {one.dtype}",
                hint="no board's runtime takes one; export a model that begins with numbers",
                input=one.name,
            )
        if one.dtype in _NO_NUMPY:
            raise CannotExport(
                f"cannot import {job.name}: its input {one.name} takes {one.dtype}",
                hint="export the model with float32 inputs: keras.config.set_dtype_policy("
                "'float32') before it is made",
                input=one.name,
            )
        shown = tuple(job.examples[index].shape) if job.examples else None
        shape = _fix(job.name, one, shapes.get(one.name), shown, free=one.name in free)
        if shape is None:
            missing.append(one)
        else:
            fixed.append(replace(one, shape=shape))
    if missing:
        told = ", ".join(f"{one.name} {_told(one.shape)}" for one in missing)
        asked = " ".join(f"--shape {one.name}={_asked(one.shape)}" for one in missing)
        raise CannotExport(
            f"cannot export {job.name} without more of its shapes: {told}",
            hint=f"say them, for example {asked}",
            missing=[one.name for one in missing],
        )
    return tuple(fixed)


def _fix(
    model: str,
    one: Taken,
    given: tuple[int | None, ...] | None,
    shown: tuple[int, ...] | None,
    *,
    free: bool,
) -> tuple[int | None, ...] | None:
    """The shape to trace with; None where an extent is open that nobody gave."""
    wanted = given if given is not None else shown
    if wanted is not None:
        fits = one.shape is None or (
            len(one.shape) == len(wanted)
            and all(a is None or b in (None, a) for a, b in zip(one.shape, wanted, strict=True))
        )
        if not fits or any(extent is not None and extent < 1 for extent in wanted):
            raise CannotExport(
                f"cannot give {one.name} of {model} the shape {_told(wanted)}: it takes "
                f"{_told(one.shape)}",
                hint=f"--shape {one.name}={_asked(one.shape)} would fit",
                input=one.name,
            )
        # an extent that the model fixes stays fixed, whatever was left free in the shape asked
        own = one.shape or (None,) * len(wanted)
        shape = tuple(a if a is not None else b for a, b in zip(own, wanted, strict=True))
    elif one.shape is None or any(extent is None for extent in one.shape[1:]):
        return None
    else:
        shape = tuple(1 if extent is None else extent for extent in one.shape)
    if free:
        if not shape or (one.shape is not None and one.shape[0] is not None):
            raise CannotExport(
                f"cannot keep the batch of {one.name} free: {model} fixes it, "
                f"{_told(one.shape)}",
                hint="export the model with a free batch, or leave --dynamic out",
                input=one.name,
            )
        shape = (None, *shape[1:])
    return shape


def _told(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "(any rank)"
    return "(" + ", ".join("?" if extent is None else str(extent) for extent in shape) + ")"


def _asked(shape: tuple[int | None, ...] | None) -> str:
    """An example of the option's value."""
    if shape is None:
        return "1,224,224,3"
    likely = 128 if len(shape) < 4 else 224
    extents = [1 if at == 0 else likely for at in range(len(shape))]
    return ",".join(
        str(free if own is None else own) for own, free in zip(shape, extents, strict=True)
    )


def example_inputs(inputs: Sequence[Taken], table: int | None) -> list[Values]:
    """Sets of random inputs, the same for the same model.

    ``table`` is the length of the shortest table that whole numbers look things up in.
    """
    import numpy as np

    sets = []
    for index in range(_SETS):
        rng = np.random.default_rng(index)
        sets.append(
            {
                one.name: _random(
                    rng,
                    [
                        (_BATCHES if at == 0 else _LENGTHS)[index] if extent is None else extent
                        for at, extent in enumerate(one.shape or ())
                    ],
                    one.dtype,
                    # a mask or a type of token is no id, and 0 and 1 are in every table
                    2 if {"mask", "type"} & {*re.split("[^a-z]+", one.name.lower())} else table,
                )
                for one in inputs
            }
        )
    return sets


def _random(rng: Any, shape: list[int], dtype: str, table: int | None) -> NDArray[np.generic]:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = rng.standard_normal(shape).astype(kind)
    elif kind.kind == "b":
        values = rng.integers(0, 2, shape).astype(kind)
    elif kind == np.uint8 and table is None:
        values = rng.integers(0, 256, shape).astype(kind)  # a picture
    else:
        values = rng.integers(0, min(table or 2, 100), shape).astype(kind)
    return np.asarray(values)


def given_examples(job: Job, inputs: Sequence[Taken]) -> list[Values]:
    """The user's examples, and two more with the same numbers in other places.

    So the values stay of the kind that the model takes, ids of words among them.
    """
    import numpy as np

    own = {
        one.name: np.asarray(value, dtype=one.dtype)
        for one, value in zip(inputs, job.examples, strict=True)
    }
    sets: list[Values] = [own]
    for index in range(1, _SETS):
        rng = np.random.default_rng(index)
        sets.append(
            {
                name: rng.permutation(value.reshape(-1)).reshape(value.shape)
                for name, value in own.items()
            }
        )
    return sets
