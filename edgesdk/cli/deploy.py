"""``edgesdk deploy``: from a model, or a bundle, to a measured release on a device.

Everything that can be wrong in what the user gave is looked at before the device is reached,
and everything that takes long on this computer is done before that too: the device is held only
for sending, checking and measuring.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
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
from edgesdk.cli.modelinput import note_as_built, note_findings
from edgesdk.cli.options import (
    CalibOption,
    DataOption,
    FormatOption,
    InventoryOption,
    MaxDropOption,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output, size_text
from edgesdk.cli.progress import busy, progress_bars
from edgesdk.cli.report import show_outcome
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How bundles are sent: to another target too, and how long their check may take."""

    force_target: bool
    check_timeout_s: float


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
    max_drop: MaxDropOption = None,
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
            max_drop=max_drop,
            shapes=shape,
            baseline=baseline,
            bench=not no_bench,
            out_dir=out_dir,
        ),
    )
    note_findings(out, job.findings)
    note_as_built(out, job.bundle)
    for note in job.notes:
        out.note(note)
    with open_session(settings, found) as session:
        deployment, report = _carry_out(
            session,
            job,
            found,
            spec=spec,
            bench=not no_bench,
            sending=Sending(
                force_target=force_target, check_timeout_s=settings.request_timeout_s
            ),
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
    sending: Sending,
) -> tuple[Deployment, BenchmarkReport | None]:
    """Deploy, float first where there is a baseline, and measure what was asked for."""
    floats = None
    if job.floats is not None:
        floats = _send(session, job.floats, job, device, sending)
    deployment = _send(session, job.bundle, job, device, sending)
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
    session: Session, bundle: Bundle, job: Job, device: Device, sending: Sending
) -> Deployment:
    from edgesdk.deploy.deploy import deploy_bundle

    with progress_bars() as on_progress:
        return deploy_bundle(
            bundle,
            session,
            device=device,
            profile=job.profile,
            force_target=sending.force_target,
            check_timeout_s=sending.check_timeout_s,
            on_progress=on_progress,
        )


def _keep(job: Job, deployment: Deployment, report: BenchmarkReport | None) -> None:
    if job.folder is None:
        return
    write_receipt(job.folder, deployment.to_json())
    if report is not None:
        from edgesdk.report.files import write_report

        with busy("draw the report"):
            write_report(report, job.folder)


def _show(
    out: Output,
    job: Job,
    device: Device,
    deployment: Deployment,
    report: BenchmarkReport | None,
) -> None:
    out.line(
        f"{job.bundle.name} {job.bundle.precision} is current on {device.name} "
        f"(bundle {short_id(job.bundle.id)}, {deployment.seconds:.1f} s)\n"
    )
    if report is not None:
        page = None if job.folder is None else job.folder / "report.html"
        show_outcome(out, report, [*_receipt_rows(device, deployment), ("report", page)])
        return
    checks = f"{len(job.bundle.manifest['checks'])} check vectors passed"
    if deployment.self_check.reused:
        checks += " when it was deployed before"
    rows = [("checked", checks), *_receipt_rows(device, deployment), ("folder", job.folder)]
    out.pairs(rows)


def _receipt_rows(device: Device, deployment: Deployment) -> list[tuple[str, object]]:
    sent = f"{deployment.blobs_sent} blobs, {size_text(deployment.bytes_sent)}"
    if deployment.bytes_skipped:
        sent += f"; {size_text(deployment.bytes_skipped)} were there already"
    previous = "nothing"
    if deployment.previous:
        undo = f"edgesdk rollback {shlex.quote(device.name)}"
        previous = f"{short_id(deployment.previous)}; `{undo}` goes back to it"
    return [
        ("mismatch", "; ".join(deployment.target_mismatch) or None),
        ("note", "; ".join(deployment.notes) or None),
        ("sent", sent),
        ("previous", previous),
    ]
