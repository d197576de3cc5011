"""Let bundles of one model compete on a device: prove all, measure them in turns, keep one.

Each round starts a worker of its own for each bundle, and every other round goes through them
backwards: what drifts (a clock, a temperature, another program) hits all alike, and what one
process happens to have, such as the layout of its memory, counts once and not in every sample.
Nothing becomes active here: whatever fails, the device keeps the release that it had.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgesdk.bench.accuracy import Judged, Run, judge_labelled
from edgesdk.bench.assemble import bundle_record
from edgesdk.bench.decide import choose_fastest, lost_accuracy, ratio_text
from edgesdk.bench.measurements import Measurements, RuntimeRecord
from edgesdk.bench.run import take_measurements
from edgesdk.bench.statistics import make_latency, make_ratio, percentile
from edgesdk.bench.values import (
    AccuracyResult,
    BenchSpec,
    Contest,
    Contestant,
    DecidedBy,
    Ratio,
)
from edgesdk.deploy.activate import Proven
from edgesdk.deploy.deploy import prove_bundle
from edgesdk.errors import DeviceError, InputError, TargetMismatch
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from edgesdk.bundle import Bundle
    from edgesdk.data import Dataset
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.deploy.values import RuntimeUsed
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = ["ContestResult", "Entrant", "run_contest"]

#: With 6 rounds all have to say the same for a claim, with 10 one may say otherwise.
FEWEST_ROUNDS, MOST_ROUNDS = 6, 10
#: Where a round of all takes longer, the fewest are made.
_QUICK_ROUND_S = 8.0
#: Runs before those that count, in each round; `BenchSpec.warmup_runs` may be fewer.
_WARMUP_RUNS = 3
_CHECK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A backend that competes, with the bundle in which it goes before the others.

    ``bundle`` is None where nothing of it can be measured, for the reason in ``why_out``;
    ``nodes`` are those of the graph by backend, as planned.
    """

    backend: str
    bundle: Bundle | None
    nodes: Mapping[str, int] = field(default_factory=dict)
    why_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestResult:
    """Who won, proven on the device and ready for `edgesdk.deploy.activate_bundle`.

    ``judged`` is what labelled data gave of the winner; None where they were not run.
    """

    contest: Contest
    winner: Proven
    judged: Judged | None


@dataclass(slots=True)
class _Course:
    """What is known so far; lives for one contest."""

    entrants: Sequence[Entrant]
    proven: dict[str, Proven] = field(default_factory=dict)
    rounds: dict[str, list[Measurements]] = field(default_factory=dict)
    judged: dict[str, Judged] = field(default_factory=dict)
    #: Who loses too much on labelled data, and how much.
    lost: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    #: The first that a device refused: what is raised where nobody is left.
    refusal: DeviceError | None = None

    def drop(self, backend: str, exc: DeviceError) -> None:
        """Go on without one."""
        self.out[backend] = str(exc)
        self.refusal = self.refusal or exc

    def left(self) -> list[str]:
        """Who is still in, in order."""
        return [e.backend for e in self.entrants if e.backend not in self.out]

    def require_one(self) -> None:
        """Raise what the device said first where nobody is left."""
        if not self.left():
            assert self.refusal is not None
            raise self.refusal

    def samples_ms(self, names: Sequence[str]) -> dict[str, list[tuple[float, ...]]]:
        """Give the samples of each round."""
        rounds = {name: self.rounds.get(name, []) for name in names}
        return {name: [one.samples_ms for one in each] for name, each in rounds.items()}


