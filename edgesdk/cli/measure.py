"""What `deploy` and `bench` do alike: their options for measuring, and the measuring."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesdk.cli.progress import busy, progress_bars
from edgesdk.cli.quantities import read_cpus, read_scenario, read_seconds, read_share
from edgesdk.errors import EdgeError, InputError

if TYPE_CHECKING:
    from edgesdk.bench.contest import ContestResult
    from edgesdk.bench.offload_values import Offload
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.report.files import WrittenReport

__all__ = [
    "BatchOption",
    "CpusOption",
    "DurationOption",
    "MaxCpuTimeOption",
    "RateOption",
    "RunsOption",
    "ScenarioOption",
    "SeedOption",
    "StreamsOption",
    "ThreadsOption",
    "UntilOption",
    "WarmupOption",
    "as_options",
    "bench_spec",
    "measure_release",
    "name_report",
    "read_max_cpu_time",
]

_LONGEST_S = 86_400.0
_USUAL_S = 60.0
_USUAL_RUNS = 400
_OFFLINE_BATCH = 32
_STREAMS = 2

RunsOption = Annotated[
    int | None,
    typer.Option(
        "--runs",
        min=0,
        metavar="N",
        help="Counted runs, just so many; p99 needs 368. 0: as many as --duration allows. "
        "Default: 400, and more until --until is met.",
    ),
]
DurationOption = Annotated[
    str | None,
    typer.Option("--duration", metavar="30s", help="Stop measuring after this time."),
]
WarmupOption = Annotated[
    int | None,
    typer.Option(
        "--warmup",
        min=0,
        metavar="N",
        help="Runs before those that count. Default: until they get no faster.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, metavar="N", help="Threads of the runtime while measuring."
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="1%",
        help="Measure until the median is known to within this share of it (95 % interval), "
        "or --duration is up. Default: 1%, for which 2 s beyond 400 runs must do.",
    ),
]
ScenarioOption = Annotated[
    str | None,
    typer.Option(
        "--scenario",
        metavar="NAME",
        help="single-stream, multi-stream (--streams at once), offline (--batch each) or "
        "server (--rate arrivals per second). Default: what the other options ask for.",
    ),
]
StreamsOption = Annotated[
    int | None,
    typer.Option("--streams", min=1, max=256, metavar="N", help="Inferences at the same time."),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch", min=1, max=65_536, metavar="N", help="Inferences that are timed together."
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate", metavar="QPS", help="Arrivals per second, at random (Poisson process)."
    ),
]
CpusOption = Annotated[
    str | None,
    typer.Option(
        "--cpus", metavar="0,1", help="Processors to keep the worker on, such as 0,1 or 2-3."
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--seed", min=0, max=2**63 - 1, metavar="N", help="What the arrivals are drawn from."
    ),
]
MaxCpuTimeOption = Annotated[
    str | None,
    typer.Option(
        "--max-cpu-time",
        metavar="5%",
        help="Exit with 1 when more of an inference's time ran off the accelerator: ops on the "
        "CPU or that do not tell, launches, copies, hand-over between parts.",
    ),
]


def read_max_cpu_time(text: str | None) -> float | None:
    """Read ``--max-cpu-time``; None where it was not given.

    Raises:
        InputError: It is no share.
    """
    from edgesdk.bench.gate import read_limit

    return None if text is None else read_limit(text)


def bench_spec(
    *,
    runs: int | None,
    duration: str | None,
    warmup: int | None,
    threads: int | None,
    until: str | None = None,
    scenario: str | None = None,
    streams: int | None = None,
    batch: int | None = None,
    rate: float | None = None,
    seed: int | None = None,
    cpus: str | None = None,
) -> BenchSpec:
    """Make the spec of a measurement from options; what was not given keeps its default.

    A number of runs is kept to where nothing says until when to go on beyond it.

    Raises:
        InputError: The options contradict each other.
    """
    from edgesdk.bench.benchmark import ADAPTIVE
    from edgesdk.bench.values import BenchSpec

    given: dict[str, Any] = {
        "runs": runs,
        "duration_s": None
        if duration is None
        else read_seconds(duration, option="--duration", at_most_s=_LONGEST_S),
        "warmup_runs": warmup,
        "threads": threads,
        "until": None if until is None else read_share(until, option="--until"),
        "streams": streams,
        "batch": batch,
        "rate_per_s": rate,
        "seed": seed,
        "cpus": None if cpus is None else read_cpus(cpus, option="--cpus"),
    }
    given = {name: value for name, value in given.items() if value is not None}
    given["scenario"] = read_scenario(scenario, streams=streams, batch=batch, rate=rate)
    if given["scenario"] == "offline":
        given.setdefault("batch", _OFFLINE_BATCH)
    if given["scenario"] == "multi-stream":
        given.setdefault("streams", _STREAMS)
    if warmup is None:
        given["settle"] = ADAPTIVE.settle
    if runs is None and until is None:
        given["until"] = ADAPTIVE.until
        if duration is None:
            given["patience_s"] = ADAPTIVE.patience_s
    try:
        return BenchSpec(**given)
    except ValueError as exc:
        raise InputError(
            f"cannot measure like that: {exc}",
            hint="see --runs, --duration, --until, --scenario and --warmup",
        ) from exc


def measure_release(
    session: Session,
    job: Job,
    device: Device,
    *,
    spec: BenchSpec,
    bench: bool = True,
    deployment: Deployment | None = None,
    floats: Deployment | None = None,
    chosen: ContestResult | None = None,
    offload: Offload | None = None,
) -> BenchmarkReport:
    """Measure a bundle that the device holds, judge its outputs, and make the report.

    Where the device or the link is lost after some counted runs, or in what follows them, what
    had arrived becomes a report in the job's folder, and the error names it.

    Args:
        session: The device, which holds the bundle and, where there is one, the float bundle.
        job: What is measured, with the data and the float model to judge it by.
        device: How the device is called and reached.
        spec: What to measure.
        bench: Whether to measure latency at all.
        deployment: The receipt, where the bundle was deployed in this session.
        floats: The receipt of the float bundle.
        chosen: The contest that the bundle won.
        offload: What ran where, where that was asked before.

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
    """
    from edgesdk.bench.benchmark import run_benchmark

    with contextlib.ExitStack() as opened:
        reference = None
        if job.reference is not None and job.data is not None:
            from edgesdk.build.reference import open_reference

            reference = opened.enter_context(open_reference(job.reference.ir)).run
        on_progress = opened.enter_context(progress_bars())
        broken: list[EdgeError] = []
        report = run_benchmark(
            session,
            job.bundle,
            device=device,
            spec=spec,
            profile=job.profile,
            deployment=deployment,
            data=job.data,
            reference=reference,
            baseline=job.floats,
            baseline_deployment=floats,
            contest=None if chosen is None else chosen.contest,
            known=None if chosen is None else chosen.judged,
            latency=bench,
            repeat=_how_to_repeat(job, device, spec),
            offload=offload,
            on_broken=broken.append,
            on_progress=on_progress,
        )
    if broken:
        _keep_what_there_is(broken[0], report, job)
        raise broken[0]
    return report


def _keep_what_there_is(exc: EdgeError, report: BenchmarkReport, job: Job) -> None:
    """Write the report of a measurement that broke off, and name it in the error."""
    if job.folder is None:
        return
    from edgesdk.report.files import write_report

    with busy("draw the report"):
        written = write_report(report, job.folder)
    name_report(exc, report, written)


def name_report(exc: EdgeError, report: BenchmarkReport, written: WrittenReport) -> None:
    """Say in an error where the runs are that were made before it."""
    kept = f"the {len(report.latency.samples_ms)} runs until then are in {written.json}"
    exc.hint = f"{exc.hint}; {kept}" if exc.hint else kept
    exc.facts["report"] = str(written.json)


def as_options(spec: BenchSpec) -> str:
    """Write a spec as the options that make `bench_spec` give it again."""
    options: list[tuple[str, object]] = []
    if spec.until is None or spec.runs != _USUAL_RUNS:
        options.append(("runs", spec.runs))
    if spec.until is not None and spec.patience_s is None:
        options.append(("until", f"{spec.until:.6g}"))
    if spec.duration_s is not None and spec.duration_s != _USUAL_S:
        options.append(("duration", f"{spec.duration_s:g}s"))
    if not spec.settle:
        options.append(("warmup", spec.warmup_runs))
    # a batch alone would ask for the offline scenario
    if spec.scenario != "single-stream" or spec.batch > 1:
        options.append(("scenario", spec.scenario))
    options += [
        (name, value)
        for name, value, usual in (
            ("streams", spec.streams, 1),
            ("batch", spec.batch, 1),
            ("rate", spec.rate_per_s, None),
            ("seed", spec.seed, 0),
            ("threads", spec.threads, None),
        )
        if value != usual
    ]
    if spec.cpus is not None:
        options.append(("cpus", ",".join(map(str, spec.cpus))))
    return "".join(f" --{name} {value}" for name, value in options)


def _how_to_repeat(job: Job, device: Device, spec: BenchSpec) -> tuple[str, ...]:
    folder = shlex.quote(str(job.bundle.folder))
    name = shlex.quote(device.name)
    return (
        f"edgesdk deploy {folder} --device {name}",
        f"edgesdk bench {name} --bundle {folder}{as_options(spec)}",
    )
