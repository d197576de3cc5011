"""Which of several bundles is the fastest, by rounds measured in turns. Pure.

A difference counts only where the interval of the ratio does not hold 1: what the rounds
cannot tell apart is a tie, and a tie goes by the order in which the contestants are given.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgesdk.bench.statistics import make_ratio
from edgesdk.bench.values import AccuracyResult, Ratio

__all__ = ["Choice", "choose_fastest", "lost_accuracy", "ratio_text"]

#: What labelled data may lose where nobody said anything: one point, as a build allows.
DEFAULT_DROP = 0.01
_NEAR_ONE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The fastest of some, the ones it cannot be told from, and everybody's ratio to it.

    ``tied`` are those whose difference to the fastest the rounds do not show, the winner not
    among them; ``ratios`` are by name, of all but the winner.
    """

    winner: str
    tied: tuple[str, ...]
    ratios: Mapping[str, Ratio]


def choose_fastest(rounds_ms: Mapping[str, Sequence[Sequence[float]]]) -> Choice:
    """Choose among contestants by their rounds.

    Args:
        rounds_ms: The samples of each round by contestant, in the order a tie goes by. All
            have the same number of rounds, every round at least one sample above 0; round i
            of each was measured beside round i of the others.
    """
    medians = {
        name: [statistics.median(samples) for samples in rounds]
        for name, rounds in rounds_ms.items()
    }
    fastest, *others = medians
    for name in others:
        if make_ratio(medians[name], medians[fastest]).value < 1:
            fastest = name
    alike = [
        name
        for name in medians
        if name == fastest or not _differs(make_ratio(medians[name], medians[fastest]))
    ]
    winner = alike[0]
    return Choice(
        winner=winner,
        tied=tuple(name for name in alike if name != winner),
        ratios={
            name: make_ratio(medians[name], medians[winner])
            for name in medians
            if name != winner
        },
    )


def _differs(ratio: Ratio) -> bool:
    """Say whether the interval of a ratio leaves out 1."""
    if ratio.lower is None or ratio.upper is None:
        return False
    return not ratio.lower <= 1.0 <= ratio.upper


def ratio_text(ratio: Ratio) -> str:
    """Say a ratio in words, with its interval."""
    if ratio.lower is None or ratio.upper is None:
        count = f"{ratio.rounds} round{'s'[: ratio.rounds != 1]}"
        said = f"{ratio.value:.2f} times as long"
        return f"{said} (too few for an interval: {count}, expected 6)"
    # near 1 so many digits that one sees on which side an end lies
    near = min(abs(end - 1.0) for end in (ratio.lower, ratio.upper, ratio.value))
    digits = 3 if near < _NEAR_ONE else 2
    value, lower, upper = (
        f"{number:.{digits}f}" for number in (ratio.value, ratio.lower, ratio.upper)
    )
    rounds = f"{ratio.rounds} rounds"
    return f"{value} times as long (95 % interval {lower} to {upper}, {rounds})"


def lost_accuracy(
    ours: AccuracyResult, reference: AccuracyResult | None, max_drop: float | None
) -> str:
    """Say by how much labelled data lose more than allowed; empty where they do not.

    Args:
        ours: The metric of a bundle on the device.
        reference: The same metric of the unquantized model; None where it was not run.
        max_drop: The loss the user allows, of a rate or in parts of an error; None for 0.01.
    """
    if reference is None or reference.metric != ours.metric:
        return ""
    allowed = DEFAULT_DROP if max_drop is None else max_drop
    if ours.kind == "rate":
        lost = reference.value - ours.value
        seen = f"{ours.value:.2%}, {reference.value:.2%} unquantized"
    else:
        lost = (ours.value - reference.value) / max(abs(reference.value), 1e-12)
        seen = f"{ours.value:.4g}, {reference.value:.4g} unquantized"
    # a loss that only rounding makes larger than what is allowed is none
    if lost <= allowed + 1e-9:
        return ""
    return f"it loses {lost:.2%} of {ours.metric} ({seen}; at most {allowed:.2%} allowed)"
