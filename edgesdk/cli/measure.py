"""What `deploy` and `bench` do alike: measure a release, judge its outputs, make the report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgesdk.cli.progress import progress_bars
from edgesdk.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.bench.measurements import Measurements
    from edgesdk.bench.values import (
        Accuracy,
        BenchmarkReport,
        BenchSpec,
    )
    from edgesdk.bundle.store import Bundle
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = [
    "DurationOption",
    "RunsOption",
    "ThreadsOption",
    "WarmupOption",
    "bench_spec",
    "measure_release",
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

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
    """
    from edgesdk.bench.assemble import assemble_report, device_record, make_baseline
    from edgesdk.devices.facts import read_facts

    accelerators = _accelerators_of(job.profile)
    baseline = None
    if job.floats is not None and bench:
        baseline = make_baseline(
            bundle=job.floats,
            measured=_measure(session, job.floats, spec),
            accuracy=_judge(session, job.floats, job, floats),
            accelerators=accelerators,
        )
    measured = _measure(session, job.bundle, spec) if bench else None
    return assemble_report(
        bundle=job.bundle,
        spec=spec,
        measured=measured,
        device=device_record(
            name=device.name,
            url=str(device.url),
            facts=read_facts(session),
            agent_version=session.hello.agent_version,
            agent_sha256=session.hello.agent_sha256,
        ),
        accelerators=accelerators,
        deployment=deployment,
        accuracy=_judge(session, job.bundle, job, deployment, reference=True),
        baseline=baseline,
        repeat=_how_to_repeat(job, device),
    )


def _accelerators_of(profile: TargetProfile | None) -> frozenset[str]:
    """Name the backends of a target that are not its CPU."""
    backends = () if profile is None else profile.backends
    return frozenset(backend.id for backend in backends if backend.accelerator)


def _measure(session: Session, bundle: Bundle, spec: BenchSpec) -> Measurements:
    from edgesdk.bench.run import run_benchmark

    with progress_bars() as on_progress:
        return run_benchmark(session, bundle=bundle, spec=spec, on_progress=on_progress)


def _judge(
    session: Session,
    bundle: Bundle,
    job: Job,
    deployment: Deployment | None,
    *,
    reference: bool = False,
) -> Accuracy:
    """Say how good the outputs are: by check vectors, and by labelled data where there is some.

    With ``reference`` the same data also go through the float model on this computer.
    """
    from edgesdk.bench.accuracy import accuracy_of, check_on_device, evaluate_on_device

    check = None if deployment is None else deployment.self_check
    if check is None or check.reused:
        # an earlier outcome has no figures against the float model
        check = check_on_device(session, bundle=bundle)
    if job.data is None or job.data.labels is None:
        return accuracy_of(check)
    with progress_bars() as on_progress:
        labelled = evaluate_on_device(
            lambda sample: _run_once(session, bundle, sample),
            job.data,
            where="device",
            on_progress=on_progress,
        )
    labelled_reference = None
    if reference and job.reference is not None:
        from edgesdk.build.reference import open_reference

        with open_reference(job.reference.ir) as host, progress_bars() as on_progress:
            labelled_reference = evaluate_on_device(
                host.run, job.data, where="host", on_progress=on_progress
            )
    return accuracy_of(check, labelled=labelled, labelled_reference=labelled_reference)


def _run_once(
    session: Session, bundle: Bundle, sample: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    from edgesdk.deploy.releases import run_on_device

    return run_on_device(session, bundle.id, sample)[0]


def _how_to_repeat(job: Job, device: Device) -> tuple[str, ...]:
    folder = shlex.quote(str(job.bundle.folder))
    name = shlex.quote(device.name)
    return (
        f"edgesdk deploy {folder} --device {name}",
        f"edgesdk bench {name} --bundle {folder}",
    )
