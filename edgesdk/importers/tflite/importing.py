"""The verb for TFLite: a file in, an ONNX file that answers as LiteRT does out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError, ProofMismatch
from edgesdk.importers.keeping import (
    Imported,
    exporters_digest,
    keep,
    read_kept,
    scratch_folder,
)
from edgesdk.importers.tflite.litert import litert_version
from edgesdk.importers.tflite.prove import Proof, prove_tflite
from edgesdk.importers.tflite.shapes import settle_shapes
from edgesdk.importers.tflite.walk import Converted, convert_tflite
from edgesdk.model.save import save_model
from edgesdk.model.shapes import with_shapes
from edgesdk.model.tflite import OpenedTflite, open_tflite
from edgesdk.model.values import Origin
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["import_tflite", "origin_of"]

_STEPS = 3
_UNPROVEN = (
    "nothing was compared: ai-edge-litert is not installed "
    "(python3 -m pip install 'edgesdk[litert]')"
)


def import_tflite(
    path: Path,
    *,
    imports: Path,
    shapes: Mapping[str, tuple[int | None, ...]] | None = None,
    on_progress: OnProgress = ignore_progress,
    on_note: OnNote = ignore_note,
) -> Imported:
    """Turn a TFLite file into an ONNX file and prove that it answers as LiteRT does.

    What the file quantizes becomes Q/DQ pairs on the file's own grids. Where LiteRT is not
    installed nothing is compared, and the origin says so.

    Args:
        path: The file.
        imports: Folder that keeps what was imported.
        shapes: Shape by input name, for extents that the file leaves open; ``""`` stands for
            the only input.
        on_progress: Told of each step.
        on_note: Told what the user should know.

    Raises:
        ModelError: The file is broken, or has operators without a form in ONNX, each named.
        CompileError: LiteRT does not load the file, or onnxruntime not the graph.
        ProofMismatch: The answers differ; the first operator that does is named.
        OutputError: The folder cannot be written.
    """
    path = Path(path)

    def step(done: int, text: str) -> None:
        on_progress(Progress(step=f"import {path.name}: {text}", done=done, total=_STEPS))

    step(0, "convert")
    opened = open_tflite(path)
    asked = sorted((name, list(shape)) for name, shape in (shapes or {}).items())
    source = opened.source
    parts = [source.name, source.sha256, "tflite", litert_version(), exporters_digest(), asked]
    place = imports / hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()[:32]
    made = read_kept(place)
    if made is None:
        was_open = _open_inputs(opened)
        opened = settle_shapes(opened, shapes or {})
        converted = convert_tflite(opened)
        if was_open:
            given = ", ".join(map(str, opened.source.inputs))
            note = f"extents that the file leaves open ({was_open}) are fixed: {given}"
            converted = replace(converted, notes=(note, *converted.notes))
        model = _checked(converted.model, path)
        step(1, "compare")
        origin = origin_of(opened, converted, prove_tflite(opened.graph, converted))
        step(2, "write")
        with scratch_folder(imports) as scratch:
            written = save_model(model, scratch, source.name)
            made = keep(scratch, written[0], name=source.name, origin=origin, place=place)
    step(_STEPS, "write")
    for note in made.origin.notes:
        on_note(note)
    return made


def _open_inputs(opened: OpenedTflite) -> str:
    """Name the inputs with extents that may vary."""
    return ", ".join(
        each.name for each in opened.source.inputs if any(e is None for e in each.shape)
    )


def _checked(model: ir.Model, path: Path) -> ir.Model:
    """Give the graph with all its shapes.

    Raises:
        ModelError: Its operators do not fit each other.
    """
    try:
        return with_shapes(model)
    except ModelError as exc:
        raise ModelError(
            f"cannot turn {path} into ONNX: what its operators compute does not fit the shapes "
            f"it states: {exc}",
            hint="does the file run in LiteRT? if it does, please report it",
            path=str(path),
        ) from exc


def origin_of(opened: OpenedTflite, converted: Converted, proof: Proof) -> Origin:
    """Describe where a graph came from and how near it is to that.

    Raises:
        ProofMismatch: It is too far.
    """
    if not proof.holds:
        odd = next((each for each in proof.outputs if not each.holds), proof.outputs[0])
        where = f"; the first operator that differs is {proof.culprit}" if proof.culprit else ""
        raise ProofMismatch(
            f"cannot import {opened.source.path}: {odd} (expected {odd.wanted:.1%}){where}",
            hint="deploy the file as it is to a target with a TFLite runtime, and please "
            "report it",
            output=odd.name,
            within=odd.within,
            culprit=proof.culprit,
        )
    notes = [*converted.notes]
    if proof.version is None:
        notes.append(_UNPROVEN)
    else:
        notes += [str(each) for each in proof.outputs if each.unit != "share"]
    if proof.worst is not None:
        notes.append(
            f"{proof.layers} results of operators, each given LiteRT's own inputs: of the "
            f"worst, {proof.worst_op}, {proof.worst.within:.3%} of the numbers are within the "
            f"bound, at most {proof.worst.largest:.3g} {proof.worst.unit} apart"
        )
    if proof.hybrid:
        notes.append(
            f"LiteRT rounds the inputs of {len(converted.hybrid)} operators to 8 bits as it "
            "runs, this graph does not: it was compared with the same weights in float; "
            "against LiteRT's rounding, " + "; ".join(map(str, proof.hybrid))
        )
    return Origin(
        format="tflite",
        sha256=opened.source.sha256,
        versions={} if proof.version is None else {"ai-edge-litert": proof.version},
        examples=proof.examples,
        max_abs_error=max((each.apart for each in proof.outputs), default=None),
        max_rel_error=max((each.share for each in proof.outputs), default=None),
        notes=tuple(notes),
    )
