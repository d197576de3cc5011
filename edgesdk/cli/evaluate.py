"""``edgesdk evaluate``: labelled data through a release on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesdk.cli.deployjob import bundle_inputs, preprocess_of
from edgesdk.cli.devicelink import (
    device_settings,
    find_device,
    find_release,
    open_session,
    short_id,
)
from edgesdk.cli.modelinput import lint_data, note_findings
from edgesdk.cli.options import DeviceArgument, FormatOption, InventoryOption, ShapeOption
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.run import self_described, what_it_takes
from edgesdk.cli.runfolder import held_bundle, prepare_run_folder, run_folder
from edgesdk.cli.source import (
    DynamicOption,
    OpsetOption,
    SourceChoices,
    TrustOption,
    open_source,
)
from edgesdk.errors import DataError, InputError
from edgesdk.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgesdk.bench.accuracy import Run
    from edgesdk.bench.evaluation import Difference, Evaluation, MetricResult
    from edgesdk.data.dataset import Dataset
    from edgesdk.deploy.releases import Release
    from edgesdk.devices.session import Session
    from edgesdk.model.values import SourceModel

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def evaluate(
    *,
    device: DeviceArgument = None,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Labelled data: .npz with labels, folder of .npz or images, or "
            "module:function.",
        ),
    ],
    release: Annotated[
        str,
        typer.Option(
            "--release", help="current, previous, candidate, or the id of a bundle there."
        ),
    ] = "current",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME,...",
            help="top1, top5, pixel-top1, auc, map, mae, rmse, or module:function of your own "
            "that takes (outputs, labels). Default: what goes with the labels.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, metavar="N", help="Take the first N samples only."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="FILE",
            help="The model the release was built from, imported first where that was: it "
            "runs here as the float reference.",
        ),
    ] = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    detections: Annotated[
        str | None,
        typer.Option(
            "--detections",
            metavar="boxes=NAME,...",
            help="For map: which outputs are the boxes, scores, classes and, maybe, count.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="The release's bundle here. Default: looked for in the runs folder.",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where evaluation.json goes. Default: a new folder in the runs folder.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Say how good a release is on labelled data, on the device.

    Every metric comes with its 95 % interval and, with --model, beside the unquantized model.
    """
    from edgesdk.bench.evaluation import evaluate_release, write_evaluation

    out = Output("evaluate", fmt)
    metrics = _metrics(metric)
    roles = _roles(detections)
    choices = SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust)
    if model is None and choices.given():
        option = choices.given()[0]
        raise InputError(
            f"cannot use {option} without --model: there is no float reference to open",
            hint=f"leave {option} out, or name the model with --model",
            option=option,
        )
    settings = device_settings(inventory)
    found = find_device(settings, device)
    with open_session(settings, found) as session, contextlib.ExitStack() as opened:
        chosen = find_release(session, release)
        held = held_bundle(settings, chosen.bundle, bundle, doing="evaluate", needed=False)
        manifest = None if held is None else held.manifest
        dataset = _dataset(session, chosen, manifest, data, limit)
        reference = None
        if model is not None:
            reference = opened.enter_context(_reference(settings, model, choices, manifest))
        folder = out_dir or run_folder(settings, model=chosen.name, target=chosen.target)
        prepare_run_folder(folder)
        if manifest is not None:
            note_findings(out, lint_data(dataset, preprocess_of(manifest), manifest=manifest))
        on_progress = opened.enter_context(progress_bars())
        evaluation, stopped = evaluate_release(
            session,
            chosen.bundle,
            dataset,
            metrics=metrics,
            roles=roles,
            outputs=_outputs(manifest),
            reference=reference,
            timeout_s=settings.request_timeout_s,
            on_progress=on_progress,
        )
    path = write_evaluation(evaluation, folder)
    if stopped is None:
        out.document({"evaluation": evaluation, "folder": folder})
    _show(out, chosen, evaluation)
    out.line(f"\nevaluation  {path}")
    if model is not None and manifest is None:
        out.note(
            "note: the release's bundle is not here, so nobody knows whether it was built from "
            f"{model}: name its folder with --bundle"
        )
    if model is None:
        out.note("note: no float reference beside it: name the model with --model")
    if stopped is not None:
        # what was measured is written down; the command failed all the same
        raise type(stopped)(
            f"{stopped} (after {evaluation.samples} of {evaluation.wanted_samples or '?'} "
            "samples)",
            hint=f"what they gave is in {path}",
            **{**stopped.facts, "evaluation": str(path), "samples": evaluation.samples},
        )


def _metrics(texts: list[str] | None) -> tuple[str, ...]:
    """Read ``--metric``, which may be repeated or list several."""
    from edgesdk.data.judging import read_metric

    names = [each for text in texts or () for each in text.split(",") if each.strip()]
    if texts and not names:
        raise InputError(
            "cannot use --metric '': no metric is named",
            hint="name one such as top1 or auc, or leave --metric out",
            option="--metric",
        )
    return tuple(dict.fromkeys(read_metric(name) for name in names))