def run_contest(
    session: Session,
    entrants: Sequence[Entrant],
    *,
    spec: BenchSpec | None = None,
    profile: TargetProfile | None = None,
    data: Dataset | None = None,
    reference: Run | None = None,
    max_drop: float | None = None,
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
    course = _Course(entrants, out={e.backend: e.why_out for e in entrants if not e.bundle})
    if not course.left():
        raise InputError("cannot hold a contest: no entrant has a bundle")
    for entrant in entrants:
        if entrant.bundle is None or _is_double(entrant, course):
            continue
        try:
            course.proven[entrant.backend] = prove_bundle(
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
            course.drop(entrant.backend, exc)
    course.require_one()
    _measure_in_turns(session, course, spec or BenchSpec(), on_progress)
    course.require_one()
    winner = _pick(
        session,
        course,
        data=data,
        reference=reference,
        max_drop=max_drop,
        on_progress=on_progress,
    )
    return ContestResult(
        contest=_record(course, winner),
        winner=course.proven[winner],
        judged=course.judged.get(winner),
    )


def _is_double(entrant: Entrant, course: _Course) -> bool:
    """Drop one whose bundle is another's to the last bit."""
    for other in course.entrants:
        if other is entrant:
            return False
        same = other.bundle is not None and entrant.bundle is not None
        if same and _parts(other) == _parts(entrant):
            course.out[entrant.backend] = f"its parts are the same as those of {other.backend}"
            return True
    return False


def _parts(entrant: Entrant) -> object:
    assert entrant.bundle is not None
    return [
        (part["runtime"], part["options"], [record["sha256"] for record in part["files"]])
        for part in entrant.bundle.manifest["parts"]
    ]


def _measure_in_turns(
    session: Session, course: _Course, spec: BenchSpec, on_progress: OnProgress
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
    bundles = {e.backend: e.bundle for e in course.entrants}
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


def _pick(
    session: Session,
    course: _Course,
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


def _decision(course: _Course, winner: str) -> tuple[DecidedBy, str]:
    """Say what decided, and the same in words."""
    left = course.left()
    if len(left) == 1:
        return "alone", f"{winner} is the only one that is left"
    choice = choose_fastest(course.samples_ms(left))
    if course.lost and winner not in course.lost:
        faster = "; ".join(f"{name}: {why}" for name, why in course.lost.items())
        return "accuracy", f"{winner} is the fastest that keeps its accuracy ({faster})"
    told = ", ".join(f"{name} takes {ratio_text(r)}" for name, r in choice.ratios.items())
    lost = f"; none keeps its accuracy: {course.lost[winner]}" if course.lost else ""
    if choice.tied:
        alike = " and ".join((winner, *choice.tied))
        return "order", (
            f"a tie: no clear difference between {alike}, and {winner} comes first in the "
            f"profile ({told}){lost}"
        )
    return "time", f"{winner} is the fastest: {told}{lost}"


def _record(course: _Course, winner: str) -> Contest:
    left = course.left()
    medians = {
        name: [statistics.median(samples) for samples in rounds]
        for name, rounds in course.samples_ms(left).items()
    }
    ratios = {
        name: make_ratio(medians[name], medians[winner])
        for name in left
        if name != winner and medians[name]
    }
    decided_by, why = _decision(course, winner)
    told = [
        sample.throttled
        for rounds in course.rounds.values()
        for measured in rounds
        for sample in measured.condition_samples
        if sample.throttled is not None
    ]
    return Contest(
        contestants=tuple(
            _contestant(course, entrant, ratios.get(entrant.backend))
            for entrant in course.entrants
        ),
        winner=winner,
        decided_by=decided_by,
        why=why,
        throttled=any(told) if told else None,
        emulated=_emulator(course),
    )


def _emulator(course: _Course) -> str | None:
    said = (m.static.get("emulated") for rounds in course.rounds.values() for m in rounds)
    return next((str(name) for name in said if name is not None), None)


def _contestant(course: _Course, entrant: Entrant, ratio: Ratio | None) -> Contestant:
    name = entrant.backend
    rounds = course.rounds.get(name, [])
    samples = [sample for measured in rounds for sample in measured.samples_ms]
    judged = course.judged.get(name)
    return Contestant(
        backend=name,
        bundle=None if entrant.bundle is None else bundle_record(entrant.bundle),
        nodes=dict(entrant.nodes),
        runtimes=_runtimes(course, name),
        latency=make_latency(samples) if samples else None,
        p95_ms=percentile(samples, 0.95),
        rounds=tuple(len(measured.samples_ms) for measured in rounds),
        cold_start_ms=_median(measured.cold_start_ms for measured in rounds),
        load_ms=_median(measured.load_ms for measured in rounds),
        peak_rss_bytes=max(
            (m.peak_rss_bytes for m in rounds if m.peak_rss_bytes is not None), default=None
        ),
        ratio=ratio,
        labelled=None if judged is None else judged.labelled,
        why_out=course.out.get(name) or course.lost.get(name, ""),
    )


def _runtimes(course: _Course, name: str) -> tuple[str, ...]:
    """Name what ran the parts: as the measuring saw it, or else the self-check."""
    rounds = course.rounds.get(name)
    used: Sequence[RuntimeRecord | RuntimeUsed] = ()
    if rounds:
        used = rounds[0].runtimes
    elif name in course.proven:
        used = course.proven[name].self_check.runtimes
    return tuple(dict.fromkeys(f"{one.runtime} {one.version or ''}".strip() for one in used))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
