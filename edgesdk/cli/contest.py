"""A target's contest, on the command line: what competes, its bundles, and holding it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesdk.cli.progress import progress_bars
from edgesdk.errors import BuildError, InputError

if TYPE_CHECKING:
    from edgesdk.bench.contest import ContestResult
    from edgesdk.bench.course import Entrant
    from edgesdk.bench.values import BenchSpec
    from edgesdk.bundle.store import Bundle
    from edgesdk.cli.deployjob import Job
    from edgesdk.cli.modelinput import BuildInputs
    from edgesdk.cli.output import Output
    from edgesdk.deploy.activate import Proven, Standing
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.deploy.values import Deployment
    from edgesdk.devices.inventory import Device
    from edgesdk.devices.session import Session
    from edgesdk.plan.contest import Contender
    from edgesdk.plan.recipe import Recipe
    from edgesdk.plan.values import BuildPlan
    from edgesdk.profiles.values import TargetProfile

__all__ = [
    "Competitor",
    "activate_winner",
    "build_competitors",
    "choice_notes",
    "contender_record",
    "hold_contest",
    "plan_competition",
    "plan_verdict",
    "show_contest",
]

#: Builds one contender, and its float baseline where there is to be one.
BuildOne = Callable[["Contender", "BuildPlan"], "tuple[Bundle, Bundle | None]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitor:
    """A contestant of a deployment, with the float bundle that would be its baseline."""

    entrant: Entrant
    floats: Bundle | None = None


def build_competitors(
    contenders: Sequence[Contender], build: BuildOne
) -> tuple[Competitor, ...]:
    """Build what competes. One that cannot be built drops out with the reason.

    Raises:
        BuildError: None can be built; it is what was wrong with the first.
    """
    found: list[Competitor] = []
    first_error: BuildError | None = None
    for each in contenders:
        plan = each.plan
        if plan is None:
            entrant = _entrant(each, why_out=each.why_out)
            found.append(Competitor(entrant=entrant))
            continue
        try:
            bundle, floats = build(each, plan)
        except BuildError as exc:
            first_error = first_error or exc
            entrant = _entrant(each, why_out=str(exc))
            found.append(Competitor(entrant=entrant))
            continue
        entrant = _entrant(each, bundle)
        found.append(Competitor(entrant=entrant, floats=floats))
    if first_error is not None and all(each.entrant.bundle is None for each in found):
        raise first_error
    return tuple(found)


def _entrant(contender: Contender, bundle: Bundle | None = None, why_out: str = "") -> Entrant:
    from edgesdk.bench.course import Entrant

    return Entrant(
        backend=contender.backend,
        bundle=bundle,
        precision=contender.precision,
        nodes={} if contender.plan is None else contender.plan.nodes_by_backend,
        why_out=why_out,
    )


def hold_contest(
    session: Session,
    job: Job,
    *,
    spec: BenchSpec,
    force_target: bool,
    check_timeout_s: float,
    bases: Bases | None,
) -> tuple[Job, ContestResult]:
    """Hold the contest of a job on its device.

    Returns:
        The job with the winner's bundle, in its place in the run folder, and the result.

    Raises:
        DeviceError: No contestant is left.
        LinkError: The link broke.
    """
    from edgesdk.bench.contest import run_contest
    from edgesdk.build.reference import open_reference

    with contextlib.ExitStack() as opened:
        reference = None
        if job.reference is not None and job.data is not None:
            reference = opened.enter_context(open_reference(job.reference.ir)).run
        result = run_contest(
            session,
            [each.entrant for each in job.competitors],
            spec=spec,
            profile=job.profile,
            data=job.data,
            reference=reference,
            max_drop=job.max_drop,
            score_all=any(each.entrant.precision for each in job.competitors),
            force_target=force_target,
            check_timeout_s=check_timeout_s,
            bases=bases,
            on_progress=opened.enter_context(progress_bars()),
        )
    won = next(each for each in job.competitors if each.entrant.name == result.contest.winner)
    assert won.entrant.bundle is not None
    return _settle(job, won.entrant.bundle, won.floats, result)


def _settle(
    job: Job, bundle: Bundle, floats: Bundle | None, result: ContestResult
) -> tuple[Job, ContestResult]:
    """Put the winner's bundles where those of a deployment lie."""
    from edgesdk.bundle.writer import move_bundle
    from edgesdk.cli.runfolder import BASELINE, BUNDLE

    assert job.folder is not None
    held = move_bundle(bundle, job.folder / BUNDLE)
    if floats is not None:
        floats = move_bundle(floats, job.folder / BASELINE)
    return (
        replace(job, bundle=held, floats=floats),
        replace(result, winner=replace(result.winner, bundle=held)),
    )


