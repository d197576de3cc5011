"""From the model the user named to one that is open: ONNX, TFLite, or imported first."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import parse_shapes
from edgesdk.cli.output import printable
from edgesdk.cli.progress import busy, progress_bars
from edgesdk.errors import InputError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from edgesdk.importers.importing import Imported
    from edgesdk.model.open import OpenedModel
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.plan.recipe import Recipe
    from edgesdk.profiles.values import TargetProfile

__all__ = [
    "DynamicOption",
    "OpsetOption",
    "SourceChoices",
    "TrustOption",
    "for_target",
    "import_source",
    "open_source",
]

OpsetOption = Annotated[
    int | None,
    typer.Option(
        "--opset", min=7, max=99, metavar="N", help="ONNX operators' version to import to."
    ),
]
DynamicOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dynamic",
        metavar="NAME",
        help="Import with a free batch: the leading extent of this input; repeatable.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Let code inside the model run while it is imported (pickles, Lambda layers). "
        "Only for files whose maker you trust.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChoices:
    """What the options of a command say of the model; as typed."""

    shapes: list[str] | None = None
    opset: int | None = None
    dynamic: list[str] | None = None
    trust: bool = False

    def given(self) -> list[str]:
        """Name the options that were given."""
        pairs = (
            ("--shape", self.shapes),
            ("--opset", self.opset),
            ("--dynamic", self.dynamic),
            ("--trust", self.trust),
        )
        return [name for name, value in pairs if value]


def open_source(
    settings: Settings, path: Path, choices: SourceChoices | None = None
) -> OpenedModel | OpenedTflite:
    """Open a model; which reader or importer it is for is told by its content.

    Raises:
        InputError: An option has another form, or is not for this kind of model.
        ModelError: It is none that can be opened or imported, or broken.
        BuildError: Its toolchain cannot be made, or what was imported gives other numbers.
    """
    choices = choices or SourceChoices()
    code = _content_code(path)
    if code not in ("onnx", "tflite"):
        from edgesdk.importers.importing import open_imported

        imported = import_source(settings, path, choices)
        with busy(f"read {path.name}"):
            return open_imported(imported)
    for option in choices.given():
        if option != "--shape":
            raise InputError(
                f"cannot use {option} for {path}: it is no model that an importer takes",
                hint=f"leave {option} out",
                option=option,
            )
    fixed = _fixed_shapes(choices, path)
    with busy(f"read {path.name}"):
        if code == "tflite":
            from edgesdk.model.tflite import open_tflite

            if fixed:
                raise InputError(
                    f"cannot fix shapes of {path}: a TFLite file is deployed as it is",
                    hint="leave --shape out, or give the ONNX file it was made from",
                )
            return open_tflite(path)
        from edgesdk.model.open import open_model

        return open_model(path, shapes=fixed)


def for_target(
    settings: Settings,
    opened: OpenedModel | OpenedTflite,
    profile: TargetProfile,
    recipe: Recipe,
) -> OpenedModel | OpenedTflite:
    """Give a model in a form that the target's runtimes read.

    A TFLite file stays as it is where one of them runs it, and is imported to ONNX elsewhere.

    Raises:
        RecipeError: The recipe names a backend that the target does not have.
        PlacementError: No runtime of the target reads TFLite, and the file has no form in ONNX.
    """
    from edgesdk.errors import EdgeError, PlacementError
    from edgesdk.importers.importing import open_imported
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.plan.planner import model_facts, plan_build

    if not isinstance(opened, OpenedTflite):
        return opened
    try:
        plan_build(model_facts(opened, profile, recipe), profile, recipe)
    except PlacementError as exc:
        try:
            imported = import_source(settings, opened.source.path, SourceChoices())
        except EdgeError as why:
            raise PlacementError(
                f"{exc}; nor can it be converted to ONNX: {why}",
                hint=why.hint or exc.hint,
                **exc.facts,
            ) from why
        sys.stderr.write(
            f"note: no runtime of {profile.name} takes {printable(opened.source.path.name)} as "
            "it is: it was converted to ONNX\n"
        )
        return open_imported(imported)
    return opened


def import_source(settings: Settings, path: Path, choices: SourceChoices) -> Imported:
    """Make an ONNX file of a framework's model, or find the one made before.

    Raises:
        InputError: An option has another form.
        ModelError: No importer takes it, or it says why it cannot.
        BuildError: Its toolchain cannot be made, or what was imported gives other numbers.
    """
    from edgesdk.importers.importing import ImportChoices, import_model
    from edgesdk.importers.toolchains import Toolchains

    wanted = ImportChoices(
        shapes=parse_shapes(choices.shapes) or {},
        opset=choices.opset,
        dynamic=tuple(choices.dynamic or ()),
        trust=choices.trust,
    )
    notes: list[str] = []
    with progress_bars() as on_progress:
        imported = import_model(
            path,
            toolchains=Toolchains(settings.toolchains_dir),
            imports=settings.imports_dir,
            choices=wanted,
            on_progress=on_progress,
            on_note=notes.append,
        )
    for note in notes:
        sys.stderr.write(f"note: {printable(note)}\n")
    return imported


def _content_code(path: Path) -> str:
    """Say what kind of model it is: ``onnx`` and ``tflite`` are read, the rest is imported."""
    from edgesdk.importers.detect import detect_format
    from edgesdk.model.content import identify

    code = identify(path).code
    if code != "tflite" and detect_format(path) is not None:
        return code
    # of what is neither, the reader that its name asks for says what is wrong
    return "tflite" if code == "tflite" or path.suffix == ".tflite" else "onnx"


def _fixed_shapes(choices: SourceChoices, path: Path) -> Mapping[str, tuple[int, ...]] | None:
    """Read ``--shape`` for a model that is opened as it is: names and whole extents.

    Raises:
        InputError: A name is missing or an extent is free.
    """
    shapes = parse_shapes(choices.shapes)
    if not shapes:
        return None
    fixed: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        whole = tuple(extent for extent in shape if extent is not None)
        if not name or len(whole) != len(shape):
            raise InputError(
                f"cannot fix a shape of {path}: --shape names no input or has a free extent",
                hint="write --shape 'NAME=1,3,224,224'",
                path=str(path),
            )
        fixed[name] = whole
    return fixed
