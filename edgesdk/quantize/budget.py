"""Keep a budget: give the fewest nodes back to float that bring the loss within a limit.

Every kernel is first probed alone: the float graph with only this one quantized, on a few
held-out samples. Errors of kernels add up in power, so the order of their own errors says who
is to blame. Then the shortest beginning of that order that keeps the limit is found by
doubling and halving, each time measuring the whole graph; at last those that can go back
without breaking the limit do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgesdk.errors import QuantizeError
from edgesdk.progress import OnProgress, Progress
from edgesdk.quantize.compare import noise_by_output, open_candidate
from edgesdk.quantize.edit import is_transposed
from edgesdk.quantize.judge import Judge, NoiseJudge
from edgesdk.quantize.layout import Layout, Unit
from edgesdk.quantize.operands import constant_array
from edgesdk.quantize.state import State
from edgesdk.quantize.trial import Choice, Trial
from edgesdk.quantize.values import BudgetOutcome

__all__ = ["Budget", "keep_budget"]

#: Kernels are probed one by one up to this many; of more, neighbours go together.
_MOST_PROBES = 96
_PROBE_SAMPLES = 8
#: At the end so many of the kept kernels are tried in 8 bits again, the costliest first.
_RESTORES = 4
#: Time of a multiply-accumulate in float over one in 8 bits; assumed, it differs by processor.
FLOAT_OVER_INT8 = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a graph may lose.

    Attributes:
        limit: The largest drop: of the metric (0.01 is one point), or of power of the error
            over that of the answer where there are no labels.
        judge: Measures on labelled data; None compares with the float answers. Its reference
            has been set.
        required: Whether a graph that breaks the limit is refused; else a finding says so.
    """

    limit: float
    judge: Judge | None = None
    required: bool = True


@dataclass(slots=True, kw_only=True)
class _Search:
    trial: Trial
    choice: Choice
    limit: float
    judge: Judge
    state: State
    on_progress: OnProgress
    reason: str
    measured: dict[str, float] = field(default_factory=dict)
    probes: int = 0

    def drop(self, kept: Iterable[Unit]) -> float:
        """Measure the graph as it would be shipped with ``kept`` in float."""
        names = [name for unit in kept for name in unit.names]
        key = json.dumps(sorted(names))
        if key not in self.measured:
            choice = self.choice.keeping(dict.fromkeys(names, self.reason))
            model, layout = self.trial.realize(choice)
            # a graph without 8-bit kernels is no answer to what was asked
            value = math.inf if not layout.compute else self.judge.drop(open_candidate(model))
            self.measured[key] = value
            self.state.write("drops", self.measured)
        return self.measured[key]

    def holds(self, kept: Iterable[Unit]) -> bool:
        """Say whether the limit is kept with ``kept`` in float."""
        return self.drop(kept) <= self.limit


def keep_budget(
    trial: Trial,
    choice: Choice,
    budget: Budget,
    state: State,
    on_progress: OnProgress,
) -> tuple[Choice, BudgetOutcome]:
    """Find what has to stay in float, and give the choice that keeps it so.

    Raises:
        QuantizeError: Only the float graph keeps the limit.
    """
    judge: Judge
    if budget.judge is not None:
        judge, reason = budget.judge, "it loses too much in 8 bits (measured on labelled data)"
    else:
        judge = NoiseJudge(kept=trial.observed.kept)
        reason = "it loses too much in 8 bits (measured against the float answers)"
    search = _Search(
        trial=trial.finished(),
        choice=choice,
        limit=budget.limit,
        judge=judge,
        state=state,
        on_progress=on_progress,
        reason=reason,
        measured=_numbers(state.read("drops")),
    )
    before = search.drop(())
    layout = trial.layout(choice)
    if before <= budget.limit:
        return choice, _outcome(search, layout, before, ())
    groups = _ranked(search, trial, layout)
    kept = _shortest(search, groups)
    if kept is None and not budget.required:
        return choice, _outcome(search, layout, before, ())
    if kept is None:
        raise QuantizeError(
            f"cannot keep the loss of {judge.metric or 'the metric'} within {budget.limit:g}: "
            f"it is {before:.4g} with every node in 8 bits, and no mix of both keeps it",
            hint="allow more with --max-drop, give more calibration samples, or build with "
            "--precision fp32",
            drop=before,
            limit=budget.limit,
        )
    kept = _restored(search, kept)
    names = dict.fromkeys((name for unit in kept for name in unit.names), reason)
    return choice.keeping(names), _outcome(search, layout, before, kept)