def activate_winner(
    session: Session, winner: Proven, device: Device, *, standing: Standing
) -> Deployment:
    """Make a bundle current that was proven in a contest.

    Raises:
        DeviceError: The device refuses.
        LinkError: The link broke; the device has the old release or this one, whole.
    """
    from edgesdk.deploy.activate import activate_bundle

    with progress_bars() as on_progress:
        return activate_bundle(
            session,
            winner,
            device=device,
            standing=standing,
            on_progress=on_progress,
        )


def choice_notes(
    profile: TargetProfile, recipe: Recipe, made: BuildPlan, *, why: str
) -> tuple[str, ...]:
    """Say in lines what a plan took where something else may have been meant.

    That is where the profile leaves the choice to a measurement and there is none (``why``
    introduces what was taken), and where a backend that is preferred gets nothing.
    """
    used = made.nodes_by_backend
    notes = []
    for name in recipe.prefer:
        if name not in used:
            reasons = {r.reason for n in made.nodes for r in n.refusals if r.backend == name}
            told = f": {reasons.pop()}" if len(reasons) == 1 else "; edgesdk plan shows why"
            notes.append(f"note: {name}, which was asked for, gets none of the nodes{told}")
    taken = [name for name in profile.contest if name in used]
    if profile.contest and taken and not recipe.prefer:
        names = " or ".join(profile.contest)
        notes.append(f"note: which is faster, {names}, shows on the device; {why} {taken[0]}")
    return tuple(notes)


def show_contest(out: Output, contenders: Sequence[Contender]) -> None:
    """Show people who will compete, and with what."""
    from edgesdk.cli.output import size_text

    if not contenders:
        return
    alive = [each for each in contenders if each.plan is not None]
    names = " and ".join(each.backend for each in alive)
    if len(alive) > 1:
        out.line(f"\nedgesdk deploy measures {names} in turns and keeps the fastest:")
    elif alive:
        out.line(f"\nthe contest is over before it begins, {names} is left:")
    else:
        out.line("\nnone of the contest gets a node:")
    out.table(
        ("first", "nodes", "parts", "memory", "out because"),
        [
            (
                each.backend,
                _nodes(each.plan),
                "" if each.plan is None else len(each.plan.parts),
                "" if each.plan is None else size_text(each.plan.memory_bytes),
                each.why_out,
            )
            for each in contenders
        ],
        right=("parts", "memory"),
    )


def contender_record(contender: Contender) -> dict[str, object]:
    """Give what a plan says of a contestant as plain data."""
    made = contender.plan
    return {
        "backend": contender.backend,
        "nodes_by_backend": None if made is None else made.nodes_by_backend,
        "parts": None if made is None else made.parts,
        "memory_bytes": None if made is None else made.memory_bytes,
        "share_by_backend": None if made is None else made.share_by_backend,
        "why_out": contender.why_out,
    }


def _nodes(made: BuildPlan | None) -> str:
    if made is None:
        return ""
    return ", ".join(f"{count} on {name}" for name, count in made.nodes_by_backend.items())


def plan_competition(inputs: BuildInputs) -> tuple[Contender, ...]:
    """Plan the contest of a build's target; nothing where there is no contest to hold."""
    from edgesdk.plan.contest import plan_contest

    contenders = plan_contest(inputs.opened, inputs.profile, inputs.recipe, known=inputs.plan)
    return contenders if any(each.plan is not None for each in contenders) else ()


def plan_verdict(inputs: BuildInputs, *, backends: bool) -> tuple[Contender, ...]:
    """Plan the precisions that a device shall choose from, and its backends where asked for.

    Raises:
        InputError: The model arrives in a precision of its own.
        BuildError: Nothing can be built of it.
    """
    from edgesdk.model.tflite import OpenedTflite
    from edgesdk.plan.precisions import plan_precisions
    from edgesdk.quantize.prepare import is_quantized

    opened = inputs.opened
    if isinstance(opened, OpenedTflite) or is_quantized(opened.ir):
        raise InputError(
            f"cannot choose a precision for {opened.source.name}: the model arrives with its "
            "own, so there is no float model to compare with",
            hint="leave --precision out to deploy it as it is, or give the float model it was "
            "made from",
        )
    labelled = inputs.labelled if inputs.labelled is not None else inputs.calib
    return plan_precisions(
        opened,
        inputs.profile,
        inputs.recipe,
        calibrated=inputs.calib is not None,
        labelled=labelled is not None and labelled.labels is not None,
        backends=backends,
    )
