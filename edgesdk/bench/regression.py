"""Whether a measurement may pass: limits on latency, accuracy and memory against a reference.

Pure: what is to be measured again is told by `first_look` and done by
`edgesdk.bench.regression_again`. A regression of latency is one that two looks saw, each beyond
what chance explains; accuracy and memory are held against what was recorded.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import edgesdk
from edgesdk.bench.compare_values import Comparison
from edgesdk.bench.history_values import HistoryRun, run_id
from edgesdk.bench.regression_ratio import MedianRatio, ratio_of_medians
from edgesdk.bench.regression_values import (
    Difference,
    GateCheck,
    GateOutcome,
    GateResult,
    Look,
    LookKind,
    ReplayResult,
    Side,
)
from edgesdk.bench.values import BenchmarkReport
from edgesdk.errors import InputError

__all__ = [
    "LEVEL",
    "check_accuracy",
    "check_latency",
    "check_memory",
    "first_look",
    "look_of_comparison",
    "look_of_ratio",
    "make_gate",
    "make_replay",
    "side_of",
]

#: How likely a second look may see a regression where there is none.
LEVEL = 0.05
#: What subtracting and dividing floats may add to a change that is exactly the limit.
_ROUNDING = 1e-9
#: With fewer, an interval of 95 % says so little that a replay agrees with anything.
_SEEN_FINELY = 1.5


def side_of(report: BenchmarkReport, *, called: str, run: HistoryRun | None = None) -> Side:
    """Describe one of two runs.

    Args:
        report: What was measured.
        called: How it was found: a label, an id or a file.
        run: What the history knows of it, where it is from there.
    """
    interval = report.latency.intervals.get("p50_ms")
    return Side(
        called=called,
        run=run_id(report),
        created=report.created,
        model=report.model.name,
        target=report.target.name,
        device=report.device.name,
        bundle=report.bundle.id,
        precision=report.bundle.precision,
        samples=len(report.latency.samples_ms),
        p50_ms=report.latency.p50_ms,
        lower_ms=None if interval is None else interval.lower_ms,
        upper_ms=None if interval is None else interval.upper_ms,
        peak_rss_bytes=report.peak_rss_bytes,
        labels=() if run is None else run.labels,
        branch=None if run is None else run.provenance.branch,
        commit=None if run is None else run.provenance.commit,
    )


def first_look(ours: BenchmarkReport, theirs: BenchmarkReport, *, limit: float) -> Look:
    """Compare what was recorded of both.

    Raises:
        InputError: One has too few samples.
    """
    ratio = ratio_of_medians(ours.latency.samples_ms, theirs.latency.samples_ms)
    return look_of_ratio(ratio, kind="recorded", limit=limit)


def look_of_ratio(
    ratio: MedianRatio,
    *,
    kind: LookKind,
    limit: float,
    seconds: float | None = None,
    notes: Sequence[str] = (),
) -> Look:
    """Make a look of two series that were measured one after the other."""
    return Look(
        kind=kind,
        ratio=ratio.value,
        lower=ratio.lower,
        upper=ratio.upper,
        coverage=ratio.coverage,
        p_value=None,
        slower=ratio.lower > 1.0 + limit,
        seconds=seconds,
        seed=None,
        blocks=None,
        notes=tuple(notes),
    )


def look_of_comparison(comparison: Comparison, *, limit: float) -> Look:
    """Make a look of a comparison in turns."""
    p_value = comparison.slower_than(limit)
    return Look(
        kind="interleaved",
        ratio=comparison.ratio,
        lower=comparison.lower,
        upper=comparison.upper,
        coverage=comparison.coverage,
        p_value=p_value,
        slower=p_value <= LEVEL,
        seconds=comparison.seconds,
        seed=comparison.seed,
        blocks=len(comparison.blocks),
        notes=comparison.notes,
    )


def check_latency(looks: Sequence[Look], *, limit: float) -> GateCheck:
    """Hold the looks against a limit: one is enough to pass, two are needed to fail."""
    first, last = looks[0], looks[-1]
    seen = f"{_times(last.ratio)} (95 % interval {_span(last)}, {_how(last)})"
    kept: bool | None
    if not first.slower:
        kept, said = True, f"no regression of more than {_share(limit)} is shown"
        if first.upper > 1.0 + limit:
            said += f", though one of up to {_share(first.upper - 1.0)} is not ruled out"
    elif len(looks) < 2:
        kept, said = None, f"a regression of more than {_share(limit)} is suspected"
    elif last.slower:
        kept, said = False, f"slower by more than {_share(limit)}, seen twice"
    else:
        kept, said = True, "the regression that was suspected is not confirmed"
        if last.ratio > 1.0 + limit:
            said += ", nor ruled out: the second measurement is too coarse (--seconds)"
        elif last.kind == "interleaved" and last.upper <= 1.0 + limit:
            said += ": measured in turns, the releases differ by less than the limit, so the "
            said += "device or its software changed, not the release"
    return GateCheck(
        name="latency",
        kept=kept,
        change=last.ratio - 1.0,
        limit=limit,
        text=f"{said}: ours takes {seen}",
    )


def check_accuracy(
    ours: BenchmarkReport, theirs: BenchmarkReport, *, limit: float
) -> GateCheck:
    """Hold the metric on labelled data against that of the reference.

    Raises:
        InputError: One of the two has none, or they are of different metrics.
    """
    a, b = ours.accuracy.labelled, theirs.accuracy.labelled
    if a is None or b is None:
        which = "this measurement" if a is None else "the reference"
        raise InputError(
            f"cannot hold the accuracy to a limit: {which} has no labelled result",
            hint="measure with --data, or leave --max-accuracy-drop out",
        )
    if (a.metric, a.kind) != (b.metric, b.kind):
        raise InputError(
            f"cannot hold the accuracy to a limit: ours is {a.metric[:60]}, the reference's "
            f"{b.metric[:60]}",
            hint="evaluate both with the same metric",
        )
    if a.kind == "rate":
        change = b.value - a.value
        said = f"{a.metric} {a.value:.2%}, was {b.value:.2%}: {-100 * change:+.2f} points"
        allowed = f"at most -{100 * limit:.4g} points"
    else:
        change = _growth(a.value, b.value)
        said = f"{a.metric} {a.value:.4g}, was {b.value:.4g}: {change:+.2%}"
        allowed = f"at most +{_share(limit)}"
    if a.samples != b.samples:
        said += f", on {a.samples} samples against {b.samples}"
    return GateCheck(
        name="accuracy",
        kept=change <= limit + _ROUNDING,
        change=change,
        limit=limit,
        text=f"{said} ({allowed})",
    )


def check_memory(ours: BenchmarkReport, theirs: BenchmarkReport, *, limit: float) -> GateCheck:
    """Hold the peak memory of the worker against that of the reference.

    Raises:
        InputError: One of the two was not measured.
    """
    a, b = ours.peak_rss_bytes, theirs.peak_rss_bytes
    if a is None or b is None:
        which = "this measurement" if a is None else "the reference"
        raise InputError(
            f"cannot hold the memory to a limit: {which} has no peak memory",
            hint="the device does not tell it; leave --max-memory-growth out",
        )
    change = _growth(a, b)
    return GateCheck(
        name="memory",
        kept=change <= limit + _ROUNDING,
        change=change,
        limit=limit,
        text=f"peak memory {a / 2**20:.1f} MiB, was {b / 2**20:.1f} MiB: {change:+.2%} "
        f"(at most +{_share(limit)})",
    )


def make_gate(
    *,
    ours: Side,
    theirs: Side,
    differences: Sequence[Difference],
    looks: Sequence[Look],
    checks: Sequence[GateCheck],
) -> GateResult:
    """Put the result together; any limit that was not kept fails it."""
    outcome: GateOutcome = "passed"
    if any(check.kept is False for check in checks):
        outcome = "failed"
    elif any(check.kept is None for check in checks):
        outcome = "unconfirmed"
    order = {False: 0, None: 1, True: 2}
    first = min(checks, key=lambda check: order[check.kept])
    telling = [check.text for check in checks if check.kept == first.kept]
    return GateResult(
        schema="edgesdk.gate/1",
        created=_now(),
        edgesdk=edgesdk.__version__,
        outcome=outcome,
        text="; ".join(telling),
        ours=ours,
        theirs=theirs,
        differences=tuple(differences),
        looks=tuple(looks),
        checks=tuple(checks),
    )


def make_replay(
    ours: BenchmarkReport,
    theirs: BenchmarkReport,
    *,
    called: str,
    differences: Sequence[Difference],
    margin: float,
) -> ReplayResult:
    """Say whether a measurement came out as the one it repeats.

    Raises:
        InputError: One has too few samples.
    """
    ratio = ratio_of_medians(ours.latency.samples_ms, theirs.latency.samples_ms)
    agrees = ratio.lower <= 1.0 + margin and ratio.upper >= 1.0 / (1.0 + margin)
    look = look_of_ratio(ratio, kind="fresh", limit=margin, seconds=ours.wall_s)
    verb = "agrees" if agrees else "does not agree"
    text = (
        f"{verb} within {_share(margin)}: it took {_times(ratio.value)} "
        f"(95 % interval {_span(look)})"
    )
    if agrees and ratio.upper / ratio.lower > _SEEN_FINELY:
        text += "; so wide an interval would agree with much: measure longer"
    if not agrees and differences:
        text += f"; {', '.join(each.name for each in differences)} differ"
    return ReplayResult(
        schema="edgesdk.replay/1",
        created=_now(),
        edgesdk=edgesdk.__version__,
        agrees=agrees,
        text=text,
        margin=margin,
        ours=side_of(ours, called="this run"),
        theirs=side_of(theirs, called=called),
        differences=tuple(differences),
        look=look,
    )


def _growth(ours: float, theirs: float) -> float:
    if theirs == 0:
        return 0.0 if ours == 0 else 1e18
    return ours / theirs - 1.0


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"


def _times(ratio: float) -> str:
    return f"{ratio:.3f} times as long"


def _span(look: Look) -> str:
    return f"{look.lower:.3f} to {look.upper:.3f}"


def _how(look: Look) -> str:
    if look.kind == "recorded":
        return "as recorded"
    if look.kind == "fresh":
        return "measured again against what was recorded"
    return f"measured in turns, {look.blocks} pairs of blocks"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
