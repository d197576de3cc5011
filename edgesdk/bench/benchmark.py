"""From a bundle on a device to a report: measure, judge the outputs, put it together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgesdk.bench.accuracy import Run, accuracy_of, check_on_device, evaluate_on_device
from edgesdk.bench.assemble import assemble_report, device_record, make_baseline
from edgesdk.bench.run import take_measurements
from edgesdk.bench.values import Accuracy, BenchmarkReport, BenchSpec
from edgesdk.deploy.releases import run_on_device
from edgesdk.devices.facts import read_facts
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    import numpy as np

    from edgesdk.bundle import Bundle
    from edgesdk.data import Dataset
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = ["run_benchmark"]


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
    latency: bool = True,
    repeat: tuple[str, ...] = (),
    on_progress: OnProgress = ignore_progress,
) -> BenchmarkReport:
    """Measure a bundle that the device holds, judge its outputs, and make the report.

    Args:
        session: The device, which holds the bundle and, where there is one, the baseline.
        bundle: What is measured.
        device: How the device is called and reached.
        spec: How often and how long; the default where it is None.
        profile: The target, which says what of it is an accelerator.
        deployment: The receipt, where the bundle was deployed in this session.
        data: Labelled data to evaluate on the device.
        reference: Runs the unquantized model on this computer, for the same data.
        baseline: Another bundle of the same model, measured first to be set beside.
        baseline_deployment: Its receipt.
        latency: Whether to measure latency at all, or only to judge the outputs.
        repeat: Commands that would repeat this, for the report.
        on_progress: Told of runs and samples.

    Raises:
        DeviceError: The device failed.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
    """
    spec = spec if spec is not None else BenchSpec()
    backends = () if profile is None else profile.backends
    accelerators = frozenset(backend.id for backend in backends if backend.accelerator)
    beside = None
    if baseline is not None and latency:
        beside = make_baseline(
            bundle=baseline,
            measured=take_measurements(
                session, bundle=baseline, spec=spec, on_progress=on_progress
            ),
            accuracy=_judge(session, baseline, baseline_deployment, data, None, on_progress),
            accelerators=accelerators,
        )
    measured = None
    if latency:
        measured = take_measurements(session, bundle=bundle, spec=spec, on_progress=on_progress)
    return assemble_report(
        bundle=bundle,
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
        accuracy=_judge(session, bundle, deployment, data, reference, on_progress),
        baseline=beside,
        repeat=repeat,
    )


def _judge(  # noqa: PLR0917 - private, and each is of another type
    session: Session,
    bundle: Bundle,
    deployment: Deployment | None,
    data: Dataset | None,
    reference: Run | None,
    on_progress: OnProgress,
) -> Accuracy:
    """Judge the outputs by check vectors and, where there is some, labelled data."""
    check = None if deployment is None else deployment.self_check
    if check is None or check.reused:
        # an earlier outcome has no figures against the unquantized model
        check = check_on_device(session, bundle=bundle)
    if data is None or data.labels is None:
        return accuracy_of(check)

    def run(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return run_on_device(session, bundle.id, sample)[0]

    labelled = evaluate_on_device(run, data, where="device", on_progress=on_progress)
    labelled_reference = None
    if reference is not None:
        labelled_reference = evaluate_on_device(
            reference, data, where="host", on_progress=on_progress
        )
    return accuracy_of(check, labelled=labelled, labelled_reference=labelled_reference)
