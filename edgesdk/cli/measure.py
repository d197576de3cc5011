"""What `deploy` and `bench` do alike: their options for measuring, and the measuring."""

from __future__ import annotations

import contextlib
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesdk.cli.progress import progress_bars
from edgesdk.errors import InputError

if TYPE_CHECKING:
    from edgesdk.bench.contest import ContestResult
    from edgesdk.bench.offload_values import Offload
    from edgesdk.bench.values import BenchmarkReport, BenchSpec
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session

__all__ = [
    "DurationOption",
    "MaxCpuTimeOption",
    "RunsOption",
    "ThreadsOption",
    "WarmupOption",
    "bench_spec",
    "measure_release",
    "read_max_cpu_time",
]

RunsOption = Annotated[
    int | None,
    typer.Option(
        "--runs",
        min=0,
        metavar="N",
        help="Counted runs; p99 needs 368. 0: as many as --duration allows.",
    ),
]
DurationOption = Annotated[
    float | None,
    typer.Option("--duration", metavar="SECONDS", help="Stop measuring after this time."),
]
WarmupOption = Annotated[
    int | None,
    typer.Option("--warmup", min=0, metavar="N", help="Runs before those that count."),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, metavar="N", help="Threads of the runtime while measuring."
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
    duration: float | None,
    warmup: int | None,
    threads: int | None,
) -> BenchSpec:
    """Make the spec of a measurement from options; what was not given keeps its default.

    Raises:
        InputError: The options contradict each other.
    """
    from edgesdk.bench.values import BenchSpec

    given: dict[str, Any] = {
        "runs": runs,
        "duration_s": duration,
        "warmup_runs": warmup,
        "threads": threads,
    }
    try:
        return BenchSpec(**{name: value for name, value in given.items() if value is not None})
    except ValueError as exc:
        raise InputError(
            f"cannot measure like that: {exc}", hint="see --runs, --duration and --warmup"
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
        return run_benchmark(
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
            repeat=_how_to_repeat(job, device),
            offload=offload,
            on_progress=on_progress,
        )


def _how_to_repeat(job: Job, device: Device) -> tuple[str, ...]:
    folder = shlex.quote(str(job.bundle.folder))
    name = shlex.quote(device.name)
    return (
        f"edgesdk deploy {folder} --device {name}",
        f"edgesdk bench {name} --bundle {folder}",
    )
