"""Make an exported program fit for a device: float32, inference mode, the asked shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edgesdk.importers.frameworks.torch_inputs import FREE_EXTENT, InputSpec
from edgesdk.importers.frameworks.torch_rewrite import (
    other_types,
    switch_to_inference,
    to_float32,
)
from edgesdk.importers.frameworks.torch_words import first_line
from edgesdk.importers.job import CannotExport

__all__ = ["Prepared", "prepare_program", "program_inputs", "run_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A program that is ready for ONNX.

    Attributes:
        program: The ExportedProgram.
        inputs: Of its tensors, in order.
        original: Answers the source's own outputs, as tensors, to a list of tensors.
        from_types: Element types that became float32.
        notes: What the user should know.
    """

    program: Any
    inputs: tuple[InputSpec, ...]
    original: Callable[[tuple[Any, ...]], list[Any]]
    from_types: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def prepare_program(
    program: Any,
    *,
    shapes: Mapping[str, tuple[int | None, ...]],
    samples: tuple[Any, ...] | None = None,
    original: Callable[[tuple[Any, ...]], list[Any]] | None = None,
    name: str,
) -> Prepared:
    """Rewrite a program where it needs it, and leave it alone where it does not.

    Args:
        program: An ExportedProgram on the CPU.
        shapes: What the user asked for, by input.
        samples: Arguments and keywords it was exported with, if known.
        original: How to ask the source; the program itself where left out.
        name: For messages.

    Raises:
        CannotExport: A shape is asked that it does not have.
    """
    import torch

    inputs = program_inputs(program, samples)
    asked = _narrowed(inputs, shapes, name)
    module = program.module(check_guards=False)
    from_types = tuple(sorted(other_types(module)))
    trained = switch_to_inference(module)
    ask = original or _asker(program)
    notes = []
    if trained:
        notes.append(
            "it was exported in training mode; dropout and batch normalisation were switched "
            "to inference"
        )
    if from_types:
        notes.append(f"its {' and '.join(from_types)} became float32")
        to_float32(module)
    if trained or from_types or asked != inputs:
        leaves = [
            torch.zeros(spec.at(_least_batch(spec)), dtype=getattr(torch, spec.dtype))
            for spec in asked
        ]
        program = _captured_again(program, module, asked, leaves, name)
        if trained and original is None:
            ask = _asker(program)
        asked = _named_like(program_inputs(program, None), asked)
    return Prepared(
        program=program,
        inputs=asked,
        original=ask,
        from_types=from_types,
        notes=tuple(notes),
    )


def program_inputs(program: Any, samples: tuple[Any, ...] | None) -> tuple[InputSpec, ...]:
    """Describe the tensors that a program takes, in order."""
    import torch

    ranges = program.range_constraints
    found = []
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    for name in _tensor_inputs(program):
        value = placeholders[name].meta["val"]
        # tracing may have found that a symbol has one value
        symbolic = tuple(
            extent.node.expr if isinstance(extent, torch.SymInt) else extent
            for extent in value.shape
        )
        shape = tuple(
            None if getattr(extent, "free_symbols", ()) else int(extent) for extent in symbolic
        )
        dtype = str(value.dtype).removeprefix("torch.")
        high = 2
        if not value.dtype.is_floating_point and dtype != "bool":
            high = _below_embedding(placeholders[name]) or _above_sample(
                samples, _position(program, name)
            )
        found.append(
            InputSpec(
                name=name,
                shape=shape,
                dtype="float32" if value.dtype.is_floating_point else dtype,
                high=high,
                sized=_sizes(symbolic, ranges) if None in shape else None,
            )
        )
    return tuple(found)


def run_program(module: Any, program: Any, tensors: tuple[Any, ...]) -> list[Any]:
    """Call the module of a program by its tensors alone, and give its tensors."""
    import torch
    from torch.utils import _pytree as pytree

    given = iter(tensors)
    leaves = []
    for spec in program.graph_signature.input_specs:
        if spec.kind.name != "USER_INPUT":
            continue
        if type(spec.arg).__name__ == "TensorArgument":
            leaves.append(next(given))
        else:
            leaves.append(getattr(spec.arg, "value", None))
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    with torch.no_grad():
        answer = module(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(answer) if isinstance(leaf, torch.Tensor)]


def _asker(program: Any) -> Callable[[tuple[Any, ...]], list[Any]]:
    module = program.module(check_guards=False)
    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    dtypes = [placeholders[name].meta["val"].dtype for name in _tensor_inputs(program)]

    def ask(tensors: tuple[Any, ...]) -> list[Any]:
        typed = tuple(each.to(dtype) for each, dtype in zip(tensors, dtypes, strict=True))
        return run_program(module, program, typed)

    return ask


