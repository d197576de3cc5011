"""Carry out a plan: simplify, fit to the target's versions, quantize, check, bundle."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.build.as_is import take_file
from edgesdk.build.chain import build_parts
from edgesdk.build.checks import (
    Checks,
    kernel_spread,
    make_checks,
    synthetic_samples,
    tell_parts,
)
from edgesdk.build.convert import convert_part
from edgesdk.build.parts import BuiltParts
from edgesdk.build.record import manifest_record, part_record, refuse_limits, with_batch
from edgesdk.build.reference import HostModel, open_reference
from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.errors import BuildError
from edgesdk.model.nodes import tensor_info
from edgesdk.model.open import OpenedModel
from edgesdk.model.shapes import at_batch_one
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import OpenedTflite
from edgesdk.model.values import Finding, SourceModel
from edgesdk.plan import BuildPlan, Recipe
from edgesdk.plan.facts import model_facts
from edgesdk.plan.order import order_backends
from edgesdk.profiles.values import BackendProfile, TargetProfile
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress
from edgesdk.tensors import TensorInfo
from edgesdk.wire.manifest import canonical_bytes
from edgesdk.wire.tensors import DTYPE_BYTES

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgesdk.data.dataset import Dataset

__all__ = ["build_bundle", "owner_of"]

#: Outputs whose cosine to the float model's is below this are worth a warning.
_FAR_COSINE = 0.98
#: ... unless no element differs by more than this: a detector that sees nothing gives numbers
#: around 0, whose direction is noise.
_NO_ERROR = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """The parts on disk, ready to be checked and stored."""

    parts: BuiltParts
    steps: dict[str, float]
    as_built: dict[str, Any]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    #: The graph in one piece, where it was cut or compiled.
    whole: ir.Model | None = None


def build_bundle(
    opened: OpenedModel | OpenedTflite,
    profile: TargetProfile,
    recipe: Recipe,
    plan: BuildPlan,
    *,
    calib: Dataset | None,
    labelled: Dataset | None = None,
    out: Path,
    state_dir: Path | None = None,
    on_note: OnNote = ignore_note,
    on_progress: OnProgress = ignore_progress,
) -> Bundle:
    """Build what ``plan`` says and write it to the folder ``out``.

    The same model, target, recipe, data, package versions and CPU features give the same id.
    Where a precision of ``auto`` is for this very computer, so does the same answer to which
    graph is slower here; that is only asked beyond chance.

    Args:
        opened: The model.
        profile: The target.
        recipe: What the user wants.
        plan: Made from these three.
        calib: Calibration data; its labels measure a budget too.
        labelled: Data with labels to measure a budget on instead.
        out: Where the bundle goes.
        state_dir: Where a long quantization keeps what a stopped one can go on from.
        on_note: Told what concerns this computer only, such as times, and is in no bundle.
        on_progress: Told of every step.

    Raises:
        BuildError: A step failed; nothing is left at ``out``, or what was there before.
        OutputError: ``out`` cannot be written, or holds something that is not a bundle.
    """
    _refuse_unsendable(opened.source)
    with (
        BundleWriter(out) as writer,
        tempfile.TemporaryDirectory(prefix="edgesdk-build-") as scratch,
    ):
        job = _Job(
            profile=profile,
            owner=owner_of(profile, recipe, plan),
            recipe=recipe,
            plan=plan,
            calib=calib,
            labelled=labelled,
            state_dir=state_dir,
            on_note=on_note,
            writer=writer,
            folder=Path(scratch),
            step=_Stepper(len(plan.steps), on_progress),
            on_progress=on_progress,
        )
        if isinstance(opened, OpenedTflite):
            built = _take_tflite(job, opened)
            checks = _checks(job, built, None)
        else:
            built = _compile(job, opened)
            with open_reference(opened.ir) as reference:
                checks = _checks(job, built, reference)
        job.step.done("check")
        _judge(built.as_built, checks)
        manifest = manifest_record(
            opened.source,
            profile,
            recipe,
            plan,
            calib=calib,
            parts=built.parts,
            precision=built.as_built["precision"],
            inputs=built.inputs,
            outputs=built.outputs,
        )
        manifest["parts"] = [
            part_record(part, index, target=profile, recipe=recipe, writer=writer)
            for index, part in enumerate(built.parts.parts)
        ]
        refuse_limits(opened.source.name, manifest)
        manifest["checks"] = checks.records
        manifest["as_built"] = built.as_built
        manifest["attachments"] = [
            {"role": "plan", **writer.add_bytes(canonical_bytes(plan.to_json()))}
        ]
        bundle = writer.finish(json.loads(canonical_bytes(manifest)))
        job.step.done("bundle")
        return bundle


def _refuse_unsendable(source: SourceModel) -> None:
    for what, values in (("input", source.inputs), ("output", source.outputs)):
        for value in values:
            if value.dtype not in DTYPE_BYTES:
                raise BuildError(
                    f"cannot build {source.name}: {what} {value.name!r} is of type "
                    f"{value.dtype or 'unknown'}, which cannot be sent to a device",
                    hint="export whole numbers instead of words (a classifier trained on class "
                    "numbers), or cut that end off the model",
                    tensor=value.name,
                )


class _Stepper:
    """Tells how many of the plan's steps are done."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    def done(self, name: str) -> None:
        """Say that the step called ``name`` is over."""
        self._done = min(self._done + 1, self._total)
        self._on_progress(
            Progress(step=f"build: {name}", done=self._done, total=self._total, unit="steps")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What every step of one build needs."""

    profile: TargetProfile
    owner: BackendProfile
    recipe: Recipe
    plan: BuildPlan
    calib: Dataset | None
    labelled: Dataset | None
    state_dir: Path | None
    on_note: OnNote
    writer: BundleWriter
    folder: Path
    step: _Stepper
    on_progress: OnProgress


def owner_of(profile: TargetProfile, recipe: Recipe, plan: BuildPlan) -> BackendProfile:
    """Find the backend for whose kernels the graph is quantized: the best that runs a node."""
    used = {node.backend for node in plan.nodes} | {part.backend for part in plan.parts}
    ordered = [each for each in order_backends(profile, recipe) if each.id in used]
    with_scheme = [each for each in ordered if each.scheme is not None]
    return (with_scheme or ordered)[0]


def _compile(job: _Job, opened: OpenedModel) -> _Built:
    precision, plan = job.plan.precision, job.plan
    skipped: list[Finding] = []
    graph = at_batch_one(opened.ir) if plan.fixed_inputs else opened.ir
    model = simplify(graph, on_finding=skipped.append)
    job.step.done("simplify")
    as_built: dict[str, Any] = {
        "precision": precision,
        "left_float": [],
        "findings": [asdict(finding) for finding in skipped],
    }
    if plan.fixed_inputs:
        as_built["findings"].append(asdict(_batch_of_one(plan.fixed_inputs)))
    if precision != "fp32" or job.recipe.prune is not None:
        model = convert_part(
            model,
            opened.source,
            profile=job.profile,
            backend=job.owner,
            recipe=job.recipe,
            plan=plan,
            calib=job.calib,
            labelled=job.labelled,
            state_dir=job.state_dir,
            as_built=as_built,
            on_note=job.on_note,
            on_progress=job.on_progress,
        )
        job.step.done("quantize")
    parts = build_parts(
        model,
        opened.source,
        job.profile,
        job.recipe,
        plan,
        precision=as_built["precision"],
        folder=job.folder,
        on_note=job.on_note,
    )
    for name in plan.steps[plan.steps.index("fit-opset") : plan.steps.index("check")]:
        job.step.done(name)
    as_built["placement"] = parts.placement
    as_built["findings"] += [asdict(finding) for finding in parts.findings]
    is_plain = len(parts.parts) == 1 and parts.parts[0].backend.compiler is None
    return _Built(
        parts=parts,
        steps=output_steps(model),
        as_built=as_built,
        inputs=with_batch(opened.source.inputs, plan.fixed_inputs),
        outputs=_outputs(opened.source, model, fixed=bool(plan.fixed_inputs)),
        whole=None if is_plain else model,
    )


def _outputs(source: SourceModel, model: ir.Model, *, fixed: bool) -> tuple[TensorInfo, ...]:
    return tuple(map(tensor_info, model.graph.outputs)) if fixed else source.outputs


def _batch_of_one(names: tuple[str, ...]) -> Finding:
    return Finding(
        code="batch-of-one",
        severity="info",
        message=f"the open first extent of {', '.join(names)} is built as 1: a part of the "
        "target wants fixed shapes",
        hint=f"for another one: --shape {names[0]}=...",
        subject=names[0],
    )


def _take_tflite(job: _Job, opened: OpenedTflite) -> _Built:
    source = opened.source
    parts = take_file(
        model_facts(opened), job.profile, job.plan, folder=job.folder, on_note=job.on_note
    )
    findings = [asdict(finding) for finding in parts.findings]
    return _Built(
        parts=parts,
        steps={},
        as_built={
            "precision": "as-is",
            "left_float": [],
            "findings": findings,
            "placement": parts.placement,
        },
        inputs=source.inputs,
        outputs=source.outputs,
    )


def _checks(job: _Job, built: _Built, reference: HostModel | None) -> Checks:
    samples: Iterator[dict[str, np.ndarray]]
    if job.calib is not None:
        samples = job.calib.samples()
    else:
        samples = iter(synthetic_samples(built.inputs, job.recipe.checks))
    is_file = built.as_built["precision"] == "as-is"
    runs_here = all(part.host is not None for part in built.parts.parts)
    outputs = [value.name for value in built.outputs]
    steps, chain = built.steps, None
    chosen = list(itertools.islice(samples, job.recipe.checks))
    if runs_here or not is_file:
        chain = built.parts.on_host(outputs)
    unrounded = built.parts.unrounded(outputs)
    if chain is not None and unrounded is not None:
        spread = kernel_spread(chosen, chain, unrounded)
        steps = steps | {n: max(steps.get(n, 0.0), apart) for n, apart in spread.items()}
    if chain is not None and built.whole is not None:
        with open_reference(built.whole, as_written=True) as whole:
            precision = built.as_built["precision"]
            tell_parts(built.as_built, chosen, chain, whole, steps, precision=precision)
    plain = built.parts.plain(outputs) if chain is not None else None
    between: dict[str, float] = {}
    if chain is not None and plain is not None:
        between = kernel_spread(chosen, chain, plain)
        if is_file:
            _tell_spread(built.as_built, between)
    return make_checks(
        chosen,
        job.writer,
        part=chain,
        reference=reference,
        precision=built.as_built["precision"],
        steps=steps,
        spread=between,
        limit=job.recipe.checks,
    )


def _tell_spread(as_built: dict[str, Any], spread: dict[str, float]) -> None:
    """Warn where the runtime's own kernels are too far apart for a bound of one step."""
    for name, allowed in spread.items():
        if allowed > 1.0:
            finding = Finding(
                code="kernels-disagree",
                severity="warning",
                message=f"output {name!r} may be off by {allowed:g} on the device, twice what "
                "two kernel sets of LiteRT differ by here (expected at most 1)",
                hint="give typical inputs with --calib: made-up ones magnify such differences",
                subject=name,
            )
            as_built["findings"].append(asdict(finding))


def _judge(as_built: dict[str, Any], checks: Checks) -> None:
    """Record how near the part is to the float model, and warn where that is far."""
    as_built["against_float"] = checks.against_float
    for record in checks.against_float:
        cosine, error, name = record["cosine"], record["max_abs_error"], record["output"]
        if cosine is not None and (cosine >= _FAR_COSINE or (error or 0.0) < _NO_ERROR):
            continue
        seen = "not a number" if cosine is None else f"{cosine:.3f}"
        precision = as_built["precision"]
        hint = "compare both with your own data before you rely on it"
        if precision not in ("fp32", "as-is"):
            hint = (
                "measure it with --data; bound the loss with --max-drop; keep what loses most "
                "in float (keep_float in a recipe), or build with --precision fp32"
            )
        finding = Finding(
            code="far-from-float",
            severity="warning",
            message=f"output {name!r} of the {precision} part is far from the float model's: "
            f"cosine {seen} at the worst of {record['vectors']} check vectors (expected at "
            f"least {_FAR_COSINE})",
            hint=hint,
            subject=name,
        )
        as_built["findings"].append(asdict(finding))


def output_steps(model: ir.Model) -> dict[str, float]:
    """Give the quantization step of each graph output that a DequantizeLinear makes."""
    steps = {}
    for value in model.graph.outputs:
        node = value.producer()
        if node is None or node.op_type != "DequantizeLinear" or value.name is None:
            continue
        scale = node.inputs[1]
        if scale is not None and scale.const_value is not None:
            steps[value.name] = float(scale.const_value.numpy().max())
    return steps
