"""From what the user typed to what a build needs: target, model, recipe, data, plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.cli.options import parse_shapes
from edgesdk.cli.targets import profile_folder
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.backends.base import ModelFacts
    from edgesdk.data.dataset import Dataset
    from edgesdk.model.open import OpenedModel
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.plan.recipe import Recipe
    from edgesdk.plan.values import BuildPlan
    from edgesdk.profiles.values import TargetProfile

__all__ = [
    "BuildInputs",
    "model_facts",
    "open_data",
    "open_source",
    "pick_target",
    "prepare_build",
    "source_record",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildInputs:
    """Everything that a build starts from; ``plan`` was made from the other four."""

    opened: OpenedModel | OpenedTflite
    profile: TargetProfile
    recipe: Recipe
    calib: Dataset | None
    plan: BuildPlan


def pick_target(settings: Settings, name: str | None) -> TargetProfile:
    """Find the target called ``name``, or the default one.

    Raises:
        ProfileError: No such target, or a profile cannot be read.
    """
    from edgesdk.profiles.catalog import default_target, find_target

    folder = profile_folder(settings)
    return find_target(name, extra_dir=folder) if name else default_target(extra_dir=folder)


def open_source(path: Path, shapes: list[str] | None) -> OpenedModel | OpenedTflite:
    """Open an ONNX or a TFLite file; which of them is told by its content.

    Raises:
        InputError: A ``--shape`` has another form, or is given for a TFLite file.
        ModelError: The file is neither, or broken.
    """
    fixed = parse_shapes(shapes)
    if _is_tflite(path):
        from edgesdk.errors import InputError
        from edgesdk.model.tflite import open_tflite

        if fixed:
            raise InputError(
                f"cannot fix shapes of {path}: a TFLite file is deployed as it is",
                hint="leave --shape out, or give the ONNX file it was made from",
            )
        return open_tflite(path)
    from edgesdk.model.open import open_model

    return open_model(path, shapes=fixed)


def _is_tflite(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(8)[4:] == b"TFL3" or path.suffix == ".tflite"
    except OSError:
        return False  # the opener of ONNX files says what is wrong


def model_facts(opened: OpenedModel | OpenedTflite) -> ModelFacts:
    """Give what a plan may know of an opened model."""
    from edgesdk.backends.base import ModelFacts
    from edgesdk.model.nodes import node_facts
    from edgesdk.model.tflite import OpenedTflite

    nodes = opened.ops if isinstance(opened, OpenedTflite) else node_facts(opened.ir)
    return ModelFacts(source=opened.source, nodes=nodes)


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
    shapes: list[str] | None,
    calib: str | None,
    recipe: Path | None,
    precision: str | None,
) -> BuildInputs:
    """Do everything that comes before a build and can be wrong in what the user gave.

    Raises:
        InputError: Model, target, recipe or data cannot be used.
        PlacementError: No backend of the target takes the graph.
    """
    from edgesdk.plan.planner import plan_build
    from edgesdk.plan.recipe import load_recipe

    profile = pick_target(settings, target)
    wanted = load_recipe(recipe, precision=precision)
    opened = open_source(model, shapes)
    dataset = open_data(calib, opened, wanted)
    if opened.source.format == "onnx":
        wanted = wanted.resolve(calibrated=dataset is not None)
    plan = plan_build(model_facts(opened), profile, wanted)
    return BuildInputs(opened=opened, profile=profile, recipe=wanted, calib=dataset, plan=plan)


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