def _roles(text: str | None) -> dict[str, str]:
    """Read ``--detections boxes=NAME,scores=NAME,classes=NAME``."""
    roles: dict[str, str] = {}
    for piece in text.split(",") if text else ():
        role, equals, name = piece.partition("=")
        if not equals or not role.strip() or not name.strip():
            raise InputError(
                f"cannot use --detections {piece!r}: not a role and an output",
                hint="write --detections boxes=NAME,scores=NAME,classes=NAME",
                option="--detections",
            )
        roles[role.strip()] = name.strip()
    return roles


def _outputs(manifest: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    return [] if manifest is None else list(manifest["outputs"])


def _dataset(
    session: Session,
    release: Release,
    manifest: Mapping[str, Any] | None,
    data: str,
    limit: int | None,
) -> Dataset:
    from edgesdk.data.dataset import open_dataset

    if manifest is not None:
        inputs, preprocess = bundle_inputs(manifest["inputs"]), preprocess_of(manifest)
    else:
        known, preprocess = what_it_takes(session, release.bundle, None)
        inputs = self_described(data) if known is None else known
    dataset = open_dataset(data, inputs, preprocess=preprocess, limit=limit)
    if dataset.labels is None:
        raise DataError(
            f"cannot evaluate on {data}: it has no labels",
            hint="add an array called labels, or a folder per class",
            data=data,
        )
    return dataset


@contextlib.contextmanager
def _reference(
    settings: Settings, path: Path, choices: SourceChoices, manifest: Mapping[str, Any] | None
) -> Iterator[Run]:
    """Open the unquantized model on this computer.

    Raises:
        InputError: It is not the one the release was built from, or cannot be run here.
        BuildError: It cannot be imported.
        CompileError: onnxruntime cannot load it.
    """
    from edgesdk.build.reference import open_reference
    from edgesdk.model.tflite import OpenedTflite

    opened = open_source(settings, path, choices)
    if isinstance(opened, OpenedTflite):
        raise InputError(
            f"cannot use {path} as the float reference: it is a TFLite file",
            hint="give the ONNX file it was made from, or leave --model out",
            path=str(path),
        )
    if manifest is not None:
        _refuse_another(path, opened.source, manifest["model"])
    with open_reference(opened.ir) as host:
        yield lambda sample: dict(host.run(sample))


def _refuse_another(path: Path, given: SourceModel, built: Mapping[str, Any]) -> None:
    """Refuse a model that the release was not built from.

    An import may give other bytes each time, for one opset or another: then the sources are
    compared.
    """
    wanted, seen = built.get("sha256"), given.sha256
    origin = built.get("origin")
    source = origin.get("sha256") if isinstance(origin, Mapping) else None
    if source and given.origin is not None and given.origin.sha256:
        wanted, seen = source, given.origin.sha256
    if wanted is not None and wanted != seen:
        raise InputError(
            f"cannot use {path} as the float reference: the release was built from another "
            f"model ({short_id(str(wanted))}, this is {short_id(seen)})",
            hint="give the very file that was deployed",
            path=str(path),
        )


def _show(out: Output, release: Release, evaluation: Evaluation) -> None:
    all_of = "" if evaluation.complete else ", stopped early"
    out.line(
        f"{release.name} {release.precision} on {evaluation.device} "
        f"(bundle {short_id(release.bundle)}, {evaluation.samples} samples{all_of})\n"
    )
    floats = {each.metric: each for each in evaluation.reference}
    apart = {each.metric: each for each in evaluation.differences}
    columns = ["metric", "device", "95 % interval"]
    if floats:
        columns += ["float here", "difference", "95 % interval, paired"]
    rows = []
    for each in evaluation.metrics:
        row = [each.metric, _number(each, each.value), _ends(each, each)]
        if floats:
            other, difference = floats.get(each.metric), apart.get(each.metric)
            row += ["" if other is None else _number(other, other.value)]
            row += ["", ""] if difference is None else _difference(each, difference)
        rows.append(row)
    out.table(columns, rows)
    out.line("")
    for each in evaluation.metrics:
        note = f"; {each.note}" if each.note else ""
        out.line(f"{each.metric}: {each.rows} rows, interval by {each.method}{note}")
    sent = f"{size_text(evaluation.sent_bytes)} sent"
    if evaluation.kept_samples:
        sent += f", {evaluation.kept_samples} samples were there"
    out.line(
        f"{evaluation.samples_per_s:.4g} samples a second ({evaluation.seconds:.3g} s, "
        f"{evaluation.runtime_ms:.3g} ms each in the runtime; {sent})"
    )


def _number(result: MetricResult, value: float, *, signed: bool = False) -> str:
    """Show a number as the metric's own are shown: rates in per cent."""
    sign = "+" if signed else ""
    # what a function of the user's gives may lie in any range
    is_rate = result.better == "larger" and ":" not in result.metric
    return f"{value:{sign}.2%}" if is_rate else f"{value:{sign}.4g}"


def _ends(
    result: MetricResult, ends: MetricResult | Difference, *, signed: bool = False
) -> str:
    if ends.lower is None or ends.upper is None:
        return "none"
    low = _number(result, ends.lower, signed=signed)
    return f"{low} to {_number(result, ends.upper, signed=signed)}"


def _difference(result: MetricResult, difference: Difference) -> list[str]:
    return [
        _number(result, difference.value, signed=True),
        _ends(result, difference, signed=True),
    ]
