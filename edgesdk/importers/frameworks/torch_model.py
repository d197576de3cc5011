"""Export what PyTorch has: programs of torch.export, TorchScript, pickled and live modules.

Every form becomes an ExportedProgram first: `torch_program` reads one safely, `torch_script`
records one, `torch_capture` traces one from a module. `torch_prepare` makes it fit for a device
and `torch_onnx` writes it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edgesdk.importers.frameworks.torch_inputs import (
    InputSpec,
    asked_shapes,
    first_tensors,
    is_free,
    to_tensors,
)
from edgesdk.importers.frameworks.torch_specs import (
    describe_inputs,
    first_weight,
    forward_inputs,
    given_examples,
    tensors_of,
    with_types,
)
from edgesdk.importers.job import CannotExport, Exported, Job

__all__ = ["export"]


def export(job: Job) -> Exported:
    """Turn a PyTorch model into ONNX.

    Raises:
        CannotExport: It cannot be done; the text says why, the hint what to try.
    """
    forms: dict[str, Callable[[Job], Exported]] = {
        "torch-export": _export_program_file,
        "torchscript": _export_script_file,
        "torch-checkpoint": _export_checkpoint,
        "torch-live": _export_live,
    }
    form = forms.get(job.kind)
    if form is None:
        raise CannotExport(
            f"cannot export {job.name}: {job.kind!r} is no form of PyTorch",
            hint=f"forms are {', '.join(forms)}",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own plans
        return form(job)


def _export_program_file(job: Job) -> Exported:
    from edgesdk.importers.frameworks.torch_program import load_program

    job.on_step("reading the program")
    program, samples = load_program(job)
    return _export_program(job, program, samples)


def _export_program(job: Job, program: Any, samples: tuple[Any, ...] | None) -> Exported:
    from edgesdk.importers.frameworks.torch_onnx import write_onnx
    from edgesdk.importers.frameworks.torch_prepare import prepare_program, program_inputs

    inputs = program_inputs(program, samples)
    names = [spec.name for spec in inputs]
    shapes = asked_shapes(job, names)
    for spec in inputs:
        if is_free(job, spec.name, names) and (not spec.shape or spec.shape[0] is not None):
            raise _fixed_program(job, spec.name)
    job.on_step("preparing the program")
    prepared = prepare_program(program, shapes=shapes, samples=samples, name=job.name)
    examples = given_examples(job, prepared.inputs)
    return write_onnx(
        prepared, job, output_names=_keys(program.call_spec.out_spec), examples=examples
    )


def _export_script_file(job: Job) -> Exported:
    from edgesdk.importers.frameworks.torch_script import load_script

    job.on_step("reading TorchScript")
    return _export_script(job, load_script(job))


def _export_script(job: Job, module: Any) -> Exported:
    import torch

    from edgesdk.importers.frameworks.torch_onnx import write_onnx
    from edgesdk.importers.frameworks.torch_prepare import prepare_program, program_inputs
    from edgesdk.importers.frameworks.torch_script import record_script, script_inputs

    specs = describe_inputs(job, script_inputs(module, job.name), first_weight(module))
    job.on_step("tracing TorchScript")
    specs = with_types(job, module, specs)
    program = record_script(module, specs, job.name)
    recorded = program_inputs(program, None)
    specs = tuple(
        replace(spec, high=own.high) for spec, own in zip(specs, recorded, strict=True)
    )
    dtypes = [getattr(torch, spec.dtype) for spec in specs]

    def ask(tensors: tuple[Any, ...]) -> list[Any]:
        from torch.utils import _pytree as pytree

        typed = [each.to(dtype) for each, dtype in zip(tensors, dtypes, strict=True)]
        with torch.no_grad(), torch.jit.optimized_execution(False):
            leaves = pytree.tree_leaves(module(*typed))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    prepared = prepare_program(program, shapes={}, original=ask, name=job.name)
    _check_free(job, prepared.inputs, specs)
    prepared = replace(
        prepared,
        inputs=tuple(
            replace(own, name=spec.name, high=spec.high)
            for own, spec in zip(prepared.inputs, specs, strict=True)
        ),
    )
    with torch.no_grad():
        answer = module(*first_tensors(specs, batch=2))
    names = list(answer) if isinstance(answer, dict) else None
    return write_onnx(prepared, job, output_names=names, examples=given_examples(job, specs))


def _export_checkpoint(job: Job) -> Exported:
    from edgesdk.importers.frameworks.torch_checkpoint import load_checkpoint

    job.on_step("reading the checkpoint")
    return _export_module(job, load_checkpoint(job))


def _export_live(job: Job) -> Exported:
    import torch

    if isinstance(job.source, torch.export.ExportedProgram):
        return _export_program(job, job.source, job.source.example_inputs)
    if isinstance(job.source, torch.jit.ScriptModule):
        from edgesdk.importers.frameworks.torch_capture import in_inference_mode

        with in_inference_mode(job.source):
            return _export_script(job, job.source)
    if not isinstance(job.source, torch.nn.Module):
        raise CannotExport(
            f"cannot export {job.name}: it is a {type(job.source).__name__}, "
            "not a torch.nn.Module",
            hint="wrap what it computes into the forward() of a module",
        )
    return _export_module(job, job.source)


def _export_module(job: Job, module: Any) -> Exported:
    import torch

    from edgesdk.importers.frameworks.torch_capture import capture_module, in_inference_mode
    from edgesdk.importers.frameworks.torch_onnx import write_onnx
    from edgesdk.importers.frameworks.torch_prepare import prepare_program, program_inputs

    with in_inference_mode(module):
        specs = describe_inputs(job, forward_inputs(job, module), first_weight(module))
        if not job.examples:
            specs = with_types(job, module, specs)
        free = [index for index, spec in enumerate(specs) if spec.shape[:1] == (None,)]
        home = next((each.device for each in tensors_of(module)), torch.device("cpu"))
        tensors = _traced_on(job, specs, module, home)
        job.on_step("tracing the module")
        program = capture_module(module, tensors, free=free, name=job.name)

        def ask(given: tuple[Any, ...]) -> list[Any]:
            from torch.utils import _pytree as pytree

            typed = [
                each.to(device=home, dtype=like.dtype)
                for each, like in zip(given, tensors, strict=True)
            ]
            with torch.no_grad():
                leaves = pytree.tree_leaves(module(*typed))
            return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

        if home.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, "cpu")
        found = program_inputs(program, (tensors, {}))
        prepared = prepare_program(
            program, shapes={}, samples=(tensors, {}), original=ask, name=job.name
        )
        _check_free(job, found, specs)
        prepared = replace(
            prepared,
            inputs=tuple(
                replace(own, name=spec.name)
                for own, spec in zip(prepared.inputs, specs, strict=True)
            ),
        )
        return write_onnx(
            prepared,
            job,
            output_names=_keys(program.call_spec.out_spec),
            examples=given_examples(job, specs),
        )


def _traced_on(job: Job, specs: Sequence[InputSpec], module: Any, home: Any) -> tuple[Any, ...]:
    """Give the tensors to trace with, of the module's own float type, where it is."""
    import torch

    arrays = given_examples(job, specs)
    tensors = to_tensors(arrays[0]) if arrays else first_tensors(specs, batch=2)
    floats = [each.dtype for each in tensors_of(module) if each.dtype.is_floating_point]
    own = floats[0] if floats else torch.float32
    placed = []
    for spec, tensor in zip(specs, tensors, strict=True):
        if spec.shape[:1] == (None,) and tensor.shape[0] == 1:
            # an extent of 1 is taken to be meant
            tensor = torch.cat([tensor, tensor])  # noqa: PLW2901  # the same input twice
        given = own if tensor.dtype.is_floating_point else tensor.dtype
        placed.append(tensor.to(device=home, dtype=given))
    return tuple(placed)


def _check_free(job: Job, found: Sequence[InputSpec], asked: Sequence[InputSpec]) -> None:
    for own, spec in zip(found, asked, strict=True):
        if spec.shape[:1] == (None,) and own.shape[:1] != (None,):
            raise CannotExport(
                f"cannot leave the batch of input {spec.name!r} of {job.name} free: the model "
                f"computes with {own.shape[0]} of its examples only",
                hint="look for the batch as a number in its forward(), as in a view or an "
                "expand, or leave out --dynamic",
                input=spec.name,
            )


def _fixed_program(job: Job, name: str) -> CannotExport:
    return CannotExport(
        f"cannot leave the batch of input {name!r} of {job.name} free: it was exported with a "
        "fixed one",
        hint="export it again with dynamic_shapes={...: {0: torch.export.Dim.AUTO}}, or leave "
        "out --dynamic",
        input=name,
    )


def _keys(out_spec: Any) -> list[str] | None:
    """Name the outputs of a module that returns a dict."""
    context = getattr(out_spec, "context", None)
    if getattr(out_spec, "type", None) is dict and isinstance(context, list):
        return [str(key) for key in context]
    return None
