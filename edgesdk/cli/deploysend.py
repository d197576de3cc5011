"""Sending a bundle in `edgesdk deploy`: how, what it is held to, how it stands after that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesdk.cli.contest import activate_winner
from edgesdk.cli.progress import progress_bars
from edgesdk.cli.quantities import read_seconds
from edgesdk.errors import InputError, RolledBackError

if TYPE_CHECKING:
    from edgesdk.bench.offload_values import Offload
    from edgesdk.bench.precision import PrecisionVerdict
    from edgesdk.bench.values import BenchSpec
    from edgesdk.bundle.store import Bundle
    from edgesdk.cli.deployjob import Job
    from edgesdk.deploy.activate import Proven, Standing
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.progress import OnProgress

__all__ = [
    "CpuTimeGate",
    "Sending",
    "hold_verdict",
    "read_standing",
    "require_daemon",
    "send_bundle",
    "send_floats",
    "send_winner",
    "settle",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How bundles are sent: to another target too, how long a check is, what they keep to.

    ``bases`` is where blobs are found that the device may hold; None sends everything whole.
    """

    force_target: bool
    check_timeout_s: float
    standing: Standing
    bases: Bases | None


class CpuTimeGate:
    """Asks what ran where once a release has passed its check, and holds it to a limit.

    So what fails is never current: it ends as a failed check does.
    """

    def __init__(self, session: Session, job: Job, spec: BenchSpec, limit: float) -> None:
        self._session = session
        self._job = job
        self._spec = spec
        self._limit = limit
        self.offload: Offload | None = None

    def hold(self, on_progress: OnProgress) -> None:
        """Ask and judge.

        Raises:
            FindingsError: More of the time ran off the accelerator than may, or nobody tells.
        """
        from edgesdk.bench.gate import check_cpu_time
        from edgesdk.bench.offload import ask_offload
        from edgesdk.bench.spec_values import threads_of

        self.offload = ask_offload(
            self._session,
            self._job.bundle,
            profile=self._job.profile,
            threads=threads_of(self._spec),
            on_progress=on_progress,
        )
        check_cpu_time(self.offload, self._limit, after="; the active release is unchanged")


def send_winner(
    session: Session,
    winner: Proven,
    device: Device,
    sending: Sending,
    gate: CpuTimeGate | None,
) -> Deployment:
    """Make a bundle current that was proven in a contest."""
    if gate is not None:
        with progress_bars() as on_progress:
            gate.hold(on_progress)
    return activate_winner(session, winner, device, standing=sending.standing)


def send_bundle(  # noqa: PLR0917 - private, and each is of another type
    session: Session,
    bundle: Bundle,
    job: Job,
    device: Device,
    sending: Sending,
    gate: CpuTimeGate | None = None,
) -> Deployment:
    """Deploy one bundle of a job."""
    from edgesdk.deploy.deploy import deploy_bundle

    with progress_bars() as on_progress:
        return deploy_bundle(
            bundle,
            session,
            device=device,
            profile=job.profile,
            force_target=sending.force_target,
            check_timeout_s=sending.check_timeout_s,
            bases=sending.bases,
            standing=sending.standing,
            approve=None if gate is None else lambda: gate.hold(on_progress),
            on_progress=on_progress,
        )


def send_floats(
    session: Session,
    job: Job,
    device: Device,
    sending: Sending,
    verdict: PrecisionVerdict | None,
) -> Deployment | None:
    """Deploy the float bundle that stays as previous, which a verdict may have proven."""
    if job.floats is None:
        return None
    if verdict is not None and verdict.floats is not None:
        return send_winner(session, verdict.floats, device, sending, None)
    return send_bundle(session, job.floats, job, device, sending)


def hold_verdict(
    session: Session, job: Job, spec: BenchSpec, sending: Sending
) -> PrecisionVerdict | None:
    """Ask the device whether the bundle is any better than the float one, where there is one.

    Nothing becomes active. None where there is nothing to compare, or the user takes it anyhow.

    Raises:
        DeviceError: The device refuses the bundle.
        LinkError: The link broke.
    """
    if job.floats is None or job.accept_slower:
        return None
    from edgesdk.bench.precision import judge_precision

    with progress_bars() as on_progress:
        return judge_precision(
            session,
            job.bundle,
            job.floats,
            spec=spec,
            profile=job.profile,
            data=job.data,
            max_drop=job.max_drop,
            force_target=sending.force_target,
            check_timeout_s=sending.check_timeout_s,
            bases=sending.bases,
            on_progress=on_progress,
        )


def read_standing(max_latency: str | None, probation: str | None) -> Standing:
    """Read ``--max-latency`` and ``--probation``.

    Raises:
        InputError: One is no time.
    """
    from edgesdk.deploy.activate import Standing

    latency_s = probation_s = None
    if max_latency is not None:
        latency_s = read_seconds(max_latency, option="--max-latency", at_most_s=3600.0)
    if probation is not None:
        probation_s = read_seconds(probation, option="--probation", at_most_s=30 * 86_400.0)
    return Standing(max_latency_s=latency_s, probation_s=probation_s)


def require_daemon(session: Session) -> None:
    """See that somebody on the device counts the time of a probation.

    Raises:
        InputError: No daemon runs there.
    """
    if not session.hello.daemon:
        raise InputError(
            f"cannot use --watch on {session.device_name}: no daemon runs there, so nobody "
            "counts the time of a probation",
            hint="leave --watch away, or set up a daemon with edgesdk agent install",
            device=session.device_name,
        )


def settle(
    session: Session, deployment: Deployment, *, watch: bool
) -> tuple[Deployment, RolledBackError | None]:
    """Ask how a deployed release stands; with ``watch`` once its probation is over.

    Returns:
        The receipt with the outcome, and what to end with where the device went back by itself.
    """
    from edgesdk.deploy.probation import require_current, watch_probation

    try:
        if watch:
            with progress_bars() as on_progress:
                watch_probation(session, deployment.bundle_id, on_progress=on_progress)
        probation = require_current(session, deployment.bundle_id)
    except RolledBackError as exc:
        notes = (*deployment.notes, str(exc))
        gone = replace(deployment, outcome="returned", slot="none", probation=None, notes=notes)
        return gone, exc
    outcome = "active" if probation is None else "on-probation"
    return replace(deployment, outcome=outcome, probation=probation), None
