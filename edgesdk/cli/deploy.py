"""``edgesdk deploy``: from a model, or a bundle, to a measured release on a device.

Everything that can be wrong in what the user gave is looked at before the device is reached,
and everything that takes long on this computer is done before that too: the device is held only
for sending, checking and measuring.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.build import bundle_record
from edgesdk.cli.deployjob import Job, Wanted, prepare_job
from edgesdk.cli.devicelink import find_device, open_session, short_id
from edgesdk.cli.measure import (
    DurationOption,
    RunsOption,
    ThreadsOption,
    WarmupOption,
    bench_spec,
    measure_release,
)
from edgesdk.cli.modelinput import note_findings
from edgesdk.cli.options import (
    CalibOption,
    DataOption,
    FormatOption,
    InventoryOption,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.report import show_report
from edgesdk.cli.runfolder import write_receipt
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
    from edgesdk.bundle.store import Bundle
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def deploy(  # long, because every line of it is an option
    *,
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="An ONNX or .tflite file, or a bundle's folder."),
    ],
    target: TargetOption = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="A name from the inventory or a URL. Default: the setting 'device' (local:).",
        ),
    ] = None,
    calib: CalibOption = None,
    data: DataOption = None,
    recipe: RecipeOption = None,
    precision: PrecisionOption = None,
    shape: ShapeOption = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Deploy and measure the float model first; it stays as 'previous'.",
        ),
    ] = False,
    force_target: Annotated[
        bool,
        typer.Option("--force-target", help="Go on if the device is not the target."),
    ] = False,
    no_bench: Annotated[
        bool, typer.Option("--no-bench", help="Deploy and check, but do not measure.")
    ] = False,
    runs: RunsOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = None,
    threads: ThreadsOption = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where bundle and report go. Default: a new folder in the runs folder.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    targets_dir: TargetsDirOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Build a model, put it on a device, check and measure it.

    The device keeps the release it had until the new one has passed its check vectors there;
    'edgesdk rollback' goes back.
    """
    out = Output("deploy", fmt)
    settings = resolve_settings({"inventory": inventory, "targets_dir": targets_dir})
    found = find_device(settings, device)
    spec = bench_spec(runs=runs, duration=duration, warmup=warmup, threads=threads)
    job = prepare_job(
        settings,
        Wanted(
            model=model,
            target=target,
            device_target=found.target,
            calib=calib,
            data=data,
            recipe=recipe,
            precision=precision,
            shapes=shape,
            baseline=baseline,
            bench=not no_bench,
            out_dir=out_dir,
        ),
    )
    note_findings(out, job.findings)
    with open_session(settings, found) as session:
        deployment, report = _carry_out(
            session, job, found, spec=spec, bench=not no_bench, force_target=force_target
        )
    _keep(job, deployment, report)
    out.document(
        {
            "bundle": bundle_record(job.bundle),
            "deployment": deployment.to_json(),
            "report": report,
            "folder": job.folder,
            "data_findings": job.findings,
        }
    )
    _show(out, job, found, deployment, report)


def _carry_out(
    session: Session,
    job: Job,
    device: Device,
    *,
    spec: BenchSpec,
    bench: bool,
    force_target: bool,
) -> tuple[Deployment, BenchmarkReport | None]:
    """Deploy, float first where there is a baseline, and measure what was asked for."""
    floats = None
    if job.floats is not None:
        floats = _send(session, job.floats, job, device, force_target=force_target)
    deployment = _send(session, job.bundle, job, device, force_target=force_target)
    if not bench and job.data is None:
        return deployment, None
    report = measure_release(
        session,
        job,
        device,
        spec=spec,
        bench=bench,
        deployment=deployment,
        floats=floats,
    )
    return deployment, report


def _send(
    session: Session, bundle: Bundle, job: Job, device: Device, *, force_target: bool
) -> Deployment:
    from edgesdk.deploy.deploy import deploy_bundle

    with progress_bars() as on_progress:
        return deploy_bundle(
            bundle,
            session,
            device=device,
            profile=job.profile,
            force_target=force_target,
            on_progress=on_progress,
        )


def _keep(job: Job, deployment: Deployment, report: BenchmarkReport | None) -> None:
    if job.folder is None:
        return
    write_receipt(job.folder, deployment.to_json())
    if report is not None:
        from edgesdk.report.files import write_report

        write_report(report, job.folder)


def _show(
    out: Output,
    job: Job,
    device: Device,
    deployment: Deployment,
    report: BenchmarkReport | None,
) -> None:
    sent = f"{deployment.blobs_sent} blobs, {size_text(deployment.bytes_sent)} sent"
    if deployment.bytes_skipped:
        sent += f", {size_text(deployment.bytes_skipped)} were there already"
    checked = "the device had passed it before" if deployment.self_check.reused else "passed"
    out.line(
        f"{job.bundle.name} {job.bundle.precision} is current on {device.name} "
        f"(bundle {short_id(job.bundle.id)}, {deployment.seconds:.1f} s)"
    )
    out.pairs(
        [
            ("  sent", sent),
            ("  self-check", f"{checked}, {len(job.bundle.manifest['checks'])} check vectors"),
            ("  previous", short_id(deployment.previous) if deployment.previous else "nothing"),
            ("  not the target", "; ".join(deployment.target_mismatch) or None),
        ]
    )
    if report is not None:
        out.line()
        _compare(out, report)
        show_report(out, report)
        if job.folder is not None:
            out.line(f"report: {job.folder / 'report.html'}")
    elif job.folder is not None:
        out.line(f"kept in {job.folder}")


def _compare(out: Output, report: BenchmarkReport) -> None:
    """Show float and quantized side by side, where both were measured."""
    floats = report.baseline
    if floats is None:
        return
    from edgesdk.report.summary import ms_text, score_text

    before, after = floats.accuracy.labelled, report.accuracy.labelled
    metric = next((each.metric for each in (after, before) if each is not None), "accuracy")
    out.table(
        ("", floats.bundle.precision, report.bundle.precision),
        [
            (
                metric,
                "not measured" if before is None else score_text(before),
                "not measured" if after is None else score_text(after),
            ),
            ("p50 latency", ms_text(floats.latency.p50_ms), ms_text(report.latency.p50_ms)),
            ("size", size_text(floats.bundle.bytes), size_text(report.bundle.bytes)),
        ],
        right=(floats.bundle.precision, report.bundle.precision),
    )
    out.line()
