"""From what the user typed to what a build needs: target, model, recipe, data, plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.cli.progress import busy
from edgesdk.cli.source import SourceChoices, for_target, open_source
from edgesdk.cli.targets import profile_folder
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.bundle.store import Bundle
    from edgesdk.cli.output import Output
    from edgesdk.data.dataset import Dataset
    from edgesdk.data.preprocess import Preprocess
    from edgesdk.data.values import DataFinding, InputRange
    from edgesdk.model.open import OpenedModel
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.plan.recipe import Recipe
    from edgesdk.plan.values import BuildPlan
    from edgesdk.profiles.values import TargetProfile

__all__ = [
    "BuildInputs",
    "lint_data",
    "note_as_built",
    "note_findings",
    "open_data",
    "pick_target",
    "prepare_build",
    "refuse_avoided",
    "resolved",
    "source_record",
    "state_folder",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """Everything that a build starts from; ``plan`` was made from the first four.

    ``findings`` say what is allowed in the calibration data and probably not meant;
    ``labelled`` is what a budget is measured on if not on the labels of ``calib``.
    """

    opened: OpenedModel | OpenedTflite
    profile: TargetProfile
    recipe: Recipe
    calib: Dataset | None
    plan: BuildPlan
    findings: tuple[DataFinding, ...] = ()
    labelled: Dataset | None = None


def pick_target(settings: Settings, name: str | None) -> TargetProfile:
    """Find the target called ``name``, or the default one.

    Raises:
        ProfileError: No such target, or a profile cannot be read.
    """
    from edgesdk.profiles.catalog import default_target, find_target

    folder = profile_folder(settings)
    return find_target(name, extra_dir=folder) if name else default_target(extra_dir=folder)


def open_data(
    spec: str | None, opened: OpenedModel | OpenedTflite, recipe: Recipe
) -> Dataset | None:
    """Open what ``--calib`` or ``--data`` names, fitted to the model's inputs.

    Raises:
        DataError: It cannot be read or does not fit.
    """
    if spec is None:
        return None
    from edgesdk.data.dataset import open_dataset

    return open_dataset(spec, opened.source.inputs, preprocess=recipe.preprocess)


def prepare_build(
    settings: Settings,
    model: Path,
    *,
    target: str | None,
    source: SourceChoices,
    calib: str | None,
    recipe: Path | None,
    precision: str | None,
    max_drop: str | None = None,
    data: str | None = None,
    backend: str | None = None,
) -> BuildInputs:
    """Do everything that comes before a build and can be wrong in what the user gave.

    Raises:
        InputError: Model, target, recipe or data cannot be used.
        PlacementError: No backend of the target takes the graph.
    """
    from edgesdk.plan.planner import model_facts, plan_build
    from edgesdk.plan.recipe import load_recipe

    profile = pick_target(settings, target)
    prefer = None if backend is None else (backend,)
    wanted = load_recipe(recipe, precision=precision, max_drop=max_drop, prefer=prefer)
    refuse_avoided(wanted, backend)
    opened = for_target(settings, open_source(settings, model, source), profile, wanted)
    with busy(f"plan {model.name}"):
        dataset = open_data(calib, opened, wanted)
        labelled = open_data(data, opened, wanted)
        if opened.source.format == "onnx":
            wanted = resolved(wanted, opened, calibrated=dataset is not None)
        plan = plan_build(model_facts(opened, profile, wanted), profile, wanted)
        findings = lint_data(dataset, wanted.preprocess)
    return BuildInputs(
        opened=opened,
        profile=profile,
        recipe=wanted,
        calib=dataset,
        plan=plan,
        findings=findings,
        labelled=labelled,
    )


def resolved(recipe: Recipe, opened: OpenedModel | OpenedTflite, *, calibrated: bool) -> Recipe:
    """Decide the precision: a quantized TFLite file that was converted stays quantized.

    Raises:
        RecipeError: What is asked for needs calibration data and there is none.
    """
    from edgesdk.model.tflite import OpenedTflite

    origin = opened.source.origin
    converted = origin is not None and origin.format == "tflite"
    if recipe.precision is not None or not converted or isinstance(opened, OpenedTflite):
        return recipe.resolve(calibrated=calibrated)
    if any(node.op_type == "QuantizeLinear" for node in opened.ir.graph):
        return replace(recipe, precision="int8")
    return recipe.resolve(calibrated=calibrated)


def refuse_avoided(recipe: Recipe, backend: str | None) -> None:
    """Refuse a backend that is asked for on the command line and that the recipe avoids.

    Raises:
        InputError: It is both.
    """
    from edgesdk.errors import InputError

    if backend is not None and backend in recipe.avoid:
        raise InputError(
            f"cannot build for {backend} first: the recipe avoids it",
            hint="leave --backend out, or take it out of the recipe's avoid",
            backend=backend,
        )


def lint_data(
    dataset: Dataset | None,
    preprocess: Preprocess | None,
    *,
    manifest: Mapping[str, object] | None = None,
) -> tuple[DataFinding, ...]:
    """Say what seems wrong with data, from their headers and the first samples.

    With the ``manifest`` of a bundle, the data are compared with what calibration saw.
    """
    if dataset is None:
        return ()
    from edgesdk.data.range_check import lint_range

    reference = None if manifest is None else _calibrated_ranges(manifest)
    found = lint_range(dataset, preprocess=preprocess, reference=reference)
    return (*dataset.findings, *found)


def _calibrated_ranges(manifest: Mapping[str, object]) -> dict[str, InputRange]:
    from edgesdk.data.values import InputRange

    calibration = manifest.get("calibration")
    records = calibration.get("input_ranges") if isinstance(calibration, Mapping) else None
    pairs = records.items() if isinstance(records, Mapping) else ()
    read = {str(name): InputRange.from_json(record) for name, record in pairs}
    return {name: seen for name, seen in read.items() if seen is not None}


def note_findings(out: Output, findings: tuple[DataFinding, ...]) -> None:
    """Show findings about data on stderr; a build goes on with them."""
    for finding in findings:
        out.note(f"{finding.severity}: {finding.message}")
        if finding.hint and finding.severity != "info":
            out.note(f"  hint: {finding.hint}")


def state_folder(settings: Settings) -> Path:
    """Give where a long build keeps what a stopped one can go on from."""
    return settings.runs_dir / "unfinished"


def note_as_built(out: Output, bundle: Bundle) -> None:
    """Show on stderr what a build found out about its own result."""
    record = bundle.manifest.get("as_built")
    findings = record.get("findings") if isinstance(record, Mapping) else None
    for each in findings if isinstance(findings, list) else []:
        if isinstance(each, Mapping):
            out.note(f"{each.get('severity')}: {each.get('message')}")
            if each.get("hint"):
                out.note(f"  hint: {each['hint']}")


def source_record(opened: OpenedModel | OpenedTflite) -> Mapping[str, object]:
    """Give what is known of a model file as plain data."""
    source = opened.source
    return {
        "path": source.path,
        "name": source.name,
        "format": source.format,
        "sha256": source.sha256,
        "bytes": source.bytes,
        "opset": source.opset,
        "opsets": source.opsets,
        "ir_version": source.ir_version,
        "producer": source.producer,
        "inputs": source.inputs,
        "outputs": source.outputs,
        "op_counts": source.op_counts,
        "initializer_bytes": source.initializer_bytes,
        "external_data": source.external_data,
    }
