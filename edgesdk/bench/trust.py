"""Grade a measurement: what its samples and its circumstances say against its figures. Pure.

The limits below are conventions, not laws; each is said with the figure that is held against
it. What the samples show is tested in `edgesdk.bench.diagnose`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgesdk.bench.conditions import clock_moves, company, slow_governors, warming
from edgesdk.bench.diagnose import Diagnosis, diagnose
from edgesdk.bench.measurements import Measurements
from edgesdk.bench.procedure_values import Procedure
from edgesdk.bench.statistics import order_statistic_ranks, samples_needed
from edgesdk.bench.trust_values import Trust, TrustReason, Weight, grade_of
from edgesdk.bench.values import BenchSpec, Conditions

__all__ = ["grade_measured", "judge_trust"]

#: Half of the median's interval, as a share of it: above the first minor, the second serious.
_WIDE, _TOO_WIDE = 0.02, 0.05
_DRIFT_SERIOUS = 0.05
#: Warm-up runs left among the samples: a larger share moves the median too.
_WARMUP_SERIOUS = 0.1
_OUTLIERS, _OUTLIERS_SERIOUS = 0.01, 0.05
#: By so much more of the time than of the runs outliers change what a user gets: on a quiet
#: machine with a sharp mode, runs that take 7 % longer already lie far above the others.
_OUTLIERS_EXCESS = 0.05
#: Neighbours that agree make so many samples count as one.
_CORRELATED = 3.0
#: Cores that other processes took.
_COMPANY_SERIOUS = 0.5
#: What waiting for a turn brings about by itself.
_OF_QUEUES = ("outliers", "correlation", "modes")
_WEIGHTS: tuple[Weight, ...] = ("grave", "serious", "minor")


def judge_trust(
    samples_ms: Sequence[float],
    conditions: Conditions,
    *,
    cpu_count: int | None = None,
    procedure: Procedure | None = None,
    spec: BenchSpec | None = None,
) -> Trust:
    """Grade samples, in the order in which they were measured, and their circumstances.

    Args:
        samples_ms: Every counted run; at least one.
        conditions: What the device said of itself.
        cpu_count: Its cores, to hold its load against; unknown where None.
        procedure: How the runs came about, where that is known.
        spec: What was asked for. Where runs arrive at random and wait for their turn, long
            ones and neighbours that agree are what is measured, and no reason for doubt.
    """
    found = diagnose(samples_ms)
    reasons = [
        reason
        for reason in _of_samples(found, samples_ms)
        if spec is None or spec.scenario != "server" or reason.about not in _OF_QUEUES
    ]
    reasons += _of_conditions(conditions)
    reasons += _of_company(conditions, cpu_count, procedure)
    if procedure is not None:
        reasons += _of_procedure(procedure)
    reasons.sort(key=lambda reason: _WEIGHTS.index(reason.weight))
    modes = found.modes
    return Trust(
        grade=grade_of([reason.weight for reason in reasons]),
        reasons=tuple(reasons),
        effective_samples=found.effective_samples,
        warmup_left=found.warmup_left,
        drift=found.drift,
        modes_ms=() if modes is None else (modes.fast_ms, modes.slow_ms),
        outliers=found.outliers,
    )


def grade_measured(
    measured: Measurements | None,
    conditions: Conditions,
    spec: BenchSpec,
    *,
    cpu_count: int | None,
) -> Trust | None:
    """Grade what a device measured; None where there is no sample."""
    if measured is None or not measured.samples_ms:
        return None
    return judge_trust(
        measured.samples_ms,
        conditions,
        cpu_count=cpu_count,
        procedure=measured.procedure,
        spec=spec,
    )


def _of_samples(found: Diagnosis, samples_ms: Sequence[float]) -> Iterator[TrustReason]:
    yield from _of_count(found, samples_ms)
    if found.warmup_left:
        share = found.warmup_left / found.count
        word = "slower" if found.warmup_share > 0 else "faster"
        yield TrustReason(
            about="warm-up",
            weight="serious" if share > _WARMUP_SERIOUS else "minor",
            text=f"the first {found.warmup_left} of {found.count} runs are "
            f"{abs(found.warmup_share):.1%} {word} than the rest: the warm-up was too short",
        )
    if found.drift is not None and found.drift_p is not None:
        word = "longer" if found.drift > 0 else "shorter"
        yield TrustReason(
            about="drift",
            weight="serious" if abs(found.drift) > _DRIFT_SERIOUS else "minor",
            text=f"from the first run to the last the time becomes {abs(found.drift):.1%} "
            f"{word} (p = {found.drift_p:.1g})",
        )
    if found.modes is not None:
        modes = found.modes
        yield TrustReason(
            about="modes",
            weight="serious",
            text=f"the runs gather in two places: {1 - modes.slow_share:.0%} near "
            f"{modes.fast_ms:.3g} ms and {modes.slow_share:.0%} near {modes.slow_ms:.3g} ms, "
            "so no one figure describes them",
        )
    outliers = found.outliers
    if outliers is not None and outliers.share > _OUTLIERS:
        excess = outliers.time_share - outliers.share
        is_serious = outliers.share > _OUTLIERS_SERIOUS and excess > _OUTLIERS_EXCESS
        yield TrustReason(
            about="outliers",
            weight="serious" if is_serious else "minor",
            text=f"{outliers.count} runs ({outliers.share:.1%}) lie far above the others (over "
            f"{outliers.above_ms:.3g} ms) and take {outliers.time_share:.1%} of the time",
        )
    if found.correlation > _CORRELATED:
        yield TrustReason(
            about="correlation",
            weight="minor",
            text=f"neighbouring runs agree: {found.count} runs tell as much as "
            f"{found.effective_samples:.0f} independent ones, so the intervals of the "
            "percentiles are too narrow",
        )


def _of_count(found: Diagnosis, samples_ms: Sequence[float]) -> Iterator[TrustReason]:
    """Say where there are too few samples for the median, or it is not known well."""
    needed = samples_needed(0.5)
    independent = int(found.effective_samples)
    ranks = order_statistic_ranks(independent, 0.5)
    if ranks is None:
        yield TrustReason(
            about="samples",
            weight="grave",
            text=f"{found.count} runs, worth {independent} independent ones, are too few even "
            f"for an interval of the median (needs {needed})",
        )
        return
    ordered = sorted(samples_ms)
    lower, upper = (_at_share(ordered, (rank - 0.5) / independent) for rank in ranks[:2])
    median = _at_share(ordered, 0.5)
    half = (upper - lower) / 2 / median if median > 0 else math.inf
    if half > _WIDE:
        yield TrustReason(
            about="interval",
            weight="serious" if half > _TOO_WIDE else "minor",
            text=f"as alike as neighbouring runs are, the median is known to {half:.1%} only, "
            f"either way (at most {_WIDE:.0%} is good): measure longer",
        )


def _at_share(ordered: Sequence[float], share: float) -> float:
    """Give the sample that so large a share lies below."""
    return ordered[min(len(ordered) - 1, max(0, math.floor(share * len(ordered))))]


def _of_conditions(seen: Conditions) -> Iterator[TrustReason]:
    emulator = seen.static.get("emulated")
    if emulator is not None:
        yield TrustReason(
            about="emulation",
            weight="grave",
            text=f"the device is emulated ({emulator}): a board takes other times",
        )
    if seen.throttled:
        causes = {cause for sample in seen.samples for cause in sample.throttled or ()}
        named = f" ({', '.join(sorted(causes))})" if causes else ""
        yield TrustReason(
            about="throttling",
            weight="grave",
            text=f"the clock was limited while it was measured{named}",
        )
    slow = slow_governors(seen.static)
    if slow:
        yield TrustReason(
            about="clock",
            weight="minor",
            text=f"the governor is {', '.join(slow)} (performance keeps the clock still)",
        )
    for text in clock_moves(seen.samples):
        yield TrustReason(about="clock", weight="minor", text=text)
    for text in warming(seen.samples):
        yield TrustReason(about="temperature", weight="minor", text=text)
    if not seen.samples:
        yield TrustReason(
            about="unknown conditions",
            weight="minor",
            text="nobody looked at clock, temperature and load meanwhile",
        )


def _of_company(
    seen: Conditions, cpu_count: int | None, procedure: Procedure | None
) -> Iterator[TrustReason]:
    """Weigh what other processes took: little that was counted is a minor reason."""
    others = None if procedure is None else procedure.others_cpu
    is_minor = others is not None and others <= _COMPANY_SERIOUS
    for text in company(seen.samples, cpu_count, procedure):
        yield TrustReason(about="load", weight="minor" if is_minor else "serious", text=text)


def _of_procedure(how: Procedure) -> Iterator[TrustReason]:
    if how.incomplete:
        yield TrustReason(about="broken off", weight="serious", text=how.incomplete)
    if how.warm_up is not None and how.warm_up.settled is False:
        yield TrustReason(
            about="warm-up",
            weight="minor",
            text=f"it was not warm when counting began: {how.warm_up.how}",
        )
    if how.clock_went_back:
        yield TrustReason(
            about="clock",
            weight="minor",
            text=f"the device's clock went back {how.clock_went_back} times",
        )
