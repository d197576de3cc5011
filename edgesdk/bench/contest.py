"""Let bundles of one model compete on a device: prove all, measure them in turns, keep one.

Each round starts a worker of its own for each bundle, and every other round goes through them
backwards: what drifts (a clock, a temperature, another program) hits all alike, and what one
process happens to have, such as the layout of its memory, counts once and not in every sample.
Nothing becomes active here: whatever fails, the device keeps the release that it had.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from edgesdk.bench.accuracy import Judged, Run, judge_labelled
from edgesdk.bench.course import Course, Entrant, contest_record
from edgesdk.bench.decide import choose_fastest, lost_accuracy
from edgesdk.bench.run import take_measurements
from edgesdk.bench.values import AccuracyResult, BenchSpec, Contest
from edgesdk.deploy.activate import Proven
from edgesdk.deploy.deploy import prove_bundle
from edgesdk.errors import DeviceError, InputError, TargetMismatch
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from edgesdk.data import Dataset
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = ["ContestResult", "Entrant", "Rounds", "run_contest"]

#: The samples of each round by contestant, in ms.
Rounds: TypeAlias = "Mapping[str, Sequence[Sequence[float]]]"

#: With 6 rounds all have to say the same for a claim, with 10 one may say otherwise.
FEWEST_ROUNDS, MOST_ROUNDS = 6, 10
#: Where a round of all takes longer, the fewest are made.
_QUICK_ROUND_S = 8.0
#: Runs before those that count, in each round; `BenchSpec.warmup_runs` may be fewer.
_WARMUP_RUNS = 3
_CHECK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestResult:
    """Who won, proven on the device and ready for `edgesdk.deploy.activate_bundle`.

    ``judged`` is what labelled data gave of the winner; None where they were not run. All that
    passed on the device are in ``proven``, by name; ``refusals`` are what it said of others.
    """

    contest: Contest
    winner: Proven
    judged: Judged | None
    proven: Mapping[str, Proven] = field(default_factory=dict)
    refusals: Mapping[str, DeviceError] = field(default_factory=dict)


def run_contest(
    session: Session,
    entrants: Sequence[Entrant],
    *,
    spec: BenchSpec | None = None,
    profile: TargetProfile | None = None,
    data: Dataset | None = None,
    reference: Run | None = None,
    max_drop: float | None = None,
    score_all: bool = False,
    enough: Callable[[Rounds], bool] | None = None,
    force_target: bool = False,
    check_timeout_s: float = _CHECK_TIMEOUT_S,
    bases: Bases | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ContestResult:
    """Find which of several bundles of a model is the fastest on a device.

    One that the device refuses, that gives other numbers there, or that dies or hangs while
    it is measured drops out with the reason, and the others go on.

    Args:
        session: The device.
        entrants: Who competes, in the order a tie goes by.
        spec: What a whole measurement would be; each round is a tenth of it.
        profile: The target; the device must be one. None asks nothing.
        data: Labelled data: one that loses too much on them does not win.
        reference: Runs the unquantized model on this computer, for the same data.
        max_drop: The loss that is allowed; None for 0.01.
        score_all: Evaluate those that cannot win on ``data`` too, for the record.
        enough: Told the samples of each round by contestant, after each of them; the rounds
            end where it says so.
        force_target: Go on where the device is another.
        check_timeout_s: How long the check vectors of each may take on the device.
        bases: For deltas, see `edgesdk.deploy.deploy.deploy_bundle`.
        on_progress: Told of every step.

    Raises:
        DeviceError: Nobody is left; it is what the device said of the first that dropped out.
        LinkError: The link broke.
        DataError: The labelled data does not go with the outputs.
        InputError: No entrant has a bundle.
    """
    course = Course(entrants, out={e.name: e.why_out for e in entrants if not e.bundle})
    if not course.left():
        raise InputError("cannot hold a contest: no entrant has a bundle")
    for entrant in entrants:
        if entrant.bundle is None or _is_double(entrant, course):
            continue
        try:
            course.proven[entrant.name] = prove_bundle(
                entrant.bundle,
                session,
                profile=profile,
                force_target=force_target,
                check_timeout_s=check_timeout_s,
                bases=bases,
                on_progress=on_progress,
            )
        except TargetMismatch:
            raise  # it would be said of every one of them
        except DeviceError as exc:
            course.drop(entrant.name, exc)
    course.require_one()
    _measure_in_turns(session, course, spec or BenchSpec(), enough, on_progress)
    course.require_one()
    winner = _pick(
        session,
        course,
        data=data,
        reference=reference,
        max_drop=max_drop,
        on_progress=on_progress,
    )
    if score_all:
        _score_others(session, course, winner, data=data, on_progress=on_progress)
    return ContestResult(
        contest=contest_record(course, winner),
        winner=course.proven[winner],
        judged=course.judged.get(winner),
        proven=course.proven,
        refusals=course.refusals,
    )


def _is_double(entrant: Entrant, course: Course) -> bool:
    """Drop one whose bundle is another's to the last bit."""
    for other in course.entrants:
        if other is entrant:
            return False
        same = other.bundle is not None and entrant.bundle is not None
        if same and _parts(other) == _parts(entrant):
            course.out[entrant.name] = f"its parts are the same as those of {other.name}"
            return True
    return False


