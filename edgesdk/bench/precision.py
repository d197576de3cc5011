"""Whether a quantized bundle is any better than the float one on a device.

Both are proven and measured in turns before either becomes active, so that a quantized bundle
that loses changes nothing. One that wins is found out in two rounds; only one that seems to
lose is measured for as long as it takes to be sure.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgesdk.bench.accuracy import judge_labelled
from edgesdk.bench.contest import ContestResult, Rounds, run_contest
from edgesdk.bench.course import Entrant
from edgesdk.bench.decide import lost_accuracy, ratio_text
from edgesdk.bench.values import Contest, Contestant
from edgesdk.errors import FindingsError
from edgesdk.progress import OnProgress, ignore_progress

if TYPE_CHECKING:
    from edgesdk.bench.values import BenchSpec
    from edgesdk.bundle import Bundle
    from edgesdk.data import Dataset
    from edgesdk.deploy.activate import Proven
    from edgesdk.deploy.delta_bases import Bases
    from edgesdk.devices.session import Session
    from edgesdk.profiles.values import TargetProfile

__all__ = ["PrecisionVerdict", "judge_precision"]

#: Rounds after which one that was faster in each of them is let pass.
_QUICK_ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionVerdict:
    """What a device said of a quantized bundle beside the float one.

    Attributes:
        result: The contest of the two.
        refusal: Why the quantized one is refused; None where it is not.
        quantized: It, proven on the device.
        floats: The float one; None where the device does not take it.
        complete: Whether all rounds were made, so that the contest says how much they differ.
    """

    result: ContestResult
    refusal: FindingsError | None
    quantized: Proven
    floats: Proven | None
    complete: bool


def judge_precision(
    session: Session,
    quantized: Bundle,
    floats: Bundle,
    *,
    spec: BenchSpec | None = None,
    profile: TargetProfile | None = None,
    data: Dataset | None = None,
    max_drop: float | None = None,
    force_target: bool = False,
    check_timeout_s: float = 600.0,
    bases: Bases | None = None,
    on_progress: OnProgress = ignore_progress,
) -> PrecisionVerdict:
    """Measure a quantized bundle and the float one in turns, and say whether it is worth it.

    It is not where it is clearly slower, and where it is not clearly faster and loses more on
    labelled data than it may. Nothing becomes active. The other arguments and errors are those
    of `edgesdk.bench.contest.run_contest`.

    Raises:
        DeviceError: The device refuses the quantized bundle.
        LinkError: The link broke.
    """
    ours, theirs = _entrant(quantized), _entrant(floats)
    if ours.name == theirs.name:  # a build that found nothing to quantize
        ours = replace(ours, precision=f"{ours.precision} quantized")
    quick = False

    def enough(rounds: Rounds) -> bool:
        nonlocal quick
        pairs = list(zip(rounds.get(ours.name, ()), rounds.get(theirs.name, ()), strict=False))
        quick = len(pairs) == _QUICK_ROUNDS and all(
            statistics.median(mine) < statistics.median(other) for mine, other in pairs
        )
        return quick

    result = run_contest(
        session,
        (ours, theirs),
        spec=spec,
        profile=profile,
        enough=enough,
        force_target=force_target,
        check_timeout_s=check_timeout_s,
        bases=bases,
        on_progress=on_progress,
    )
    if ours.name in result.refusals:
        raise result.refusals[ours.name]
    why = ""
    if not quick:
        why = _why_slower(result.contest, ours.name) or _why_worse(
            session, result, ours.name, theirs.name, data, max_drop, on_progress
        )
    if why:
        result = replace(result, contest=_refused(result.contest, theirs.name, why))
    return PrecisionVerdict(
        result=result,
        refusal=_refusal(session, quantized, why) if why else None,
        quantized=result.proven[ours.name],
        floats=None if theirs.name in result.refusals else result.proven.get(theirs.name),
        complete=not quick,
    )


def _entrant(bundle: Bundle) -> Entrant:
    predicted = bundle.manifest.get("predicted")
    counts = predicted.get("nodes_by_backend") if isinstance(predicted, dict) else None
    nodes = {str(name): count for name, count in (counts or {}).items()}
    backend = bundle.manifest["parts"][0]["backend"]
    if nodes:
        backend = max(nodes, key=lambda name: nodes[name])
    return Entrant(backend=backend, bundle=bundle, precision=bundle.precision, nodes=nodes)


def _why_slower(contest: Contest, ours: str) -> str:
    """Say how much slower it clearly is; empty where it is not."""
    if contest.winner == ours or contest.decided_by == "alone":
        return ""
    mine = next(each for each in contest.contestants if each.name == ours)
    other = next(each for each in contest.contestants if each.name == contest.winner)
    if mine.ratio is None:
        return ""
    medians = f"{_median(mine)} instead of {_median(other)}"
    return f"it takes {ratio_text(mine.ratio)} as {other.name}: {medians}"


def _median(each: Contestant) -> str:
    value = None if each.latency is None else each.latency.p50_ms
    return "-" if value is None else f"{value:.3g} ms"


def _why_worse(  # noqa: PLR0917 - private, and each is of another type
    session: Session,
    result: ContestResult,
    ours: str,
    theirs: str,
    data: Dataset | None,
    max_drop: float | None,
    on_progress: OnProgress,
) -> str:
    """Say what one loses that is not clearly faster; empty where that is within the limit."""
    contest = result.contest
    if contest.decided_by != "order" or data is None or data.labels is None:
        return ""
    scores = [
        judge_labelled(
            session,
            result.proven[name].bundle.id,
            data=data,
            reference=None,
            on_progress=on_progress,
        ).labelled
        for name in (ours, theirs)
    ]
    if scores[0] is None:
        return ""
    lost = lost_accuracy(scores[0], scores[1], max_drop)
    return f"it is not clearly faster than {theirs}, and {lost}" if lost else ""


def _refused(contest: Contest, better: str, why: str) -> Contest:
    return replace(
        contest,
        winner=better,
        decided_by="refused",
        why=f"{better} is the better one, and nothing was switched: of the other, {why}",
    )


def _refusal(session: Session, bundle: Bundle, why: str) -> FindingsError:
    return FindingsError(
        f"cannot deploy {bundle.name} {bundle.precision} to {session.device_name}: {why}; the "
        "active release is unchanged",
        hint="deploy the float model (--precision fp32), let the device choose (--precision "
        "auto), or take it all the same (--accept-slower)",
        device=session.device_name,
        bundle=bundle.id,
        precision=bundle.precision,
    )
