"""What is known of a contest while it runs, and the record that a report keeps of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgesdk.bench.accuracy import Judged
from edgesdk.bench.assemble import bundle_record
from edgesdk.bench.decide import choose_fastest, ratio_text
from edgesdk.bench.measurements import Measurements, RuntimeRecord
from edgesdk.bench.statistics import make_latency, make_ratio, percentile
from edgesdk.bench.values import Contest, Contestant, DecidedBy, Ratio, contestant_name
from edgesdk.deploy.activate import Proven
from edgesdk.errors import DeviceError

if TYPE_CHECKING:
    from edgesdk.bundle import Bundle
    from edgesdk.deploy.values import RuntimeUsed

__all__ = ["Course", "Entrant", "contest_record"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A bundle that competes: a backend, or a backend in one of several precisions.

    ``backend`` goes before the others in ``bundle``, which is None where nothing of it can be
    measured, for the reason in ``why_out``; ``precision`` is empty where all have the same.
    ``nodes`` are those of the graph by backend, as planned.
    """

    backend: str
    bundle: Bundle | None
    precision: str = ""
    nodes: Mapping[str, int] = field(default_factory=dict)
    why_out: str = ""

    @property
    def name(self) -> str:
        """What it is called in the contest."""
        return contestant_name(self.backend, self.precision)


@dataclass(slots=True)
class Course:
    """What is known so far; lives for one contest."""

    entrants: Sequence[Entrant]
    proven: dict[str, Proven] = field(default_factory=dict)
    rounds: dict[str, list[Measurements]] = field(default_factory=dict)
    judged: dict[str, Judged] = field(default_factory=dict)
    #: Who loses too much on labelled data, and how much.
    lost: dict[str, str] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    #: What the device said of those it refused; the first is raised where nobody is left.
    refusals: dict[str, DeviceError] = field(default_factory=dict)

    def drop(self, name: str, exc: DeviceError) -> None:
        """Go on without one."""
        self.out[name] = str(exc)
        self.refusals[name] = exc

    def left(self) -> list[str]:
        """Who is still in, in order."""
        return [e.name for e in self.entrants if e.name not in self.out]

    def require_one(self) -> None:
        """Raise what the device said first where nobody is left."""
        if not self.left():
            nothing = DeviceError(f"cannot hold a contest: {'; '.join(self.out.values())}")
            raise next(iter(self.refusals.values()), nothing)

    def samples_ms(self, names: Sequence[str]) -> dict[str, list[tuple[float, ...]]]:
        """Give the samples of each round."""
        rounds = {name: self.rounds.get(name, []) for name in names}
        return {name: [one.samples_ms for one in each] for name, each in rounds.items()}

    @property
    def by_precision(self) -> bool:
        """Whether precisions compete, not only backends."""
        return any(each.precision for each in self.entrants)


def _decision(course: Course, winner: str) -> tuple[DecidedBy, str]:
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
        first = "first" if course.by_precision else "first in the profile"
        return "order", (
            f"a tie: no clear difference between {alike}, and {winner} comes {first} "
            f"({told}){lost}"
        )
    return "time", f"{winner} is the fastest: {told}{lost}"


def contest_record(course: Course, winner: str) -> Contest:
    """Give what a report keeps of a contest that is over."""
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
            _contestant(course, entrant, ratios.get(entrant.name))
            for entrant in course.entrants
        ),
        winner=winner,
        decided_by=decided_by,
        why=why,
        throttled=any(told) if told else None,
        emulated=_emulator(course),
    )


def _emulator(course: Course) -> str | None:
    said = (m.static.get("emulated") for rounds in course.rounds.values() for m in rounds)
    return next((str(name) for name in said if name is not None), None)


def _contestant(course: Course, entrant: Entrant, ratio: Ratio | None) -> Contestant:
    name = entrant.name
    rounds = course.rounds.get(name, [])
    samples = [sample for measured in rounds for sample in measured.samples_ms]
    judged = course.judged.get(name)
    return Contestant(
        backend=entrant.backend,
        precision=entrant.precision,
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
        cosine=_cosine(course, name),
        why_out=course.out.get(name) or course.lost.get(name, ""),
    )


def _runtimes(course: Course, name: str) -> tuple[str, ...]:
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


def _cosine(course: Course, name: str) -> float | None:
    """Give the worst cosine to the unquantized model over check vectors and outputs."""
    if name not in course.proven:
        return None
    vectors = course.proven[name].self_check.vectors
    known = [o.reference_cosine for vector in vectors for o in vector.outputs]
    return min((value for value in known if value is not None), default=None)
