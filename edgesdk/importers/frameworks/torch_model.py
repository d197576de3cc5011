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
    typed_tensors,
)
from edgesdk.importers.frameworks.torch_specs import (
    describe_inputs,
    forward_inputs,
    given_examples,
    home_of,
)
from edgesdk.importers.job import CannotExport, Exported, Job

__all__ = ["export", "refuse_early"]


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


def refuse_early(job: Job) -> None:
    """Refuse what needs no PyTorch to be refused.

    Raises:
        CannotExport: A checkpoint is not trusted, or holds weights alone.
    """
    if job.kind == "torch-checkpoint":
        from edgesdk.importers.frameworks.torch_checkpoint import refuse_checkpoint

        refuse_checkpoint(job)


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
    from edgesdk.importers.frameworks.torch_script import record_script, script_inputs

    specs = describe_inputs(job, script_inputs(module, job.name), module)
    job.on_step("tracing TorchScript")
    program = record_script(module, specs, job.name)
    return _export_captured(job, module, program, specs)


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

        if home_of(job.source).type != "cpu":
            raise CannotExport(
                f"cannot export {job.name}: TorchScript is traced on the CPU, and it is on "
                f"{home_of(job.source)}",
                hint="give module.cpu()",
            )
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
    from edgesdk.importers.frameworks.torch_capture import capture_module, in_inference_mode

    with in_inference_mode(module):
        specs = describe_inputs(job, forward_inputs(job, module), module)
        free = [index for index, spec in enumerate(specs) if spec.shape[:1] == (None,)]
        job.on_step("tracing the module")
        program = capture_module(
            module, _traced_on(job, specs, module), free=free, name=job.name
        )
        if home_of(module).type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, "cpu")
        return _export_captured(job, module, program, specs)


def _export_captured(
    job: Job, module: Any, program: Any, specs: tuple[InputSpec, ...]
) -> Exported:
    """Write what was captured of a module, with the module's own answers as examples."""
    import torch
    from torch.utils import _pytree as pytree

    from edgesdk.importers.frameworks.torch_onnx import write_onnx
    from edgesdk.importers.frameworks.torch_prepare import prepare_program

    def call(tensors: tuple[Any, ...]) -> Any:
        dtypes = [getattr(torch, spec.dtype) for spec in specs]
        typed = [
            each.to(device=home_of(module), dtype=dtype)
            for each, dtype in zip(tensors, dtypes, strict=True)
        ]
        with torch.no_grad(), torch.jit.optimized_execution(False):
            return module(*typed)

    def ask(tensors: tuple[Any, ...]) -> list[Any]:
        leaves = pytree.tree_leaves(call(tensors))
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    sample = _traced_on(job, specs, module)
    # what the user gave bounds indices, where no table in the graph does
    samples: tuple[Any, ...] | None = (sample, {}) if job.examples else None
    prepared = prepare_program(program, shapes={}, samples=samples, original=ask, name=job.name)
    _check_free(job, prepared.inputs, specs)
    inputs = tuple(
        replace(own, name=spec.name) for own, spec in zip(prepared.inputs, specs, strict=True)
    )
    answer = call(sample)
    return write_onnx(
        replace(prepared, inputs=inputs),
        job,
        output_names=[str(key) for key in answer] if isinstance(answer, dict) else None,
        examples=given_examples(job, inputs),
    )


def _traced_on(job: Job, specs: Sequence[InputSpec], module: Any) -> tuple[Any, ...]:
    """Give the tensors to trace with, where the module is."""
    import torch

    arrays = given_examples(job, specs)
    tensors = typed_tensors(arrays[0], specs) if arrays else first_tensors(specs, batch=2)
    return tuple(
        # an extent of 1 is taken to be meant
        (torch.cat([each, each]) if spec.shape[:1] == (None,) and len(each) == 1 else each).to(
            home_of(module)
        )
        for spec, each in zip(specs, tensors, strict=True)
    )


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
