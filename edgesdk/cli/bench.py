"""``edgesdk bench``: measure a release that is on a device already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgesdk.cli.compare import (
    CompareOption,
    CompareSecondsOption,
    CompareSeedOption,
    check_compare,
    compare_documents,
    compare_releases,
    find_others,
)
from edgesdk.cli.deployjob import Job, bundle_dataset, preprocess_of, profile_of
from edgesdk.cli.devicelink import find_device, find_release, open_session, short_id
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
    name_report,
    read_max_cpu_time,
)
from edgesdk.cli.modelinput import lint_data, note_findings
from edgesdk.cli.options import DataOption, DeviceArgument, FormatOption, InventoryOption
from edgesdk.cli.output import Format, Output
from edgesdk.cli.progress import busy
from edgesdk.cli.recording import LabelOption, NoHistoryOption, check_labels, record_run
from edgesdk.cli.replay import LikeOption, MarginOption, refuse_with_like, replay
from edgesdk.cli.report import show_outcome
from edgesdk.cli.runfolder import held_bundle, prepare_run_folder, run_folder
from edgesdk.errors import EdgeError, FindingsError, InputError
from edgesdk.settings import Settings, resolve_settings

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchmarkReport
    from edgesdk.bundle.store import Bundle
    from edgesdk.deploy.releases import Release

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def bench(
    *,
    device: DeviceArgument = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            metavar="DIR",
            help="The release's bundle here. Default: looked for in the runs folder.",
        ),
    ] = None,
    release: Annotated[
        str | None,
        typer.Option(
            "--release",
            help="current, previous, candidate, or the id of a bundle there. Default: current.",
        ),
    ] = None,
    data: DataOption = None,
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
    max_cpu_time: MaxCpuTimeOption = None,
    compare: CompareOption = None,
    compare_seconds: CompareSecondsOption = None,
    compare_seed: CompareSeedOption = None,
    like: LikeOption = None,
    margin: MarginOption = None,
    label: LabelOption = None,
    no_history: NoHistoryOption = False,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Where the report goes. Default: a new folder in the runs folder.",
        ),
    ] = None,
    inventory: InventoryOption = None,
    fmt: FormatOption = Format.TEXT,
) -> None:
    """Measure a release that is on a device.

    Nothing that is current on the device changes. The bundle's folder is needed here for what
    the device does not know: the plan, and what the outputs should be. --like repeats a
    measurement, bringing its bundle where that is not there, and says whether it agrees.
    """
    from edgesdk.bench.gate import require_accelerator
    from edgesdk.report.files import write_report

    out = Output("bench", fmt)
    settings = resolve_settings({"inventory": inventory})
    check_labels(label)
    if like is not None:
        refuse_with_like(
            {
                "--release": release,
                "--data": data,
                "--runs": runs,
                "--duration": duration,
                "--warmup": warmup,
                "--until": until,
                "--scenario": scenario,
                "--streams": streams,
                "--batch": batch,
                "--rate": rate,
                "--seed": seed,
                "--threads": threads,
                "--cpus": cpus,
                "--max-cpu-time": max_cpu_time,
                "--compare": compare,
                "--compare-seconds": compare_seconds,
                "--compare-seed": compare_seed,
            }
        )
        replay(
            out,
            settings,
            like=like,
            device=device,
            bundle=bundle,
            margin=margin,
            out_dir=out_dir,
            labels=label,
            no_history=no_history,
        )
        return
    if margin is not None:
        raise InputError(
            "cannot use --margin alone: it says how far a repetition may be off",
            hint="name the report that is repeated with --like",
        )
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
    wanted = check_compare(compare, compare_seconds, compare_seed)
    with open_session(settings, found) as session:
        chosen = find_release(session, release or "current")
        others = find_others(session, chosen, wanted)
        held = _find_bundle(settings, chosen, bundle)
        profile = profile_of(settings, held)
        if limit is not None:
            require_accelerator(profile, target=chosen.target)
        job = Job(
            bundle=held,
            floats=None,
            profile=profile,
            reference=None,
            data=None if data is None else bundle_dataset(data, held.manifest),
            folder=out_dir or run_folder(settings, model=held.name, target=chosen.target),
        )
        note_findings(
            out, lint_data(job.data, preprocess_of(held.manifest), manifest=held.manifest)
        )
        assert job.folder is not None
        prepare_run_folder(job.folder)
        report = measure_release(session, job, found, spec=spec)
        if others:
            with busy("draw the report"):  # whatever becomes of the comparison
                written = write_report(report, job.folder)
            try:
                beside = compare_releases(
                    session,
                    held.id,
                    others,
                    spec=spec,
                    seconds=compare_seconds,
                    seed=compare_seed,
                )
            except EdgeError as exc:
                name_report(exc, report, written)
                raise
            report = replace(report, comparisons=beside)
    with busy("draw the report"):
        written = write_report(report, job.folder)
    recorded = record_run(settings, report, folder=held.folder, labels=label, off=no_history)
    refused = None if limit is None else _refusal(report, limit)
    if refused is None:
        out.document(
            {
                "bundle": {"id": held.id},
                "report": report,
                "folder": job.folder,
                "comparisons": compare_documents(report.comparisons),
                "run": recorded,
            }
        )
    out.line(
        f"{held.name} {held.precision} on {found.name} "
        f"(bundle {short_id(held.id)}, {len(report.latency.samples_ms)} runs)\n"
    )
    show_outcome(out, report, [("report", written.html)])
    if refused is not None:
        raise FindingsError(
            str(refused), hint=refused.hint, **refused.facts, report=str(written.json)
        )


def _refusal(report: BenchmarkReport, limit: float) -> FindingsError | None:
    from edgesdk.bench.gate import check_cpu_time

    assert report.offload is not None
    try:
        check_cpu_time(report.offload, limit)
    except FindingsError as exc:
        return exc
    return None


def _find_bundle(settings: Settings, release: Release, folder: Path | None) -> Bundle:
    held = held_bundle(settings, release.bundle, folder)
    assert held is not None
    return held