def _tensor_inputs(program: Any) -> list[str]:
    return [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT" and type(spec.arg).__name__ == "TensorArgument"
    ]


def _position(program: Any, name: str) -> int:
    users = [
        spec.arg.name
        for spec in program.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    return users.index(name)


def _below_embedding(placeholder: Any) -> int:
    """Give the rows of the smallest table that an input is looked up in; 0 for none."""
    rows = [
        user.args[0].meta["val"].shape[0]
        for user in placeholder.users
        if str(user.target).startswith("aten.embedding") and user.args[1] is placeholder
    ]
    return min(map(int, rows), default=0)


def _above_sample(samples: tuple[Any, ...] | None, position: int) -> int:
    """Give what is just above the greatest value of a sample input; 2 where none is known."""
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves(samples) if samples is not None else []
    sample = leaves[position] if position < len(leaves) else None
    if not isinstance(sample, torch.Tensor) or not sample.numel():
        return 2
    return max(2, min(int(sample.max()) + 1, 1 << 15))


def _sizes(expressions: tuple[Any, ...], ranges: Any) -> Callable[[int], tuple[int, ...]]:
    """Give a function from the batch to a shape whose extents may depend on each other."""
    lead: set[Any] = getattr(expressions[0], "free_symbols", set()) if expressions else set()

    def sized(batch: int) -> tuple[int, ...]:
        shape = []
        for expression in expressions:
            symbols: set[Any] = getattr(expression, "free_symbols", set())
            chosen = {
                symbol: _within(ranges.get(symbol), batch if symbol in lead else FREE_EXTENT)
                for symbol in symbols
            }
            shape.append(int(expression.subs(chosen)) if symbols else int(expression))
        return tuple(shape)

    return sized


def _within(bounds: Any, wanted: int) -> int:
    if bounds is None:
        return wanted
    low, high = bounds.lower, bounds.upper
    # either may be one of sympy's or PyTorch's infinities
    low = int(low) if low.is_Integer else 0
    high = int(high) if high.is_Integer else wanted
    return max(low, min(wanted, high))


def _least_batch(spec: InputSpec) -> int:
    # 2, for torch.export takes an extent of 1 to be meant
    return 2 if spec.shape and spec.shape[0] is None else 1


def _narrowed(
    inputs: tuple[InputSpec, ...], shapes: Mapping[str, tuple[int | None, ...]], name: str
) -> tuple[InputSpec, ...]:
    """Fix the free extents that the user gave."""
    asked = []
    for spec in inputs:
        shape = shapes.get(spec.name)
        if shape is None or shape == spec.shape:
            asked.append(spec)
            continue
        fits = len(shape) == len(spec.shape) and all(
            own is None or own == wanted for own, wanted in zip(spec.shape, shape, strict=True)
        )
        if not fits:
            raise CannotExport(
                f"cannot give input {spec.name!r} of {name} the shape {_text(shape)}: "
                f"it was exported as {_text(spec.shape)}",
                hint="export it again with dynamic_shapes={...: {0: torch.export.Dim.AUTO}}",
                input=spec.name,
                shape=_text(spec.shape),
            )
        asked.append(InputSpec(name=spec.name, shape=shape, dtype=spec.dtype, high=spec.high))
    return tuple(asked)


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if extent is None else str(extent) for extent in shape) + "]"


def _captured_again(
    program: Any, module: Any, inputs: tuple[InputSpec, ...], leaves: list[Any], name: str
) -> Any:
    import torch

    class OfTensors(torch.nn.Module):  # type: ignore[misc]  # torch has no types here
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *tensors: Any) -> Any:
            return tuple(run_program(self.inner, program, tensors))

    dim = torch.export.Dim.AUTO
    shapes = tuple(
        {axis: dim for axis, extent in enumerate(spec.shape) if extent is None} or None
        for spec in inputs
    )
    try:
        with torch.no_grad():
            return torch.export.export(
                OfTensors(), tuple(leaves), dynamic_shapes=(shapes,) if any(shapes) else None
            )
    except MemoryError:
        raise
    except Exception as exc:
        raise CannotExport(
            f"cannot export {name} in float32 and in the shape asked for: {first_line(exc)}",
            hint="export the module again in float32, in inference mode and in that shape: "
            "torch.export.export(module.float().eval(), inputs)",
        ) from exc


def _named_like(
    inputs: tuple[InputSpec, ...], before: tuple[InputSpec, ...]
) -> tuple[InputSpec, ...]:
    return tuple(
        InputSpec(
            name=old.name, shape=spec.shape, dtype=spec.dtype, high=old.high, sized=spec.sized
        )
        for spec, old in zip(inputs, before, strict=True)
    )
