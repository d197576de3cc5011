"""What a PyTorch model is called with, and examples of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgesdk.importers.job import CannotExport, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "InputSpec",
    "asked_shapes",
    "check_names",
    "example_arrays",
    "first_tensors",
    "is_free",
    "to_tensors",
    "typed_tensors",
]

_SEED = 20_240
#: What a free extent is in examples, unless the source allows no such size.
FREE_EXTENT = 16
#: The batches of the examples of a source whose batch is free; devices mostly run the second.
EXAMPLE_BATCHES = (3, 1, 2)
_EXAMPLES = 3
_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One input.

    Attributes:
        name: As the ONNX graph shall call it.
        shape: None stands for an extent that stays free.
        dtype: Name of its element type. Arrays of any float type are made in float32.
        high: Random integers stay below it; 2 where nothing is known.
        sized: Gives the shape at a batch, where the source relates its free extents; else the
            leading one is the batch and others are `FREE_EXTENT`.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    high: int = 2
    sized: Callable[[int], tuple[int, ...]] | None = None

    def at(self, batch: int) -> tuple[int, ...]:
        """Give the shape at a batch."""
        if self.sized is not None:
            return self.sized(batch)
        return tuple(
            extent if extent is not None else (FREE_EXTENT if axis else batch)
            for axis, extent in enumerate(self.shape)
        )


def check_names(job: Job, names: Sequence[str]) -> None:
    """Refuse shapes and free batches of inputs that are not there.

    Raises:
        CannotExport: A name is unknown, or the shape of "the only" input is one of several.
    """
    for option, given in (("--input-shape", tuple(job.shapes)), ("--dynamic", job.dynamic)):
        for name in given:
            if name not in names and not (name == "" and len(names) == 1):
                raise CannotExport(
                    f"cannot use {option} for {name or 'an input without a name'!r}: "
                    f"{job.name} has {', '.join(map(repr, names)) or 'no inputs'}",
                    hint=f"name one of its inputs, as in {option} {names[0]}"
                    + ("=1,3,224,224" if option == "--input-shape" else "")
                    if names
                    else "",
                    name=name,
                    inputs=", ".join(names),
                )


def is_free(job: Job, name: str, names: Sequence[str]) -> bool:
    """Tell whether the user wants the batch of an input left free."""
    return name in job.dynamic or (len(names) == 1 and "" in job.dynamic)


def asked_shapes(job: Job, names: Sequence[str]) -> dict[str, tuple[int | None, ...]]:
    """Give the shapes that the user named, by input, with the batch free where asked."""
    check_names(job, names)
    shapes = {}
    for name in names:
        shape = job.shapes.get(name, job.shapes.get("") if len(names) == 1 else None)
        if shape is not None:
            free = is_free(job, name, names) and shape
            shapes[name] = (None, *shape[1:]) if free else tuple(shape)
    return shapes


def example_arrays(specs: Sequence[InputSpec]) -> tuple[tuple[NDArray[np.generic], ...], ...]:
    """Make three sets of inputs, always the same, at other batches where that is free."""
    free = any(spec.shape and spec.shape[0] is None for spec in specs)
    return tuple(
        _arrays(specs, seed=_SEED + index, batch=EXAMPLE_BATCHES[index] if free else 1)
        for index in range(_EXAMPLES)
    )


def first_tensors(specs: Sequence[InputSpec], *, batch: int) -> tuple[Any, ...]:
    """Make one set of inputs as tensors of the inputs' own types, to trace with."""
    return typed_tensors(_arrays(specs, seed=_SEED, batch=batch), specs)


def to_tensors(arrays: Sequence[NDArray[np.generic]]) -> tuple[Any, ...]:
    """Give arrays as tensors on the CPU; these own their memory."""
    import torch

    return tuple(torch.tensor(array) for array in arrays)


def typed_tensors(
    arrays: Sequence[NDArray[np.generic]], specs: Sequence[InputSpec]
) -> tuple[Any, ...]:
    """Give arrays as tensors of the inputs' types."""
    import torch

    return tuple(
        tensor.to(getattr(torch, spec.dtype))
        for tensor, spec in zip(to_tensors(arrays), specs, strict=True)
    )


def _arrays(
    specs: Sequence[InputSpec], *, seed: int, batch: int
) -> tuple[NDArray[np.generic], ...]:
    import numpy as np

    random = np.random.default_rng(seed)
    made: list[NDArray[np.generic]] = []
    for spec in specs:
        shape = spec.at(batch)
        if spec.dtype in _FLOATS:
            made.append(random.standard_normal(shape, dtype=np.float32))
        elif spec.dtype == "bool":
            made.append(random.integers(0, 2, shape) > 0)
        else:
            made.append(random.integers(0, spec.high, shape).astype(spec.dtype))
    return tuple(made)