def _numbers(record: dict[str, object]) -> dict[str, float]:
    return {key: float(value) for key, value in record.items() if isinstance(value, float)}


def _ranked(search: _Search, trial: Trial, layout: Layout) -> list[list[Unit]]:
    """Order kernels by the error each makes alone, the largest first."""
    units = list(layout.units.values())
    size = -(-len(units) // _MOST_PROBES)
    groups = [units[at : at + size] for at in range(0, len(units), size)]
    known = _numbers(search.state.read("probes"))
    kept = trial.observed.kept[:_PROBE_SAMPLES]
    errors = []
    for number, group in enumerate(groups):
        key = json.dumps([name for unit in group for name in unit.names])
        if key not in known:
            names = {unit.node.name or "" for unit in group}
            model = trial.realize_only(search.choice, names)
            noise = noise_by_output(open_candidate(model), kept)
            known[key] = float(sum(min(value, 1e6) for value in noise.values()))
            if search.state.due():
                search.state.write("probes", known)
        errors.append(known[key])
        search.on_progress(
            Progress(step="probe nodes", done=number + 1, total=len(groups), unit="nodes")
        )
    search.state.write("probes", known)
    # those of an earlier run count too: a build that was stopped records what a whole one does
    search.probes = len(known)
    order = sorted(range(len(groups)), key=lambda index: (-errors[index], index))
    return [groups[index] for index in order]


def _shortest(search: _Search, groups: Sequence[list[Unit]]) -> list[Unit] | None:
    """Find the shortest beginning of the order that keeps the limit."""

    def first(count: int) -> list[Unit]:
        return [unit for group in groups[:count] for unit in group]

    # to leave nothing that computes in 8 bits is no answer
    most = max(i for i, group in enumerate(groups) if any(u.role == "compute" for u in group))
    low, high = 0, 1
    while high <= most and not search.holds(first(high)):
        low, high = high, 2 * high
    if high > most:
        if low >= most or not search.holds(first(most)):
            return None
        high = most
    while high - low > 1:
        middle = (low + high) // 2
        if search.holds(first(middle)):
            high = middle
        else:
            low = middle
    return first(high)


def _restored(search: _Search, kept: list[Unit]) -> list[Unit]:
    """Give back to 8 bits what is not needed in float after all."""
    by_cost = sorted(kept, key=lambda unit: -_work(unit))
    for unit in by_cost[:_RESTORES]:
        fewer = [one for one in kept if one is not unit]
        if fewer and search.holds(fewer):
            kept = fewer
    return kept


def _outcome(
    search: _Search, layout: Layout, before: float, kept: Sequence[Unit]
) -> BudgetOutcome:
    after = search.drop(kept)
    work = sum(_work(unit) for unit in layout.units.values())
    in_float = sum(_work(unit) for unit in kept)
    share = in_float / work if work else None
    return BudgetOutcome(
        metric=search.judge.metric,
        limit=search.limit,
        reference=search.judge.reference,
        before=_plain(before),
        after=_plain(after),
        evaluations=len(search.measured),
        probes=search.probes,
        kept=tuple(name for unit in kept for name in unit.names),
        bytes_added=sum(3 * _weight_elements(unit) for unit in kept),
        float_share=None if share is None else round(share, 4),
        expected_time=None
        if share is None
        else round(1.0 + share * (FLOAT_OVER_INT8 - 1.0), 3),
    )


def _plain(value: float) -> float:
    """Give a number that JSON has."""
    return float(f"{value:.6g}") if math.isfinite(value) else 1e30


def _weight_elements(unit: Unit) -> int:
    array = constant_array(unit.node.inputs[1]) if len(unit.node.inputs) > 1 else None
    return int(array.size) if array is not None and unit.role == "compute" else 0


def _work(unit: Unit) -> float:
    """Give a kernel's multiply-accumulates for one row of an open batch; 0 where not known."""
    if unit.role != "compute":
        return 0.0
    shape = unit.node.outputs[0].shape
    if shape is None:
        return 0.0
    places = math.prod(extent if isinstance(extent, int) else 1 for extent in shape)
    weight = constant_array(unit.node.inputs[1])
    if weight is None:
        first = unit.node.inputs[0]
        last = first.shape[-1] if first is not None and first.shape is not None else 1
        return float(places * (last if isinstance(last, int) else 1))
    rows_first = unit.node.op_type == "Conv" or is_transposed(unit.node)
    wide = weight.shape[0 if rows_first else 1]
    return float(places * weight.size / max(wide, 1))
