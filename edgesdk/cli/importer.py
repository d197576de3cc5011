"""``edgesdk import``: from a framework's model to a proven ONNX file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.options import FormatOption, ShapeOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.source import (
    DynamicOption,
    OpsetOption,
    SourceChoices,
    TrustOption,
    import_source,
)
from edgesdk.errors import OutputError
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.importers.importing import Imported
    from edgesdk.model.values import Origin

__all__ = ["app", "origin_rows"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("import")
def import_command(
    *,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A .pt2 or TorchScript file, .keras, .h5, a SavedModel's folder, .skops, "
            ".joblib, an XGBoost or LightGBM model, .tflite; told by content.",
        ),
    ],
    out_file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the ONNX file goes.")
    ],
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Turn another framework's model into ONNX.

    The file is proven to give the same numbers. The framework runs in an environment of its
    own, made once ('edgesdk toolchains'). deploy, build, plan and inspect take these models
    too, and do the same first. A TFLite file needs no framework: it is held against LiteRT, and
    deployed as it is where a runtime of the target reads it.
    """
    from edgesdk.importers.importing import open_imported

    out = Output("import", fmt)
    settings = resolve_settings()
    choices = SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust)
    imported = import_source(settings, model, choices)
    opened = open_imported(imported)
    files = _copy(imported, out_file)
    source = opened.source
    out.document(
        {
            "model": model,
            "files": files,
            "origin": imported.origin.to_json(),
            "known": imported.known,
            "opset": source.opset,
            "inputs": source.inputs,
            "outputs": source.outputs,
            "bytes": source.bytes,
        }
    )
    out.pairs(
        [
            ("imported", model),
            ("file", f"{out_file}, {size_text(source.bytes)}, opset {source.opset}"),
            *origin_rows(imported.origin),
            ("inputs", "\n".join(str(each) for each in source.inputs)),
            ("outputs", "\n".join(str(each) for each in source.outputs)),
        ]
    )


def origin_rows(origin: Origin) -> list[tuple[str, object]]:
    """Say where a model came from and how well it agrees, as rows for people."""
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    proof = "nothing could be compared"
    if origin.max_abs_error is not None and origin.max_rel_error is not None:
        proof = (
            f"{origin.examples} examples, largest difference {origin.max_abs_error:.2g}, "
            f"{origin.max_rel_error:.2g} of the largest value"
        )
    return [
        ("from", f"{origin.format} ({versions})"),
        ("toolchain", origin.toolchain or None),
        ("proof", proof),
        ("trusted", "its code was let run" if origin.trusted else None),
    ]


def _copy(imported: Imported, out_file: Path) -> list[Path]:
    """Copy the model, and its data where it has any, to where the user wants it.

    Data get a name of the file's own: two models in one folder must not share it.

    Raises:
        OutputError: It cannot be written.
    """
    beside = [each for each in imported.path.parent.iterdir() if each.suffix != ".json"]
    try:
        out_file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".importing-", dir=out_file.parent) as folder:
            part = Path(folder) / out_file.name
            if len(beside) > 1:
                _save_apart(imported.path, part)
            else:
                shutil.copyfile(imported.path, part)
            files = sorted(Path(folder).iterdir(), reverse=True)  # data first, the model last
            return [each.replace(out_file.parent / each.name) for each in files]
    except OSError as exc:
        raise OutputError(
            f"cannot write {out_file}: {exc.strerror or exc}",
            hint="is there room, and may your user write there?",
            path=str(out_file),
        ) from exc


def _save_apart(model: Path, path: Path) -> None:
    import onnx

    onnx.save_model(
        onnx.load(str(model)),
        str(path),
        save_as_external_data=True,
        location=f"{path.name}.data",
    )
