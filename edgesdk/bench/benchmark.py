"""From a bundle on a device to a report: measure, judge the outputs, put it together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edgesdk.bench.accuracy import Judged, Run, judge_outputs
from edgesdk.bench.assemble import NO_ACCURACY, assemble_report, device_record, make_baseline
from edgesdk.bench.link_time import with_link_time
from edgesdk.bench.measurements import Measurements
from edgesdk.bench.offload import ask_offload
from edgesdk.bench.offload_values import Offload
from edgesdk.bench.run import OnLive, ignore_live, take_measurements
from edgesdk.bench.spec_values import threads_of
from edgesdk.bench.values import BenchmarkReport, BenchSpec, Contest
from edgesdk.devices.facts import read_facts
from edgesdk.errors import DeviceError, EdgeError, LinkError
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from edgesdk.bundle import Bundle
    from edgesdk.data import Dataset
    from edgesdk.deploy.values import Deployment, SelfCheck
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = ["ADAPTIVE", "run_benchmark"]

#: What is measured where nothing else is said: until the runs get no faster, then 400 runs and
#: as many more as the median needs to be known to within 1 %, for which 2 s must do.
ADAPTIVE = BenchSpec(settle=True, until=0.01, patience_s=2.0)


def run_benchmark(
    session: Session,
    bundle: Bundle,
    *,
    device: Device,
    spec: BenchSpec | None = None,
    profile: TargetProfile | None = None,
    deployment: Deployment | None = None,
    data: Dataset | None = None,
    reference: Run | None = None,
    baseline: Bundle | None = None,
    baseline_deployment: Deployment | None = None,
    contest: Contest | None = None,
    known: Judged | None = None,
    latency: bool = True,
    repeat: tuple[str, ...] = (),
    offload: Offload | None = None,
    on_broken: Callable[[EdgeError], None] | None = None,
    on_live: OnLive = ignore_live,
    on_progress: OnProgress = ignore_progress,
) -> BenchmarkReport:
    """Measure a bundle that the device holds, judge its outputs, and make the report.

    What ran where is asked last, when nothing is measured any more.

    Args:
        session: The device, which holds the bundle and, where there is one, the baseline.
        bundle: What is measured.
        device: How the device is called and reached.
        spec: How often and how long; `ADAPTIVE` where it is None.
        profile: The target, which says what of it is an accelerator.
        deployment: The receipt, where the bundle was deployed in this session.
        data: Labelled data to evaluate on the device.
        reference: Runs the unquantized model on this computer, for the same data.
        baseline: Another bundle of the same model, measured first to be set beside.
        baseline_deployment: Its receipt.
        contest: How the bundle was chosen, where it was one of several.
        known: What the labelled data gave already, so that they are not run again.
        latency: Whether to measure latency at all, or only to judge the outputs.
        repeat: Commands that would repeat this, for the report.
        offload: What ran where, where that was asked before.
        on_broken: Told what broke the measurement off after some counted runs, or what
            followed them; the report then has what had arrived. None raises it.
        on_live: Told twice a second how a measurement stands.
        on_progress: Told of runs and samples.

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
    """
    spec = spec if spec is not None else ADAPTIVE
    facts = read_facts(session)
    backends = () if profile is None else profile.backends
    accelerators = frozenset(backend.id for backend in backends if backend.accelerator)
    beside = None
    if baseline is not None and latency:
        beside = make_baseline(
            bundle=baseline,
            measured=take_measurements(
                session, bundle=baseline, spec=spec, on_progress=on_progress
            ),
            accuracy=judge_outputs(
                session,
                baseline,
                check=_check_of(baseline_deployment),
                data=data,
                on_progress=on_progress,
            ),
            accelerators=accelerators,
            spec=spec,
        )
    measured = None
    if latency:
        measured = take_measurements(
            session,
            bundle=bundle,
            spec=spec,
            around=True,
            keep_partial=on_broken is not None,
            on_live=on_live,
            on_progress=on_progress,
        )
    broken = None if measured is None else measured.broken
    accuracy = NO_ACCURACY
    if broken is None:
        try:
            measured = _with_link(session, bundle, device, measured)
            accuracy = judge_outputs(
                session,
                bundle,
                check=_check_of(deployment),
                data=data,
                reference=reference,
                known=known,
                on_progress=on_progress,
            )
            if offload is None and latency:
                offload = ask_offload(
                    session,
                    bundle,
                    profile=profile,
                    threads=threads_of(spec),
                    on_progress=on_progress,
                )
        except (DeviceError, LinkError) as exc:
            if on_broken is None or measured is None or not measured.samples_ms:
                raise
            broken = exc  # the runs were all made: they are not lost with what comes after
    if broken is not None:
        assert on_broken is not None
        on_broken(broken)
    return assemble_report(
        bundle=bundle,
        spec=spec,
        measured=measured,
        device=device_record(
            name=device.name,
            url=str(device.url),
            facts=facts,
            agent_version=session.hello.agent_version,
            agent_sha256=session.hello.agent_sha256,
        ),
        accelerators=accelerators,
        deployment=deployment,
        accuracy=accuracy,
        baseline=beside,
        contest=contest,
        repeat=repeat,
        offload=offload,
    )


def _check_of(deployment: Deployment | None) -> SelfCheck | None:
    return None if deployment is None else deployment.self_check


def _with_link(
    session: Session, bundle: Bundle, device: Device, measured: Measurements | None
) -> Measurements | None:
    """Add what a request takes beside the inference, where that was taken apart."""
    procedure = None if measured is None else measured.procedure
    if measured is None or procedure is None or procedure.around is None:
        return measured
    slow_line = device.url.scheme == "serial"
    around = with_link_time(session, bundle, procedure.around, slow_line=slow_line)
    return replace(measured, procedure=replace(procedure, around=around))
