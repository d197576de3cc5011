"""Look into the layers of an 8-bit build: its graphs, and bundles that give their results."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesdk.build.chain import build_parts
from edgesdk.build.checks import make_checks
from edgesdk.build.convert import convert_part
from edgesdk.build.pipeline import owner_of
from edgesdk.build.record import manifest_record, part_record
from edgesdk.bundle import Bundle, BundleWriter
from edgesdk.errors import BuildError, InputError
from edgesdk.model.nodes import tensor_info
from edgesdk.model.open import OpenedModel
from edgesdk.model.shapes import at_batch_one, with_shapes
from edgesdk.model.simplify import simplify
from edgesdk.model.tflite import OpenedTflite
from edgesdk.plan import BuildPlan, Recipe
from edgesdk.profiles.values import TargetProfile
from edgesdk.progress import OnNote, OnProgress, ignore_note, ignore_progress
from edgesdk.quantize.branches import LayerGraphs, Tapped, layer_graphs
from edgesdk.quantize.prepare import is_quantized
from edgesdk.quantize.trial import Settled

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.data.dataset import Dataset

__all__ = ["LayerBuild", "build_layers", "bundle_layers"]

#: Precisions that have a Q/DQ graph to look into.
_WITH_PAIRS = ("int8", "int16x8")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBuild:
    """An 8-bit build that can be looked into.

    Attributes:
        graphs: What shows its layers, all in 8 bits that can be.
        as_built: What the quantizer decided, as in the manifest of a bundle; its ``budget``
            says what has to stay in float and what that costs.
        opened: The float model.
        profile: The target.
        recipe: What the user wants.
        plan: Made of these three.
    """

    graphs: LayerGraphs
    as_built: dict[str, Any]
    opened: OpenedModel
    profile: TargetProfile
    recipe: Recipe
    plan: BuildPlan


def build_layers(
    opened: OpenedModel | OpenedTflite,
    profile: TargetProfile,
    recipe: Recipe,
    plan: BuildPlan,
    *,
    calib: Dataset | None,
    labelled: Dataset | None = None,
    state_dir: Path | None = None,
    on_note: OnNote = ignore_note,
    on_progress: OnProgress = ignore_progress,
) -> LayerBuild:
    """Quantize as a build does, and keep what it takes to look into the layers.

    The limit of the recipe is tried and need not be kept. Arguments are those of
    `edgesdk.build.pipeline.build_bundle`.

    Raises:
        InputError: The model has no float layers to compare with, the precision no pairs, or
            there is no calibration data.
        QuantizeError: Nothing can be quantized.
    """
    if isinstance(opened, OpenedTflite) or is_quantized(opened.ir):
        raise InputError(
            f"cannot debug {opened.source.name}: it arrives quantized, so there is no float "
            "layer to compare with",
            hint="give the float model it was made from",
        )
    if calib is not None and plan.precision not in _WITH_PAIRS:
        raise InputError(
            f"cannot debug a build in {plan.precision}: layers are compared in "
            f"{' and '.join(_WITH_PAIRS)}",
            hint="leave --precision out",
            precision=plan.precision,
        )
    if calib is None:
        raise InputError(
            f"cannot debug {opened.source.name}: there is no calibration data",
            hint="give 100 typical inputs or so with --calib",
        )
    settled: list[Settled] = []
    as_built: dict[str, Any] = {"findings": []}
    convert_part(
        simplify(at_batch_one(opened.ir) if plan.fixed_inputs else opened.ir),
        opened.source,
        profile=profile,
        backend=owner_of(profile, recipe, plan),
        recipe=recipe,
        plan=plan,
        calib=calib,
        labelled=labelled,
        state_dir=state_dir,
        as_built=as_built,
        on_note=on_note,
        on_settled=settled.append,
        on_progress=on_progress,
    )
    found = settled[0]
    return LayerBuild(
        graphs=layer_graphs(found.trial, found.before),
        as_built=as_built,
        opened=opened,
        profile=profile,
        recipe=recipe,
        plan=plan,
    )


def bundle_layers(
    made: LayerBuild, tapped: Tapped, sample: dict[str, np.ndarray], out: Path
) -> Bundle:
    """Build a bundle that gives the results of layers on a device.

    Its one check vector expects no answers: what a device gives is what one wants to see. It is
    for looking only, so that a release with less outputs goes on serving.

    Raises:
        BuildError: The target's backends do not take the graph, or do not show these tensors.
    """
    model = with_shapes(tapped.model)
    source = replace(made.opened.source, name=f"{made.opened.source.name[:100]}-layers")
    inputs = {value.name: tensor_info(value) for value in model.graph.inputs}
    with BundleWriter(out) as writer, tempfile.TemporaryDirectory() as scratch:
        try:
            parts = build_parts(
                model,
                source,
                made.profile,
                made.recipe,
                made.plan,
                precision=made.plan.precision,
                folder=Path(scratch),
                on_note=ignore_note,
            )
        except BuildError as exc:
            names = ", ".join(dict.fromkeys(part.backend for part in made.plan.parts))
            raise BuildError(
                f"cannot show layers on {names}: {exc}",
                hint="leave --device out, or look at another backend with --backend",
            ) from exc
        missing = _missing(model.graph.outputs, [part.outputs for part in parts.parts])
        if missing:
            names = ", ".join(dict.fromkeys(p.backend.profile.id for p in parts.parts))
            raise BuildError(
                f"cannot show layers on {names}: it gives no {missing[0]!r}",
                hint="leave --device out, or look at another backend with --backend",
            )
        manifest = manifest_record(
            source,
            made.profile,
            made.recipe,
            made.plan,
            calib=None,
            parts=parts,
            precision=made.plan.precision,
            inputs=tuple(inputs.values()),
            outputs=tuple(tensor_info(value) for value in model.graph.outputs),
        )
        manifest["parts"] = [
            part_record(part, index, target=made.profile, recipe=made.recipe, writer=writer)
            for index, part in enumerate(parts.parts)
        ]
        manifest["checks"] = make_checks(
            [{name: array for name, array in sample.items() if name in inputs}],
            writer,
            part=None,
            reference=None,
            precision=made.plan.precision,
            steps={},
            limit=1,
        ).records
        manifest["attachments"] = []
        return writer.finish(json.loads(json.dumps(manifest)))


def _missing(wanted: Sequence[Any], given: Sequence[Sequence[Any]]) -> list[str]:
    known = {value.name for values in given for value in values}
    return [value.name or "" for value in wanted if value.name not in known]
