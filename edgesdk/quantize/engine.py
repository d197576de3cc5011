"""Static quantization: observe once, try accuracy means on held-out samples, keep what pays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgesdk.errors import QuantizeError
from edgesdk.model.values import Finding
from edgesdk.profiles.values import QuantScheme
from edgesdk.progress import OnProgress, Progress, ignore_progress
from edgesdk.quantize.budget import Budget, keep_budget
from edgesdk.quantize.compare import (
    Powers,
    joined,
    noise_db,
    open_candidate,
    powers_by_sample,
    sqnr_db,
)
from edgesdk.quantize.edit import is_transposed
from edgesdk.quantize.host import give_memory_back
from edgesdk.quantize.kernels import Kernels, count_kernels
from edgesdk.quantize.layout import Layout, lay_out
from edgesdk.quantize.lints import lint_calibration, unusable_tensors
from edgesdk.quantize.means import ALL_MEANS, MEANS
from edgesdk.quantize.observe import observe
from edgesdk.quantize.openvino_kernels import (
    KernelsUnknown,
    count_openvino_kernels,
    has_openvino,
)
from edgesdk.quantize.prepare import prepare
from edgesdk.quantize.ranges import RangeMethod
from edgesdk.quantize.state import State
from edgesdk.quantize.trial import Choice, OnSettled, Settled, Trial, watch_for
from edgesdk.quantize.values import BudgetOutcome, LeftFloat, Mean, Quantized

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = ["quantize_static"]

Sample = dict[str, "np.ndarray"]

#: What a means has to gain on held-out samples to be switched on, in dB.
_GAIN_DB = 0.3
#: Multiply-accumulates of float64 up to which rounding that compensates is tried unasked: in 8
#: bits it paid on small networks only, and on large ones takes longer than everything else.
_ROUNDING_WORK = 4e7
_MOST_REASONS = 4
_RANGES: Mapping[str, RangeMethod] = {
    "range-mse": "mse",
    "range-percentile": "percentile",
    "range-entropy": "entropy",
    "range-moving-average": "moving-average",
}
_NO_KERNEL = "{runtime} made no 8-bit kernel of it (seen in the graph that it runs)"

Count = Callable[["ir.Model", Layout], Kernels]


@dataclass(slots=True, kw_only=True)
class _Job:
    """What every step of one quantization needs, and what has been found so far."""

    trial: Trial
    means: Collection[str]
    on_progress: OnProgress
    tried: list[Mean] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    judged: dict[Choice, list[Powers]] = field(default_factory=dict)

    def powers_of(self, choice: Choice) -> list[Powers]:
        """Give a choice's errors on the held-out samples."""
        if choice not in self.judged:
            session = open_candidate(self.trial.realize(choice)[0])
            self.judged[choice] = powers_by_sample(session, self.trial.observed.kept)
        return self.judged[choice]

    def noise(self, choice: Choice) -> float:
        """Give its noise in dB, over all outputs."""
        return noise_db(self.powers_of(choice))


