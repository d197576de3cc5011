"""Find out what a module is called with that does not say so itself."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgesdk.importers.frameworks.torch_inputs import (
    InputSpec,
    asked_shapes,
    check_names,
    first_tensors,
    is_free,
)
from edgesdk.importers.frameworks.torch_words import last_line
from edgesdk.importers.job import CannotExport, Job

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["describe_inputs", "forward_inputs", "given_examples", "home_of"]

_MAX_GUESSED_INPUTS = 4


def home_of(module: Any) -> Any:
    """Give the device that a module's tensors are on."""
    import torch

    return next((each.device for each in _tensors_of(module)), torch.device("cpu"))


def _tensors_of(module: Any) -> list[Any]:
    return [*module.parameters(), *module.buffers()]


def _float_type(module: Any) -> str:
    """Name the float type that a module computes in."""
    floats = [each.dtype for each in _tensors_of(module) if each.dtype.is_floating_point]
    return str(floats[0]).removeprefix("torch.") if floats else "float32"


def forward_inputs(job: Job, module: Any) -> list[str]:
    """Name the inputs of forward(): as many as examples are given, else those it needs."""
    import inspect

    named: list[str] = []
    more = False
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            more = True
        elif parameter.kind in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            needed = parameter.default is inspect.Parameter.empty
            if needed or len(named) < len(job.examples) or parameter.name in job.shapes:
                named.append(parameter.name)
    if more and len(named) < len(job.examples):
        named += [f"input_{index}" for index in range(len(named), len(job.examples))]
    if job.examples and len(named) != len(job.examples):
        raise CannotExport(
            f"cannot export {job.name}: {len(job.examples)} example inputs are given and its "
            f"forward() takes {len(named)} ({', '.join(named)})",
            hint="give one array for each, in order",
        )
    return named


def describe_inputs(job: Job, names: Sequence[str], module: Any) -> tuple[InputSpec, ...]:
    """Describe the inputs of a module, which does not say its shapes and types.

    Shapes are the user's, or those of the user's examples; so are types, or else they are
    found by trying.

    Raises:
        CannotExport: A shape is missing, or the module does not run on inputs like these.
    """
    check_names(job, names)
    shapes, own = asked_shapes(job, names), _float_type(module)
    specs = []
    for index, name in enumerate(names):
        shape, dtype = shapes.get(name), own
        if index < len(job.examples):
            array = job.examples[index]
            shape = shape or _free(job, name, names, array.shape)
            dtype = own if array.dtype.kind == "f" else str(array.dtype)
        if shape is None:
            weight = _first_weight(module)
            raise CannotExport(
                f"cannot export {job.name}: the shape of its input {name!r} is not in the file",
                hint=f"give it: --input-shape {name}=1,3,224,224"
                + (f" (its first weight is {weight})" if weight else ""),
                input=name,
                inputs=", ".join(names),
            )
        if any(extent is None for extent in shape[1:]):
            raise CannotExport(
                f"cannot leave an extent of input {name!r} of {job.name} free other than the "
                "first, its batch",
                hint="give numbers for the others, or export the module by torch.export with "
                "dynamic_shapes",
                input=name,
            )
        specs.append(InputSpec(name=name, shape=shape, dtype=dtype))
    return tuple(specs) if job.examples else _with_types(job, module, tuple(specs))


def _free(
    job: Job, name: str, names: Sequence[str], shape: tuple[int, ...]
) -> tuple[int | None, ...]:
    free = is_free(job, name, names)
    return (None, *shape[1:]) if free and shape else tuple(shape)


def _first_weight(module: Any) -> str:
    """Name the first weight with its shape, which often tells what the input is."""
    for name, tensor in module.named_parameters():
        if tensor.dim() > 1:
            return f"{name} {list(tensor.shape)}"
    return ""


def _with_types(job: Job, module: Any, specs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
    """Find out by trying which inputs are indices, for neither a module nor its file says."""
    import torch

    kinds = (_float_type(module), "int64")
    if len(specs) <= _MAX_GUESSED_INPUTS:
        guesses = list(itertools.product(kinds, repeat=len(specs)))
    else:
        guesses = [(kind,) * len(specs) for kind in kinds]
    first: Exception | None = None
    for guess in sorted(guesses, key=lambda each: each.count("int64")):
        tried = tuple(
            replace(spec, dtype=dtype) for spec, dtype in zip(specs, guess, strict=True)
        )
        tensors = [each.to(home_of(module)) for each in first_tensors(tried, batch=2)]
        try:
            with torch.no_grad():
                module(*tensors)
        except MemoryError:
            raise
        except Exception as exc:  # noqa: BLE001  # whatever it throws, it does not take these
            first = first or exc
            continue
        return tried
    assert first is not None
    weight = _first_weight(module)
    raise CannotExport(
        f"cannot run {job.name} on inputs of "
        + ", ".join(f"{spec.name} {list(spec.at(2))}" for spec in specs)
        + f": {last_line(first)}",
        hint="give the shapes it takes with --input-shape NAME=1,3,224,224"
        + (f"; its first weight is {weight}" if weight else ""),
    ) from first


def given_examples(
    job: Job, specs: Sequence[InputSpec]
) -> tuple[tuple[NDArray[np.generic], ...], ...]:
    """Give the user's examples in the types of the ONNX graph, as one set or none.

    Raises:
        CannotExport: They do not fit the inputs.
    """
    if not job.examples:
        return ()
    if len(job.examples) != len(specs):
        raise CannotExport(
            f"cannot use the example inputs of {job.name}: {len(job.examples)} are given and "
            f"it takes {len(specs)} ({', '.join(spec.name for spec in specs)})",
            hint="give one array for each, in order",
        )
    made = []
    for array, spec in zip(job.examples, specs, strict=True):
        fits = len(array.shape) == len(spec.shape) and all(
            own is None or own == extent
            for own, extent in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            raise CannotExport(
                f"cannot use the example of input {spec.name!r} of {job.name}: it is "
                f"{list(array.shape)}, and {list(spec.shape)} is taken (None is free)",
                hint="give an array of that shape",
                input=spec.name,
            )
        made.append(array.astype("float32" if array.dtype.kind == "f" else spec.dtype))
    return (tuple(made),)
