"""Carry out a plan: simplify, fit to the target's versions, quantize, check, bundle."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.build.checks import Checks, kernel_spread, make_checks, synthetic_samples
from edgesdk.build.convert import convert_part
from edgesdk.build.provenance import cpu_features, tool_versions
from edgesdk.build.reference import HostModel, TfliteOnHost, open_part, open_reference
from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.errors import BuildError
from edgesdk.model.convert import fit_opset
from edgesdk.model.open import OpenedModel
from edgesdk.model.save import save_model
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import OpenedTflite
from edgesdk.model.values import Finding, SourceModel
from edgesdk.plan import BuildPlan, PlannedPart, Recipe
from edgesdk.profiles.values import BackendProfile, TargetProfile
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress
from edgesdk.tensors import TensorInfo
from edgesdk.wire.manifest import MANIFEST_SCHEMA, canonical_bytes, part_file_name
from edgesdk.wire.tensors import DTYPE_BYTES

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from edgesdk.data.dataset import Dataset

__all__ = ["build_bundle"]

#: Outputs whose cosine to the float model's is below this are worth a warning.
_FAR_COSINE = 0.98
#: ... unless no element differs by more than this: a detector that sees nothing gives numbers
#: around 0, whose direction is noise.
_NO_ERROR = 1e-4
_RANGE_SAMPLES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A part on disk, ready to be checked and stored."""

    files: list[Path]
    part: HostModel
    steps: dict[str, float]
    as_built: dict[str, Any]
    opset: int | None
    ir_version: int | None
    #: The same part by the runtime's other kernels, where its steps are not known.
    plain: HostModel | None = None


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
    planned = plan.parts[0]
    _refuse_unsendable(opened.source)
    with (
        BundleWriter(out) as writer,
        tempfile.TemporaryDirectory(prefix="edgesdk-build-") as scratch,
    ):
        job = _Job(
            profile=profile,
            backend=next(entry for entry in profile.backends if entry.id == planned.backend),
            recipe=recipe,
            plan=plan,
            planned=planned,
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
            built = _take_tflite(opened)
            checks = _checks(job, opened.source, built, None)
        else:
            built = _compile(job, opened)
            with open_reference(opened.ir) as reference:
                checks = _checks(job, opened.source, built, reference)
        job.step.done("check")
        _judge(built.as_built, checks)
        manifest = _manifest(job, opened.source, built.as_built["precision"])
        manifest["parts"] = [_part(job, opened.source, built)]
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
    backend: BackendProfile
    recipe: Recipe
    plan: BuildPlan
    planned: PlannedPart
    calib: Dataset | None
    labelled: Dataset | None
    state_dir: Path | None
    on_note: OnNote
    writer: BundleWriter
    folder: Path
    step: _Stepper
    on_progress: OnProgress


def _compile(job: _Job, opened: OpenedModel) -> _Built:
    backend, precision = job.backend, job.planned.precision
    skipped: list[Finding] = []
    model = simplify(opened.ir, on_finding=skipped.append)
    job.step.done("simplify")
    as_built: dict[str, Any] = {
        "precision": precision,
        "left_float": [],
        "findings": [asdict(finding) for finding in skipped],
    }
    if precision != "fp32" or job.recipe.prune is not None:
        model = convert_part(
            model,
            opened.source,
            profile=job.profile,
            backend=backend,
            recipe=job.recipe,
            plan=job.plan,
            calib=job.calib,
            labelled=job.labelled,
            state_dir=job.state_dir,
            as_built=as_built,
            on_note=job.on_note,
            on_progress=job.on_progress,
        )
        job.step.done("quantize")
    # a quantizer writes what it needs, whatever the target reads
    model = fit_opset(model, lowest=1, highest=backend.max_opset, max_ir=backend.max_ir)
    job.step.done("fit opset")
    files = save_model(model, job.folder, "part-0")
    return _Built(
        files=files,
        part=open_part(files[0], job.planned.runtime),
        steps=output_steps(model),
        as_built=as_built,
        opset=model.opset_imports.get(""),
        ir_version=model.ir_version,
    )


def _take_tflite(opened: OpenedTflite) -> _Built:
    return _Built(
        files=[opened.source.path],
        part=TfliteOnHost(opened.source.path),
        plain=TfliteOnHost(opened.source.path, plain=True),
        steps={},
        as_built={"precision": "as-is", "left_float": [], "findings": []},
        opset=None,
        ir_version=None,
    )


def _checks(
    job: _Job, source: SourceModel, built: _Built, reference: HostModel | None
) -> Checks:
    samples: Iterator[dict[str, np.ndarray]]
    if job.calib is not None:
        samples = job.calib.samples()
    else:
        samples = iter(synthetic_samples(source.inputs, job.recipe.checks))
    steps = built.steps
    if built.plain is not None:
        chosen = list(itertools.islice(samples, job.recipe.checks))
        steps = kernel_spread(chosen, built.part, built.plain)
        samples = iter(chosen)
        _tell_spread(built.as_built, steps)
    return make_checks(
        samples,
        job.writer,
        part=built.part,
        reference=reference,
        precision=built.as_built["precision"],
        steps=steps,
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


def _input_ranges(calib: Dataset) -> dict[str, Any]:
    """Say what calibration saw, for comparing later data with; over the first samples."""
    from edgesdk.data.range_check import measure_ranges

    ranges = measure_ranges(itertools.islice(calib.samples(), _RANGE_SAMPLES))
    return {name: seen.to_json() for name, seen in ranges.items()}


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


def _values(values: tuple[TensorInfo, ...]) -> list[dict[str, Any]]:
    return [{"name": v.name, "dtype": v.dtype, "shape": list(v.shape)} for v in values]


def _part(job: _Job, source: SourceModel, built: _Built) -> dict[str, Any]:
    planned, backend = job.planned, job.backend
    options: dict[str, Any] = dict(backend.options)
    if job.recipe.threads is not None:
        options["threads"] = job.recipe.threads
    files = []
    for role, path in zip(("model", "data"), built.files, strict=False):
        name = part_file_name(planned.index, role, planned.format)
        files.append({"role": role, "name": name, **job.writer.add_file(path)})
    return {
        "index": planned.index,
        "backend": planned.backend,
        "runtime": planned.runtime,
        "format": planned.format,
        "precision": built.as_built["precision"],
        "files": files,
        "inputs": _values(source.inputs),
        "outputs": _values(source.outputs),
        "options": options,
        "requires": {
            "requirement": backend.requirement,
            "runtime_version": backend.runtime_version,
            "opset": built.opset,
            "ir_version": built.ir_version,
        },
    }


def _manifest(job: _Job, source: SourceModel, precision: str) -> dict[str, Any]:
    profile, recipe, plan, calib = job.profile, job.recipe, job.plan, job.calib
    return {
        "schema": MANIFEST_SCHEMA,
        "name": source.name,
        "precision": precision,
        "model": {
            "name": source.name,
            "format": source.format,
            "sha256": source.sha256,
            "bytes": source.bytes,
            "opset": source.opset,
            "producer": source.producer,
        },
        "target": {
            "name": profile.name,
            "family": profile.family,
            "sha256": profile.digest,
            "python": profile.agent.python,
        },
        "recipe": recipe.to_json(),
        "calibration": {"sha256": calib.digest, "input_ranges": _input_ranges(calib)}
        if calib is not None
        else None,
        "inputs": _values(source.inputs),
        "outputs": _values(source.outputs),
        "preprocess": recipe.preprocess.to_json() if recipe.preprocess else None,
        "predicted": {
            "nodes_by_backend": plan.nodes_by_backend,
            "memory_bytes": plan.memory_bytes,
            "assumed": list(plan.assumed),
        },
        "tools": tool_versions(job.planned.runtime),
        "cpu_features": cpu_features(),
    }
