"""Several reports as points to compare: who is faster, more exact or smaller than all others.

Only reports of one model can be compared, and only on times that were not an emulator's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgesdk.bench.values import AccuracyResult, BenchmarkReport, Contest, Interval
from edgesdk.report.summary import clean

__all__ = [
    "Point",
    "Scored",
    "by_model",
    "contest_points",
    "front",
    "reading_order",
    "scored_points",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One bundle measured on one device.

    ``mark`` names it on the page: the report's number, with ``b`` for its baseline.
    ``p50_ms`` is the median, None where nothing was measured; ``size_bytes`` that of its parts.
    """

    mark: str
    model: str
    precision: str
    device: str
    target: str
    p50_ms: float | None
    interval: Interval | None
    p90_ms: float | None
    size_bytes: int
    labelled: AccuracyResult | None
    emulated: bool

    @property
    def is_baseline(self) -> bool:
        """Whether it is the baseline of a report."""
        return self.mark.endswith("b")

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        return (
            f"{self.mark} ({clean(self.precision, limit=20)} on {clean(self.device, limit=40)})"
        )


#: A point with its two values: the first is better small, the second where the caller says so.
Scored = tuple[Point, float, float]


def reading_order(reports: Sequence[BenchmarkReport]) -> list[BenchmarkReport]:
    """Put reports of one model side by side, then by target, device, precision and date."""
    return sorted(
        reports,
        key=lambda report: (
            report.model.name,
            report.target.name,
            report.device.name,
            report.bundle.precision,
            report.created,
        ),
    )


def by_model(reports: Sequence[BenchmarkReport]) -> dict[str, list[Point]]:
    """Give the points of all reports by the name of the model, baselines after their report.

    A baseline that is a report of its own, of the same bundle on the same device, is left out.
    """
    told = {(report.bundle.id, report.device.name) for report in reports}
    points: dict[str, list[Point]] = {}
    for number, report in enumerate(reports, start=1):
        group = points.setdefault(report.model.name, [])
        group.append(_point(report, str(number)))
        base = report.baseline
        if base is not None and (base.bundle.id, report.device.name) not in told:
            group.append(_point(report, f"{number}b"))
    return points


def _point(report: BenchmarkReport, mark: str) -> Point:
    base = report.baseline if mark.endswith("b") else None
    one = report if base is None else base
    return Point(
        mark=mark,
        model=report.model.name,
        precision=one.bundle.precision,
        device=report.device.name,
        target=report.target.name,
        p50_ms=one.latency.p50_ms,
        interval=one.latency.intervals.get("p50_ms"),
        p90_ms=one.latency.p90_ms,
        size_bytes=one.bundle.bytes,
        labelled=one.accuracy.labelled,
        emulated=report.conditions.static.get("emulated") is not None,
    )


def contest_points(contest: Contest) -> list[Point]:
    """Give the contestants that were measured; they differ in backend and precision."""
    return [
        Point(
            mark=str(number),
            model="",
            precision=each.precision or ("" if each.bundle is None else each.bundle.precision),
            device=each.backend,
            target="",
            p50_ms=each.latency.p50_ms,
            interval=each.latency.intervals.get("p50_ms"),
            p90_ms=each.latency.p90_ms,
            size_bytes=0 if each.bundle is None else each.bundle.bytes,
            labelled=each.labelled,
            emulated=contest.emulated is not None,
        )
        for number, each in enumerate(contest.contestants, start=1)
        if each.latency is not None
    ]


def scored_points(points: Sequence[Point]) -> tuple[str, list[Scored], int]:
    """Give the metric that most points have, those with a value of it, and how many have none.

    Values of two metrics, or of a rate and an error, do not stand on one axis.
    """
    kinds = [
        (point.labelled.metric, point.labelled.kind)
        for point in points
        if point.labelled is not None and point.p50_ms
    ]
    if not kinds:
        return "", [], len(points)
    chosen = max(dict.fromkeys(kinds), key=kinds.count)
    kept = [
        (point, point.p50_ms, point.labelled.value)
        for point in points
        if point.labelled is not None
        and point.p50_ms
        and (point.labelled.metric, point.labelled.kind) == chosen
    ]
    return chosen[0], kept, len(points) - len(kept)


def front(scored: Sequence[Scored], *, better: Callable[[float, float], bool]) -> list[Scored]:
    """Give the Pareto front, the fastest first: what no other beats in one and equals in both.

    Args:
        scored: Points with a time and another value.
        better: Whether its first argument is a better second value than its second.
    """
    kept: list[Scored] = []
    real = [each for each in scored if not each[0].emulated]
    for each in sorted(real, key=lambda one: one[1]):
        rivals = [other for other in real if other[1] <= each[1] and other is not each]
        if not any(
            better(other[2], each[2]) or (other[2] == each[2] and other[1] < each[1])
            for other in rivals
        ):
            kept.append(each)
    return kept
