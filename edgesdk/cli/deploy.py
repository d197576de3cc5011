"""``edgesdk deploy``: from a model, or a bundle, to a measured release on a device.

Everything that can be wrong in what the user gave is looked at before the device is reached,
and everything that takes long on this computer is done before that too: the device is held only
for sending, checking and measuring.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.build import bundle_record
from edgesdk.cli.contest import hold_contest
from edgesdk.cli.deltas import find_bases
from edgesdk.cli.deployjob import Job, Wanted, prepare_job
from edgesdk.cli.deploysend import (
    CpuTimeGate,
    Sending,
    hold_verdict,
    read_standing,
    require_daemon,
    send_bundle,
    send_floats,
    send_winner,
    settle,
)
from edgesdk.cli.deployshow import keep_deployment, refused_with_report, show_deployment
from edgesdk.cli.devicelink import find_device, note_wait, open_session
from edgesdk.cli.measure import (
    BatchOption,
    CpusOption,
    DurationOption,
    MaxCpuTimeOption,
    RateOption,
    RunsOption,
    ScenarioOption,
    SeedOption,
    StreamsOption,
    ThreadsOption,
    UntilOption,
    WarmupOption,
    bench_spec,
    measure_release,
    read_max_cpu_time,
)
from edgesdk.cli.modelinput import note_as_built, note_findings
from edgesdk.cli.options import (
    AllowDowngradeOption,
    BackendOption,
    CalibOption,
    DataOption,
    FormatOption,
    InventoryOption,
    MaxDropOption,
    PrecisionOption,
    RecipeOption,
    ShapeOption,
    SignBundleOption,
    TargetOption,
    TargetsDirOption,
)
from edgesdk.cli.output import Format, Output
from edgesdk.cli.quantities import read_seconds
from edgesdk.cli.recording import LabelOption, NoHistoryOption, check_labels, record_run
from edgesdk.cli.runfolder import write_receipt
from edgesdk.cli.signing import allow_older, sign_job
from edgesdk.cli.source import DynamicOption, OpsetOption, SourceChoices, TrustOption
from edgesdk.errors import FindingsError, RolledBackError
from edgesdk.settings import resolve_settings

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
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
    max_drop: MaxDropOption = None,
    max_cpu_time: MaxCpuTimeOption = None,
    shape: ShapeOption = None,
    opset: OpsetOption = None,
    dynamic: DynamicOption = None,
    trust: TrustOption = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Deploy and measure the float model first; it stays as 'previous'.",
        ),
    ] = False,
    accept_slower: Annotated[
        bool,
        typer.Option(
            "--accept-slower",
            help="With --baseline: deploy it although the float model is faster there, or no "
            "slower and more accurate.",
        ),
    ] = False,
    backend: BackendOption = None,
    no_contest: Annotated[
        bool,
        typer.Option(
            "--no-contest",
            help="Take the target's first backend where it would let several compete.",
        ),
    ] = False,
    force_target: Annotated[
        bool,
        typer.Option("--force-target", help="Go on if the device is not the target."),
    ] = False,
    sign: SignBundleOption = None,
    allow_downgrade: AllowDowngradeOption = False,
    no_delta: Annotated[
        bool,
        typer.Option("--no-delta", help="Send files whole, not what changed in them."),
    ] = False,
    no_bench: Annotated[
        bool, typer.Option("--no-bench", help="Deploy and check, but do not measure.")
    ] = False,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            metavar="20ms",
            help="Keep a release out whose inference takes longer there. Default: twice what "
            "the current release of that model and precision takes.",
        ),
    ] = None,
    probation: Annotated[
        str | None,
        typer.Option(
            "--probation",
            metavar="10min",
            help="How long it must serve before it is there to stay; 0 for none.",
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Wait until the probation is over; exit with 6 if the device went back.",
        ),
    ] = False,
    wait: Annotated[
        str | None,
        typer.Option(
            "--wait",
            metavar="10min",
            help="Wait so long where another host holds the device. Default: not at all.",
        ),
    ] = None,
    runs: RunsOption = None,
    duration: DurationOption = None,
    warmup: WarmupOption = None,
    until: UntilOption = None,
    scenario: ScenarioOption = None,
    streams: StreamsOption = None,
    batch: BatchOption = None,
    rate: RateOption = None,
    seed: SeedOption = None,
    threads: ThreadsOption = None,
    cpus: CpusOption = None,
    label: LabelOption = None,
    no_history: NoHistoryOption = False,
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

    The device keeps the release it had until the new one has passed its check vectors there,
    and --max-cpu-time where that is given; 'edgesdk rollback' goes back. Then the release is on
    probation: where it fails, the device returns to the one before by itself. Where the target
    lets backends compete, a bundle for each is measured in turns, and the fastest is kept.
    With --precision auto precisions compete as well, within the loss that is allowed.
    """
    from edgesdk.deploy.hold import hold_device

    out = Output("deploy", fmt)
    settings = resolve_settings({"inventory": inventory, "targets_dir": targets_dir})
    found = find_device(settings, device)
    spec = bench_spec(
        runs=runs,
        duration=duration,
        warmup=warmup,
        threads=threads,
        until=until,
        scenario=scenario,
        streams=streams,
        batch=batch,
        rate=rate,
        seed=seed,
        cpus=cpus,
    )
    limit = read_max_cpu_time(max_cpu_time)
    check_labels(label)
    standing = read_standing(max_latency, probation)
    patience_s = 0.0
    if wait is not None:
        patience_s = read_seconds(wait, option="--wait", at_most_s=86_400.0)
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
            source=SourceChoices(shapes=shape, opset=opset, dynamic=dynamic, trust=trust),
            baseline=baseline,
            backend=backend,
            contest=not no_contest,
            bench=not no_bench,
            accept_slower=accept_slower,
            max_cpu_time=limit,
            out_dir=out_dir,
        ),
    )
    note_findings(out, job.findings)
    if not job.competitors:
        note_as_built(out, job.bundle)
    for note in job.notes:
        out.note(note)
    sign_job(job, key=sign, allow_downgrade=allow_downgrade)
    sending = Sending(
        force_target=force_target,
        check_timeout_s=settings.request_timeout_s,
        standing=standing,
        bases=None if no_delta else find_bases(settings),
    )
    with open_session(settings, found, wait_s=patience_s) as session:
        if watch:
            require_daemon(session)
        with hold_device(session, doing="deploy", wait_s=patience_s, on_wait=note_wait):
            allow_older(session, job, key=sign if allow_downgrade else None)
            job, deployment, report = _carry_out(
                session,
                job,
                found,
                spec=spec,
                bench=not no_bench,
                sending=sending,
                limit=limit,
                out=out,
            )
            deployment, gone = settle(session, deployment, watch=False)
        if watch and gone is None:
            if job.folder is not None:  # should the link break while we watch
                write_receipt(job.folder, deployment.to_json())
            deployment, gone = settle(session, deployment, watch=True)
    if report is not None and report.deployment is not None:
        stands = replace(report.deployment, outcome=deployment.outcome)
        report = replace(report, deployment=stands)
    if job.competitors:  # what concerns those that did not win is no longer of interest
        note_as_built(out, job.bundle)
    keep_deployment(job, deployment, report)
    recorded = None
    if report is not None:
        recorded = record_run(
            settings, report, folder=job.bundle.folder, labels=label, off=no_history
        )
    out.document(
        {
            "bundle": bundle_record(job.bundle),
            "deployment": deployment.to_json(),
            "report": report,
            "folder": job.folder,
            "run": recorded,
            "data_findings": job.findings,
        }
    )
    show_deployment(out, job, found, deployment, report)
    if gone is not None:
        raise gone


