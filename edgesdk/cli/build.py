"""``edgesdk build``: from a model to a bundle folder, without a device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.contest import choice_notes
from edgesdk.cli.modelinput import note_as_built, note_findings, prepare_build, state_folder
from edgesdk.cli.options import (
    BackendOption,
    CalibOption,
    DataOption,
    FormatOption,
    MaxDropOption,
    ModelArgument,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.placement import idle_notes
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.source import DynamicOption, OpsetOption, SourceChoices, TrustOption
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.bundle.store import Bundle

__all__ = ["app", "bundle_record", "show_bundle"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def build(
    *,
    model: ModelArgument,
    out_dir: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the bundle goes.")
    ],
    target: TargetOption = None,
    calib: CalibOption = None,
    recipe: RecipeOption = None,
    precision: PrecisionOption = None,
    max_drop: MaxDropOption = None,
    data: DataOption = None,
    backend: BackendOption = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Build a bundle for a target, without a device.

    The same model, data, recipe and packages give the same bundle id.
    """
    from edgesdk.build.pipeline import build_bundle

    out = Output("build", fmt)
    settings = resolve_settings({"targets_dir": targets_dir})
    inputs = prepare_build(
        settings,
        model,
        target=target,
        source=SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust),
        calib=calib,
        recipe=recipe,
        precision=precision,
        max_drop=max_drop,
        data=data,
        backend=backend,
    )
    note_findings(out, inputs.findings)
    why = "--backend builds another than"
    said = choice_notes(inputs.profile, inputs.recipe, inputs.plan, why=why)
    # who asked for a backend by name has heard of that one already
    for note in said or idle_notes(inputs.profile, inputs.plan):
        out.note(note)
    notes: list[str] = []
    with progress_bars() as on_progress:
        bundle = build_bundle(
            inputs.opened,
            inputs.profile,
            inputs.recipe,
            inputs.plan,
            calib=inputs.calib,
            labelled=inputs.labelled,
            out=out_dir,
            state_dir=state_folder(settings),
            on_note=notes.append,
            on_progress=on_progress,
        )
    out.document(
        {
            "bundle": bundle_record(bundle),
            "plan": inputs.plan.to_json(),
            "data_findings": inputs.findings,
        }
    )
    show_bundle(out, bundle)
    note_as_built(out, bundle)
    for note in notes:
        out.note(note)
    if inputs.profile.agent.reach:
        out.line(f"\ndeploy it: edgesdk deploy {bundle.folder}")
    else:
        out.line(
            f"\ntake it into the firmware: edgesdk bundle export {bundle.folder} -o firmware"
        )


def bundle_record(bundle: Bundle) -> dict[str, object]:
    """Give what identifies and describes a bundle as plain data."""
    manifest = bundle.manifest
    return {
        "id": bundle.id,
        "name": bundle.name,
        "precision": bundle.precision,
        "target": manifest["target"],
        "folder": bundle.folder,
        "bytes": bundle.part_bytes,
        "inputs": manifest["inputs"],
        "outputs": manifest["outputs"],
        "parts": manifest["parts"],
        "checks": len(manifest["checks"]),
        "as_built": manifest.get("as_built"),
    }


def show_bundle(out: Output, bundle: Bundle) -> None:
    """Show a bundle to people."""
    from edgesdk.bundle.as_built import as_built_lines
    from edgesdk.bundle.inside import inside_lines, moved_lines

    manifest = bundle.manifest
    out.pairs(
        (
            ("bundle", bundle.id),
            ("folder", bundle.folder),
            ("model", f"{bundle.name}, {bundle.precision}, {size_text(bundle.part_bytes)}"),
            ("target", manifest["target"].get("name")),
            ("inputs", "\n".join(_value(each) for each in manifest["inputs"])),
            ("outputs", "\n".join(_value(each) for each in manifest["outputs"])),
            ("checks", f"{len(manifest['checks'])} check vectors"),
            ("as built", "\n".join(as_built_lines(manifest.get("as_built"))) or None),
            ("moved", "\n".join(moved_lines(manifest.get("as_built"))) or None),
            ("inside", "\n".join(inside_lines(manifest.get("as_built"))) or None),
        )
    )
    out.line()
    out.table(
        ("part", "backend", "runtime", "precision", "opset", "size"),
        [
            (
                index,
                part["backend"],
                part["runtime"],
                part.get("precision", ""),
                _opset(part),
                size_text(sum(file["bytes"] for file in part["files"])),
            )
            for index, part in enumerate(manifest["parts"])
        ],
        right=("part", "size"),
    )


def _value(value: Mapping[str, object]) -> str:
    shape = value["shape"]
    extents = shape if isinstance(shape, list) else []
    shown = ", ".join("?" if each is None else str(each) for each in extents)
    return f"{value['name']}: {value['dtype']}[{shown}]"


def _opset(part: Mapping[str, object]) -> object:
    requires = part.get("requires")
    return (requires.get("opset") if isinstance(requires, dict) else None) or ""