def quantize_static(
    model: ir.Model,
    samples: Iterable[Sample],
    *,
    scheme: QuantScheme,
    precision: str = "int8",
    keep_float: Collection[str] = (),
    runtime: str = "onnxruntime",
    means: Collection[str] = MEANS,
    budget: Budget | None = None,
    total: int | None = None,
    state: State | None = None,
    on_settled: OnSettled | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Quantized:
    """Quantize ``model`` with the ranges seen in ``samples``.

    Args:
        model: A simplified float graph of opset 13 or newer (21 for 16 bits); left as it is.
        samples: Model inputs by name, each with its batch dimension; gone through once.
        scheme: Numbers and rules, from the target profile.
        precision: For the record: ``int8`` or ``int16x8``.
        keep_float: Node names and operator types that stay in float.
        runtime: What will run it; for onnxruntime its kernels are counted here.
        means: The accuracy means that may be tried; see `ALL_MEANS`.
        budget: What the graph may lose; nodes go back to float until it is kept.
        total: How many samples there will be, if known.
        state: Where to leave what a later run can go on from.
        on_settled: Told what was decided, for looking into the layers of the graph.
        on_progress: Told of samples and candidates.

    Raises:
        QuantizeError: No samples, no node to quantize, values that are not finite, a budget
            that cannot be kept.
    """
    state = state or State(None)
    keep = tuple(keep_float)
    float_model = prepare(model, keep_float=keep)
    layout = lay_out(float_model, scheme.rules, keep_float=keep)
    _refuse_nothing(float_model, layout)
    watched, chains = watch_for(float_model, layout)
    observed = observe(
        float_model, watched, samples, total=total, state=state, on_progress=on_progress
    )
    give_memory_back()
    trial = Trial(
        model=float_model, scheme=scheme, keep_float=keep, observed=observed, chains=chains
    )
    job = _Job(trial=trial, means=means, on_progress=on_progress)
    job.findings.extend(lint_calibration(float_model, layout, observed))
    choice = Choice().keeping(_keep_unusable(layout, unusable_tensors(observed)))
    _refuse_nothing(float_model, trial.layout(choice))
    count = _counter(runtime, scheme)
    if count is not None:
        try:
            choice = _keep_what_does_not_fuse(job, choice, count, runtime)
        except KernelsUnknown as exc:
            # other backends of the target take what this one does not
            job.findings.append(_not_counted(exc, runtime))
            count = None
    choice = before = _choose_means(job, choice)
    outcome = None
    if budget is not None:
        choice, outcome = keep_budget(trial, choice, budget, state, on_progress)
        if outcome.after > budget.limit:
            job.findings.append(_budget_broken(outcome))
    done = _finish(job, choice, outcome, precision=precision, count=count, runtime=runtime)
    if on_settled is not None:
        on_settled(Settled(trial=trial.finished(), before=before, after=choice))
    return done


def _finish(
    job: _Job,
    choice: Choice,
    outcome: BudgetOutcome | None,
    *,
    precision: str,
    count: Count | None,
    runtime: str,
) -> Quantized:
    trial = job.trial
    kept = trial.observed.kept
    judged = joined(job.powers_of(choice)) if kept else {}
    model, layout = trial.finished().realize(choice)
    kernels: Kernels | None = None
    if count is not None:
        kernels = count(model, layout)
    if count is not count_kernels:
        open_candidate(model)  # it has to load here too: the reference answers come from it
    ops = {node.name or "": node.op_type for node in trial.model.graph}
    left = tuple(
        LeftFloat(name=name, op=ops[name], reason=reason)
        for name, reason in layout.left.items()
    )
    if kernels is not None and kernels.float_nodes:
        job.findings.append(_not_fused(kernels, runtime))
    return Quantized(
        model=model,
        precision=precision,
        samples=trial.observed.samples,
        quantized_nodes=len(layout.node_names),
        quantized_weights=len({use.tensor for use in layout.weights}),
        left_float=left,
        means=tuple(job.tried),
        ranges=choice.ranges,
        sqnr_db={name: _short(sqnr_db(value)) for name, value in judged.items()},
        kernels=None if kernels is None else (kernels.whole, kernels.planned),
        budget=outcome,
        findings=tuple(job.findings),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _refuse_nothing(model: ir.Model, layout: Layout) -> None:
    if layout.compute:
        return
    reasons = [reason for reason in dict.fromkeys(layout.left.values()) if reason]
    raise QuantizeError(
        f"cannot quantize {model.graph.name or 'the model'}: no node was quantized "
        f"({'; '.join(reasons[:_MOST_REASONS]) or 'it has none'})",
        hint="build with --precision fp32",
    )


def _keep_unusable(layout: Layout, reasons: Mapping[str, str]) -> dict[str, str]:
    """Keep in float what reads or makes a tensor that has no range."""
    kept: dict[str, str] = {}
    for unit in layout.units.values():
        names = [unit.node.inputs[position] for position in unit.reads]
        touched = [value.name for value in (*names, *unit.results) if value is not None]
        why = next((reasons[name] for name in touched if name and name in reasons), None)
        if why is not None:
            kept.update(dict.fromkeys(unit.names, why))
    return kept


def _counter(runtime: str, scheme: QuantScheme) -> Count | None:
    """Give what counts the kernels of a runtime that is installed here; None for others."""
    if scheme.activations.startswith("int16"):
        return None
    if runtime == "onnxruntime" and scheme.rules.placement == "operators":
        return count_kernels
    if runtime == "openvino" and has_openvino():
        return count_openvino_kernels
    return None


def _not_counted(exc: KernelsUnknown, runtime: str) -> Finding:
    return Finding(
        code="kernels-not-counted",
        severity="info",
        message=f"nobody has counted the 8-bit kernels of {runtime}, which does not take the "
        f"graph as a whole: {exc}",
        hint="the build says which nodes go elsewhere, and why",
    )


def _keep_what_does_not_fuse(job: _Job, choice: Choice, count: Count, runtime: str) -> Choice:
    """Give back to float what the runtime would compute in float between conversions."""
    for _ in range(3):
        model, layout = job.trial.realize(choice)
        found = count(model, layout)
        stuck = (*found.float_nodes, *found.other_float)
        if not stuck:
            break
        why = _NO_KERNEL.format(runtime=runtime)
        more = {name: why for node in stuck for name in layout.units[node].names}
        choice = choice.keeping(more)
        _refuse_nothing(job.trial.model, job.trial.layout(choice))
    return choice


def _choose_means(job: _Job, choice: Choice) -> Choice:
    """Switch means on one after the other, each only if it gains on held-out samples."""
    wanted = [name for name in ALL_MEANS if name in job.means]
    if not job.trial.observed.kept or not wanted:
        return choice
    best = job.noise(choice)
    for number, name in enumerate(wanted):
        tried = _with(choice, name, job)
        if tried is None:
            continue
        noise = job.noise(tried)
        on = noise < best - _GAIN_DB
        job.tried.append(
            Mean(name=name, on=on, before_db=round(-best, 2), after_db=round(-noise, 2))
        )
        if on:
            choice, best = tried, noise
        job.on_progress(
            Progress(step="try means", done=number + 1, total=len(wanted), unit="means")
        )
    job.on_progress(
        Progress(step="try means", done=len(wanted), total=len(wanted), unit="means")
    )
    return choice


def _with(choice: Choice, name: str, job: _Job) -> Choice | None:
    """Give the choice with one more means on; None where it has nothing to work on."""
    if name == "bias-correction":
        return replace(choice, correct=True)
    if name == "equalization":
        return replace(choice, equalize=True) if job.trial.chains else None
    if name == "weight-range-mse":
        # a channel of 8 bits has steps to spare: on no model did a smaller range gain there
        uses = job.trial.layout(choice).weights
        coarse = "per-tensor" in job.trial.scheme.weights or any(u.axis is None for u in uses)
        return replace(choice, least_error=True) if coarse else None
    if name in _RANGES:
        return replace(choice, ranges=_RANGES[name])
    work = _rounding_work(job.trial.layout(choice))
    asked_for = tuple(job.means) != MEANS
    return replace(choice, rounding=True) if asked_for or work <= _ROUNDING_WORK else None


def _rounding_work(layout: Layout) -> float:
    """Estimate what compensated rounding costs: columns squared times rows, and cubed."""
    total = 0.0
    for unit in layout.compute:
        weight = unit.node.inputs[1]
        tensor = None if weight is None else weight.const_value
        if tensor is None:
            continue
        shape = tuple(tensor.shape.numpy())
        rows_first = unit.node.op_type == "Conv" or is_transposed(unit.node)
        rows = shape[0 if rows_first else -1]
        width = tensor.size // max(rows, 1)
        total += float(width) ** 2 * (rows + width)
    return total


def _not_fused(kernels: Kernels, runtime: str) -> Finding:
    names = ", ".join(repr(name) for name in kernels.float_nodes[:4])
    return Finding(
        code="not-fused",
        severity="warning",
        message=f"{runtime} makes 8-bit kernels of {kernels.whole} of {kernels.planned} "
        f"compute nodes; {names} and their like run in float between conversions",
        hint="keep them in float (keep_float in a recipe), or report the model",
    )


def _budget_broken(outcome: BudgetOutcome) -> Finding:
    return Finding(
        code="budget-not-kept",
        severity="warning",
        message=f"{outcome.metric} drops by {outcome.after:.4g} in 8 bits (expected at most "
        f"{outcome.limit:g}), and no mix of both precisions keeps that",
        hint="build with another precision, or give more calibration samples",
    )