def _parts(entrant: Entrant) -> object:
    assert entrant.bundle is not None
    return [
        (part["runtime"], part["options"], [record["sha256"] for record in part["files"]])
        for part in entrant.bundle.manifest["parts"]
    ]


def _measure_in_turns(
    session: Session,
    course: Course,
    spec: BenchSpec,
    enough: Callable[[Rounds], bool] | None,
    on_progress: OnProgress,
) -> None:
    """Measure all who are left, round by round, for as long as there are two of them."""
    short = replace(
        spec,
        fresh=True,
        warmup_runs=min(spec.warmup_runs, _WARMUP_RUNS),
        runs=math.ceil(spec.runs / MOST_ROUNDS),
        duration_s=None if spec.duration_s is None else spec.duration_s / MOST_ROUNDS,
        settle=False,  # rounds of all are alike; what they leave open, further rounds decide
        until=None,
        patience_s=None,
    )
    bundles = {e.name: e.bundle for e in course.entrants}
    course.rounds = {name: [] for name in course.left()}
    wanted = MOST_ROUNDS
    for number in range(MOST_ROUNDS):
        begun_s = time.monotonic()
        turn = course.left()
        if number >= wanted or len(turn) < 2:
            return
        for name in turn if number % 2 == 0 else reversed(turn):
            bundle = bundles[name]
            assert bundle is not None
            step = f"contest: {name}, round {number + 1} of {wanted}"
            try:
                measured = take_measurements(
                    session, bundle=bundle, spec=short, step=step, on_progress=on_progress
                )
            except DeviceError as exc:
                course.drop(name, exc)
                continue
            course.rounds[name].append(measured)
            if not measured.samples_ms or min(measured.samples_ms) <= 0:
                course.out[name] = f"round {number + 1} gave no time of a run"
        if number == 0 and time.monotonic() - begun_s > _QUICK_ROUND_S:
            wanted = FEWEST_ROUNDS
        if enough is not None and enough(course.samples_ms(course.left())):
            return


def _pick(
    session: Session,
    course: Course,
    *,
    data: Dataset | None,
    reference: Run | None,
    max_drop: float | None,
    on_progress: OnProgress,
) -> str:
    """Name the fastest that keeps its accuracy; where none does, the fastest."""
    known: Run | AccuracyResult | None = reference
    while True:
        left = course.left()
        names = [name for name in left if name not in course.lost]
        winner = choose_fastest(course.samples_ms(names or left)).winner
        if not names or len(left) < 2 or data is None or data.labels is None:
            return winner
        try:
            judged = judge_labelled(
                session,
                course.proven[winner].bundle.id,
                data=data,
                reference=known,
                on_progress=on_progress,
            )
        except DeviceError as exc:
            course.drop(winner, exc)
            continue
        known = judged.reference
        course.judged[winner] = judged
        assert judged.labelled is not None
        why = lost_accuracy(judged.labelled, judged.reference, max_drop)
        if not why:
            return winner
        course.lost[winner] = why


def _score_others(
    session: Session,
    course: Course,
    winner: str,
    *,
    data: Dataset | None,
    on_progress: OnProgress,
) -> None:
    """Evaluate those that were not looked at to choose; one that fails there drops out."""
    if data is None or data.labels is None:
        return
    if winner not in course.judged and len(course.left()) > 1:
        return  # the winner was not looked at either
    for name in course.left():
        if name in course.judged:
            continue
        try:
            course.judged[name] = judge_labelled(
                session,
                course.proven[name].bundle.id,
                data=data,
                reference=None,
                on_progress=on_progress,
            )
        except DeviceError as exc:
            course.drop(name, exc)
