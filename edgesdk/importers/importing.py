"""The verb: a source of any format in, a proven ONNX file with its origin out.

Every import is kept under what decides it (the source's bytes, what was asked, the toolchain,
our exporters), so that the second build of the same source starts at once. What is kept was
proven before it was put there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgesdk.errors import ModelError, ProofMismatch, ToolchainError
from edgesdk.importers.child import ask_exporter
from edgesdk.importers.detect import SourceFormat, detect_format
from edgesdk.importers.exchange import job_record, read_exported
from edgesdk.importers.job import CannotExport, Exported, Job
from edgesdk.importers.keeping import (
    Imported,
    digest_source,
    exporters_digest,
    keep,
    read_kept,
    scratch_folder,
)
from edgesdk.importers.prove import MAX_REL_ERROR, first_difference, prove_export
from edgesdk.importers.tflite.importing import import_tflite
from edgesdk.importers.toolchain_spec import find_toolchain
from edgesdk.importers.toolchains import Toolchain, Toolchains
from edgesdk.model.content import identify
from edgesdk.model.values import Origin, model_name
from edgesdk.progress import OnNote, OnProgress, Progress, ignore_note, ignore_progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgesdk.model.open import OpenedModel

__all__ = ["ImportChoices", "Imported", "import_model", "open_imported", "prove_origin"]

_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportChoices:
    """What a source leaves free and the user may say.

    Attributes:
        shapes: Shape by input name; ``""`` stands for the only input. None is a free extent.
        opset: Version of ONNX's operators to write.
        dynamic: Names of inputs whose leading extent, the batch, stays free.
        trust: Whether code in the source may run.
    """

    shapes: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)
    opset: int | None = None
    dynamic: tuple[str, ...] = ()
    trust: bool = False


def import_model(
    path: Path,
    *,
    toolchains: Toolchains,
    imports: Path,
    choices: ImportChoices | None = None,
    on_progress: OnProgress = ignore_progress,
    on_note: OnNote = ignore_note,
) -> Imported:
    """Turn a framework's model into an ONNX file and prove that it answers alike.

    Args:
        path: A TFLite file, or what is of one of `edgesdk.importers.detect.FORMATS`.
        toolchains: Where the exporters' environments are, or are made.
        imports: Folder that keeps what was imported.
        choices: What the source leaves free.
        on_progress: Told of each step.
        on_note: Told that an environment is made, and what the exporter has to say.

    Raises:
        ModelError: The source is no such format, damaged, unsafe, or cannot be exported.
        ToolchainError: Its environment cannot be made, or the exporter died.
        ProofMismatch: What was exported gives other numbers; the first layer is named.
        OutputError: The folder cannot be written.
    """
    path, choices = Path(path), choices or ImportChoices()
    kind = detect_format(path)
    if kind is None:
        if identify(path).code == "tflite":
            _refuse_choices(path, choices)
            return import_tflite(
                path,
                imports=imports,
                shapes=choices.shapes,
                on_progress=on_progress,
                on_note=on_note,
            )
        raise ModelError(
            f"cannot import {path}: no importer takes it",
            hint="an ONNX file needs none; others are told by content: "
            "edgesdk import --help lists them",
            path=str(path),
        )
    _refuse_early(_job(path, kind, choices, out=imports), kind.exporter)
    source_sha256 = digest_source(path)
    spec = find_toolchain(kind.toolchain)
    toolchain = toolchains.make(spec, on_progress=on_progress, on_note=on_note)
    name = model_name(path)
    place = imports / _key(name, source_sha256, kind, choices=choices, toolchain=toolchain)
    made = read_kept(place)
    if made is None:
        made = _make(
            path,
            kind,
            toolchain,
            place,
            sha256=source_sha256,
            choices=choices,
            on_progress=on_progress,
        )
    for note in made.origin.notes:
        on_note(note)
    return made


def _job(path: Path, kind: SourceFormat, choices: ImportChoices, *, out: Path) -> Job:
    return Job(
        source=path.resolve(),
        kind=kind.code,
        name=model_name(path),
        out=out,
        shapes=choices.shapes,
        opset=choices.opset,
        dynamic=choices.dynamic,
        trust=choices.trust,
    )


def _refuse_early(job: Job, exporter: str) -> None:
    """Ask an exporter what it refuses without its framework.

    Raises:
        ModelError: It refuses the source.
    """
    refuse = getattr(importlib.import_module(exporter), "refuse_early", None)
    if refuse is None:
        return
    try:
        refuse(job)
    except CannotExport as exc:
        facts = {**exc.facts, "path": str(job.source)}
        raise ModelError(str(exc), hint=exc.hint, **facts) from exc


def _make(
    path: Path,
    kind: SourceFormat,
    toolchain: Toolchain,
    place: Path,
    *,
    sha256: str,
    choices: ImportChoices,
    on_progress: OnProgress,
) -> Imported:
    """Export, prove and keep a source whose bytes had that hash."""
    imports = place.parent

    def step(done: int, text: str) -> None:
        on_progress(Progress(step=f"import {path.name}: {text}", done=done, total=_STEPS))

    with scratch_folder(imports) as scratch:
        job = _job(path, kind, choices, out=scratch)
        step(0, "start its framework")
        exported = _export(job, kind, toolchain, lambda text: step(1, text))
        if digest_source(path) != sha256:
            raise ModelError(
                f"cannot import {path}: it changed while it was imported",
                hint="try again once whatever writes it is done",
                path=str(path),
            )
        step(2, "compare")
        origin = prove_origin(
            exported,
            Origin(
                format=kind.code,
                sha256=sha256,
                versions=dict(sorted(exported.versions.items())),
                toolchain=f"{toolchain.name} {toolchain.digest}",
                trusted=choices.trust,
                notes=exported.notes,
            ),
            name=str(path),
            again=lambda: _traced(job, kind, toolchain, imports),
        )
        made = keep(scratch, exported.model, name=job.name, origin=origin, place=place)
        step(_STEPS, "compare")
    return made


def _refuse_choices(path: Path, choices: ImportChoices) -> None:
    """Refuse what a file without a framework leaves no choice about.

    Raises:
        ModelError: Something of it was chosen.
    """
    given = {
        "--opset": choices.opset,
        "--dynamic": choices.dynamic,
        "--trust": choices.trust,
    }
    for option, value in given.items():
        if value:
            raise ModelError(
                f"cannot use {option} for {path}: a TFLite file is converted as it is",
                hint=f"leave {option} out",
                option=option,
            )


def open_imported(
    imported: Imported, *, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> OpenedModel:
    """Open what was imported; the model knows its origin.

    Raises:
        ModelError: As `edgesdk.model.open.open_model`.
    """
    from edgesdk.model.open import OpenedModel, open_model

    opened = open_model(imported.path, shapes=shapes)
    source = dataclasses.replace(opened.source, origin=imported.origin)
    return OpenedModel(source=source, ir=opened.ir)


def prove_origin(
    exported: Exported, origin: Origin, *, name: str, again: Callable[[], Exported]
) -> Origin:
    """Compare what was exported with the framework and give the origin with what was found.

    Args:
        exported: The file with its examples.
        origin: What is known of the source.
        name: What to call it in errors.
        again: Exports once more with a trace; called where the numbers differ.

    Raises:
        ProofMismatch: The numbers differ; the first layer that does is named.
    """
    seen = prove_export(exported, name=name)
    if seen.holds:
        return dataclasses.replace(
            origin,
            examples=len(exported.examples),
            max_abs_error=seen.max_abs,
            max_rel_error=seen.max_rel,
        )
    found = None
    with contextlib.suppress(Exception):  # whatever the search meets, the mismatch matters
        found = first_difference(again())
    differs = seen.why or f"{seen.max_rel:.2g} of the largest value"
    where = f"the first layer that differs is {found[0]!r}" if found else "no layer was found"
    raise ProofMismatch(
        f"cannot import {name}: output {seen.worst!r} of the exported graph differs from the "
        f"framework's by {differs} (allowed {MAX_REL_ERROR:g}); {where}",
        hint="write that layer in other operators, try another --opset, and please report it",
        output=seen.worst,
        max_rel_error=seen.max_rel,
        layer=found[0] if found else "",
    )


def _export(
    job: Job, kind: SourceFormat, toolchain: Toolchain, on_step: Callable[[str], None]
) -> Exported:
    """Have the exporter do the job in its environment.

    Raises:
        ModelError: It says that it cannot, and why.
        ToolchainError: It died, or its answer makes no sense.
    """
    work, source = job.out / "work", str(job.source)
    try:
        work.mkdir()
        answer = ask_exporter(
            toolchain.interpreter, kind.exporter, job_record(job), work, on_step=on_step
        )
    except OSError as exc:
        raise ToolchainError(
            f"cannot import {source}: cannot start the toolchain {toolchain.name} in "
            f"{toolchain.folder}: {exc.strerror or exc}",
            hint=f"is there room on the disk? `edgesdk toolchains make {toolchain.name} "
            "--again` makes it anew",
            path=source,
        ) from exc
    record = answer.record
    if "error" in record:
        said = record["error"]
        facts = {**said["facts"], "path": source}
        raise ModelError(said["problem"], hint=said["hint"], **facts)
    if answer.died or "bug" in record:
        seen = answer.died or record["bug"]
        raise ToolchainError(
            f"cannot import {source}: the exporter failed on {kind.label}: {seen[:600]}",
            hint="is the file whole? if so, please report it with `--format json`'s facts",
            path=source,
            where=record.get("where", ""),
            log=answer.log,
        )
    try:
        return read_exported(record, job.out)
    except ValueError as exc:
        raise ToolchainError(
            f"cannot import {source}: the exporter's answer makes no sense: {exc}",
            hint="please report it",
            path=source,
            log=answer.log,
        ) from exc


def _traced(job: Job, kind: SourceFormat, toolchain: Toolchain, imports: Path) -> Exported:
    with scratch_folder(imports) as scratch:
        traced = _export(
            dataclasses.replace(job, out=scratch, trace=True), kind, toolchain, lambda _: None
        )
        # the scratch folder goes away: the graph that is compared has to outlive it
        kept = job.out / "traced"
        kept.mkdir()
        for each in scratch.iterdir():
            if each.is_file():
                shutil.move(each, kept / each.name)
        return dataclasses.replace(traced, model=kept / traced.model.name)


def _key(
    name: str,
    source_sha256: str,
    kind: SourceFormat,
    *,
    choices: ImportChoices,
    toolchain: Toolchain,
) -> str:
    parts = [
        name,
        source_sha256,
        kind.code,
        sorted((name, list(shape)) for name, shape in choices.shapes.items()),
        choices.opset,
        sorted(choices.dynamic),
        choices.trust,
        toolchain.digest,
        exporters_digest(),
    ]
    return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()[:32]