def _carry_out(
    session: Session,
    job: Job,
    device: Device,
    *,
    spec: BenchSpec,
    bench: bool,
    sending: Sending,
    limit: float | None,
    out: Output,
) -> tuple[Job, Deployment, BenchmarkReport | None]:
    """Deploy, float first where there is a baseline, and measure what was asked for.

    A contest comes before all that, as nothing becomes active in it; its winner is deployed.
    """
    chosen = None
    if job.competitors:
        job, chosen = hold_contest(
            session,
            job,
            spec=spec,
            force_target=sending.force_target,
            check_timeout_s=sending.check_timeout_s,
            bases=sending.bases,
        )
    verdict = hold_verdict(session, job, spec, sending) if bench else None
    if verdict is not None and verdict.complete:
        chosen = chosen or verdict.result
    gate = None if limit is None else CpuTimeGate(session, job, spec, limit)
    is_measured = bench or job.data is not None
    floats, deployment, refused = None, None, None
    try:
        if verdict is not None and verdict.refusal is not None:
            chosen = verdict.result  # what decided in the end is what the report shows
            raise verdict.refusal
        floats = send_floats(session, job, device, sending, verdict)
        proven = verdict.quantized if verdict else chosen.winner if chosen else None
        if proven is None:
            deployment = send_bundle(session, job.bundle, job, device, sending, gate)
        else:
            deployment = send_winner(session, proven, device, sending, gate)
    except FindingsError as exc:
        if not is_measured:
            raise
        refused = exc  # the report is made all the same: it shows what to change
    if not is_measured:
        assert deployment is not None
        return job, deployment, None
    report = None
    try:
        report = measure_release(
            session,
            job,
            device,
            spec=spec,
            bench=bench,
            deployment=deployment,
            floats=floats,
            chosen=chosen,
            offload=None if gate is None else gate.offload,
        )
    except RolledBackError:
        if deployment is None:
            raise  # the release that failed is the one that was there before
    if refused is not None:
        assert report is not None
        raise refused_with_report(refused, out, job, report)
    assert deployment is not None
    return job, deployment, report
